"""Registers the orchestrators with the Functions host; the workflow itself is in the other modules."""

from __future__ import annotations

import azure.durable_functions as df

from orchestrators.machine import patch_machine
from orchestrators.notify import send_notifications
from orchestrators.operation import await_operation
from orchestrators.phase import patch_phase
from orchestrators.run import close_dead_run, patch_run
from orchestrators.versions import versioned

bp = df.Blueprint()

for orchestrator in (patch_run, close_dead_run, patch_phase, patch_machine, await_operation, send_notifications):
    bp.orchestration_trigger(context_name="context")(versioned(orchestrator))
