"""What tests of events share: Azure with machines and schedules of their own, and events as Event Grid writes them."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp.connector
import httpx
import pytest

from patchwave.azure.clients import close_clients
from patchwave.settings import load_settings
from patchwave.storage import Storage
from tests.support.factories import NOW
from tests.support.http_calls import SUBSCRIPTION, Engine, user_function
from tests.support.maintenance_requests import body
from tests.support.simulator import as_client, running
from triggers.event_grid import maintenance_event

MACHINES = 40
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups"
CONFIGURATION = f"{GROUP}/rg-updates/providers/Microsoft.Maintenance/maintenanceConfigurations/weekly"
START = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=38)
WINDOW = timedelta(hours=2)
_API = {"api-version": "2023-04-01"}


def machine_id(number: int = 1) -> str:
    return f"{GROUP}/rg-web/providers/Microsoft.Compute/virtualMachines/web-{number:02d}"


def occurrence_id(configuration: str = CONFIGURATION, start: datetime = START) -> str:
    return f"{configuration.lower()}/providers/microsoft.maintenance/applyupdates/{start:%Y%m%d%H%M%S}"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The ready document of a simulator whose clock is ours, with forty machines."""
    fleet = [{"id": machine_id(number), "location": "westeurope", "osType": "Linux"} for number in range(MACHINES)]
    with running(tmp_path_factory.mktemp("events"), fleet, "--graph-lag", "0", "--speed", "1") as document:
        yield document


@pytest.fixture
async def azure(
    storage: Storage, simulator: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """Settings and trust that lead to it, with the schedule ``weekly``, and its subscription among the topics."""
    del storage  # which has made the other settings
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", ssl.create_default_context(cafile=simulator["ca"]))
    for name, value in simulator["environment"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATCHWAVE_EVENT_TOPICS", f"/subscriptions/{SUBSCRIPTION}")
    monkeypatch.setenv("PATCHWAVE_POLL_SECONDS", "10")
    load_settings.cache_clear()
    async with httpx.AsyncClient(**as_client(simulator)) as http:
        await schedule(http)
        yield http
        await http.delete("/_sim/faults")
    await close_clients()


async def schedule(
    http: httpx.AsyncClient, name: str = "weekly", start: datetime = START, duration: str = "02:00"
) -> str:
    """A maintenance configuration whose first run starts then; its id."""
    one = CONFIGURATION.replace("weekly", name)
    document = body(startDateTime=f"{start:%Y-%m-%d %H:%M}", duration=duration, timeZone="UTC")
    reply = await http.put(one, params=_API, json=document)
    assert reply.is_success, reply.text
    return one


def written(event_id: str = "e-1", machine: str = "", **changes: Any) -> str:
    """The event of a VM that was written."""
    event = {
        "id": event_id,
        "topic": f"/subscriptions/{SUBSCRIPTION}",
        "subject": machine or machine_id(),
        "eventType": "Microsoft.Resources.ResourceWriteSuccess",
        "data": {"operationName": "Microsoft.Compute/virtualMachines/write"},
    }
    return json.dumps(event | changes)


def maintenance(kind: str, occurrence: str = "", *, cloud: bool = False, **data: Any) -> str:
    """The pre or post event of a scheduled run, in one of the two schemas; ``data`` as the event claims it."""
    named = occurrence or occurrence_id()
    configuration = named.partition("/providers/microsoft.maintenance/applyupdates")[0]
    claimed = {
        "CorrelationId": named,
        "MaintenanceConfigurationId": configuration,
        "StartDateTime": f"{START:%Y-%m-%dT%H:%M:%SZ}",
        "EndDateTime": f"{START + WINDOW:%Y-%m-%dT%H:%M:%SZ}",
        "CancellationCutOffDateTime": f"{START - timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}",
        "ResourceSubscriptionIds": [SUBSCRIPTION],
        **({"Status": "Succeeded"} if kind == "Post" else {}),
    }
    words = ("source", "type") if cloud else ("topic", "eventType")
    place = dict(zip(words, (configuration, f"Microsoft.Maintenance.{kind}MaintenanceEvent"), strict=True))
    return json.dumps({"id": named, **place, "data": claimed | data})


async def deliver(engine: Engine, event: str) -> None:
    await user_function(maintenance_event)(event=event, client=engine)


async def put(storage: Storage, name: str, **document: Any) -> None:
    whole = {"name": name, "scope": {"subscriptions": [SUBSCRIPTION]}} | document
    await storage.policies.put(name, whole, if_match=None, if_none_match=False, at=NOW)
