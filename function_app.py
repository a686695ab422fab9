"""Composition root of the function app: the blueprints, registered; nothing else."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from activities.blueprint import bp as activities
from orchestrators.blueprint import bp as orchestrators
from triggers.assignments import bp as assignments
from triggers.cleanup import bp as cleanup
from triggers.doctor import bp as doctor
from triggers.event_grid import bp as event_grid
from triggers.fleet_modes import bp as fleet_modes
from triggers.freezes import bp as freezes
from triggers.health import bp as health
from triggers.maintenance import bp as maintenance
from triggers.mode_changes import bp as mode_changes
from triggers.moving import bp as moving
from triggers.occurrences import bp as maintenance_occurrences
from triggers.openapi import bp as openapi
from triggers.plans import bp as plans
from triggers.policies import bp as policies
from triggers.refused_calls import bp as refused_calls
from triggers.retention import bp as retention
from triggers.runs import bp as runs
from triggers.scheduled_runs import bp as scheduled_runs
from triggers.schedules import bp as schedules
from triggers.steering import bp as steering
from triggers.timers import bp as timers
from triggers.watchdog import bp as watchdog
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
