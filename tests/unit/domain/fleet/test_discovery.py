"""Queries are built from validated values only; rows are read leniently and decided by the scope."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import Reason
from patchwave.domain.fleet.discovery import (
    IDS_PER_QUERY,
    SUBSCRIPTIONS_PER_QUERY,
    UNIQUE_IDS_PER_QUERY,
    DiscoveredMachine,
    build_queries,
    evaluate_duplicates,
    literal,
    missing_ids,
    missing_scale_sets,
    read_row,
    select_machines,
    twins_queries,
)
from patchwave.domain.policy.scope import Scope

SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
OTHER_SUBSCRIPTION = "22222222-2222-2222-2222-222222222222"


def machine_id(name: str = "web-01", subscription: str = SUBSCRIPTION) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/rg-web/providers/Microsoft.Compute/virtualMachines/{name}"


def read_literal(text: str) -> tuple[str, str]:
    """Read one KQL string literal the way the service does; the value and what follows it."""
    assert text[0] == "'"
    value: list[str] = []
    position = 1
    while text[position] != "'":
        if text[position] == "\\":
            position += 1
            value.append({"n": "\n", "r": "\r", "t": "\t"}.get(text[position], text[position]))
        else:
            value.append(text[position])
        position += 1
    return "".join(value), text[position + 1 :]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "'plain'"),
        ("it's", r"'it\'s'"),
        ('say "x"', "'say \"x\"'"),
        ("a\\b", r"'a\\b'"),
        ("\\'", r"'\\\''"),
        ("one\ntwo\r\t", r"'one\ntwo\r\t'"),
        ("') or 1 == 1 //", r"'\') or 1 == 1 //'"),
    ],
)
def test_literals_are_escaped(text: str, expected: str) -> None:
    assert literal(text) == expected


@settings(deadline=None)
@given(st.text(alphabet=st.characters(blacklist_categories=("Cc", "Cs")) | st.sampled_from("'\"\\\n\r\t|")))
def test_a_literal_reads_back_as_exactly_the_text_and_nothing_follows(text: str) -> None:
    assert read_literal(literal(text)) == (text, "")


@pytest.mark.parametrize("text", ["\0", "a\x07b", "\x7f"])
def test_control_characters_never_enter_a_query(text: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        literal(text)


def test_the_query_of_a_full_scope() -> None:
    scope = Scope.model_validate(
        {
            "subscriptions": [SUBSCRIPTION],
            "resourceGroups": ["rg-web", "rg-db"],
            "locations": ["West Europe"],
            "osTypes": ["Linux"],
            "tags": {"match": "all", "values": {"env": ["prod", "test"], "tier": ["web"]}},
            "exclude": {"resourceGroups": ["rg-lab"], "locations": ["northeurope"]},
        }
    )
    [query] = build_queries(scope)
    assert query.subscriptions == (SUBSCRIPTION,)
    lines = query.text.splitlines()
    assert lines[:2] == [
        "resources",
        "| where type =~ 'microsoft.compute/virtualmachines' or (type =~ 'microsoft.compute/virtualmachinescalesets'"
        " and tostring(properties.orchestrationMode) !~ 'Flexible')",
    ]
    assert lines[2:-2] == [
        f"| where subscriptionId in~ ('{SUBSCRIPTION}')",
        "| where resourceGroup in~ ('rg-web', 'rg-db')",
        "| where location in~ ('westeurope')",
        "| where (tostring(properties.storageProfile.osDisk.osType) in~ ('Linux')"
        " or tostring(properties.virtualMachineProfile.storageProfile.osDisk.osType) in~ ('Linux'))",
        "| where (tostring(tags) contains 'env' and (tostring(tags) contains 'prod' or tostring(tags) contains 'test'))"
        " and (tostring(tags) contains 'tier' and (tostring(tags) contains 'web'))",
        "| where not (resourceGroup in~ ('rg-lab'))",
        "| where not (location in~ ('northeurope'))",
    ]
    assert lines[-2].startswith("| project id, name, subscriptionId, resourceGroup, location, zones, tags, osType = ")
    assert "windowsTimeZone = tostring(properties.osProfile.windowsConfiguration.timeZone)" in lines[-2]
    assert lines[-1] == "| order by id asc"


def test_without_subscriptions_all_that_the_identity_can_read_are_queried() -> None:
    [query] = build_queries(Scope.model_validate({"locations": ["westeurope"]}))
    assert query.subscriptions == ()


def test_many_ids_are_queried_in_chunks_each_with_its_own_subscriptions() -> None:
    ids = [machine_id(f"vm-{number:03}") for number in range(IDS_PER_QUERY + 1)]
    scope = Scope.model_validate({"machineIds": [*ids, ids[0].upper(), machine_id("vm-000", OTHER_SUBSCRIPTION)]})
    queries = build_queries(scope)
    asked = [re.findall(r"'(/[^']+)'", query.text) for query in queries]
    assert [len(chunk) for chunk in asked] == [IDS_PER_QUERY, 2]
    assert {name.lower() for chunk in asked for name in chunk} == {text.lower() for text in scope.machine_ids}
    assert [query.subscriptions for query in queries] == [(SUBSCRIPTION,), (SUBSCRIPTION, OTHER_SUBSCRIPTION)]


def test_ids_outside_the_scope_are_not_queried() -> None:
    scope = Scope.model_validate(
        {
            "subscriptions": [SUBSCRIPTION],
            "machineIds": [machine_id(), machine_id("web-02"), machine_id("web-03", OTHER_SUBSCRIPTION)],
            "exclude": {"machineIds": [machine_id("WEB-02")]},
        }
    )
    [query] = build_queries(scope)
    assert re.findall(r"'(/[^']+)'", query.text) == [machine_id()]


def test_many_subscriptions_are_queried_in_groups() -> None:
    subscriptions = [f"{number:08x}-0000-0000-0000-000000000000" for number in range(SUBSCRIPTIONS_PER_QUERY + 1)]
    queries = build_queries(Scope.model_validate({"subscriptions": subscriptions}))
    assert [len(query.subscriptions) for query in queries] == [SUBSCRIPTIONS_PER_QUERY, 1]


@pytest.mark.parametrize(
    ("tags", "condition"),
    [
        ({"match": "any", "values": {"a": ["1"], "b": ["2"]}}, " or "),
        ({"values": {"a": ["it's"]}}, "(tostring(tags) contains 'a')"),
        ({"match": "any", "values": {"a": ["1"], "ü": ["ß"]}}, None),
        ({"values": {"a": ["1"], "ü": ["ß"]}}, "contains 'a'"),
    ],
)
def test_tags_are_only_queried_where_the_result_cannot_lose_a_machine(
    tags: dict[str, object], condition: str | None
) -> None:
    [query] = build_queries(Scope.model_validate({"tags": tags}))
    asked = [line for line in query.text.splitlines() if line.startswith("| where ") and "contains" in line]
    if condition is None:
        assert asked == []
    else:
        assert condition in asked[0]


TAG_TEXT = st.text(alphabet="aZ'\"\\| ()é\n", min_size=0, max_size=6)


@settings(deadline=None)
@given(st.dictionaries(TAG_TEXT, st.lists(TAG_TEXT, min_size=1, max_size=3), min_size=1, max_size=3))
def test_hostile_tags_never_leave_their_literals(values: dict[str, list[str]]) -> None:
    try:
        scope = Scope.model_validate({"tags": {"values": values}})
    except ValueError:
        return
    [query] = build_queries(scope)
    outside: list[str] = []
    rest = query.text
    while "'" in rest:
        before, _, _ = rest.partition("'")
        outside.append(before)
        _, rest = read_literal(rest[len(before) :])
    outside.append(rest)
    assert "".join(outside).count("\n|") == 3 + ("contains" in query.text)


def row(name: str = "web-01", **columns: object) -> dict[str, object]:
    return {"id": machine_id(name), "location": "westeurope", "osType": "Linux", "tags": None} | columns


def test_a_full_row() -> None:
    machine = read_row(
        row(
            name="web-01",
            subscriptionId=SUBSCRIPTION.upper(),
            resourceGroup="rg-web",
            zones=["1"],
            tags={"env": "prod", "empty": None, "number": 7},
            powerState="PowerState/running",
            vmSize="Standard_D2s_v5",
            imageReference={
                "publisher": "Canonical",
                "offer": "ubuntu-24_04-lts",
                "sku": "server",
                "version": "latest",
                "exactVersion": "24.04.202610010",
            },
            linuxPatchMode="AutomaticByPlatform",
            windowsPatchMode="",
            availabilitySetId=None,
            somethingNew={"x": 1},
        )
    )
    assert machine is not None
    assert machine.name == "web-01"
    assert machine.subscription_id == SUBSCRIPTION
    assert machine.zones == ("1",)
    assert machine.tags == {"env": "prod", "empty": "", "number": "7"}
    assert machine.image == "Canonical:ubuntu-24_04-lts:server:latest"
    assert machine.patch_mode == "AutomaticByPlatform"
    assert machine.availability_set_id == ""


def test_a_row_with_nothing_but_its_id() -> None:
    machine = read_row({"id": machine_id("db-7"), "zones": None, "tags": [], "imageReference": {"id": "/custom"}})
    assert machine is not None
    assert (machine.name, machine.subscription_id, machine.resource_group) == ("db-7", SUBSCRIPTION, "rg-web")
    assert (machine.zones, machine.tags, machine.image, machine.power_state) == ((), {}, "/custom", "")


SETS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-web/providers/Microsoft.Compute/virtualMachineScaleSets"


@pytest.mark.parametrize(("shown", "known"), [(0, "0"), ("2", "2"), (-1, ""), ("-1", ""), (None, ""), (True, "")])
def test_the_fault_domain_of_a_member(shown: object, known: str) -> None:
    found = read_row(row(scaleSetId=f"{SETS}/vmss-web", faultDomain=shown))
    assert (found.scale_set_id, found.fault_domain, found.problem) == (f"{SETS}/vmss-web", known, "")


def uniform(name: str = "vmss-uniform", **columns: object) -> dict[str, object]:
    return {"id": f"{SETS}/{name}", "location": "westeurope", "profileOsType": "Linux", "instances": 7} | columns


def test_a_uniform_scale_set_is_left_out_by_name_and_with_its_size() -> None:
    found = read_row(uniform())
    assert (found.name, found.subscription_id, found.resource_group) == ("vmss-uniform", SUBSCRIPTION, "rg-web")
    assert (found.problem_reason.value, found.is_uniform_set, found.os_type) == ("uniform_scale_set", True, "Linux")
    assert found.problem.startswith("It is a Uniform scale set with 7 instances, which Azure cannot assess or patch")
    assert "set, which" in read_row(uniform(instances=None)).problem


@pytest.mark.parametrize(
    ("scope", "is_inside"),
    [
        ({"subscriptions": [SUBSCRIPTION]}, True),
        ({"resourceGroups": ["RG-WEB"], "osTypes": ["Linux"]}, True),
        ({"osTypes": ["Windows"]}, False),
        ({"locations": ["northeurope"]}, False),
        ({"tags": {"values": {"env": ["prod"]}}}, False),
        ({"machineIds": [machine_id()]}, False),
        ({"scaleSets": [f"{SETS}/VMSS-Uniform"]}, True),
        ({"scaleSets": [f"{SETS}/vmss-web"]}, False),
        ({"exclude": {"resourceGroups": ["rg-web"]}}, False),
    ],
)
def test_a_uniform_scale_set_is_selected_as_a_machine_is(scope: dict[str, object], is_inside: bool) -> None:
    found = select_machines(Scope.model_validate(scope), [uniform(), uniform()])
    assert [each.name for each in found] == ["vmss-uniform"] * is_inside


def test_members_of_named_scale_sets() -> None:
    scope = Scope.model_validate({"scaleSets": [f"{SETS}/vmss-web", f"{SETS}/VMSS-WEB", f"{SETS}/vmss-none"]})
    rows = [row("in-1", scaleSetId=f"{SETS}/VMSS-web"), row("other", scaleSetId=f"{SETS}/vmss-db"), row("alone")]
    found = select_machines(scope, rows)
    assert [machine.name for machine in found] == ["in-1"]
    assert missing_scale_sets(scope, [machine.scale_set_id for machine in found]) == [f"{SETS}/vmss-none"]
    [query] = build_queries(scope)
    assert query.subscriptions == (SUBSCRIPTION,)
    listed = f"('{SETS}/vmss-web', '{SETS}/vmss-none')"
    condition = f"| where (tostring(properties.virtualMachineScaleSet.id) in~ {listed} or id in~ {listed})"
    assert condition in query.text.splitlines()


@pytest.mark.parametrize(
    ("broken", "shown"),
    [
        ({"id": "/subscriptions/x"}, "/subscriptions/x"),
        ({"id": machine_id("a..b")}, machine_id("a..b")),
        ({"id": machine_id("a b"), "problem": ""}, machine_id("a b")),
        ({"id": None, "subscriptionId": "s", "resourceGroup": "g", "name": "n"}, "s/g/n"),
        ({"id": 7, "name": "n"}, "//n"),
        ({}, "//"),
    ],
)
def test_a_row_with_an_id_that_cannot_be_read_is_a_machine_with_a_problem(
    broken: dict[str, object], shown: str
) -> None:
    machine = read_row(broken)
    assert machine.id == shown
    assert shown in machine.problem
    assert re.fullmatch("[0-9a-f]{24}", machine.machine_id.key)
    assert select_machines(Scope(), [broken, broken]) == [machine]


def test_a_machine_with_a_problem_is_in_a_scope_by_its_other_columns() -> None:
    odd = {"id": machine_id("a..b"), "location": "West Europe", "osType": "Linux", "tags": {"env": "prod"}}
    inside: list[dict[str, Any]] = [
        {"subscriptions": [SUBSCRIPTION]},
        {"resourceGroups": ["RG-WEB"], "locations": ["westeurope"]},
        {"osTypes": ["Linux"], "tags": {"values": {"ENV": ["Prod"]}}},
    ]
    outside: list[dict[str, Any]] = [
        {"subscriptions": [OTHER_SUBSCRIPTION]},
        {"osTypes": ["Windows"]},
        {"machineIds": [machine_id("a")]},
        {"subscriptions": [SUBSCRIPTION], "exclude": {"resourceGroups": ["rg-web"]}},
    ]
    for document in inside:
        assert [each.name for each in select_machines(Scope.model_validate(document), [odd])] == ["a..b"]
    for document in outside:
        assert select_machines(Scope.model_validate(document), [odd]) == []


def test_a_column_named_problem_makes_none() -> None:
    assert read_row({"id": machine_id(), "problem": "made up"}).problem == ""


def test_names_in_other_scripts_are_queried_in_both_cases() -> None:
    scope = Scope.model_validate(
        {
            "resourceGroups": ["rg-LÄDEN", "rg-web"],
            "machineIds": [machine_id("VM-GRÖßE")],
            "exclude": {"resourceGroups": ["rg-läden-alt", "rg-old"]},
        }
    )
    [query] = build_queries(Scope.model_validate({**scope.to_wire(), "resourceGroups": ["rg-web"]}))
    upper, lower = machine_id("VM-GRÖßE"), machine_id("vm-größe").lower()
    assert f"| where (id in~ ('{upper}') or tolower(id) in~ ('{lower}'))" in query.text
    # An exclusion may only narrow by what compares the same everywhere; the scope does the rest.
    assert "| where not (resourceGroup in~ ('rg-old'))" in query.text
    [query] = build_queries(Scope.model_validate({"resourceGroups": ["rg-LÄDEN", "rg-web"]}))
    assert "(resourceGroup in~ ('rg-LÄDEN', 'rg-web') or tolower(resourceGroup) in~ ('rg-läden'))" in query.text
    [query] = build_queries(Scope.model_validate({"osTypes": ["Linux"], "exclude": {"resourceGroups": ["rg-läden"]}}))
    assert "not (" not in query.text


def test_machines_in_scope_are_listed_once_in_order() -> None:
    scope = Scope.model_validate({"tags": {"values": {"env": ["prod"]}}})
    upper = machine_id("b").upper().replace("/SUBSCRIPTIONS", "/subscriptions")
    rows = [
        row("c", tags={"Env": "PROD"}),
        row("a", tags={"env": "prod"}),
        row("b", tags={"ENV": "prod"}),
        row("b", tags={"ENV": "prod"}) | {"id": upper},
        row("d", tags={"note": "env prod"}),
        {"id": "nonsense"},  # in no tag of the scope
    ]
    assert [machine.id for machine in select_machines(scope, rows)] == [machine_id(name) for name in "abc"]


def test_requested_ids_that_were_not_found() -> None:
    scope = Scope.model_validate(
        {
            "machineIds": [machine_id("z"), machine_id("found"), machine_id("a"), machine_id("out")],
            "exclude": {"machineIds": [machine_id("OUT")]},
        }
    )
    found = [MachineId.parse(machine_id("FOUND"))]
    assert [machine.name for machine in missing_ids(scope, found)] == ["z", "a"]


# --- Arc machines ------------------------------------------------------------------------------------------------

UNIQUE = "01234567-89ab-cdef-0123-456789abcdef"
REVERSED = "67452301-ab89-efcd-0123-456789abcdef"


def arc_id(name: str = "srv-01") -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-arc/providers/Microsoft.HybridCompute/machines/{name}"


def arc(**columns: Any) -> DiscoveredMachine:
    return read_row({"id": arc_id(), "osType": "linux", "powerState": "Connected"} | columns)


def test_each_type_of_machine_is_queried_apart() -> None:
    scope = {"subscriptions": [SUBSCRIPTION], "osTypes": ["Linux"], "machineTypes": ["azure", "arc"]}
    vms, arcs = build_queries(Scope.model_validate(scope), ["timeCreated = tostring(properties.timeCreated)"])
    assert vms.text.splitlines()[1].startswith("| where type =~ 'microsoft.compute/virtualmachines' or ")
    assert arcs.text.splitlines()[:4] == [
        "resources",
        "| where type =~ 'microsoft.hybridcompute/machines'",
        f"| where subscriptionId in~ ('{SUBSCRIPTION}')",
        "| where (tostring(properties.osType) in~ ('Linux'))",
    ]
    assert "powerState = tostring(properties.status)" in arcs.text
    assert "timeCreated = " in arcs.text


def test_ids_are_asked_for_among_their_own_type() -> None:
    scope = Scope.model_validate({"machineIds": [machine_id(), arc_id()], "machineTypes": ["azure", "arc"]})
    vms, arcs = build_queries(scope)
    assert (machine_id() in vms.text, arc_id() in vms.text) == (True, False)
    assert (machine_id() in arcs.text, arc_id() in arcs.text) == (False, True)
    assert len(build_queries(Scope.model_validate({"machineIds": [arc_id()], "machineTypes": ["azure", "arc"]}))) == 1


def test_a_row_of_an_arc_machine_is_a_machine() -> None:
    found = arc(imageReference="Ubuntu 22.04.4 LTS", location="westeurope", tags={"site": "plant-1"})
    assert (found.is_arc, found.problem, found.os_type) == (True, "", "Linux")
    assert (found.power_state, found.image, found.zones) == ("Connected", "Ubuntu 22.04.4 LTS", ())
    assert found.machine_id.is_arc


def test_a_scope_holds_only_the_types_that_it_names() -> None:
    rows = [{"id": machine_id(), "osType": "Linux"}, {"id": arc_id(), "osType": "linux"}]
    for types, expected in ((["azure"], [machine_id()]), (["arc"], [arc_id()])):
        scope = Scope.model_validate({"subscriptions": [SUBSCRIPTION], "machineTypes": types})
        assert [each.id for each in select_machines(scope, rows)] == expected


def test_virtual_machines_have_no_twins() -> None:
    assert twins_queries([read_row({"id": machine_id(), "vmId": UNIQUE})]) == []
    assert twins_queries([arc(vmId="N/A")]) == []


def test_twins_are_looked_for_by_either_id_and_in_both_orders_of_bytes() -> None:
    [query] = twins_queries([arc(vmId=UNIQUE.upper(), vmUuid="")])
    assert query.subscriptions == ()
    assert f"| where tostring(properties.vmId) in~ ('{UNIQUE}', '{REVERSED}')" in query.text.splitlines()


def test_twins_of_many_machines_are_looked_for_in_chunks() -> None:
    machines = [arc(vmUuid=f"01234567-89ab-cdef-0123-{number:012x}") for number in range(UNIQUE_IDS_PER_QUERY)]
    queries = twins_queries(machines)
    assert [query.text.count("89ab-cdef") for query in queries] == [UNIQUE_IDS_PER_QUERY, 0]
    assert [query.text.count("ab89-efcd") for query in queries] == [0, UNIQUE_IDS_PER_QUERY]


@pytest.mark.parametrize("vm_id", [UNIQUE, REVERSED.upper()])
def test_an_arc_machine_that_is_a_virtual_machine_is_left_out_with_its_name(vm_id: str) -> None:
    vm, other = read_row({"id": machine_id()}), arc(vmUuid="99999999-89ab-cdef-0123-456789abcdef")
    machines = [vm, arc(vmId=UNIQUE), other]
    found = evaluate_duplicates(machines, [{"id": machine_id(), "vmId": vm_id}])
    assert (found[0], found[2]) == (vm, other)
    assert found[1].problem_reason is Reason.DUPLICATE
    assert machine_id() in found[1].problem


@pytest.mark.parametrize(("provider", "is_left_out"), [("Azure", True), ("AWS", False), ("N/A", False), ("", False)])
def test_an_arc_machine_whose_agent_sees_azure_is_left_out(provider: str, is_left_out: bool) -> None:
    (found,) = evaluate_duplicates([arc(cloudProvider=provider)], [])
    assert bool(found.problem) is is_left_out


def test_an_earlier_problem_stays() -> None:
    broken = read_row({"id": arc_id("bad name"), "cloudProvider": "Azure"})
    assert evaluate_duplicates([broken], []) == [broken]
    assert broken.problem_reason is Reason.UNREADABLE_ID


def test_no_arc_machine_is_a_member_of_a_scale_set() -> None:
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers"
    sets = [f"{group}/Microsoft.Compute/virtualMachineScaleSets/web"]
    scope = Scope.model_validate({"scaleSets": sets, "machineTypes": ["azure", "arc"]})
    assert ["hybridcompute" in query.text for query in build_queries(scope)] == [False]
