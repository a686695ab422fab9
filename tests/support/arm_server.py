"""A server in the place of Resource Manager, which keeps the requests, and the calls of every client."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from azure.core.credentials import AccessToken
from pydantic import SecretStr

from patchwave.azure.locations import Locations
from patchwave.azure.pipeline import ArmPipeline
from patchwave.azure.resource_graph import ResourceGraph
from patchwave.azure.resource_health import ResourceHealth
from patchwave.azure.snapshots import Snapshots
from patchwave.azure.virtual_machines import ResourceManager
from patchwave.domain.core.ids import MachineId
from patchwave.domain.machine.snapshot import OsDisk, SnapshotId, snapshot_body
from patchwave.settings import Settings
from tests.support.factories import SUBSCRIPTION, intent, machine
from tests.support.loopback_server import AUTHORITY, serving


class Credential:
    """Hands out a token and remembers what it was asked for."""

    def __init__(self, token: str = "secret-token") -> None:
        self.scopes: list[str] = []
        self._token = token

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes += scopes
        return AccessToken(self._token, 4_102_444_800)

    async def close(self) -> None: ...

    async def __aenter__(self) -> Credential:
        return self

    async def __aexit__(self, exc_type: Any = None, exc_value: Any = None, traceback: Any = None) -> None: ...


MACHINE = MachineId.parse(machine(1).id)
ARC = MachineId.parse(
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-arc/providers/Microsoft.HybridCompute/machines/srv-01"
)
OPERATION = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/westeurope/operations/1"
TOKEN = "Bearer secret-token"


class Server:
    """Keeps what arrives, and answers as it was told: status, headers and body."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str | None]] = []
        self.answer: tuple[int, dict[str, str], str] = (200, {}, "{}")
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append((request.method, request.path, request.headers.get("Authorization")))
        status, headers, body = self.answer
        return web.Response(status=status, headers=headers, text=body, content_type="application/json")


@pytest.fixture
async def servers(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Server, Server]]:
    """The Resource Manager of the settings, and a foreign server."""
    trust = ssl.create_default_context()
    AUTHORITY.configure_trust(trust)
    # What the SDK verifies with when it is told nothing; made once, when the library is loaded.
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trust)
    manager, foreign = Server(), Server()
    async with serving(manager.handle) as manager.url, serving(foreign.handle, "127.0.0.1") as foreign.url:
        yield manager, foreign


def settings_of(manager: Server) -> Settings:
    return Settings(resource_manager=manager.url, tables_connection=SecretStr("x"))


type Call = Callable[[Settings], Awaitable[object]]


async def _manager(settings: Settings, call: Callable[[ResourceManager], Awaitable[object]]) -> object:
    client = ResourceManager(settings, Credential())
    try:
        return await call(client)
    finally:
        await client.close()


async def _disks(settings: Settings, call: Callable[[Snapshots], Awaitable[object]]) -> object:
    client = Snapshots(settings, Credential())
    try:
        return await call(client)
    finally:
        await client.close()


async def _plain[T: (Locations, ResourceGraph, ResourceHealth)](
    kind: Callable[[Settings, ArmPipeline], T], settings: Settings, call: Callable[[T], Awaitable[object]]
) -> object:
    client = kind(settings, ArmPipeline(settings, Credential()))
    try:
        return await call(client)
    finally:
        await client.close()


COMPUTE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-a/providers/Microsoft.Compute"
SNAPSHOT = SnapshotId.parse(f"{COMPUTE}/snapshots/s")
DISK = OsDisk(id=f"{COMPUTE}/disks/d", location="westeurope")
CALLS: dict[str, Call] = {
    "a read": lambda settings: _manager(settings, lambda client: client.read_machine(MACHINE)),
    "a poll": lambda settings: _manager(
        settings, lambda client: client.poll(MACHINE, settings.manager_url + OPERATION, "")
    ),
    "a POST to an Arc machine": lambda settings: _manager(
        settings, lambda client: client.assess(ARC, "westeurope", intent("20261121T000000Z-monthly"))
    ),
    "a POST of the SDK": lambda settings: _manager(settings, lambda client: client.start(MACHINE)),
    "a PUT of the SDK": lambda settings: _disks(
        settings, lambda client: client.take_snapshot(SNAPSHOT, snapshot_body(DISK, {}, incremental=True))
    ),
    "a DELETE of the SDK": lambda settings: _disks(settings, lambda client: client.delete_snapshot(SNAPSHOT)),
    "a query": lambda settings: _plain(ResourceGraph, settings, lambda client: client.page("resources")),
    "locations": lambda settings: _plain(Locations, settings, lambda client: client.read([SUBSCRIPTION])),
    "alerts": lambda settings: _plain(
        ResourceHealth, settings, lambda client: client.fired_alerts(MACHINE, timedelta(hours=1))
    ),
}
