"""Plans of small fleets against every legal one: all ways to part regions into phases, and all orders inside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from random import Random
from typing import Any

import pytest

from patchwave.domain.core.region_pairs import KNOWN_PAIRS
from patchwave.domain.planning.constraints import ConcurrencyConstraints, slot_order
from patchwave.domain.planning.critical_path import Job
from patchwave.domain.planning.planner import expected_seconds, make_plan
from patchwave.domain.planning.timeline import draw_timeline
from patchwave.domain.planning.topology import PlannerMachine, Topology
from patchwave.domain.planning.waves import number_waves
from patchwave.domain.policy.gates import wave_barrier_enabled
from patchwave.domain.policy.policy import Policy
from tests.support.fleet_strategies import REGIONS, make_machine, make_policy, set_id

WORST = 1.15
"""Of what a plan takes over the shortest of all."""
AZURE = Topology.of(KNOWN_PAIRS.items())


def draw_fleet(random: Random, size: int) -> list[PlannerMachine]:
    """A few machines that share regions, zones, sets, clusters and tags."""
    regions = random.sample(REGIONS, random.randint(1, min(5, size)))
    minutes = random.choice([[1, 2, 3], [1, 2, 3, 5, 8], [2, 3], [1, 10], [1, 4, 5, 6, 7]])
    machines: list[PlannerMachine] = []
    for number in range(size):
        location = random.choice(regions)
        fields: dict[str, Any] = {"location": location, "predicted_seconds": 60.0 * random.choice(minutes)}
        kind = random.random()
        if kind < 0.4:
            fields["zones"] = (random.choice("123"),)
        elif kind < 0.55:
            fields["availability_set"] = set_id(f"{location}-{random.choice('ab')}")
            fields["update_domain"] = random.choice("012")
        tags = {"cluster": random.choice(["c1", "c2"])} if random.random() < 0.4 else {}
        fields["tags"] = tags | ({"app": random.choice("xy")} if random.random() < 0.3 else {})
        machines.append(make_machine(number, **fields))
    return machines


def draw_policy(random: Random) -> Policy:
    """Limits that bind and limits that do not; sometimes waves that wait for each other."""
    fields: dict[str, Any] = {"maxConcurrent": random.choice([1, 2, 2, 3, 4, 100])}
    if random.random() < 0.6:
        fields["mutuallyExclusiveTag"] = "cluster"
    limits: dict[str, Any] = {}
    if random.random() < 0.3:
        limits["tags"] = [{"tag": "app", "maxConcurrent": random.choice([1, 2])}]
    if random.random() < 0.2:
        limits["region"] = random.choice([1, 2])
    fields["limits"] = limits
    if random.random() < 0.15:
        fields["errorBudget"] = {"wave": "10%"}
    return make_policy(**fields)


def draw_topology(random: Random) -> Topology:
    """The pairs of Azure, or any."""
    if random.random() < 0.7:
        return AZURE
    return Topology.of([(one, other) for one in REGIONS for other in REGIONS if random.random() < 0.25])


def shortest(machines: Sequence[PlannerMachine], policy: Policy, topology: Topology) -> float:
    """The least that any legal plan takes, by trying all of them."""
    constraints = ConcurrencyConstraints(machines, machines, policy, topology)
    lanes: dict[str, list[Job]] = {}
    for machine in machines:
        job = Job(machine.key, machine.region, expected_seconds(machine, policy), constraints.permits(machine))
        lanes.setdefault(machine.region, []).append(job)
    barrier = wave_barrier_enabled(policy.error_budget, policy.bake.waves)
    known: dict[frozenset[str], float] = {}

    def phase_seconds(phase: Sequence[str]) -> float:
        regions = frozenset(phase)
        if regions not in known:
            jobs = [job for region in phase for job in lanes[region]]
            known[regions] = min(_seconds(order, barrier) for order in _orders(jobs, barrier))
        return known[regions]

    return min(
        sum(map(phase_seconds, phases))
        for phases in _partitions(sorted(lanes))
        if all(topology.conflicts(region).isdisjoint(phase) for phase in phases for region in phase)
    )


def _seconds(jobs: Sequence[Job], barrier: bool) -> float:
    waves = dict.fromkeys((job.key for job in jobs), 1)
    if barrier:
        waves = {
            key: wave
            for lane in {job.lane for job in jobs}
            for key, wave in number_waves(job for job in jobs if job.lane == lane).items()
        }
    return max(each.end for each in draw_timeline(jobs, waves, wave_barrier=barrier).values())


def _orders(jobs: Sequence[Job], barrier: bool) -> Iterator[tuple[Job, ...]]:
    """Every order, each once however many jobs are alike. Waves are numbered in the order of zones and domains."""
    seen: set[tuple[object, ...]] = set()
    for order in permutations(jobs):
        alike = tuple((job.lane, job.seconds, job.permits) for job in order)
        if alike not in seen and not (barrier and _is_mixed(order)):
            seen.add(alike)
            yield order


def _is_mixed(jobs: Sequence[Job]) -> bool:
    latest: dict[str, tuple[object, ...]] = {}
    for job in jobs:
        for place in job.permits:
            if place.slot:
                order = (slot_order(place.slot),)
                if latest.get(place.group, order) > order:
                    return True
                latest[place.group] = order
    return False


def _partitions(regions: Sequence[str]) -> Iterator[list[list[str]]]:
    if not regions:
        yield []
        return
    first, *rest = regions
    for phases in _partitions(rest):
        yield [[first], *phases]
        for number, phase in enumerate(phases):
            yield [*phases[:number], [first, *phase], *phases[number + 1 :]]


@pytest.mark.parametrize("first", range(0, 160, 20))
def test_no_legal_plan_is_much_shorter_than_ours_or_shorter_than_the_bound(first: int) -> None:
    for seed in range(first, first + 20):
        random = Random(seed)
        # Every order of six takes long: a few of these are enough.
        machines = draw_fleet(random, 6 if seed % 20 == 0 else random.randint(2, 5))
        policy, topology = draw_policy(random), draw_topology(random)
        makespan = make_plan(machines, policy, topology).plan.makespan
        least = shortest(machines, policy, topology)
        assert makespan.predicted_seconds <= WORST * least, f"seed {seed}"
        assert makespan.lower_bound_seconds <= least + 1e-6, f"seed {seed}"


def test_the_fleet_that_once_took_half_as_long_again() -> None:
    """Ten Windows machines without a history: a short region, its pair with a cluster, and a third with one too."""
    machines = [make_machine(0, location="northeurope", os_type="Windows")]
    machines += [
        make_machine(1 + n, location="polandcentral", os_type="Windows", tags={"cluster": "pl"}) for n in range(4)
    ]
    machines += [
        make_machine(5 + n, location="westeurope", os_type="Windows", tags={"cluster": "we"}) for n in range(5)
    ]
    plan = make_plan(machines, make_policy(mutuallyExclusiveTag="cluster"), AZURE).plan
    assert plan.rings[0].phases == [["northeurope"], ["polandcentral", "westeurope"]]
    assert (plan.makespan.predicted_seconds, plan.makespan.lower_bound_seconds) == (14_400.0, 14_400.0)
    asked = make_plan(machines, make_policy(mutuallyExclusiveTag="cluster", phaseOrder="fewestMachines"), AZURE).plan
    assert asked.rings[0].phases == [["northeurope", "polandcentral"], ["westeurope"]]
    assert (asked.makespan.predicted_seconds, asked.makespan.lower_bound_seconds) == (21_600.0, 14_400.0)
