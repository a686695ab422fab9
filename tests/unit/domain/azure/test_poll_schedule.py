"""When an operation is looked at."""

from __future__ import annotations

import random
import time

from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.azure.poll_schedule import PollSchedule, TrackedOperation

POLL, READS = 30.0, 17.0
seconds = st.floats(0, 100_000)


def operation(number: int = 0, kind: OperationKind = OperationKind.INSTALL, os_type: str = "Linux") -> TrackedOperation:
    return TrackedOperation(f"m{number}", "one~westeurope", kind, os_type)


def count(looks: PollSchedule, one: TrackedOperation, took: float, known: float | None = None) -> tuple[int, float]:
    """How many looks an operation takes that ends by then, and how late its end is seen."""
    now, number = looks.first(one, 0, 0, known), 1
    while now < took:
        now += looks.following(one, now, now)
        number += 1
    looks.ended(one, took)
    return number, now - took


@given(seconds, seconds, st.one_of(st.none(), seconds))
def test_waits_are_neither_short_nor_endless(now: float, elapsed: float, known: float | None) -> None:
    looks = PollSchedule(POLL, READS)
    for wait in (looks.first(operation(), now, elapsed, known), looks.following(operation(), now, elapsed)):
        assert POLL - 1e-6 <= wait <= 20 * POLL + 1e-6


def test_one_or_two_looks_when_the_machine_takes_as_long_as_the_last_time() -> None:
    source = random.Random(1)
    looks = PollSchedule(POLL, READS)
    counts = [count(looks, operation(), took * source.uniform(0.9, 1.1), took) for took in range(120, 600, 5)]
    assert sum(number for number, _ in counts) / len(counts) <= 3
    assert max(late for _, late in counts) <= 120


def test_what_was_seen_of_its_likes_is_expected_of_the_next() -> None:
    looks = PollSchedule(POLL, READS)
    assert count(looks, operation(), 590)[0] > 4
    number, late = count(looks, operation(), 591)
    assert number <= 2
    assert late <= 90
    assert looks.first(operation(os_type="Windows"), 0, 0, None) == 12 * POLL, "another system"
    assert looks.first(operation(kind=OperationKind.ASSESS), 0, 0, None) == 5 * POLL


def test_a_start_that_is_found_again_later_waits_for_the_rest() -> None:
    assert PollSchedule(POLL, READS).first(operation(), 0, 400, 500) == 50


def test_looks_never_crowd() -> None:
    looks = PollSchedule(POLL, READS)
    moments = [looks.first(operation(number), now := 1_000 + number / 10, 0, 500) + now for number in range(2_000)]
    moments += [looks.following(operation(number), 1_200, 600) + 1_200 for number in range(500)]
    for begin in range(1_200, 2_000):
        inside = sum(begin <= moment < begin + 10 for moment in moments)
        assert inside <= 10 * READS / 2 + 2 * POLL / 10 * READS / 2, "ten seconds touch grains at both ends"


def test_the_last_ones_in_flight_are_looked_at_often() -> None:
    looks = PollSchedule(POLL, READS)
    assert looks.following(operation(), 0, 3_600) == POLL, "a wait of a tenth would be six minutes"


def test_many_in_flight_are_counted_by_region() -> None:
    looks = PollSchedule(POLL, READS)
    for number in range(2_000):
        looks.first(operation(number), 0, 0, 500)
    assert looks.in_flight("one~westeurope", 0) == 2_000
    assert looks.in_flight("one~northeurope", 0) == 0
    for number in range(1_000):
        looks.ended(operation(number))
    assert looks.in_flight("one~westeurope", 0) == 1_000
    assert looks.in_flight("one~westeurope", 5_000) == 0, "another worker has seen them end"


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["look", "end"]), st.floats(0, 300)), max_size=60))
def test_in_flight_is_whoever_was_looked_at_and_has_not_ended(steps: list[tuple[int, str, float]]) -> None:
    looks, until, now = PollSchedule(POLL, READS), dict[int, float](), 0.0
    for number, step, later in steps:
        now += later
        if step == "look":
            until[number] = now + looks.following(operation(number), now, 100) + 2 * POLL
        else:
            looks.ended(operation(number))
            until.pop(number, None)
        assert looks.in_flight("one~westeurope", now) == sum(now <= moment for moment in until.values())


def test_what_is_counted_costs_the_same_however_many_there_are() -> None:
    looks = PollSchedule(POLL, READS)
    for number in range(50_000):
        looks.first(operation(number), 0, 0, 500)
    began = time.process_time()
    for _ in range(10_000):
        looks.in_flight("one~westeurope", 0)
    assert time.process_time() - began < 1, "a walk over all of them takes half a minute"
