"""The boundary in front of schedules: what a caller is told, and what Azure gets to see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from patchwave.api import maintenance_assignments, maintenance_configurations
from patchwave.azure.maintenance import Maintenance
from patchwave.wiring import Services
from tests.integration.api.maintenance.support import assign, place, put
from tests.support.azure import Access
from tests.support.http_calls import Answer, call
from tests.support.maintenance_samples import CONFIGURATION, MACHINE, SUBSCRIPTION

REASON = {"reason": "no longer wanted"}
NAMED = {"machine": MACHINE, "configuration": CONFIGURATION} | REASON
WRITES: dict[str, Callable[[], Awaitable[Answer]]] = {
    "create": lambda: put("another"),
    "replace": put,
    "change": lambda: call(maintenance_configurations.change_configuration, body={"tags": {"owner": "ana"}}, **place()),
    "delete": lambda: call(maintenance_configurations.delete_configuration, query=REASON, **place()),
    "cancel": lambda: call(maintenance_configurations.cancel_scheduled_run, body=REASON, **place()),
    "assign": lambda: assign(resourceId=MACHINE),
    "remove": lambda: call(maintenance_assignments.remove_assignments, query=NAMED),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_outside_of_the_boundary_no_schedule_is_touched(
    azure: httpx.AsyncClient, access: Access, services: Services, write: Callable[[], Awaitable[Answer]]
) -> None:
    assert (await put()).status == 201
    assert (await assign(resourceId=MACHINE)).status == 200
    elsewhere = access.settings.model_copy(update={"subscriptions": "99999999-9999-4999-8999-999999999999"})
    schedules = Maintenance(elsewhere, access.credential, access.transport)
    vars(services).update(maintenance=schedules)
    before = await written(azure)
    assert before
    refused = await write()
    await schedules.close()
    assert refused.problem["status"] == 403
    assert f"{SUBSCRIPTION} is not in PATCHWAVE_SUBSCRIPTIONS" in refused.text
    assert await written(azure) == before


async def written(azure: httpx.AsyncClient) -> list[Any]:
    """What Azure was asked for beside reads and queries."""
    found: list[Any] = []
    for method in ("PUT", "PATCH", "DELETE"):
        asked = await azure.get("/_sim/requests", params={"method": method, "path": "*/Microsoft.Maintenance/*"})
        found += asked.json()["requests"]
    return found
