"""Patch mode changes: select the next wave, and take one step of one machine."""

from __future__ import annotations

import logging
from datetime import timedelta

from activities.context import now, wait_seconds
from patchwave.domain.azure.errors import NO_ANSWER, ArmFailure, is_throttling
from patchwave.domain.core.ids import MachineId
from patchwave.domain.fleet.patch_mode_change import (
    ChangeEnd,
    ChangeProgress,
    ChangeRef,
    ChangeState,
    ChangeStep,
    MachineChange,
    MachineChangeRef,
    ModeChange,
    NextChanges,
    after_failure,
    decide,
    why_to_end,
)
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.commands import PATCHWAVE
from patchwave.storage import RecordMissing, Storage, StorageError
from patchwave.wiring import Services

_LOG = logging.getLogger("patchwave.mode_changes")
_SETTLES_IN_POLLS = 4
"""Poll intervals for which Azure may show the old settings after it accepted new ones."""
_STOPPED = ChangeStep(ChangeEnd.CANCELED, "The change was stopped before it was this machine's turn.")
_MAX_SWEEP = 1_000
"""Machines ended at a time when a change is stopped."""


async def next_patch_mode_wave(services: Services, request: ChangeRef) -> NextChanges:
    """The machines of the next wave; the change is closed when there are none."""
    change_id = request.change_id
    change = await _load(services.storage, change_id)
    if change.state.is_final:
        return NextChanges()
    storage = services.storage
    keys, ends = await storage.patch_mode_changes.list_pending(change_id, change.max_concurrent)
    why = why_to_end(change, ends.get(ChangeEnd.FAILED, 0)) if keys else None
    if keys and why is None:
        return NextChanges(machine_keys=keys)
    while keys:
        keys, ends = await storage.patch_mode_changes.list_pending(change_id, _MAX_SWEEP)
        for key in keys:
            await _end(storage, change_id, key, ChangeEnd.CANCELED, why or "")
    state = ChangeState.COMPLETED if why is None else ChangeState.STOPPED
    at = now()
    closed = {"state": state, "ended_at": at, "counts_by_end": ends, "message": why or ""}
    await storage.patch_mode_changes.close(change_id, lambda found: found.model_copy(update=closed))
    detail = {"state": state, "ends": ends}
    await storage.audit.add(change_id, "mode_change_ended", actor=PATCHWAVE, at=at, detail=detail)
    return NextChanges()


async def step_patch_mode_change(services: Services, request: MachineChangeRef) -> ChangeProgress:
    """One step of one machine: read it, and send the change when it is due.

    Called until the machine has ended.
    """
    change = await _load(services.storage, request.change_id)
    try:
        return await _change(services, change, request)
    except StorageError:
        raise
    except Exception as error:
        # A retry would fail the same way, and end the change of all other machines.
        _LOG.exception("The machine %s of the change %s could not be worked on", request.machine_key, change.id)
        why = f"Patchwave failed on this machine ({type(error).__name__}), and its log has the reason:"
        why = f"{why} look at its patch settings."
        await _end(services.storage, change.id, request.machine_key, ChangeEnd.FAILED, why)
        return ChangeProgress(has_ended=True)


async def _change(services: Services, change: ModeChange, request: MachineChangeRef) -> ChangeProgress:
    storage = services.storage
    machine = await storage.patch_mode_changes.get_machine(request.change_id, request.machine_key)
    if machine is None:
        raise RecordMissing(f"change {request.change_id} has no machine {request.machine_key}")
    if machine.end is not None:
        return ChangeProgress(has_ended=True)
    if machine.begun_at is None:
        machine = machine.model_copy(update={"begun_at": now()})
        await storage.patch_mode_changes.update_machine(change.id, machine.key, begun_at=machine.begun_at)
    decision, wait = await _step(services, change, machine)
    if decision.end is None:
        return ChangeProgress(has_ended=False, wait_seconds=wait)
    await _end(storage, change.id, machine.key, decision.end, decision.message)
    return ChangeProgress(has_ended=True)


async def _step(services: Services, change: ModeChange, machine: MachineChange) -> tuple[ChangeStep, float]:
    """The machine's new state, and how long to wait if it has not ended."""
    settings, changes = services.settings, services.storage.patch_mode_changes
    identity = MachineId.parse(machine.id)
    state = await services.patch_settings.read(identity)
    if isinstance(state, ArmFailure):
        if is_throttling(state) and change.is_stopping and machine.asked_at is None:
            return _STOPPED, 0
        return await _refused(services, change, machine, state)
    settles_in = timedelta(seconds=settings.poll_seconds * _SETTLES_IN_POLLS)
    decision = decide(machine, change.wanted, state, now(), settles_in)
    if not decision.ask:
        return decision, wait_seconds(settings)
    if change.is_stopping:
        return _STOPPED, 0
    # Written before the request is sent: after a crash the row shows that the change may have been sent.
    await changes.update_machine(change.id, machine.key, asked_at=now())
    system = OsType.read(machine.os_type) or OsType.LINUX
    submission = await services.patch_settings.change(identity, system, change.wanted)
    if submission.accepted:
        await changes.update_machine(change.id, machine.key, is_accepted=True)
        return ChangeStep(), wait_seconds(settings)
    if not submission.is_open:
        await changes.update_machine(change.id, machine.key, refused_at=now())
    return await _refused(services, change, machine, submission.failure or NO_ANSWER, is_open=submission.is_open)


async def _refused(
    services: Services, change: ModeChange, machine: MachineChange, failure: ArmFailure, *, is_open: bool = False
) -> tuple[ChangeStep, float]:
    wait = wait_seconds(services.settings, failure.retry_after)
    decision = after_failure(machine, failure, now(), is_open=is_open)
    if decision.end is None and is_throttling(failure):
        throttled = round(machine.throttled_seconds + wait, 3)
        await services.storage.patch_mode_changes.update_machine(change.id, machine.key, throttled_seconds=throttled)
    return decision, wait


async def _end(storage: Storage, change_id: str, machine_key: str, end: ChangeEnd, message: str) -> None:
    await storage.patch_mode_changes.update_machine(change_id, machine_key, end=end, message=message, ended_at=now())


async def _load(storage: Storage, change_id: str) -> ModeChange:
    change = await storage.patch_mode_changes.get(change_id)
    if change is None:
        raise RecordMissing(f"no change {change_id}")
    return change
