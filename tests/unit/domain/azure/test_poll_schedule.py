"""When an operation is polled."""

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


def count(schedule: PollSchedule, one: TrackedOperation, took: float, known: float | None = None) -> tuple[int, float]:
    """How many polls an operation takes that ends by then, and how late its end is seen."""
    now, number = schedule.first(one, 0, 0, known), 1
    while now < took:
        now += schedule.following(one, now, now)
        number += 1
    schedule.ended(one, took)
    return number, now - took


@given(seconds, seconds, st.one_of(st.none(), seconds))
def test_waits_are_neither_short_nor_endless(now: float, elapsed: float, known: float | None) -> None:
    schedule = PollSchedule(POLL, READS)
    for wait in (schedule.first(operation(), now, elapsed, known), schedule.following(operation(), now, elapsed)):
        assert POLL - 1e-6 <= wait <= 20 * POLL + 1e-6


def test_one_or_two_polls_when_the_machine_takes_as_long_as_the_last_time() -> None:
    source = random.Random(1)
    schedule = PollSchedule(POLL, READS)
    counts = [count(schedule, operation(), took * source.uniform(0.9, 1.1), took) for took in range(120, 600, 5)]
    assert sum(number for number, _ in counts) / len(counts) <= 3
    assert max(late for _, late in counts) <= 120


def test_what_was_seen_of_its_likes_is_expected_of_the_next() -> None:
    schedule = PollSchedule(POLL, READS)
    assert count(schedule, operation(), 590)[0] > 4
    number, late = count(schedule, operation(), 591)
    assert number <= 2
    assert late <= 90
    assert schedule.first(operation(os_type="Windows"), 0, 0, None) == 12 * POLL, "another system"
    assert schedule.first(operation(kind=OperationKind.ASSESS), 0, 0, None) == 5 * POLL


def test_a_start_that_is_found_again_later_waits_for_the_rest() -> None:
    assert PollSchedule(POLL, READS).first(operation(), 0, 400, 500) == 50


def test_looks_never_crowd() -> None:
    schedule = PollSchedule(POLL, READS)
    moments = [schedule.first(operation(number), now := 1_000 + number / 10, 0, 500) + now for number in range(2_000)]
    moments += [schedule.following(operation(number), 1_200, 600) + 1_200 for number in range(500)]
    for begin in range(1_200, 2_000):
        inside = sum(begin <= moment < begin + 10 for moment in moments)
        assert inside <= 10 * READS / 2 + 2 * POLL / 10 * READS / 2, "ten seconds touch grains at both ends"


def test_the_last_ones_in_flight_are_polled_often() -> None:
    schedule = PollSchedule(POLL, READS)
    assert schedule.following(operation(), 0, 3_600) == POLL, "a wait of a tenth would be six minutes"


def test_many_in_flight_are_counted_by_region() -> None:
    schedule = PollSchedule(POLL, READS)
    for number in range(2_000):
        schedule.first(operation(number), 0, 0, 500)
    assert schedule.in_flight("one~westeurope", 0) == 2_000
    assert schedule.in_flight("one~northeurope", 0) == 0
    for number in range(1_000):
        schedule.ended(operation(number))
    assert schedule.in_flight("one~westeurope", 0) == 1_000
    assert schedule.in_flight("one~westeurope", 5_000) == 0, "another worker has seen them end"


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["poll", "end"]), st.floats(0, 300)), max_size=60))
def test_operations_that_were_polled_and_have_not_ended_are_in_flight(steps: list[tuple[int, str, float]]) -> None:
    schedule, until, now = PollSchedule(POLL, READS), dict[int, float](), 0.0
    for number, step, later in steps:
        now += later
        if step == "poll":
            until[number] = now + schedule.following(operation(number), now, 100) + 2 * POLL
        else:
            schedule.ended(operation(number))
            until.pop(number, None)
        assert schedule.in_flight("one~westeurope", now) == sum(now <= moment for moment in until.values())


def test_what_is_counted_costs_the_same_however_many_there_are() -> None:
    schedule = PollSchedule(POLL, READS)
    for number in range(50_000):
        schedule.first(operation(number), 0, 0, 500)
    began = time.process_time()
    for _ in range(10_000):
        schedule.in_flight("one~westeurope", 0)
    assert time.process_time() - began < 1, "a walk over all of them takes half a minute"
