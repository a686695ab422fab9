"""Assignments of machines and dynamic scopes: read, written, limited, and which machines they hold."""

from __future__ import annotations

from typing import Any

import pytest

from patchwave.domain.core.ids import ConfigurationId, MachineId
from patchwave.domain.fleet.discovery import DiscoveredMachine
from patchwave.domain.maintenance.assignment import (
    Assignment,
    DynamicScope,
    ScopeFilter,
    assignment_id,
    assignment_name,
    check_assignment,
    check_scopes,
    check_sizes,
    read_assignment,
)
from patchwave.domain.maintenance.queries import assignments_of_machine
from tests.support.maintenance_samples import ASSIGNMENT, CONFIGURATION, GROUP, MACHINE, SUBSCRIPTION

PROVIDER = "/providers/Microsoft.Maintenance/configurationAssignments/"


def assigned(resource: str = GROUP, name: str = "TestAzureInGuestAdv", **criteria: Any) -> Assignment:
    body: dict[str, Any] = {"id": resource + PROVIDER + name, "properties": dict(ASSIGNMENT["properties"])}
    if criteria:
        body["properties"]["filter"] = criteria
    found = read_assignment(body)
    assert found is not None
    return found


def machine(**changes: Any) -> DiscoveredMachine:
    facts: dict[str, Any] = {"location": "westeurope", "os_type": "Linux", "tags": {"Env": "Prod"}}
    return DiscoveredMachine(id=MACHINE, **(facts | changes))


def test_the_documented_body_is_sent_with_the_resource_of_its_address() -> None:
    found = read_assignment(ASSIGNMENT | {"id": MACHINE + PROVIDER + "TestAzureInGuestAdv"})
    assert found is not None
    assert (found.name, found.machine_id is not None, found.is_dynamic) == ("TestAzureInGuestAdv", True, False)
    sent = found.to_azure()
    assert sent["properties"].pop("resourceId") == MACHINE
    assert sent == ASSIGNMENT


def test_the_documented_query_finds_the_names_to_delete() -> None:
    found = assigned(MACHINE)
    assert found.machine_id is not None
    text = assignments_of_machine(found.machine_id, found.configuration_id)
    assert text.splitlines()[:4] == [
        "maintenanceresources",
        "| where type =~ 'microsoft.maintenance/configurationassignments'",
        f"| where properties.maintenanceConfigurationId =~ '{found.configuration_id}'",
        f"| where properties.resourceId =~ '{MACHINE}'",
    ]
    assert "name" in text
    assert "properties.maintenanceConfigurationId" not in assignments_of_machine(found.machine_id)


def test_an_assignment_to_an_arc_machine_is_one_of_a_machine() -> None:
    arc = MACHINE.replace("Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines")
    found = read_assignment(
        {"id": f"{arc}{PROVIDER}x", "properties": {"maintenanceConfigurationId": CONFIGURATION}, "location": "eastus"}
    )
    assert found is not None
    assert (found.machine_id, found.is_dynamic, check_assignment(found)) == (MachineId.parse(arc), False, [])
    assert found.holds(machine().model_copy(update={"id": arc}))
    assert not found.holds(machine())


@pytest.mark.parametrize(
    ("types", "azure", "arc"),
    [
        ([], True, True),
        (["Microsoft.Compute/virtualMachines"], True, False),
        (["microsoft.hybridcompute/Machines"], False, True),
        (["microsoft.compute/virtualmachines", "microsoft.hybridcompute/machines"], True, True),
        (["microsoft.network/loadbalancers"], False, False),
    ],
)
def test_which_types_of_machines_a_dynamic_scope_holds(types: list[str], azure: bool, arc: bool) -> None:
    found = assigned(GROUP, resourceTypes=types)
    other = MACHINE.replace("Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines")
    assert (found.holds(machine()), found.holds(machine().model_copy(update={"id": other}))) == (azure, arc)


def test_recorded_spellings_are_read() -> None:
    lowered = {
        "id": (MACHINE + PROVIDER).lower() + "x",
        "properties": {"MaintenanceConfigurationId": CONFIGURATION.lower(), "filter": None},
    }
    found = read_assignment(lowered)
    assert found is not None
    assert found.configuration_id == ConfigurationId.parse(CONFIGURATION)
    assert found.holds(machine())
    assert found.location == ""
    assert read_assignment({"id": MACHINE}) is None
    assert read_assignment({}) is None


@pytest.mark.parametrize(
    ("criteria", "holds"),
    [
        ({"locations": ["West Europe"]}, True),
        ({"locations": ["northeurope"]}, False),
        ({"osTypes": ["linux"]}, True),
        ({"osTypes": ["Windows"]}, False),
        ({"osTypes": ["Plan9"]}, False),
        ({"resourceTypes": ["Microsoft.Compute/VirtualMachines"]}, True),
        ({"resourceTypes": ["microsoft.hybridcompute/machines"]}, False),
        ({"resourceGroups": ["ATSCALEPATCHING"]}, True),
        ({"resourceGroups": ["other"]}, False),
        ({"tagSettings": {"tags": {"env": ["prod"]}, "filterOperator": "All"}}, True),
        ({"tagSettings": {"tags": {"env": ["prod"], "team": ["a"]}, "filterOperator": "All"}}, False),
        ({"tagSettings": {"tags": {"env": ["prod"], "team": ["a"]}, "filterOperator": "Any"}}, True),
        ({"tagSettings": {"tags": {"env": []}}}, False),
        ({"tagSettings": {"tags": {}}}, True),
        ({"locations": None, "osTypes": []}, True),
    ],
)
@pytest.mark.parametrize("place", [GROUP, f"/subscriptions/{SUBSCRIPTION.upper()}"])
def test_which_machines_a_dynamic_scope_holds(place: str, criteria: dict[str, Any], holds: bool) -> None:
    found = assigned(place, **criteria)
    assert found.is_dynamic
    assert found.holds(machine()) is holds


def test_a_dynamic_scope_holds_nothing_elsewhere() -> None:
    other = MACHINE.replace("atscalepatching/", "another/")
    assert not assigned(GROUP).holds(DiscoveredMachine(id=other))
    assert assigned(f"/subscriptions/{SUBSCRIPTION}").holds(DiscoveredMachine(id=other))
    assert not assigned("/subscriptions/" + SUBSCRIPTION.replace("aaaa", "bbbb")).holds(machine())
    assert not assigned(MACHINE).holds(DiscoveredMachine(id=other))


@pytest.mark.parametrize("text", ["", "/subscriptions/x", MACHINE, GROUP + "/", f"{GROUP}/.."])
def test_what_is_no_dynamic_scope(text: str) -> None:
    assert DynamicScope.parse(text) is None


@pytest.mark.parametrize(
    ("found", "path", "said"),
    [
        (assigned(GROUP, osTypes=["Linux"]), "filter.locations", "needs at least one region"),
        (assigned(GROUP, locations=["a"], osTypes=["BSD"]), "filter.osTypes", "not one of Windows, Linux"),
        (assigned(GROUP, locations=["a"], resourceTypes=["x/y"]), "filter.resourceTypes", "virtualmachines"),
        (
            assigned(GROUP, locations=["a"], tagSettings={"tags": {"a": ["b"]}, "filterOperator": "One"}),
            "filter.tagSettings.filterOperator",
            "All, Any",
        ),
        (
            assigned(GROUP, locations=["a"], tagSettings={"tags": {"a": []}}),
            "filter.tagSettings.tags['a']",
            "no values",
        ),
        (
            assigned(GROUP, locations=["a"], tagSettings={"tags": {str(number): ["b"] for number in range(51)}}),
            "filter.tagSettings.tags",
            "51 tags; at most 50",
        ),
        (
            assigned(GROUP, locations=["a"], resourceGroups=[f"g{number}" for number in range(51)]),
            "filter.resourceGroups",
            "51 resource groups; at most 50",
        ),
        (assigned(MACHINE, osTypes=["Linux"]), "filter", "for dynamic scopes"),
        (assigned(MACHINE.replace("virtualMachines", "disks")), "resourceId", "neither a machine"),
        (
            assigned(MACHINE).model_copy(update={"maintenance_configuration_id": "x"}),
            "configurationId",
            "not the id of a maintenance configuration",
        ),
    ],
)
def test_each_limit_is_named_at_its_path(found: Assignment, path: str, said: str) -> None:
    [problem] = check_assignment(found)
    assert problem.path == path
    assert said in problem.message


def test_the_region_is_needed_for_a_group_only() -> None:
    assert check_assignment(assigned(GROUP, locations=["westeurope"])) == []
    assert check_assignment(assigned(f"/subscriptions/{SUBSCRIPTION}", osTypes=["Linux"])) == []
    assert check_assignment(assigned(MACHINE)) == []


@pytest.mark.parametrize(
    ("machines", "in_scope", "said"),
    [(3_000, 1_000, []), (3_001, None, ["at most 3,000"]), (10, 1_001, ["at most 1,000"])],
)
def test_a_schedule_and_a_scope_hold_so_many_machines(machines: int, in_scope: int | None, said: list[str]) -> None:
    problems = check_sizes(machines, in_scope)
    assert len(problems) == len(said)
    assert all(text in problem.message for text, problem in zip(said, problems, strict=True))


def test_a_schedule_has_so_many_scopes_and_subscriptions() -> None:
    scopes = [assigned(f"/subscriptions/{number:08x}-0000-4000-8000-000000000000") for number in range(200)]
    assert check_scopes([*scopes, assigned(MACHINE)]) == []
    [several] = check_scopes([*scopes, scopes[0]])
    assert "201 dynamic scopes; a schedule has at most 200" in several.message
    both = check_scopes([*scopes, assigned("/subscriptions/ffffffff-0000-4000-8000-000000000000")])
    assert ["201 dynamic scopes" in both[0].message, "201 subscriptions" in both[1].message] == [True, True]


def test_names_are_the_same_for_the_same_and_differ_for_configurations_of_one_name() -> None:
    one = ConfigurationId.parse(CONFIGURATION)
    other = ConfigurationId.parse(CONFIGURATION.replace("resourceGroups/atscalepatching", "resourceGroups/other"))
    linux, windows = ScopeFilter(os_types=("Linux",)), ScopeFilter(os_types=("Windows",))
    names = {assignment_name(one), assignment_name(other), assignment_name(one, linux), assignment_name(one, windows)}
    assert len(names) == 4
    assert assignment_name(one, linux) == assignment_name(one, ScopeFilter(os_types=("Linux",)))
    for name in names:
        assert assignment_id(GROUP, name).endswith(name)
    for wrong in ("", "a/b", "a?b", "..", "a" * 261):
        with pytest.raises(ValueError, match="1 to 260"):
            assignment_id(GROUP, wrong)


# --- the same filter, and filters that select everything -------------------------------------------------------

FILTER: dict[str, Any] = {
    "osTypes": ["Linux", "Windows"],
    "locations": ["westeurope", "northeurope"],
    "resourceGroups": ["rg-a", "rg-b"],
    "tagSettings": {"filterOperator": "Any", "tags": {"env": ["prod", "stage"], "tier": ["web"]}},
}
SPELLED: dict[str, Any] = {
    "resourceGroups": ["RG-B", "rg-a", "rg-A"],
    "locations": ["North Europe", "WestEurope"],
    "osTypes": ["windows", "linux"],
    "tagSettings": {"filterOperator": "any", "tags": {"Tier": ["WEB"], "ENV": ["stage", "Prod"]}},
}


def test_the_same_filter_in_another_order_or_case_is_the_same_assignment() -> None:
    one, other = ScopeFilter.model_validate(FILTER), ScopeFilter.model_validate(SPELLED)
    configuration = ConfigurationId.parse(CONFIGURATION)
    assert assignment_name(configuration, one) == assignment_name(configuration, other)
    first = assigned(GROUP, "first", **FILTER)
    assert first.is_same_as(assigned(GROUP.upper().replace("SUBSCRIPTIONS", "subscriptions"), "second", **SPELLED))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("osTypes", ["Linux"]),
        ("locations", ["westeurope"]),
        ("resourceGroups", ["rg-a"]),
        ("resourceTypes", ["microsoft.hybridcompute/machines"]),
        ("tagSettings", {"filterOperator": "All", "tags": {"env": ["prod", "stage"], "tier": ["web"]}}),
        ("tagSettings", {"filterOperator": "Any", "tags": {"env": ["prod"], "tier": ["web"]}}),
        ("tagSettings", None),
    ],
)
def test_another_filter_is_another_assignment(key: str, value: Any) -> None:
    one, other = ScopeFilter.model_validate(FILTER), ScopeFilter.model_validate(FILTER | {key: value})
    configuration = ConfigurationId.parse(CONFIGURATION)
    assert assignment_name(configuration, one) != assignment_name(configuration, other)
    assert not assigned(GROUP, **FILTER).is_same_as(assigned(GROUP, **(FILTER | {key: value})))


def test_all_and_any_of_one_tag_are_the_same() -> None:
    found = [
        ScopeFilter.model_validate({"tagSettings": {"filterOperator": word, "tags": {"env": ["prod"]}}}).identity
        for word in ("All", "Any")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("criteria", "is_empty"),
    [
        ({}, True),
        ({"tagSettings": {"tags": {}}}, True),
        ({"tagSettings": None, "locations": [], "osTypes": [], "resourceGroups": []}, True),
        ({"resourceTypes": ["Microsoft.Compute/virtualMachines"]}, True),
        ({"osTypes": ["windows", "Linux"]}, True),
        ({"osTypes": ["Linux"]}, False),
        ({"locations": ["westeurope"]}, False),
        ({"resourceGroups": ["rg"]}, False),
        ({"tagSettings": {"tags": {"env": ["prod"]}}}, False),
    ],
)
def test_a_filter_that_leaves_no_machine_out_is_empty(criteria: dict[str, Any], is_empty: bool) -> None:
    assert ScopeFilter.model_validate(criteria).is_empty is is_empty


def test_the_operator_is_sent_as_azure_spells_it() -> None:
    given = ScopeFilter.model_validate({"tagSettings": {"filterOperator": "ANY", "tags": {"env": ["prod"]}}})
    assert given.tag_settings is not None
    assert given.tag_settings.filter_operator == "Any"
