"""F16 to F18: triggers that come twice, much later, out of order, or three days late."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from patchwave.domain.core.webhook_signature import Call, policy_secret, signature_of
from patchwave.domain.runs.run import RunState
from patchwave.services.scheduler import start_due_policies
from patchwave.storage import Storage
from tests.conftest import WEBHOOK_SECRET
from tests.e2e.test_maintenance_run import fire, prepare
from tests.resilience.faults.invariants import hold_invariants
from tests.support.factories import NOW as STORED_AT
from tests.support.http_calls import SUBSCRIPTION, Engine, clock_at, user_function
from tests.support.product import Product, wait_until
from triggers.timers import start_scheduled_runs

type Json = dict[str, Any]

OPENS = datetime(2026, 11, 10, 19, tzinfo=UTC)
SCHEDULE = {"recurrence": "second Tuesday", "time": "20:00", "timeZone": "Europe/Berlin", "window": "PT4H"}
RUN_ID = "20261110T190000Z-monthly"


def at_once[Result](call: Callable[[], Result], times: int = 2) -> list[Result]:
    """The same call so many times at the same moment."""
    with ThreadPoolExecutor(times) as pool:
        return [each.result() for each in [pool.submit(call) for _ in range(times)]]


@contextmanager
def stored(product: Product, name: str, ids: list[str], **fields: object) -> Generator[str]:
    """A stored policy over these machines, for as long as the test lasts."""
    reply = product.api.put(f"/api/policies/{name}", json={"scope": {"machineIds": ids}, **fields})
    assert reply.status_code in (200, 201), reply.text
    try:
        yield name
    finally:
        product.api.delete(f"/api/policies/{name}")


def runs_of(product: Product, policy: str) -> list[Json]:
    """The policy's runs, of all pages: an event's run has the id of its quarter's begin, and others are newer."""
    found: list[Json] = []
    cursor: str | None = ""
    while cursor is not None:
        page = product.api.get("/api/runs", params={"limit": 50} | ({"cursor": cursor} if cursor else {})).json()
        found += [run for run in page["runs"] if run["policy"] == policy]
        cursor = page["cursor"]
    return found


def deliver(product: Product, *events: Json) -> int:
    """Deliver as Event Grid does; the status of the answer."""
    return product.api.post(
        "/runtime/webhooks/EventGrid",
        params={"functionName": "maintenance_event"},
        json=list(events),
        headers={"aeg-event-type": "Notification"},
    ).status_code


@contextmanager
def announced(product: Product, name: str, ids: list[str], *asked: str) -> Generator[tuple[Json, Json]]:
    """The pre and post event of a scheduled run that the simulator shows, with a policy that asks for these."""
    asking: Json = {"scope": {"machineIds": ids}, "maintenance": None, "events": dict.fromkeys(asked, True)}
    configuration = prepare(product, name, ids, **asking)
    fired = fire(product, configuration, sendPre=False, sendPost=False)
    rows = "/_sim/maintenance"
    assert any(each["id"] == fired["id"] for each in product.azure.get(rows).json()["occurrences"])

    def event(kind: str) -> Json:
        return {
            "id": fired["id"],
            "eventType": f"Microsoft.Maintenance.{kind}MaintenanceEvent",
            "subject": name,
            "topic": configuration,
            "eventTime": "2026-11-21T00:00:00Z",
            "dataVersion": "1.0",
            "data": {"startDateTime": fired["startsAt"]},
        }

    try:
        yield event("Pre"), event("Post")
    finally:
        product.api.delete(f"/api/policies/{name}")


# --- F16: the same trigger twice within a second


def test_f16_a_webhook_delivery_twice_at_once_is_one_run(product: Product) -> None:
    ids = product.take(1)
    body = json.dumps({"mode": "patch"}).encode()
    sent = Call("f16-hooked", "f16-twice", body)
    signature = signature_of(sent, policy_secret(WEBHOOK_SECRET, "f16-hooked"), time.time())
    headers = {"X-Patchwave-Signature": signature, "X-Patchwave-Delivery": "f16-twice"}
    with stored(product, "f16-hooked", ids):

        def call() -> httpx.Response:
            return product.api.post("/api/webhooks/f16-hooked", content=body, headers=headers)

        replies = at_once(call)
        assert {reply.status_code for reply in replies} == {202}
        (run_id,) = {reply.json()["id"] for reply in replies}
        hold_invariants(product, run_id, ids)
        assert [run["id"] for run in runs_of(product, "f16-hooked")] == [run_id]


@pytest.mark.chaos
def test_f16_a_start_twice_at_once_with_one_key_is_one_run(product: Product) -> None:
    ids = product.take(1)
    body = {"policy": {"name": "f16-keyed", "scope": {"machineIds": ids}}}

    def call() -> httpx.Response:
        return product.api.post("/api/runs", json=body, headers={"Idempotency-Key": "f16-key"})

    replies = at_once(call, 3)
    assert {reply.status_code for reply in replies} == {202}
    (run_id,) = {reply.json()["id"] for reply in replies}
    hold_invariants(product, run_id, ids)


@pytest.mark.chaos
def test_f16_an_event_twice_at_once_is_one_run(product: Product) -> None:
    ids = product.take(1)
    with announced(product, "f16-around", ids, "beforeMaintenance") as (event, _):

        def taken() -> list[Json]:
            # Again and again, as Event Grid does while Resource Graph does not show the run yet.
            at_once(lambda: deliver(product, event))
            return runs_of(product, "f16-around")

        (run,) = wait_until(taken)
        hold_invariants(product, run["id"], ids)
        assert len(runs_of(product, "f16-around")) == 1


@pytest.mark.chaos
def test_f16_a_timer_that_ticks_twice_at_once_starts_one_run(product: Product) -> None:
    ids = product.take(1)
    began = (datetime.now(UTC) - timedelta(minutes=2)).replace(second=0, microsecond=0)
    schedule = {"recurrence": "RRULE:FREQ=DAILY", "time": f"{began:%H:%M}", "timeZone": "UTC", "window": "PT2H"}
    with stored(product, "f16-nightly", ids, schedule=schedule):
        at_once(lambda: product.api.post("/admin/functions/start_scheduled_runs", json={"input": ""}))
        run_id = f"{began:%Y%m%dT%H%M%SZ}-f16-nightly"
        wait_until(lambda: product.api.get(f"/api/runs/{run_id}").status_code == 200)
        hold_invariants(product, run_id, ids)
        assert len(runs_of(product, "f16-nightly")) == 1
        assert product.accepted(ids[0])["install"] == 1


# --- F17: redelivery much later, and out of order


def test_f17_a_repeated_event_after_the_end_and_out_of_order_starts_nothing_more(product: Product) -> None:
    ids = product.take(1)
    asked = ("beforeMaintenance", "afterMaintenance")
    with announced(product, "f17-around", ids, *asked) as (before, after):

        def taken() -> list[Json]:
            deliver(product, after)
            return runs_of(product, "f17-around")

        (run,) = wait_until(taken)
        hold_invariants(product, run["id"], ids)
        # The other event waits for the next quarter of an hour, or is there already if one has begun.
        deliver(product, before)
        ended = runs_of(product, "f17-around")
        # What an event stands for is kept for good, so that a day more or less makes no difference.
        deliver(product, before, after)
        assert runs_of(product, "f17-around") == ended


async def put(storage: Storage, **document: Any) -> None:
    whole = {"name": "monthly", "scope": {"subscriptions": [SUBSCRIPTION]}, "schedule": SCHEDULE} | document
    await storage.policies.put("monthly", whole, if_match=None, if_none_match=False, at=STORED_AT - timedelta(days=90))


async def test_f17_a_tick_of_a_day_later_starts_nothing(storage: Storage, engine: Engine) -> None:
    await put(storage)
    [run] = await start_due_policies(storage, engine, OPENS)
    await storage.runs.close(run.id, RunState.COMPLETED, "", OPENS + timedelta(hours=1))
    for later in (timedelta(hours=3), timedelta(hours=23)):
        await start_due_policies(storage, engine, OPENS + later)
    assert engine.attempts == [RUN_ID]
    assert [each.id for each in (await storage.runs.list_page(10, None)).items] == [RUN_ID]


# --- F18: the timer is late by three days


async def test_f18_a_timer_that_is_three_days_late_patches_nothing_and_reports_it(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(storage)
    monkeypatch.setattr("triggers.timers.datetime", clock_at(OPENS + timedelta(days=3)))
    last = {"Last": (OPENS - timedelta(minutes=5)).isoformat()}
    timer = SimpleNamespace(past_due=True, schedule_status=last)
    for _ in range(2):
        await user_function(start_scheduled_runs)(timer=timer, client=engine)
    assert engine.attempts == []
    assert (await storage.runs.list_page(10, None)).items == []
    [line] = (await storage.audit.list_page("monthly", 10, None)).items
    assert (line["action"], line["actor"]) == ("occurrence_not_started", "timer")
    assert datetime.fromisoformat(line["at"]) == OPENS
    assert line["detail"] == {
        "decision": "missed",
        "reason": "the timer did not run between 2026-11-10 18:55 and 2026-11-13 19:00 UTC",
    }


@pytest.mark.parametrize(
    "timer",
    [
        SimpleNamespace(past_due=True),
        SimpleNamespace(past_due=True, schedule_status={}),
        SimpleNamespace(past_due=True, schedule_status={"Last": "0001-01-01T00:00:00+00:00"}),
        SimpleNamespace(past_due=True, schedule_status={"Last": "yesterday"}),
        SimpleNamespace(past_due=False, schedule_status={"Last": OPENS.isoformat()}),
    ],
)
async def test_f18_a_timer_that_does_not_say_since_when_notes_nothing(
    storage: Storage, engine: Engine, timer: object
) -> None:
    await put(storage)
    await user_function(start_scheduled_runs)(timer=timer, client=engine)
    assert (await storage.audit.list_page("monthly", 10, None)).items == []
