"""The run as a whole: open and close it."""

from __future__ import annotations

from activities.context import load_run, now, seconds_of
from activities.heartbeat import record_heartbeat
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.policy.rollout import RebootMode
from patchwave.domain.runs.outcome_rules import left_over
from patchwave.domain.runs.run import Mode, RunState
from patchwave.domain.workflow.machine import MachineOptions
from patchwave.domain.workflow.run import ClosedMachines, CloseOpenMachines, CloseRun, RunRef, RunSettings
from patchwave.settings import load_settings
from patchwave.storage import RecordMissing, open_storage

_CLOSE_PAGE = 500


async def begin_run(request: RunRef) -> RunSettings:
    """Mark the run as running."""
    run_id = request.run_id
    storage = open_storage()
    try:
        await storage.runs.start(run_id, now())
        run, policy = await load_run(run_id)
        await record_heartbeat(run)
    except RecordMissing:
        # Without a row nothing can be recorded: the caller that started the run did not create it.
        return RunSettings(options=MachineOptions(mode=Mode.ASSESS), is_final=True)
    bake = policy.bake.waves
    return RunSettings(
        options=MachineOptions(
            mode=run.mode,
            start_stopped=policy.start_stopped,
            hooks=policy.hooks.is_wanted,
            health=policy.health.is_wanted,
            reboot_apart=policy.reboot_mode is RebootMode.SEPARATE,
            continues=policy.continues,
        ),
        assess_concurrency=load_settings().assess_concurrency,
        error_budget=policy.error_budget,
        ramp=policy.ramp,
        wave_bake_seconds=seconds_of(bake) if bake is not None else None,
        pin_rings=policy.pin_rings,
        announces=policy.notifications.is_wanted,
        is_final=run.state.is_final,
    )


async def close_open_machines(request: CloseOpenMachines) -> ClosedMachines:
    """Give every machine without an outcome its own."""
    storage = open_storage()
    at = now()
    closed, cursor = 0, None
    while True:
        page = await storage.machines.list_stages(request.run_id, limit=_CLOSE_PAGE, cursor=cursor)
        by_outcome: dict[Outcome, list[str]] = {}
        for key, stage in page.items:
            by_outcome.setdefault(left_over(stage, request.outcome), []).append(key)
        for outcome, keys in by_outcome.items():
            closed += await storage.results.record_outcomes(request.run_id, keys, outcome, at)
        cursor = page.cursor
        if cursor is None:
            break
    # A worker may have died between a machine's final row and the writes that follow it.
    await storage.finalizers.complete(request.run_id)
    return ClosedMachines(closed=closed)


async def close_run(request: CloseRun) -> dict[str, int]:
    """End the run; returns its counts by outcome."""
    storage = open_storage()
    at = now()
    state = request.state
    try:
        if state is RunState.COMPLETED and await storage.runs.is_canceled(request.run_id):
            # The cancel event is only a hint; the row decides.
            state = RunState.CANCELED
        run = await storage.runs.close(request.run_id, state, request.reason, at)
    except RecordMissing:
        return {}
    await storage.runs.settle(run)
    return dict(run.counts_by_outcome)
