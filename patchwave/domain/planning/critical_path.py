"""Who goes first, and how short a run could be: both follow from the chains that the rules make.

Machines that may not run together form a chain: the zones of a region, the update domains of a set, the nodes of a
cluster. A run is as short as its critical path allows if that path never waits, so the machine with most behind it
goes first. That is the critical-path rule of scheduling theory; nothing here decides who *may* start.
"""

import heapq
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from patchwave.domain.planning.admission import RUN_GROUP, UNLIMITED, Permit, ramp_limit
from patchwave.domain.planning.constraints import slot_order


class Job(NamedTuple):
    """One installation: its machine, its lane, how long it is expected to take, and the permits that it needs."""

    key: str
    lane: str
    seconds: float
    permits: tuple[Permit, ...]


@dataclass(slots=True)
class _Units:
    """What is behind a member of a group that takes so many at a time, seen from its end."""

    capacity: int
    work: float = 0.0
    longest: float = 0.0

    def level(self, seconds: float) -> float:
        if self.capacity == 1:
            return seconds + self.longest
        return (seconds + self.work) / self.capacity

    def add(self, seconds: float, level: float) -> None:
        self.work += seconds
        self.longest = max(self.longest, level)


@dataclass(slots=True)
class _Slots:
    """What is behind a member of a group that takes one slot after the other, seen from its end."""

    limit: int
    slot: str = ""
    work: float = 0.0
    longest: float = 0.0
    later: float = 0.0
    """From the beginning of the next slot to the end."""

    def level(self, slot: str, seconds: float) -> float:
        if slot != self.slot:
            self.later = max(self.longest, self.later + self.work / self.limit)
            self.slot, self.work, self.longest = slot, 0.0, 0.0
        return self.later + max(seconds, (seconds + self.work) / self.limit)

    def add(self, seconds: float, level: float) -> None:
        self.work += seconds
        self.longest = max(self.longest, level)


def critical_path_first(jobs: Iterable[Job]) -> list[Job]:
    """The jobs in the order in which they should be looked at: those with most behind them first.

    Slots of a group are taken in their own order (zone 1 before zone 2), inside one the longest jobs first; equal ones
    by key. The order does not depend on that of the argument.
    """
    in_order = sorted(jobs, key=_precedence)
    limits = _slot_limits(in_order)
    if limits:
        # What shares a unit with a machine of a slot goes behind it: the slots are the longer chain.
        levels = _levels(in_order, limits, with_units=False)
        in_order.sort(key=lambda job: -levels[job.key])
    levels = _levels(in_order, limits, with_units=True)
    # The sort is stable: equal levels keep their precedence.
    return sorted(in_order, key=lambda job: -levels[job.key])


def _levels(in_order: Sequence[Job], limits: Mapping[str, int], *, with_units: bool) -> dict[str, float]:
    """How many seconds are from the start of each job to the end of the critical path behind it, by key."""
    slotted = {group: _Slots(limit) for group, limit in limits.items()}
    units: dict[str, _Units] = {}
    levels: dict[str, float] = {}
    for job in reversed(in_order):
        groups: list[_Units | _Slots] = []
        level = job.seconds
        for permit in job.permits:
            if permit.slot:
                slots = slotted[permit.group]
                level = max(level, slots.level(permit.slot, job.seconds))
                groups.append(slots)
            elif with_units and permit.group != RUN_GROUP and permit.capacity != UNLIMITED:
                members = units.setdefault(permit.group, _Units(permit.capacity))
                level = max(level, members.level(job.seconds))
                groups.append(members)
        for group in groups:
            group.add(job.seconds, level)
        levels[job.key] = level
    return levels


def shortest_first(jobs: Sequence[Job], count: int) -> list[Job]:
    """Move so many short jobs to the front: a ramp takes as long as its slowest machine at every step.

    Only jobs of the first slot of each of their groups are moved, so that zone 1 stays before zone 2.
    """
    first: dict[str, str] = {}
    for job in jobs:
        for permit in job.permits:
            if permit.slot:
                first.setdefault(permit.group, permit.slot)
    movable = (job for job in jobs if all(first[permit.group] == permit.slot for permit in job.permits if permit.slot))
    front = heapq.nsmallest(count, movable, key=lambda job: job.seconds)
    moved = {job.key for job in front}
    return front + [job for job in jobs if job.key not in moved]


def _precedence(job: Job) -> tuple[tuple[str, ...], float, str]:
    return tuple(slot_order(permit.slot) for permit in job.permits if permit.slot), -job.seconds, job.key


def _slot_limits(jobs: Iterable[Job]) -> dict[str, int]:
    """How many machines of one slot may run at a time, by slotted group: the smallest group that holds all of them."""
    common: dict[str, dict[str, int]] = {}
    for job in jobs:
        mine = {
            permit.group: permit.capacity for permit in job.permits if not permit.slot and permit.capacity != UNLIMITED
        }
        for permit in job.permits:
            if permit.slot:
                theirs = common.get(permit.group)
                common[permit.group] = (
                    dict(mine) if theirs is None else {name: most for name, most in theirs.items() if name in mine}
                )
    return {group: min(limits.values(), default=sys.maxsize) for group, limits in common.items()}


@dataclass(slots=True)
class _Load:
    """What a set of jobs that share a slot needs at least."""

    longest: float = 0.0
    work: dict[str, float] = field(default_factory=dict[str, float])
    """Seconds by the name of a group with units, already divided by its capacity."""

    def add(self, seconds: float, shares: Iterable[tuple[str, float]]) -> None:
        self.longest = max(self.longest, seconds)
        for group, share in shares:
            self.work[group] = self.work.get(group, 0.0) + share

    @property
    def seconds(self) -> float:
        return max(self.longest, max(self.work.values(), default=0.0))


def lower_bound(jobs: Sequence[Job], *, ramp: bool = False, ended: int = 0) -> float:
    """No order that keeps the rules does these jobs in fewer seconds.

    The larger of the critical path of exclusive groups and the work that every group has to do, divided by how many it
    does at a time.

    Args:
        jobs: of one phase.
        ramp: the capacity of the run grows 1, 2, 4, …
        ended: machines of the ring that have ended before.
    """
    if not jobs:
        return 0.0
    everything = _Load()
    slots: dict[tuple[str, str], _Load] = {}
    for job in jobs:
        shares = [
            (permit.group, job.seconds / permit.capacity)
            for permit in job.permits
            if not permit.slot and permit.capacity != UNLIMITED
        ]
        everything.add(job.seconds, shares)
        for permit in job.permits:
            if permit.slot:
                slots.setdefault((permit.group, permit.slot), _Load()).add(job.seconds, shares)
    chains: dict[str, float] = {}
    for (group, _), load in slots.items():
        chains[group] = chains.get(group, 0.0) + load.seconds
    bound = max(everything.seconds, max(chains.values(), default=0.0))
    return max(bound, _ramp_bound(jobs, ended)) if ramp else bound


def _ramp_bound(jobs: Sequence[Job], ended: int) -> float:
    """How long the work takes while the run's capacity grows: each step lasts at least as long as the shortest job."""
    capacities = {permit.capacity for job in jobs for permit in job.permits if permit.group == RUN_GROUP} - {UNLIMITED}
    most = min([len(jobs), *capacities])
    shortest = min(job.seconds for job in jobs)
    work, at = sum(job.seconds for job in jobs), 0.0
    limit = ramp_limit(ended)
    while limit < most and work > limit * shortest:
        work -= limit * shortest
        at += shortest
        ended += limit
        limit = ramp_limit(ended)
    return at + work / min(limit, most)


def barrier_bound(lane: Iterable[Job], bake_seconds: float) -> float:
    """No waves of a lane take less, if each waits for the one before it to end and to bake.

    A group that takes so many at a time has at most as many machines in a wave, and no wave has two slots of a group.
    So its waves are at least so many, and take at least as long as every so many-th of its machines, the longest first.
    """
    sections: dict[tuple[str, str], list[Job]] = {}
    for job in lane:
        for group, slot in [("", ""), *((permit.group, permit.slot) for permit in job.permits if permit.slot)]:
            sections.setdefault((group, slot), []).append(job)
    waves: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for (group, _), jobs in sections.items():
        count, longest = _least_waves(jobs)
        waves[group] = waves.get(group, 0) + count
        seconds[group] = seconds.get(group, 0.0) + longest
    return max(seconds.values(), default=0.0) + bake_seconds * (max(waves.values(), default=1) - 1)


def _least_waves(jobs: Iterable[Job]) -> tuple[int, float]:
    """How many waves the groups of some jobs need at least, and how long these take at least."""
    members: dict[str, list[float]] = {"": []}
    capacities = {"": sys.maxsize}
    for job in jobs:
        members[""].append(job.seconds)
        for permit in job.permits:
            if not permit.slot and permit.capacity != UNLIMITED:
                members.setdefault(permit.group, []).append(job.seconds)
                capacities[permit.group] = permit.capacity
    longest_first = {group: sorted(seconds, reverse=True) for group, seconds in members.items()}
    firsts = [seconds[:: capacities[group]] for group, seconds in longest_first.items()]
    return max(len(each) for each in firsts), max(sum(each) for each in firsts)
