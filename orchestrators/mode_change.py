"""A change of patch modes: wave by wave, the machines of a wave side by side, until none is left or it is stopped."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durabletask import task

from orchestrators import names
from orchestrators.retries import RETRY_RESULT
from patchwave.domain.fleet.patch_mode_change import ChangeProgress, ChangeRef, MachineChangeRef, NextChanges

MOST_LOOKS = 100
"""How often a machine is looked at in one wave; the next wave goes on with one that has not ended then."""
MOST_LOST_WAVES = 3
"""After that many the change needs a person: starting it again goes on."""


def change_modes(
    context: task.OrchestrationContext, data: dict[str, Any]
) -> Generator[task.Task[Any], Any, dict[str, Any] | None]:
    """Carry out a change. Input ``ChangeRef``; one generation is one wave, so that no history grows with the fleet."""
    change = ChangeRef.from_wire(data)
    answer = yield context.call_activity(names.NEXT_MODE_CHANGES, input=change.to_wire(), retry_policy=RETRY_RESULT)
    keys = NextChanges.from_wire(answer).machine_keys
    if not keys:
        return None
    wave: list[task.Task[Any]] = [
        context.call_sub_orchestrator(
            names.CHANGE_MODE_OF_MACHINE,
            input=MachineChangeRef(change_id=change.change_id, machine_key=key).to_wire(),
            instance_id=names.machine_change_instance(change.change_id, change.wave, key),
            version=context.version,
        )
        for key in keys
    ]
    lost = change.lost_waves
    try:
        yield task.when_all(wave)
    except task.TaskFailedError:
        # Storage or the worker failed for long. What has no end is taken again: each step finds what was done.
        lost += 1
        if lost == MOST_LOST_WAVES:
            raise
    following = {"wave": change.wave + 1, "lost_waves": lost}
    context.continue_as_new(change.model_copy(update=following).to_wire(), save_events=True)
    return None


def change_mode_of_machine(context: task.OrchestrationContext, data: dict[str, Any]) -> Generator[task.Task[Any], Any]:
    """Change one machine, and follow it until it has its end. Input ``MachineChangeRef``."""
    for _ in range(MOST_LOOKS):
        answer = yield context.call_activity(names.CHANGE_MODE, input=data, retry_policy=RETRY_RESULT)
        progress = ChangeProgress.from_wire(answer)
        if progress.has_ended:
            return
        yield context.create_timer(timedelta(seconds=progress.wait_seconds))
