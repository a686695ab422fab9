"""Commands to a run from people and gates, and what they mean for a machine that is about to start.

The run's row is the truth. A command changes the row, which is read before anything starts. Commands are
idempotent: giving one twice changes nothing, and the first one's name and reason stay. Everything here is pure.
"""

from datetime import datetime

from patchwave.domain.calendar.local_window import LocalWindow
from patchwave.domain.core.command import Command, InvalidTransition, SelfApproval
from patchwave.domain.core.documents import format_instant, objects_or_empty
from patchwave.domain.core.outcome import Outcome, Reason
from patchwave.domain.planning.admission import RUN_GROUP, lane_scope
from patchwave.domain.policy.gates import Approval
from patchwave.domain.policy.policy import Policy
from patchwave.domain.runs.error_budget import ErrorBudgetExceeded
from patchwave.domain.runs.intent import Intent, IntentState
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import (
    AppliedCommand,
    ApprovalDecision,
    Mode,
    Run,
    RunControls,
    RunState,
    Trigger,
    TriggerKind,
)

PATCHWAVE = "patchwave"
"""The actor of a command that a gate gave."""


# --- commands to a run --------------------------------------------------------------------------------------


def pause(run: Run, command: Command) -> Run:
    """Start nothing more until the run is resumed.

    Raises:
        InvalidTransition: the run has ended, or is about to.
    """
    _check_goes_on(run, "paused")
    if run.paused_at is not None:
        return run
    return _changed(_show(run.model_copy(update={"paused_at": command.at})), run, "pause", command)


def resume(run: Run, command: Command) -> Run:
    """Go on after a pause and after gates that held; their failures are forgiven. A run that goes on stays as it is.

    Raises:
        InvalidTransition: the run has ended, or is about to.
    """
    _check_goes_on(run, "resumed")
    if run.paused_at is None and not run.blocked_scopes:
        return run
    resumed = run.model_copy(
        update={"paused_at": None, "blocked_scopes": [], "resumed_at": command.at, "resume_count": run.resume_count + 1}
    )
    return _changed(_show(resumed), run, "resume", command)


def cancel(run: Run, command: Command) -> Run:
    """Start nothing more, for good. A run that ended by its cancellation stays as it is.

    Raises:
        InvalidTransition: the run has ended by itself.
    """
    if run.state is RunState.CANCELED:
        return run
    if run.state.is_final:
        raise InvalidTransition(f"The run has ended as {run.state.value}; there is nothing to cancel.")
    if run.cancel_requested_at is not None:
        return run
    return _changed(run.model_copy(update={"cancel_requested_at": command.at}), run, "cancel", command)


def decide(run: Run, ring: str, command: Command, *, approved: bool) -> Run:
    """Approve or reject a ring; the first decision stands.

    Raises:
        InvalidTransition: the ring was decided otherwise, needs no approval, or the run goes no further.
        SelfApproval: the policy wants a second person: not its author, nor a person who started or retried the run.
    """
    decision = run.decisions.get(ring)
    if decision is not None:
        if decision.approved is approved:
            return run
        said = "approved" if decision.approved else "rejected"
        hint = " Cancel the run to stop it." if decision.approved else ""
        raise InvalidTransition(
            f"The ring {ring} was {said} by {decision.actor} at {format_instant(decision.at)}, which stands.{hint}"
        )
    _check_goes_on(run, "approved" if approved else "rejected")
    approval = _approvals(run).get(ring)
    if approval is None:
        raise InvalidTransition(f"The policy of the run has no ring {ring} that needs an approval.")
    if approved and approval.require_second_person:
        _check_is_other(run, command)
    made = ApprovalDecision(approved=approved, **command.who, reason=command.reason, at=command.at)
    decided = run.model_copy(update={"decisions": {**run.decisions, ring: made}})
    return _show(decided, RunState.RUNNING) if ring == awaited_ring(run) else decided


def awaited_ring(run: Run) -> str:
    """The ring that the run waits for an approval of; empty when it waits for none."""
    return run.waiting_for if _base(run) is RunState.AWAITING_APPROVAL else ""


def ring_in_question(run: Run) -> str:
    """The ring that a command without a name is about: the awaited one, else the one that was decided last.

    Raises:
        InvalidTransition: there is neither.
    """
    ring = awaited_ring(run) or max(run.decisions, key=lambda name: run.decisions[name].at, default="")
    if not ring:
        raise InvalidTransition("The run waits for no approval; name the ring.")
    return ring


def wants_other(run: Run, ring: str) -> bool:
    approval = _approvals(run).get(ring)
    return approval is not None and approval.require_second_person


def _approvals(run: Run) -> dict[str, Approval]:
    policy = Policy.model_validate(run.policy_snapshot)
    needed = {ring.name: policy.approval_of(ring) for ring in policy.rings}
    return {name: approval for name, approval in needed.items() if approval is not None}


def _check_is_other(run: Run, command: Command) -> None:
    """Refuse the author of the rules and those who started or retried the run, told apart by their object ids alone.

    Timers, webhooks and events start runs without a person; the policy still has its author.
    """
    author = run.policy_origin.author_id if run.policy_origin else ""
    if not command.actor_id:
        raise SelfApproval("A second person has to approve this ring: sign in.")
    if not author:
        raise SelfApproval("A second person has to approve this ring, and it is not known who wrote the policy.")
    if command.actor_id == author:
        raise SelfApproval("You wrote the policy of this run; it wants another person to approve.")
    starters = starter_ids(run.trigger)
    if "" in starters:
        raise SelfApproval("A second person has to approve this ring, and it is not known who started the run.")
    if command.actor_id in starters:
        raise SelfApproval("You started this run, or one that it retries; its policy wants another person to approve.")


def starter_ids(trigger: Trigger) -> list[str]:
    """Object ids of those who started a run and the runs that it retries; empty where one is not known."""
    is_started_by_person = trigger.kind is TriggerKind.HTTP or bool(trigger.actor_id)
    return [*trigger.earlier_ids, *([trigger.actor_id] if is_started_by_person else [])]


def _check_goes_on(run: Run, what: str) -> None:
    if run.state.is_final:
        raise InvalidTransition(f"The run has ended as {run.state.value}; it cannot be {what} any more.")
    if run.cancel_requested_at is not None:
        raise InvalidTransition(f"The run is being cancelled; it cannot be {what} any more.")
    if run.stop_reason:
        raise InvalidTransition(f"A gate ends the run; it cannot be {what} any more. {run.stop_reason}")


# --- what gates and the run itself say ----------------------------------------------------------------------


def start(run: Run, at: datetime) -> Run:
    """The orchestration has begun; a run that has started before stays as it is."""
    if _base(run) is not RunState.QUEUED:
        return run
    return _show(run.model_copy(update={"started_at": at}), RunState.RUNNING)


def show(run: Run, state: RunState, waiting_for: str = "") -> Run:
    """Show where the run stands; a run that is paused or held shows that, and this once it is not."""
    return run if run.state.is_final else _show(run, state, waiting_for)


def ask_approval(run: Run, ring: str, at: datetime) -> Run:
    """Wait for the approval of a ring: its deadline counts from the first time, whichever generation that was in."""
    asked = {ring: at, **run.approvals_asked}
    return show(run.model_copy(update={"approvals_asked": asked}), RunState.AWAITING_APPROVAL, ring)


def enter_window(run: Run, ends_at: datetime, local: LocalWindow | None = None) -> Run:
    """Go on in a window that ends then; a step that is executed again opens no further one.

    ``local``: it is a window by the clocks of the machines.
    """
    if run.state.is_final:
        return run
    windows = run.windows + (run.window_end != ends_at)
    entered = run.model_copy(update={"window_end": ends_at, "local_window": local, "windows": windows})
    return _show(entered, RunState.RUNNING)


def trip_error_budget(run: Run, gate: ErrorBudgetExceeded, at: datetime) -> Run:
    """An error budget is used up: hold its scope, or end the run."""
    if run.state.is_final:
        return run
    scope = describe_scope(gate.scope)
    reason = f"The error budget of {scope} is used up: {gate.failures} failed, {gate.limit} may."
    if gate.ends_run:
        return stop(run, reason, at)
    if gate.scope in run.blocked_scopes:
        return run
    held = run.model_copy(update={"blocked_scopes": [*run.blocked_scopes, gate.scope]})
    return _changed(_show(held), run, "hold", Command(actor=PATCHWAVE, reason=reason, at=at))


def stop(run: Run, reason: str, at: datetime, *, unless_approved: str = "") -> Run:
    """A gate ends the run: nothing more starts. The first reason stays; a ring that was approved first goes on."""
    decision = run.decisions.get(unless_approved)
    if run.state.is_final or run.stop_reason or (decision is not None and decision.approved):
        return run
    stopped = run.model_copy(update={"stop_reason": reason, "stopped_at": at})
    return _changed(_show(stopped, RunState.RUNNING), run, "stop", Command(actor=PATCHWAVE, reason=reason, at=at))


def close(run: Run, state: RunState, reason: str, at: datetime) -> Run:
    """The run's end. What was said about it stays; what it would show or wait for is over."""
    if run.state.is_final:
        return run
    return run.model_copy(
        update={"state": state, "reason": reason, "ended_at": at, "paused_from_state": None, "waiting_for": ""}
    )


def controls(run: Run) -> RunControls:
    """What people and gates have said until now, for the orchestrators."""
    return RunControls(
        is_canceled=run.cancel_requested_at is not None,
        is_paused=run.paused_at is not None,
        stop_reason=run.stop_reason,
        resume_count=run.resume_count,
        blocked_scopes=run.blocked_scopes,
        decided={ring: decision.approved for ring, decision in run.decisions.items()},
    )


def _base(run: Run) -> RunState:
    """Where the run stands, whatever keeps it from going on."""
    state = run.paused_from_state or run.state
    return RunState.RUNNING if state is RunState.HELD else state


def _show(run: Run, state: RunState | None = None, waiting_for: str = "") -> Run:
    """Recompute ``state``. Precedence: paused, awaiting approval, held, running."""
    if state is None:
        state = _base(run)
        is_held = (run.paused_from_state or run.state) is RunState.HELD
        waiting_for = "" if is_held else run.waiting_for
    if state is RunState.RUNNING and run.blocked_scopes:
        state, waiting_for = RunState.HELD, ", ".join(run.blocked_scopes)
    is_paused = run.paused_at is not None
    return run.model_copy(
        update={
            "state": RunState.PAUSED if is_paused else state,
            "paused_from_state": state if is_paused else None,
            "waiting_for": waiting_for,
        }
    )


def _changed(changed: Run, before: Run, name: str, command: Command) -> Run:
    made = AppliedCommand(**command.who, reason=command.reason, at=command.at, before=before.state, after=changed.state)
    return changed.model_copy(update={"last_commands": {**before.last_commands, name: made}})


# --- machines -----------------------------------------------------------------------------------------------


def skip(machine: MachineRecord, intent: Intent | None, command: Command) -> MachineRecord:
    """Leave the machine out of its run. ``intent`` is that of the operation which the run does to its machines.

    Raises:
        InvalidTransition: it has ended, or Azure runs the operation, or may.
    """
    if machine.skip_command is not None:
        return machine
    if machine.outcome is not None:
        raise InvalidTransition(f"The machine has ended as {machine.outcome.value}; there is nothing to skip.")
    if intent is not None and intent.state is not IntentState.REFUSED:
        raise InvalidTransition(
            f"It is too late: the machine is {machine.stage.value}, and Azure cannot take that back."
        )
    return machine.model_copy(update={"skip_command": command})


def skipped(command: Command) -> Outcome:
    why = f": {command.reason}" if command.reason else "."
    return Outcome.skipped(Reason.SKIPPED_BY_PERSON, f"Skipped by {command.actor}{why}")


def not_started(stop_reason: str) -> Outcome:
    """The outcome of a machine that a gate kept from starting when it ended the run."""
    return Outcome.skipped(Reason.ERROR_BUDGET, f"Not started: {stop_reason[:1].lower()}{stop_reason[1:]}")


def terminal_outcome(run: Run, machine: MachineRecord) -> Outcome | None:
    """The outcome of a machine whose turn has come and on which nothing will be started; ``None``: it goes on.

    One that has ended keeps its outcome: a run that failed itself is closed while some of its machines are in progress.
    """
    if machine.outcome is not None:
        return Outcome.of(machine.outcome, Reason(machine.reason), machine.message)
    if run.state.is_final:
        return Outcome.skipped(Reason.INTERNAL, f"Not started: the run has ended as {run.state.value}.")
    if run.cancel_requested_at is not None:
        return Outcome.canceled()
    if machine.skip_command is not None:
        return skipped(machine.skip_command)
    if run.stop_reason:
        return not_started(run.stop_reason)
    return unapproved(run, machine)


def unapproved(run: Run, machine: MachineRecord) -> Outcome | None:
    """The outcome of a machine whose ring waits for an approval that it does not have.

    The orchestration asks before it takes a ring; this asks the row before each start. A machine is assessed before it
    has a ring.
    """
    if not machine.ring or run.mode is not Mode.PATCH:
        return None
    rings = objects_or_empty((run.policy_snapshot or {}).get("rings"))
    if not any(ring.get("name") == machine.ring and ring.get("approval") is not None for ring in rings):
        return None
    return None if is_approved(run, machine.ring) else ring_not_approved(machine.ring)


def is_approved(run: Run, ring: str) -> bool:
    decision = run.decisions.get(ring)
    return decision is not None and decision.approved


def ring_not_approved(ring: str) -> Outcome:
    """The outcome of a machine in a ring that waits for an approval and does not have it."""
    return Outcome.skipped(Reason.NOT_APPROVED, f"Not started: the ring {ring} is not approved.")


def holds(scope: str, machine: MachineRecord) -> bool:
    """Whether a gate over this scope keeps the machine from being started. A wave holds the waves behind it too."""
    lane = f"{machine.ring}/{machine.lane}"
    if scope in (RUN_GROUP, f"ring:{machine.ring}", lane_scope(lane)):
        return True
    before, _, wave = scope.rpartition("/")
    return before == f"wave:{lane}" and int(wave) <= machine.wave


def describe_scope(scope: str) -> str:
    """A scope in words, such as "wave 2 of westeurope in the ring broad"."""
    kind, _, name = scope.partition(":")
    match kind, name.split("/"):
        case "ring", [ring]:
            return f"the ring {ring}"
        case "lane", [ring, region]:
            return f"{region} in the ring {ring}"
        case "wave", [ring, region, wave]:
            return f"wave {wave} of {region} in the ring {ring}"
        case _:
            return f"the {scope}"
