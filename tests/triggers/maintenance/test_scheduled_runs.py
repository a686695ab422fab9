"""Coming runs over HTTP against the simulator: their list, and the cancelling of one."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest

from domain.base import parse_instant
from tests.triggers.maintenance.support import audit, place, put
from tests.triggers.support import call, clock_at
from tests.unit.maintenance_samples import CONFIGURATION
from triggers import scheduled_runs


async def test_one_coming_run_is_cancelled_and_later_ones_stay(azure: httpx.AsyncClient) -> None:
    await put()
    runs = (await call(scheduled_runs.list_coming_runs, query={"count": "2"}, **place())).json["runs"]
    order = {"reason": "release night", "by": "ana"}
    done = await call(scheduled_runs.cancel_scheduled_run, body=order, **place())
    assert done.status == 200, done.text
    assert done.json["run"] == runs[0]
    at_azure = f"{CONFIGURATION}/providers/Microsoft.Maintenance/applyUpdates/"
    params = {"api-version": "2025-11-01"}
    first = (await azure.get(at_azure + runs[0]["run"], params=params)).json()
    assert first["properties"]["status"] == "Cancelled"
    second = await azure.get(at_azure + runs[1]["run"], params=params)
    assert second.status_code == 404 or second.json()["properties"]["status"] != "Cancelled"
    assert await audit() == ["configuration_written", "scheduled_run_canceled"]


async def test_a_run_is_cancelled_by_the_name_that_an_event_gives(azure: httpx.AsyncClient) -> None:
    await put()
    run = (await call(scheduled_runs.list_coming_runs, query={"count": "1"}, **place())).json["runs"][0]
    named = f"{CONFIGURATION.lower()}/providers/microsoft.maintenance/applyupdates/{run['run']}"
    done = await call(scheduled_runs.cancel_scheduled_run, body={"reason": "no"}, query={"run": named}, **place())
    assert (done.status, done.json["run"]["run"]) == (200, run["run"])
    wrong = await call(scheduled_runs.cancel_scheduled_run, body={"reason": "no"}, query={"run": "tonight"}, **place())
    assert (wrong.status, wrong.paths) == (400, ["run"])


async def test_it_is_said_clearly_when_it_is_too_late(
    azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put()
    run = (await call(scheduled_runs.list_coming_runs, query={"count": "1"}, **place())).json["runs"][0]
    starts = parse_instant(run["startsAt"])
    assert starts

    monkeypatch.setattr(scheduled_runs, "datetime", clock_at(starts - timedelta(minutes=10)))
    late = await call(scheduled_runs.cancel_scheduled_run, body={"reason": "no"}, **place())
    assert late.status == 409
    assert late.problem["detail"].startswith(f"Too late: the run that starts at {starts:%Y-%m-%d %H:%M:%S}Z could be")
    assert f"The one after it, {starts + timedelta(days=1):%Y%m%d%H%M%S}" in late.problem["detail"]
    assert await audit() == ["configuration_written"]


async def test_a_configuration_without_a_window_has_nothing_to_cancel(azure: httpx.AsyncClient) -> None:
    host = {"location": "eastus2euap", "properties": {"maintenanceScope": "Host"}}
    assert (await azure.put(CONFIGURATION, json=host)).status_code == 200
    refused = await call(scheduled_runs.cancel_scheduled_run, body={"reason": "no"}, **place())
    assert refused.status == 409
    assert "There is no run to come. Nobody can say when it runs: it has no maintenance window." in refused.text
