"""The functions that the app registers, by name. The library hands them out once in a process."""

from __future__ import annotations

from functools import cache
from typing import Any

import function_app
from patchwave.api.endpoint import ROUTES


@cache
def registered() -> dict[str, Any]:
    """Name to ``azure.functions.Function``, which has no public type."""
    return {str(function.get_function_name()): function for function in function_app.app.get_functions()}


HTTP = {spec.name: (spec.path, spec.method.lower()) for spec in ROUTES.values()}
