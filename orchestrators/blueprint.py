"""Registers the orchestrators with the Functions host; the workflow itself is in the other modules."""

from __future__ import annotations

import azure.durable_functions as df

from orchestrators.machine import patch_machine
from orchestrators.operation import await_operation
from orchestrators.run import patch_run
from orchestrators.wave import patch_wave

bp = df.Blueprint()

for orchestrator in (patch_run, patch_wave, patch_machine, await_operation):
    bp.orchestration_trigger(context_name="context")(orchestrator)
