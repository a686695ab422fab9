"""Which machines may start now: the one rule that every wave follows.

Every separation rule is a group with a capacity; a machine may start when each of its groups has room. A run here
knows one group, itself, with the policy's ``maxConcurrent``; further rules are further groups, not further code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A machine and the groups that it takes a place in while it is worked on."""

    key: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may start now, in the given order, and for everybody else the group that holds them back."""

    start: tuple[str, ...]
    held: Mapping[str, str]


def admit(waiting: Sequence[Candidate], running: Iterable[Candidate], capacities: Mapping[str, int]) -> Admission:
    """Fill the free places of every group, first come first served.

    Args:
        waiting: the machines that have not started, in order.
        running: the machines that hold places now.
        capacities: places per group; a group without an entry has no limit.
    """
    taken: Counter[str] = Counter(group for candidate in running for group in candidate.groups)
    start: list[str] = []
    held: dict[str, str] = {}
    for candidate in waiting:
        full = next((group for group in candidate.groups if _is_full(group, taken, capacities)), None)
        if full is not None:
            held[candidate.key] = full
            continue
        taken.update(candidate.groups)
        start.append(candidate.key)
    return Admission(tuple(start), held)


def _is_full(group: str, taken: Counter[str], capacities: Mapping[str, int]) -> bool:
    capacity = capacities.get(group)
    return capacity is not None and taken[group] >= capacity
