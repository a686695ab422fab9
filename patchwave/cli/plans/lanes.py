"""A plan as its lanes, which is how people look at one; what the tables and the drawings are made of."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from patchwave.domain.planning.plan import Plan, PlannedMachine, PlannedRing

_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440)
"""Minutes between two marks of a time axis."""


@dataclass(frozen=True, slots=True)
class Wave:
    """The machines of one wave of a lane, in the order of their predicted start. Times in seconds from the start."""

    number: int
    machines: list[PlannedMachine]

    @property
    def start(self) -> float:
        """When its first machine starts."""
        return min(machine.predicted_start for machine in self.machines)

    @property
    def end(self) -> float:
        """When its last machine ends."""
        return max(machine.predicted_end for machine in self.machines)


@dataclass(frozen=True, slots=True)
class Lane:
    """One region in one phase of a ring, with its waves in order; never empty."""

    ring: PlannedRing
    phase: int
    region: str
    waves: list[Wave]

    @property
    def machines(self) -> list[PlannedMachine]:
        """All its machines, wave after wave."""
        return [machine for wave in self.waves for machine in wave.machines]

    @property
    def start(self) -> float:
        """When its first machine starts."""
        return min(wave.start for wave in self.waves)

    @property
    def end(self) -> float:
        """When its last machine ends."""
        return max(wave.end for wave in self.waves)


def lanes_of(plan: Plan) -> list[Lane]:
    """The lanes of a plan that take machines, in the order of rings, phases, and regions inside a phase."""
    rings = {ring.name: (number, ring) for number, ring in enumerate(plan.rings)}
    regions = {
        (ring.name, phase, region): place
        for ring in plan.rings
        for phase, listed in enumerate(ring.phases, start=1)
        for place, region in enumerate(listed)
    }

    def place(machine: PlannedMachine) -> tuple[int, int, int, str, int]:
        number, _ = rings.get(machine.ring, (len(rings), None))
        region = regions.get((machine.ring, machine.phase, machine.lane), len(regions))
        return number, machine.phase, region, machine.lane, machine.wave

    ordered = sorted(plan.machines, key=lambda machine: (*place(machine), machine.predicted_start))
    lanes: list[Lane] = []
    for (ring, phase, region), members in groupby(ordered, key=lambda one: (one.ring, one.phase, one.lane)):
        _, planned = rings.get(ring, (0, PlannedRing(name=ring, machines=0, phases=[])))
        waves = [Wave(number, list(part)) for number, part in groupby(members, key=lambda one: one.wave)]
        lanes.append(Lane(planned, phase, region, waves))
    return lanes


def peak(machines: list[PlannedMachine]) -> int:
    """The most machines that are worked on at the same time."""
    return max(at_a_time(machines, 1, total_seconds(machines)), default=0)


def at_a_time(machines: list[PlannedMachine], slots: int, seconds: float) -> list[int]:
    """The most machines at a time in each of so many equal parts of the run's ``seconds``."""
    counts = [0] * slots
    if seconds <= 0:
        return counts
    # Ends come before starts of the same moment: a machine that follows another is not beside it.
    starts = [(machine.predicted_start, 1) for machine in machines]
    changes = sorted([*starts, *((machine.predicted_end, -1) for machine in machines)])
    running, slot = 0, 0
    for moment, change in changes:
        until = min(int(moment / seconds * slots), slots - 1)
        # What runs on keeps its place in the slots up to this moment; one that ends on a border is not in the next.
        last = until if moment > until * seconds / slots else until - 1
        for each in range(slot, last + 1):
            counts[each] = max(counts[each], running)
        running += change
        slot = until
        if change > 0:
            counts[until] = max(counts[until], running)
    return counts


def total_seconds(machines: list[PlannedMachine]) -> float:
    """When the last machine ends; 0 without machines."""
    return max((machine.predicted_end for machine in machines), default=0.0)


def ticks(seconds: float, most: int) -> list[float]:
    """Round offsets from 0 to the end, at most so many steps apart."""
    step = next((minutes for minutes in _STEPS if seconds <= minutes * 60 * most), None)
    if step is None:
        days = -(-seconds // (86_400 * most))
        step = int(days) * 1440
    return [float(moment) for moment in range(0, int(seconds) + 1, step * 60)]


def clock(seconds: float) -> str:
    """An offset as hours and minutes, ``1:05``, to the nearest minute."""
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d}"


def name_of(machine_id: str) -> str:
    """The name at the end of an ARM id."""
    return machine_id.rstrip("/").rpartition("/")[2] or machine_id
