"""What reading the status of thousands of machines asks of Resource Graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from patchwave.azure.resource_graph import ResourceGraph
from patchwave.azure.vm_agents import AgentVersions
from patchwave.domain.policy.scope import Scope
from patchwave.services.patch_status import read_patch_status
from patchwave.wiring import Services
from tests.support.azure import Access
from tests.support.fleet_api import entry, schedule
from tests.support.simulator import as_client, running

MACHINES = 2_400
ASSIGNED = 60


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The ready document of a simulator with machines that have a history, and assignments of some."""
    past = {"assessedHoursAgo": 5, "installedHoursAgo": 50, "pendingPatches": 3}
    machines = [entry(f"vm-{number:05d}", "AutomaticByPlatform", number % 2 == 0, **past) for number in range(MACHINES)]
    with running(tmp_path_factory.mktemp("cost"), machines, "--graph-lag", "0", "--speed", "60") as document:
        with httpx.Client(**as_client(document)) as http:
            schedule(http, [f"vm-{number:05d}" for number in range(ASSIGNED)])
        yield document


async def test_a_page_for_each_thousand_machines_and_a_few_beside_them(
    access: Access, graph: ResourceGraph, services: Services
) -> None:
    """Ten thousand machines are ten pages: with seven beside them far less than 25 queries."""
    versions = AgentVersions(access.settings, access.pipeline())
    vars(services).update(resource_graph=graph, agent_versions=versions)
    async with httpx.AsyncClient(**as_client(access.document)) as http:
        await http.post("/_sim/metrics", json={})
        found = await read_patch_status(services, Scope())
        counts = (await http.get("/_sim/metrics")).json()["requests"]["graph"]
    await versions.close()
    assert found.notes == []
    assert len(found.machines) == MACHINES
    assert all(each.status.assessment and each.status.installation and each.status.extension for each in found.machines)
    assert sum(bool(each.schedules) for each in found.machines) == ASSIGNED
    # The machines; assessments, installations, extensions, assignments; configurations, cancelled runs.
    assert counts == {"200": 3 + 4 + 2}
