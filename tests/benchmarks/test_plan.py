"""The planner's benchmark in small: its bars, counted in calls instead of seconds, and that it keeps the rules."""

from __future__ import annotations

import gc
import sys
from types import FrameType

import pytest

from benchmarks.fleets import SHAPES, Shape, make_fleet, make_policy, make_topology
from benchmarks.growth import slope
from benchmarks.plan import MAX_RATIO, MAX_SLOPE, judge, measure, ratio_of
from patchwave.domain.planning.planner import make_plan
from tests.support.plan_invariants import broken_rules


def calls_of_a_plan(shape: Shape, size: int) -> int:
    """How many functions a plan calls: it grows as the time does, and is the same on every machine."""
    fleet, policy, topology = make_fleet(shape, size, 1), make_policy(shape), make_topology(shape)
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        make_plan(fleet, policy, topology)
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("shape", SHAPES[::3], ids=lambda shape: shape.name)
def test_planning_is_linear(shape: Shape) -> None:
    assert slope({size: calls_of_a_plan(shape, size) for size in (1_000, 5_000)}) <= MAX_SLOPE


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_plans_of_the_generated_fleets_are_short_and_keep_the_rules(shape: Shape) -> None:
    fleet, policy, topology = make_fleet(shape, 1_000, 1), make_policy(shape), make_topology(shape)
    result = make_plan(fleet, policy, topology)
    assert 1 <= ratio_of(shape, 1_000, result)["ratio"] <= MAX_RATIO
    intervals = [(each.key, each.predicted_start, each.predicted_end) for each in result.placements]
    assert broken_rules(intervals, fleet, policy, topology) == []


def test_fleets_are_the_same_for_the_same_seed_and_have_what_rules_are_about() -> None:
    for shape in SHAPES:
        fleet = make_fleet(shape, 2_000, 7)
        assert fleet == make_fleet(shape, 2_000, 7)
        assert fleet != make_fleet(shape, 2_000, 8)
        assert len({machine.key for machine in fleet}) == 2_000
        assert len({machine.region for machine in fleet}) == shape.regions
        assert abs(sum(bool(machine.zones) for machine in fleet) / 2_000 - shape.zoned) < 0.1
        assert abs(sum(bool(machine.availability_set) for machine in fleet) / 2_000 - shape.in_sets) < 0.15
        clustered = sum("cluster" in machine.tags for machine in fleet) / 2_000
        assert abs(clustered - shape.clustered) < 0.1


def test_a_missed_bar_is_reported() -> None:
    linear = {10: 1.0, 100: 10.0, 1_000: 100.0}
    assert slope(linear) == pytest.approx(1)
    assert slope({10: 1.0, 100: 100.0}) == pytest.approx(2)
    assert judge({"a": linear}, [{"ratio": 1.15}])["passed"] is True
    assert judge({"a": linear}, [{"ratio": 1.1}, {"ratio": 1.151}])["passed"] is False
    assert judge({"a": linear, "b": {10: 1.0, 100: 13.0}}, [{"ratio": 1.0}])["passed"] is False


def test_a_measurement_has_its_plan() -> None:
    times, plans = measure(SHAPES[0], {50: 3, 80: 1}, 2)
    assert min(times.values()) > 0
    assert {size: len(each.placements) + len(each.excluded) for size, each in plans.items()} == {50: 50, 80: 80}


def test_a_plan_leaves_no_cycles_behind() -> None:
    """What the times of the benchmark rest on: they are taken without the search for cycles."""
    shape = SHAPES[0]
    fleet, policy, topology = make_fleet(shape, 200, 1), make_policy(shape), make_topology(shape)
    make_plan(fleet, policy, topology)
    gc.collect()
    gc.disable()
    try:
        make_plan(fleet, policy, topology)
        assert gc.collect() == 0
    finally:
        gc.enable()
