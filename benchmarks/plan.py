"""``make bench-plan``: how long planning takes by the size of the fleet, and how close plans come to the shortest run.

Prints JSON and exits with 1 when a bar is missed. Times are processor seconds: what else the machine does is not the
planner's fault, and the slope of a few sizes would otherwise be noise.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.fleets import SHAPES, Shape, make_fleet, make_policy, make_topology
from benchmarks.growth import slope
from patchwave.domain.planning.planner import PlanResult, make_plan

MAX_SLOPE = 1.1
"""Of log(time) over log(machines): 1 is linear."""
MAX_RATIO = 1.15
"""Of the predicted makespan over its lower bound."""
SEED = 3

_TIMED_SHAPES = ("mixed", "narrow")
_ROUNDS = 2
# How often each size is planned in a round. They take turns, as no machine is equally fast all along.
_TIMED_SIZES = {1_000: 20, 10_000: 3, 100_000: 1}
_RATIO_SIZES = (1_000, 10_000)


def main() -> int:
    """Measure, print, judge."""
    times: dict[str, dict[int, float]] = {}
    ratios: list[dict[str, Any]] = []
    for shape in SHAPES:
        if shape.name in _TIMED_SHAPES:
            times[shape.name], plans = measure(shape, _TIMED_SIZES, _ROUNDS)
        else:
            plans = {size: _plan(shape, size) for size in _RATIO_SIZES}
        ratios += [ratio_of(shape, size, result) for size, result in plans.items()]
    report = judge(times, ratios)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0 if report["passed"] else 1


def measure(shape: Shape, sizes: Mapping[int, int], rounds: int) -> tuple[dict[int, float], dict[int, PlanResult]]:
    """Processor seconds of a plan by size, the median of all rounds, and the plans.

    Args:
        shape: of the fleets.
        sizes: how often each size is planned in a round.
        rounds: how many.
    """
    policy, topology = make_policy(shape), make_topology(shape)
    fleets = {size: make_fleet(shape, size, SEED) for size in sizes}
    times: dict[int, list[float]] = {size: [] for size in sizes}
    plans: dict[int, PlanResult] = {}
    # As timeit does: the search for cycles looks through all that the process holds, and a plan leaves none behind.
    gc.disable()
    for _ in range(rounds):
        for size, repetitions in sizes.items():
            for _ in range(repetitions):
                begin = time.process_time()
                plans[size] = make_plan(fleets[size], policy, topology)
                times[size].append(time.process_time() - begin)
    gc.enable()
    return {size: statistics.median(measured) for size, measured in times.items()}, plans


def ratio_of(shape: Shape, size: int, result: PlanResult) -> dict[str, Any]:
    """The makespan of a plan against its lower bound."""
    makespan = result.plan.makespan
    return {
        "fleet": shape.name,
        "machines": size,
        "planned": len(result.placements),
        "predictedSeconds": makespan.predicted_seconds,
        "lowerBoundSeconds": round(makespan.lower_bound_seconds, 1),
        "ratio": round(makespan.predicted_seconds / makespan.lower_bound_seconds, 4),
    }


def judge(times: Mapping[str, Mapping[int, float]], ratios: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report, with whether every bar is kept.

    Args:
        times: seconds by fleet and size.
        ratios: makespans, as `ratio_of` tells them.
    """
    slopes = {name: slope(measured) for name, measured in times.items()}
    steepest, worst = max(slopes.values()), max(each["ratio"] for each in ratios)
    return {
        "seconds": {
            name: {str(size): round(seconds, 3) for size, seconds in measured.items()}
            for name, measured in times.items()
        },
        "slopes": {name: round(each, 3) for name, each in slopes.items()},
        "slope": round(steepest, 3),
        "makespans": list(ratios),
        "worstRatio": worst,
        "bars": {"slope": MAX_SLOPE, "ratio": MAX_RATIO},
        "passed": steepest <= MAX_SLOPE and worst <= MAX_RATIO,
    }


def _plan(shape: Shape, size: int) -> PlanResult:
    return make_plan(make_fleet(shape, size, SEED), make_policy(shape), make_topology(shape))


if __name__ == "__main__":
    sys.exit(main())
