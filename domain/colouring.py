"""Colourings of the graph of paired regions: each colour is a phase, and phases follow one another.

A phase takes as long as its longest region, or as the work of a limit that reaches over its regions. The search keeps
the best of what it has built so far (a beam search), so its effort is bounded; where nothing was dropped, its best
result is the best there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_COLOURED = 200
"""Regions that are coloured. Azure has fewer; a file may have any number of places."""
_MOST_STEPS = 20_000
"""Regions times phases that one search looks at."""
_WIDEST = 64
"""Most partial colourings that are kept side by side."""
_MOST_GROUPS = 8
"""Limits over several regions that are considered: those with the most work."""
_TOLERANCE = 1.15
"""Colourings up to this much longer than the shortest are worth drawing: what they take is only estimated."""


@dataclass(frozen=True, slots=True)
class RegionLoad:
    """What the machines of a region need: their number, and how many seconds no order of them alone can beat."""

    machines: int
    seconds: float
    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    """Seconds of work by group, divided by the group's capacity; only of groups with machines in several regions."""


class Colouring(NamedTuple):
    """Regions by phase, in no order, and how many seconds no order inside these phases can beat."""

    seconds: float
    phases: tuple[tuple[str, ...], ...]


class Colourings(NamedTuple):
    """The shortest colourings that were found, best first, and how many seconds no colouring at all can beat.

    Nothing is found for more than `MOST_COLOURED` regions.
    """

    found: list[Colouring]
    bound: float


class _Phase(NamedTuple):
    regions: tuple[str, ...]
    longest: float
    work: tuple[float, ...]

    @property
    def seconds(self) -> float:
        return max(self.longest, *self.work) if self.work else self.longest


class _Partial(NamedTuple):
    """Regions placed so far, and what their phases take. Phases are kept in the order in which they were opened."""

    seconds: float
    phases: tuple[_Phase, ...]


def colour(loads: Mapping[str, RegionLoad], conflicts: Mapping[str, frozenset[str]]) -> Colourings:
    """Find the shortest ways to part regions so that no two that conflict share a phase.

    Args:
        loads: at least one region.
        conflicts: by region, the regions among them that it must not be beside; symmetric.
    """
    longest_first = sorted(loads, key=lambda region: (-loads[region].seconds, region))
    if len(loads) > MOST_COLOURED:
        return Colourings([], _threshold_bound(longest_first, loads, conflicts))
    groups = _wide_groups(loads)
    most_phases = 1 + max((len(others) for others in conflicts.values()), default=0) + bool(any(conflicts.values()))
    width = max(1, min(_WIDEST, _MOST_STEPS // (len(loads) * most_phases)))
    limit = _first_fit(longest_first, loads, conflicts, groups) * _TOLERANCE
    beam, is_complete = [_Partial(0.0, ())], True
    for region in longest_first:
        wider: list[_Partial] = []
        for partial in beam:
            wider += _extensions(partial, region, loads[region], conflicts[region], groups)
        wider = sorted(each for each in wider if each.seconds <= limit)
        is_complete = is_complete and len(wider) <= width
        beam = wider[:width]
    found = [Colouring(each.seconds, tuple(phase.regions for phase in each.phases)) for each in beam]
    bound = found[0].seconds if is_complete else _threshold_bound(longest_first, loads, conflicts)
    return Colourings(found, bound)


def _wide_groups(loads: Mapping[str, RegionLoad]) -> list[str]:
    """The groups whose work in several regions together may take longer than any of these regions alone."""
    totals: dict[str, float] = {}
    longest: dict[str, float] = {}
    for load in loads.values():
        for group, share in load.shares.items():
            totals[group] = totals.get(group, 0.0) + share
            longest[group] = max(longest.get(group, 0.0), load.seconds)
    binding = [group for group, total in totals.items() if total > longest[group]]
    return sorted(binding, key=lambda group: (-totals[group], group))[:_MOST_GROUPS]


def _extensions(
    partial: _Partial, region: str, load: RegionLoad, rivals: frozenset[str], groups: Sequence[str]
) -> Iterable[_Partial]:
    """The partial colouring with one more region: in each phase that it may be in, and in a phase of its own."""
    work = tuple(load.shares.get(group, 0.0) for group in groups)
    for number, phase in enumerate(partial.phases):
        if rivals.isdisjoint(phase.regions):
            joined = _Phase(
                (*phase.regions, region),
                max(phase.longest, load.seconds),
                tuple(before + more for before, more in zip(phase.work, work, strict=True)),
            )
            yield _partial((*partial.phases[:number], joined, *partial.phases[number + 1 :]))
    yield _partial((*partial.phases, _Phase((region,), load.seconds, work)))


def _partial(phases: tuple[_Phase, ...]) -> _Partial:
    return _Partial(sum(phase.seconds for phase in phases), phases)


def _first_fit(
    regions: Sequence[str],
    loads: Mapping[str, RegionLoad],
    conflicts: Mapping[str, frozenset[str]],
    groups: Sequence[str],
) -> float:
    """What one colouring takes: each region where it adds the least."""
    built = _Partial(0.0, ())
    for region in regions:
        built = min(_extensions(built, region, loads[region], conflicts[region], groups))
    return built.seconds


def _threshold_bound(
    regions: Sequence[str], loads: Mapping[str, RegionLoad], conflicts: Mapping[str, frozenset[str]]
) -> float:
    """A bound that needs no search: regions that take at least so long need one, two or three phases that do.

    The longest region opens a phase, the first that conflicts with one that is as long a second, the first that closes
    a cycle of odd length a third; what each of them takes is added up.

    Args:
        regions: the longest first.
    """
    # Two-colouring with a union of parities: `side` says in which of two phases a region is, seen from its root.
    root = {region: region for region in regions}
    side = dict.fromkeys(regions, 0)
    members = {region: [region] for region in regions}
    bound, phases = loads[regions[0]].seconds, 1
    placed: set[str] = set()
    for region in regions:
        placed.add(region)
        for rival in sorted(conflicts[region] & placed):
            phases_needed = 2
            one, other = root[region], root[rival]
            if one == other:
                phases_needed = 3 if side[region] == side[rival] else 2
            else:
                flip = side[region] == side[rival]
                for member in members.pop(other):
                    root[member], side[member] = one, side[member] ^ flip
                    members[one].append(member)
            while phases < phases_needed:
                phases += 1
                bound += loads[region].seconds
    return bound
