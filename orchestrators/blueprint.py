"""Registers the orchestrators with the Functions host; the workflow itself is in the other modules."""

from __future__ import annotations

import azure.durable_functions as df

from orchestrators.accompany import accompany_run
from orchestrators.attend import attend_machine, attend_shard
from orchestrators.machine import patch_machine
from orchestrators.mode_change import change_mode_of_machine, change_modes
from orchestrators.notify import send_notifications
from orchestrators.operation import await_operation
from orchestrators.phase import patch_phase
from orchestrators.run import close_dead_run, patch_run
from orchestrators.versions import versioned

bp = df.Blueprint()

for orchestrator in (
    patch_run,
    close_dead_run,
    patch_phase,
    patch_machine,
    await_operation,
    send_notifications,
    accompany_run,
    attend_shard,
    attend_machine,
    change_modes,
    change_mode_of_machine,
):
    bp.orchestration_trigger(context_name="context")(versioned(orchestrator))
