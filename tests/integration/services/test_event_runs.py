"""Runs that install because of an event: by the calendar, once, and beside the run of the policy's own schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.runs.run import Mode, Run, RunState, TriggerKind
from patchwave.domain.scheduling.event_requests import EventRequest, request_key
from patchwave.domain.scheduling.freeze import parse_freeze
from patchwave.domain.scheduling.overrides import Pause
from patchwave.services import azure_events
from patchwave.services.event_runs import start_waiting_requests
from patchwave.services.scheduler import start_what_is_due
from patchwave.storage import Storage
from tests.support.azure_events import azure, deliver, machine_id, maintenance, put, written
from tests.support.factories import machine, run
from tests.support.http_calls import Engine, clock_at
from tests.support.simulator import running

__all__ = ["azure"]

pytestmark = pytest.mark.usefixtures("azure")

OFF = 3
MINUTE, HOUR, QUARTER = timedelta(minutes=1), timedelta(hours=1), timedelta(minutes=15)
PATCH = {"newMachine": True, "mode": "patch"}


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The ready document of a simulator with four machines, of which the last is off."""
    fleet = [{"id": machine_id(number), "location": "westeurope", "osType": "Linux"} for number in range(OFF)]
    off = {"id": machine_id(OFF), "location": "westeurope", "osType": "Linux", "powerState": "PowerState/deallocated"}
    with running(tmp_path_factory.mktemp("runs"), [*fleet, off], "--graph-lag", "0", "--speed", "1") as document:
        yield document


def opening(at: datetime) -> dict[str, str]:
    """A schedule whose only window opens at that moment."""
    return {"recurrence": f"{at:%Y-%m-%d}", "time": f"{at:%H:%M}", "timeZone": "UTC", "window": "PT4H"}


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


def started(event_id: str = "s-1", number: int = 1) -> str:
    action = {"operationName": "Microsoft.Compute/virtualMachines/start/action"}
    kind = "Microsoft.Resources.ResourceActionSuccess"
    return written(event_id, machine_id(number), eventType=kind, data=action)


async def runs_of(storage: Storage, policy: str = "monthly") -> list[Run]:
    listed = (await storage.runs.list_page(100, None)).items
    found = [await storage.runs.get(each.id) for each in listed if each.policy == policy]
    return [each for each in found if each is not None]


async def waits(storage: Storage, action: str = "event_requests_wait") -> list[str]:
    lines = (await storage.audit.list_page("monthly", 50, None)).items
    return [str(line["detail"]["reason"]) for line in lines if line["action"] == action]


async def own_run(storage: Storage, at: datetime, *numbers: int, **fields: Any) -> Run:
    """The run of the policy's own schedule, which has found the machines of these numbers."""
    document = {"id": f"{at:%Y%m%dT%H%M%SZ}-monthly", "state": RunState.RUNNING, "created_at": at} | fields
    made, _ = await storage.runs.create(run(at, **document))
    identities = [MachineId.parse(machine_id(number)) for number in numbers]
    await storage.machines.add(made.id, [machine(1, id=each.text, key=each.key, name=each.name) for each in identities])
    return made


async def test_a_new_machine_is_patched_at_once_where_no_window_counts(storage: Storage, engine: Engine) -> None:
    await put(storage, "monthly", events=PATCH | {"onlyInWindow": False})
    for _ in range(2):
        await deliver(engine, written())
    [found] = await runs_of(storage)
    assert (found.mode, found.occurrence, found.window_end) == (Mode.PATCH, None, None)
    assert (found.trigger.kind, found.trigger.detail) == (TriggerKind.EVENT_GRID, "e-1")
    assert found.policy_snapshot is not None
    assert found.policy_snapshot["scope"]["machineIds"] == [machine_id()]
    assert len(engine.instances) == 1
    assert await storage.event_requests.list_open() == []


@pytest.mark.parametrize("document", [{"mode": "assess"}, {"events": {"newMachine": True}}])
async def test_a_policy_that_assesses_installs_nothing(
    storage: Storage, engine: Engine, document: dict[str, Any]
) -> None:
    await put(storage, "monthly", **{"events": PATCH | {"onlyInWindow": False}} | document)
    await deliver(engine, written())
    [found] = await runs_of(storage)
    assert found.mode is Mode.ASSESS


async def test_outside_of_a_window_it_waits_for_the_run_of_the_schedule(
    storage: Storage, engine: Engine, now: datetime
) -> None:
    opens = now + 8 * MINUTE
    await put(storage, "monthly", events=PATCH, schedule=opening(opens))
    await deliver(engine, written())
    for minutes in (2, 4):
        await start_what_is_due(storage, engine, now + minutes * MINUTE)
    assert await runs_of(storage) == []
    assert await waits(storage) == [f"the next window opens at {opens:%Y-%m-%d %H:%M} UTC"]
    # The run of the schedule is created before the requests are read, and has yet to list its machines.
    await start_what_is_due(storage, engine, opens)
    [own] = await runs_of(storage)
    assert len(await storage.event_requests.list_open()) == 1
    [identity] = [MachineId.parse(machine_id())]
    await storage.machines.add(own.id, [machine(1, id=identity.text, key=identity.key, name=identity.name)])
    await start_what_is_due(storage, engine, opens + 5 * MINUTE)
    assert await storage.event_requests.list_open() == []
    assert [each.id for each in await runs_of(storage)] == [own.id]
    # It comes again, and the run of the schedule still is its own.
    await deliver(engine, written())
    assert await storage.event_requests.list_open() == []


async def test_inside_of_a_window_it_is_patched_beside_the_run_of_the_schedule(
    storage: Storage, engine: Engine, now: datetime
) -> None:
    opens = now - HOUR
    await put(storage, "monthly", events=PATCH, schedule=opening(opens))
    own = await own_run(storage, opens, 2)
    await deliver(engine, written("e-1", machine_id(1)))
    [found] = [each for each in await runs_of(storage) if each.id != own.id]
    assert (found.mode, found.occurrence, found.window_end) == (Mode.PATCH, opens, opens + 4 * HOUR)
    # A machine that the run of the schedule has is its own until it has ended in it.
    await deliver(engine, written("e-2", machine_id(2)))
    assert await storage.event_requests.list_open() == []
    assert len(await runs_of(storage)) == 2


async def test_a_machine_that_has_ended_in_the_run_of_the_schedule_is_taken_when_it_is_started(
    storage: Storage, engine: Engine, now: datetime
) -> None:
    opens = now - HOUR
    events = {"machineStarted": True, "mode": "patch"}
    # With retries it is caught up, see test_catch_up.py.
    await put(storage, "monthly", events=events, schedule=opening(opens), retryInNextWindow=False)
    own = await own_run(storage, opens, 1)
    key = MachineId.parse(machine_id(1)).key
    off = Outcome(outcome=OutcomeKind.SKIPPED, reason=Reason.NOT_RUNNING, message="It is off.")
    await storage.results.record_outcome(own.id, key, off, at=now, installation=None, patches=[])
    await deliver(engine, started())
    [found] = [each for each in await runs_of(storage) if each.id != own.id]
    assert (found.mode, found.trigger.actor) == (Mode.PATCH, "Microsoft.Resources.ResourceActionSuccess")


@pytest.mark.parametrize(
    ("state", "may_start"),
    [
        (RunState.RUNNING, True),
        (RunState.PAUSED, False),
        (RunState.HELD, False),
        (RunState.STOPPED, False),
        (RunState.CANCELED, False),
        (RunState.FAILED, False),
        (RunState.COMPLETED, True),
    ],
)
@pytest.mark.parametrize("waits_for_canaries", [False, True])
async def test_what_holds_the_run_of_the_schedule_holds_machines_of_events(
    storage: Storage, engine: Engine, now: datetime, state: RunState, may_start: bool, waits_for_canaries: bool
) -> None:
    opens = now - HOUR
    rings = [{"name": "canary", "tags": {"values": {"ring": ["canary"]}}}, {"name": "broad"}]
    more = {"rings": rings, "bake": {"rings": "PT1H"}} if waits_for_canaries else {}
    await put(storage, "monthly", events=PATCH, schedule=opening(opens), **more)
    await own_run(storage, opens, 2, state=state)
    await deliver(engine, written())
    expected = state is RunState.COMPLETED if waits_for_canaries else may_start
    assert (len(await runs_of(storage)) == 2) is expected
    assert (await storage.event_requests.list_open() == []) is expected


async def test_a_delay_counts_from_the_event(storage: Storage, engine: Engine, now: datetime) -> None:
    await put(storage, "monthly", events=PATCH | {"onlyInWindow": False, "delay": "PT30M"})
    await deliver(engine, written())
    assert await start_waiting_requests(storage, engine, now + 29 * MINUTE) == []
    [found] = await start_waiting_requests(storage, engine, now + 32 * MINUTE)
    assert found.mode is Mode.PATCH


async def test_a_pause_and_a_freeze_hold_installations_and_lose_none(
    storage: Storage, engine: Engine, now: datetime
) -> None:
    await put(storage, "monthly", events=PATCH | {"onlyInWindow": False})
    await storage.overrides.pause("monthly", Pause(actor="ann", reason="audit", at=now))
    await deliver(engine, written())
    await storage.overrides.resume("monthly", actor="ann", reason="done", at=now)
    bounds = {"from": (now - HOUR).isoformat(), "to": (now + HOUR).isoformat(), "reason": "closing"}
    await storage.freezes.put(parse_freeze(bounds, name="year-end"), actor="ann", at=now)
    for minutes in (5, 10):
        assert await start_waiting_requests(storage, engine, now + minutes * MINUTE) == []
    assert {each.split(" ")[0] for each in await waits(storage)} == {"paused", "frozen"}
    [found] = await start_waiting_requests(storage, engine, now + HOUR)
    assert found.mode is Mode.PATCH
    assert await storage.event_requests.list_open() == []


async def test_what_no_window_is_left_for_is_dropped_by_name(storage: Storage, engine: Engine, now: datetime) -> None:
    await put(storage, "monthly", events=PATCH, schedule=opening(now - timedelta(days=3)))
    await deliver(engine, written())
    assert engine.attempts == []
    assert await storage.event_requests.list_open() == []
    assert await waits(storage, "event_requests_dropped") == ["the schedule has no further window"]
    [line] = [
        line
        for line in (await storage.audit.list_page("monthly", 9, None)).items
        if line["action"] == "event_requests_dropped"
    ]
    assert (line["detail"]["machines"], line["detail"]["requests"]) == ([machine_id()], 1)


async def test_a_maintenance_starts_a_run_of_the_whole_scope_after_that_of_the_schedule(
    storage: Storage, engine: Engine, now: datetime
) -> None:
    opens = now - HOUR
    events = {"beforeMaintenance": True, "mode": "patch"}
    await put(storage, "monthly", events=events, schedule=opening(opens))
    own = await own_run(storage, opens, 1)
    await deliver(engine, maintenance("Pre"))
    assert len(await storage.event_requests.list_open()) == 1
    await storage.runs.close(own.id, RunState.COMPLETED, "", now)
    [found] = await start_waiting_requests(storage, engine, now + MINUTE)
    assert found.policy_snapshot is not None
    assert (found.mode, found.policy_snapshot["scope"]["machineIds"]) == (Mode.PATCH, [])


class TestStarts:
    EVENTS: dict[str, Any] = {"machineStarted": True, "mode": "patch", "onlyInWindow": False}  # noqa: RUF012

    async def test_each_start_counts_once(
        self, storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch, now: datetime
    ) -> None:
        await put(storage, "monthly", events=self.EVENTS)
        noon = (now - HOUR).replace(minute=5)
        monkeypatch.setattr(azure_events, "datetime", clock_at(noon))
        await deliver(engine, started("s-1"))
        [first] = await runs_of(storage)
        await storage.runs.start(first.id, noon)
        await storage.runs.close(first.id, RunState.COMPLETED, "", noon)
        await deliver(engine, started("s-1"))
        assert len(engine.instances) == 1
        monkeypatch.setattr(azure_events, "datetime", clock_at(datetime.now(UTC) + QUARTER))
        for _ in range(2):
            await deliver(engine, started("s-1"))
            await deliver(engine, started("s-2"))
        assert {each.trigger.detail for each in await runs_of(storage)} == {"s-1", "s-2"}
        assert len(engine.instances) == 2

    async def test_a_machine_that_does_not_run_any_more(
        self, storage: Storage, engine: Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "patchwave.events")
        await put(storage, "monthly", events=self.EVENTS)
        await deliver(engine, started(number=OFF))
        assert engine.attempts == []
        assert f"{machine_id(OFF)} does not run" in caplog.text

    @pytest.mark.parametrize(
        ("mode", "state", "is_left"),
        [
            (Mode.PATCH, RunState.RUNNING, True),
            (Mode.MAINTENANCE, RunState.RUNNING, True),
            (Mode.ASSESS, RunState.RUNNING, False),
            (Mode.PATCH, RunState.COMPLETED, False),
        ],
    )
    async def test_a_start_by_a_run_of_patchwave_starts_no_other(
        self, storage: Storage, engine: Engine, now: datetime, mode: Mode, state: RunState, is_left: bool
    ) -> None:
        await put(storage, "monthly", events=self.EVENTS)
        other = await own_run(storage, now - HOUR, mode=mode, state=state)
        key = MachineId.parse(machine_id(1)).key
        await storage.leases.acquire(key, other.id, datetime.now(UTC), now + HOUR)
        await deliver(engine, started())
        assert (engine.attempts == []) is is_left

    async def test_a_policy_without_the_key_wants_none(self, storage: Storage, engine: Engine) -> None:
        await put(storage, "monthly", events={"newMachine": True})
        await deliver(engine, started())
        assert engine.attempts == []


async def test_a_thousand_new_machines_are_one_run_of_the_quarter(
    storage: Storage, engine: Engine, now: datetime
) -> None:
    await put(storage, "monthly", events=PATCH | {"onlyInWindow": False})
    requests = [
        EventRequest(
            policy="monthly",
            event_id=f"e-{number}",
            kind="Microsoft.Resources.ResourceWriteSuccess",
            key=request_key(f"e-{number}", "monthly"),
            at=now - MINUTE,
            machine_id=machine_id(number),
        )
        for number in range(1_000)
    ]
    for begin in range(0, 1_000, 50):
        await asyncio.gather(*(storage.event_requests.add(each) for each in requests[begin : begin + 50]))
    [found] = await start_waiting_requests(storage, engine, now)
    again = await start_waiting_requests(storage, engine, now)
    assert again == []
    assert found.policy_snapshot is not None
    assert len(found.policy_snapshot["scope"]["machineIds"]) == 1_000
    assert len(engine.instances) == 1
    assert await storage.event_requests.list_open() == []
