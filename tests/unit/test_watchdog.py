"""What is to be done about a run that may have lost its orchestration."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.runs.watchdog import (
    MOST_INCARNATIONS,
    PATIENCE,
    QUIET,
    STARTING,
    STUCK_AFTER,
    Remedy,
    Seen,
    Sign,
    decide,
    is_stuck,
    quiet_until,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def a_run(**values: object) -> Run:
    run = Run(
        id="20261121T000000Z-monthly",
        policy="monthly",
        mode=Mode.PATCH,
        state=RunState.RUNNING,
        trigger=Trigger(kind=TriggerKind.TIMER),
        created_at=NOW - timedelta(hours=5),
        quiet_until=NOW - timedelta(hours=4),
    )
    return run.model_copy(update=values)


@pytest.mark.parametrize(
    ("silence", "remedy"),
    [
        (-MINUTE, Remedy.NOTHING),
        (timedelta(0), Remedy.NOTHING),
        (MINUTE, Remedy.WAKE),
        (PATIENCE, Remedy.WAKE),
        (PATIENCE + MINUTE, Remedy.END),
    ],
)
def test_a_silent_run_is_woken_and_then_ended(silence: timedelta, remedy: Remedy) -> None:
    assert decide(a_run(quiet_until=NOW - silence), Seen(Sign.LIVE), NOW) is remedy


def test_a_turn_of_its_own_is_a_sign_of_life() -> None:
    assert decide(a_run(), Seen(Sign.LIVE, turned_at=NOW - QUIET), NOW) is Remedy.NOTHING
    assert decide(a_run(), Seen(Sign.LIVE, turned_at=NOW - QUIET - MINUTE), NOW) is Remedy.WAKE


@pytest.mark.parametrize("sign", [Sign.MISSING, Sign.FAILED, Sign.ENDED])
def test_a_dead_run_goes_on_when_nothing_of_it_is_left(sign: Sign) -> None:
    assert decide(a_run(), Seen(sign, left=True), NOW) is Remedy.END
    assert decide(a_run(), Seen(sign), NOW) is Remedy.CONTINUE


def test_a_run_that_somebody_ended_is_stopped_first() -> None:
    seen = Seen(Sign.TERMINATED)
    assert decide(a_run(), seen, NOW) is Remedy.STOP
    assert decide(a_run(stop_reason="ended"), seen, NOW) is Remedy.CONTINUE
    assert decide(a_run(cancel_requested_at=NOW), seen, NOW) is Remedy.CONTINUE


def test_a_run_that_dies_again_and_again_is_closed() -> None:
    assert decide(a_run(incarnation=MOST_INCARNATIONS - 1), Seen(Sign.FAILED), NOW) is Remedy.CONTINUE
    assert decide(a_run(incarnation=MOST_INCARNATIONS), Seen(Sign.FAILED), NOW) is Remedy.CLOSE
    assert decide(a_run(incarnation=MOST_INCARNATIONS), Seen(Sign.FAILED, left=True), NOW) is Remedy.END


def test_a_run_that_is_done_and_was_never_closed_is_closed() -> None:
    assert decide(a_run(), Seen(Sign.COMPLETED), NOW) is Remedy.CLOSE


def test_whoever_created_a_run_may_be_about_to_start_it() -> None:
    fresh = a_run(state=RunState.QUEUED, created_at=NOW - STARTING + MINUTE, quiet_until=None)
    assert decide(fresh, Seen(Sign.MISSING), NOW) is Remedy.NOTHING
    assert decide(fresh, Seen(Sign.MISSING), NOW + 2 * MINUTE) is Remedy.CONTINUE


def test_a_suspended_run_is_silent_on_purpose() -> None:
    assert decide(a_run(), Seen(Sign.SUSPENDED), NOW) is Remedy.NOTHING


@given(
    st.sampled_from([state for state in RunState if state.is_final]),
    st.builds(Seen, st.sampled_from(Sign), st.none(), st.booleans()),
)
def test_nothing_is_done_about_a_run_that_has_ended(state: RunState, seen: Seen) -> None:
    assert decide(a_run(state=state), seen, NOW) is Remedy.NOTHING


@given(
    st.builds(Seen, st.sampled_from(Sign), st.none() | st.just(NOW), st.booleans()),
    st.integers(1, MOST_INCARNATIONS + 1),
    st.booleans(),
)
def test_no_two_incarnations_side_by_side(seen: Seen, incarnation: int, stopped: bool) -> None:
    """Whatever is seen: nothing begins while anything of the run is live."""
    run = a_run(incarnation=incarnation, stop_reason="ended" if stopped else "")
    if seen.left or seen.sign in (Sign.LIVE, Sign.SUSPENDED):
        assert decide(run, seen, NOW) not in (Remedy.CONTINUE, Remedy.CLOSE)


def test_a_machine_is_stuck_when_nothing_happens_for_long() -> None:
    assert not is_stuck(NOW - STUCK_AFTER, NOW, 30)
    assert is_stuck(NOW - STUCK_AFTER - MINUTE, NOW, 30)


def test_where_operations_are_looked_at_rarely_that_takes_longer() -> None:
    """Ten minutes between two polls: the longest wait for the next look is over three hours."""
    assert not is_stuck(NOW - timedelta(hours=9), NOW, 600)
    assert is_stuck(NOW - timedelta(hours=11), NOW, 600)


# --- the times, as they are promised in docs/explanation/reliability.md and ADR 19


@pytest.mark.parametrize(
    ("silence", "remedy"),
    [(0, Remedy.NOTHING), (1, Remedy.WAKE), (1_800, Remedy.WAKE), (1_801, Remedy.END)],
)
def test_a_run_is_woken_for_half_an_hour(silence: float, remedy: Remedy) -> None:
    assert decide(a_run(quiet_until=NOW - timedelta(seconds=silence)), Seen(Sign.LIVE), NOW) is remedy


@pytest.mark.parametrize(
    ("turned", "remedy"), [(1_800, Remedy.NOTHING), (1_801, Remedy.WAKE), (3_600, Remedy.WAKE), (3_601, Remedy.END)]
)
def test_a_turn_is_good_for_half_an_hour(turned: float, remedy: Remedy) -> None:
    seen = Seen(Sign.LIVE, turned_at=NOW - timedelta(seconds=turned))
    assert decide(a_run(quiet_until=None), seen, NOW) is remedy
    assert decide(a_run(quiet_until=NOW + MINUTE), seen, NOW) is Remedy.NOTHING, "the run said that it sleeps longer"


def test_without_any_sign_a_run_counts_from_its_creation() -> None:
    assert decide(a_run(quiet_until=None, created_at=NOW), Seen(Sign.LIVE), NOW) is Remedy.NOTHING
    assert decide(a_run(quiet_until=None, created_at=NOW - MINUTE), Seen(Sign.LIVE), NOW) is Remedy.WAKE


@pytest.mark.parametrize(("age", "remedy"), [(599, Remedy.NOTHING), (600, Remedy.CONTINUE)])
def test_a_queued_run_may_be_started_for_ten_minutes(age: float, remedy: Remedy) -> None:
    queued = a_run(state=RunState.QUEUED, created_at=NOW - timedelta(seconds=age), quiet_until=None)
    assert decide(queued, Seen(Sign.MISSING), NOW) is remedy
    assert decide(queued, Seen(Sign.FAILED), NOW) is Remedy.CONTINUE
    started = a_run(created_at=NOW - timedelta(seconds=age), quiet_until=None)
    assert decide(started, Seen(Sign.MISSING), NOW) is Remedy.CONTINUE


def test_a_run_gets_five_incarnations() -> None:
    assert decide(a_run(incarnation=4), Seen(Sign.FAILED), NOW) is Remedy.CONTINUE
    assert decide(a_run(incarnation=5), Seen(Sign.FAILED), NOW) is Remedy.CLOSE
    assert decide(a_run(incarnation=1), Seen(Sign.COMPLETED), NOW) is Remedy.CLOSE


@pytest.mark.parametrize(
    ("poll", "seconds", "stuck"),
    [
        (30, 3_600, False),
        (30, 3_601, True),
        (60, 3_600, False),
        (60, 3_601, True),
        (61, 3_660, False),
        (61, 3_661, True),
    ],
)
def test_a_machine_is_stuck_after_an_hour_or_sixty_polls(poll: float, seconds: float, *, stuck: bool) -> None:
    assert is_stuck(NOW - timedelta(seconds=seconds), NOW, poll) is stuck


def test_a_sign_of_life_is_good_for_half_an_hour() -> None:
    assert quiet_until(NOW) == NOW + timedelta(minutes=30)
