"""The triggers of schedules against a simulator with the machines of Microsoft's document."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from patchwave.azure.maintenance import Maintenance
from patchwave.azure.resource_graph import ResourceGraph
from patchwave.wiring import Services
from tests.integration.api.maintenance.support import OTHER
from tests.support.azure import Access
from tests.support.maintenance_samples import MACHINE, SUBSCRIPTION
from tests.support.simulator import as_client, running

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
async def azure(access: Access, graph: ResourceGraph, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """Azure as the triggers reach it, without schedules; and as Azure's own clients reach it."""
    schedules = Maintenance(access.settings, access.credential, access.transport)
    vars(services).update(resource_graph=graph, maintenance=schedules)
    async with httpx.AsyncClient(**as_client(access.document), params=API) as http:
        yield http
        await http.delete("/_sim/faults")
        for kind in ("configurationAssignments", "maintenanceConfigurations"):
            found = await http.get(f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Maintenance/{kind}")
            for each in found.json()["value"]:
                await http.delete(each["id"])
    await schedules.close()
