"""Pre and post events: one run per scheduled run and policy, whatever comes, how often, and in which order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from patchwave.api import maintenance_runs
from patchwave.domain.core.documents import format_instant
from patchwave.domain.runs.run import Mode, RunState
from patchwave.domain.workflow.contracts import Signal
from patchwave.services.errors import EngineUnavailable
from patchwave.services.event_lookup import NotKnownYet
from patchwave.storage import Storage
from tests.support.azure_events import (
    CONFIGURATION,
    START,
    WINDOW,
    azure,
    deliver,
    maintenance,
    occurrence_id,
    schedule,
    simulator,
)
from tests.support.azure_events import put as put_policy
from tests.support.factories import NOW, stored_run
from tests.support.http_calls import Engine, call

__all__ = ["azure", "simulator"]

pytestmark = pytest.mark.usefixtures("azure")

ID = occurrence_id()


async def put(storage: Storage, name: str = "weekly", **document: Any) -> None:
    await put_policy(storage, name, **({"maintenance": {"configurations": [CONFIGURATION]}} | document))


@pytest.mark.parametrize("order", [("Pre", "Pre", "Post", "Post"), ("Post", "Pre", "Post"), ("Pre", "Post", "Pre")])
async def test_one_run_whatever_the_order_of_events(storage: Storage, engine: Engine, order: tuple[str, ...]) -> None:
    await put(storage)
    for number, kind in enumerate(order):
        await deliver(engine, maintenance(kind, cloud=bool(number % 2)))
    [(run_id, (name, _))] = engine.instances.items()
    assert name == "run_maintenance"
    run = await stored_run(storage, run_id)
    assert (run.mode, run.state, run.trigger.detail) == (Mode.MAINTENANCE, RunState.QUEUED, ID)
    assert run.maintenance is not None
    assert run.maintenance.pre_event_at is not None
    assert run.maintenance.post_event_at is not None
    assert run.maintenance.status == "Succeeded"
    assert run.maintenance.cancel_deadline == START - timedelta(minutes=10)
    assert set(engine.events) <= {(run_id, Signal.POST_MAINTENANCE)}


async def test_only_configurations_of_policies_get_a_maintenance_run(storage: Storage, engine: Engine) -> None:
    await put(storage, "other", maintenance={"configurations": [CONFIGURATION.replace("weekly", "monthly")]})
    await put(storage, "disabled", enabled=False)
    await put(storage, "wrong", scope={})
    await put(storage, "plain", maintenance=None)
    await deliver(engine, maintenance("Pre"))
    await deliver(engine, maintenance("Pre", "not-an-id"))
    assert engine.instances == {}
    await put(storage, "one")
    await put(storage, "two")
    await deliver(engine, maintenance("Pre"))
    assert len(engine.instances) == 2


async def test_a_post_event_finds_the_run_of_a_policy_that_is_gone(storage: Storage, engine: Engine) -> None:
    await put(storage)
    await deliver(engine, maintenance("Pre"))
    [run_id] = engine.instances
    await storage.runs.start(run_id, NOW)
    await storage.policies.delete("weekly", if_match=None)
    await deliver(engine, maintenance("Post"))
    run = await stored_run(storage, run_id)
    assert run.maintenance is not None
    assert run.maintenance.post_event_at is not None
    assert engine.events == [(run_id, Signal.POST_MAINTENANCE)]


async def test_an_engine_that_is_away_has_the_event_delivered_again(storage: Storage, engine: Engine) -> None:
    await put(storage)
    engine.failing = True
    with pytest.raises(EngineUnavailable):
        await deliver(engine, maintenance("Pre"))
    engine.failing = False
    await deliver(engine, maintenance("Pre"))
    assert len(engine.instances) == 1


@pytest.mark.parametrize(("repository", "method"), [("runs", "create"), ("audit", "add")])
async def test_one_policy_that_fails_keeps_no_other_from_the_scheduled_run(
    storage: Storage,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    repository: str,
    method: str,
) -> None:
    for name in ("a-broken", "one", "two"):
        await put(storage, name)
    records = getattr(storage, repository)
    whole = getattr(records, method)
    error = RuntimeError("no answer")

    async def failing(subject: Any, *args: Any, **kwargs: Any) -> Any:
        if "a-broken" in str(getattr(subject, "id", subject)):
            raise error
        return await whole(subject, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(records, method, failing)
        with pytest.raises(RuntimeError, match="no answer"):
            await deliver(engine, maintenance("Pre"))
    policies = {run.policy for run in (await storage.runs.list_page(10, None)).items if run.maintenance is not None}
    assert policies >= {"one", "two"}
    assert len(engine.instances) == 2
    assert any(line.exc_info and line.exc_info[1] is error for line in caplog.records)
    # Event Grid delivers the event again.
    await deliver(engine, maintenance("Pre"))
    assert len(engine.instances) == 3


async def test_events_of_a_run_that_has_ended_change_nothing(storage: Storage, engine: Engine) -> None:
    await put(storage)
    await deliver(engine, maintenance("Pre"))
    [run_id] = engine.instances
    ended = await storage.runs.close(run_id, RunState.COMPLETED, "", NOW)
    await deliver(engine, maintenance("Pre"))
    await deliver(engine, maintenance("Post"))
    assert await storage.runs.get(run_id) == ended
    assert len(engine.instances) == 1


async def test_scheduled_runs_are_listed_apart_from_others(storage: Storage, engine: Engine) -> None:
    await put(storage)
    await put(storage, "assessor", maintenance=None, events={"beforeMaintenance": True})
    await deliver(engine, maintenance("Pre"))
    assert len(engine.instances) == 2
    listed = await call(maintenance_runs.list_maintenance_runs)
    [one] = listed.json["runs"]
    assert one["occurrence"]["id"] == ID
    shown = await call(maintenance_runs.get_maintenance_run, runId=one["runId"])
    assert shown.json["occurrence"] == one["occurrence"]
    machines = await call(maintenance_runs.list_maintenance_run_machines, runId=one["runId"])
    assert machines.json == {"machines": [], "cursor": None}
    [other] = [run_id for run_id in engine.instances if run_id != one["runId"]]
    assert (await call(maintenance_runs.get_maintenance_run, runId=other)).status == 404


# --- times are Azure's, whatever the first event says


@pytest.mark.parametrize(
    "claimed",
    [
        {"EndDateTime": f"{START + timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}"},
        {"EndDateTime": f"{START + timedelta(days=30):%Y-%m-%dT%H:%M:%SZ}"},
        {"CancellationCutOffDateTime": f"{START - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"},
        {"ResourceSubscriptionIds": []},
        {"ResourceSubscriptionIds": ["99999999-2222-4333-8444-555555555555"]},
    ],
)
async def test_times_of_azure_win_over_those_of_the_first_event(
    storage: Storage, engine: Engine, claimed: dict[str, Any]
) -> None:
    await put(storage)
    await deliver(engine, maintenance("Pre", **claimed))
    [run_id] = engine.instances
    run = await stored_run(storage, run_id)
    assert run.maintenance is not None
    known = run.maintenance
    assert (known.starts_at, known.ends_at) == (START, START + WINDOW)
    assert known.cancel_deadline == START - timedelta(minutes=10)
    assert known.post_deadline == START + WINDOW + timedelta(hours=1)
    assert known.subscriptions == []
    assert known.pre_deadline > datetime.now(UTC)


async def test_a_later_event_corrects_times_that_azure_has_changed(
    storage: Storage, engine: Engine, azure: httpx.AsyncClient
) -> None:
    changed = await schedule(azure, "changed")
    await put(storage, maintenance={"configurations": [changed]})
    event = maintenance("Pre", occurrence_id(changed))
    await deliver(engine, event)
    [run_id] = engine.instances
    first = await storage.runs.get(run_id)
    await schedule(azure, "changed", duration="03:30")
    await deliver(engine, event)
    run = await storage.runs.get(run_id)
    assert first is not None
    assert run is not None
    assert first.maintenance is not None
    assert run.maintenance is not None
    assert first.maintenance.ends_at == START + WINDOW
    end = START + timedelta(hours=3, minutes=30)
    assert (run.maintenance.ends_at, run.maintenance.post_deadline) == (end, end + timedelta(hours=1))
    assert run.maintenance.pre_deadline == first.maintenance.pre_deadline
    assert run.maintenance.pre_event_at == first.maintenance.pre_event_at
    told = [
        line["detail"]
        for line in (await storage.audit.list_page(run_id, 10, None)).items
        if line["action"] == "maintenance_event"
    ]
    assert [detail["endsAt"] for detail in told] == [format_instant(end)]
    # Once more, and nothing is news.
    await deliver(engine, event)
    assert await storage.runs.get(run_id) == run


async def test_a_start_that_the_calendar_does_not_have_is_that_of_resource_graph(
    storage: Storage, engine: Engine, azure: httpx.AsyncClient
) -> None:
    monthly = await schedule(azure, "monthly", START + timedelta(days=30))
    await put(storage, maintenance={"configurations": [monthly]})
    claimed: dict[str, Any] = {"StartDateTime": f"{START + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"}
    # The id says one time and the event another: only a run that Azure shows has a start.
    with pytest.raises(NotKnownYet):
        await deliver(engine, maintenance("Pre", occurrence_id(monthly), **claimed))
    assert not engine.attempts
    by_hand = {"configuration": monthly, "inMinutes": 35}
    fired = (await azure.post("/_sim/maintenance/fire", json=by_hand)).json()
    await deliver(engine, maintenance("Pre", fired["id"], **claimed))
    [run_id] = engine.instances
    run = await stored_run(storage, run_id)
    assert run.maintenance is not None
    assert abs(run.maintenance.starts_at - datetime.fromisoformat(fired["startsAt"])) < timedelta(seconds=1)


async def test_an_event_long_after_the_window_prepares_and_patches_up_nothing(
    storage: Storage, engine: Engine, azure: httpx.AsyncClient
) -> None:
    """The script after, an assessment, the power as it was: none of it belongs to a run of last week."""
    began = START - timedelta(days=7)
    await put(storage)
    await schedule(azure, "weekly", START)
    past = f"{began:%Y-%m-%dT%H:%M:%SZ}"
    with pytest.raises(NotKnownYet):
        await deliver(engine, maintenance("Post", occurrence_id(start=began), StartDateTime=past))
    assert not engine.attempts


async def test_a_pre_event_of_a_later_run_does_not_use_up_its_work_before(storage: Storage, engine: Engine) -> None:
    later = START + timedelta(days=1)
    await put(storage)
    await deliver(engine, maintenance("Pre", occurrence_id(start=later), StartDateTime=f"{later:%Y-%m-%dT%H:%M:%SZ}"))
    assert not engine.attempts
    assert (await storage.runs.list_page(10, None)).items == []
