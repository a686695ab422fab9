"""Changes of patch modes over HTTP: planned on the simulator's fleet, started and stopped on an engine that records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from patchwave.api import patch_mode_changes
from patchwave.domain.core.command import Command
from patchwave.domain.fleet.machine import read_machine
from patchwave.domain.fleet.patch_mode import PatchMode, WantedSettings
from patchwave.domain.fleet.patch_mode_change import ChangeState, ModeChange, change_id, plan_machine
from patchwave.domain.policy.scope import Scope
from patchwave.domain.runs.retention import Retention
from patchwave.domain.workflow import contracts
from patchwave.services.retention import purge
from patchwave.settings import load_settings
from patchwave.storage import Storage
from tests.support.fleet_api import azure, machine_id, simulator
from tests.support.http_calls import Answer, Engine, PurgedEngine, call

__all__ = ["azure", "simulator"]

ORDER = {"reason": "tested", "actor": "ann"}


def request(*names: str, **changes: Any) -> dict[str, Any]:
    scope = {"machineIds": [machine_id(name) for name in names]}
    return {"scope": scope, "patchMode": "AutomaticByPlatform", "bypass": True, "actor": "ann", **changes}


async def plan(*names: str, **changes: Any) -> dict[str, Any]:
    answered = await call(patch_mode_changes.plan_mode_change, body=request(*names, **changes))
    assert answered.status == 201, answered.text
    assert answered.headers["Location"] == f"/api/fleet/mode-changes/{answered.json['id']}"
    return answered.json


async def machines(change: dict[str, Any], **query: str) -> dict[str, dict[str, Any]]:
    answered = await call(patch_mode_changes.list_mode_change_machines, query=query, changeId=change["id"])
    assert answered.status == 200, answered.text
    return {machine["name"]: machine for machine in answered.json["machines"]}


async def order(what: str, change: dict[str, Any], engine: Engine | None = None) -> Answer:
    function = patch_mode_changes.start_mode_change if what == "start" else patch_mode_changes.stop_mode_change
    return await call(function, body=ORDER, engine=engine, changeId=change["id"])


async def test_a_plan_has_the_change_of_each_machine_and_changes_nothing(azure: httpx.AsyncClient):
    before = (await azure.get("/_sim/requests", params={"limit": "1"})).json()["count"]
    change = await plan("scenario-1", "scenario-3", "scenario-8", "not-there", reason="move")
    assert (change["state"], change["machines"], change["toChange"]) == ("planned", 4, 2)
    assert change["countsByEnd"] == {"unchanged": 1, "failed": 1}
    assert (change["planned"]["actor"], change["planned"]["reason"]) == ("ann (claimed)", "move")
    rows = await machines(change)
    assert {name: row["end"] for name, row in rows.items()} == {
        "scenario-1": "unchanged",
        "scenario-3": None,
        "scenario-8": None,
        "not-there": "failed",
    }
    assert rows["scenario-8"]["before"]["patchMode"] == "ImageDefault"
    assert (await machines(change, end="unchanged")).keys() == {"scenario-1"}
    asked = (await azure.get("/_sim/requests", params={"since": str(before)})).json()["requests"]
    assert {each["method"] for each in asked if "virtualMachines" in each["path"]} == set()


async def test_a_limit_that_no_change_could_reach_is_refused(azure: httpx.AsyncClient):
    answered = await call(patch_mode_changes.plan_mode_change, body=request("scenario-1", maxFailures=2**32))
    assert answered.status == 400
    assert "maxFailures" in answered.text


async def test_what_azure_would_refuse_is_refused_in_the_plan(azure: httpx.AsyncClient):
    change = await plan("scenario-8", patchMode="Manual", bypass=None)
    [row] = (await machines(change)).values()
    assert (row["end"], row["message"]) == (
        "refused",
        "Linux has no mode Manual; it has AutomaticByPlatform, ImageDefault.",
    )
    assert change["toChange"] == 0


async def test_what_the_change_will_not_achieve_is_noted(azure: httpx.AsyncClient):
    change = await plan("unlisted", patchMode="AutomaticByPlatform", bypass=False, assessmentMode="ImageDefault")
    [row] = (await machines(change)).values()
    assert row["end"] is None
    assert "not in the table of 2026-12-01" in row["note"]


async def test_a_start_schedules_it_once_and_again_on_request(azure: httpx.AsyncClient, engine: Engine):
    change = await plan("scenario-8")
    for _ in range(2):
        answered = await order("start", change, engine)
        assert (answered.status, answered.json["state"]) == (202, "running")
    assert engine.instances == {
        change["id"]: (contracts.CHANGE_PATCH_MODES.name, {"changeId": change["id"], "wave": 0, "lostWaves": 0})
    }
    listed = await call(patch_mode_changes.list_mode_change_audit, changeId=change["id"])
    assert [line["action"] for line in listed.json["audit"]] == ["mode_change_planned", "mode_change_started"]
    assert {(line["actor"], line["actorId"], line["proven"]) for line in listed.json["audit"]} == {
        ("ann (claimed)", "", False)
    }


async def test_an_engine_that_is_away_is_a_503_and_the_start_can_be_repeated(azure: httpx.AsyncClient, engine: Engine):
    change = await plan("scenario-8")
    engine.failing = True
    refused = await order("start", change, engine)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "15")
    engine.failing = False
    assert (await order("start", change, engine)).status == 202


async def test_a_plan_that_was_stopped_cannot_be_started(azure: httpx.AsyncClient, engine: Engine):
    change = await plan("scenario-8")
    stopped = await order("stop", change)
    assert (stopped.status, stopped.json["state"]) == (202, "stopped")
    assert (await order("stop", change)).status == 202, "a repeated order changes nothing"
    again = await order("start", change, engine)
    assert (again.status, "plan a new one" in again.problem["detail"]) == (409, True)
    assert engine.instances == {}


async def test_a_change_is_stopped_by_a_command_in_the_query(azure: httpx.AsyncClient):
    change = await plan("scenario-8")
    stop = patch_mode_changes.stop_mode_change
    refused = await call(stop, changeId=change["id"])
    assert (refused.status, refused.problem["errors"][0]["path"]) == (400, "reason")
    stopped = await call(stop, query={"reason": "tested", "actor": "ann"}, changeId=change["id"])
    assert (stopped.status, stopped.json["state"]) == (202, "stopped")


async def test_a_plan_holds_for_a_day(storage: Storage, engine: Engine):
    old = await stored(storage, timedelta(hours=25))
    refused = await order("start", {"id": old}, engine)
    assert refused.status == 409
    assert "24 hours" in refused.problem["detail"]
    fresh = await stored(storage, timedelta(hours=23))
    assert (await order("start", {"id": fresh}, engine)).status == 202


async def stored(storage: Storage, age: timedelta, state: ChangeState = ChangeState.PLANNED) -> str:
    """A change of that age over one machine."""
    at = datetime.now(UTC) - age
    wanted = WantedSettings(patch_mode=PatchMode.AUTOMATIC_BY_PLATFORM)
    machine = read_machine({"id": machine_id("vm"), "osType": "Linux"})
    assert machine is not None
    change = ModeChange(
        id=change_id(at, "1a2b3c4d"),
        state=state,
        wanted=wanted,
        scope=Scope(),
        max_concurrent=1,
        max_failures=1,
        planned=Command(actor="ann", at=at),
        machines=1,
    )
    await storage.patch_mode_changes.create(change, [plan_machine(machine, wanted, at)])
    await storage.audit.add(change.id, "mode_change_planned", actor="ann", at=at)
    return change.id


async def test_changes_are_listed_newest_first(storage: Storage):
    older, newer = await stored(storage, timedelta(hours=2)), await stored(storage, timedelta(hours=1))
    answered = await call(patch_mode_changes.list_mode_changes, query={"limit": "1"})
    assert [each["id"] for each in answered.json["changes"]] == [newer]
    behind = await call(patch_mode_changes.list_mode_changes, query={"cursor": answered.json["cursor"]})
    assert [each["id"] for each in behind.json["changes"]] == [older]


async def test_old_changes_are_purged_like_runs_and_those_in_progress_stay(storage: Storage):
    gone, busy = (
        await stored(storage, timedelta(days=500)),
        await stored(storage, timedelta(days=501), ChangeState.RUNNING),
    )
    kept = await stored(storage, timedelta(days=100))
    retention = Retention(runs=timedelta(days=400), history=None, instances=None)
    assert await purge(storage, PurgedEngine(), retention, datetime.now(UTC)) == [gone]
    page = await storage.patch_mode_changes.list_page(10, None)
    assert [change.id for change in page.items] == [kept, busy]
    assert (await storage.audit.list_page(gone, 10, None)).items == []


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"patchMode": None, "bypass": None}, "$"),
        ({"patchMode": "Manual"}, "$"),
        ({"patchMode": "automatic"}, "patchMode"),
        ({"scope": {}}, "scope"),
        ({"scope": {"machineIds": ["x"]}}, "scope.machineIds[0]"),
        ({"maxConcurrent": 0}, "maxConcurrent"),
        ({"maxConcurrent": 101}, "maxConcurrent"),
        ({"maxfailures": 1}, "maxfailures"),
    ],
)
async def test_a_request_that_is_none(storage: Storage, changes: dict[str, Any], path: str):
    answered = await call(patch_mode_changes.plan_mode_change, body=request("scenario-8", **changes))
    assert (answered.status, answered.paths) == (400, [path])


@pytest.mark.parametrize("name", ["x", "20261121T140000Z-modes-00000000", "00000000T000000Z-modes-00000000"])
async def test_a_change_that_there_is_not(storage: Storage, engine: Engine, name: str):
    for function in (patch_mode_changes.get_mode_change, patch_mode_changes.list_mode_change_machines):
        assert (await call(function, changeId=name)).status == 404
    assert (await order("start", {"id": name}, engine)).status == 404


async def test_an_end_that_there_is_not(storage: Storage):
    name = await stored(storage, timedelta(hours=1))
    answered = await call(patch_mode_changes.list_mode_change_machines, query={"end": "gone"}, changeId=name)
    assert (answered.status, answered.paths) == (400, ["end"])


async def test_machines_outside_of_the_boundary_are_refused_with_the_reason(
    azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATCHWAVE_SUBSCRIPTIONS", "99999999-9999-4999-8999-999999999999")
    load_settings.cache_clear()
    refused = await call(patch_mode_changes.plan_mode_change, body=request("scenario-3"))
    assert (refused.status, refused.paths) == (400, ["scope.machineIds[0]"])
    # A scope that names no subscription shows what is there, and changes nothing of it.
    row = (await machines(await plan(scope={"locations": ["westeurope"], "osTypes": ["Linux"]})))["scenario-3"]
    assert row["end"] == "refused"
    assert "PATCHWAVE_SUBSCRIPTIONS" in row["message"]


async def test_a_change_of_nothing_but_systems_needs_the_boundary(azure: httpx.AsyncClient):
    refused = await call(patch_mode_changes.plan_mode_change, body=request(scope={"osTypes": ["Linux"]}))
    assert (refused.status, refused.paths) == (400, ["scope"])
