"""The deep health check: storage, identity, Resource Manager and channels."""

from __future__ import annotations

from patchwave.settings import ChannelsError, parse_channels
from patchwave.storage import StorageError
from patchwave.wiring import Services


async def check_parts(services: Services) -> dict[str, str]:
    """The state of each part: ``ok``, or what is wrong with it."""
    return {"storage": await _storage(services), **await _azure(services), "channels": _channels(services)}


async def _storage(services: Services) -> str:
    try:
        await services.storage.check()
    except StorageError:
        return "unreachable"
    return "ok"


async def _azure(services: Services) -> dict[str, str]:
    """Check identity, then Resource Manager, which needs a token; stops at the first failure."""
    failure = await services.resource_manager.check()
    if failure is None:
        return {"identity": "ok", "resourceManager": "ok"}
    if failure.status in (401, 403) or "Authentication" in failure.code or "Credential" in failure.code:
        return {"identity": "no token, or no rights", "resourceManager": "not asked"}
    return {
        "identity": "ok",
        "resourceManager": f"unreachable (HTTP {failure.status})" if failure.status else "unreachable",
    }


def _channels(services: Services) -> str:
    """Check the channels' settings; a mistake there would otherwise show only when a notification is missed."""
    try:
        parse_channels(services.settings.channels.get_secret_value())
    except ChannelsError as error:
        return str(error)
    return "ok"
