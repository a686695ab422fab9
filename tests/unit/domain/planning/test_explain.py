"""What a plan says of a machine's turn names what really held it."""

from __future__ import annotations

from typing import Any

from patchwave.domain.planning.planner import make_plan
from patchwave.domain.planning.topology import PlannerMachine, Topology
from tests.support.fleet_strategies import make_machine, make_policy, set_id


def reasons(machines: list[PlannerMachine], **policy: Any) -> list[tuple[float, str]]:
    """Start and reason of each machine, in order of time."""
    result = make_plan(machines, make_policy(**policy), Topology())
    return [(each.predicted_start, each.reason) for each in result.placements]


def test_a_ramp_is_named_while_it_lasts_and_the_limit_afterwards() -> None:
    machines = [make_machine(number) for number in range(7)]
    ramp, limit = "the ring begins with 1, 2, 4, … at a time", "the run takes 2 at a time"
    assert reasons(machines, ramp=True, maxConcurrent=2) == [
        (0, ""),
        (1200, ramp),
        (1200, ramp),
        *[(start, limit) for start in (2400, 2400, 3600, 3600)],
    ]
    assert {why for _, why in reasons(machines, ramp=True)} == {"", ramp}


def test_a_barrier_is_named() -> None:
    machines = [make_machine(number) for number in range(2)]
    found = reasons(machines, maxConcurrent=1, errorBudget={"wave": 0})
    assert found == [(0, ""), (1200, "wave 2 after wave 1")]


def test_an_update_domain_comes_after_the_one_before_it_in_this_phase() -> None:
    machines = [
        make_machine(number, availability_set=set_id("av-web"), update_domain=str(domain), predicted_seconds=60.0)
        for number, domain in enumerate([10, 2, 4])
    ]
    rule = "av-web has 3 machines: one at a time"
    assert reasons(machines) == [
        (0, f"update domain 2 of av-web; {rule}"),
        (60, f"update domain 4 of av-web after update domain 2; {rule}"),
        (120, f"update domain 10 of av-web after update domain 4; {rule}"),
    ]
