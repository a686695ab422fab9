"""When a change of power is asked for, waited for and given up, and what is said of one that did not come about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.instance_view import Power
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.machine.at_most_once import AtMostOnceRecord, GuardedCall
from patchwave.domain.machine.power import (
    Next,
    NotRestored,
    is_restored,
    never_done,
    next_step,
    not_restored,
    not_started,
    not_stopped,
    power_before,
    undone,
)
from patchwave.domain.runs.intent import IntentState

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
SETTLES = timedelta(minutes=2)
DEADLINE = NOW + timedelta(minutes=10)
URL = "https://management.azure.com/subscriptions/s/operations/o"


def call(state: IntentState, ago: timedelta = timedelta(0), *, url: str = URL, failure: str = "") -> AtMostOnceRecord:
    return AtMostOnceRecord(
        run_id="r",
        machine_key="m",
        call=GuardedCall.STOP,
        token="t",
        state=state,
        created_at=NOW - ago,
        deadline_at=DEADLINE,
        async_url=url,
        failure=failure,
    )


JUST_BEFORE = SETTLES - timedelta(seconds=1)


@pytest.mark.parametrize(
    ("shown", "last", "expected"),
    [
        (Power.RUNNING, None, Next.SEND),
        (Power.CHANGING, None, Next.WAIT),
        (Power.UNKNOWN, None, Next.WAIT),
        (Power.RUNNING, call(IntentState.REFUSED), Next.SEND),
        (Power.CHANGING, call(IntentState.REFUSED), Next.WAIT),
        (Power.RUNNING, call(IntentState.DECLARED), Next.WAIT),
        (Power.RUNNING, call(IntentState.DECLARED, JUST_BEFORE), Next.WAIT),
        (Power.RUNNING, call(IntentState.DECLARED, SETTLES), Next.SEND),
        (Power.RUNNING, call(IntentState.ACCEPTED, JUST_BEFORE), Next.WAIT),
        (Power.RUNNING, call(IntentState.ACCEPTED, SETTLES), Next.FOLLOW),
        (Power.RUNNING, call(IntentState.ACCEPTED, SETTLES, url=""), Next.SEND),
        (Power.CHANGING, call(IntentState.ACCEPTED, SETTLES), Next.WAIT),
        (Power.STOPPED, call(IntentState.ACCEPTED, SETTLES), Next.FOLLOW),
    ],
)
def test_the_next_step_of_a_power_check(shown: Power, last: AtMostOnceRecord | None, expected: Next) -> None:
    assert next_step(shown, last, NOW, DEADLINE, SETTLES) is expected


def test_an_operation_behind_a_bare_location_is_followed_too() -> None:
    last = call(IntentState.ACCEPTED, SETTLES, url="").model_copy(update={"location_url": URL})
    assert next_step(Power.RUNNING, last, NOW, DEADLINE, SETTLES) is Next.FOLLOW


@pytest.mark.parametrize("state", list(IntentState))
@pytest.mark.parametrize("shown", [Power.RUNNING, Power.CHANGING, Power.UNKNOWN, Power.STOPPED])
def test_a_change_fails_in_bounded_time(shown: Power, state: IntentState) -> None:
    last = call(state, SETTLES, failure="busy")
    assert next_step(shown, last, DEADLINE - timedelta(seconds=1), DEADLINE, SETTLES) is not Next.FAIL
    assert next_step(shown, last, DEADLINE, DEADLINE, SETTLES) is Next.FAIL


def test_a_change_that_was_never_sent_does_not_fail_for_being_late() -> None:
    """The storage may have been away for long since the change began."""
    assert next_step(Power.RUNNING, None, DEADLINE, DEADLINE, SETTLES) is Next.SEND
    assert next_step(Power.CHANGING, None, DEADLINE, DEADLINE, SETTLES) is Next.FAIL


@pytest.mark.parametrize(
    ("shown", "sent_before", "failure", "expected"),
    [
        (Power.RUNNING, SETTLES + timedelta(seconds=1), "", Next.SEND),
        (Power.RUNNING, SETTLES, "", Next.FAIL),
        (Power.RUNNING, SETTLES + timedelta(seconds=1), "Azure gave no answer", Next.FAIL),
        (Power.CHANGING, SETTLES + timedelta(seconds=1), "", Next.FAIL),
    ],
    ids=["the app was away", "each call kills its worker", "a call without a response", "still changing"],
)
def test_a_call_of_a_worker_that_died_is_sent_again_after_the_deadline(
    shown: Power, sent_before: timedelta, failure: str, expected: Next
) -> None:
    last = call(IntentState.DECLARED, NOW - DEADLINE + sent_before, failure=failure)
    assert last.created_at == DEADLINE - sent_before
    assert next_step(shown, last, DEADLINE + timedelta(hours=1), DEADLINE, SETTLES) is expected


@pytest.mark.parametrize(
    ("stored", "before"),
    [("stopped", Power.STOPPED), ("deallocated", Power.DEALLOCATED), ("", Power.DEALLOCATED), ("x", Power.DEALLOCATED)],
)
def test_the_power_state_that_is_restored(stored: str, before: Power) -> None:
    assert power_before(stored) is before


@pytest.mark.parametrize(
    ("shown", "before", "expected"),
    [
        (Power.DEALLOCATED, Power.DEALLOCATED, True),
        (Power.HIBERNATED, Power.DEALLOCATED, True),
        (Power.STOPPED, Power.DEALLOCATED, False),
        (Power.STOPPED, Power.STOPPED, True),
        (Power.DEALLOCATED, Power.STOPPED, True),
        (Power.HIBERNATED, Power.STOPPED, True),
        *((power, before, False)
          for power in (Power.RUNNING, Power.CHANGING, Power.UNKNOWN)
          for before in (Power.STOPPED, Power.DEALLOCATED)),
    ],
)  # fmt: skip
def test_when_it_is_back(shown: Power, before: Power, expected: bool) -> None:
    assert is_restored(shown, before) is expected


# --- what is said


LEFT = NotRestored("It could not be stopped again: HTTP 409.")


@pytest.mark.parametrize("kind", list(OutcomeKind))
def test_a_machine_that_was_left_on_never_appears_as_patched(kind: OutcomeKind) -> None:
    before = Outcome(outcome=kind, reason=Reason.WINDOW_EXCEEDED, message="So it ended.")
    assert not_restored(before, None) == before
    after = not_restored(before, LEFT)
    assert after.message == "So it ended. It could not be stopped again: HTTP 409."
    assert after.outcome.needs_person
    if kind.needs_person:
        assert (after.outcome, after.reason) == (kind, Reason.WINDOW_EXCEEDED)
    else:
        warned = {"patched", "nothing_to_install", "assessed"}
        assert after.reason.value == "power_not_restored"
        assert after.outcome.value == ("patched_with_warnings" if kind.value in warned else "failed")


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (None, "the machine did not show it in time."),
        (ArmFailure(status=409, code="Conflict", message="Busy."), "HTTP 409 Conflict: Busy."),
        (undone(Power.RUNNING), "Azure reports that it was done, and since then the machine is running."),
    ],
)
def test_why_a_machine_was_not_stopped(failure: ArmFailure | None, reason: str, is_open: bool) -> None:
    told = not_stopped(failure, is_open=is_open)
    assert told == (f"It was started for this and could not be stopped again: {reason}", is_open)


def test_a_final_refusal_names_the_missing_role() -> None:
    denied = ArmFailure(status=403, code="AuthorizationFailed", message="no right to deallocate")
    told = not_stopped(denied, is_open=False)
    assert "grant it the patching role" in told.sentence
    assert "no right to deallocate" in told.sentence


OFF = Outcome.skipped(Reason.NOT_RUNNING, "The machine is deallocated; start it.")


@pytest.mark.parametrize(
    ("failure", "reason", "words"),
    [
        (None, Reason.NOT_RUNNING, "The machine is deallocated; start it."),
        (ArmFailure(status=409, code="AllocationFailed", message="No room."), Reason.NOT_RUNNING, "No room."),
        (ArmFailure(status=403, code="AuthorizationFailed", message="No."), Reason.FORBIDDEN, "lacks the right"),
        (ArmFailure(status=404, code="ResourceNotFound", message="Gone."), Reason.NOT_FOUND, "no longer exists"),
        (undone(Power.STOPPED), Reason.NOT_RUNNING, "since then the machine is stopped."),
    ],
)
def test_why_a_machine_was_not_started(failure: ArmFailure | None, reason: Reason, words: str) -> None:
    told = not_started(OFF, failure)
    assert (told.outcome, told.reason) == (OutcomeKind.SKIPPED, reason)
    assert words in told.message
    if failure is not None:
        assert told.message.startswith("The machine could not be started: ")
        assert failure.message.rstrip(".") in told.message


def test_another_reason_of_the_preflight_stays() -> None:
    held = Outcome.skipped(Reason.HOLD_TAG, "It is held.")
    assert not_started(held, ArmFailure(status=403)) == held


@pytest.mark.parametrize(
    ("last", "text"),
    [
        (None, "Azure did not take the call, and the machine is still changing its power state"),
        (
            call(IntentState.ACCEPTED, failure="Failed: X"),
            "Azure took the call, and the machine is still changing its power state; Azure said: Failed: X",
        ),
        (
            call(IntentState.DECLARED),
            "it is not known whether Azure took the call, and the machine is still changing its power state",
        ),
        (
            call(IntentState.REFUSED, failure="HTTP 409 X"),
            "Azure did not take the call, and the machine is still changing its power state; Azure said: HTTP 409 X",
        ),
    ],
)
def test_why_it_was_given_up(last: AtMostOnceRecord | None, text: str) -> None:
    assert never_done(Power.CHANGING, last).text == text


# --- the kind: any answer or none, at any call, taken or not

ANSWERS = st.tuples(st.sampled_from(["accepted", "open", "refused", "dead"]), st.booleans())
"""What the caller sees of a call, and whether Azure took it."""


@given(st.lists(ANSWERS, max_size=12), st.integers(30, 400), st.integers(10, 60))
def test_a_stop_is_bounded_and_its_result_is_true(answers: list[tuple[str, bool]], takes: int, pause: int) -> None:
    """A machine that stops ``takes`` seconds after a call that Azure took; a stop is repeated only after a look."""
    seconds, off_at, last = 0, None, None
    last_sent: tuple[int, str, bool] | None = None
    deadline = NOW + timedelta(minutes=15)
    while True:
        at = NOW + timedelta(seconds=seconds)
        is_off = off_at is not None and seconds >= off_at
        shown = Power.DEALLOCATED if is_off else Power.CHANGING if off_at is not None else Power.RUNNING
        if is_restored(shown, Power.DEALLOCATED):
            break
        step = next_step(shown, last, at, deadline, SETTLES)
        if step is Next.FAIL:
            assert seconds >= 900
            assert never_done(shown, last).message
            break
        assert seconds < 900 + 2 * pause, "it ends in bounded time"
        if step in (Next.SEND, Next.FOLLOW):
            # Nothing is sent while Azure works on the machine, nor before an answer that leaves it open has settled.
            assert shown is Power.RUNNING
            if last_sent is not None and last_sent[1] != "refused":
                assert seconds - last_sent[0] >= 120
            answer, is_taken = answers.pop(0) if answers else ("accepted", True)
            is_taken = is_taken and answer != "refused"
            state = {"accepted": IntentState.ACCEPTED, "refused": IntentState.REFUSED}.get(answer, IntentState.DECLARED)
            last = call(state, url="", failure="no answer").model_copy(update={"created_at": at})
            last_sent = (seconds, answer, is_taken)
            if is_taken:
                off_at = seconds + takes
        seconds += pause
