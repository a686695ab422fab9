"""The triggers of schedules against a simulator with the machines of Microsoft's document."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from azure.core.pipeline.transport import AioHttpTransport

from adapters.maintenance import Maintenance
from adapters.pipeline import ArmPipeline
from adapters.resource_graph import ResourceGraph
from adapters.tables import Records
from settings import Settings
from tests.adapters.test_locations import Credential
from tests.simulator.conftest import as_client, running, token
from tests.triggers.maintenance.support import OTHER
from tests.unit.maintenance_samples import MACHINE, SUBSCRIPTION
from triggers import assignments, maintenance, scheduled_runs

API = {"api-version": "2021-09-01-preview"}
"""The version of the document."""


@pytest.fixture(scope="package")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The ready document of a simulator with the machines of the document; Resource Graph does not lag."""
    folder = tmp_path_factory.mktemp("maintenance")
    fleet = [
        {"id": MACHINE, "location": "eastus2euap", "osType": "Windows", "tags": {"env": "prod"}},
        {"id": OTHER, "location": "eastus2euap", "osType": "Linux", "tags": {"env": "test"}},
    ]
    with running(folder, fleet, "--graph-lag", "0") as document:
        yield document


@pytest.fixture
async def azure(
    simulator: dict[str, Any], records: Records, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """Azure as the triggers reach it, without schedules; and as Azure's own clients reach it."""
    del records
    settings = Settings(resource_manager=simulator["arm"], tables_endpoint="https://account.table.core.windows.net")
    credential = Credential(token(simulator))

    def transport() -> AioHttpTransport:
        # aiohttp reads SSL_CERT_FILE once per process, so the CA is given to it.
        return AioHttpTransport(connection_verify=simulator["ca"])

    graph = ResourceGraph(settings, ArmPipeline(settings, credential, transport()))
    schedules = Maintenance(settings, credential, transport)
    for module in (maintenance, assignments):
        monkeypatch.setattr(module, "open_resource_graph", lambda: graph)
        monkeypatch.setattr(module, "open_maintenance", lambda: schedules)
    monkeypatch.setattr(scheduled_runs, "open_maintenance", lambda: schedules)
    async with httpx.AsyncClient(**as_client(simulator), params=API) as http:
        yield http
        await http.delete("/_sim/faults")
        for kind in ("configurationAssignments", "maintenanceConfigurations"):
            found = await http.get(f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Maintenance/{kind}")
            for each in found.json()["value"]:
                await http.delete(each["id"])
    await graph.close()
    await schedules.close()
