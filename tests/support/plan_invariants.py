"""An independent judge of runs: which rules of a rollout a set of installations has broken.

Written from the rules as people state them, by brute force, and not from the planner's code, so that both can only be
wrong in the same way by accident. It judges what a plan predicts and what a simulator has seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from patchwave.domain.planning.topology import PlannerMachine, Topology
from patchwave.domain.policy.policy import Policy


class Interval(NamedTuple):
    """An installation: the key of its machine, and when it began and ended, in any unit. Its end is not part of it."""

    key: str
    start: float
    end: float


def broken_rules(
    intervals: Iterable[Interval | tuple[str, float, float]],
    machines: Sequence[PlannerMachine],
    policy: Policy,
    topology: Topology,
) -> list[str]:
    """Every rule that was broken, each as a sentence; empty when all were kept.

    Args:
        intervals: the installations, in any order.
        machines: all machines of the run: per cents are of these.
        policy: what the run had to follow.
        topology: pairs of regions and physical zones.
    """
    observed = sorted((Interval(*each) for each in intervals), key=lambda each: (each.start, each.end, each.key))
    known = {machine.key: machine for machine in machines}
    strangers = [f"{each.key} was patched and is no machine of the run" for each in observed if each.key not in known]
    if strangers:
        return strangers
    judge = _Judge(machines, policy, topology)
    found: list[str] = []
    for late, beside in _moments(observed):
        newcomer = known[late.key]
        running = [known[each.key] for each in beside]
        found += [f"{late.key}: {fault}" for fault in judge.pairwise(newcomer, running)]
        found += [f"{late.key}: {fault}" for fault in judge.counted(newcomer, running)]
    found += judge.order_of_rings(observed)
    found += judge.order_of_phases(observed)
    if policy.ramp:
        found += judge.ramp(observed)
    return found


def _moments(observed: Sequence[Interval]) -> Iterator[tuple[Interval, list[Interval]]]:
    """Each installation with those in progress when it began: that is when the most run at once."""
    running: list[Interval] = []
    for each in observed:
        running = [other for other in running if other.end > each.start]
        yield each, list(running)
        running.append(each)


class _Judge:
    def __init__(self, machines: Sequence[PlannerMachine], policy: Policy, topology: Topology) -> None:
        self._machines = machines
        self._policy = policy
        self._topology = topology
        self._by_key = {machine.key: machine for machine in machines}

    # --- pairs that may never run at the same time

    def pairwise(self, newcomer: PlannerMachine, running: Iterable[PlannerMachine]) -> Iterator[str]:
        for other in running:
            if other.key == newcomer.key:
                yield "was patched twice at the same time"
                continue
            if self._are_paired(newcomer, other):
                yield f"{_region(newcomer)} beside its pair {_region(other)} ({other.key})"
            if self._policy.separate_zones and self._differ_in_zone(newcomer, other):
                yield f"zone {newcomer.zones} beside zone {other.zones} of {other.key}"
            if _set(newcomer) and _set(newcomer) == _set(other):
                domains = newcomer.update_domain, other.update_domain
                if "" in domains:
                    yield f"an unknown update domain of {_set(newcomer)} beside {other.key}"
                elif domains[0] != domains[1]:
                    yield f"two update domains of {_set(newcomer)}: {domains}, beside {other.key}"
            if newcomer.scale_set and newcomer.scale_set.lower() == other.scale_set.lower():
                faults = _fault(newcomer), _fault(other)
                if "" in (newcomer.fault_domain, other.fault_domain):
                    yield f"an unknown fault domain of {newcomer.scale_set.lower()} beside {other.key}"
                elif faults[0] != faults[1]:
                    yield f"two fault domains of {newcomer.scale_set.lower()}: {faults}, beside {other.key}"
            exclusive = self._policy.mutually_exclusive_tag
            if exclusive and _tag(newcomer, exclusive) and _tag(newcomer, exclusive) == _tag(other, exclusive):
                yield f"{exclusive}={_tag(newcomer, exclusive)} twice, beside {other.key}"

    def _are_paired(self, one: PlannerMachine, other: PlannerMachine) -> bool:
        pairs = self._topology.pairs
        first, second = _region(one), _region(other)
        return first != second and ((first, second) in pairs or (second, first) in pairs)

    def _differ_in_zone(self, one: PlannerMachine, other: PlannerMachine) -> bool:
        if not one.zones or not other.zones or _region(one) != _region(other):
            return False
        buildings = self._building(one), self._building(other)
        if all(buildings):
            return buildings[0] != buildings[1]
        same_owner = one.subscription.lower() == other.subscription.lower()
        return not (same_owner and set(one.zones) == set(other.zones))

    def _building(self, machine: PlannerMachine) -> str:
        if len(machine.zones) != 1:
            return ""
        return self._topology.zones.get((machine.subscription.lower(), _region(machine), machine.zones[0]), "")

    # --- how many at a time

    def counted(self, newcomer: PlannerMachine, running: Sequence[PlannerMachine]) -> Iterator[str]:
        together = [*running, newcomer]
        for name, most, beside in self._limits(newcomer, together):
            if beside > most:
                yield f"{beside} at a time in {name}, where {most} are allowed"

    def _limits(self, newcomer: PlannerMachine, together: Sequence[PlannerMachine]) -> Iterator[tuple[str, int, int]]:
        policy = self._policy
        yield "the run", _most(policy.max_concurrent, len(self._machines)), len(together)
        region = _region(newcomer)
        if policy.limits.region is not None:
            total = sum(_region(machine) == region for machine in self._machines)
            yield region, _most(policy.limits.region, total), sum(_region(machine) == region for machine in together)
        for limit in policy.limits.tags:
            value = _tag(newcomer, limit.tag)
            if value:
                total = sum(_tag(machine, limit.tag) == value for machine in self._machines)
                beside = sum(_tag(machine, limit.tag) == value for machine in together)
                yield f"{limit.tag}={value}", _most(limit.max_concurrent, total), beside
        if _set(newcomer):
            size = sum(_set(machine) == _set(newcomer) for machine in self._machines)
            share = 1 if size < 10 else max(1, size * min(20, policy.availability_sets.percent) // 100)
            yield f"the set {_set(newcomer)}", share, sum(_set(machine) == _set(newcomer) for machine in together)

        scale_set = newcomer.scale_set.lower()
        if scale_set:
            size = sum(machine.scale_set.lower() == scale_set for machine in self._machines)
            share = 1 if size < 10 else max(1, size * min(20, policy.scale_sets.percent) // 100)
            yield f"the set {scale_set}", share, sum(machine.scale_set.lower() == scale_set for machine in together)

    # --- in which order

    def order_of_rings(self, observed: Sequence[Interval]) -> Iterator[str]:
        rings = {each: self._ring_of(self._by_key[each.key]) for each in observed}
        for number, name in enumerate(self._ring_names):
            begins = [each.start for each, ring in rings.items() if ring == number]
            earlier = [each.end for each, ring in rings.items() if ring is not None and ring < number]
            if begins and earlier and min(begins) < max(earlier):
                yield f"ring {name} began before the rings before it had ended"

    def order_of_phases(self, observed: Sequence[Interval]) -> Iterator[str]:
        fixed = {region: number for number, regions in enumerate(self._policy.phases or []) for region in regions}
        rings: dict[int, list[Interval]] = {}
        for each in observed:
            ring = self._ring_of(self._by_key[each.key])
            if ring is not None:
                rings.setdefault(ring, []).append(each)
        for members in rings.values():
            numbers = {each: fixed.get(_region(self._by_key[each.key]), len(fixed)) for each in members}
            for number in sorted(set(numbers.values()))[1:]:
                begin = min(each.start for each in members if numbers[each] == number)
                end = max(each.end for each in members if numbers[each] < number)
                if begin < end:
                    yield f"the regions of phase {number + 1} of the policy began before those named earlier had ended"

    def ramp(self, observed: Sequence[Interval]) -> Iterator[str]:
        for late, beside in _moments(observed):
            ring = self._ring_of(self._by_key[late.key])
            if ring is None:
                continue
            mine = [each for each in observed if self._ring_of(self._by_key[each.key]) == ring]
            ended = sum(each.end <= late.start for each in mine)
            step, steps = 1, 0
            while ended >= steps + step:
                steps += step
                step *= 2
            if len(beside) + 1 > step:
                yield f"{late.key}: {len(beside) + 1} at a time while the ring ramps up and may have {step}"

    @property
    def _ring_names(self) -> list[str]:
        rings = self._policy.rings
        if not any(ring.after for ring in rings):
            return [ring.name for ring in rings]
        names = [ring.name for ring in rings if ring.after is None]
        while len(names) < len(rings):
            names += [ring.name for ring in rings if ring.after == names[-1]]
        return names

    def _ring_of(self, machine: PlannerMachine) -> int | None:
        """The ring of a machine as far as it can be told: not behind a ring that takes a per cent by hash."""
        rings = {ring.name: ring for ring in self._policy.rings}
        for number, name in enumerate(self._ring_names):
            ring = rings[name]
            if ring.percent is not None:
                return None
            if ring.machine_ids is not None:
                if machine.id.lower() in {each.lower() for each in ring.machine_ids}:
                    return number
            elif ring.tags is None or _has(machine, ring.tags.values, every=ring.tags.match.value == "all"):
                return number
        return None if rings else 0


def _has(machine: PlannerMachine, wanted: Mapping[str, Iterable[str]], *, every: bool) -> bool:
    tags = {name.lower(): value.lower() for name, value in machine.tags.items()}
    hits = [tags.get(name.lower()) in {value.lower() for value in values} for name, values in wanted.items()]
    return all(hits) if every else any(hits)


def _most(limit: int | str, machines: int) -> int:
    if isinstance(limit, int):
        return limit
    return max(1, machines * int(limit.rstrip("%")) // 100)


def _region(machine: PlannerMachine) -> str:
    return machine.location.replace(" ", "").lower()


def _fault(machine: PlannerMachine) -> tuple[frozenset[str], str]:
    """A fault domain is one of its zone: each zone numbers its own."""
    return frozenset(machine.zones), machine.fault_domain


def _set(machine: PlannerMachine) -> str:
    return machine.availability_set.lower()


def _tag(machine: PlannerMachine, name: str) -> str:
    return next((value.strip().lower() for key, value in machine.tags.items() if key.lower() == name.lower()), "")
