"""A schedule moves in and out: the same moments, machines and patches, and a sentence for every field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.calendar.schedule import upcoming
from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.fleet.discovery import DiscoveredMachine
from patchwave.domain.maintenance.assignment import Assignment, assignment_id, read_assignment
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration, read_configuration
from patchwave.domain.maintenance.conversion_report import NotConvertible
from patchwave.domain.maintenance.export_policy import CARE, configuration_of
from patchwave.domain.maintenance.import_policy import ImportResult, policies_of, policy_name
from patchwave.domain.maintenance.scope_mapping import MAX_NAMED
from patchwave.domain.maintenance.validation import NOTICE_WITH_EVENTS, check_configuration
from patchwave.domain.policy.policy import Policy, parse_policy

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
SUBSCRIPTIONS = ("11111111-2222-4333-8444-555555555555", "66666666-2222-4333-8444-555555555555")
GROUPS = ("rg-web", "RG-Data")
LOCATIONS = ("westeurope", "northeurope")
IDENTITY = ConfigurationId.parse(
    f"/subscriptions/{SUBSCRIPTIONS[0]}/resourceGroups/rg-updates"
    "/providers/Microsoft.Maintenance/maintenanceConfigurations/Web_Servers-Monthly"
)
BODY: dict[str, Any] = {
    "id": str(IDENTITY),
    "name": IDENTITY.name,
    "type": "microsoft.maintenance/maintenanceconfigurations",
    "location": "westeurope",
    "tags": {"team": "web"},
    "systemData": {"createdBy": "someone"},
    "properties": {
        "namespace": "patches",
        "extensionProperties": {"InGuestPatchMode": "User"},
        "maintenanceScope": "InGuestPatch",
        "maintenanceWindow": {
            "startDateTime": "2026-10-06 22:00",
            "expirationDateTime": "2031-01-01 00:00",
            "duration": "03:55",
            "timeZone": "W. Europe Standard Time",
            "recurEvery": "Month Second Tuesday Offset3",
        },
        "visibility": "Custom",
        "installPatches": {
            "rebootSetting": "AlwaysReboot",
            "windowsParameters": {
                "classificationsToInclude": ["Critical", "Security", "UpdateRollup"],
                "kbNumbersToInclude": ["KB4512508"],
                "kbNumbersToExclude": ["KB4577586"],
                "excludeKbsRequiringReboot": True,
            },
            "linuxParameters": {
                "classificationsToInclude": ["Other"],
                "packageNameMasksToInclude": ["apt", "libc=1.0.1.1"],
                "packageNameMasksToExclude": ["kernel*"],
            },
        },
    },
}


def configuration(**properties: Any) -> MaintenanceConfiguration:
    """The configuration above with other properties; ``None`` takes one away."""
    found = read_configuration(BODY | {"properties": BODY["properties"] | properties})
    assert found is not None
    return found


def machine_id(number: int, subscription: int = 0, group: int = 0) -> str:
    return (
        f"/subscriptions/{SUBSCRIPTIONS[subscription]}/resourceGroups/{GROUPS[group]}"
        f"/providers/Microsoft.Compute/virtualMachines/vm-{number:04}"
    )


def assigned(resource_id: str, criteria: dict[str, Any] | None = None) -> Assignment:
    properties = {"maintenanceConfigurationId": str(IDENTITY).lower(), "filter": criteria}
    found = read_assignment({"id": assignment_id(resource_id, "weekly"), "properties": properties})
    assert found is not None
    return found


def subscription(number: int = 0) -> str:
    return f"/subscriptions/{SUBSCRIPTIONS[number]}"


def imported(*assignments: Assignment, **properties: Any) -> ImportResult:
    return policies_of(configuration(**properties), assignments)


def paths(result: ImportResult) -> list[str]:
    return [problem.path for problem in result.problems]


# --- in: every field --------------------------------------------------------------------------------------------


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all fields that say something; what people name themselves is one field."""
    if isinstance(value, dict) and not path.endswith(("tags", "systemData")):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else key)
    elif value:
        yield path


def test_every_field_is_carried_or_has_its_sentence() -> None:
    criteria = {
        "resourceTypes": ["Microsoft.Compute/virtualMachines"],
        "resourceGroups": ["rg-web"],
        "osTypes": ["windows"],
        "locations": ["westeurope"],
        "tagSettings": {"tags": {"env": ["test"]}, "filterOperator": "Any"},
    }
    scope = assigned(subscription(), criteria)
    result = policies_of(configuration(), [scope])
    assert not result.problems
    assert all(field.becomes or field.message for field in result.fields)
    named = {field.path for field in result.fields}
    assert set(leaves(configuration().to_wire())) <= named
    assert {f"assignments[{scope.id}].filter.{key}" for key in criteria} <= named


def test_a_configuration_becomes_a_policy() -> None:
    (policy,) = imported(assigned(machine_id(1)), assigned(machine_id(2))).policies
    document = policy.to_wire()
    assert policy.name == "web-servers-monthly"
    assert policy.description == f"Moved from {IDENTITY}"
    assert not policy.enabled, "the schedule still patches the machines"
    assert document["scope"]["machineIds"] == [machine_id(1), machine_id(2)]
    assert document["schedule"] == {
        "startDate": "2026-10-06",
        "recurrence": "RRULE:FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=11,12,13,14,15,16,17;UNTIL=20301231T230000Z",
        "time": "22:00",
        "timeZone": "W. Europe Standard Time",
        "window": "PT3H55M",
        "continueInNextWindow": False,
    }
    assert document["install"]["rebootSetting"] == "Always"
    assert document["install"]["maximumDuration"] == "PT3H55M"
    assert document["install"]["windows"]["classificationsToInclude"] == ["Critical", "Security", "UpdateRollUp"]
    assert document["install"]["linux"]["packageNameMasksToInclude"] == ["apt", "libc=1.0.1.1"]
    assert (document["maxConcurrent"], document["separateZones"]) == ("100%", False)


@pytest.mark.parametrize(
    ("text", "name"),
    [("weekly", "weekly"), ("Web_Servers (EU)", "web-servers-eu"), ("x" * 40, "x" * 32), ("___", "imported")],
)
def test_names_of_configurations_become_names_of_policies(text: str, name: str) -> None:
    assert policy_name(text) == name


@pytest.mark.parametrize(
    ("properties", "path", "sentence"),
    [
        ({"maintenanceScope": "Host"}, "properties.maintenanceScope", "only InGuestPatch"),
        ({"extensionProperties": None}, "properties.extensionProperties.InGuestPatchMode", "patches nothing"),
        (
            {"extensionProperties": {"inGuestPatchMode": "Platform"}},
            "properties.extensionProperties.InGuestPatchMode",
            "'Platform', not 'User'",
        ),
        ({"maintenanceWindow": None}, "properties.maintenanceWindow", "is missing"),
        (
            {"maintenanceWindow": BODY["properties"]["maintenanceWindow"] | {"recurEvery": "6Hours"}},
            "properties.maintenanceWindow",
            "one time of the day",
        ),
        (
            {"maintenanceWindow": BODY["properties"]["maintenanceWindow"] | {"startDateTime": "2026-10-06 22:00:30"}},
            "properties.maintenanceWindow",
            "has seconds",
        ),
        (
            {"maintenanceWindow": BODY["properties"]["maintenanceWindow"] | {"startDateTime": "1999-10-06 22:00"}},
            "properties.maintenanceWindow",
            "startDate must lie between",
        ),
        (
            {"maintenanceWindow": BODY["properties"]["maintenanceWindow"] | {"duration": "long"}},
            "properties.maintenanceWindow",
            "is not a duration",
        ),
        ({"installPatches": None}, "properties.installPatches", "is missing"),
        ({"installPatches": {"linuxParameters": {}}}, "properties.installPatches", "selects nothing"),
        (
            {
                "installPatches": {
                    "rebootSetting": "Perhaps",
                    "linuxParameters": {"classificationsToInclude": ["Other"]},
                }
            },
            "properties.installPatches.rebootSetting",
            "'Perhaps' is not one of",
        ),
        (
            {"installPatches": {"linuxParameters": {"classificationsToInclude": ["Other", "Critical"]}}},
            "properties.installPatches.linuxParameters",
            "give both or neither",
        ),
        (
            {"installPatches": {"windowsParameters": {"kbNumbersToInclude": ["4512508", "x"]}}},
            "properties.installPatches.windowsParameters.kbNumbersToInclude[1]",
            "is not a KB number",
        ),
    ],
)
def test_what_a_policy_cannot_say_has_its_sentence(properties: dict[str, Any], path: str, sentence: str) -> None:
    result = imported(assigned(machine_id(1)), **properties)
    (problem,) = result.problems
    assert (problem.path, sentence in problem.message) == (path, True)


def test_other_fields_are_converted_all_the_same() -> None:
    window = BODY["properties"]["maintenanceWindow"] | {"recurEvery": "6Hours"}
    (policy,) = imported(assigned(machine_id(1)), maintenanceWindow=window).policies
    assert policy.schedule is None
    assert policy.install.windows.kb_numbers_to_include == ["KB4512508"]


def test_a_system_for_which_nothing_is_selected_is_left_out() -> None:
    patches = {"windowsParameters": {"classificationsToInclude": ["Security"]}, "linuxParameters": {}}
    linux = assigned(subscription(), {"osTypes": ["Linux"]})
    result = imported(assigned(machine_id(1)), assigned(subscription(1)), linux, installPatches=patches)
    assert not result.problems
    assert [policy.scope.os_types for policy in result.policies] == [("Windows",), ("Windows",)]
    (field,) = [field for field in result.fields if field.path.startswith(f"assignments[{linux.id}]")]
    assert "installs nothing on these systems" in field.message


# --- in: machines -----------------------------------------------------------------------------------------------


def test_one_filter_over_subscriptions_is_one_scope() -> None:
    criteria = {"locations": ["westeurope"], "tagSettings": {"tags": {"env": ["test"]}}}
    result = imported(assigned(subscription(0), criteria), assigned(subscription(1), criteria))
    (policy,) = result.policies
    assert policy.scope.subscriptions == SUBSCRIPTIONS


def test_a_scope_inside_another_adds_nothing() -> None:
    result = imported(assigned(subscription(), {"locations": ["westeurope"]}), assigned(subscription()))
    (policy,) = result.policies
    assert not policy.scope.locations


def test_selections_that_no_scope_holds_are_several_policies() -> None:
    result = imported(
        assigned(machine_id(1)),
        assigned(subscription(0), {"locations": ["westeurope"]}),
        assigned(subscription(1), {"locations": ["northeurope"]}),
    )
    assert [policy.name for policy in result.policies] == [
        "web-servers-monthly",
        "web-servers-monthly-2",
        "web-servers-monthly-3",
    ]
    assert not result.problems
    assert "one policy for each" in result.fields[-1].message


def test_named_machines_are_spread_over_policies_that_can_be_stored() -> None:
    result = policies_of(configuration(), [assigned(machine_id(number)) for number in range(MAX_NAMED + 1)], "x" * 32)
    assert [policy.name for policy in result.policies] == ["x" * 32, "x" * 30 + "-2"]
    assert [len(policy.scope.machine_ids) for policy in result.policies] == [MAX_NAMED, 1]


@pytest.mark.parametrize(
    ("resource_id", "criteria", "sentence"),
    [
        (
            f"{subscription()}/resourceGroups/rg/providers/Microsoft.Network/loadBalancers/lb",
            None,
            "neither a virtual machine nor an Arc machine",
        ),
        (subscription(), {"tagSettings": {"tags": {"env": []}}}, "can be told"),
        (f"{subscription()}/resourceGroups/rg-web", {"resourceGroups": ["other"]}, "can be told"),
    ],
)
def test_assignments_that_no_scope_can_hold_have_their_sentence(
    resource_id: str, criteria: dict[str, Any] | None, sentence: str
) -> None:
    result = imported(assigned(resource_id, criteria), assigned(machine_id(1)))
    (problem,) = result.problems
    assert sentence in problem.message
    assert len(result.policies) == 1


def test_scopes_of_other_kinds_of_resources_cost_nothing() -> None:
    result = imported(assigned(subscription(), {"resourceTypes": ["microsoft.network/loadbalancers"]}))
    assert (result.policies, result.problems) == ([], [])


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([], ["azure", "arc"]),
        (["Microsoft.Compute/virtualMachines"], ["azure"]),
        (["microsoft.hybridcompute/machines"], ["arc"]),
        (["microsoft.hybridcompute/machines", "microsoft.compute/virtualmachines"], ["azure", "arc"]),
    ],
)
def test_the_resource_types_of_a_dynamic_scope_are_the_machine_types_of_the_policy(
    types: list[str], expected: list[str]
) -> None:
    (policy,) = imported(assigned(subscription(), {"resourceTypes": types})).policies
    assert policy.scope.to_wire()["machineTypes"] == expected


def test_named_machines_of_both_types_come_into_one_policy() -> None:
    arc = f"{subscription()}/resourceGroups/rg/providers/Microsoft.HybridCompute/machines/arc"
    (policy,) = imported(assigned(arc), assigned(machine_id(1))).policies
    assert set(policy.scope.machine_ids) == {arc, machine_id(1)}
    assert policy.scope.of_other_types == []


def test_without_assignments_there_is_no_scope() -> None:
    assert paths(imported()) == ["assignments"]


# --- both ways --------------------------------------------------------------------------------------------------

criteria = st.fixed_dictionaries(
    {},
    optional={
        "resourceGroups": st.lists(st.sampled_from((*GROUPS, "rg-other")), max_size=2),
        "osTypes": st.sampled_from((["Windows"], ["linux"], ["Windows", "Linux"])),
        "locations": st.lists(st.sampled_from(("West Europe", "northeurope")), max_size=2),
        "tagSettings": st.fixed_dictionaries(
            {
                "tags": st.dictionaries(
                    st.sampled_from(("env", "Tier")),
                    st.lists(st.sampled_from(("test", "Prod")), min_size=1),
                    max_size=2,
                ),
                "filterOperator": st.sampled_from(("All", "Any")),
            }
        ),
    },
)
permits = st.one_of(
    st.integers(0, 1).map(subscription),
    st.builds(
        lambda number, group: f"{subscription(number)}/resourcegroups/{group}",
        st.integers(0, 1),
        st.sampled_from(GROUPS),
    ),
)
anything_assigned = st.one_of(
    st.builds(assigned, st.builds(machine_id, st.integers(0, 3), st.integers(0, 1), st.integers(0, 1))),
    st.builds(assigned, permits, criteria),
)
FLEET = [
    DiscoveredMachine(
        id=machine_id(number, home, group),
        resource_group=GROUPS[group].upper(),
        location=LOCATIONS[number % 2],
        os_type=("Windows", "Linux")[(number + group) % 2],
        tags=({}, {"ENV": "Test"}, {"env": "prod", "tier": "prod"}, {"tier": "TEST"})[number],
    )
    for number in range(4)
    for home in range(2)
    for group in range(2)
]


def patched_by_schedule(assignments: Sequence[Assignment], found: MaintenanceConfiguration) -> set[str]:
    patches = found.install_patches
    assert patches is not None
    systems = {"Windows"} if patches.windows_parameters else set[str]()
    systems |= {"Linux"} if patches.linux_parameters else set()
    return {
        each.id.lower()
        for each in FLEET
        if each.os_type in systems and any(assignment.holds(each) for assignment in assignments)
    }


def patched_by_policies(policies: Sequence[Policy]) -> set[str]:
    return {
        each.id.lower()
        for each in FLEET
        for policy in policies
        if policy.scope.holds(each.machine_id, location=each.location, os_type=each.os_type, tags=each.tags)
    }


sections = st.sampled_from(
    (
        ("windowsParameters", "linuxParameters"),
        ("windowsParameters", "linuxParameters"),
        ("windowsParameters",),
        ("linuxParameters",),
    )
)


@settings(max_examples=50)
@given(st.lists(anything_assigned, min_size=1, max_size=6), sections)
def test_a_round_trip_keeps_machines_moments_and_patches(assignments: list[Assignment], kept: tuple[str, ...]) -> None:
    patches = BODY["properties"]["installPatches"]
    given = configuration(installPatches={"rebootSetting": "Never"} | {name: patches[name] for name in kept})
    result = policies_of(given, assignments)
    if not result.problems:
        assert patched_by_policies(result.policies) == patched_by_schedule(assignments, given)
    enabled = [policy.model_copy(update={"enabled": True}) for policy in result.policies]
    back = [configuration_of(policy, IDENTITY, "westeurope", NOW) for policy in enabled]
    for policy, each in zip(result.policies, back, strict=True):
        made = each.configuration
        assert not check_configuration(made, NOW)
        assert patched_by_schedule(each.assignments, made) == patched_by_policies([policy])
        after = NOW + NOTICE_WITH_EVENTS
        assert policy.schedule is not None
        runs = list(islice(given.occurrences(after), 100))
        assert list(islice(made.occurrences(datetime(2000, 1, 1, tzinfo=UTC)), 100)) == runs
        assert list(islice(upcoming(policy.schedule, after), 100)) == runs
        assert made.install_patches is not None
        assert given.install_patches is not None
        for name in ("windows_parameters", "linux_parameters"):
            ours, theirs = getattr(made.install_patches, name), getattr(given.install_patches, name)
            # A policy of machines of one system has nothing to say of the other.
            if ours is not None:
                assert str(ours).casefold() == str(theirs).casefold()
        assert made.install_patches.reboot_setting == given.install_patches.reboot_setting
        again = policies_of(made, each.assignments, policy.name)
        assert not again.problems
        assert patched_by_policies(again.policies) == patched_by_policies([policy])


# --- out --------------------------------------------------------------------------------------------------------

SCHEDULE = {"recurrence": "second Tuesday", "time": "22:00", "timeZone": "Europe/Berlin", "window": "PT2H"}
PLAIN: dict[str, Any] = {
    "name": "plain",
    "scope": {"subscriptions": [SUBSCRIPTIONS[0]]},
    "schedule": SCHEDULE,
    "maxConcurrent": "100%",
    "separateZones": False,
}
MACHINE = machine_id(1)
TAGS = {"values": {"env": ["test"]}}


def refused(document: dict[str, Any], *given_up: str) -> dict[str, str]:
    """The problems of an export by path."""
    with pytest.raises(NotConvertible) as caught:
        configuration_of(parse_policy(PLAIN | document), IDENTITY, "westeurope", NOW, given_up)
    return {problem.path: problem.message for problem in caught.value.problems}


CAREFUL: dict[str, dict[str, Any]] = {
    "maxConcurrent": {"maxConcurrent": 20},
    "limits": {"limits": {"region": 5}},
    "mutuallyExclusiveTag": {"mutuallyExclusiveTag": "cluster"},
    "rings": {"rings": [{"name": "canary", "percent": 10}, {"name": "rest"}]},
    "phases": {"phases": [["westeurope"]]},
    "phaseOrder": {"phaseOrder": "fewestMachines"},
    "separateZones": {"separateZones": True},
    "availabilitySets": {"availabilitySets": {"percent": 10}},
    "scaleSets": {"scaleSets": {"percent": 10}},
    "ramp": {"ramp": True},
    "bake": {"bake": {"waves": "PT10M"}},
    "errorBudget": {"errorBudget": {"run": "10%"}},
    "rebootMode": {"rebootMode": "separate"},
    "pinRings": {"pinRings": True, "rings": [{"name": "canary", "percent": 10}, {"name": "rest"}]},
    "withoutPin": {"pinRings": True, "withoutPin": "wait", "rings": [{"name": "canary", "percent": 9}, {"name": "b"}]},
    "startStopped": {"startStopped": True},
    "hooks.snapshot": {"hooks": {"snapshot": {}}},
    "hooks.before": {"hooks": {"before": {"linux": "true"}}},
    "hooks.after": {"hooks": {"after": {"linux": "true"}}},
    "health": {"health": {"settle": "PT5M"}},
    "assess": {"assess": SCHEDULE},
    "retryInNextWindow": {"retryInNextWindow": False},
    "events": {"events": {"newMachine": True}},
    "maintenance": {"maintenance": {"configurations": [str(IDENTITY)]}},
    "notifications": {"notifications": {"channels": ["ops"]}},
    "schedule.continueInNextWindow": {"schedule": SCHEDULE | {"continueInNextWindow": True}},
    "install.maximumDuration": {"install": {"maximumDuration": "PT1H"}},
    "install.linux.maintenanceRunId": {
        "install": {"linux": {"classificationsToInclude": ["Security"], "maintenanceRunId": "x"}}
    },
}


@pytest.mark.parametrize("path", CARE)
def test_care_is_refused_or_given_up_by_name(path: str) -> None:
    problems = refused(CAREFUL[path])
    assert problems[path] == CARE[path]
    made = configuration_of(parse_policy(PLAIN | CAREFUL[path]), IDENTITY, "westeurope", NOW, [*problems])
    assert [field.message for field in made.fields if field.path == path] == [f"Given up: it {CARE[path]}."]


def test_every_key_of_a_policy_is_decided() -> None:
    decided = {path.partition(".")[0] for path in CARE} | {"name", "description", "enabled", "mode", "scope"}
    assert {field.alias or name for name, field in Policy.model_fields.items()} <= decided


@pytest.mark.parametrize(
    ("document", "path", "sentence"),
    [
        ({"enabled": False}, "enabled", "has no switch"),
        ({"mode": "assess"}, "mode", "has no mode that only looks"),
        ({"schedule": None}, "schedule", "never runs by itself"),
        ({"schedule": SCHEDULE | {"window": "PT4H"}}, "schedule.window", "PT1H30M to PT3H55M"),
        (
            {"schedule": SCHEDULE | {"timeZone": "machine"}},
            "schedule.timeZone",
            "one time zone for all of its machines",
        ),
        ({"schedule": SCHEDULE | {"recurrence": "first Friday + 20 days"}}, "schedule.recurrence", "at most 6 days"),
        ({"install": {"approvalDelayDays": 7}}, "install.approvalDelayDays", "whatever is there"),
        (
            {"install": {"windows": {"patchNameMasksToInclude": ["*SQL*"]}}},
            "install.windows.patchNameMasksToInclude",
            "on request only",
        ),
        (
            {
                "install": {
                    "windows": {"kbNumbersToInclude": ["KB4512508"], "maxPatchPublishDate": "2026-01-01T00:00:00Z"}
                }
            },
            "install.windows.maxPatchPublishDate",
            "on request only",
        ),
        ({"scope": {"tags": TAGS}}, "scope.subscriptions", "name each of them"),
        ({"scope": PLAIN["scope"] | {"exclude": {"tags": TAGS}}}, "scope.exclude.tags", "a dynamic scope cannot"),
        ({"scope": PLAIN["scope"] | {"exclude": {"machineIds": [MACHINE]}}}, "scope.exclude.machineIds", "cannot"),
        ({"scope": PLAIN["scope"] | {"exclude": {"locations": ["uksouth"]}}}, "scope.exclude.locations", "cannot"),
        ({"scope": {"machineIds": [MACHINE], "tags": TAGS}}, "scope.tags", "machines that are named"),
        ({"scope": {"machineIds": [MACHINE], "locations": ["uksouth"]}}, "scope.locations", "machines that are named"),
        (
            {"scope": PLAIN["scope"] | {"resourceGroups": [f"rg-{number}" for number in range(51)]}},
            "scope.resourceGroups",
            "at most 50",
        ),
        (
            {"scope": {"subscriptions": [f"11111111-2222-4333-8444-{number:012}" for number in range(201)]}},
            "scope.subscriptions",
            "looks in at most 200",
        ),
        (
            {"scope": {"machineIds": [machine_id(number) for number in range(3001)]}},
            "scope.machineIds",
            "at most 3,000",
        ),
    ],
)
def test_what_patches_what_and_when_cannot_be_given_up(document: dict[str, Any], path: str, sentence: str) -> None:
    problems = refused(document)
    assert sentence in problems[path]
    assert path in refused(document, path)


def test_every_reason_is_listed_at_once() -> None:
    document = {"enabled": False, "ramp": True, "scope": {"tags": TAGS}, "schedule": SCHEDULE | {"window": "PT5H"}}
    expected = {"enabled", "ramp", "scope.subscriptions", "schedule.window", "install.maximumDuration"}
    assert set(refused(document)) == expected


def test_exclusions_that_take_from_a_list_are_carried() -> None:
    scope = {
        "subscriptions": list(SUBSCRIPTIONS),
        "locations": ["westeurope", "uksouth"],
        "exclude": {"subscriptions": [SUBSCRIPTIONS[1]], "locations": ["uksouth"]},
    }
    made = configuration_of(
        parse_policy(PLAIN | {"scope": scope}), IDENTITY, "westeurope", NOW, ["install.maximumDuration"]
    )
    (one,) = made.assignments
    assert one.resource_id == subscription(0)
    assert one.filter is not None
    assert one.filter.locations == ("westeurope",)


def test_named_machines_are_assigned_one_by_one() -> None:
    scope = {"machineIds": [machine_id(1), machine_id(2, 1)], "exclude": {"subscriptions": [SUBSCRIPTIONS[1]]}}
    made = configuration_of(parse_policy(PLAIN | {"scope": scope}), IDENTITY, "westeurope", NOW)
    (one,) = made.assignments
    assert one.to_azure() == {
        "location": "westeurope",
        "properties": {"maintenanceConfigurationId": str(IDENTITY), "resourceId": machine_id(1)},
    }


@pytest.mark.parametrize(
    ("scope", "all_machines"),
    [
        ({"subscriptions": [SUBSCRIPTIONS[0]]}, True),
        ({"subscriptions": [SUBSCRIPTIONS[0]], "osTypes": ["Linux", "Windows"]}, True),
        ({"subscriptions": [SUBSCRIPTIONS[0]], "osTypes": ["Linux"]}, False),
        ({"subscriptions": [SUBSCRIPTIONS[0]], "tags": TAGS}, False),
        ({"machineIds": [machine_id(1)]}, False),
    ],
)
def test_assignments_of_a_whole_subscription_are_marked(scope: dict[str, Any], all_machines: bool) -> None:
    made = configuration_of(parse_policy(PLAIN | {"scope": scope}), IDENTITY, "westeurope", NOW)
    assert made.all_machines is all_machines
