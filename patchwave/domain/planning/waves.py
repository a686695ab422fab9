"""Waves: which machines of a lane could all be patched at the same time. A number for people, gates and bake times.

A machine takes the first wave in which every one of its groups has room left, so that the waves of a lane are as few
and as full as its order allows. Whether a wave waits for the one before is no question here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from patchwave.domain.planning.admission import UNLIMITED
from patchwave.domain.planning.critical_path import Job


@dataclass(slots=True)
class _Room:
    """How many permits of a group are taken in each wave, and which waves are full."""

    taken: dict[int, int] = field(default_factory=dict[int, int])
    next_open: dict[int, int] = field(default_factory=dict[int, int])
    """A later wave to look at, for each wave that is full."""

    def first_open(self, wave: int) -> int:
        """The first wave with room, from this one on. Shortens the path for the next search."""
        found = wave
        while found in self.next_open:
            found = self.next_open[found]
        while wave in self.next_open:
            self.next_open[wave], wave = found, self.next_open[wave]
        return found

    def take(self, wave: int, capacity: int) -> None:
        self.taken[wave] = self.taken.get(wave, 0) + 1
        if self.taken[wave] >= capacity:
            self.next_open[wave] = wave + 1


@dataclass(slots=True)
class _Slot:
    """The slot that a group is at: a new one begins after the last wave of the one before."""

    name: str = ""
    first: int = 1
    last: int = 0

    def first_open(self, name: str) -> int:
        if name != self.name:
            self.name, self.first = name, self.last + 1
        return self.first


def number_waves(jobs: Iterable[Job]) -> dict[str, int]:
    """The wave of every machine of one lane, by key, from 1 without gaps.

    Args:
        jobs: of one lane, in the order in which they are looked at; the jobs of a slot come one after the other.
    """
    rooms: dict[str, _Room] = {}
    slots: dict[str, _Slot] = {}
    waves: dict[str, int] = {}
    for job in jobs:
        wave = 1
        limits: list[tuple[_Room, int]] = []
        mine: list[_Slot] = []
        for place in job.permits:
            if place.slot:
                slot = slots.setdefault(place.group, _Slot())
                wave = max(wave, slot.first_open(place.slot))
                mine.append(slot)
            elif place.capacity != UNLIMITED:
                limits.append((rooms.setdefault(place.group, _Room()), place.capacity))
        settled = 0
        while settled != wave:
            settled = wave
            for room, _ in limits:
                wave = room.first_open(wave)
        for room, capacity in limits:
            room.take(wave, capacity)
        for slot in mine:
            slot.last = max(slot.last, wave)
        waves[job.key] = wave
    return waves
