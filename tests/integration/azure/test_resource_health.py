"""Resource Health and alerts against a TLS server on loopback: requests, pages, refusals, odd answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from azure.core.pipeline.transport import AioHttpTransport
from pydantic import SecretStr

from patchwave.azure.pipeline import ArmPipeline
from patchwave.azure.resource_health import MAX_PAGES, ResourceHealth
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.ids import MachineId
from patchwave.domain.machine.resource_health import Availability
from patchwave.settings import Settings
from tests.support.arm_server import Credential
from tests.support.factories import SUBSCRIPTION, machine
from tests.support.loopback_server import AUTHORITY, serving

MACHINE = MachineId.parse(machine(1).id)
ALERTS = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.AlertsManagement/alerts"


class Server:
    """Answers with what a test queues up; keeps the requests."""

    def __init__(self) -> None:
        self.seen: list[web.Request] = []
        self.answers: list[tuple[int, object]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        status, body = self.answers.pop(0)
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, content_type="application/json")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    async with serving(server.handle) as server.url:
        yield server


@pytest.fixture
async def client(server: Server, tmp_path: Path) -> AsyncIterator[ResourceHealth]:
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings = Settings(resource_manager=server.url, tables_connection=SecretStr("x"))
    transport: Any = AioHttpTransport(connection_verify=str(tmp_path / "ca.pem"))
    found = ResourceHealth(settings, ArmPipeline(settings, Credential(), transport))
    yield found
    await found.close()


def alert(name: str) -> dict[str, Any]:
    return {"name": name, "properties": {"essentials": {"monitorCondition": "Fired"}}}


async def test_availability(server: Server, client: ResourceHealth) -> None:
    server.answers.append((200, {"name": "current", "properties": {"availabilityState": "Degraded"}}))
    found = await client.availability(MACHINE)
    assert isinstance(found, Availability)
    assert found.properties is not None
    assert found.properties.availability_state == "Degraded"
    (request,) = server.seen
    assert request.path == f"{MACHINE.text}/providers/Microsoft.ResourceHealth/availabilityStatuses/current"
    assert request.query["api-version"] == "2025-05-01"
    assert request.headers["Authorization"] == "Bearer secret-token"


@pytest.mark.parametrize(
    ("status", "body"), [(403, {"error": {"code": "AuthorizationFailed"}}), (200, "<html>"), (200, "[]"), (500, "")]
)
async def test_what_cannot_be_read_is_a_failure(
    server: Server, client: ResourceHealth, status: int, body: object
) -> None:
    server.answers += [(status, body)] * 2
    assert isinstance(await client.availability(MACHINE), ArmFailure)
    assert isinstance(await client.fired_alerts(MACHINE, timedelta(days=1)), ArmFailure)
    assert len(server.seen) == 2, "asked once each: when to ask again is decided elsewhere"


@pytest.mark.parametrize(
    ("within", "time_range"),
    [(timedelta(minutes=5), "1h"), (timedelta(hours=24), "1d"), (timedelta(hours=25), "7d"), (timedelta(30), "30d")],
)
async def test_alerts_are_requested_by_machine(
    server: Server, client: ResourceHealth, within: timedelta, time_range: str
) -> None:
    server.answers.append((200, {"value": [alert("cpu"), "odd"]}))
    found = await client.fired_alerts(MACHINE, within)
    assert isinstance(found, list)
    assert [one.name for one in found] == ["cpu"]
    (request,) = server.seen
    assert request.path == ALERTS
    assert request.query["targetResource"] == MACHINE.text
    assert request.query["monitorCondition"] == "Fired"
    assert request.query["timeRange"] == time_range


async def test_pages_are_followed(server: Server, client: ResourceHealth) -> None:
    server.answers.append((200, {"value": [alert("one")], "nextLink": f"{server.url}{ALERTS}?ctoken=%2bRID%3a"}))
    server.answers.append((200, {"value": [alert("two")]}))
    found = await client.fired_alerts(MACHINE, timedelta(days=1))
    assert isinstance(found, list)
    assert [one.name for one in found] == ["one", "two"]
    assert server.seen[1].query["ctoken"] == "+RID:"


async def test_a_page_elsewhere_gets_no_token(server: Server, client: ResourceHealth) -> None:
    server.answers.append((200, {"value": [], "nextLink": "https://evil.example.org/subscriptions/x"}))
    assert isinstance(await client.fired_alerts(MACHINE, timedelta(days=1)), ArmFailure)


async def test_pages_without_end_are_not_followed_for_ever(server: Server, client: ResourceHealth) -> None:
    server.answers += [(200, {"value": [], "nextLink": f"{server.url}{ALERTS}?p=1"})] * (MAX_PAGES + 1)
    assert isinstance(await client.fired_alerts(MACHINE, timedelta(days=1)), ArmFailure)
    assert len(server.seen) == MAX_PAGES
