"""Coming runs over HTTP against the simulator: their list, and the cancelling of one.

A cancelled run stays cancelled at Azure, whatever becomes of its configuration: each test has an hour of its own.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest

from patchwave.api import maintenance_configurations
from patchwave.domain.core.documents import parse_instant
from tests.integration.api.maintenance.support import audit, callers, coming, place, put
from tests.support.http_calls import call, clock_at
from tests.support.maintenance_samples import CONFIGURATION


async def test_one_coming_run_is_cancelled_and_later_ones_stay(azure: httpx.AsyncClient) -> None:
    await put(body=coming(2))
    runs = (await call(maintenance_configurations.list_coming_runs, query={"count": "2"}, **place())).json["runs"]
    order = {"reason": "release night", "actor": "ana"}
    done = await call(maintenance_configurations.cancel_scheduled_run, body=order, **place())
    assert done.status == 200, done.text
    assert (done.json["run"], done.json["already"]) == (runs[0] | {"canceled": True}, False)
    at_azure = f"{CONFIGURATION}/providers/Microsoft.Maintenance/applyUpdates/"
    params = {"api-version": "2025-11-01"}
    first = (await azure.get(at_azure + runs[0]["run"], params=params)).json()
    assert first["properties"]["status"] == "Cancelled"
    second = await azure.get(at_azure + runs[1]["run"], params=params)
    assert second.status_code == 404 or second.json()["properties"]["status"] != "Cancelled"
    assert await audit() == ["configuration_written", "scheduled_run_canceled"]
    assert await callers() == {("ana (claimed)", "", False)}


async def test_a_run_is_cancelled_by_the_name_that_an_event_gives(azure: httpx.AsyncClient) -> None:
    await put(body=coming(4))
    run = (await call(maintenance_configurations.list_coming_runs, query={"count": "1"}, **place())).json["runs"][0]
    named = f"{CONFIGURATION.lower()}/providers/microsoft.maintenance/applyupdates/{run['run']}"
    done = await call(
        maintenance_configurations.cancel_scheduled_run, body={"reason": "no"}, query={"run": named}, **place()
    )
    assert (done.status, done.json["run"]["run"]) == (200, run["run"])
    wrong = await call(
        maintenance_configurations.cancel_scheduled_run, body={"reason": "no"}, query={"run": "tonight"}, **place()
    )
    assert (wrong.status, wrong.paths) == (400, ["run"])


async def test_a_late_cancel_is_refused_with_the_reason(
    azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(body=coming(6))
    run = (await call(maintenance_configurations.list_coming_runs, query={"count": "1"}, **place())).json["runs"][0]
    starts = parse_instant(run["startsAt"])
    assert starts

    monkeypatch.setattr(maintenance_configurations, "datetime", clock_at(starts - timedelta(minutes=10)))
    late = await call(maintenance_configurations.cancel_scheduled_run, body={"reason": "no"}, **place())
    assert late.status == 409
    assert late.problem["detail"].startswith(f"Too late: the run that starts at {starts:%Y-%m-%d %H:%M:%S}Z could be")
    assert f"The one after it, {starts + timedelta(days=1):%Y%m%d%H%M%S}" in late.problem["detail"]
    assert await audit() == ["configuration_written"]


async def test_a_configuration_without_a_window_has_nothing_to_cancel(azure: httpx.AsyncClient) -> None:
    host = {"location": "eastus2euap", "properties": {"maintenanceScope": "Host"}}
    assert (await azure.put(CONFIGURATION, json=host)).status_code == 200
    refused = await call(maintenance_configurations.cancel_scheduled_run, body={"reason": "no"}, **place())
    assert refused.status == 409
    assert "There is no run to come. When it runs is not known: it has no maintenance window." in refused.text


async def test_a_cancelled_run_shows_as_cancelled_and_so_does_a_second_cancel(azure: httpx.AsyncClient) -> None:
    await put(body=coming(8))
    first, second = (await call(maintenance_configurations.list_coming_runs, query={"count": "2"}, **place())).json[
        "runs"
    ]
    assert (first["canceled"], second["canceled"]) == (False, False)
    order = {"reason": "release night", "actor": "ana"}
    assert (await call(maintenance_configurations.cancel_scheduled_run, body=order, **place())).json["already"] is False

    listed = (await call(maintenance_configurations.list_coming_runs, query={"count": "2"}, **place())).json
    assert [(run["run"], run["canceled"]) for run in listed["runs"]] == [(first["run"], True), (second["run"], False)]
    starts = parse_instant(second["startsAt"])
    assert starts
    note = f"The next run is cancelled; the next one that happens starts at {starts:%Y-%m-%d %H:%M}Z."
    assert note in listed["notes"]
    shown = (await call(maintenance_configurations.get_configuration, **place())).json
    assert (shown["nextRun"]["run"], shown["nextRun"]["canceled"]) == (first["run"], True)
    assert note in shown["notes"]

    # The next run by default, and by its name: neither cancels the one after it.
    for query in ({}, {"run": first["run"]}):
        again = await call(maintenance_configurations.cancel_scheduled_run, body=order, query=query, **place())
        assert again.status == 200, again.text
        assert (again.json["run"]["run"], again.json["already"]) == (first["run"], True)
    assert await audit() == ["configuration_written", "scheduled_run_canceled"]
    change = {"tags": {"owner": "ana"}}
    changed_one = await call(maintenance_configurations.change_configuration, body=change, **place())
    assert changed_one.json["nextRun"]["canceled"] is True


async def test_a_run_that_another_tool_has_cancelled_shows_as_cancelled(azure: httpx.AsyncClient) -> None:
    await put(body=coming(10))
    run = (await call(maintenance_configurations.list_coming_runs, query={"count": "1"}, **place())).json["runs"][0]
    path = f"{CONFIGURATION}/providers/Microsoft.Maintenance/applyUpdates/{run['run']}"
    body = {"properties": {"status": "Cancel"}}
    assert (await azure.put(path, json=body, params={"api-version": "2025-11-01"})).is_success
    listed = (await call(maintenance_configurations.list_coming_runs, query={"count": "1"}, **place())).json
    assert listed["runs"][0]["canceled"] is True
    every = (await call(maintenance_configurations.list_configurations)).json["configurations"]
    assert every[0]["nextRun"]["canceled"] is True


async def test_unknown_cancellations_are_marked(azure: httpx.AsyncClient) -> None:
    await put(body=coming(12))
    order = {"reason": "release night", "actor": "ana"}
    assert (await call(maintenance_configurations.cancel_scheduled_run, body=order, **place())).status == 200
    denied = {"error": {"code": "AuthorizationFailed", "message": "does not have authorization"}}
    rule = {"match": {"operation": "graph"}, "effect": {"status": 403, "body": denied}}
    assert (await azure.post("/_sim/faults", json=rule)).is_success
    listed = (await call(maintenance_configurations.list_coming_runs, query={"count": "1"}, **place())).json
    assert listed["runs"][0]["canceled"] is True, "cancelled here, which the audit log knows"
    assert "Resource Graph did not say which runs are cancelled" in " ".join(listed["notes"])


RUN_ID = f"{CONFIGURATION}/providers/Microsoft.Maintenance/applyUpdates/"


@pytest.mark.parametrize(
    ("hours", "body"),
    [
        (14, {"properties": {"status": "Pending"}, "id": "{run}"}),
        (15, {"properties": {"status": "Cancelled"}, "id": RUN_ID + "20200101000000"}),
        (16, {"properties": {"status": "Cancelled"}, "id": RUN_ID.replace("Adv2", "Adv3") + "{stamp}"}),
        (17, {"properties": {"status": "Cancelled"}}),
        (18, {}),
        (19, None),
    ],
)
async def test_an_answer_about_something_else_is_no_cancellation(
    azure: httpx.AsyncClient, hours: float, body: Any
) -> None:
    await put(body=coming(hours))
    run = (await call(maintenance_configurations.list_coming_runs, query={"count": "1"}, **place())).json["runs"][0][
        "run"
    ]
    text = json.dumps(body).replace("{run}", RUN_ID + run).replace("{stamp}", run)
    rule = {"match": {"method": "PUT", "path": RUN_ID + "*"}, "effect": {"status": 200, "body": text}}
    assert (await azure.post("/_sim/faults", json=rule)).is_success
    refused = await call(maintenance_configurations.cancel_scheduled_run, body={"reason": "no"}, **place())
    assert refused.status in (502, 503), refused.text
    assert await audit() == ["configuration_written"]
    listed = (await call(maintenance_configurations.list_coming_runs, query={"count": "1"}, **place())).json
    assert listed["runs"][0]["canceled"] is False
