"""The one identity of this process: a managed identity in Azure, whatever the developer is signed in with elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.per_loop import PerLoop
from settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential


def open_credential(settings: Settings | None = None) -> AsyncTokenCredential:
    """The credential of this process and event loop; it caches its tokens, so every client shares it.

    With ``PATCHWAVE_IDENTITY_CLIENT_ID`` set it is that managed identity and nothing else: a missing identity is
    then an error, not a silent step to somebody else's rights.
    """
    return _clients.get(settings)


def _build(settings: Settings) -> AsyncTokenCredential:
    from azure.identity.aio import DefaultAzureCredential, ManagedIdentityCredential

    if settings.identity_client_id:
        return ManagedIdentityCredential(client_id=settings.identity_client_id)
    return DefaultAzureCredential()


_clients = PerLoop(_build)
