"""Reads of the fleet: only a few at a time, whatever they are, and room again once one has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import azure.functions as func
import pytest

from patchwave.api import drift, fleet, patch_mode_changes, plans
from patchwave.api.endpoint import guarded
from patchwave.api.http import json_response
from patchwave.domain.core.principal import Role
from patchwave.services.fleet_reader import MAX_READS, one_of_few
from patchwave.storage import Storage
from tests.support.http_calls import Answer, call

SCOPE = {"subscriptions": ["11111111-2222-4333-8444-555555555555"]}
READS: dict[str, tuple[Any, dict[str, Any]]] = {
    "doctor": (drift.examine_fleet, {}),
    "plan": (plans.plan_dry_run, {"body": {"policy": {"scope": SCOPE}}}),
    "modes": (fleet.list_fleet_modes, {}),
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
