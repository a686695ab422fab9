"""patch_run: discovers, assesses and plans machines; then, per ring: approval, patch phases, restarts, bake time."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from durabletask import task

from orchestrators.notifications import announce
from orchestrators.runtime import (
    MAX_TIMER,
    Context,
    Steps,
    call,
    implements,
    receive,
    result_of,
    send,
    start,
    timer_until,
    utc_now,
)
from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.notifications.events import ApprovalNeeded, Facts, RunAwaited, WindowAwaited
from patchwave.domain.policy.notifications import Event
from patchwave.domain.runs.commands import not_started
from patchwave.domain.runs.outcome_rules import window_closed
from patchwave.domain.runs.run import Mode, RunControls, RunState, Step
from patchwave.domain.runs.watchdog import MAX_GENERATIONS
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.contracts import Activity, Signal
from patchwave.domain.workflow.phase import Phase, PhaseEnd
from patchwave.domain.workflow.run import (
    Checkpoint,
    CloseOpenMachines,
    CloseRun,
    Cutoff,
    HeartbeatRequest,
    MachinesPageRequest,
    OpenWindow,
    PlanSummary,
    ReleaseGroups,
    ReserveGroups,
    RingRef,
    RingSummary,
    RunInput,
    RunRef,
    RunResult,
    RunSettings,
    RunStateShown,
    SetRunState,
    StepRef,
    StopRun,
)

_LOG = logging.getLogger("patchwave.orchestrators")

MAX_DISCOVERY_FAILURES = 6
"""Consecutive discovery pages that may fail before the run ends as unable to reach Azure; throttling does not count."""
MAX_DISCOVERY = timedelta(days=1)
"""How long the discovery of a run without a window waits while Azure throttles."""
MAX_CLOSINGS = 100
"""Attempts to close the run when that fails for good."""
BETWEEN_CLOSINGS = timedelta(hours=1)
MAX_WINDOWS = 30
"""Windows that one run may use. The next run takes the remaining machines."""
PASSES_PER_GENERATION = 1_000
ATTEMPTS_PER_GENERATION = 300
"""More attempts than one generation makes: up to 9 in each of its windows."""
RESERVATIONS_PER_GENERATION = 10_000
"""More reservations than one generation makes: one for each phase in each window."""
MAX_WAIT_POLL = timedelta(minutes=15)
"""Longest sleep of a run that waits for another one, which normally wakes it."""
MAX_TAKINGS = 20
"""Checkpoints that a new generation loads for machines in progress, 500 machines each."""


@implements(contracts.PATCH_RUN)
def patch_run(context: Context, follow: RunInput) -> Steps[RunResult]:
    """Run a policy once, and close the run after any error; the run's row holds everything else.

    Raises:
        PhaseLost: the watchdog ends the remaining orchestrations, and resumes the run from its rows.
    """
    run_id = follow.run_id
    run = _Run(context, run_id, follow.generation)
    try:
        end = yield from run.execute()
    except _Ended as ended:
        end = ended
    except PhaseLost:
        raise
    except Exception as error:
        # Any exception: an open run would keep its windows from later runs for ever.
        if not context.is_replaying:
            _LOG.error("Run %s failed.", run_id, exc_info=error)
        end = _failed(f"Patchwave itself failed: {error}"[:2_000])
    yield from run.close(end)
    return RunResult(run_id=run_id, state=end.state)


@implements(contracts.CLOSE_ORPHANED_RUN)
def close_orphaned_run(context: Context, dead: RunRef) -> Steps[RunResult]:
    """Close a run whose orchestration ended without closing it: it was terminated, or its version is not supported."""
    run_id = dead.run_id
    end = _failed("The orchestration of the run was ended before it had closed the run.")
    run = _Run(context, run_id, MAX_GENERATIONS + 1)
    yield from run.close(end)
    return RunResult(run_id=run_id, state=end.state)


class PhaseLost(Exception):
    """The orchestration of a phase ended without a result; its machines may still be in progress."""


class _Ended(Exception):
    """The run ends here: its state, the reason, and the outcome of the machines that were not started."""

    def __init__(self, state: RunState, reason: str = "", outcome: Outcome | None = None) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason
        self.outcome = outcome or Outcome(
            outcome=OutcomeKind.UNKNOWN,
            reason=Reason.INTERNAL,
            message="The run ended without a word from this machine; look at it." + (f" {reason}" if reason else ""),
        )


def _failed(reason: str) -> _Ended:
    return _Ended(RunState.FAILED, reason)


def _canceled() -> _Ended:
    return _Ended(RunState.CANCELED, "Cancelled on request.", Outcome.canceled())


def _stopped(reason: str) -> _Ended:
    return _Ended(RunState.STOPPED, reason, not_started(reason))


class _Run:
    """The steps of one run. Every method that yields is part of the orchestrator and is replayed with it."""

    def __init__(self, context: Context, run_id: str, generation: int = 1) -> None:
        self._context = context
        self._run_id = run_id
        self._generation = generation
        self._cancel = receive(context, Signal.CANCEL)
        self._control = receive(context, Signal.CONTROL)
        # A generation never reuses the instance ids of an earlier one.
        self._passes = (generation - 1) * PASSES_PER_GENERATION
        self._attempts = (generation - 1) * ATTEMPTS_PER_GENERATION
        self._sequence = (generation - 1) * RESERVATIONS_PER_GENERATION
        self._has_reserved = generation > 1
        self._ramped = 0
        self._windows = 0
        self._baking_since: datetime | None = None
        self._lane_bake_until: dict[str, datetime] = {}
        self._failures: dict[str, int] = {}
        self._forgiven: dict[str, int] = {}
        self._resume_count: int = 0
        self._announces = False

    # --- the whole run

    def execute(self) -> Steps[_Ended]:
        """Everything up to the close; returns how the run ends.

        Raises:
            _Ended: it ends early.
        """
        opened = yield from call(self._context, contracts.BEGIN_RUN, RunRef(run_id=self._run_id))
        if opened.is_final:
            return _Ended(RunState.COMPLETED)
        self._announces = opened.announces
        checkpoint = yield from self._load_checkpoint()
        if not checkpoint.is_planned:
            yield from self._discover()
            self._announce(Event.STARTED)
            yield from self._assess(opened)
        if opened.options.mode is Mode.PATCH:
            plan = yield from call(self._context, contracts.PLAN_RUN, RunRef(run_id=self._run_id))
            if checkpoint.is_planned:
                checkpoint = yield from self._resume_running(opened, plan, checkpoint)
            rings = [
                (number, ring) for number, ring in enumerate(plan.rings) if ring.machines and number >= checkpoint.ring
            ]
            for number, ring in rings:
                yield from self._approve(number, ring)
                if opened.pin_rings and number:
                    # The pin of the first ring, even if that had no machines; only the first call writes.
                    first = RingRef(run_id=self._run_id, ring=plan.rings[0].name)
                    yield from call(self._context, contracts.PIN_RING, first)
                yield from self._take_ring(opened, plan, number, ring)
                yield from self._release_groups()
                if number != rings[-1][0]:
                    yield from self._await_release()
                    yield from self._bake(ring)
        return _Ended(RunState.COMPLETED)

    def close(self, end: _Ended) -> Steps[None]:
        """Give every machine an outcome, then end the run."""
        open_machines = CloseOpenMachines(run_id=self._run_id, outcome=end.outcome)
        yield from self._insist(contracts.CLOSE_OPEN_MACHINES, open_machines)
        close = CloseRun(run_id=self._run_id, state=end.state, reason=end.reason)
        yield from self._insist(contracts.CLOSE_RUN, close)
        # Waiting runs also poll, so a failure here does not block them: reservations of an ended run do not count.
        with suppress(task.TaskFailedError):
            yield from self._release_groups()
        self._announce(Event.ENDED)

    # --- resuming

    def _load_checkpoint(self) -> Steps[Checkpoint]:
        """What the previous generation left unfinished; empty for the first one."""
        if self._generation == 1:
            return Checkpoint(is_planned=False)
        request = RunRef(run_id=self._run_id)
        checkpoint = yield from call(self._context, contracts.LOAD_CHECKPOINT, request)
        self._failures, self._forgiven = checkpoint.failures, checkpoint.forgiven
        self._resume_count, self._ramped = checkpoint.resume_count, checkpoint.ended
        self._windows, self._lane_bake_until, self._baking_since = (
            checkpoint.windows,
            checkpoint.lane_bake_until,
            checkpoint.ended_at,
        )
        return checkpoint

    def _resume_running(self, opened: RunSettings, plan: PlanSummary, checkpoint: Checkpoint) -> Steps[Checkpoint]:
        """Finish machines that were in progress before the restart. No other machine is started until then.

        They had satisfied the concurrency constraints, so their order does not matter. A cancelled or stopped run
        finishes them too: operations that Azure accepted are followed to their end.
        """
        for _ in range(MAX_TAKINGS):
            if not checkpoint.in_progress:
                break
            self._attempts += 1
            for part in checkpoint.in_progress:
                ring = plan.rings[part.ring_number]
                phase = self._phase_of_ring(opened, plan, part.ring_number, ring, part.step, part.phase_number)
                taken = [machine.model_copy(update={"attempt": self._attempts}) for machine in part.machines]
                end = yield from self._followed(
                    phase.model_copy(
                        update={
                            "running": taken,
                            "resume_running": True,
                            "has_all_pages": True,
                            "closes_at": utc_now(self._context) - timedelta(seconds=1),
                        }
                    )
                )
                self._failures, self._forgiven = end.failures, end.forgiven
            checkpoint = yield from self._load_checkpoint()
        yield from self._controls()
        return checkpoint

    # --- steps

    def _discover(self) -> Steps[None]:
        """Read all pages, until each machine of the scope has its row.

        Raises:
            _Ended: the run was cancelled, no machine matches, or the machines cannot be listed. Throttling counts as a
                failure only when it lasts until the window closes.
        """
        cursor, attempt, counted = "", 0, 0
        deadline = utc_now(self._context)
        while True:
            request = MachinesPageRequest(run_id=self._run_id, cursor=cursor, attempt=attempt)
            page = yield from call(self._context, contracts.DISCOVER_MACHINES, request)
            self._end_if_canceled()
            pause = timedelta(seconds=page.wait_seconds)
            if page.failure:
                attempt, counted = attempt + 1, counted + page.counts_as_attempt
                if not pause or counted >= MAX_DISCOVERY_FAILURES:
                    raise _failed(page.failure)
                if attempt == 1:
                    cutoff = yield from self._cutoff(Step.PATCH)
                    deadline = cutoff.at or utc_now(self._context) + MAX_DISCOVERY
                    yield from self._show(RunState.RUNNING, f"the list of machines. {page.failure}")
                if utc_now(self._context) + pause > deadline:
                    raise _failed(f"{page.failure} The time of the run does not last until Azure can be asked again.")
                yield from self._wake(utc_now(self._context) + pause)
                continue
            if attempt:
                yield from self._show(RunState.RUNNING)
            cursor, attempt, counted = page.cursor, 0, 0
            if not cursor:
                break
            if pause:
                yield from self._sleep(pause)
                self._end_if_canceled()
        if not page.machines:
            raise _Ended(RunState.EMPTY, f"No machine matches the scope: {page.selectors}")

    def _assess(self, opened: RunSettings) -> Steps[None]:
        """Assess all machines before the plan, which leaves out those without updates."""
        phase = Phase(
            run_id=self._run_id,
            name=instance_ids.phase_name(Step.ASSESS.value, str(self._generation) if self._generation > 1 else ""),
            step=Step.ASSESS,
            options=opened.options,
            max_concurrent=opened.assess_concurrency,
            first_attempt=self._attempts + 1,
            last_attempt=self._attempts + 1,
        )
        yield from self._phase(phase)

    def _approve(self, ring_number: int, ring: RingSummary) -> Steps[None]:
        """Wait for the approval. A rejection, or no decision in time, ends the run."""
        if ring.approval_seconds is None:
            return
        asked_at = utc_now(self._context)
        controls = yield from self._controls()
        if ring.name not in controls.decided:
            # The previous generation may have died between two phases: no reservation is kept while a person decides.
            yield from self._release_groups()
            shown = yield from self._show(RunState.AWAITING_APPROVAL, ring.name)
            # The previous generation may have announced a deadline: it stays valid.
            asked_at = shown.since or asked_at
            needed = ApprovalNeeded(ring=ring.name, machines=ring.machines, within_seconds=ring.approval_seconds)
            self._announce(needed, ring_number)
        deadline = asked_at + timedelta(seconds=ring.approval_seconds)
        while ring.name not in controls.decided and utc_now(self._context) < deadline:
            controls = yield from self._wake(deadline)
        if not controls.decided.get(ring.name, False):
            said = "was rejected" if ring.name in controls.decided else "was not approved in time"
            reason = f"The ring {ring.name} {said}."
            stop = StopRun(run_id=self._run_id, reason=reason, unless_approved=ring.name)
            stopped = yield from call(self._context, contracts.STOP_RUN, stop)
            if stopped.decided.get(ring.name, False):
                # An approval between the last poll and the stop counts.
                yield from self._show(RunState.RUNNING)
                return
            outcome = Outcome.skipped(Reason.NOT_APPROVED, f"Not started: {reason[0].lower()}{reason[1:]}")
            raise _Ended(RunState.STOPPED, reason, outcome)
        yield from self._show(RunState.RUNNING)

    def _take_ring(self, opened: RunSettings, plan: PlanSummary, number: int, ring: RingSummary) -> Steps[None]:
        """Patch the ring phase by phase, then restart it the same way if restarts are separate."""
        ramped, self._ramped = self._ramped, 0
        for step in (Step.PATCH, Step.RESTART) if opened.options.reboot_apart else (Step.PATCH,):
            for phase_number in range(len(ring.phases)):
                ended = yield from self._take_phase(opened, plan, number, ring, step, phase_number, ramped)
                ramped += ended
                if ended:
                    # The ring's bake time begins in this generation.
                    self._baking_since = None
            ramped = 0

    def _take_phase(
        self,
        opened: RunSettings,
        plan: PlanSummary,
        number: int,
        ring: RingSummary,
        step: Step,
        phase_number: int,
        ended: int,
    ) -> Steps[int]:
        """One phase, over as many windows as it takes; returns how many machines ended."""
        attempt, begun_at = self._attempts + 1, ended
        while True:
            cutoff = yield from self._cutoff(step)
            # If the window closes meanwhile, the phase starts nothing and reports remaining machines.
            waited_for = yield from self._reserve_groups(number, phase_number, cutoff.at)
            phase = self._phase_of_ring(opened, plan, number, ring, step, phase_number)
            own = {"ended": ended, "closes_at": cutoff.at, "first_attempt": attempt, "last_attempt": attempt}
            end = yield from self._phase(phase.model_copy(update=own))
            self._failures, self._forgiven, self._resume_count = end.failures, end.forgiven, end.resume_count
            if not end.has_remaining:
                return end.ended - begun_at
            # A stopped run ends here with its own reason, not with a closed window.
            yield from self._controls()
            if cutoff.at is None or not (opened.options.continues or utc_now(self._context) > cutoff.at):
                # The window is still open: a machine was requeued too often, and the other machines do not wait for it.
                return end.ended - begun_at
            if not opened.options.continues:
                why = f"while the run waited for {waited_for}" if waited_for else "before every machine was started"
                raise _Ended(RunState.COMPLETED, f"The window closed {why}.", window_closed())
            yield from self._release_groups()
            yield from self._await_next_window()
            attempt, ended = end.last_attempt + 1, end.ended

    def _phase_of_ring(
        self, opened: RunSettings, plan: PlanSummary, number: int, ring: RingSummary, step: Step, phase_number: int
    ) -> Phase:
        """A phase of the plan, with a unique name."""
        self._passes += 1
        return Phase(
            run_id=self._run_id,
            name=instance_ids.phase_name(step.value, f"{number}.{phase_number}.{self._passes}"),
            step=step,
            options=opened.options,
            ring=ring.name,
            ring_number=number,
            phase_number=phase_number,
            lanes=ring.phases[phase_number].lanes,
            machines=plan.machines,
            ring_machines=ring.machines,
            error_budget=opened.error_budget,
            announces=opened.announces,
            failures=self._failures,
            forgiven=self._forgiven,
            resume_count=self._resume_count,
            ramp=opened.ramp,
            lane_bake_until=self._lane_bake_until,
            wave_bake_seconds=opened.wave_bake_seconds,
        )

    def _phase(self, phase: Phase) -> Steps[PhaseEnd]:
        """Run a phase to its end.

        Raises:
            _Ended: the run was cancelled, or a gate ended it.
            PhaseLost: it ended without a result.
        """
        end = yield from self._followed(phase)
        self._end_if_canceled()
        if end.stop_reason:
            raise _stopped(end.stop_reason)
        return end

    def _followed(self, phase: Phase) -> Steps[PhaseEnd]:
        """Run a phase as a child, and forward signals to it until it ends."""
        phase_id = instance_ids.phase(self._run_id, phase.name)
        running = start(self._context, contracts.PATCH_PHASE, phase, phase_id)
        is_told = False
        while not running.is_complete:
            if self._cancel.is_complete and not is_told:
                send(self._context, phase_id, Signal.CANCEL)
                is_told = True
            yield task.when_any([running, self._control] if is_told else [running, self._control, self._cancel])
            if self._drain_control() and not running.is_complete:
                send(self._context, phase_id, Signal.CONTROL)
        if running.is_failed:
            raise PhaseLost(f"The phase {phase.name} ended without an answer.")
        return result_of(contracts.PATCH_PHASE, running)

    # --- waiting

    def _cutoff(self, step: Step) -> Steps[Cutoff]:
        """The last moment at which this step may begin in the run's window."""
        request = StepRef(run_id=self._run_id, step=step)
        return (yield from call(self._context, contracts.GET_START_CUTOFF, request))

    def _reserve_groups(self, ring_number: int, phase_number: int, closes_at: datetime | None) -> Steps[str]:
        """Reserve the phase's concurrency groups; waits for other runs that hold them.

        Empty when reserved, until `_release_groups`. Else the run that holds them at the close of the window.

        Raises:
            _Ended: the run was cancelled, or a gate ended it.
        """
        self._sequence += 1
        self._has_reserved = True
        request = ReserveGroups(
            run_id=self._run_id, ring_number=ring_number, phase_number=phase_number, sequence=self._sequence
        )
        polls = 0
        while True:
            taken = yield from call(self._context, contracts.RESERVE_GROUPS, request)
            self._wake_runs(taken.freed)
            if not taken.waits_for:
                if polls:
                    yield from self._show(RunState.RUNNING)
                return ""
            now = utc_now(self._context)
            if closes_at is not None and now > closes_at:
                yield from self._show(RunState.RUNNING)
                return taken.waits_for
            if not polls:
                self._announce(RunAwaited(waits_for=taken.waits_for), self._sequence)
            until = now + min(timedelta(seconds=taken.wait_seconds) * 2 ** min(polls, 16), MAX_WAIT_POLL)
            if closes_at is not None:
                until = min(until, closes_at + timedelta(seconds=1))
            yield from self._wake(until)
            polls += 1

    def _release_groups(self) -> Steps[None]:
        """Release the run's reservations, and wake the runs that may wait for them."""
        if not self._has_reserved:
            return
        request = ReleaseGroups(run_id=self._run_id, sequence=self._sequence)
        given = yield from call(self._context, contracts.RELEASE_GROUPS, request)
        self._has_reserved = False
        self._wake_runs(given.waiting)

    def _wake_runs(self, run_ids: list[str]) -> None:
        for run_id in run_ids:
            send(self._context, run_id, Signal.CONTROL)

    def _await_next_window(self) -> Steps[None]:
        """Sleep until the policy's next window opens, and enter it."""
        self._windows += 1
        is_told = False
        while True:
            request = RunRef(run_id=self._run_id)
            window = yield from call(self._context, contracts.FIND_NEXT_WINDOW, request)
            if window.opens_at is None or window.ends_at is None or self._windows >= MAX_WINDOWS:
                raise _Ended(RunState.COMPLETED, "The policy has no further window for what is left.", window_closed())
            if utc_now(self._context) >= window.opens_at:
                break
            if not is_told:
                self._announce(WindowAwaited(opens_at=window.opens_at), self._windows)
                is_told = True
            # Checked again afterwards: the policy may be paused or frozen meanwhile.
            yield from self._wake(window.opens_at)
        opened = OpenWindow(run_id=self._run_id, ends_at=window.ends_at)
        yield from call(self._context, contracts.ENTER_WINDOW, opened)

    def _await_release(self) -> Steps[None]:
        """Wait while a gate blocks a scope, which also blocks later rings, until a resume or the end of the window.

        After the end of the window the next phase starts nothing, and reports that.
        """
        cutoff = yield from self._cutoff(Step.PATCH)
        controls = yield from self._controls()
        while controls.blocked_scopes:
            now = utc_now(self._context)
            if cutoff.at is not None and now > cutoff.at:
                return
            tomorrow = now + MAX_TIMER
            until = tomorrow if cutoff.at is None else min(tomorrow, cutoff.at + timedelta(seconds=1))
            controls = yield from self._wake(until)

    def _bake(self, ring: RingSummary) -> Steps[None]:
        """Show the bake time and wait for its end. Only a cancel ends it early."""
        if not ring.bake_seconds:
            return
        since, self._baking_since = self._baking_since or utc_now(self._context), None
        until = since + timedelta(seconds=ring.bake_seconds)
        yield from self._show(RunState.RUNNING, f"the bake time of the ring {ring.name}, until {format_instant(until)}")
        while utc_now(self._context) < until:
            yield from self._wake(until)
        yield from self._show(RunState.RUNNING)

    def _wake(self, until: datetime) -> Steps[RunControls]:
        """Sleep until ``until``, a day at most, or until a signal comes; returns the current controls.

        Raises:
            _Ended: the run was cancelled, or a gate ended it.
        """
        rest = HeartbeatRequest(run_id=self._run_id, until=min(until, utc_now(self._context) + MAX_TIMER))
        yield from call(self._context, contracts.EXTEND_HEARTBEAT, rest)
        timer = timer_until(self._context, until)
        yield task.when_any([timer, self._cancel, self._control])
        timer.cancel()
        self._drain_control()
        self._end_if_canceled()
        return (yield from self._controls())

    def _sleep(self, pause: timedelta) -> Steps[None]:
        """Sleep, or return early when the run is cancelled."""
        timer = self._context.create_timer(pause)
        yield task.when_any([timer, self._cancel])
        timer.cancel()

    def _drain_control(self) -> bool:
        """Whether a control signal has come since the last call; the row has its content."""
        has_received = False
        while self._control.is_complete:
            has_received = True
            self._control = receive(self._context, Signal.CONTROL)
        return has_received

    def _end_if_canceled(self) -> None:
        if self._cancel.is_complete:
            raise _canceled()

    # --- calls

    def _announce(self, what: Event | Facts, number: int = 1) -> None:
        if self._announces:
            announce(self._context, self._run_id, what, number)

    def _controls(self) -> Steps[RunControls]:
        """The commands of users and gates, from the row, which also covers a lost cancel event.

        Raises:
            _Ended: the run was cancelled, or a gate ended it.
        """
        request = RunRef(run_id=self._run_id)
        controls = yield from call(self._context, contracts.GET_RUN_CONTROLS, request)
        if controls.is_canceled:
            raise _canceled()
        if controls.stop_reason:
            raise _stopped(controls.stop_reason)
        return controls

    def _show(self, state: RunState, waiting_for: str = "") -> Steps[RunStateShown]:
        request = SetRunState(run_id=self._run_id, state=state, waiting_for=waiting_for)
        return (yield from call(self._context, contracts.SET_RUN_STATE, request))

    def _insist[Request](self, activity: Activity[Request, Any], request: Request) -> Steps[None]:
        """Call until it succeeds, for days: no other caller closes the run."""
        for attempt in range(1, MAX_CLOSINGS + 1):
            try:
                yield from call(self._context, activity, request)
            except task.TaskFailedError:
                if attempt == MAX_CLOSINGS:
                    raise
                yield self._context.create_timer(BETWEEN_CLOSINGS)
            else:
                return
