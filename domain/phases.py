"""Which regions of a ring are patched side by side, and in which order: two paired regions never share a phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from domain.topology import Topology


@dataclass(frozen=True, slots=True)
class Phases:
    """Phases in order, each the regions that are patched side by side."""

    regions: list[list[str]] = field(default_factory=list[list[str]])
    why: dict[str, str] = field(default_factory=dict[str, str])
    """By region, what decided its phase; regions that nothing held back are not in it."""
    notes: list[str] = field(default_factory=list[str])


def make_phases(machines: Mapping[str, int], topology: Topology, fixed: Sequence[Sequence[str]] | None) -> Phases:
    """Colour the conflict graph of paired regions: the fewest machines first, ties by name, the earliest phase.

    Args:
        machines: machines of the ring by region.
        topology: what is paired with what.
        fixed: the policy's own phases; paired regions in one of them are parted, and regions that it does not name
            follow.
    """
    made = Phases()
    smallest_first = sorted(machines, key=lambda region: (machines[region], region))
    named = {region for regions in fixed or () for region in regions}
    for number, regions in enumerate(fixed or (), start=1):
        mine = [region for region in smallest_first if region in regions]
        first = len(made.regions) + 1
        _colour(made, mine, topology)
        if len(made.regions) > first:
            made.notes.append(
                f"phases[{number - 1}] of the policy names paired regions: they are patched one after the other."
            )
        for region in mine:
            made.why.setdefault(region, f"phase {first} by the policy")
    rest = [region for region in smallest_first if region not in named]
    first = len(made.regions) + 1
    _colour(made, rest, topology)
    if first > 1:
        for region in rest:
            made.why.setdefault(region, f"phase {first}: after the regions that the policy names")
    return made


def _colour(made: Phases, regions: Sequence[str], topology: Topology) -> None:
    """Put regions into new phases at the end, each into the earliest one without a paired region."""
    coloured: list[list[str]] = []
    before = len(made.regions)
    for region in regions:
        pairs = topology.conflicts(region)
        number = next((n for n, phase in enumerate(coloured) if pairs.isdisjoint(phase)), len(coloured))
        if number == len(coloured):
            coloured.append([])
        coloured[number].append(region)
        if number:
            rival = next(other for other in coloured[number - 1] if other in pairs)
            made.why[region] = f"phase {before + number + 1}: {region} is paired with {rival}"
    made.regions.extend(sorted(phase) for phase in coloured)
