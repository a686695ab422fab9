"""Event Grid: what an event names is looked up, and a burst of events is one assessment in a quarter of an hour."""

from __future__ import annotations

import asyncio
import json
import traceback
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from patchwave.domain.policy import stored_policies
from patchwave.domain.policy.policy import Policy, parse_policy
from patchwave.domain.runs.run import Mode, Run, TriggerKind
from patchwave.services import azure_events
from patchwave.services.errors import EngineUnavailable
from patchwave.services.event_lookup import NotKnownYet
from patchwave.services.event_runs import start_waiting_requests
from patchwave.settings import load_settings
from patchwave.storage import Storage
from tests.support.azure_events import (
    MACHINES,
    azure,
    deliver,
    machine_id,
    maintenance,
    occurrence_id,
    put,
    schedule,
    simulator,
    written,
)
from tests.support.factories import stored_run
from tests.support.http_calls import SUBSCRIPTION, Engine, clock_at

__all__ = ["azure", "simulator"]

pytestmark = pytest.mark.usefixtures("azure")

ELSEWHERE = "99999999-2222-4333-8444-555555555555"
QUARTER = timedelta(minutes=15)


@pytest.fixture
def noon() -> datetime:
    """A moment in the middle of a quarter of an hour that is over, so that no run is created before it."""
    return (datetime.now(UTC) - timedelta(hours=1)).replace(minute=5, second=0, microsecond=0)


async def runs_of(storage: Storage, policy: str = "newcomers") -> list[Run]:
    listed = [run.id for run in (await storage.runs.list_page(100, None)).items if run.policy == policy]
    return [run for run_id in listed if (run := await storage.runs.get(run_id)) is not None]


def machines_of(run: Run) -> set[str]:
    assert run.policy_snapshot is not None
    return {text.lower() for text in run.policy_snapshot["scope"]["machineIds"]}


async def reads_of(azure: httpx.AsyncClient, machine: str) -> int:
    """How often Azure was asked for the machine."""
    asked = await azure.get("/_sim/requests", params={"method": "GET", "path": f"*/{machine.rpartition('/')[2]}"})
    return len(asked.json()["requests"])


async def test_an_event_that_names_a_key_twice_is_passed_over(
    storage: Storage, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    await put(storage, "newcomers", events={"newMachine": True})
    await deliver(engine, written()[:-1] + ', "subject": "/subscriptions/other"}')
    assert not engine.attempts
    assert "subject" in caplog.text
    await deliver(engine, written())
    assert len(engine.attempts) == 1


async def test_a_policy_that_fails_keeps_no_other_from_an_event(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a-broken", "newcomers"):
        await put(storage, name, events={"newMachine": True})
    whole, failing = storage.runs.create, True

    async def create(run: Any) -> Any:
        if failing and run.policy == "a-broken":
            raise RuntimeError("no answer")
        return await whole(run)

    monkeypatch.setattr(storage.runs, "create", create)
    # Event Grid delivers again what has failed, so the failure is not swallowed.
    with pytest.raises(RuntimeError, match="no answer"):
        await deliver(engine, written())
    assert len(engine.instances) == 1
    assert any(line.exc_info for line in caplog.records)
    failing = False
    await deliver(engine, written())
    assert sorted(run_id[17:-9] for run_id in engine.instances) == ["a-broken", "newcomers"]


async def test_a_new_machine_is_assessed_once_within_the_policys_scope(storage: Storage, engine: Engine) -> None:
    tags = {"values": {"env": ["prod"]}}
    await put(storage, "newcomers", scope={"subscriptions": [SUBSCRIPTION], "tags": tags}, events={"newMachine": True})
    await deliver(engine, written())
    await deliver(engine, written())
    await deliver(engine, written(machine=machine_id().upper().replace("/SUBSCRIPTIONS", "/subscriptions")))

    [run_id] = engine.instances
    run = await stored_run(storage, run_id)
    assert run.mode is Mode.ASSESS
    assert (run.trigger.kind, run.trigger.detail) == (TriggerKind.EVENT_GRID, "e-1")
    assert run.policy_snapshot is not None
    assert run.policy_snapshot["scope"]["machineIds"] == [machine_id()]
    assert run.policy_snapshot["scope"]["tags"]["values"] == {"env": ["prod"]}
    assert await storage.event_requests.list_open() == []
    [line] = (await storage.audit.list_page(run_id, 10, None)).items
    # Event Grid delivered it, and no person is signed in.
    assert (line["actor"], line["actorId"], line["proven"]) == ("Microsoft.Resources.ResourceWriteSuccess", "", False)


async def test_a_change_of_a_known_machine_is_no_news(
    storage: Storage, engine: Engine, azure: httpx.AsyncClient
) -> None:
    await put(storage, "newcomers", events={"newMachine": True})
    one = machine_id(MACHINES - 1)
    await deliver(engine, written("e-1", one))
    before = await reads_of(azure, one)
    for number in range(2, 12):
        await deliver(engine, written(f"e-{number}", one))
    assert len(engine.instances) == 1
    assert await storage.event_requests.list_open() == []
    # Nor does it cost a read of Azure.
    assert await reads_of(azure, one) == before > 0
    # A policy that is new to it asks for itself.
    await put(storage, "another", events={"newMachine": True})
    await deliver(engine, written("e-12", one))
    assert len(engine.instances) == 2
    assert await reads_of(azure, one) == before + 1


@pytest.mark.parametrize(
    "document",
    [
        {"events": {"afterMaintenance": True, "beforeMaintenance": True}},
        {"events": {"newMachine": True}, "enabled": False},
        {"events": {"newMachine": True}, "scope": {"resourceGroups": ["rg-data"]}},
        {"events": {"newMachine": True}, "scope": {"machineIds": [machine_id(2)]}},
        {"events": {"newMachine": True}, "scope": {"osTypes": ["Linux"], "exclude": {"resourceGroups": ["RG-WEB"]}}},
        {"events": {"newMachine": True}, "scope": {}},
    ],
)
async def test_policies_without_the_trigger_get_no_run(
    storage: Storage, engine: Engine, document: dict[str, Any]
) -> None:
    await put(storage, "other", **document)
    await put(storage, "newcomers", events={"newMachine": True})
    await deliver(engine, written())
    runs = await storage.runs.list_page(10, None)
    assert [run.policy for run in runs.items] == ["newcomers"]


async def test_every_policy_with_the_trigger_gets_its_own_run(storage: Storage, engine: Engine) -> None:
    for name in ("first", "second"):
        await put(storage, name, events={"afterMaintenance": True})
    await deliver(engine, maintenance("Post"))
    assert sorted(run.policy for run in (await storage.runs.list_page(10, None)).items) == ["first", "second"]


async def test_an_engine_that_is_down_makes_the_delivery_fail_and_the_next_one_good(
    storage: Storage, engine: Engine
) -> None:
    await put(storage, "newcomers", events={"newMachine": True})
    engine.failing = True
    with pytest.raises(EngineUnavailable):
        await deliver(engine, written())
    engine.failing = False
    await deliver(engine, written())
    assert len(engine.instances) == 1
    assert len((await storage.runs.list_page(10, None)).items) == 1


@pytest.mark.parametrize(
    "event", ["[]", "{}", "null", '{"eventType": "Something.Else", "id": "x"}', "no JSON", "[" * 100_000]
)
async def test_events_of_no_known_type(storage: Storage, engine: Engine, event: str) -> None:
    await put(storage, "all", events={"newMachine": True, "beforeMaintenance": True, "afterMaintenance": True})
    await deliver(engine, event)
    assert engine.attempts == []


# --- where an event comes from, and what it names


async def test_without_a_list_of_topics_no_event_starts_anything(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await put(storage, "all", events={"newMachine": True, "beforeMaintenance": True})
    monkeypatch.delenv("PATCHWAVE_EVENT_TOPICS")
    load_settings.cache_clear()
    for event in (written(), maintenance("Pre")):
        await deliver(engine, event)
    assert not engine.attempts
    assert "PATCHWAVE_EVENT_TOPICS" in caplog.text
    # The boundary alone is a list of its subscriptions.
    monkeypatch.setenv("PATCHWAVE_SUBSCRIPTIONS", SUBSCRIPTION)
    load_settings.cache_clear()
    await deliver(engine, written())
    assert len(engine.attempts) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"topic": f"/subscriptions/{ELSEWHERE}"},
        {"topic": "t"},
        {"topic": ""},
        {"subject": machine_id().replace(SUBSCRIPTION, ELSEWHERE)},
    ],
)
async def test_an_event_of_another_topic_starts_nothing(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    await put(storage, "newcomers", scope={"locations": ["westeurope"]}, events={"newMachine": True})
    monkeypatch.setenv("PATCHWAVE_EVENT_TOPICS", f"/subscriptions/{SUBSCRIPTION}")
    load_settings.cache_clear()
    await deliver(engine, json.dumps(json.loads(written()) | changes))
    assert not engine.attempts
    assert await storage.event_requests.list_open() == []


async def test_a_machine_that_azure_does_not_have_is_not_assessed(
    storage: Storage, engine: Engine, azure: httpx.AsyncClient
) -> None:
    await put(storage, "newcomers", events={"newMachine": True})
    await deliver(engine, written(machine=machine_id().replace("web-01", "made-up")))
    assert not engine.attempts
    assert await storage.event_requests.list_open() == []
    asked = (await azure.get("/_sim/requests", params={"path": "*/made-up"})).json()["requests"]
    assert [each["method"] for each in asked] == ["GET"]


async def test_why_an_event_started_nothing_is_one_line(
    storage: Storage, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "patchwave.events")

    async def told(event: str) -> list[str]:
        caplog.clear()
        await deliver(engine, event)
        return [line.getMessage() for line in caplog.records if line.name == "patchwave.events"]

    passed_over = "An event of the kind Microsoft.Resources.ResourceWriteSuccess was passed over: "
    assert await told(written()) == [passed_over + "no policy asks for a run."]
    await put(storage, "newcomers", events={"newMachine": True})
    made_up = machine_id().replace("web-01", "made-up")
    assert await told(written(machine=made_up)) == [passed_over + f"Azure shows no machine {made_up}."]
    assert await told(written("e-1")) == []
    assert await told(written("e-2")) == [passed_over + "the machine is known to each policy that asks."]
    assert len(engine.instances) == 1


async def test_a_machine_that_azure_does_not_have_yet_is_one_warning_at_each_delivery(
    storage: Storage, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    await put(storage, "around", events={"beforeMaintenance": True})
    late = occurrence_id(start=datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=31))
    with pytest.raises(NotKnownYet) as caught:
        await deliver(engine, maintenance("Pre", late))
    lines = [line for line in caplog.records if line.name.startswith("patchwave.")]
    assert [(line.levelname, line.exc_info, line.getMessage()) for line in lines] == [
        (
            "WARNING",
            None,
            "An event of the kind Microsoft.Maintenance.PreMaintenanceEvent waits until it is delivered again:"
            f" Azure does not show {late}.",
        )
    ]
    # The host prints what failed the call: no look-up behind it.
    assert "event_lookup.py" not in "".join(traceback.format_exception(caught.value))


async def test_an_azure_that_does_not_answer_has_the_event_delivered_again(
    storage: Storage, engine: Engine, azure: httpx.AsyncClient
) -> None:
    await put(storage, "newcomers", events={"newMachine": True})
    await azure.post("/_sim/faults", json={"match": {"path": "*/web-01"}, "effect": {"status": 503}})
    with pytest.raises(NotKnownYet):
        await deliver(engine, written())
    assert not engine.attempts
    await azure.delete("/_sim/faults")
    await deliver(engine, written())
    assert len(engine.instances) == 1


@pytest.mark.parametrize("kind", ["Pre", "Post"])
async def test_a_scheduled_run_that_azure_does_not_have_starts_nothing(
    storage: Storage, engine: Engine, kind: str
) -> None:
    await put(storage, "around", events={"beforeMaintenance": True, "afterMaintenance": True})
    gone = occurrence_id().replace("/weekly/", "/made-up/")
    await deliver(engine, maintenance(kind, gone))
    # The schedule is there, and has no such run: it may be one that Azure shows in a minute.
    other = occurrence_id(start=datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=31))
    with pytest.raises(NotKnownYet):
        await deliver(engine, maintenance(kind, other))
    assert not engine.attempts


async def test_an_event_weeks_before_its_run_starts_nothing(storage: Storage, engine: Engine) -> None:
    await put(storage, "around", events={"beforeMaintenance": True})
    coming = datetime.fromisoformat(json.loads(maintenance("Pre"))["data"]["StartDateTime"]) + timedelta(days=14)
    await deliver(engine, maintenance("Pre", occurrence_id(start=coming), StartDateTime=f"{coming:%Y-%m-%dT%H:%M:%SZ}"))
    assert not engine.attempts


# --- bursts


async def test_a_burst_of_events_validates_each_policy_once(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [machine_id().replace("web-01", f"é{number}") for number in range(2_000)]
    await put(storage, "large", scope={"machineIds": others}, events={"newMachine": True})
    await put(storage, "small", scope={"resourceGroups": ["rg-data"]}, events={"newMachine": True})
    validated: list[str] = []

    def parse(document: Any, *, name: str) -> Policy:
        validated.append(name)
        return parse_policy(document, name=name)

    monkeypatch.setattr(stored_policies, "parse_policy", parse)
    await asyncio.gather(*(deliver(engine, written(f"e-{number}")) for number in range(50)))
    assert sorted(validated) == ["large", "small"]
    assert not engine.attempts
    # A change counts from the next event on.
    await put(storage, "large", scope={"machineIds": [machine_id(2)]}, events={"newMachine": True})
    await deliver(engine, written("e-last", machine_id(2)))
    assert validated[2:] == ["large"]
    assert [run.policy for run in (await storage.runs.list_page(10, None)).items] == ["large"]


async def test_a_burst_of_new_machines_is_one_run_now_and_one_in_the_next_quarter(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch, noon: datetime
) -> None:
    await put(storage, "newcomers", events={"newMachine": True})
    monkeypatch.setattr(azure_events, "datetime", clock_at(noon))
    await asyncio.gather(*(deliver(engine, written(f"e-{number}", machine_id(number))) for number in range(MACHINES)))
    [first] = await runs_of(storage)
    waiting = await storage.event_requests.list_open()
    await storage.runs.start(first.id, noon)
    # Still the same quarter: nothing more is started.
    assert await start_waiting_requests(storage, engine, noon + timedelta(minutes=9)) == []
    [second] = await start_waiting_requests(storage, engine, noon + QUARTER)
    assert machines_of(first) | machines_of(second) == {machine_id(number).lower() for number in range(MACHINES)}
    assert {request.machine_id.lower() for request in waiting} <= machines_of(second)
    assert await storage.event_requests.list_open() == []
    # All of it comes again, as Event Grid may have it.
    for number in range(MACHINES):
        await deliver(engine, written(f"e-{number}", machine_id(number)))
    assert await start_waiting_requests(storage, engine, noon + 2 * QUARTER) == []
    assert len(engine.instances) == 2


async def test_a_burst_of_schedules_is_one_run_now_and_one_in_the_next_quarter(
    storage: Storage, engine: Engine, azure: httpx.AsyncClient
) -> None:
    await put(storage, "newcomers", events={"beforeMaintenance": True, "afterMaintenance": True})
    names = [await schedule(azure, f"burst-{number}") for number in range(8)]
    for name in names:
        await deliver(engine, maintenance("Pre", occurrence_id(name)))
    runs = await runs_of(storage)
    # The clock may have passed a quarter on the way.
    assert 1 <= len(runs) <= 2
    started = await start_waiting_requests(storage, engine, datetime.now(UTC) + QUARTER)
    assert len(started) == 1
    assert await storage.event_requests.list_open() == []
    assert all(run.policy_snapshot and run.policy_snapshot["scope"]["machineIds"] == [] for run in started)


async def test_what_waits_for_a_policy_that_is_gone_is_dropped(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch, noon: datetime
) -> None:
    for name in ("gone", "disabled", "newcomers"):
        await put(storage, name, events={"newMachine": True})
    monkeypatch.setattr(azure_events, "datetime", clock_at(noon))
    for number in (1, 2):
        await deliver(engine, written(f"e-{number}", machine_id(number)))
    await storage.policies.delete("gone", if_match=None)
    await put(storage, "disabled", events={"newMachine": True}, enabled=False)
    [run] = await start_waiting_requests(storage, engine, noon + QUARTER)
    assert (run.policy, machines_of(run)) == ("newcomers", {machine_id(2).lower()})
    assert await storage.event_requests.list_open() == []


async def test_one_policy_that_fails_keeps_no_other_waiting(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch, noon: datetime
) -> None:
    for name in ("a-broken", "newcomers"):
        await put(storage, name, events={"newMachine": True})
    monkeypatch.setattr(azure_events, "datetime", clock_at(noon))
    for number in (1, 2):
        await deliver(engine, written(f"e-{number}", machine_id(number)))
    whole = storage.runs.get

    async def fail(run_id: str) -> Run | None:
        if "a-broken" in run_id:
            raise RuntimeError("no answer")
        return await whole(run_id)

    with monkeypatch.context() as patched:
        patched.setattr(storage.runs, "get", fail)
        assert [run.policy for run in await start_waiting_requests(storage, engine, noon + QUARTER)] == ["newcomers"]
    assert [run.policy for run in await start_waiting_requests(storage, engine, noon + QUARTER)] == ["a-broken"]


async def test_a_run_that_was_created_and_not_scheduled_is_found_by_the_timer(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch, noon: datetime
) -> None:
    await put(storage, "newcomers", events={"newMachine": True})
    monkeypatch.setattr(azure_events, "datetime", clock_at(noon))
    engine.failing = True
    with pytest.raises(EngineUnavailable):
        await deliver(engine, written())
    assert len(await storage.event_requests.list_open()) == 1
    engine.failing = False
    [run] = await start_waiting_requests(storage, engine, noon + timedelta(minutes=5))
    assert machines_of(run) == {machine_id().lower()}
    assert list(engine.instances) == [run.id]
    assert await storage.event_requests.list_open() == []
