"""health: anonymous and shallow; with the health key it checks storage, identity, Resource Manager and channels."""

from __future__ import annotations

import hmac
import logging
from functools import lru_cache
from typing import Annotated

from azure.functions import HttpRequest, HttpResponse
from pydantic import Field, ValidationError

from patchwave.api.endpoint import ResponseSpec, route
from patchwave.api.http import Query, header_of, json_response
from patchwave.api.problems import ApiProblem
from patchwave.services.health_check import check_parts
from patchwave.settings import load_settings, read_health_key
from patchwave.wiring import current_services

HEALTH_KEY_HEADER = "x-health-key"

_LOG = logging.getLogger("patchwave.health")

type HealthStatus = Annotated[dict[str, str], Field(json_schema_extra={"required": ["status"]})]
"""``status``, and in the deep check the state of each part."""


class HealthQuery(Query):
    """Whether everything is checked."""

    deep: str = Field(default="", description="`1` checks storage, identity, Resource Manager and channels.")


@route(
    "GET",
    "health",
    ResponseSpec(200, HealthStatus),
    ResponseSpec(503, HealthStatus),
    role=None,
    is_open=True,
    problems={401: "The deep check needs the health key."},
    uses_storage=False,
)
async def health(req: HttpRequest, query: HealthQuery) -> HttpResponse:
    """200 when the app can work. ``?deep=1`` needs the health key and names the part that fails: 503."""
    is_deep = query.deep in ("1", "true")
    if is_deep:
        _check_key(header_of(req, HEALTH_KEY_HEADER) or "")
    try:
        load_settings()
    except ValidationError as error:
        wrong = ", ".join(sorted({str(item["loc"][0]) if item["loc"] else "settings" for item in error.errors()}))
        _note_wrong(wrong)
        # The settings' names would reveal which features are on and unprotected.
        found = f"not valid: {wrong}" if is_deep else "not valid"
        return json_response({"status": "unhealthy", "settings": found}, status=503)
    if not is_deep:
        return json_response({"status": "healthy"})
    # Only now: with settings that are not valid, there are no services.
    parts = await check_parts(current_services())
    is_healthy = all(word == "ok" for word in parts.values())
    status = "healthy" if is_healthy else "unhealthy"
    return json_response({"status": status, **parts}, status=200 if is_healthy else 503)


@lru_cache(maxsize=1)
def _note_wrong(names: str) -> None:
    """Log once per worker, because any caller can reach the function."""
    _LOG.error("Settings that are not valid: %s", names)


def _check_key(given: str) -> None:
    """Check the health key: the host checks no key of an anonymous function."""
    wanted = read_health_key().get_secret_value()
    if not wanted or not hmac.compare_digest(wanted.encode(), given.encode()):
        raise ApiProblem(401, "The deep check needs the health key (PATCHWAVE_HEALTH_KEY) in the header X-Health-Key.")
