"""Event Grid: who asks for an event gets one assessment of it, however often it is delivered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adapters.tables import Records
from domain.azure_event import AzureEvent, EventKind
from domain.run import Mode, TriggerKind
from tests.adapters.samples import NOW
from tests.triggers.support import SUBSCRIPTION, Engine, user_function
from triggers.event_grid import maintenance_event, start_for_event
from triggers.http import Refusal

MACHINE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-web/providers/Microsoft.Compute/virtualMachines/web-01"
LONG_ID = (
    f"/subscriptions/{SUBSCRIPTION}/resourcegroups/{'g' * 90}/providers/microsoft.maintenance"
    f"/maintenanceconfigurations/{'c' * 120}/providers/microsoft.maintenance/applyupdates/20261121010000"
)


async def put(records: Records, name: str, **document: Any) -> None:
    whole = {"name": name, "scope": {"subscriptions": [SUBSCRIPTION]}} | document
    await records.put_policy(name, whole, if_match=None, if_none_match=False, at=NOW)


def written(event_id: str = "e-1", machine: str = MACHINE) -> str:
    return json.dumps(
        {
            "id": event_id,
            "subject": machine,
            "eventType": "Microsoft.Resources.ResourceWriteSuccess",
            "data": {"operationName": "Microsoft.Compute/virtualMachines/write"},
        }
    )


async def deliver(engine: Engine, event: str) -> None:
    await user_function(maintenance_event)(event=event, client=engine)


async def test_an_event_that_names_a_key_twice_is_passed_over(
    records: Records, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    await put(records, "newcomers", events={"newMachine": True})
    await deliver(engine, written()[:-1] + ', "subject": "/subscriptions/other"}')
    assert not engine.attempts
    assert "subject" in caplog.text
    await deliver(engine, written())
    assert len(engine.attempts) == 1


async def test_a_policy_that_fails_keeps_no_other_from_an_event(
    records: Records, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a-broken", "newcomers"):
        await put(records, name, events={"newMachine": True})
    whole, failing = records.create_run, True

    async def create(run: Any) -> Any:
        if failing and run.policy == "a-broken":
            raise RuntimeError("no answer")
        return await whole(run)

    monkeypatch.setattr(records, "create_run", create)
    # Event Grid delivers again what has failed, so the failure is not swallowed.
    with pytest.raises(RuntimeError, match="no answer"):
        await deliver(engine, written())
    assert len(engine.instances) == 1
    assert any(line.exc_info for line in caplog.records)
    failing = False
    await deliver(engine, written())
    assert sorted(run_id[17:-9] for run_id in engine.instances) == ["a-broken", "newcomers"]


async def test_a_new_machine_is_assessed_once_within_the_policys_scope(records: Records, engine: Engine) -> None:
    tags = {"values": {"env": ["prod"]}}
    await put(records, "newcomers", scope={"subscriptions": [SUBSCRIPTION], "tags": tags}, events={"newMachine": True})
    await deliver(engine, written())
    await deliver(engine, written())
    await deliver(engine, written(machine=MACHINE.upper().replace("/SUBSCRIPTIONS", "/subscriptions")))

    [run_id] = engine.instances
    run = await records.get_run(run_id)
    assert run is not None
    assert run.mode is Mode.ASSESS
    assert (run.trigger.kind, run.trigger.detail) == (TriggerKind.EVENT_GRID, "e-1")
    assert run.policy_snapshot is not None
    assert run.policy_snapshot["scope"]["machineIds"] == [MACHINE]
    assert run.policy_snapshot["scope"]["tags"]["values"] == {"env": ["prod"]}


async def test_a_change_of_a_known_machine_is_no_news(records: Records, engine: Engine) -> None:
    await put(records, "newcomers", events={"newMachine": True})
    await deliver(engine, written("e-1"))
    await deliver(engine, written("e-2"))
    assert len(engine.instances) == 1
    await deliver(engine, written("e-3", MACHINE.replace("web-01", "web-02")))
    assert len(engine.instances) == 2


@pytest.mark.parametrize(
    "document",
    [
        {"events": {"afterMaintenance": True, "beforeMaintenance": True}},
        {"events": {"newMachine": True}, "enabled": False},
        {"events": {"newMachine": True}, "scope": {"resourceGroups": ["rg-data"]}},
        {"events": {"newMachine": True}, "scope": {"machineIds": [MACHINE.replace("web-01", "web-02")]}},
        {"events": {"newMachine": True}, "scope": {"osTypes": ["Linux"], "exclude": {"resourceGroups": ["RG-WEB"]}}},
        {"events": {"newMachine": True}, "scope": {}},
    ],
)
async def test_who_does_not_ask_gets_no_run(records: Records, engine: Engine, document: dict[str, Any]) -> None:
    await put(records, "other", **document)
    await put(records, "newcomers", events={"newMachine": True})
    await deliver(engine, written())
    runs = await records.list_runs(10, None)
    assert [run.policy for run in runs.items] == ["newcomers"]


async def test_before_and_after_one_maintenance_are_two_runs_even_with_a_long_id(
    records: Records, engine: Engine
) -> None:
    await put(records, "around", events={"beforeMaintenance": True, "afterMaintenance": True})
    before = AzureEvent(EventKind.BEFORE_MAINTENANCE, LONG_ID)
    after = AzureEvent(EventKind.AFTER_MAINTENANCE, LONG_ID)
    for event in (before, after, before, after):
        await start_for_event(records, engine, event)
    runs = (await records.list_runs(10, None)).items
    assert sorted(run.trigger.by for run in runs) == sorted([before.kind.value, after.kind.value])
    assert all(run.mode is Mode.ASSESS for run in runs)


async def test_every_policy_that_asks_gets_its_own_run(records: Records, engine: Engine) -> None:
    for name in ("first", "second"):
        await put(records, name, events={"afterMaintenance": True})
    await start_for_event(records, engine, AzureEvent(EventKind.AFTER_MAINTENANCE, LONG_ID))
    assert sorted(run.policy for run in (await records.list_runs(10, None)).items) == ["first", "second"]


async def test_an_engine_that_is_down_makes_the_delivery_fail_and_the_next_one_good(
    records: Records, engine: Engine
) -> None:
    await put(records, "newcomers", events={"newMachine": True})
    engine.failing = True
    with pytest.raises(Refusal):
        await deliver(engine, written())
    engine.failing = False
    await deliver(engine, written())
    assert len(engine.instances) == 1
    assert len((await records.list_runs(10, None)).items) == 1


@pytest.mark.parametrize(
    "event", ["[]", "{}", "null", '{"eventType": "Something.Else", "id": "x"}', "no JSON", "[" * 100_000]
)
async def test_events_that_nobody_can_ask_for(records: Records, engine: Engine, event: str) -> None:
    await put(records, "all", events={"newMachine": True, "beforeMaintenance": True, "afterMaintenance": True})
    await deliver(engine, event)
    assert engine.attempts == []
