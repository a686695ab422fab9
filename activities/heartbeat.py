"""Heartbeats of a run, and the checkpoint from which its next generation resumes."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta

from activities.context import load_run, now
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.runs.checkpoint import count_failures, newest_end, resting_lanes, step_in_progress, was_begun
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.run import Run, Step
from patchwave.domain.runs.watchdog import heartbeat_deadline
from patchwave.domain.workflow.run import Checkpoint, HeartbeatRequest, InProgressMachines, RunRef
from patchwave.storage import Storage
from patchwave.wiring import Services

_SIGN_EVERY = timedelta(minutes=1)
"""Heartbeats that change the deadline by less are not written: a phase ticks every few seconds."""
_MAX_TAKEN_UP = 500
"""Machines in one checkpoint, which travels in one message. The rest follows when these have ended."""
_PAGE = 250


async def record_heartbeat(storage: Storage, run: Run) -> None:
    """Extend the heartbeat deadline of a running run, at most once a minute."""
    until = heartbeat_deadline(now())
    if run.heartbeat_deadline is None or abs(until - run.heartbeat_deadline) >= _SIGN_EVERY:
        await storage.runs.extend_heartbeat(run.id, until)


async def extend_heartbeat(services: Services, request: HeartbeatRequest) -> None:
    """Extend the heartbeat deadline while the run sleeps; the watchdog ignores the run until then."""
    await services.storage.runs.extend_heartbeat(request.run_id, heartbeat_deadline(request.until))


async def load_checkpoint(services: Services, request: RunRef) -> Checkpoint:
    """What the previous generation left unfinished, read from the run's machines."""
    run_id = request.run_id
    storage = services.storage
    planned = await storage.plans.get_summary(run_id)
    if planned is None:
        return Checkpoint(is_planned=False)
    # Writes that follow a final row may be missing: only this completes them.
    await storage.finalizers.complete(run_id)
    run, policy = await load_run(storage, run_id)
    machines = [machine async for machine in storage.machines.scan(run_id) if machine.ring]
    rings = {ring.name: number for number, ring in enumerate(planned.rings)}
    begun = max((rings.get(machine.ring, 0) for machine in machines if was_begun(machine)), default=0)
    failures, forgiven = count_failures(machines, run.resumed_at)
    done_with = [f"wave:{ring.name}/" for ring in planned.rings[:begun]]
    ring = [machine for machine in machines if rings.get(machine.ring) == begun]
    return Checkpoint(
        is_planned=True,
        in_progress=await _in_progress(storage, run_id, machines, rings),
        ring=begun,
        ended=sum(machine.stage in (Stage.INSTALLED, Stage.RESTARTING, Stage.DONE) for machine in ring),
        ended_at=newest_end(ring),
        resume_count=run.resume_count,
        lane_bake_until=resting_lanes(ring, policy.bake.waves),
        windows=run.windows,
        failures={scope: count for scope, count in failures.items() if not scope.startswith(tuple(done_with))},
        forgiven={scope: count for scope, count in forgiven.items() if not scope.startswith(tuple(done_with))},
    )


async def _in_progress(
    storage: Storage, run_id: str, machines: list[MachineRecord], rings: dict[str, int]
) -> list[InProgressMachines]:
    """Machines in progress by step and phase, with the permits of the plan."""
    maybe_locked = [machine.key for machine in machines if machine.stage in (Stage.ASSESSED, Stage.INSTALLED)]
    locked = await storage.leases.held(maybe_locked, run_id, now())
    keys: dict[tuple[Step, int, int], set[str]] = defaultdict(set)
    for machine in machines:
        step = step_in_progress(machine, is_locked=machine.key in locked)
        if step is not None and sum(map(len, keys.values())) < _MAX_TAKEN_UP:
            keys[step, rings[machine.ring], machine.phase - 1].add(machine.key)
    return [
        InProgressMachines(
            step=step, ring_number=ring, phase_number=phase, machines=await _placed(storage, run_id, ring, phase, found)
        )
        for (step, ring, phase), found in sorted(keys.items())
    ]


async def _placed(storage: Storage, run_id: str, ring: int, phase: int, keys: set[str]) -> list[PlacedMachine]:
    found: list[PlacedMachine] = []
    cursor: str | None = None
    while True:
        page = await storage.plans.list_placements(run_id, ring, phase, _PAGE, cursor)
        found += [machine for machine in page.items if machine.key in keys]
        cursor = page.cursor
        if cursor is None:
            return found
