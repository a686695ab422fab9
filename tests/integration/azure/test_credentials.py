"""Which identity the process has: in Azure a managed one, whatever else lies about."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from azure.identity.aio import DefaultAzureCredential, ManagedIdentityCredential

from patchwave.azure.clients import close_clients
from patchwave.azure.credentials import open_credential
from patchwave.settings import Settings

PLATFORM = ("WEBSITE_INSTANCE_ID", "WEBSITE_SITE_NAME", "CONTAINER_NAME", "CONTAINER_APP_NAME")
DEVELOPERS = {"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": "secret"}


@pytest.fixture(autouse=True)
async def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    for name in (*PLATFORM, "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET"):
        monkeypatch.delenv(name, raising=False)
    await close_clients()
    yield
    await close_clients()


def settings(**changes: str) -> Settings:
    return Settings.model_validate({"tables_connection": "UseDevelopmentStorage=true"} | changes)


@pytest.mark.parametrize("name", [*PLATFORM, "IDENTITY_ENDPOINT", "MSI_ENDPOINT"])
async def test_in_azure_without_a_configured_identity_no_developer_credential_is_used(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1/token" if name.endswith("ENDPOINT") else "app")
    for variable, value in DEVELOPERS.items():
        monkeypatch.setenv(variable, value)
    assert isinstance(open_credential(settings()), ManagedIdentityCredential)


async def test_a_configured_identity_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in DEVELOPERS.items():
        monkeypatch.setenv(variable, value)
    assert isinstance(open_credential(settings(identity_client_id="id")), ManagedIdentityCredential)


async def test_elsewhere_it_is_whatever_the_developer_is_signed_in_with() -> None:
    assert isinstance(open_credential(settings()), DefaultAzureCredential)
