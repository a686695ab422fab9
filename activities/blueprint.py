"""Registers the activities with the Functions host; what they do is in the other modules."""

from __future__ import annotations

import azure.durable_functions as df

from activities.discovery import discover_machines
from activities.machine import preflight_machine, record_outcome, release_machine, verify_machine
from activities.poll import poll_operation
from activities.power import start_machine, stop_machine
from activities.run import close_open_machines, close_run, next_machines, open_run, still_open_machines
from activities.submit import assess_machine, install_patches

bp = df.Blueprint()

for activity in (
    open_run,
    discover_machines,
    next_machines,
    still_open_machines,
    preflight_machine,
    start_machine,
    stop_machine,
    assess_machine,
    install_patches,
    poll_operation,
    verify_machine,
    release_machine,
    record_outcome,
    close_open_machines,
    close_run,
):
    bp.activity_trigger(input_name="data")(activity)
