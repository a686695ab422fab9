"""The phases of one ring as they are expected to go: in which order their machines are looked at, and when each starts.

What the critical-path rule gives is a good order, and with few machines not always a short one. So a small phase is
drawn in several orders, each by the same rule from durations that are a little off (problem-space search, after Storer,
Wu and Vaccari), and the shortest drawing counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from random import Random
from typing import NamedTuple

from patchwave.domain.planning.constraints import slot_order
from patchwave.domain.planning.critical_path import Job, barrier_bound, critical_path_first, lower_bound, shortest_first
from patchwave.domain.planning.region_coloring import RegionLoad
from patchwave.domain.planning.timeline import Slice, draw_timeline
from patchwave.domain.planning.waves import number_waves

_MAX_SEARCHED = 400
"""Machines of a phase that is drawn in several orders; in a larger one the gaps of an order are small."""
_MAX_ORDERS = 60
_MAX_DRAWN = 4_000
"""Machines times orders of one search."""
_WORTH_IT = 0.98
"""Of the length by the critical-path rule: for less than 2 % the order stays what people expect."""


class DrawnPhase(NamedTuple):
    """A phase that begins at second 0: its jobs in order, the wave of each inside its lane, and its times by key."""

    jobs: list[Job]
    waves: Mapping[str, int]
    slices: Mapping[str, Slice]
    seconds: float


@dataclass(slots=True)
class RingDrawing:
    """How long the regions of a ring take, alone and side by side."""

    lanes: Mapping[str, Sequence[Job]]
    """The jobs of the ring by region."""
    run_capacity: int
    ramp: bool = False
    wave_barrier: bool = False
    bake_seconds: float = 0.0
    openings: Mapping[str, float] = field(default_factory=dict[str, float])
    """Groups of the jobs that are held at first, and the second of the plan at which each is released."""
    _drawn: dict[tuple[frozenset[str], int, float], DrawnPhase] = field(
        default_factory=dict[tuple[frozenset[str], int, float], DrawnPhase]
    )

    def loads(self) -> dict[str, RegionLoad]:
        """What each region needs, whatever goes before it: a ramp may be over by then."""
        shares: dict[str, dict[str, float]] = {}
        for region, jobs in self.lanes.items():
            for job in jobs:
                for place in job.permits:
                    if place.capacity and not place.slot:
                        work = shares.setdefault(place.group, {})
                        work[region] = work.get(region, 0.0) + job.seconds / place.capacity
        wide = {group: work for group, work in shares.items() if len(work) > 1}
        return {
            region: RegionLoad(
                len(jobs),
                self._bound([region], ramp=False),
                {group: work[region] for group, work in wide.items() if region in work},
            )
            for region, jobs in self.lanes.items()
        }

    def bound(self, regions: Sequence[str], ended: int) -> float:
        """No order takes less, even if regions that are paired were patched side by side."""
        return self._bound(regions, ramp=self.ramp, ended=ended)

    def _bound(self, regions: Sequence[str], *, ramp: bool, ended: int = 0) -> float:
        bounds = [lower_bound(self._jobs(regions), ramp=ramp, ended=ended)]
        if self.wave_barrier:
            bounds += [barrier_bound(self.lanes[region], self.bake_seconds) for region in regions]
        return max(bounds)

    def predicted(self, regions: Sequence[str], ended: int) -> float:
        """How long they are expected to take in the order of the critical-path rule."""
        return self._first(regions, ended).seconds

    def opening(self, job: Job) -> float:
        """The second of the plan from which on the job may start."""
        return max((self.openings.get(permit.group, 0.0) for permit in job.permits), default=0.0)

    def draw(self, regions: Sequence[str], ended: int, begins: float = 0.0) -> DrawnPhase:
        """The phase of these regions, in the shortest of several orders; it begins at that second of the plan."""
        best = self._first(regions, ended, begins)
        worth = best.seconds * _WORTH_IT
        # Jobs that wait for a window are in the order of their windows, which no other order makes shorter.
        if len(best.jobs) > _MAX_SEARCHED or self.openings or (bound := self.bound(regions, ended)) > worth:
            return best
        # The same orders every time, whatever the order of the machines.
        jobs, random = sorted(best.jobs), Random(0)
        for number in range(min(_MAX_ORDERS, _MAX_DRAWN // len(jobs))):
            order = _moved(best.jobs, random) if number % 2 else _guessed(jobs, random, in_proportion=number % 4 == 0)
            attempt = self._draw(order, ended)
            if attempt.seconds < best.seconds:
                best = attempt
            if best.seconds <= bound:
                break
        return best if best.seconds <= worth else self._first(regions, ended)

    def _first(self, regions: Sequence[str], ended: int, begins: float = 0.0) -> DrawnPhase:
        known = frozenset(regions), ended if self.ramp else 0, begins if self.openings else 0.0
        if known not in self._drawn:
            self._drawn[known] = self._draw(critical_path_first(self._jobs(regions)), ended, begins)
        return self._drawn[known]

    def _draw(self, jobs: list[Job], ended: int, begins: float = 0.0) -> DrawnPhase:
        if self.openings:
            jobs = sorted(jobs, key=self.opening)
        elif self.ramp:
            jobs = shortest_first(jobs, max(0, self.run_capacity - ended))
        lanes: dict[str, list[Job]] = {}
        for job in jobs:
            lanes.setdefault(job.lane, []).append(job)
        waves = {key: wave for lane in lanes.values() for key, wave in self._number_waves(lane).items()}
        slices = draw_timeline(
            jobs,
            waves,
            ramp=self.ramp,
            ended=ended,
            wave_barrier=self.wave_barrier,
            bake_seconds=self.bake_seconds,
            openings={group: second - begins for group, second in self.openings.items()},
        )
        return DrawnPhase(jobs, waves, slices, max(each.end for each in slices.values()))

    def _number_waves(self, lane: list[Job]) -> dict[str, int]:
        """The waves of a lane; machines whose windows open later are in later ones."""
        waves: dict[str, int] = {}
        for _, jobs in groupby(lane, key=self.opening):
            last = max(waves.values(), default=0)
            waves |= {key: last + wave for key, wave in number_waves(jobs).items()}
        return waves

    def _jobs(self, regions: Sequence[str]) -> list[Job]:
        return [job for region in regions for job in self.lanes[region]]


def _guessed(jobs: Sequence[Job], random: Random, *, in_proportion: bool) -> list[Job]:
    """The order of the critical-path rule for other durations: parts of the expected ones, or any."""
    named = {job.key: job for job in jobs}
    guessed = [job._replace(seconds=random.random() * (job.seconds if in_proportion else 1)) for job in jobs]
    return [named[job.key] for job in critical_path_first(guessed)]


def _moved(jobs: Sequence[Job], random: Random) -> list[Job]:
    """The same order but for one job. The slots of its groups stay in their order: zone 1 before zone 2."""
    order = list(jobs)
    moved = order.pop(random.randrange(len(order)))
    slots = {place.group: slot_order(place.slot) for place in moved.permits if place.slot}
    first, last = 0, len(order)
    for number, job in enumerate(order):
        for place in job.permits:
            if not place.slot or place.group not in slots:
                continue
            if slot_order(place.slot) < slots[place.group]:
                first = number + 1
            elif slot_order(place.slot) > slots[place.group]:
                last = min(last, number)
    if first > last:
        return list(jobs)
    order.insert(random.randint(first, last), moved)
    return order
