"""What the steps of a run share: calls, signals, commands, waits, and the phases that it starts."""

from __future__ import annotations

from datetime import datetime, timedelta

from durabletask import task

from orchestrators.notifications import announce
from orchestrators.runtime import (
    MAX_TIMER,
    Context,
    Steps,
    call,
    receive,
    send,
    start,
    timer_until,
    utc_now,
)
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.notifications.events import Facts
from patchwave.domain.runs.commands import not_started
from patchwave.domain.runs.run import RunControls, RunState, Step
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.contracts import Activity, Signal
from patchwave.domain.workflow.phase import Phase, PhaseEnd
from patchwave.domain.workflow.run import Cutoff, HeartbeatRequest, RunRef, RunStateShown, SetRunState, StepRef


class PhaseLost(Exception):
    """The orchestration of a phase ended without a result; its machines may still be in progress."""


class EndOfRun(Exception):
    """The run ends here: its state, the reason, and the outcome of the machines that were not started."""

    def __init__(self, state: RunState, reason: str = "", outcome: Outcome | None = None) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason
        self.outcome = outcome or Outcome(
            outcome=OutcomeKind.UNKNOWN,
            reason=Reason.INTERNAL,
            message="The run ended without a result for this machine; check it." + (f" {reason}" if reason else ""),
        )


def _canceled() -> EndOfRun:
    return EndOfRun(RunState.CANCELED, "Cancelled on request.", Outcome.canceled())


def _stopped(reason: str) -> EndOfRun:
    return EndOfRun(RunState.STOPPED, reason, not_started(reason))


class RunControl:
    """One run, as its orchestration controls it. ``announces``: its policy has notification channels."""

    def __init__(self, context: Context, run_id: str) -> None:
        self.context = context
        self.id = run_id
        self.ref = RunRef(run_id=run_id)
        self.announces = False
        self.cancel = receive(context, Signal.CANCEL)
        self._control = receive(context, Signal.CONTROL)

    @property
    def now(self) -> datetime:
        """The time of this turn."""
        return utc_now(self.context)

    def call[Request, Result](self, activity: Activity[Request, Result], request: Request) -> Steps[Result]:
        """Call an activity and wait for its result."""
        return (yield from call(self.context, activity, request))

    def announce(self, facts: Facts, number: int = 1) -> None:
        """Start a notification, if the policy wants any."""
        if self.announces:
            announce(self.context, self.id, facts, number)

    def show(self, state: RunState, waiting_for: str = "") -> Steps[RunStateShown]:
        """Show the state of the run, and what it waits for."""
        request = SetRunState(run_id=self.id, state=state, waiting_for=waiting_for)
        return (yield from self.call(contracts.SET_RUN_STATE, request))

    def start_hours(self, step: Step) -> Steps[Cutoff]:
        """When this step may begin in the run's window, and in that of each time zone of its plan."""
        return (yield from self.call(contracts.GET_START_CUTOFF, StepRef(run_id=self.id, step=step)))

    def cutoff(self, step: Step) -> Steps[datetime | None]:
        """The last moment at which this step may begin in the run's window; ``None`` without a window."""
        return (yield from self.start_hours(step)).at

    def commands(self) -> Steps[RunControls]:
        """The commands of users and gates, from the row, which also covers a lost cancel event.

        Raises:
            EndOfRun: the run was cancelled, or a gate ended it.
        """
        controls = yield from self.call(contracts.GET_RUN_CONTROLS, self.ref)
        if controls.is_canceled:
            raise _canceled()
        if controls.stop_reason:
            raise _stopped(controls.stop_reason)
        return controls

    def end_if_canceled(self) -> None:
        """
        Raises:
            EndOfRun: the run was cancelled.
        """
        if self.cancel.is_complete:
            raise _canceled()

    # --- waits

    def wait_until(self, until: datetime) -> Steps[RunControls]:
        """Sleep until ``until``, a day at most, or until a signal comes; returns the current controls.

        Raises:
            EndOfRun: the run was cancelled, or a gate ended it.
        """
        yield from self.rest(until, self.cancel)
        self.end_if_canceled()
        return (yield from self.commands())

    def rest(self, until: datetime, *signals: task.Task[None]) -> Steps[None]:
        """Extend the heartbeat, and sleep: until ``until``, a day at most, or until a command or a signal comes."""
        request = HeartbeatRequest(run_id=self.id, until=min(until, self.now + MAX_TIMER))
        yield from self.call(contracts.EXTEND_HEARTBEAT, request)
        timer = timer_until(self.context, until)
        yield task.when_any([timer, *signals, self._control])
        timer.cancel()
        self._has_command()

    def pause(self, pause: timedelta) -> Steps[None]:
        """Sleep without a heartbeat, or until the run is cancelled."""
        timer = self.context.create_timer(pause)
        yield task.when_any([timer, self.cancel])
        timer.cancel()

    def _has_command(self) -> bool:
        """Whether a control signal has come since the last call; the row has its content."""
        has_received = False
        while self._control.is_complete:
            has_received = True
            self._control = receive(self.context, Signal.CONTROL)
        return has_received

    # --- phases

    def run_phase(self, phase: Phase) -> Steps[PhaseEnd]:
        """Run a phase to its end.

        Raises:
            EndOfRun: the run was cancelled, or a gate ended it.
            PhaseLost: it ended without a result.
        """
        end = yield from self.follow(phase)
        self.end_if_canceled()
        if end.stop_reason:
            raise _stopped(end.stop_reason)
        return end

    def follow(self, phase: Phase) -> Steps[PhaseEnd]:
        """Run a phase as a child, also one of a cancelled run, and forward signals to it until it ends.

        Raises:
            PhaseLost: it ended without a result.
        """
        phase_id = instance_ids.phase(self.id, phase.name)
        running = start(self.context, contracts.PATCH_PHASE, phase, phase_id)
        is_forwarded = False
        while not running.is_complete:
            if self.cancel.is_complete and not is_forwarded:
                send(self.context, phase_id, Signal.CANCEL)
                is_forwarded = True
            yield task.when_any([running, self._control] if is_forwarded else [running, self._control, self.cancel])
            if self._has_command() and not running.is_complete:
                send(self.context, phase_id, Signal.CONTROL)
        if running.is_failed:
            raise PhaseLost(f"The phase {phase.name} ended without an answer.")
        return contracts.PATCH_PHASE.result.decode(running.get_result())
