"""The identity of this process: a managed identity in Azure, and the developer's sign-in elsewhere."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from patchwave.azure.clients import PerLoop
from patchwave.settings import Settings, load_settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

_OF_THE_PLATFORM = (
    "WEBSITE_INSTANCE_ID",
    "WEBSITE_SITE_NAME",
    "CONTAINER_NAME",
    "CONTAINER_APP_NAME",
    "IDENTITY_ENDPOINT",
    "MSI_ENDPOINT",
)
"""Variables that Azure sets for apps, on every plan, and that a developer's machine does not have."""


def open_credential(settings: Settings | None = None) -> AsyncTokenCredential:
    """The credential of this process and event loop, shared by all clients because it caches tokens.

    In Azure it is the managed identity of ``PATCHWAVE_IDENTITY_CLIENT_ID``, else the system-assigned one, and nothing
    else. A missing identity is an error, and never a silent fallback to other rights, such as those of a client secret
    in a setting.
    """
    return _clients.get(settings)


def _build(settings: Settings | None) -> AsyncTokenCredential:
    from azure.identity.aio import DefaultAzureCredential, ManagedIdentityCredential

    settings = settings or load_settings()
    if settings.identity_client_id:
        return ManagedIdentityCredential(client_id=settings.identity_client_id)
    if any(os.environ.get(name) for name in _OF_THE_PLATFORM):
        return ManagedIdentityCredential()
    return DefaultAzureCredential()


_clients = PerLoop(_build)
