"""Composition root of the function app: the blueprints, registered; nothing else."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from activities.registry import bp as activities
from orchestrators.registry import bp as orchestrators
from patchwave.api.drift import bp as doctor
from patchwave.api.fleet import bp as fleet_modes
from patchwave.api.freezes import bp as freezes
from patchwave.api.health import bp as health
from patchwave.api.maintenance_assignments import bp as assignments
from patchwave.api.maintenance_configurations import bp as maintenance
from patchwave.api.maintenance_runs import bp as maintenance_occurrences
from patchwave.api.maintenance_upcoming_runs import bp as scheduled_runs
from patchwave.api.openapi import bp as openapi
from patchwave.api.patch_mode_changes import bp as mode_changes
from patchwave.api.plans import bp as plans
from patchwave.api.policies import bp as policies
from patchwave.api.policy_conversion import bp as moving
from patchwave.api.policy_schedule import bp as schedules
from patchwave.api.refused_calls import bp as refused_calls
from patchwave.api.run_commands import bp as steering
from patchwave.api.runs import bp as runs
from patchwave.services.retention import bp as retention
from patchwave.services.scheduler import bp as timers
from patchwave.services.snapshot_cleanup import bp as cleanup
from patchwave.services.watchdog import bp as watchdog
from triggers.event_grid import bp as event_grid
from triggers.webhook import bp as webhook

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)

for blueprint in (
    runs,
    steering,
    policies,
    plans,
    schedules,
    freezes,
    maintenance,
    scheduled_runs,
    assignments,
    maintenance_occurrences,
    fleet_modes,
    mode_changes,
    moving,
    doctor,
    webhook,
    timers,
    watchdog,
    retention,
    refused_calls,
    cleanup,
    event_grid,
    health,
    openapi,
    orchestrators,
    activities,
):
    app.register_functions(blueprint)
