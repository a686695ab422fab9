"""Reads and writes of the run's row for orchestrators: commands of users, and gates."""

from __future__ import annotations

from collections.abc import Mapping

from activities.context import now
from patchwave.domain.runs.commands import PATCHWAVE, controls
from patchwave.domain.runs.error_budget import ErrorBudgetExceeded
from patchwave.domain.runs.run import Run, RunControls, RunState
from patchwave.domain.workflow.run import RunRef, RunStateShown, SetRunState, StopRun
from patchwave.storage import RecordMissing, open_storage


async def get_run_controls(request: RunRef) -> RunControls:
    """The current commands of users and gates."""
    run = await open_storage().runs.get(request.run_id)
    if run is None:
        raise RecordMissing(f"run {request.run_id} has no row")
    return controls(run)


async def set_run_state(request: SetRunState) -> RunStateShown:
    """Show the run's state."""
    storage = open_storage()
    if request.state is RunState.AWAITING_APPROVAL:
        run = await storage.runs.ask_approval(request.run_id, request.waiting_for, now())
        return RunStateShown(since=run.approvals_asked.get(request.waiting_for))
    await storage.runs.set_state(request.run_id, request.state, request.waiting_for)
    return RunStateShown()


async def trip_error_budget(gate: ErrorBudgetExceeded) -> RunControls:
    """An error budget is exceeded: block its scope, or end the run."""
    run = await open_storage().runs.trip_error_budget(gate, now())
    detail = {"scope": gate.scope, "failures": gate.failures, "limit": gate.limit, "endsRun": gate.ends_run}
    await _note(run, "gate_closed", "stop" if gate.ends_run else "hold", detail)
    return controls(run)


async def stop_run(request: StopRun) -> RunControls:
    """A gate ends the run: nothing more starts. The controls show whether it did."""
    storage = open_storage()
    run = await storage.runs.stop(request.run_id, request.reason, now(), unless_approved=request.unless_approved)
    if run.stop_reason:
        await _note(run, "run_stopped", "stop", {"reason": run.stop_reason})
    return controls(run)


async def _note(run: Run, action: str, name: str, detail: Mapping[str, object]) -> None:
    """Audit a gate's action with its own time, so that a retry writes the same line."""
    command = run.last_commands.get(name)
    if command is not None:
        await open_storage().audit.add(run.id, action, actor=PATCHWAVE, at=command.at, detail=detail)
