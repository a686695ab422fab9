"""Colourings of the graph of paired regions: each colour is a phase, and phases follow one another.

A phase takes as long as its longest region, or as the work of a limit that reaches over its regions. Of a few regions
every colouring is tried. Of more, the search keeps the best of what it has built so far (a beam search), so its effort
is bounded; what it dropped still tells how short a better colouring could be.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_COLOURED = 200
"""Regions that are coloured. Azure has fewer; a file may have any number of places."""
_FEW = 8
"""Regions of which nothing is dropped: there are at most 4,140 ways to part them."""
_MAX_STEPS = 20_000
"""Regions times phases that one search of more regions looks at."""
_WIDEST = 64
"""Most partial colourings that are kept side by side, and most colourings that are found."""
_MAX_GROUPS = 8
"""Limits over several regions that are considered: those with the most work."""
_TOLERANCE = 1.15
"""Colourings up to this much longer than the shortest are worth drawing: what they take is only estimated."""


@dataclass(frozen=True, slots=True)
class RegionLoad:
    """What the machines of a region need: their number, and the seconds that any order of them takes at least."""

    machines: int
    seconds: float
    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    """Seconds of work by group, divided by the group's capacity; only of groups with machines in several regions."""


class Colouring(NamedTuple):
    """Regions by phase, in no order, and the seconds that every order inside these phases takes at least."""

    seconds: float
    phases: tuple[tuple[str, ...], ...]


class Colourings(NamedTuple):
    """The shortest colourings that were found, best first, and the seconds that every colouring takes at least.

    Of up to eight regions, the first takes exactly these seconds. Of more than `MAX_COLOURED`, nothing is found.
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
    bound = _threshold_bound(longest_first, loads, conflicts)
    if len(loads) > MAX_COLOURED:
        return Colourings([], bound)
    groups = _binding_groups(longest_first, loads)
    width = _width(conflicts)
    greedy = _greedy(longest_first, loads, conflicts, groups)
    limit = greedy.seconds * _TOLERANCE
    beam, least_dropped = [_Partial(0.0, ())], float("inf")
    for region in longest_first:
        wider: list[_Partial] = []
        for partial in beam:
            wider += _extensions(partial, region, loads[region], conflicts[region], groups)
        wider = sorted(each for each in wider if each.seconds <= limit)
        # One more region makes no colouring shorter: what is dropped here is a bound for all that would follow from it.
        if width is not None and len(wider) > width:
            least_dropped = min(least_dropped, wider[width].seconds)
        beam = wider[:width]
    # What the greedy one began with may have been dropped, and all that was kept turn out longer.
    shortest = sorted({*beam, greedy})[:_WIDEST]
    found = [Colouring(each.seconds, tuple(phase.regions for phase in each.phases)) for each in shortest]
    return Colourings(found, min(found[0].seconds, max(bound, least_dropped)))


def _width(conflicts: Mapping[str, frozenset[str]]) -> int | None:
    """How many partial colourings are kept side by side; ``None``: all of them."""
    if len(conflicts) <= _FEW:
        return None
    most_phases = 1 + max(len(others) for others in conflicts.values()) + any(conflicts.values())
    return max(1, min(_WIDEST, _MAX_STEPS // (len(conflicts) * most_phases)))


def _binding_groups(longest_first: Sequence[str], loads: Mapping[str, RegionLoad]) -> list[str]:
    """The groups whose work in some regions together takes longer than the longest of these regions."""
    work: dict[str, float] = {}
    binding: set[str] = set()
    for region in reversed(longest_first):
        for group, share in loads[region].shares.items():
            work[group] = work.get(group, 0.0) + share
            if work[group] > loads[region].seconds:
                binding.add(group)
    return sorted(binding, key=lambda group: (-work[group], group))[:_MAX_GROUPS]


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


def _greedy(
    regions: Sequence[str],
    loads: Mapping[str, RegionLoad],
    conflicts: Mapping[str, frozenset[str]],
    groups: Sequence[str],
) -> _Partial:
    """One colouring: each region in the first phase where it adds the least."""
    built = _Partial(0.0, ())
    for region in regions:
        ways = _extensions(built, region, loads[region], conflicts[region], groups)
        built = min(ways, key=lambda partial: partial.seconds)
    return built


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
