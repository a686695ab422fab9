"""patch_run: discovers and assesses the machines of a policy, plans them, rolls the plan out, and closes the run."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta
from typing import Any

from durabletask import task

from orchestrators.reservations import Reservations
from orchestrators.rollout import ATTEMPTS_PER_GENERATION, Rollout
from orchestrators.run_control import EndOfRun, PhaseLost, RunControl
from orchestrators.runtime import Context, Steps, implements
from patchwave.domain.notifications.events import RunEnded, RunStarted
from patchwave.domain.runs.run import Mode, RunState, Step
from patchwave.domain.runs.watchdog import MAX_GENERATIONS
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.contracts import Activity
from patchwave.domain.workflow.phase import Phase
from patchwave.domain.workflow.run import (
    Checkpoint,
    CloseOpenMachines,
    CloseRun,
    MachinesPageRequest,
    RunInput,
    RunRef,
    RunResult,
    RunSettings,
)

_LOG = logging.getLogger("patchwave.orchestrators")

MAX_DISCOVERY_FAILURES = 6
"""Consecutive discovery pages that may fail before the run ends as unable to reach Azure; throttling does not count."""
MAX_DISCOVERY = timedelta(days=1)
"""How long the discovery of a run without a window waits while Azure throttles."""
MAX_CLOSINGS = 100
"""Attempts to close the run when that fails for good."""
BETWEEN_CLOSINGS = timedelta(hours=1)


@implements(contracts.PATCH_RUN)
def patch_run(context: Context, follow: RunInput) -> Steps[RunResult]:
    """Run a policy once, and close the run after any error; the run's row holds everything else.

    Raises:
        PhaseLost: the watchdog ends the remaining orchestrations, and resumes the run from its rows.
    """
    run = _Run(context, follow.run_id, follow.generation)
    try:
        end = yield from run.execute()
    except EndOfRun as ended:
        end = ended
    except PhaseLost:
        raise
    except Exception as error:
        # Any exception: an open run would keep its windows from later runs for ever.
        if not context.is_replaying:
            _LOG.error("Run %s failed.", follow.run_id, exc_info=error)
        end = _failed(f"Patchwave itself failed: {error}"[:2_000])
    return (yield from run.close(end))


@implements(contracts.CLOSE_ORPHANED_RUN)
def close_orphaned_run(context: Context, dead: RunRef) -> Steps[RunResult]:
    """Close a run whose orchestration ended without closing it: it was terminated, or its version is not supported."""
    end = _failed("The orchestration of the run was ended before it had closed the run.")
    return (yield from _Run(context, dead.run_id, MAX_GENERATIONS + 1).close(end))


def _failed(reason: str) -> EndOfRun:
    return EndOfRun(RunState.FAILED, reason)


class _Run:
    """The steps of one run. Every method that yields is part of the orchestrator and is replayed with it."""

    def __init__(self, context: Context, run_id: str, generation: int) -> None:
        self._run = RunControl(context, run_id)
        self._generation = generation
        self._reservations = Reservations(self._run, generation)

    def execute(self) -> Steps[EndOfRun]:
        """Everything up to the close; returns how the run ends.

        Raises:
            EndOfRun: it ends early.
        """
        run = self._run
        settings = yield from run.call(contracts.BEGIN_RUN, run.ref)
        if settings.is_final:
            return EndOfRun(RunState.COMPLETED)
        run.announces = settings.announces
        checkpoint = Checkpoint(is_planned=False)
        if self._generation > 1:
            checkpoint = yield from run.call(contracts.LOAD_CHECKPOINT, run.ref)
        if not checkpoint.is_planned:
            yield from self._discover()
            if settings.options.is_local:
                yield from self._await_first_window()
            run.announce(RunStarted())
            yield from self._assess(settings)
        if settings.options.mode is Mode.PATCH:
            plan = yield from run.call(contracts.PLAN_RUN, run.ref)
            yield from Rollout(run, self._reservations, settings, plan, self._generation).execute(checkpoint)
        return EndOfRun(RunState.COMPLETED)

    def close(self, end: EndOfRun) -> Steps[RunResult]:
        """Give every machine an outcome, then end the run."""
        open_machines = CloseOpenMachines(run_id=self._run.id, outcome=end.outcome)
        yield from self._insist(contracts.CLOSE_OPEN_MACHINES, open_machines)
        close = CloseRun(run_id=self._run.id, state=end.state, reason=end.reason)
        yield from self._insist(contracts.CLOSE_RUN, close)
        # Waiting runs also poll, so a failure here does not block them: reservations of an ended run do not count.
        with suppress(task.TaskFailedError):
            yield from self._reservations.release()
        self._run.announce(RunEnded())
        return RunResult(run_id=self._run.id, state=end.state)

    def _discover(self) -> Steps[None]:
        """Read all pages, until each machine of the scope has its row.

        Raises:
            EndOfRun: the run was cancelled, no machine matches, or the machines cannot be listed. Throttling counts as
                a failure only when it lasts until the window closes.
        """
        run = self._run
        cursor, attempt, counted = "", 0, 0
        deadline = run.now
        while True:
            request = MachinesPageRequest(run_id=run.id, cursor=cursor, attempt=attempt)
            page = yield from run.call(contracts.DISCOVER_MACHINES, request)
            run.end_if_canceled()
            pause = timedelta(seconds=page.wait_seconds)
            if page.failure:
                attempt, counted = attempt + 1, counted + page.counts_as_attempt
                if not pause or counted >= MAX_DISCOVERY_FAILURES:
                    raise _failed(page.failure)
                if attempt == 1:
                    cutoff = yield from run.cutoff(Step.PATCH)
                    deadline = cutoff or run.now + MAX_DISCOVERY
                    yield from run.show(RunState.RUNNING, f"the list of machines. {page.failure}")
                if run.now + pause > deadline:
                    raise _failed(f"{page.failure} Azure accepts no request before the run's time is over.")
                yield from run.wait_until(run.now + pause)
                continue
            if attempt:
                yield from run.show(RunState.RUNNING)
            cursor, attempt, counted = page.cursor, 0, 0
            if not cursor:
                break
            if pause:
                yield from run.pause(pause)
                run.end_if_canceled()
        if not page.machines:
            raise EndOfRun(RunState.EMPTY, f"No machine matches the scope: {page.selectors}")

    def _await_first_window(self) -> Steps[None]:
        """Sleep until the first window by the clocks of the machines opens, so that the assessments are recent.

        Raises:
            EndOfRun: the run was cancelled, or a gate ended it.
        """
        run = self._run
        window = yield from run.call(contracts.FIND_FIRST_OPENING, run.ref)
        if window.opens_at is None or run.now >= window.opens_at:
            return
        while run.now < window.opens_at:
            yield from run.wait_until(window.opens_at)
        yield from run.show(RunState.RUNNING)

    def _assess(self, settings: RunSettings) -> Steps[None]:
        """Assess all machines before the plan, which leaves out those without updates."""
        attempt = (self._generation - 1) * ATTEMPTS_PER_GENERATION + 1
        phase = Phase(
            run_id=self._run.id,
            name=instance_ids.phase_name(Step.ASSESS.value, str(self._generation) if self._generation > 1 else ""),
            step=Step.ASSESS,
            options=settings.options,
            max_concurrent=settings.assess_concurrency,
            first_attempt=attempt,
            last_attempt=attempt,
        )
        yield from self._run.run_phase(phase)

    def _insist[Request](self, activity: Activity[Request, Any], request: Request) -> Steps[None]:
        """Call until it succeeds, for days: no other caller closes the run."""
        for attempt in range(1, MAX_CLOSINGS + 1):
            try:
                yield from self._run.call(activity, request)
            except task.TaskFailedError:
                if attempt == MAX_CLOSINGS:
                    raise
                yield self._run.context.create_timer(BETWEEN_CLOSINGS)
            else:
                return
