"""Pre and post events: one run per scheduled run and policy, whatever comes, how often, and in which order."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.tables import Records
from domain.run import Mode, RunState
from orchestrators.names import POST_EVENT
from tests.adapters.samples import NOW
from tests.triggers.support import SUBSCRIPTION, Engine, call, user_function
from triggers import occurrences
from triggers.event_grid import maintenance_event
from triggers.http import Refusal

CONFIGURATION = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-updates"
    "/providers/Microsoft.Maintenance/maintenanceConfigurations/weekly"
)
START = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=38)
ID = f"{CONFIGURATION.lower()}/providers/microsoft.maintenance/applyupdates/{START:%Y%m%d%H%M%S}"


def event(kind: str, occurrence: str = ID, *, cloud: bool = False) -> str:
    data = {
        "CorrelationId": occurrence,
        "MaintenanceConfigurationId": CONFIGURATION,
        "StartDateTime": f"{START:%Y-%m-%dT%H:%M:%SZ}",
        "EndDateTime": f"{START + timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}",
        "ResourceSubscriptionIds": [SUBSCRIPTION],
        **({"Status": "Succeeded"} if kind == "Post" else {}),
    }
    word = "type" if cloud else "eventType"
    return json.dumps({"id": occurrence, word: f"Microsoft.Maintenance.{kind}MaintenanceEvent", "data": data})


async def deliver(engine: Engine, text: str) -> None:
    await user_function(maintenance_event)(event=text, client=engine)


async def put(records: Records, name: str = "weekly", **document: Any) -> None:
    around = {"configurations": [CONFIGURATION]}
    whole = {"name": name, "scope": {"subscriptions": [SUBSCRIPTION]}, "maintenance": around} | document
    await records.put_policy(name, whole, if_match=None, if_none_match=False, at=NOW)


@pytest.mark.parametrize("order", [("Pre", "Pre", "Post", "Post"), ("Post", "Pre", "Post"), ("Pre", "Post", "Pre")])
async def test_one_run_whatever_the_order_of_events(records: Records, engine: Engine, order: tuple[str, ...]) -> None:
    await put(records)
    for number, kind in enumerate(order):
        await deliver(engine, event(kind, cloud=bool(number % 2)))
    [(run_id, (name, _))] = engine.instances.items()
    assert name == "accompany_run"
    run = await records.get_run(run_id)
    assert run is not None
    assert (run.mode, run.state, run.trigger.detail) == (Mode.ACCOMPANY, RunState.QUEUED, ID)
    assert run.maintenance is not None
    assert run.maintenance.heard_before_at is not None
    assert run.maintenance.heard_after_at is not None
    assert run.maintenance.status == "Succeeded"
    assert run.maintenance.subscriptions == [SUBSCRIPTION]
    assert run.maintenance.cancel_until == START - timedelta(minutes=10)
    assert set(engine.events) <= {(run_id, POST_EVENT)}


async def test_only_what_a_policy_names_is_accompanied(records: Records, engine: Engine) -> None:
    await put(records, "other", maintenance={"configurations": [CONFIGURATION.replace("weekly", "monthly")]})
    await put(records, "disabled", enabled=False)
    await put(records, "wrong", scope={})
    await put(records, "plain", maintenance=None)
    await deliver(engine, event("Pre"))
    await deliver(engine, event("Pre", "not-an-id"))
    assert engine.instances == {}
    await put(records, "one")
    await put(records, "two")
    await deliver(engine, event("Pre"))
    assert len(engine.instances) == 2


async def test_a_post_event_finds_the_run_of_a_policy_that_is_gone(records: Records, engine: Engine) -> None:
    await put(records)
    await deliver(engine, event("Pre"))
    [run_id] = engine.instances
    await records.start_run(run_id, NOW)
    await records.delete_policy("weekly", if_match=None)
    await deliver(engine, event("Post"))
    run = await records.get_run(run_id)
    assert run is not None
    assert run.maintenance is not None
    assert run.maintenance.heard_after_at is not None
    assert engine.events == [(run_id, POST_EVENT)]


async def test_an_engine_that_is_away_has_the_event_delivered_again(records: Records, engine: Engine) -> None:
    await put(records)
    engine.failing = True
    with pytest.raises(Refusal):
        await deliver(engine, event("Pre"))
    engine.failing = False
    await deliver(engine, event("Pre"))
    assert len(engine.instances) == 1


@pytest.mark.parametrize("method", ["create_run", "audit"])
async def test_one_policy_that_fails_keeps_no_other_from_the_scheduled_run(
    records: Records, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    for name in ("a-broken", "one", "two"):
        await put(records, name)
    whole = getattr(records, method)
    error = RuntimeError("no answer")

    async def failing(subject: Any, *args: Any, **kwargs: Any) -> Any:
        if "a-broken" in str(getattr(subject, "id", subject)):
            raise error
        return await whole(subject, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(records, method, failing)
        with pytest.raises(RuntimeError, match="no answer"):
            await deliver(engine, event("Pre"))
    policies = {run.policy for run in (await records.list_runs(10, None)).items if run.maintenance is not None}
    assert policies >= {"one", "two"}
    assert len(engine.instances) == 2
    assert any(line.exc_info and line.exc_info[1] is error for line in caplog.records)
    # Event Grid delivers the event again.
    await deliver(engine, event("Pre"))
    assert len(engine.instances) == 3


async def test_events_of_a_run_that_has_ended_change_nothing(records: Records, engine: Engine) -> None:
    await put(records)
    await deliver(engine, event("Pre"))
    [run_id] = engine.instances
    ended = await records.close_run(run_id, RunState.COMPLETED, "", NOW)
    await deliver(engine, event("Pre"))
    await deliver(engine, event("Post"))
    assert await records.get_run(run_id) == ended
    assert len(engine.instances) == 1


async def test_scheduled_runs_are_listed_apart_from_others(records: Records, engine: Engine) -> None:
    await put(records)
    await put(records, "assessor", maintenance=None, events={"beforeMaintenance": True})
    await deliver(engine, event("Pre"))
    assert len(engine.instances) == 2
    listed = await call(occurrences.list_maintenance_occurrences)
    [one] = listed.json["occurrences"]
    assert one["occurrence"]["id"] == ID
    shown = await call(occurrences.get_maintenance_occurrence, runId=one["runId"])
    assert shown.json["occurrence"] == one["occurrence"]
    machines = await call(occurrences.list_maintenance_occurrence_machines, runId=one["runId"])
    assert machines.json == {"machines": [], "cursor": None}
    [other] = [run_id for run_id in engine.instances if run_id != one["runId"]]
    assert (await call(occurrences.get_maintenance_occurrence, runId=other)).status == 404
