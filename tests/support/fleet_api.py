"""The API of the fleet against a simulator with a few machines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from patchwave.azure.resource_graph import ResourceGraph
from patchwave.azure.vm_agents import AgentVersions
from patchwave.wiring import Services
from tests.support.azure import Access
from tests.support.maintenance_requests import API, body
from tests.support.simulator import as_client, running

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-modes"
CONFIGURATION = f"{GROUP}/providers/Microsoft.Maintenance/maintenanceConfigurations/nightly"
JAMMY = {"publisher": "Canonical", "offer": "0001-com-ubuntu-server-jammy", "sku": "22_04-lts"}
UNLISTED = {"publisher": "Canonical", "offer": "ubuntu-26_04-lts", "sku": "server"}
SCENARIOS = {
    1: ("AutomaticByPlatform", True, True),
    2: ("AutomaticByPlatform", True, False),
    3: ("AutomaticByPlatform", False, True),
    4: ("AutomaticByPlatform", False, False),
    5: ("ImageDefault", True, True),
    6: ("ImageDefault", True, False),
    7: ("ImageDefault", False, True),
    8: ("ImageDefault", False, False),
}


def machine_id(name: str) -> str:
    return f"{GROUP}/providers/Microsoft.Compute/virtualMachines/{name}"


def entry(name: str, mode: str, bypass: bool, **simulation: Any) -> dict[str, Any]:
    """A Linux machine of the fleet file; of an image that is supported, unless it has the name ``unlisted``."""
    settings = {
        "patchMode": mode,
        "assessmentMode": "AutomaticByPlatform",
        "automaticByPlatformSettings": {"bypassPlatformSafetyChecksOnUserSchedule": bypass},
    }
    return {
        "id": machine_id(name),
        "location": "westeurope",
        "osType": "Linux",
        "tags": {"env": "test"},
        "properties": {
            "osProfile": {"linuxConfiguration": {"patchSettings": settings}},
            "storageProfile": {"imageReference": UNLISTED if name == "unlisted" else JAMMY},
        },
        "simulation": simulation,
    }


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The ready document of a simulator with a machine for each scenario, two others, and a schedule."""
    folder = tmp_path_factory.mktemp("modes")
    machines = [entry(f"scenario-{number}", mode, bypass) for number, (mode, bypass, _) in SCENARIOS.items()]
    machines += [entry("unlisted", "AutomaticByPlatform", False), entry("old", "ImageDefault", False, agent="old")]
    # At that speed the minute by which Resource Graph lags is a moment.
    with running(folder, machines, "--speed", "1200") as document:
        with httpx.Client(**as_client(document)) as http:
            schedule(http, [f"scenario-{number}" for number, (*_, is_scheduled) in SCENARIOS.items() if is_scheduled])
        yield document


def schedule(http: httpx.Client, names: list[str]) -> None:
    """A configuration, and assignments of these machines."""
    start = f"{datetime.now(UTC) + timedelta(days=400):%Y-%m-%d} 22:00"
    configuration = body(startDateTime=start, duration="03:00", timeZone="UTC")
    reply = http.put(CONFIGURATION, params=API, json=configuration)
    assert reply.is_success, reply.text
    for name in names:
        assignment = f"{machine_id(name)}/providers/Microsoft.Maintenance/configurationAssignments/nightly"
        properties = {"maintenanceConfigurationId": CONFIGURATION}
        reply = http.put(assignment, params=API, json={"location": "westeurope", "properties": properties})
        assert reply.is_success, reply.text


@pytest.fixture
async def azure(access: Access, graph: ResourceGraph, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """Azure as the triggers reach it; the simulator's own controls for the test."""
    versions = AgentVersions(access.settings, access.pipeline())
    vars(services).update(resource_graph=graph, agent_versions=versions)
    async with httpx.AsyncClient(**as_client(access.document)) as http:
        yield http
        await http.delete("/_sim/faults")
    await versions.close()
