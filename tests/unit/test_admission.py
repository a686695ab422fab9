"""The rule of who may start next, against a slow and simple reading of the same sentence."""

from __future__ import annotations

from itertools import combinations
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from domain.admission import Admission, Candidate, admit

GROUPS = ["run", "zone-1", "zone-2", "set-a"]

groups = st.lists(st.sampled_from(GROUPS), unique=True, max_size=3).map(tuple)
capacities = st.dictionaries(st.sampled_from(GROUPS), st.integers(0, 4))


def fleet(prefix: str, most: int) -> st.SearchStrategy[list[Candidate]]:
    return st.lists(groups, max_size=most).map(
        lambda found: [Candidate(f"{prefix}{number}", each) for number, each in enumerate(found)]
    )


def fits(candidates: list[Candidate], limits: dict[str, int]) -> bool:
    return all(sum(group in candidate.groups for candidate in candidates) <= limit for group, limit in limits.items())


def first_come_first_served(
    waiting: list[Candidate], running: list[Candidate], limits: dict[str, int]
) -> tuple[str, ...]:
    """Of all sets that fit beside what runs, the one that prefers the earliest machine wherever two sets differ."""
    # Groups that are over their limit already take nobody, and hold nobody else back.
    over = {group for group, limit in limits.items() if sum(group in each.groups for each in running) > limit}
    open_to = [each for each in waiting if not over & set(each.groups)]
    counted = {group: limit for group, limit in limits.items() if group not in over}
    best: tuple[bool, ...] = ()
    chosen: tuple[str, ...] = ()
    for size in range(len(open_to) + 1):
        for subset in combinations(open_to, size):
            if fits([*running, *subset], counted):
                order = tuple(each in subset for each in open_to)
                if order >= best:
                    best, chosen = order, tuple(each.key for each in subset)
    return chosen


@given(fleet("w", 7), fleet("r", 5), capacities)
def test_the_rule_agrees_with_trying_every_set(
    waiting: list[Candidate], running: list[Candidate], limits: dict[str, int]
) -> None:
    assert admit(waiting, running, limits).start == first_come_first_served(waiting, running, limits)


@given(fleet("w", 12), fleet("r", 6), capacities)
def test_nobody_is_lost_and_whoever_is_held_is_held_by_a_full_group(
    waiting: list[Candidate], running: list[Candidate], limits: dict[str, int]
) -> None:
    found = admit(waiting, running, limits)
    assert sorted([*found.start, *found.held]) == sorted(each.key for each in waiting)
    by_key = {each.key: each for each in waiting}
    busy = [*running, *(by_key[key] for key in found.start)]
    for key, group in found.held.items():
        assert group in by_key[key].groups
        assert sum(group in each.groups for each in busy) >= limits[group]
    for group, limit in limits.items():
        before = sum(group in each.groups for each in running)
        after = sum(group in each.groups for each in busy)
        assert after <= max(limit, before)


@given(fleet("w", 20), st.dictionaries(st.sampled_from(GROUPS), st.integers(1, 3)), st.randoms())
def test_every_machine_starts_in_the_end_whatever_order_they_end_in(
    waiting: list[Candidate], limits: dict[str, int], random: Random
) -> None:
    by_key = {each.key: each for each in waiting}
    left, running, started = list(waiting), list[Candidate](), list[str]()
    while left or running:
        found = admit(left, running, limits)
        assert found.start or running, "nobody runs and nobody may start: the rest would wait for ever"
        started += found.start
        running += [by_key[key] for key in found.start]
        left = [each for each in left if each.key in found.held]
        assert fits(running, limits)
        running.pop(random.randrange(len(running)))
    assert sorted(started) == sorted(by_key)


def test_the_window_of_a_run_is_filled_in_order() -> None:
    waiting = [Candidate(key, ("run",)) for key in "abcd"]
    running = [Candidate("x", ("run",))]
    assert admit(waiting, running, {"run": 3}) == Admission(("a", "b"), {"c": "run", "d": "run"})
    assert admit(waiting, running, {"run": 1}).start == ()
    assert admit(waiting, running, {"run": 0}).start == ()
    assert admit(waiting, running, {}).start == ("a", "b", "c", "d")


def test_a_machine_that_is_held_does_not_hold_those_behind_it() -> None:
    waiting = [Candidate("a", ("zone-1",)), Candidate("b", ("zone-1",)), Candidate("c", ("zone-2",))]
    assert admit(waiting, [], {"zone-1": 1, "zone-2": 1}) == Admission(("a", "c"), {"b": "zone-1"})
