"""What a policy may not ask of Arc machines, each with its field; and how a scope comes to hold them."""

from __future__ import annotations

from typing import Any

import pytest

from patchwave.domain.policy.policy import PolicyError, parse_policy

SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-arc/providers"
ARC = f"{GROUP}/Microsoft.HybridCompute/machines/srv-01"
VM = f"{GROUP}/Microsoft.Compute/virtualMachines/vm-01"
BOTH = ["azure", "arc"]
CONFIGURATION = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Maintenance/maintenanceConfigurations/weekly"
)


def problems(types: list[str] | None = None, scope: dict[str, Any] | None = None, **fields: Any) -> dict[str, str]:
    """What is wrong with a policy, by path; empty when nothing is."""
    selected: dict[str, Any] = (
        {"subscriptions": [SUBSCRIPTION]} | (scope or {}) | ({} if types is None else {"machineTypes": types})
    )
    try:
        parse_policy({"name": "monthly", "scope": selected} | fields)
    except PolicyError as error:
        return {problem.path: problem.message for problem in error.errors}
    return {}


def test_a_policy_is_for_virtual_machines_unless_it_says_otherwise() -> None:
    policy = parse_policy({"name": "monthly", "scope": {"subscriptions": [SUBSCRIPTION]}})
    assert policy.scope.to_wire()["machineTypes"] == ["azure"]
    assert not policy.scope.holds_arc


@pytest.mark.parametrize("types", [["arc"], ["azure", "ARC"], ["Arc", "Azure", "arc"]])
def test_machine_types_are_read_in_any_case_and_each_once(types: list[str]) -> None:
    assert problems(types) == {}
    policy = parse_policy({"name": "m", "scope": {"subscriptions": [SUBSCRIPTION], "machineTypes": types}})
    assert policy.scope.holds_arc
    assert len(policy.scope.machine_types) == len({each.lower() for each in types})


@pytest.mark.parametrize("types", [[], ["vmware"]])
def test_other_machine_types_are_refused_at_their_field(types: list[str]) -> None:
    (path,) = problems(types)
    assert path.startswith("scope.machineTypes")


def test_machine_types_alone_select_nothing() -> None:
    with pytest.raises(PolicyError, match="selects nothing"):
        parse_policy({"name": "m", "scope": {"machineTypes": ["arc"]}})


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (None, {"scope.machineIds[1]": "is an Arc machine; add arc to scope.machineTypes"}),
        (["arc"], {"scope.machineIds[0]": "is a virtual machine of Azure; add azure to scope.machineTypes"}),
        (BOTH, {}),
    ],
)
def test_a_machine_that_is_named_has_a_type_of_the_scope(types: list[str] | None, expected: dict[str, str]) -> None:
    assert problems(types, {"machineIds": [VM, ARC]}) == expected


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({"hooks": {"snapshot": {}}}, "hooks.snapshot", "no snapshot of an Arc machine"),
        ({"hooks": {"before": {"linux": "true"}}}, "hooks.before", "virtual machines of Azure only"),
        ({"hooks": {"after": {"windows": "exit 0"}}}, "hooks.after", "virtual machines of Azure only"),
        ({"rebootMode": "separate"}, "rebootMode", "cannot restart an Arc machine"),
        ({"maintenance": {"configurations": [CONFIGURATION]}}, "maintenance", "virtual machines only"),
        (
            {"install": {"linux": {"classificationsToInclude": ["Security"], "maintenanceRunId": "1"}}},
            "install.linux.maintenanceRunId",
            "virtual machines only",
        ),
    ],
)
def test_what_arc_machines_lack_is_refused_with_field_and_reason(fields: dict[str, Any], path: str, said: str) -> None:
    assert problems(["azure"], **fields) == {}
    for types in (["arc"], BOTH):
        found = problems(types, **fields)
        assert list(found) == [path]
        assert said in found[path]


def test_stopped_machines_are_started_only_beside_virtual_machines() -> None:
    assert problems(BOTH, startStopped=True) == {}
    assert problems(["arc"], startStopped=True) == {"startStopped": "Azure cannot start an Arc machine; leave it out"}


def test_all_of_it_is_said_at_once() -> None:
    fields: dict[str, Any] = {"hooks": {"snapshot": {}, "before": {"linux": "true"}}, "rebootMode": "separate"}
    assert set(problems(["arc"], startStopped=True, **fields)) == {
        "hooks.snapshot",
        "hooks.before",
        "rebootMode",
        "startStopped",
    }


@pytest.mark.parametrize(
    ("types", "phases", "wrong"),
    [
        (BOTH, [["arc"], ["westeurope"]], []),
        (["arc"], [["arc"]], []),
        (["arc"], [["westeurope"]], ["phases[0][0]"]),
        (["azure"], [["westeurope"], ["arc"]], ["phases[1][0]"]),
    ],
)
def test_phases_name_arc_machines_as_arc(types: list[str], phases: list[list[str]], wrong: list[str]) -> None:
    assert list(problems(types, phases=phases)) == wrong


def test_a_ring_of_an_arc_machine_needs_its_type() -> None:
    rings = [{"name": "first", "machineIds": [ARC]}, {"name": "rest"}]
    assert problems(BOTH, rings=rings) == {}
    assert list(problems(["azure"], rings=rings)) == ["rings[0].machineIds"]


def test_scale_sets_are_of_virtual_machines() -> None:
    sets = {"scaleSets": [f"{GROUP}/Microsoft.Compute/virtualMachineScaleSets/web"]}
    assert problems(BOTH, sets) == {}
    assert list(problems(["arc"], sets)) == ["scope.scaleSets"]
