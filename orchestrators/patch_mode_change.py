"""A change of patch modes, wave by wave; machines of a wave in parallel."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from durabletask import task

from orchestrators.runtime import Context, Steps, call, continue_as_new, implements, start
from patchwave.domain.fleet.patch_mode_change import ChangeRef, MachineChangeRef
from patchwave.domain.workflow import contracts, instance_ids

MAX_POLLS = 100
"""Polls of a machine in one wave; the next wave continues with one that has not ended then."""
MAX_LOST_WAVES = 3
"""Failed waves after which the change needs a person, who can start it again."""


@implements(contracts.CHANGE_PATCH_MODES)
def change_patch_modes(context: Context, change: ChangeRef) -> Steps[None]:
    """Carry out a change. One execution is one wave, so that the history does not grow with the fleet."""
    keys = (yield from call(context, contracts.NEXT_PATCH_MODE_WAVE, change)).machine_keys
    if not keys:
        return
    wave: list[task.Task[Any]] = [
        start(
            context,
            contracts.CHANGE_MACHINE_PATCH_MODE,
            MachineChangeRef(change_id=change.change_id, machine_key=key),
            instance_ids.machine_change(change.change_id, change.wave, key),
        )
        for key in keys
    ]
    lost = change.lost_waves
    try:
        yield task.when_all(wave)
    except task.TaskFailedError:
        # Storage or the worker failed. The next wave repeats machines that have not ended: each step is safe to repeat.
        lost += 1
        if lost == MAX_LOST_WAVES:
            raise
    following = {"wave": change.wave + 1, "lost_waves": lost}
    continue_as_new(context, contracts.CHANGE_PATCH_MODES, change.model_copy(update=following), keep_signals=True)


@implements(contracts.CHANGE_MACHINE_PATCH_MODE)
def change_machine_patch_mode(context: Context, machine: MachineChangeRef) -> Steps[None]:
    """Change one machine, and poll it until it has ended."""
    for _ in range(MAX_POLLS):
        progress = yield from call(context, contracts.STEP_PATCH_MODE_CHANGE, machine)
        if progress.has_ended:
            return
        yield context.create_timer(timedelta(seconds=progress.wait_seconds))
