"""patch_run: open, discover, assess, plan; then ring by ring ask, patch, restart and wait; close."""

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
from patchwave.domain.workflow.messages import (
    Checkpoint,
    CloseOpenMachines,
    CloseRun,
    Cutoff,
    DiscoveryRequest,
    GivePlacesBack,
    HeartbeatRequest,
    OpenWindow,
    Phase,
    PhaseEnd,
    PlanSummary,
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
    TakePlaces,
)

_LOG = logging.getLogger("patchwave.orchestrators")

MAX_DISCOVERY_FAILURES = 6
"""Pages of the discovery that may fail in a row before the run says that Azure cannot be reached; being throttled is no
failure."""
MAX_DISCOVERY = timedelta(days=1)
"""How long a run without a window waits to be let in by Azure."""
MAX_CLOSINGS = 100
"""How often the run is closed anew when that fails for good each time."""
BETWEEN_CLOSINGS = timedelta(hours=1)
MAX_WINDOWS = 30
"""Windows that one run may take before what is left over is left to the next run."""
PASSES_PER_GENERATION = 1_000
ATTEMPTS_PER_GENERATION = 300
"""More than a run makes: up to 9 in each of its windows."""
TURNS_PER_GENERATION = 10_000
"""More than the times that a run reserves something for a phase: once for each in each of its windows."""
MAX_LOOK = timedelta(minutes=15)
"""How long a run that waits for another one sleeps at most: that one wakes it, unless it was lost."""
MAX_TAKINGS = 20
"""How often a new generation looks for machines that the one before worked on; it is told 500 at a time."""


@implements(contracts.PATCH_RUN)
def patch_run(context: Context, follow: RunInput) -> Steps[RunResult]:
    """Run a policy once; the run's row holds everything else. Whatever happens, the run is closed.

    Raises:
        PhaseLost: the watchdog ends what is left of the run, and goes on with it from the records.
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
        # Whatever it was: a run that stays open would keep its windows from the runs behind it for ever.
        if not context.is_replaying:
            _LOG.error("Run %s failed.", run_id, exc_info=error)
        end = _failed(f"Patchwave itself failed: {error}"[:2_000])
    yield from run.close(end)
    return RunResult(run_id=run_id, state=end.state)


@implements(contracts.CLOSE_ORPHANED_RUN)
def close_orphaned_run(context: Context, dead: RunRef) -> Steps[RunResult]:
    """Close a run whose orchestration has ended without that.

    Somebody terminated it, or another version of the app could not replay it.
    """
    run_id = dead.run_id
    end = _failed("The orchestration of the run was ended before it had closed the run.")
    run = _Run(context, run_id, MAX_GENERATIONS + 1)
    yield from run.close(end)
    return RunResult(run_id=run_id, state=end.state)


class PhaseLost(Exception):
    """The orchestration of a phase ended without an answer; its machines may still be worked on."""


class _Ended(Exception):
    """The run ends here: its state, why, and the outcome of the machines that nobody started."""

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
        self._steer = receive(context, Signal.CONTROL)
        # Names of phases and machines' instances are never those of a generation before.
        self._passes = (generation - 1) * PASSES_PER_GENERATION
        self._attempts = (generation - 1) * ATTEMPTS_PER_GENERATION
        self._turns = (generation - 1) * TURNS_PER_GENERATION
        self._has_reserved = generation > 1
        self._ramped = 0
        self._windows = 0
        self._baking_since: datetime | None = None
        self._lane_rest_until: dict[str, datetime] = {}
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
                    # That of the first ring, also when it had nothing to do; only the first call writes anything.
                    first = RingRef(run_id=self._run_id, ring=plan.rings[0].name)
                    yield from call(self._context, contracts.PIN_RING, first)
                yield from self._take_ring(opened, plan, number, ring)
                yield from self._give_places_back()
                if number != rings[-1][0]:
                    yield from self._await_release()
                    yield from self._bake(ring)
        return _Ended(RunState.COMPLETED)

    def close(self, end: _Ended) -> Steps[None]:
        """Give every machine an outcome, then the run its end."""
        open_machines = CloseOpenMachines(run_id=self._run_id, outcome=end.outcome)
        yield from self._insist(contracts.CLOSE_OPEN_MACHINES, open_machines)
        close = CloseRun(run_id=self._run_id, state=end.state, reason=end.reason)
        yield from self._insist(contracts.CLOSE_RUN, close)
        # What a run that has ended reserved keeps no other run waiting: those that wait look again by themselves.
        with suppress(task.TaskFailedError):
            yield from self._give_places_back()
        self._announce(Event.ENDED)

    # --- going on from the records

    def _load_checkpoint(self) -> Steps[Checkpoint]:
        """What the generation before has left behind; nothing, for the first one."""
        if self._generation == 1:
            return Checkpoint(is_planned=False)
        request = RunRef(run_id=self._run_id)
        checkpoint = yield from call(self._context, contracts.LOAD_CHECKPOINT, request)
        self._failures, self._forgiven = checkpoint.failures, checkpoint.forgiven
        self._resume_count, self._ramped = checkpoint.resume_count, checkpoint.ended
        self._windows, self._lane_rest_until, self._baking_since = (
            checkpoint.windows,
            checkpoint.lane_rest_until,
            checkpoint.ended_at,
        )
        return checkpoint

    def _resume_running(self, opened: RunSettings, plan: PlanSummary, checkpoint: Checkpoint) -> Steps[Checkpoint]:
        """Bring everybody to an end whom the generation before worked on, and start nobody else meanwhile.

        What keeps machines apart holds so without knowing in which order they were started. That the run was cancelled
        or stopped does not end this: what Azure has accepted is followed all the same.
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
        """Page after page, until the machines of the scope all have their row.

        Raises:
            _Ended: the run was cancelled, no machine matches, or the machines cannot be listed; not for being
                throttled, unless that lasts until the window closes.
        """
        cursor, attempt, counted = "", 0, 0
        gives_up_at = utc_now(self._context)
        while True:
            request = DiscoveryRequest(run_id=self._run_id, cursor=cursor, attempt=attempt)
            page = yield from call(self._context, contracts.DISCOVER_MACHINES, request)
            self._end_if_canceled()
            pause = timedelta(seconds=page.wait_seconds)
            if page.failure:
                attempt, counted = attempt + 1, counted + page.counts_as_attempt
                if not pause or counted >= MAX_DISCOVERY_FAILURES:
                    raise _failed(page.failure)
                if attempt == 1:
                    cutoff = yield from self._cutoff(Step.PATCH)
                    gives_up_at = cutoff.at or utc_now(self._context) + MAX_DISCOVERY
                    yield from self._show(RunState.RUNNING, f"the list of machines. {page.failure}")
                if utc_now(self._context) + pause > gives_up_at:
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
        """All machines, before anything is planned: a plan knows who needs nothing."""
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
        """Wait until a person says yes. No, or nothing at all in time, ends the run."""
        if ring.approval_seconds is None:
            return
        asked_at = utc_now(self._context)
        controls = yield from self._controls()
        if ring.name not in controls.decided:
            # A generation before may have died with a phase that is over: nothing is kept while a person decides.
            yield from self._give_places_back()
            shown = yield from self._show(RunState.AWAITING_APPROVAL, ring.name)
            # A generation before may have asked: people were told of that deadline.
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
                # Approved between the last look and the stop: whoever was told so may rely on it.
                yield from self._show(RunState.RUNNING)
                return
            outcome = Outcome.skipped(Reason.NOT_APPROVED, f"Not started: {reason[0].lower()}{reason[1:]}")
            raise _Ended(RunState.STOPPED, reason, outcome)
        yield from self._show(RunState.RUNNING)

    def _take_ring(self, opened: RunSettings, plan: PlanSummary, number: int, ring: RingSummary) -> Steps[None]:
        """Patch the ring phase by phase, then restart it the same way when restarts are a step of their own."""
        ramped, self._ramped = self._ramped, 0
        for step in (Step.PATCH, Step.RESTART) if opened.options.reboot_apart else (Step.PATCH,):
            for phase_number in range(len(ring.phases)):
                ended = yield from self._take_phase(opened, plan, number, ring, step, phase_number, ramped)
                ramped += ended
                if ended:
                    # The bake time of the ring begins in this generation.
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
        """One phase, over as many windows as it takes; how many machines ended."""
        attempt, begun_at = self._attempts + 1, ended
        while True:
            cutoff = yield from self._cutoff(step)
            # When the window has closed meanwhile, the phase starts nothing, and says who is left.
            waited_for = yield from self._take_places(number, phase_number, cutoff.at)
            phase = self._phase_of_ring(opened, plan, number, ring, step, phase_number)
            own = {"ended": ended, "closes_at": cutoff.at, "first_attempt": attempt, "last_attempt": attempt}
            end = yield from self._phase(phase.model_copy(update=own))
            self._failures, self._forgiven, self._resume_count = end.failures, end.forgiven, end.resume_count
            if not end.has_remaining:
                return end.ended - begun_at
            # A run that was stopped meanwhile ends here, and is not called one whose window closed.
            yield from self._controls()
            if cutoff.at is None or not (opened.options.continues or utc_now(self._context) > cutoff.at):
                # No window kept anybody back: a machine was put back too often, and the others do not wait for that.
                return end.ended - begun_at
            if not opened.options.continues:
                why = f"while the run waited for {waited_for}" if waited_for else "before every machine was started"
                raise _Ended(RunState.COMPLETED, f"The window closed {why}.", window_closed())
            yield from self._give_places_back()
            yield from self._await_next_window()
            attempt, ended = end.last_attempt + 1, end.ended

    def _phase_of_ring(
        self, opened: RunSettings, plan: PlanSummary, number: int, ring: RingSummary, step: Step, phase_number: int
    ) -> Phase:
        """A phase of the plan, under a name of its own."""
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
            lane_rest_until=self._lane_rest_until,
            wave_bake_seconds=opened.wave_bake_seconds,
        )

    def _phase(self, phase: Phase) -> Steps[PhaseEnd]:
        """Take a phase to its end.

        Raises:
            _Ended: the run was cancelled, or a gate ended it.
            PhaseLost: it ended without an answer.
        """
        end = yield from self._followed(phase)
        self._end_if_canceled()
        if end.stop_reason:
            raise _stopped(end.stop_reason)
        return end

    def _followed(self, phase: Phase) -> Steps[PhaseEnd]:
        """A phase as a child. What people say meanwhile is passed on, and the phase ends by itself."""
        phase_id = instance_ids.phase(self._run_id, phase.name)
        running = start(self._context, contracts.PATCH_PHASE, phase, phase_id)
        is_told = False
        while not running.is_complete:
            if self._cancel.is_complete and not is_told:
                send(self._context, phase_id, Signal.CANCEL)
                is_told = True
            yield task.when_any([running, self._steer] if is_told else [running, self._steer, self._cancel])
            if self._steered() and not running.is_complete:
                send(self._context, phase_id, Signal.CONTROL)
        if running.is_failed:
            raise PhaseLost(f"The phase {phase.name} ended without an answer.")
        return result_of(contracts.PATCH_PHASE, running)

    # --- waiting

    def _cutoff(self, step: Step) -> Steps[Cutoff]:
        """The last moment at which this step may begin on a machine, in the window that the run is in."""
        request = StepRef(run_id=self._run_id, step=step)
        return (yield from call(self._context, contracts.GET_START_CUTOFF, request))

    def _take_places(self, ring_number: int, phase_number: int, closes_at: datetime | None) -> Steps[str]:
        """Wait until no other run works on what the phase has to be kept apart from; what it waits for in vain.

        Empty: the phase has its turn, until `_give_places_back`. Else the window has closed, and nothing may start.

        Raises:
            _Ended: the run was cancelled, or a gate ended it.
        """
        self._turns += 1
        self._has_reserved = True
        request = TakePlaces(run_id=self._run_id, ring_number=ring_number, phase_number=phase_number, turn=self._turns)
        looks = 0
        while True:
            taken = yield from call(self._context, contracts.TAKE_PLACES, request)
            self._wake_runs(taken.freed)
            if not taken.waits_for:
                if looks:
                    yield from self._show(RunState.RUNNING)
                return ""
            now = utc_now(self._context)
            if closes_at is not None and now > closes_at:
                yield from self._show(RunState.RUNNING)
                return taken.waits_for
            if not looks:
                self._announce(RunAwaited(waits_for=taken.waits_for), self._turns)
            until = now + min(timedelta(seconds=taken.wait_seconds) * 2 ** min(looks, 16), MAX_LOOK)
            if closes_at is not None:
                until = min(until, closes_at + timedelta(seconds=1))
            yield from self._wake(until)
            looks += 1

    def _give_places_back(self) -> Steps[None]:
        """What the run has reserved is free for others, and the runs that may wait for it are woken."""
        if not self._has_reserved:
            return
        request = GivePlacesBack(run_id=self._run_id, turn=self._turns)
        given = yield from call(self._context, contracts.GIVE_PLACES_BACK, request)
        self._has_reserved = False
        self._wake_runs(given.waiting)

    def _wake_runs(self, run_ids: list[str]) -> None:
        for run_id in run_ids:
            send(self._context, run_id, Signal.CONTROL)

    def _await_next_window(self) -> Steps[None]:
        """Sleep until the policy's next window opens, and go on in it."""
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
            # Asked again afterwards: somebody may have paused or frozen the policy meanwhile.
            yield from self._wake(window.opens_at)
        opened = OpenWindow(run_id=self._run_id, ends_at=window.ends_at)
        yield from call(self._context, contracts.ENTER_WINDOW, opened)

    def _await_release(self) -> Steps[None]:
        """A gate that holds a part of a ring holds the rings behind it too, until somebody resumes or the window ends.

        Behind the end of the window the next phase starts nothing, and says so.
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
        """Wait and show it, as nothing happens meanwhile. Only a cancel ends it early."""
        if not ring.bake_seconds:
            return
        since, self._baking_since = self._baking_since or utc_now(self._context), None
        until = since + timedelta(seconds=ring.bake_seconds)
        yield from self._show(RunState.RUNNING, f"the bake time of the ring {ring.name}, until {format_instant(until)}")
        while utc_now(self._context) < until:
            yield from self._wake(until)
        yield from self._show(RunState.RUNNING)

    def _wake(self, until: datetime) -> Steps[RunControls]:
        """Sleep until that moment, a day at most, or until somebody says something; what the row says then.

        Raises:
            _Ended: the run was cancelled, or a gate ended it.
        """
        rest = HeartbeatRequest(run_id=self._run_id, until=min(until, utc_now(self._context) + MAX_TIMER))
        yield from call(self._context, contracts.EXTEND_HEARTBEAT, rest)
        timer = timer_until(self._context, until)
        yield task.when_any([timer, self._cancel, self._steer])
        timer.cancel()
        self._steered()
        self._end_if_canceled()
        return (yield from self._controls())

    def _sleep(self, pause: timedelta) -> Steps[None]:
        """Sleep for so long, or until the run is cancelled."""
        timer = self._context.create_timer(pause)
        yield task.when_any([timer, self._cancel])
        timer.cancel()

    def _steered(self) -> bool:
        """Whether somebody said something since the last look; the row tells what."""
        was_steered = False
        while self._steer.is_complete:
            was_steered = True
            self._steer = receive(self._context, Signal.CONTROL)
        return was_steered

    def _end_if_canceled(self) -> None:
        if self._cancel.is_complete:
            raise _canceled()

    # --- calls

    def _announce(self, what: Event | Facts, number: int = 1) -> None:
        if self._announces:
            announce(self._context, self._run_id, what, number)

    def _controls(self) -> Steps[RunControls]:
        """What people and gates have said: the row is the truth, also when the event of a cancel got lost.

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
        """Call until it works, for days: nothing else would ever close the run."""
        for attempt in range(1, MAX_CLOSINGS + 1):
            try:
                yield from call(self._context, activity, request)
            except task.TaskFailedError:
                if attempt == MAX_CLOSINGS:
                    raise
                yield self._context.create_timer(BETWEEN_CLOSINGS)
            else:
                return
