"""The run as a whole: open it, show its state, take its commands and gates, close it."""

from __future__ import annotations

from collections.abc import Mapping

from activities.context import load_run, load_run_record, now, record_outcomes, seconds_of
from activities.heartbeat import record_heartbeat
from patchwave.domain.policy.rollout import RebootMode
from patchwave.domain.runs.commands import PATCHWAVE, controls
from patchwave.domain.runs.error_budget import ErrorBudgetExceeded
from patchwave.domain.runs.outcome_rules import left_over
from patchwave.domain.runs.run import Mode, Run, RunControls, RunState
from patchwave.domain.workflow.run import (
    ClosedMachines,
    CloseOpenMachines,
    CloseRun,
    MachineOptions,
    RunRef,
    RunSettings,
    RunStateShown,
    SetRunState,
    StopRun,
)
from patchwave.storage import RecordMissing, Storage
from patchwave.wiring import Services

_CLOSE_PAGE = 500


async def begin_run(services: Services, request: RunRef) -> RunSettings:
    """Mark the run as running."""
    run_id = request.run_id
    storage = services.storage
    try:
        await storage.runs.start(run_id, now())
        run, policy = await load_run(storage, run_id)
        await record_heartbeat(storage, run)
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
            is_local=run.local_window is not None,
        ),
        assess_concurrency=services.settings.assess_concurrency,
        error_budget=policy.error_budget,
        ramp=policy.ramp,
        wave_bake_seconds=seconds_of(services.settings, bake) if bake is not None else None,
        pin_rings=policy.pin_rings,
        announces=policy.notifications.is_wanted,
        is_final=run.state.is_final,
    )


async def get_run_controls(services: Services, request: RunRef) -> RunControls:
    """The current commands of users and gates."""
    return controls(await load_run_record(services.storage, request.run_id))


async def set_run_state(services: Services, request: SetRunState) -> RunStateShown:
    """Show the run's state."""
    storage = services.storage
    if request.state is RunState.AWAITING_APPROVAL:
        run = await storage.runs.ask_approval(request.run_id, request.waiting_for, now())
        return RunStateShown(since=run.approvals_asked.get(request.waiting_for))
    await storage.runs.set_state(request.run_id, request.state, request.waiting_for)
    return RunStateShown()


async def trip_error_budget(services: Services, gate: ErrorBudgetExceeded) -> RunControls:
    """An error budget is exceeded: block its scope, or end the run."""
    run = await services.storage.runs.trip_error_budget(gate, now())
    detail = {"scope": gate.scope, "failures": gate.failures, "limit": gate.limit, "endsRun": gate.ends_run}
    await _note(services.storage, run, "gate_closed", "stop" if gate.ends_run else "hold", detail)
    return controls(run)


async def stop_run(services: Services, request: StopRun) -> RunControls:
    """A gate ends the run: nothing more starts. The controls show whether it did."""
    storage = services.storage
    run = await storage.runs.stop(request.run_id, request.reason, now(), unless_approved=request.unless_approved)
    if run.stop_reason:
        await _note(storage, run, "run_stopped", "stop", {"reason": run.stop_reason})
    return controls(run)


async def _note(storage: Storage, run: Run, action: str, name: str, detail: Mapping[str, object]) -> None:
    """Audit a gate's action with its own time, so that a retry writes the same line."""
    command = run.last_commands.get(name)
    if command is not None:
        await storage.audit.add(run.id, action, actor=PATCHWAVE, at=command.at, detail=detail)


async def close_open_machines(services: Services, request: CloseOpenMachines) -> ClosedMachines:
    """Give every machine without an outcome its own."""
    storage = services.storage
    closed, cursor = 0, None
    while True:
        page = await storage.machines.list_stages(request.run_id, limit=_CLOSE_PAGE, cursor=cursor)
        outcomes = [(key, left_over(stage, request.outcome)) for key, stage in page.items]
        closed += await record_outcomes(storage, request.run_id, outcomes)
        cursor = page.cursor
        if cursor is None:
            break
    # A worker may have died between a machine's final row and the writes that follow it.
    await storage.finalizers.complete(request.run_id)
    return ClosedMachines(closed=closed)


async def close_run(services: Services, request: CloseRun) -> dict[str, int]:
    """End the run; returns its counts by outcome."""
    storage, state = services.storage, request.state
    try:
        if state is RunState.COMPLETED and await storage.runs.is_canceled(request.run_id):
            # The cancel event is only a hint; the row decides.
            state = RunState.CANCELED
        run = await storage.runs.close(request.run_id, state, request.reason, now())
    except RecordMissing:
        return {}
    await storage.runs.settle(run)
    return dict(run.counts_by_outcome)
