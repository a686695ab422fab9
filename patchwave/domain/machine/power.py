"""A change of a machine's power, judged by reads of the machine: when to ask Azure, when to wait, when to give it up.

Azure may take a call and never carry it out, carry it out after an answer that was lost, or refuse one because of an
earlier one. So the machine is read before every call, and only a machine that shows its new power has changed it.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from patchwave.domain.azure.errors import ArmFailure, ErrorClass, classify, is_throttling
from patchwave.domain.azure.instance_view import Power
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.machine.at_most_once import AtMostOnceRecord
from patchwave.domain.runs.intent import IntentState

SETTLES_IN_POLLS = 4
"""Poll intervals after which a machine that shows nothing of a call was never given it; two minutes of real time."""
MAX_CHANGE_POLLS = 30
"""Poll intervals in which a machine has to start or stop: a quarter of an hour of real time."""


class Next(StrEnum):
    """What a look at the machine leads to."""

    WAIT = "wait"
    FOLLOW = "follow"
    """The machine shows nothing of a call that Azure took: its operation may say why."""
    SEND = "send"
    FAIL = "fail"


def next_step(
    shown: Power, last: AtMostOnceRecord | None, now: datetime, deadline: datetime, settles_in: timedelta
) -> Next:
    """What to do about a machine that does not show the wanted power yet.

    Args:
        shown: its power, read after the last call.
        last: the last call of this change; ``None`` before the first.
        now: this moment.
        deadline: when the change is given up.
        settles_in: how long a call may have no visible effect that was taken, or may have been.
    """
    is_settled = shown not in (Power.CHANGING, Power.UNKNOWN)
    if last is None and is_settled:
        return Next.SEND
    if now >= deadline:
        is_due = last is not None and is_settled and _was_interrupted(last) and last.created_at + settles_in < deadline
        return Next.SEND if is_due else Next.FAIL
    if not is_settled:
        return Next.WAIT
    if last is None or last.state is IntentState.REFUSED:
        return Next.SEND
    if now < last.created_at + settles_in:
        return Next.WAIT
    has_operation = last.state is IntentState.ACCEPTED and (last.async_url or last.location_url)
    return Next.FOLLOW if has_operation else Next.SEND


def _was_interrupted(last: AtMostOnceRecord) -> bool:
    """Whether the worker died between declaring the call and storing its response.

    A worker that lives would have sent the call again before the deadline. The app was away for that long, which says
    nothing about the machine. Where each call kills its worker, the last one is too late for this.
    """
    return last.state is IntentState.DECLARED and not last.failure


def power_before(stored: str) -> Power:
    """How a machine was that Patchwave started. When in doubt deallocated: one that is only stopped goes on costing."""
    return Power.STOPPED if stored == Power.STOPPED.value else Power.DEALLOCATED


def is_restored(shown: Power, before: Power) -> bool:
    """Whether the machine is off again, at least as much as it was."""
    if before is Power.STOPPED:
        return shown in (Power.STOPPED, Power.DEALLOCATED, Power.HIBERNATED)
    return shown in (Power.DEALLOCATED, Power.HIBERNATED)


# --- what is said of it -----------------------------------------------------------------------------------------


class NotRestored(NamedTuple):
    """Why a machine's power was not restored. ``is_open``: Azure may still carry out a call."""

    sentence: str
    is_open: bool = False


LEFT_ON = NotRestored("It was started for this and is left on, as something may still run in the guest.")
"""A stop could break off an installation."""


def not_stopped(failure: ArmFailure | None, *, is_open: bool) -> NotRestored:
    """A machine that was started for its patches and runs still; a refusal for good has a sentence of its own."""
    reason = "the machine did not show it in time"
    if failure is not None:
        verdict = classify(failure)
        is_refusal = verdict.kind is ErrorClass.FORBIDDEN
        reason = verdict.to_outcome(failure).message if is_refusal else failure.text
    return NotRestored(f"It was started for this and could not be stopped again: {reason.rstrip('.')}.", is_open)


def not_restored(outcome: Outcome, left: NotRestored | None) -> Outcome:
    """The outcome of a machine that was left on: nothing that looks as if all were well."""
    if left is None:
        return outcome
    message = f"{outcome.message} {left.sentence}"
    if outcome.outcome.needs_person:
        return outcome.model_copy(update={"message": message})
    is_done = outcome.outcome in (OutcomeKind.PATCHED, OutcomeKind.NOTHING_TO_INSTALL, OutcomeKind.ASSESSED)
    kind = OutcomeKind.PATCHED_WITH_WARNINGS if is_done else OutcomeKind.FAILED
    return Outcome.of(kind, Reason.POWER_NOT_RESTORED, message)


def not_started(look: Outcome, failure: ArmFailure | None) -> Outcome:
    """The outcome of a machine that is still off after it was to be started; ``look`` is what it shows."""
    if failure is None or look.reason is not Reason.NOT_RUNNING:
        return look
    verdict = classify(failure)
    # A refusal for good, or throttling to the end, speaks for itself; all else comes down to a machine that is off.
    is_refusal = verdict.kind in (ErrorClass.FORBIDDEN, ErrorClass.GONE, ErrorClass.UNSUPPORTED)
    said = verdict.to_outcome(failure).message if is_refusal else f"{failure.text.rstrip('.')}."
    speaks = is_refusal or is_throttling(failure)
    return Outcome.skipped(
        verdict.reason if speaks else Reason.NOT_RUNNING, f"The machine could not be started: {said}"
    )


def never_done(shown: Power, last: AtMostOnceRecord | None) -> ArmFailure:
    """Why a change of power was given up in the state that is shown; with Azure's last reason."""
    state = f"the machine is still {_WORDS[shown]}"
    said = f"; Azure said: {last.failure}" if last is not None and last.failure else ""
    match last.state if last is not None else None:
        case IntentState.ACCEPTED:
            why = f"Azure took the call, and {state}"
        case IntentState.DECLARED:
            why = f"it is not known whether Azure took the call, and {state}"
        case _:
            why = f"Azure did not take the call, and {state}"
    return ArmFailure(status=0, message=why + said)


def undone(shown: Power) -> ArmFailure:
    """Why nothing more is sent where Azure says that it carried out the call: a person may have changed it back."""
    return ArmFailure(
        status=0, message=f"Azure reports that it was done, and since then the machine is {_WORDS[shown]}"
    )


_WORDS = {power: power.value for power in Power} | {
    Power.CHANGING: "changing its power state",
    Power.UNKNOWN: "in an unknown power state",
}
