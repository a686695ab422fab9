"""take_snapshot: the policy's snapshot of a machine before its installation.

Called until it is done; each call does the next step and returns how long to wait. The snapshot is taken once, because
its name follows from run and machine.
"""

from __future__ import annotations

from typing import Any

from activities.context import MachineContext, load_machine, now, wait_seconds
from activities.hooks import DONE, reason_not_to_begin, refused_call, too_late
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.machine.hooks import HookResult, HookState
from patchwave.domain.machine.snapshot import rollback_advice, snapshot_body, snapshot_of, snapshot_tags
from patchwave.domain.policy.hooks import SnapshotHook
from patchwave.domain.runs.commands import terminal_outcome
from patchwave.domain.workflow.machine import MachineRef
from patchwave.wiring import Services


async def take_snapshot(services: Services, request: MachineRef) -> HookResult:
    """Take the policy's snapshot, and store how to roll back to it."""
    context = await load_machine(services, request.run_id, request.machine_key)
    hook = context.policy.hooks.snapshot
    if hook is None or context.machine.rollback_instructions:
        return DONE
    result = await _take_snapshot(context, hook)
    # No wait here: when the window leaves no time for the installation, the hook is not needed.
    late = too_late(context) if result.state is HookState.WAIT else None
    return late or result


async def _take_snapshot(context: MachineContext, hook: SnapshotHook) -> HookResult:
    over = terminal_outcome(context.run, context.machine)
    if over is not None:
        return HookResult.stopped(over)
    disks = context.services.snapshots
    disk = await disks.read_os_disk(context.machine_id)
    if isinstance(disk, ArmFailure):
        return refused_call(context.settings, "The OS disk could not be read", disk)
    if disk is None:
        return HookResult.failed("No snapshot can be taken of the OS disk: it is ephemeral, or not a managed disk.")
    snapshot = snapshot_of(context.run.id, context.machine_id, hook.resource_group)
    view = await disks.read_snapshot(snapshot)
    if isinstance(view, ArmFailure):
        if view.status != 404:
            return refused_call(context.settings, "The snapshot could not be looked for", view)
        refusal = await reason_not_to_begin(context)
        if refusal is not None:
            return refusal
        tags = snapshot_tags(context.run.id, context.machine.key, now() + hook.keep)
        body = snapshot_body(disk, tags, incremental=hook.incremental)
        submission = await disks.take_snapshot(snapshot, body)
        if submission.accepted or submission.is_uncertain:
            not_there = f"The snapshot {snapshot.name} did not appear."
            return HookResult.wait(wait_seconds(context.settings), not_there, counts_as_attempt=submission.is_uncertain)
        return refused_call(context.settings, "No snapshot could be taken", submission.failure)
    if not view.belongs_to(context.run.id, context.machine.key):
        return HookResult.failed(f"There is a snapshot {snapshot.name} that this run did not take: delete it.")
    if view.has_failed:
        return HookResult.failed(f"The snapshot {snapshot.name} is in the state {view.state}: delete it.")
    if not view.is_ready:
        not_ready = f"The snapshot {snapshot.name} did not get ready."
        return HookResult.wait(wait_seconds(context.settings), not_ready, counts_as_attempt=False)
    advice = rollback_advice(context.machine_id, disk, snapshot, view.expires())
    kept: dict[str, Any] = {"snapshot_id": snapshot.text, "rollback_instructions": advice}
    await context.storage.machines.update(context.run.id, context.machine.key, context.machine.stage, **kept)
    return DONE
