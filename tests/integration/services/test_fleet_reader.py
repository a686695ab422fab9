"""Reads of the fleet: only a few at a time, whatever they are, and room again once one has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import azure.functions as func
import pytest

from patchwave.api import drift, fleet, patch_mode_changes, plans
from patchwave.api.endpoint import guarded
from patchwave.api.http import json_response
from patchwave.azure.resource_graph import QueryPage, QueryRefused
from patchwave.domain.core.principal import Role
from patchwave.domain.fleet.discovery import DiscoveryQuery
from patchwave.domain.fleet.eligibility import ImageSupport
from patchwave.domain.fleet.machine import FleetMachine
from patchwave.domain.policy.scope import Scope
from patchwave.services.fleet_reader import MAX_READS, one_of_few, read_with_agents
from patchwave.settings import Settings
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.http_calls import Answer, call

SCOPE = {"subscriptions": ["11111111-2222-4333-8444-555555555555"]}
READS: dict[str, tuple[Any, dict[str, Any]]] = {
    "doctor": (drift.examine_fleet, {}),
    "plan": (plans.plan_dry_run, {"body": {"policy": {"scope": SCOPE}}}),
    "modes": (fleet.list_fleet_modes, {}),
    "status": (fleet.list_fleet_status, {}),
    "eligibility": (fleet.list_fleet_eligibility, {}),
    "mode change": (patch_mode_changes.plan_mode_change, {"body": {"scope": SCOPE, "bypass": True}}),
}


@pytest.fixture
def held() -> tuple[asyncio.Event, Callable[[], Awaitable[Answer]]]:
    """A read that goes on until the event is set."""
    end = asyncio.Event()

    @partial(guarded, role=Role.READER)
    @one_of_few
    async def get_openapi(req: func.HttpRequest) -> func.HttpResponse:
        await end.wait()
        return json_response({})

    async def read() -> Answer:
        return Answer(await get_openapi(req=func.HttpRequest("GET", "/", body=b"")))

    return end, read


@pytest.mark.usefixtures("no_identity")
@pytest.mark.parametrize("name", READS)
async def test_no_more_than_a_few_read_the_fleet_at_a_time(
    storage: Storage, held: tuple[asyncio.Event, Callable[[], Awaitable[Answer]]], name: str
) -> None:
    end, read = held
    function, given = READS[name]
    in_progress = [asyncio.ensure_future(read()) for _ in range(MAX_READS)]
    await asyncio.sleep(0)
    refused = await call(function, **given)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "10")
    assert refused.problem["detail"].startswith("4 reads of the fleet are in progress")
    end.set()
    assert [each.status for each in await asyncio.gather(*in_progress)] == [200] * MAX_READS
    assert (await call(function, **given)).status == 502


@pytest.mark.usefixtures("no_identity")
async def test_a_read_that_fails_gives_its_place_back(storage: Storage) -> None:
    for _ in range(MAX_READS + 1):
        assert (await call(fleet.list_fleet_eligibility)).status == 502
    for _ in range(MAX_READS + 1):
        assert (await call(fleet.list_fleet_eligibility, query={"limit": "x"})).status == 400


async def test_a_read_that_is_cancelled_gives_its_place_back(
    storage: Storage, held: tuple[asyncio.Event, Callable[[], Awaitable[Answer]]]
) -> None:
    end, read = held
    in_progress = [asyncio.ensure_future(read()) for _ in range(MAX_READS)]
    await asyncio.sleep(0)
    for each in in_progress:
        each.cancel()
    await asyncio.gather(*in_progress, return_exceptions=True)
    end.set()
    assert (await read()).status == 200


# --- what Azure last answered ----------------------------------------------------------------------------------

MACHINE = f"/subscriptions/{SCOPE['subscriptions'][0]}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm"


class Graph:
    """Resource Graph with one Linux machine, and its newest assessment or the refusal of that."""

    def __init__(self, sku: str, assessment: dict[str, Any] | None, refusal: str = "") -> None:
        image = {"publisher": "Canonical", "offer": "ubuntu-26_04-lts", "sku": sku}
        self.machine = {"id": MACHINE, "name": "vm", "osType": "Linux", "imageReference": image}
        self.assessment, self.refusal = assessment, refusal
        self.assessments_read = 0

    async def pages(self, queries: list[DiscoveryQuery]) -> AsyncIterator[QueryPage]:
        if not queries[0].text.startswith("patchassessmentresources"):
            yield QueryPage(rows=[self.machine])
            return
        self.assessments_read += 1
        if self.refusal:
            raise QueryRefused(self.refusal)
        latest = {"id": f"{MACHINE}/patchAssessmentResults/latest", **(self.assessment or {})}
        yield QueryPage(rows=[{"id": latest["id"], "amount": 1, "packed": [latest]}])


class Versions:
    """Every agent has the same version."""

    async def read(self, subscription_ids: list[str]) -> tuple[dict[str, str], list[str]]:
        return {MACHINE.lower(): "2.11.1.12"}, []


async def read(graph: Graph, **settings: str) -> tuple[FleetMachine, list[str]]:
    services = Services(
        Settings(tables_endpoint="https://a.table.core.windows.net", **settings),  # pyright: ignore[reportArgumentType]
        resource_graph=graph,
        agent_versions=Versions(),
    )
    [machine], notes = await read_with_agents(services, Scope())
    assert machine.agent_version == "2.11.1.12"
    return machine, notes


async def test_an_assessment_that_succeeded_shows_that_azure_takes_the_image() -> None:
    graph = Graph("server", {"modifiedAt": "2026-11-30T04:00:00Z", "status": "Succeeded", "missing": {}})
    machine, notes = await read(graph)
    assert (machine.eligibility.image_support, notes) == (ImageSupport.ANSWERED, [])
    assert "Azure assessed the machine at 2026-11-30T04:00" in machine.eligibility.image_note
    failed, _ = await read(Graph("server", {"modifiedAt": "2026-11-30T04:00:00Z", "status": "Failed"}))
    assert failed.eligibility.is_image_undecided


async def test_assessments_are_read_only_where_they_decide() -> None:
    graph = Graph("server", {"modifiedAt": "2026-11-30T04:00:00Z", "status": "Succeeded"})
    machine, _ = await read(graph, supported_images="Canonical:ubuntu-26_04-lts:*")
    assert (machine.eligibility.image_support, graph.assessments_read) == (ImageSupport.LISTED, 0)


async def test_assessments_that_cannot_be_read_leave_images_unknown_and_are_noted() -> None:
    machine, notes = await read(Graph("server", None, "HTTP 403 Forbidden."))
    assert machine.eligibility.is_image_undecided
    assert notes == [
        "What Azure last answered for machines whose image the table lacks is not known: HTTP 403 Forbidden."
    ]
