"""Pages of a phase: its next machines, and its completions.

The order is that of `patchwave.domain.planning.planner`.
"""

from __future__ import annotations

from activities.context import load_run_record, now
from activities.heartbeat import record_heartbeat
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.runs.commands import controls
from patchwave.domain.runs.error_budget import counts_as_failure
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Step
from patchwave.domain.workflow.phase import (
    PendingMachines,
    PendingMachinesRequest,
    PhasePoll,
    PhasePollRequest,
    ReconciledMachines,
    ReconcileRequest,
)
from patchwave.storage import MachineProgress, Storage
from patchwave.wiring import Services

_ENDED = {
    Step.ASSESS: frozenset(Stage) - {Stage.WAITING, Stage.ASSESSING},
    # Machines that await a separate restart are patched already.
    Step.PATCH: frozenset({Stage.INSTALLED, Stage.RESTARTING, Stage.DONE}),
    Step.RESTART: frozenset({Stage.DONE}),
}
"""Stages that count as ended, by step."""
_GONE = MachineProgress(Stage.DONE)
"""A machine without a row: no run works on it."""


async def poll_phase(services: Services, request: PhasePollRequest) -> PhasePoll:
    """Completions since the last poll, and the current controls."""
    storage = services.storage
    run = await load_run_record(storage, request.run_id)
    await record_heartbeat(storage, run)
    ended, since = await storage.completions.since(request.run_id, request.phase, request.since)
    wait = services.settings.poll_seconds
    return PhasePoll(controls=controls(run), ended=ended, since=since, wait_seconds=wait)


async def list_pending_machines(services: Services, request: PendingMachinesRequest) -> PendingMachines:
    """The next machines of a step.

    The assess step takes all machines, by key; the others follow the plan. Machines that have ended meanwhile are left
    out. The restart step takes only patched ones. A page may therefore be short or empty without being the last.
    """
    storage = services.storage
    if request.step is Step.ASSESS:
        return await _unassessed(storage, request)
    page = await storage.plans.list_placements(
        request.run_id, request.ring_number, request.phase_number, request.limit, request.cursor
    )
    standings = await storage.machines.get_progress(request.run_id, [machine.key for machine in page.items])
    machines = [
        machine.model_copy(update={"attempt": request.first_attempt})
        for machine in page.items
        if _is_due(request.step, standings.get(machine.key, _GONE).stage)
    ]
    return PendingMachines(machines=machines, cursor=page.cursor)


async def reconcile_machines(services: Services, request: ReconcileRequest) -> ReconciledMachines:
    """Which machines still work in a step, and which of the others failed.

    A machine in progress has a lease, except for moments at its start: without one, its orchestration has died.
    """
    storage = services.storage
    standings = await storage.machines.get_progress(request.run_id, request.keys)
    ended = {key: standings.get(key, _GONE) for key in request.keys if _has_ended(request.step, standings.get(key))}
    keys = [key for key in request.keys if key not in ended]
    locked = await storage.leases.held(keys, request.run_id, now())
    return ReconciledMachines(
        keys=keys,
        failed=[
            key for key, end in ended.items() if end.outcome is not None and counts_as_failure(end.outcome, end.reason)
        ],
        unlocked=[key for key in keys if key not in locked],
    )


async def _unassessed(storage: Storage, request: PendingMachinesRequest) -> PendingMachines:
    page = await storage.machines.list_stages(request.run_id, limit=request.limit, cursor=request.cursor)
    machines = [
        PlacedMachine(key=key, attempt=request.first_attempt)
        for key, stage in page.items
        if _is_due(Step.ASSESS, stage)
    ]
    return PendingMachines(machines=machines, cursor=page.cursor)


def _is_due(step: Step, stage: Stage) -> bool:
    return stage is Stage.INSTALLED if step is Step.RESTART else stage not in _ENDED[step]


def _has_ended(step: Step, standing: MachineProgress | None) -> bool:
    return standing is None or standing.stage in _ENDED[step]
