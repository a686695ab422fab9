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

from orchestrators.run_control import RunControl
from orchestrators.runtime import Context, Steps, implements, receive, start, timer_until
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.notifications.events import RunEnded, RunStarted
from patchwave.domain.runs.run import RunState
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.contracts import Activity, Signal
from patchwave.domain.workflow.maintenance_run import (
    MaintainShard,
    MaintenancePhase,
    MaintenancePhaseRef,
    MaintenanceRunStatus,
    PrePhaseEnd,
)
from patchwave.domain.workflow.run import (
    CloseOpenMachines,
    CloseRun,
    MachinesPage,
    MachinesPageRequest,
    RunInput,
    RunResult,
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
        self._run = RunControl(context, run_id)
        self._passes = (generation - 1) * PASSES_PER_GENERATION
        self._is_first = generation == 1
        self._post = receive(context, Signal.POST_MAINTENANCE)

    def execute(self) -> Steps[RunState]:
        """The whole run; returns its final state."""
        status = yield from self._load_status()
        if status.is_ended:
            return RunState.COMPLETED
        self._run.announces = status.announces
        if self._is_first:
            self._run.announce(RunStarted())
        if not status.is_prepared:
            status = yield from self._prepare(status)
        status = yield from self._await_end(status)
        found = yield from self._list(status)
        if not status.is_canceled and not status.has_results:
            yield from self._copy_results(status)
        yield from self._settle(status)
        state = yield from self._close(status, found.machines)
        self._run.announce(RunEnded())
        return state

    # --- pre phase

    def _prepare(self, status: MaintenanceRunStatus) -> Steps[MaintenanceRunStatus]:
        """Find the machines and run their pre phase, until it is done or its deadline has passed."""
        until = status.pre_deadline
        shards: list[task.Task[Any]] = []
        listed = MachinesPage()
        is_in_time = until is not None and self._run.now < until and not status.is_over
        if until is not None and is_in_time and not status.is_stopped:
            listed = yield from self._list(status, until)
            if not self._is_called_off(until):
                shards = yield from self._start_shards(status, MaintenancePhase.PRE, until)
                yield from self._wait_for(shards, until)
        end = PrePhaseEnd(run_id=self._run.id, failure=listed.failure)
        result = yield from self._run.call(contracts.FINISH_PRE_PHASE, end)
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
            result = yield from self._run.call(contracts.CANCEL_OCCURRENCE, self._run.ref)
            if result.canceled or result.wait_seconds <= 0:
                return
            yield self._run.context.create_timer(timedelta(seconds=result.wait_seconds))

    # --- the scheduled run itself

    def _await_end(self, status: MaintenanceRunStatus) -> Steps[MaintenanceRunStatus]:
        """Wait for the post event, or for the latest end without one. The row decides; events only wake."""
        while not status.is_over and status.post_deadline is not None and self._run.now < status.post_deadline:
            yield from self._run.rest(status.post_deadline, self._post)
            if self._post.is_complete:
                self._post = receive(self._run.context, Signal.POST_MAINTENANCE)
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
            copied = yield from self._pages(contracts.IMPORT_RESULTS)
            if copied.failure or not copied.awaited:
                break
            copies += 1
            is_open = status.ends_at is not None and self._run.now < status.ends_at
            if copies >= MAX_COPIES and not (copied.in_progress and is_open):
                break
            yield self._run.context.create_timer(timedelta(seconds=status.poll_seconds * min(copies, 4)))
            yield from self._list(status)
        yield from self._run.call(contracts.FINISH_RESULTS_IMPORT, self._run.ref)

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
        yield from self._run.call(contracts.CLOSE_OPEN_MACHINES, CloseOpenMachines(run_id=self._run.id, outcome=lost))
        yield from self._run.call(contracts.SUMMARIZE_MAINTENANCE_RUN, self._run.ref)
        if status.is_canceled:
            state, reason = RunState.STOPPED, "The scheduled run was cancelled: the work before it failed."
        elif not machines:
            state, reason = RunState.EMPTY, "No machine of the scheduled run is in the policy's scope."
        else:
            state, reason = RunState.COMPLETED, ""
        yield from self._run.call(contracts.CLOSE_RUN, CloseRun(run_id=self._run.id, state=state, reason=reason))
        return state

    # --- machines

    def _list(self, status: MaintenanceRunStatus, until: datetime | None = None) -> Steps[MachinesPage]:
        """List the machines; with ``until`` repeatedly, until two lists have the same length."""
        pause = timedelta(seconds=status.poll_seconds)
        found = MachinesPage(machines=-1)
        for _ in range(MAX_LISTINGS):
            before = found.machines
            found = yield from self._pages(contracts.FIND_OCCURRENCE_MACHINES, until)
            is_stable = 0 < found.machines == before
            if until is None or is_stable or (found.failure and found.wait_seconds <= 0):
                break
            if self._run.now + pause >= until or self._is_called_off(until):
                break
            yield from self._sleep(pause, until)
        return found

    def _pages[Page: MachinesPage](
        self, activity: Activity[MachinesPageRequest, Page], until: datetime | None = None
    ) -> Steps[Page]:
        """Read all pages; returns the last or the unreadable one. Waits out throttling until ``until``, or a day."""
        request, counted = MachinesPageRequest(run_id=self._run.id), 0
        deadline = until or self._run.now + MAX_READING
        while True:
            page = yield from self._run.call(activity, request)
            pause = timedelta(seconds=page.wait_seconds)
            if page.failure:
                counted += page.counts_as_attempt
                if counted >= MAX_FAILURES or not pause or self._run.now + pause > deadline:
                    return page
                if not request.attempt:
                    yield from self._run.show(RunState.RUNNING, page.failure)
                request = request.model_copy(update={"attempt": request.attempt + 1})
            else:
                if request.attempt:
                    yield from self._run.show(RunState.RUNNING)
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
        if until is None:
            yield self._run.context.create_timer(pause)
        else:
            yield from self._run.pause(pause)

    def _is_called_off(self, until: datetime | None) -> bool:
        """Whether the pre phase is cancelled. The post phase is never cancelled."""
        return until is not None and self._run.cancel.is_complete

    def _start_shards(
        self, status: MaintenanceRunStatus, phase: MaintenancePhase, until: datetime | None
    ) -> Steps[list[task.Task[Any]]]:
        self._passes += 1
        request = MaintenancePhaseRef(run_id=self._run.id, phase=phase)
        shards = yield from self._run.call(contracts.LIST_SHARDS, request)
        return [
            start(
                self._run.context,
                contracts.MAINTAIN_SHARD,
                MaintainShard(
                    run_id=self._run.id,
                    phase=phase,
                    cursor=cursor,
                    attempt=self._passes,
                    until=until,
                    start_stopped=status.start_stopped,
                    hooks=status.hooks,
                    assess=phase is MaintenancePhase.POST and not status.is_canceled,
                ),
                instance_ids.shard(self._run.id, phase.value, self._passes, number),
            )
            for number, cursor in enumerate(shards.cursors)
        ]

    def _wait_for(self, shards: list[task.Task[Any]], until: datetime | None) -> Steps[None]:
        """Until all of them have ended, successfully or not, or until ``until``."""
        while running := [shard for shard in shards if not shard.is_complete]:
            now = self._run.now
            if until is not None and now >= until:
                return
            tick = now + MAX_PAUSE
            timer = timer_until(self._run.context, tick if until is None else min(tick, until))
            yield task.when_any([*running, timer])
            timer.cancel()

    def _load_status(self) -> Steps[MaintenanceRunStatus]:
        return (yield from self._run.call(contracts.LOAD_MAINTENANCE_RUN, self._run.ref))
