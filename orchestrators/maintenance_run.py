"""run_maintenance: what is done around one scheduled run of Update Manager, from its pre event to its results.

Find its machines, prepare them before the deadline, cancel it when the policy wants that; wait for the post event or
the time when it must be over; copy the results, put power back, assess, conclude, close. Its row says where it stands,
so that another generation goes on from there; it fails rather than closes when storage does, and the watchdog starts
that generation.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from durabletask import task

from orchestrators.notifications import announce
from orchestrators.runtime import MAX_TIMER, Context, Steps, call, implements, receive, start, timer_until, utc_now
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.policy.notifications import Event
from patchwave.domain.runs.run import RunState
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.contracts import Activity, Signal
from patchwave.domain.workflow.maintenance_run import (
    MachinesPage,
    MaintainShard,
    MaintenancePageRequest,
    MaintenancePhase,
    MaintenancePhaseRef,
    MaintenanceRunStatus,
    PrePhaseEnd,
)
from patchwave.domain.workflow.messages import (
    CloseOpenMachines,
    CloseRun,
    HeartbeatRequest,
    RunInput,
    RunRef,
    RunResult,
    SetRunState,
)

MAX_LISTINGS = 40
"""How often the machines are listed before the run: Resource Graph shows them minutes late, and not all at once."""
MAX_COPIES = 20
"""How often missing results are looked for, two poll intervals apart."""
MAX_FAILURES = 6
"""Pages that may fail in a row before the rest is done without them; being throttled is no failure."""
MAX_READING = timedelta(days=1)
"""How long Azure is asked for one list that it does not let us read yet, where no deadline comes first."""
MAX_PASSES = 4
"""How often machines are begun again whose orchestration failed: one that was started must be stopped."""
PASSES_PER_GENERATION = 10
MAX_PAUSE = timedelta(minutes=10)
"""Between two signs of life that the watchdog looks for."""


@implements(contracts.RUN_MAINTENANCE)
def run_maintenance(context: Context, follow: RunInput) -> Steps[RunResult]:
    """Accompany one scheduled run; its row holds everything else.

    Raises:
        TaskFailedError: storage or the worker failed for good; the watchdog starts the next generation.
    """
    run = _Run(context, follow.run_id, follow.generation)
    state = yield from run.execute()
    return RunResult(run_id=follow.run_id, state=state)


class _Run:
    """The steps of one run. Every method that yields is part of the orchestrator and is replayed with it."""

    def __init__(self, context: Context, run_id: str, generation: int) -> None:
        self._context = context
        self._run_id = run_id
        self._ref = RunRef(run_id=run_id)
        self._passes = (generation - 1) * PASSES_PER_GENERATION
        self._is_first = generation == 1
        self._post = receive(context, Signal.POST_MAINTENANCE)
        self._steer = receive(context, Signal.CONTROL)
        self._called_off = receive(context, Signal.CANCEL)

    def execute(self) -> Steps[RunState]:
        """Everything; returns how the run ends."""
        status = yield from self._load_status()
        if status.is_ended:
            return RunState.COMPLETED
        announces = status.announces
        if announces and self._is_first:
            announce(self._context, self._run_id, Event.STARTED)
        if not status.is_prepared:
            status = yield from self._prepare(status)
        status = yield from self._await_end(status)
        found = yield from self._list(status)
        if not status.is_canceled and not status.has_results:
            yield from self._copy_results(status)
        yield from self._settle(status)
        state = yield from self._close(status, found.machines)
        if announces:
            announce(self._context, self._run_id, Event.ENDED)
        return state

    # --- before

    def _prepare(self, status: MaintenanceRunStatus) -> Steps[MaintenanceRunStatus]:
        """Find the machines and do on them what the policy asks for, until it is done or the time is over."""
        until = status.pre_deadline
        shards: list[task.Task[Any]] = []
        listed = MachinesPage()
        is_in_time = until is not None and utc_now(self._context) < until and not status.is_over
        if until is not None and is_in_time and not status.is_stopped:
            listed = yield from self._list(status, until)
            if not self._is_called_off(until):
                shards = yield from self._start_shards(status, MaintenancePhase.PRE, until)
                yield from self._wait_for(shards, until)
        end = PrePhaseEnd(run_id=self._run_id, failure=listed.failure)
        result = yield from call(self._context, contracts.FINISH_PRE_PHASE, end)
        status = yield from self._load_status()
        # Without an attempt at it nothing has failed: the event came too late, or a person ended our phase.
        has_failed = bool(result.failed or listed.failure)
        if status.cancel_on_pre_failure and is_in_time and has_failed and not status.is_stopped:
            yield from self._cancel()
            status = yield from self._load_status()
        # They see for themselves that their time is over; a machine must not be started behind its stop.
        yield from self._wait_for(shards, None)
        return status

    def _cancel(self) -> Steps[None]:
        """Cancel the scheduled run; the activity gives up when the cut-off is near."""
        while True:
            result = yield from call(self._context, contracts.CANCEL_OCCURRENCE, self._ref)
            if result.canceled or result.wait_seconds <= 0:
                return
            yield self._context.create_timer(timedelta(seconds=result.wait_seconds))

    # --- the scheduled run itself

    def _await_end(self, status: MaintenanceRunStatus) -> Steps[MaintenanceRunStatus]:
        """Until its post event has come, or it must be over without one. The row decides; events only wake."""
        while not status.is_over and status.post_deadline is not None and utc_now(self._context) < status.post_deadline:
            until = min(status.post_deadline, utc_now(self._context) + MAX_TIMER)
            yield from call(
                self._context, contracts.EXTEND_HEARTBEAT, HeartbeatRequest(run_id=self._run_id, until=until)
            )
            timer = timer_until(self._context, until)
            yield task.when_any([timer, self._post, self._steer])
            timer.cancel()
            if self._post.is_complete:
                self._post = receive(self._context, Signal.POST_MAINTENANCE)
            if self._steer.is_complete:
                self._steer = receive(self._context, Signal.CONTROL)
            status = yield from self._load_status()
        return status

    # --- after

    def _copy_results(self, status: MaintenanceRunStatus) -> Steps[None]:
        """Copy what Resource Graph shows, until every machine has its result or patience is over.

        While Update Manager has not said how each ended, that is never before the window ends: a post event may come
        early, and a machine that Azure patches must not be stopped.
        """
        copies = 0
        while True:
            copied = yield from self._pages(contracts.IMPORT_RESULTS, MaintenancePageRequest(run_id=self._run_id))
            if copied.failure or not copied.awaited:
                break
            copies += 1
            is_open = status.ends_at is not None and utc_now(self._context) < status.ends_at
            if copies >= MAX_COPIES and not (copied.in_progress and is_open):
                break
            yield self._context.create_timer(timedelta(seconds=status.poll_seconds * min(copies, 4)))
            yield from self._list(status)
        yield from call(self._context, contracts.FINISH_RESULTS_IMPORT, self._ref)

    def _settle(self, status: MaintenanceRunStatus) -> Steps[None]:
        """Every machine to its end; those whose orchestration failed are begun again."""
        for _ in range(MAX_PASSES):
            shards = yield from self._start_shards(status, MaintenancePhase.POST, None)
            if not shards:
                return
            yield from self._wait_for(shards, None)

    def _close(self, status: MaintenanceRunStatus, machines: int) -> Steps[RunState]:
        lost = Outcome(
            outcome=OutcomeKind.UNKNOWN,
            reason=Reason.INTERNAL,
            message="Patchwave itself failed on this machine after the scheduled run; see whether it still runs.",
        )
        yield from call(
            self._context, contracts.CLOSE_OPEN_MACHINES, CloseOpenMachines(run_id=self._run_id, outcome=lost)
        )
        yield from call(self._context, contracts.SUMMARIZE_MAINTENANCE_RUN, self._ref)
        if status.is_canceled:
            state, reason = RunState.STOPPED, "The scheduled run was cancelled: the work before it failed."
        elif not machines:
            state, reason = RunState.EMPTY, "No machine of the scheduled run is in the policy's scope."
        else:
            state, reason = RunState.COMPLETED, ""
        yield from call(self._context, contracts.CLOSE_RUN, CloseRun(run_id=self._run_id, state=state, reason=reason))
        return state

    # --- machines

    def _list(self, status: MaintenanceRunStatus, until: datetime | None = None) -> Steps[MachinesPage]:
        """List the machines; with ``until`` as often as it takes to see the same number twice."""
        pause = timedelta(seconds=status.poll_seconds)
        found = MachinesPage(machines=-1)
        for _ in range(MAX_LISTINGS):
            before = found.machines
            request = MaintenancePageRequest(run_id=self._run_id)
            found = yield from self._pages(contracts.FIND_OCCURRENCE_MACHINES, request, until)
            is_stable = 0 < found.machines == before
            if until is None or is_stable or (found.failure and found.wait_seconds <= 0):
                break
            if utc_now(self._context) + pause >= until or self._is_called_off(until):
                break
            yield from self._sleep(pause, until)
        return found

    def _pages[Page: MachinesPage](
        self,
        activity: Activity[MaintenancePageRequest, Page],
        request: MaintenancePageRequest,
        until: datetime | None = None,
    ) -> Steps[Page]:
        """Page after page; the last one, or the one that could not be read. Throttling lasts until then, or a day."""
        counted = 0
        gives_up_at = until or utc_now(self._context) + MAX_READING
        while True:
            page = yield from call(self._context, activity, request)
            pause = timedelta(seconds=page.wait_seconds)
            if page.failure:
                counted += page.counts_as_attempt
                is_late = utc_now(self._context) + pause > gives_up_at
                if counted >= MAX_FAILURES or not pause or is_late:
                    return page
                if not request.attempt:
                    yield from self._show(page.failure)
                request = request.model_copy(update={"attempt": request.attempt + 1})
            else:
                if request.attempt:
                    yield from self._show("")
                if not page.cursor:
                    return page
                counted = 0
                request = request.model_copy(update={"cursor": page.cursor, "attempt": 0})
            if pause:
                yield from self._sleep(pause, until)
                if self._is_called_off(until):
                    return page

    def _sleep(self, pause: timedelta, until: datetime | None) -> Steps[None]:
        """Sleep for so long; before the run, which ``until`` is the end of, a cancel ends it."""
        timer = self._context.create_timer(pause)
        yield timer if until is None else task.when_any([timer, self._called_off])
        timer.cancel()

    def _is_called_off(self, until: datetime | None) -> bool:
        """Whether nothing more is to be prepared. What is done after the run is done all the same."""
        return until is not None and self._called_off.is_complete

    def _show(self, waiting_for: str) -> Steps[None]:
        request = SetRunState(run_id=self._run_id, state=RunState.RUNNING, waiting_for=waiting_for)
        yield from call(self._context, contracts.SET_RUN_STATE, request)

    def _start_shards(
        self, status: MaintenanceRunStatus, phase: MaintenancePhase, until: datetime | None
    ) -> Steps[list[task.Task[Any]]]:
        self._passes += 1
        request = MaintenancePhaseRef(run_id=self._run_id, phase=phase)
        shards = yield from call(self._context, contracts.LIST_SHARDS, request)
        return [
            start(
                self._context,
                contracts.MAINTAIN_SHARD,
                MaintainShard(
                    run_id=self._run_id,
                    phase=phase,
                    cursor=cursor,
                    attempt=self._passes,
                    until=until,
                    start_stopped=status.start_stopped,
                    hooks=status.hooks,
                    assess=phase is MaintenancePhase.POST and not status.is_canceled,
                ),
                instance_ids.shard(self._run_id, phase.value, self._passes, number),
            )
            for number, cursor in enumerate(shards.cursors)
        ]

    def _wait_for(self, shards: list[task.Task[Any]], until: datetime | None) -> Steps[None]:
        """Until all of them have ended, well or not, or until then."""
        while running := [shard for shard in shards if not shard.is_complete]:
            now = utc_now(self._context)
            if until is not None and now >= until:
                return
            tick = now + MAX_PAUSE
            timer = timer_until(self._context, tick if until is None else min(tick, until))
            yield task.when_any([*running, timer])
            timer.cancel()

    def _load_status(self) -> Steps[MaintenanceRunStatus]:
        return (yield from call(self._context, contracts.LOAD_MAINTENANCE_RUN, self._ref))
