"""Triggers on a real Azurite, with tables of their own for every test and an engine that only records."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import pytest
from azure.identity import CredentialUnavailableError

from patchwave.azure import credentials
from patchwave.azure.clients import PerLoop, close_clients
from patchwave.azure.resource_graph import ResourceGraph
from patchwave.settings import load_settings
from patchwave.storage import Storage
from patchwave.wiring import Services, current_services
from tests.support.azure import Access
from tests.support.azurite import azurite
from tests.support.factories import NOW
from tests.support.http_calls import POLICY, TENANT, Engine

__all__ = ["access", "azurite", "engine", "graph", "monthly", "no_identity", "platform", "roles", "services", "storage"]


@pytest.fixture
async def storage(azurite: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Storage]:
    """The records that the triggers open."""
    monkeypatch.setenv("PATCHWAVE_TABLES_CONNECTION", azurite)
    monkeypatch.setenv("PATCHWAVE_TABLE_PREFIX", f"t{uuid.uuid4().hex[:12]}")
    load_settings.cache_clear()
    yield current_services().storage
    await close_clients()
    load_settings.cache_clear()


@pytest.fixture
async def services(storage: Storage) -> Services:
    """What functions are given in the test. ``vars(services).update(resource_graph=graph)`` replaces a client."""
    del storage  # which has made the settings
    return current_services()


@pytest.fixture
def access(simulator: dict[str, Any], storage: Storage) -> Access:
    """The way to the ``simulator`` of the test's file, beside records of the test's own."""
    del storage
    return Access(simulator)


@pytest.fixture
async def graph(access: Access) -> AsyncIterator[ResourceGraph]:
    """Its Resource Graph."""
    opened = ResourceGraph(access.settings, access.pipeline())
    yield opened
    await opened.close()


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """App Service authentication is on, so that what stands in its headers counts."""
    monkeypatch.setenv("WEBSITE_AUTH_ENABLED", "True")


@pytest.fixture
def roles(platform: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers need roles."""
    monkeypatch.setenv("PATCHWAVE_AUTHORIZATION", "roles")
    monkeypatch.setenv("PATCHWAVE_TENANT_ID", TENANT)
    load_settings.cache_clear()


class _NoIdentity:
    async def get_token(self, *_: str, **__: object) -> NoReturn:
        raise CredentialUnavailableError("there is no identity here")

    get_token_info = get_token

    async def close(self) -> None: ...


@pytest.fixture
def no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs Azure is told so at once; the library would look for an identity in the network for minutes."""
    monkeypatch.setattr(credentials, "_clients", PerLoop(lambda _: _NoIdentity()))


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def monthly(storage: Storage) -> str:
    """The name of a stored policy."""
    await storage.policies.put("monthly", {"name": "monthly", **POLICY}, if_match=None, if_none_match=True, at=NOW)
    return "monthly"
