"""Which regions of a ring are patched side by side, and in which order: two paired regions never share a phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from patchwave.domain.planning.region_coloring import RegionLoad, colour
from patchwave.domain.planning.topology import Topology


class Clock(Protocol):
    """How long regions of a ring take side by side, in seconds; ``ended`` machines of the ring have ended before."""

    def predicted(self, regions: Sequence[str], ended: int) -> float:
        """How long they are expected to take."""
        ...

    def bound(self, regions: Sequence[str], ended: int) -> float:
        """No order takes less, even if regions that are paired were patched side by side."""
        ...


@dataclass(slots=True)
class PhasePlan:
    """Phases in order, each the regions that are patched side by side."""

    regions: list[list[str]] = field(default_factory=list[list[str]])
    reasons: dict[str, str] = field(default_factory=dict[str, str])
    """By region, what decided its phase; regions that nothing held back are not in it."""
    notes: list[str] = field(default_factory=list[str])
    bound: float = 0.0
    """Seconds in which no phases that keep the pairs apart, in no order, get done what is in them."""


def make_phases(
    loads: Mapping[str, RegionLoad],
    topology: Topology,
    fixed: Sequence[Sequence[str]] | None,
    clock: Clock,
    *,
    most_drawn: int = 1,
    fewest_first: bool = False,
) -> PhasePlan:
    """Part the regions of a ring into phases that take little time; ties as with the fewest machines first.

    The region with the fewest machines is in the first phase, and so on.

    Args:
        loads: what the machines of each region need.
        topology: what is paired with what.
        fixed: the policy's own phases; paired regions in one of them are parted, and regions that it does not name
            follow.
        clock: how long phases take.
        most_drawn: so many of the phases that look best are compared by what they are expected to take.
        fewest_first: phases by the number of machines alone, whatever they take.
    """
    made = PhasePlan()
    maker = _Maker(made, loads, topology, clock, most_drawn, fewest_first)
    sections = [frozenset(regions) for regions in fixed or ()]
    named = {region for regions in sections for region in regions}
    for number, regions in enumerate(sections, start=1):
        mine = [region for region in loads if region in regions]
        first = len(made.regions) + 1
        maker.add(mine)
        if len(made.regions) > first:
            made.notes.append(
                f"phases[{number - 1}] of the policy names paired regions: they are patched one after the other."
            )
        for region in mine:
            made.reasons.setdefault(region, f"phase {first} by the policy")
    rest = [region for region in loads if region not in named]
    first = len(made.regions) + 1
    maker.add(rest)
    if first > 1:
        for region in rest:
            made.reasons.setdefault(region, f"phase {first}: after the regions that the policy names")
    return made


type _Numbering = tuple[int, ...]
"""The phase of each region, from 0 without gaps, where the first region is in the first phase, and so on."""


@dataclass(slots=True)
class _Maker:
    """Adds phases at the end of those that are made."""

    made: PhasePlan
    loads: Mapping[str, RegionLoad]
    topology: Topology
    clock: Clock
    most_drawn: int
    fewest_first: bool
    ended: int = 0

    def add(self, regions: Sequence[str]) -> None:
        """Part these regions into new phases."""
        if not regions:
            return
        loads = {region: self.loads[region] for region in regions}
        conflicts = {region: self.topology.conflicts(region) & loads.keys() for region in regions}
        smallest_first = sorted(regions, key=lambda region: (loads[region].machines, region))
        phases, bound = [smallest_first], self.clock.bound(regions, self.ended)
        if any(conflicts.values()):
            colourings = colour(loads, conflicts)
            bound = max(bound, colourings.bound)
            ranked = {_number(each.phases, smallest_first): each.seconds for each in colourings.found}
            if self.fewest_first or not ranked:
                ranked = {_first_fit(smallest_first, conflicts): bound}
            # Seconds are sums of fractions: what differs by less than a thousandth is a tie.
            numberings = sorted(ranked, key=lambda each: (round(ranked[each], 3), each))[: self.most_drawn]
            phases = self._shortest(numberings, smallest_first, bound)
        self.made.bound += bound
        self._explain(phases, conflicts)
        self.made.regions += [sorted(phase) for phase in phases]
        self.ended += sum(load.machines for load in loads.values())

    def _shortest(self, numberings: Sequence[_Numbering], regions: Sequence[str], bound: float) -> list[list[str]]:
        """Of several ways to number the phases of regions, the one that is expected to take the least time."""
        best, least = _phases_of(numberings[0], regions), float("inf")
        for numbering in numberings if len(numberings) > 1 else ():
            phases, ended, seconds = _phases_of(numbering, regions), self.ended, 0.0
            for phase in phases:
                seconds += self.clock.predicted(phase, ended)
                ended += sum(self.loads[region].machines for region in phase)
            if seconds < least:
                best, least = phases, seconds
            if least <= bound:
                break
        return best

    def _explain(self, phases: Sequence[Sequence[str]], conflicts: Mapping[str, frozenset[str]]) -> None:
        """Say of the regions behind the first phase what put them there."""
        before = list(phases[0])
        for number, phase in enumerate(phases[1:], start=len(self.made.regions) + 2):
            longest = max(phase, key=lambda region: (self.loads[region].seconds, region))
            for region in phase:
                # The latest phase with one that it is paired with tells the most.
                rival = next((other for other in reversed(before) if other in conflicts[region]), None)
                if rival is not None:
                    self.made.reasons[region] = f"phase {number}: {region} is paired with {rival}"
                else:
                    self.made.reasons[region] = f"phase {number}: beside {longest} it makes the ring shorter"
            before += phase


def _number(phases: Sequence[Sequence[str]], regions: Sequence[str]) -> _Numbering:
    """The phases in the order of their first regions."""
    phase_of = {region: phase for phase, members in enumerate(phases) for region in members}
    numbers: dict[int, int] = {}
    return tuple(numbers.setdefault(phase_of[region], len(numbers)) for region in regions)


def _phases_of(numbering: _Numbering, regions: Sequence[str]) -> list[list[str]]:
    phases: list[list[str]] = [[] for _ in range(max(numbering) + 1)]
    for region, number in zip(regions, numbering, strict=True):
        phases[number].append(region)
    return phases


def _first_fit(regions: Sequence[str], conflicts: Mapping[str, frozenset[str]]) -> _Numbering:
    """Each region in the first phase without one that it is paired with."""
    phases: list[list[str]] = []
    for region in regions:
        number = next((n for n, phase in enumerate(phases) if conflicts[region].isdisjoint(phase)), len(phases))
        if number == len(phases):
            phases.append([])
        phases[number].append(region)
    return _number(phases, regions)
