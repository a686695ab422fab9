"""Composition root of the function app: the blueprints, registered; nothing else."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from activities.blueprint import bp as activities
from orchestrators.blueprint import bp as orchestrators

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)

for blueprint in (orchestrators, activities):
    app.register_functions(blueprint)
