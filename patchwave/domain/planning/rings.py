"""Which ring each machine belongs to: the first one, in the order of the rings, that selects it."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from patchwave.domain.core.folding import fold
from patchwave.domain.planning.topology import PlannerMachine
from patchwave.domain.policy.rollout import Ring

_NO_MACHINE = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/none"
    "/providers/Microsoft.Compute/virtualMachines/none"
)


class RingAssignment(NamedTuple):
    """The ring of a machine, counted from 0 in the order of the rings, and what put it there (empty: nothing did)."""

    number: int
    reason: str


def keep_in_ring(rings: Sequence[Ring], name: str, machine_id: str) -> list[Ring]:
    """The rings for a run of this machine alone, which stays in the ring of that name.

    A ring in per cent would take the only machine in scope, past the approval of its own ring. A machine whose ring is
    not known is taken by no such ring.
    """
    return keep_in_rings(rings, {name: [machine_id]})


def keep_in_rings(rings: Sequence[Ring], members: Mapping[str, Sequence[str]]) -> list[Ring]:
    """The rings for a run of a few machines, which stay in theirs: ARM ids by the name of the ring."""
    return [
        ring.model_copy(update={"percent": None, "machine_ids": list(members.get(ring.name) or [_NO_MACHINE])})
        if ring.percent is not None
        else ring
        for ring in rings
    ]


def choose_rings(machines: Sequence[PlannerMachine], rings: Sequence[Ring]) -> dict[str, RingAssignment]:
    """The ring of every machine, by key; a machine that no ring selects is not in the answer.

    Args:
        machines: all machines in scope. A per cent is one of these, whatever has to be done on them, so that a
            machine does not move to another ring because its neighbour is up to date.
        rings: in the order in which they run.
    """
    chosen: dict[str, RingAssignment] = {}
    left = {machine.key: machine for machine in machines}
    strata = _strata(machines) if any(ring.percent for ring in rings) else []
    for index, ring in enumerate(rings):
        if ring.percent is not None:
            taken = dict.fromkeys(_share(strata, left, ring.percent), f"ring {ring.name}: {ring.percent} % by hash")
        else:
            taken = _selected(ring, left.values(), is_only=len(rings) == 1)
        for key, why in taken.items():
            chosen[key] = RingAssignment(index, why)
            del left[key]
    return chosen


def _selected(ring: Ring, machines: Iterable[PlannerMachine], *, is_only: bool) -> dict[str, str]:
    if ring.machine_ids is not None:
        wanted = {fold(machine_id) for machine_id in ring.machine_ids}
        return {each.key: f"ring {ring.name} names it" for each in machines if fold(each.id) in wanted}
    if ring.tags is not None:
        tags = ring.tags
        names = {fold(name) for name in tags.values}
        taken: dict[str, str] = {}
        for machine in machines:
            if tags.matches(machine.tags):
                shown = ", ".join(f"{name}={value}" for name, value in machine.tags.items() if fold(name) in names)
                taken[machine.key] = f"ring {ring.name} by tag {shown}"
        return taken
    why = "" if is_only else f"ring {ring.name} takes the rest"
    return {machine.key: why for machine in machines}


def _strata(machines: Sequence[PlannerMachine]) -> list[list[str]]:
    """Keys by OS image and region, each list in the order of the hash of the machine's id."""
    by_kind: dict[tuple[str, str, str], list[tuple[bytes, str]]] = {}
    for machine in machines:
        kind = (fold(machine.os_type), fold(machine.image), machine.region)
        by_kind.setdefault(kind, []).append((_hash(fold(machine.id)), machine.key))
    return [[key for _, key in sorted(members)] for _, members in sorted(by_kind.items())]


def _share(strata: Sequence[Sequence[str]], left: Iterable[str], percent: int) -> list[str]:
    """Keys of as many machines as the per cent is of all, the same part of every stratum as far as numbers allow.

    Each stratum gives its own per cent, so that a new machine changes the choice in its own stratum, and by the
    rounding of the total in one other at most.
    """
    free = set(left)
    open_strata = [[key for key in stratum if key in free] for stratum in strata]
    wanted = min(len(free), max(1, (percent * sum(map(len, strata)) + 50) // 100))
    quotas = [min(len(mine), percent * len(stratum) // 100) for stratum, mine in zip(strata, open_strata, strict=True)]
    missing = wanted - sum(quotas)
    # The largest remainders first; equal ones in the order of the hash of who would be chosen.
    by_remainder = sorted(
        (number for number, mine in enumerate(open_strata) if len(mine) > quotas[number]),
        key=lambda number: (-(percent * len(strata[number]) % 100), _hash(open_strata[number][quotas[number]])),
    )
    while missing > 0:
        for number in by_remainder:
            if missing > 0 and quotas[number] < len(open_strata[number]):
                quotas[number] += 1
                missing -= 1
    return [key for mine, quota in zip(open_strata, quotas, strict=True) for key in mine[:quota]]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
