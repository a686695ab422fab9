"""The one identity of this process: a managed identity in Azure, whatever the developer is signed in with elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from settings import Settings, load_settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

type _Loop = asyncio.AbstractEventLoop

# A credential holds a connection pool, which belongs to the event loop that opened it.
_credentials: WeakKeyDictionary[_Loop, AsyncTokenCredential] = WeakKeyDictionary()


def open_credential(settings: Settings | None = None) -> AsyncTokenCredential:
    """The credential of this process and event loop; it caches its tokens, so every client shares it.

    With ``PATCHWAVE_IDENTITY_CLIENT_ID`` set it is that managed identity and nothing else: a missing identity is
    then an error, not a silent step to somebody else's rights.
    """
    loop = asyncio.get_running_loop()
    found = _credentials.get(loop)
    if found is None:
        found = _build(settings or load_settings())
        _credentials[loop] = found
    return found


async def close_credential() -> None:
    """Give back the connections of the credential of this event loop."""
    found = _credentials.pop(asyncio.get_running_loop(), None)
    if found is not None:
        await found.close()


def _build(settings: Settings) -> AsyncTokenCredential:
    from azure.identity.aio import DefaultAzureCredential, ManagedIdentityCredential

    if settings.identity_client_id:
        return ManagedIdentityCredential(client_id=settings.identity_client_id)
    return DefaultAzureCredential()
