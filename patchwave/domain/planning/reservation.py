"""Reservations: what keeps machines apart inside a run keeps phases of different runs apart.

Before a phase starts anything its run reserves the groups that its machines are in. It is the rule of
`patchwave.domain.planning.admission` with whole phases in the place of machines: a group with slots is shared by phases
that stay inside one and the same slot, any other group belongs to one phase at a time. Phases go in the order of their
numbers, and a number is given once.
"""

import hashlib
from collections.abc import Iterable

from pydantic import Field

from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.planning.admission import Permit
from patchwave.domain.planning.constraints import ACROSS_RUNS, pair_permit
from patchwave.domain.planning.topology import Topology

SEVERAL = "*"
"""In the place of a slot: the phase works in more than one. As the only unit: it has more than a row can hold."""
_NAMED = 200
"""Groups whose names are kept for people."""
_MAX_NAME = 300
"""Characters of such a name, which holds the id of a set as a whole; tags and their values may be longer."""
_DIGITS = 12
_MAX_UNITS = 20_000
"""What fits into a row, which holds 1 MiB. A phase with more groups is kept apart from all that have any."""


class Groups(Document):
    """The groups of a phase: ``slots`` with the only slot of each (or `SEVERAL`), ``units`` (those without slots) as
    digests, or `SEVERAL` alone.

    ``names``: of the first units, by digest.
    """

    slots: dict[str, str] = Field(default_factory=dict[str, str])
    units: list[str] = Field(default_factory=list[str])
    names: dict[str, str] = Field(default_factory=dict[str, str])


EVERYTHING = Groups(slots={SEVERAL: SEVERAL}, units=[SEVERAL])
"""Of a reservation that cannot be read: what it keeps others away from is not known."""


class Reservation(Document):
    """What a run reserves. ``groups`` is ``None`` once it was given back.

    ``sequence`` counts the reservations of the run, so that a late execution of an earlier one changes nothing;
    ``phase`` tells whether a new one is for the same phase; ``number`` is its position among those of all runs.
    """

    run_id: str
    sequence: int
    phase: str
    number: int = 0
    since: UtcDatetime
    groups: Groups | None = None


def groups_of(permits: Iterable[Permit], regions: Iterable[str], topology: Topology) -> Groups:
    """The groups of a phase: of the permits of its machines, and of the pairs that its regions are in."""
    slots: dict[str, str] = {}
    units: dict[str, str] = {}
    pairs = [pair_permit(region, other) for region in regions for other in topology.conflicts(region)]
    for permit in (*permits, *pairs):
        if permit.group.partition(":")[0] not in ACROSS_RUNS:
            continue
        if not permit.slot:
            units[_digest(permit.group)] = permit.group
        elif slots.setdefault(permit.group, permit.slot) != permit.slot:
            slots[permit.group] = SEVERAL
    if len(units) > _MAX_UNITS:
        units = {SEVERAL: ""}
    named = dict(sorted(units.items(), key=lambda unit: unit[1])[:_NAMED])
    return Groups(
        slots=dict(sorted(slots.items())),
        units=sorted(units),
        names={unit: name[:_MAX_NAME] for unit, name in named.items() if name},
    )


def keeps_apart(mine: Groups, theirs: Groups) -> list[str]:
    """The groups that keep two phases apart: their names, or digests where no name is known."""
    if SEVERAL in mine.slots or SEVERAL in theirs.slots:
        return [SEVERAL] if (mine.slots or mine.units) and (theirs.slots or theirs.units) else []
    slotted = [
        group
        for group, slot in mine.slots.items()
        if group in theirs.slots and (slot == SEVERAL or theirs.slots[group] != slot)
    ]
    return [*slotted, *(mine.names.get(unit, unit) for unit in _shared(mine.units, theirs.units))]


def _shared(mine: list[str], theirs: list[str]) -> list[str]:
    if SEVERAL in (*mine[:1], *theirs[:1]):
        return [SEVERAL] if mine and theirs else []
    return sorted({*mine} & {*theirs})


def ahead_of(mine: Reservation, others: Iterable[Reservation]) -> list[Reservation]:
    """The reservations that have to be released before this one holds its groups, in their order."""
    return sorted(
        (each for each in others if each.run_id != mine.run_id and each.number < mine.number and _meet(mine, each)),
        key=lambda each: each.number,
    )


def behind(mine: Reservation, others: Iterable[Reservation]) -> list[Reservation]:
    """The reservations that wait for this one."""
    return [each for each in others if each.run_id != mine.run_id and each.number > mine.number and _meet(mine, each)]


def waits_for(mine: Reservation, first: Reservation, more: int) -> str:
    """What a run waits for, in words: ``first`` of those that are ahead of it, and how many ``more`` there are."""
    shared = keeps_apart(mine.groups, first.groups) if mine.groups and first.groups else []
    what = _in_words(shared[0]) if shared else "the same machines"
    others = f", and {more} more" if more else ""
    if first.groups is not None and SEVERAL in first.groups.slots:
        return f"the run {first.run_id}{others}: what it has reserved cannot be read, so that it has to end first"
    return f"the run {first.run_id}{others}: both work on {what}"


def _meet(one: Reservation, other: Reservation) -> bool:
    return one.groups is not None and other.groups is not None and bool(keeps_apart(one.groups, other.groups))


def _in_words(group: str) -> str:
    kind, _, name = group.partition(":")
    words = ACROSS_RUNS.get(kind)
    return words(name) if words else "a set or a tag that both have"


def _digest(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()[:_DIGITS]
