"""The first ring of a policy with ``pinRings``, and the machines of later rings that it cannot vouch for.

A pin holds KB numbers for Windows and versions of packages for Linux. Where the first ring has no machine of a system
or of a package manager, nothing can be pinned for such machines: the policy says what is done with them
(``withoutPin``). The publisher of a marketplace image tells the package manager; where it is not known, a pin may hold.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from patchwave.domain.planning.rings import RingAssignment, choose_rings
from patchwave.domain.planning.topology import PlannerMachine
from patchwave.domain.policy.gates import Approval
from patchwave.domain.policy.policy import Policy, WithoutPin
from patchwave.domain.policy.rollout import Ring, order_rings
from patchwave.domain.policy.scope import OsType

_MANAGERS = {
    "canonical": "apt",
    "credativ": "apt",
    "debian": "apt",
    "almalinux": "dnf",
    "ciq": "dnf",
    "openlogic": "dnf",
    "oracle": "dnf",
    "redhat": "dnf",
    "resf": "dnf",
    "suse": "zypper",
    "microsoftcblmariner": "tdnf",
}
"""Package managers by publisher; dnf stands for yum as well, which has the same packages."""
_MAX_IMAGES = 5
"""Images that one note names."""


def kind_of(os_type: str, image: str) -> str:
    """What a machine shares a pin with: ``Windows``, ``Linux/apt``, or ``Linux`` when its package manager is not known.

    Empty when the system is not known.
    """
    system = OsType.read(os_type)
    if system is not OsType.LINUX:
        return "" if system is None else system.value
    manager = _MANAGERS.get(image.partition(":")[0].casefold(), "")
    return f"{system.value}/{manager}" if manager else system.value


def can_be_pinned(kind: str, canary: Collection[str]) -> bool:
    """Whether what machines of the kinds in ``canary`` install can say anything of one of that kind.

    What is not known may do so, and so may a first ring without machines: nothing is ever installed because of it.
    """
    if not kind or not canary or "" in canary or kind in canary:
        return True
    system, _, manager = kind.partition("/")
    same_system = {each for each in canary if each.partition("/")[0] == system}
    return bool(same_system) and (not manager or system in same_system)


def canary_kinds(machines: Sequence[PlannerMachine], rings: Sequence[Ring]) -> list[str]:
    """The kinds of the machines that the first ring selects, whether or not they have anything to do."""
    in_order = sorted(machines, key=lambda machine: machine.id.lower())
    chosen = choose_rings(in_order, order_rings(rings))
    return _kinds(each for each in in_order if _ring_of(each, chosen) == 0)


def with_approvals(policy: Policy, machines: Sequence[PlannerMachine], ended: Collection[str] = ()) -> Policy:
    """The policy, in which rings with machines that nothing can be pinned for need an approval (``withoutPin: wait``).

    Args:
        policy: a valid one.
        machines: all machines in scope.
        ended: keys of machines that are over already.
    """
    if not policy.pin_rings or policy.without_pin is not WithoutPin.WAIT:
        return policy
    ordered = order_rings(policy.rings)
    chosen = choose_rings(sorted(machines, key=lambda machine: machine.id.lower()), ordered)
    canary = canary_kinds(machines, policy.rings)
    waiting = {
        ordered[number].name
        for each in machines
        if each.key not in ended
        and (number := _ring_of(each, chosen)) > 0
        and not can_be_pinned(kind_of(each.os_type, each.image), canary)
    }
    rings = [
        ring.model_copy(update={"approval": ring.approval or Approval()}) if ring.name in waiting else ring
        for ring in policy.rings
    ]
    return policy.model_copy(update={"rings": rings})


def pin_notes(
    policy: Policy,
    machines: Iterable[PlannerMachine],
    planned: Iterable[PlannerMachine],
    chosen: Mapping[str, RingAssignment],
) -> list[str]:
    """What the first ring of the plan cannot vouch for, in sentences; nothing without ``pinRings``.

    Args:
        policy: a valid one.
        machines: all machines in scope.
        planned: those of them that have a place in the plan.
        chosen: the ring of each machine, by key.
    """
    if not policy.pin_rings:
        return []
    first = [each for each in machines if _ring_of(each, chosen) == 0]
    later = [each for each in planned if _ring_of(each, chosen) > 0]
    name, canary = order_rings(policy.rings)[0].name, _kinds(first)
    if later and not first:
        return [f"Ring {name} selects no machine: nothing can be pinned, and all machines of later rings are skipped."]
    missing = Counter(kind for each in later if not can_be_pinned(kind := kind_of(each.os_type, each.image), canary))
    notes = [
        f"Ring {name} has no machine of {_in_words(kind)}, and later rings have {count}: nothing can be pinned for"
        f" them, and {_DONE_THEN[policy.without_pin]}."
        for kind, count in sorted(missing.items())
    ]
    known = {each.image.casefold() for each in first}
    images = Counter(
        each.image
        for each in later
        if each.image and each.image.casefold() not in known and kind_of(each.os_type, each.image) not in missing
    )
    if images:
        shown = [f"{image} ({count})" for image, count in sorted(images.items())[:_MAX_IMAGES]]
        more = f" and {len(images) - _MAX_IMAGES} more" if len(images) > _MAX_IMAGES else ""
        notes.append(
            f"Ring {name} has no machine of these images of later rings, which get only what has the same KB numbers or"
            f" versions: {', '.join(shown)}{more}."
        )
    return notes


def certain_notes(policy: Policy) -> list[str]:
    """What is certain of the first ring without knowing a machine: it is too small for the systems of the scope."""
    if not policy.pin_rings or len(policy.scope.os_types) < len(OsType):
        return []
    ring = order_rings(policy.rings)[0]
    most = _most_machines(ring, len(policy.scope.machine_ids))
    if most is None or most >= len(policy.scope.os_types):
        return []
    systems = " and ".join(system.value for system in policy.scope.os_types)
    return [
        f"Ring {ring.name} holds {most} machine, and the scope is for {systems}: nothing can be pinned for one of the"
        f" two, and {_DONE_THEN[policy.without_pin]}."
    ]


_DONE_THEN = {
    WithoutPin.SKIP: "these machines are skipped (withoutPin: skip)",
    WithoutPin.WAIT: "their rings wait for an approval to install them unpinned (withoutPin: wait)",
    WithoutPin.INSTALL: "they install all that the policy selects (withoutPin: install)",
}


def _most_machines(ring: Ring, in_scope: int) -> int | None:
    """The most machines that a ring can hold; ``None`` when only Azure knows.

    ``in_scope`` is how many machines the scope names, 0 where it names none.
    """
    if ring.machine_ids is not None:
        return len({each.lower() for each in ring.machine_ids})
    if ring.percent is not None and in_scope:
        return max(1, (ring.percent * in_scope + 50) // 100)
    return None


def _ring_of(machine: PlannerMachine, chosen: Mapping[str, RingAssignment]) -> int:
    """The number of the machine's ring, from 0; -1 when no ring selects it."""
    choice = chosen.get(machine.key)
    return -1 if choice is None else choice.number


def _kinds(machines: Iterable[PlannerMachine]) -> list[str]:
    return sorted({kind_of(each.os_type, each.image) for each in machines})


def _in_words(kind: str) -> str:
    system, _, manager = kind.partition("/")
    return f"{system} with the package manager {manager}" if manager else system
