"""How the patching of a fleet stands, over HTTP: of the fleet from Resource Graph, of one machine from itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from patchwave.api import fleet
from patchwave.azure.resource_graph import ResourceGraph
from patchwave.azure.virtual_machines import ResourceManager
from patchwave.azure.vm_agents import AgentVersions
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.azure import Access
from tests.support.factories import NOW
from tests.support.fleet_api import CONFIGURATION, entry, machine_id, schedule
from tests.support.http_calls import POLICY, call
from tests.support.simulator import as_client, running

CHANGES = machine_id("changes").replace("rg-modes", "rg-changes")
"""A machine whose settings a test changes."""


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The ready document of a simulator with a machine in each state of enablement."""
    folder = tmp_path_factory.mktemp("status")
    # On a clock that is twenty times as fast: five hours, and thirty, by the stamps.
    past = {"assessedHoursAgo": 100, "installedHoursAgo": 600, "pendingPatches": 3}
    machines = [
        entry("enabled", "AutomaticByPlatform", True, **past),
        entry("failed", "AutomaticByPlatform", False, patchExtension="failed"),
        entry("fresh", "AutomaticByPlatform", True, patchExtension="missing"),
        entry("reboots", "AutomaticByPlatform", True, assessedHoursAgo=1, rebootPending=True, pendingPatches=1),
        entry("partly", "AutomaticByPlatform", True, installedHoursAgo=1, installFails=1, pendingPatches=4),
        entry("changes", "AutomaticByPlatform", True) | {"id": CHANGES},
    ]
    with running(folder, machines, "--graph-lag", "0", "--speed", "20") as document:
        with httpx.Client(**as_client(document)) as http:
            schedule(http, ["enabled"])
        yield document


@pytest.fixture
async def azure(access: Access, graph: ResourceGraph, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """Azure as the routes reach it; the simulator's own controls for the test."""
    versions = AgentVersions(access.settings, access.pipeline())
    manager = ResourceManager(access.settings, access.credential)
    manager._pipeline = access.pipeline()  # pyright: ignore[reportPrivateUsage]
    vars(services).update(resource_graph=graph, agent_versions=versions, resource_manager=manager)
    async with httpx.AsyncClient(**as_client(access.document)) as http:
        yield http
        await http.delete("/_sim/faults")
    await versions.close()
    await manager.close()


async def status(**query: str) -> dict[str, Any]:
    answered = await call(fleet.list_fleet_status, query={"resourceGroup": "rg-modes"} | query)
    assert answered.status == 200, answered.text
    return answered.json


async def of_machine(name: str) -> dict[str, Any]:
    """One machine, which is read itself."""
    [machine] = (await status(machine=machine_id(name)))["machines"]
    return machine


async def test_the_fleet_level(azure: httpx.AsyncClient):
    found = await status()
    machines = {each["name"]: each for each in found["machines"]}
    assert {name: each["enablement"]["state"] for name, each in machines.items()} == {
        "enabled": "enabled",
        "failed": "failed",
        "fresh": "in_progress",
        "reboots": "enabled",
        "partly": "unknown",
    }
    enabled = machines["enabled"]["status"]
    assert (enabled["level"], enabled["assessment"]["ageHours"]) == ("fleet", 5.0)
    assert enabled["assessment"]["startedBy"] == "Platform"
    assert enabled["installation"]["resultStatus"] == "Succeeded"
    assert enabled["installation"]["installed"] > 0
    assert enabled["extension"]["type"] == "Microsoft.CPlat.Core.LinuxPatchExtension"
    assert machines["reboots"]["status"]["rebootPending"] is True
    partly = machines["partly"]["status"]["installation"]
    assert (partly["resultStatus"], partly["failed"]) == ("Failed", 1)
    assert [error["code"] for error in partly["errors"]] == ["OPERATION_FAILED"]
    assert machines["fresh"]["status"] == {
        "level": "fleet",
        "assessment": None,
        "installation": None,
        "rebootPending": None,
        "extension": None,
        "modesReady": [],
    }
    assert found["counts"]["byEnablement"] == {"enabled": 2, "failed": 1, "in_progress": 1, "unknown": 1}
    assert (found["counts"]["rebootPending"], found["notes"], found["cursor"]) == (1, [], None)


async def test_the_machine_level(azure: httpx.AsyncClient):
    machine = await of_machine("enabled")
    told = machine["status"]
    assert (told["level"], told["modesReady"]) == ("machine", ["PatchMode", "AssessmentMode"])
    assert (told["extension"]["version"], told["extension"]["state"]) == ("1.6.60", "Succeeded")
    assert told["assessment"]["resultStatus"] == "Succeeded"
    # What only Resource Graph tells of the same installation.
    assert told["installation"]["startedBy"] == "Platform"
    assert machine["enablement"]["state"] == "enabled"
    failed = await of_machine("failed")
    assert failed["enablement"]["state"] == "failed"
    assert "could not reach its package source" in failed["enablement"]["sentence"]


async def test_a_mode_that_was_set_a_moment_ago_counts(azure: httpx.AsyncClient):
    changed = {"patchMode": "ImageDefault", "assessmentMode": "ImageDefault"}
    body = {"properties": {"osProfile": {"linuxConfiguration": {"patchSettings": changed}}}}
    reply = await azure.patch(CHANGES, params={"api-version": "2025-04-01"}, json=body)
    assert reply.is_success, reply.text
    [found] = (await status(machine=CHANGES, resourceGroup=""))["machines"]
    assert found["status"]["level"] == "machine"
    assert (found["settings"]["patchMode"], found["enablement"]["state"]) == ("ImageDefault", "off")


async def test_what_patches_it_next(azure: httpx.AsyncClient, storage: Storage):
    document = {
        "name": "monthly",
        **POLICY,
        "scope": {"machineIds": [machine_id("enabled"), machine_id("reboots")]},
        "schedule": {"recurrence": "2099-01-05", "time": "20:00", "timeZone": "UTC", "window": "PT4H"},
    }
    await storage.policies.put("monthly", document, if_match=None, if_none_match=True, at=NOW)
    machines = {each["name"]: each for each in (await status())["machines"]}
    first, second = machines["enabled"]["nextPatching"]
    assert (first["source"], first["name"]) == ("schedule", CONFIGURATION.rpartition("/")[2])
    assert (second["source"], second["at"], second["endsAt"]) == (
        "policy",
        "2099-01-05T20:00:00.000Z",
        "2099-01-06T00:00:00.000Z",
    )
    assert [each["name"] for each in machines["reboots"]["nextPatching"]] == ["monthly"]
    assert machines["fresh"]["nextPatching"] == []
    covered = (await status(policy="monthly"))["machines"]
    assert [each["name"] for each in covered] == ["enabled", "reboots"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"enablement": "failed,in_progress"}, ["failed", "fresh"]),
        ({"rebootPending": "true"}, ["reboots"]),
        ({"rebootPending": "false"}, ["enabled", "failed", "fresh", "partly"]),
        ({"patchedBy": "schedule"}, ["enabled"]),
        ({"policy": "other"}, []),
    ],
)
async def test_filters_leave_the_counts_alone(azure: httpx.AsyncClient, query: dict[str, str], names: list[str]):
    found = await status(**query)
    assert [each["name"] for each in found["machines"]] == names
    assert found["counts"]["machines"] == 5


async def test_pages(azure: httpx.AsyncClient):
    names: list[str] = []
    cursor = ""
    while True:
        page = await status(limit="2", cursor=cursor)
        names += [each["name"] for each in page["machines"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert names == ["enabled", "failed", "fresh", "partly", "reboots"]


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"enablement": "perhaps"}, "enablement"),
        ({"rebootPending": "yes"}, "rebootPending"),
        ({"policy": "p" * 33}, "policy"),
        ({"machine": "/subscriptions/x"}, "machineIds[0]"),
    ],
)
async def test_a_query_that_is_none(azure: httpx.AsyncClient, query: dict[str, str], path: str):
    answered = await call(fleet.list_fleet_status, query=query)
    assert (answered.status, answered.paths) == (400, [path])


async def test_a_machine_that_does_not_answer_is_shown_as_resource_graph_knows_it(azure: httpx.AsyncClient):
    await azure.post("/_sim/faults", json={"match": {"operation": "read"}, "effect": {"status": 403}})
    found = await status(machine=machine_id("enabled"))
    assert found["machines"][0]["status"]["level"] == "fleet"
    assert found["notes"][0].startswith("The instance view could not be read, so that Resource Graph's data is shown")


async def test_azure_that_refuses_is_a_502(azure: httpx.AsyncClient):
    await azure.post("/_sim/faults", json={"match": {"operation": "graph"}, "effect": {"status": 403}})
    answered = await call(fleet.list_fleet_status)
    assert answered.status == 502
