"""Composition root of the function app: the blueprints, registered; nothing else."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from activities.registry import bp as activities
from orchestrators.registry import bp as orchestrators
from patchwave.api import bp as api
from triggers import event_grid, timers

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)

for blueprint in (api, timers.bp, event_grid.bp, orchestrators, activities):
    app.register_functions(blueprint)
