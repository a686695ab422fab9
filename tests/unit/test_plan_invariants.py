"""The judge of runs: it finds each kind of fault, and nothing where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from patchwave.domain.planning.topology import PlannerMachine, Topology
from tests.support.fleet_strategies import SUBSCRIPTIONS, machine_id, make_machine, make_policy, scale_set_id, set_id
from tests.support.plan_invariants import broken_rules

PAIRS = Topology.of([("westus3", "eastus")])
SQL = set_id("av-sql")
WEB = scale_set_id("vmss-web")

type Times = list[tuple[int, float, float]]
"""Number of the machine, start, end."""


def judge(machines: list[PlannerMachine], times: Times, topology: Topology = PAIRS, **policy: Any) -> list[str]:
    keys = {machine.name: machine.key for machine in machines}
    names = {machine.key: machine.name for machine in machines}
    intervals = [(keys[f"vm{number}"], start, end) for number, start, end in times]
    found = broken_rules(intervals, machines, make_policy(**policy), topology)
    for key, name in names.items():
        found = [sentence.replace(key, name) for sentence in found]
    return found


def both(**fields: Any) -> list[PlannerMachine]:
    """Two machines; a field with two values gives each its own."""
    return [make_machine(number, **{name: value[number] for name, value in fields.items()}) for number in range(2)]


@pytest.mark.parametrize(
    ("machines", "policy", "fault"),
    [
        (both(location=["West US 3", "eastus"]), {}, "eastus beside its pair westus3 (vm0)"),
        (both(location=["eastus", "westus3"]), {}, "westus3 beside its pair eastus (vm0)"),
        (both(zones=[("1",), ("2",)]), {}, "zone ('2',) beside zone ('1',) of vm0"),
        (both(zones=[("1",), ("1", "2")]), {}, "beside zone ('1',) of vm0"),
        (
            both(availability_set=[SQL, SQL.upper()], update_domain=["0", "1"]),
            {},
            f"two update domains of {SQL.lower()}",
        ),
        (both(availability_set=[SQL, SQL], update_domain=["", "1"]), {}, "an unknown update domain"),
        (both(availability_set=[SQL, SQL], update_domain=["1", "1"]), {}, "2 at a time in the set"),
        (
            both(scale_set=[WEB, WEB.upper()], fault_domain=["0", "1"]),
            {},
            f"two fault domains of {WEB.lower()}",
        ),
        (both(scale_set=[WEB, WEB], fault_domain=["", "1"]), {}, "an unknown fault domain"),
        (both(scale_set=[WEB, WEB], fault_domain=["1", "1"]), {}, "2 at a time in the set"),
        (
            both(scale_set=[WEB, WEB], fault_domain=["1", "1"], zones=[("1",), ("2",)]),
            {"separateZones": False},
            f"two fault domains of {WEB.lower()}",
        ),
        (both(tags=[{"Cluster": "c1"}, {"cluster": "C1"}]), {"mutuallyExclusiveTag": "cluster"}, "cluster=c1 twice"),
        (both(), {"maxConcurrent": 1}, "2 at a time in the run, where 1 are allowed"),
        (both(), {"maxConcurrent": "50%"}, "2 at a time in the run, where 1 are allowed"),
        (both(), {"limits": {"region": 1}}, "2 at a time in westeurope, where 1"),
        (
            both(tags=[{"app": "web"}, {"APP": "Web"}]),
            {"limits": {"tags": [{"tag": "app", "maxConcurrent": "60%"}]}},
            "2 at a time in app=web, where 1",
        ),
        (both(), {"ramp": True}, "2 at a time while the ring ramps up and may have 1"),
        (
            both(tags=[{"ring": "canary"}, {}]),
            {"rings": [{"name": "canary", "tags": {"values": {"ring": ["canary"]}}}, {"name": "rest"}]},
            "ring rest began before the rings before it had ended",
        ),
        (
            both(),
            {"rings": [{"name": "late", "after": "one"}, {"name": "one", "machineIds": [machine_id(0)]}]},
            "ring late began before the rings before it had ended",
        ),
        (
            both(location=["eastus", "polandcentral"]),
            {"phases": [["eastus"]]},
            "phase 2 of the policy began before those named earlier had ended",
        ),
    ],
)
def test_two_that_must_not_run_together(machines: list[PlannerMachine], policy: dict[str, Any], fault: str) -> None:
    together: Times = [(0, 0, 10), (1, 9, 20)]
    found = judge(machines, together, **policy)
    assert found
    assert any(fault in sentence for sentence in found), found
    one_after_the_other: Times = [(0, 0, 10), (1, 10, 20)]
    assert judge(machines, one_after_the_other, **policy) == []


@pytest.mark.parametrize(
    ("machines", "policy"),
    [
        (both(), {}),
        (both(zones=[("1",), ("1",)]), {}),
        (both(zones=[("1",), ()]), {}),
        (both(zones=[("1",), ("2",)]), {"separateZones": False}),
        (both(zones=[("1",), ("2",)], location=["eastus", "westus"]), {}),
        (both(tags=[{"cluster": ""}, {"cluster": ""}]), {"mutuallyExclusiveTag": "cluster"}),
        (both(availability_set=[SQL, set_id("av-web")], update_domain=["0", "1"]), {}),
        # A share taken by hash cannot be told from outside, so the order of its rings is not judged.
        (both(), {"rings": [{"name": "first", "percent": 50}, {"name": "rest"}]}),
    ],
)
def test_two_that_may(machines: list[PlannerMachine], policy: dict[str, Any]) -> None:
    assert judge(machines, [(0, 0, 10), (1, 5, 20)], **policy) == []


def test_zones_are_buildings_where_the_mapping_is_known() -> None:
    machines = [make_machine(number, SUBSCRIPTIONS[number], zones=(str(number + 1),)) for number in range(2)]
    together: Times = [(0, 0, 10), (1, 0, 10)]
    first, second = ((SUBSCRIPTIONS[number], "westeurope", str(number + 1)) for number in range(2))
    assert judge(machines, together, Topology.of(zones={first: "a", second: "a"})) == []
    assert judge(machines, together, Topology.of(zones={first: "a", second: "b"}))
    assert judge(machines, together, Topology.of(zones={first: "a"}))


def test_a_large_set_may_have_a_fifth_of_one_domain() -> None:
    machines = [make_machine(number, availability_set=SQL, update_domain=str(number % 2)) for number in range(10)]
    assert judge(machines, [(0, 0, 10), (2, 0, 10)]) == []
    assert judge(machines, [(0, 0, 10), (2, 0, 10), (4, 0, 10)])
    assert judge(machines, [(0, 0, 10), (2, 0, 10)], availabilitySets={"percent": 10})


def test_a_large_scale_set_may_have_a_fifth_of_one_fault_domain() -> None:
    machines = [make_machine(number, scale_set=WEB, fault_domain=str(number % 2)) for number in range(10)]
    assert judge(machines, [(0, 0, 10), (2, 0, 10)]) == []
    assert judge(machines, [(0, 0, 10), (2, 0, 10), (4, 0, 10)])
    assert judge(machines, [(0, 0, 10), (2, 0, 10)], scaleSets={"percent": 10})


def test_a_ramp_doubles_when_a_step_has_ended() -> None:
    machines = [make_machine(number) for number in range(7)]
    steps: Times = [(0, 0, 10), (1, 10, 20), (2, 10, 20), *((number, 20, 30) for number in range(3, 7))]
    assert judge(machines, steps, ramp=True) == []
    assert judge(machines, [*steps[:5], (5, 19, 30), (6, 19, 30)], ramp=True)


def test_one_machine_is_never_patched_twice_at_once() -> None:
    assert judge([make_machine(0)], [(0, 0, 10), (0, 10, 20)]) == []
    assert judge([make_machine(0)], [(0, 0, 10), (0, 9, 20)]) == ["vm0: was patched twice at the same time"]


def test_a_machine_of_another_run_is_a_violation() -> None:
    assert broken_rules([("f" * 24, 0, 1)], [make_machine(0)], make_policy(), PAIRS) == [
        f"{'f' * 24} was patched and is no machine of the run"
    ]
