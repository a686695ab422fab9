"""Registers the orchestrators with the Functions host; the workflow itself is in the other modules."""

from __future__ import annotations

import azure.durable_functions as df

from orchestrators.machine import patch_machine
from orchestrators.maintenance_machine import maintain_machine, maintain_shard
from orchestrators.maintenance_run import run_maintenance
from orchestrators.notifications import send_notifications
from orchestrators.operation import await_operation
from orchestrators.patch_mode_change import change_machine_patch_mode, change_patch_modes
from orchestrators.phase import patch_phase
from orchestrators.run import close_orphaned_run, patch_run
from orchestrators.versioning import versioned

bp = df.Blueprint()

for orchestrator in (
    patch_run,
    close_orphaned_run,
    patch_phase,
    patch_machine,
    await_operation,
    send_notifications,
    run_maintenance,
    maintain_shard,
    maintain_machine,
    change_patch_modes,
    change_machine_patch_mode,
):
    bp.orchestration_trigger(context_name="context")(versioned(orchestrator))
