"""run_maintenance: pre and post maintenance of one scheduled run of Update Manager.

Find its machines, run the pre phase before the deadline, cancel the scheduled run if the policy wants that. Wait for
the post event, or for the latest end; import the results, run the post phase, close. The run's row holds the status,
from which another generation continues. When storage fails, the orchestration fails without closing the run, and the
watchdog starts that generation.
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
    MaintenancePhase,
    MaintenancePhaseRef,
    MaintenanceRunStatus,
    PrePhaseEnd,
)
from patchwave.domain.workflow.run import (
    CloseOpenMachines,
    CloseRun,
    HeartbeatRequest,
    MachinesPageRequest,
    RunInput,
    RunRef,
    RunResult,
    SetRunState,
)

MAX_LISTINGS = 40
"""How often the machines are listed before the run: Resource Graph shows them minutes late and bit by bit."""
MAX_COPIES = 20
"""How often missing results are imported, two poll intervals apart."""
MAX_FAILURES = 6
"""Consecutive failed pages before the rest is done without them; throttling does not count."""
MAX_READING = timedelta(days=1)
"""How long one list is retried while Azure throttles, where no deadline comes first."""
MAX_PASSES = 4
"""Passes over machines whose orchestration failed: a machine that was started must be stopped again."""
PASSES_PER_GENERATION = 10
MAX_PAUSE = timedelta(minutes=10)
"""Between two heartbeats that the watchdog expects."""


@implements(contracts.RUN_MAINTENANCE)
def run_maintenance(context: Context, follow: RunInput) -> Steps[RunResult]:
    """Carry out one maintenance run; its row holds everything else.

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
        self._control = receive(context, Signal.CONTROL)
        self._called_off = receive(context, Signal.CANCEL)

    def execute(self) -> Steps[RunState]:
        """The whole run; returns its final state."""
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

    # --- pre phase

    def _prepare(self, status: MaintenanceRunStatus) -> Steps[MaintenanceRunStatus]:
        """Find the machines and run their pre phase, until it is done or its deadline has passed."""
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
        # Without an attempt nothing has failed: the event came too late, or a user ended the pre phase.
        has_failed = bool(result.failed or listed.failure)
        if status.cancel_on_pre_failure and is_in_time and has_failed and not status.is_stopped:
            yield from self._cancel()
            status = yield from self._load_status()
        # They check the deadline themselves; a machine must not be started after it was stopped.
        yield from self._wait_for(shards, None)
        return status

    def _cancel(self) -> Steps[None]:
        """Cancel the scheduled run; the activity stops trying near the cut-off."""
        while True:
            result = yield from call(self._context, contracts.CANCEL_OCCURRENCE, self._ref)
            if result.canceled or result.wait_seconds <= 0:
                return
            yield self._context.create_timer(timedelta(seconds=result.wait_seconds))

    # --- the scheduled run itself

    def _await_end(self, status: MaintenanceRunStatus) -> Steps[MaintenanceRunStatus]:
        """Wait for the post event, or for the latest end without one. The row decides; events only wake."""
        while not status.is_over and status.post_deadline is not None and utc_now(self._context) < status.post_deadline:
            until = min(status.post_deadline, utc_now(self._context) + MAX_TIMER)
            yield from call(
                self._context, contracts.EXTEND_HEARTBEAT, HeartbeatRequest(run_id=self._run_id, until=until)
            )
            timer = timer_until(self._context, until)
            yield task.when_any([timer, self._post, self._control])
            timer.cancel()
            if self._post.is_complete:
                self._post = receive(self._context, Signal.POST_MAINTENANCE)
            if self._control.is_complete:
                self._control = receive(self._context, Signal.CONTROL)
            status = yield from self._load_status()
        return status

    # --- post phase

    def _copy_results(self, status: MaintenanceRunStatus) -> Steps[None]:
        """Import results from Resource Graph, until every machine has one or the attempts are used up.

        While results are missing, that is never before the window ends: a post event may come early, and a machine that
        Azure patches must not be stopped.
        """
        copies = 0
        while True:
            copied = yield from self._pages(contracts.IMPORT_RESULTS, MachinesPageRequest(run_id=self._run_id))
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
        """Run the post phase on every machine; those whose orchestration failed are repeated."""
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
        """List the machines; with ``until`` repeatedly, until two lists have the same length."""
        pause = timedelta(seconds=status.poll_seconds)
        found = MachinesPage(machines=-1)
        for _ in range(MAX_LISTINGS):
            before = found.machines
            request = MachinesPageRequest(run_id=self._run_id)
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
        activity: Activity[MachinesPageRequest, Page],
        request: MachinesPageRequest,
        until: datetime | None = None,
    ) -> Steps[Page]:
        """Read all pages; returns the last or the unreadable one. Waits out throttling until ``until``, or a day."""
        counted = 0
        deadline = until or utc_now(self._context) + MAX_READING
        while True:
            page = yield from call(self._context, activity, request)
            pause = timedelta(seconds=page.wait_seconds)
            if page.failure:
                counted += page.counts_as_attempt
                is_late = utc_now(self._context) + pause > deadline
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
        """Sleep; in the pre phase, which ends at ``until``, a cancel ends the sleep."""
        timer = self._context.create_timer(pause)
        yield timer if until is None else task.when_any([timer, self._called_off])
        timer.cancel()

    def _is_called_off(self, until: datetime | None) -> bool:
        """Whether the pre phase is cancelled. The post phase is never cancelled."""
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
        """Until all of them have ended, successfully or not, or until ``until``."""
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
