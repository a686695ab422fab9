"""health: anonymous and shallow; with the health key it checks storage, identity, Resource Manager and channels."""

from __future__ import annotations

import hmac
import logging
from functools import lru_cache
from typing import Annotated

import azure.functions as func
from pydantic import Field, ValidationError

from patchwave.api.endpoint import ParameterSpec, ResponseSpec, route
from patchwave.api.http import header_of, json_response, query_of
from patchwave.api.problems import ApiProblem
from patchwave.azure.virtual_machines import open_resource_manager
from patchwave.settings import ChannelsError, Settings, load_settings, parse_channels, read_health_key
from patchwave.storage import StorageError, open_storage

HEALTH_KEY_HEADER = "x-health-key"

_LOG = logging.getLogger("patchwave.health")

type HealthStatus = Annotated[dict[str, str], Field(json_schema_extra={"required": ["status"]})]
"""``status``, and in the deep check the state of each part."""

_DEEP = ParameterSpec("deep", {"type": "string"}, "`1` checks storage, identity, Resource Manager and channels.")


@route(
    "GET",
    "health",
    ResponseSpec(200, HealthStatus),
    ResponseSpec(503, HealthStatus),
    role=None,
    is_open=True,
    query=[_DEEP],
    problems={401: "The deep check needs the health key."},
    uses_storage=False,
)
async def health(req: func.HttpRequest) -> func.HttpResponse:
    """200 when the app can work. ``?deep=1`` needs the health key and names the part that fails: 503."""
    is_deep = query_of(req, "deep") in ("1", "true")
    if is_deep:
        _check_key(header_of(req, HEALTH_KEY_HEADER) or "")
    try:
        settings = load_settings()
    except ValidationError as error:
        wrong = ", ".join(sorted({str(item["loc"][0]) if item["loc"] else "settings" for item in error.errors()}))
        _note_wrong(wrong)
        # The settings' names would reveal which features are on and unprotected.
        found = f"not valid: {wrong}" if is_deep else "not valid"
        return json_response({"status": "unhealthy", "settings": found}, status=503)
    if not is_deep:
        return json_response({"status": "healthy"})
    parts = {"storage": await _storage(), **await _azure(), "channels": _channels(settings)}
    is_healthy = all(word == "ok" for word in parts.values())
    return json_response(
        {"status": "healthy" if is_healthy else "unhealthy", **parts}, status=200 if is_healthy else 503
    )


@lru_cache(maxsize=1)
def _note_wrong(names: str) -> None:
    """Log once per worker, because any caller can reach the function."""
    _LOG.error("Settings that are not valid: %s", names)


def _check_key(given: str) -> None:
    """Check the health key: the host checks no key of an anonymous function."""
    wanted = read_health_key().get_secret_value()
    if not wanted or not hmac.compare_digest(wanted.encode(), given.encode()):
        raise ApiProblem(401, "The deep check needs the health key (PATCHWAVE_HEALTH_KEY) in the header X-Health-Key.")


def _channels(settings: Settings) -> str:
    """Check the channels' settings; a mistake there would otherwise show only when a notification is missed."""
    try:
        parse_channels(settings.channels.get_secret_value())
    except ChannelsError as error:
        return str(error)
    return "ok"


async def _storage() -> str:
    try:
        await open_storage().check()
    except StorageError:
        return "unreachable"
    return "ok"


async def _azure() -> dict[str, str]:
    """Check identity, then Resource Manager, which needs a token; stops at the first failure."""
    failure = await open_resource_manager().check()
    if failure is None:
        return {"identity": "ok", "resourceManager": "ok"}
    if failure.status in (401, 403) or "Authentication" in failure.code or "Credential" in failure.code:
        return {"identity": "no token, or no rights", "resourceManager": "not asked"}
    return {
        "identity": "ok",
        "resourceManager": f"unreachable (HTTP {failure.status})" if failure.status else "unreachable",
    }
