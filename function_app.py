"""Composition root of the function app: the blueprints, registered; nothing else."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from activities.blueprint import bp as activities
from orchestrators.blueprint import bp as orchestrators
from triggers.event_grid import bp as event_grid
from triggers.health import bp as health
from triggers.policies import bp as policies
from triggers.runs import bp as runs
from triggers.timers import bp as timers
from triggers.webhook import bp as webhook

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)

for blueprint in (runs, policies, webhook, timers, event_grid, health, orchestrators, activities):
    app.register_functions(blueprint)
