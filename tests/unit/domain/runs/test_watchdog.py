"""What is to be done about a run that may have lost its orchestration."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.runs.watchdog import (
    GRACE_PERIOD,
    HEARTBEAT_TIMEOUT,
    MAX_GENERATIONS,
    STARTING,
    STUCK_AFTER,
    EngineStatus,
    Observation,
    RecoveryAction,
    decide,
    heartbeat_deadline,
    is_stuck,
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
        heartbeat_deadline=NOW - timedelta(hours=4),
    )
    return run.model_copy(update=values)


@pytest.mark.parametrize(
    ("silence", "action"),
    [
        (-MINUTE, RecoveryAction.NOTHING),
        (timedelta(0), RecoveryAction.NOTHING),
        (MINUTE, RecoveryAction.WAKE),
        (GRACE_PERIOD, RecoveryAction.WAKE),
        (GRACE_PERIOD + MINUTE, RecoveryAction.END),
    ],
)
def test_a_silent_run_is_woken_and_then_ended(silence: timedelta, action: RecoveryAction) -> None:
    assert decide(a_run(heartbeat_deadline=NOW - silence), Observation(EngineStatus.LIVE), NOW) is action


def test_an_execution_of_its_own_counts_as_heartbeat() -> None:
    assert (
        decide(a_run(), Observation(EngineStatus.LIVE, turned_at=NOW - HEARTBEAT_TIMEOUT), NOW)
        is RecoveryAction.NOTHING
    )
    assert (
        decide(a_run(), Observation(EngineStatus.LIVE, turned_at=NOW - HEARTBEAT_TIMEOUT - MINUTE), NOW)
        is RecoveryAction.WAKE
    )


@pytest.mark.parametrize("sign", [EngineStatus.MISSING, EngineStatus.FAILED, EngineStatus.ENDED])
def test_a_dead_run_is_recovered_when_nothing_of_it_is_left(sign: EngineStatus) -> None:
    assert decide(a_run(), Observation(sign, left=True), NOW) is RecoveryAction.END
    assert decide(a_run(), Observation(sign), NOW) is RecoveryAction.CONTINUE


def test_a_run_that_was_terminated_is_stopped_first() -> None:
    seen = Observation(EngineStatus.TERMINATED)
    assert decide(a_run(), seen, NOW) is RecoveryAction.STOP
    assert decide(a_run(stop_reason="ended"), seen, NOW) is RecoveryAction.CONTINUE
    assert decide(a_run(cancel_requested_at=NOW), seen, NOW) is RecoveryAction.CONTINUE


def test_a_run_that_dies_again_and_again_is_closed() -> None:
    assert (
        decide(a_run(generation=MAX_GENERATIONS - 1), Observation(EngineStatus.FAILED), NOW) is RecoveryAction.CONTINUE
    )
    assert decide(a_run(generation=MAX_GENERATIONS), Observation(EngineStatus.FAILED), NOW) is RecoveryAction.CLOSE
    assert (
        decide(a_run(generation=MAX_GENERATIONS), Observation(EngineStatus.FAILED, left=True), NOW)
        is RecoveryAction.END
    )


def test_a_run_that_is_done_and_was_never_closed_is_closed() -> None:
    assert decide(a_run(), Observation(EngineStatus.COMPLETED), NOW) is RecoveryAction.CLOSE


def test_a_fresh_run_may_be_about_to_start() -> None:
    fresh = a_run(state=RunState.QUEUED, created_at=NOW - STARTING + MINUTE, heartbeat_deadline=None)
    assert decide(fresh, Observation(EngineStatus.MISSING), NOW) is RecoveryAction.NOTHING
    assert decide(fresh, Observation(EngineStatus.MISSING), NOW + 2 * MINUTE) is RecoveryAction.CONTINUE


def test_a_suspended_run_is_silent_on_purpose() -> None:
    assert decide(a_run(), Observation(EngineStatus.SUSPENDED), NOW) is RecoveryAction.NOTHING


@given(
    st.sampled_from([state for state in RunState if state.is_final]),
    st.builds(Observation, st.sampled_from(EngineStatus), st.none(), st.booleans()),
)
def test_nothing_is_done_about_a_run_that_has_ended(state: RunState, seen: Observation) -> None:
    assert decide(a_run(state=state), seen, NOW) is RecoveryAction.NOTHING


@given(
    st.builds(Observation, st.sampled_from(EngineStatus), st.none() | st.just(NOW), st.booleans()),
    st.integers(1, MAX_GENERATIONS + 1),
    st.booleans(),
)
def test_no_two_generations_side_by_side(seen: Observation, generation: int, stopped: bool) -> None:
    """Whatever is seen: nothing begins while anything of the run is live."""
    run = a_run(generation=generation, stop_reason="ended" if stopped else "")
    if seen.left or seen.status in (EngineStatus.LIVE, EngineStatus.SUSPENDED):
        assert decide(run, seen, NOW) not in (RecoveryAction.CONTINUE, RecoveryAction.CLOSE)


def test_a_machine_is_stuck_when_nothing_happens_for_long() -> None:
    assert not is_stuck(NOW - STUCK_AFTER, NOW, 30)
    assert is_stuck(NOW - STUCK_AFTER - MINUTE, NOW, 30)


def test_where_operations_are_polled_rarely_that_takes_longer() -> None:
    """Ten minutes between two polls: the longest wait for the next poll is over three hours."""
    assert not is_stuck(NOW - timedelta(hours=9), NOW, 600)
    assert is_stuck(NOW - timedelta(hours=11), NOW, 600)


# --- the times of docs/explanation/reliability.md and ADR 19


@pytest.mark.parametrize(
    ("silence", "action"),
    [(0, RecoveryAction.NOTHING), (1, RecoveryAction.WAKE), (1_800, RecoveryAction.WAKE), (1_801, RecoveryAction.END)],
)
def test_a_run_is_woken_for_half_an_hour(silence: float, action: RecoveryAction) -> None:
    assert (
        decide(a_run(heartbeat_deadline=NOW - timedelta(seconds=silence)), Observation(EngineStatus.LIVE), NOW)
        is action
    )


@pytest.mark.parametrize(
    ("turned", "action"),
    [
        (1_800, RecoveryAction.NOTHING),
        (1_801, RecoveryAction.WAKE),
        (3_600, RecoveryAction.WAKE),
        (3_601, RecoveryAction.END),
    ],
)
def test_an_execution_counts_for_half_an_hour(turned: float, action: RecoveryAction) -> None:
    seen = Observation(EngineStatus.LIVE, turned_at=NOW - timedelta(seconds=turned))
    assert decide(a_run(heartbeat_deadline=None), seen, NOW) is action
    assert decide(a_run(heartbeat_deadline=NOW + MINUTE), seen, NOW) is RecoveryAction.NOTHING, (
        "the run said that it sleeps longer"
    )


def test_without_any_sign_a_run_counts_from_its_creation() -> None:
    assert (
        decide(a_run(heartbeat_deadline=None, created_at=NOW), Observation(EngineStatus.LIVE), NOW)
        is RecoveryAction.NOTHING
    )
    assert (
        decide(a_run(heartbeat_deadline=None, created_at=NOW - MINUTE), Observation(EngineStatus.LIVE), NOW)
        is RecoveryAction.WAKE
    )


@pytest.mark.parametrize(("age", "action"), [(599, RecoveryAction.NOTHING), (600, RecoveryAction.CONTINUE)])
def test_a_queued_run_may_be_started_for_ten_minutes(age: float, action: RecoveryAction) -> None:
    queued = a_run(state=RunState.QUEUED, created_at=NOW - timedelta(seconds=age), heartbeat_deadline=None)
    assert decide(queued, Observation(EngineStatus.MISSING), NOW) is action
    assert decide(queued, Observation(EngineStatus.FAILED), NOW) is RecoveryAction.CONTINUE
    started = a_run(created_at=NOW - timedelta(seconds=age), heartbeat_deadline=None)
    assert decide(started, Observation(EngineStatus.MISSING), NOW) is RecoveryAction.CONTINUE


def test_a_run_gets_five_generations() -> None:
    assert decide(a_run(generation=4), Observation(EngineStatus.FAILED), NOW) is RecoveryAction.CONTINUE
    assert decide(a_run(generation=5), Observation(EngineStatus.FAILED), NOW) is RecoveryAction.CLOSE
    assert decide(a_run(generation=1), Observation(EngineStatus.COMPLETED), NOW) is RecoveryAction.CLOSE


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


def test_a_heartbeat_counts_for_half_an_hour() -> None:
    assert heartbeat_deadline(NOW) == NOW + timedelta(minutes=30)
