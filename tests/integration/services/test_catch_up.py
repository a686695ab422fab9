"""Machines that were off or not ready are caught up by the tick that sees them run, or by the event of their start."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.azure.resource_graph import QueryPage
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.calendar.local_window import LocalWindow
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.machine.patch_pinning import Pin
from patchwave.domain.policy.policy import parse_policy
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, Run, RunState, TriggerKind
from patchwave.domain.scheduling.overrides import Pause
from patchwave.services import azure_events
from patchwave.services.catch_up import start_catch_ups
from patchwave.settings import load_settings
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.azure_bodies import machine as machine_body
from tests.support.factories import NOW as STORED_AT
from tests.support.factories import run as a_run
from tests.support.http_calls import SUBSCRIPTION, Engine

OPENS = datetime(2026, 11, 10, 19, tzinfo=UTC)
CLOSES = OPENS + timedelta(hours=4)
AT = OPENS + timedelta(hours=1)
TICK = timedelta(minutes=5)
RUN = "20261110T190000Z-monthly"
SCHEDULE = {"recurrence": "second Tuesday", "time": "20:00", "timeZone": "Europe/Berlin", "window": "PT4H"}
ELSEWHERE = "99999999-2222-4333-8444-555555555555"
OFF = Outcome.skipped(Reason.NOT_RUNNING, "The machine is deallocated.")
NOT_READY = Outcome.skipped(Reason.AGENT_NOT_READY, "The VM agent is not ready.")


def vm(number: int) -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm-{number}"


class Azure:
    """Power states by machine, as Resource Graph and the machines themselves show them."""

    def __init__(self) -> None:
        self.power: dict[str, str] = {}
        self.agents: dict[str, bool] = {}
        self.queries: list[str] = []
        self.read: list[str] = []
        self.failure: ArmFailure | None = None

    async def page(self, query: str, subscriptions: object = (), skip_token: str = "") -> QueryPage:
        self.queries.append(query)
        if self.failure is not None:
            return QueryPage(failure=self.failure)
        rows = [{"id": one, "powerState": f"PowerState/{power}"} for one, power in self.power.items() if one in query]
        return QueryPage(rows)

    async def read_machine(self, machine: MachineId) -> MachineView | ArmFailure:
        self.read.append(machine.text)
        if machine.text not in self.power:
            return ArmFailure(status=404, code="ResourceNotFound", message="gone")
        is_ready = self.agents.get(machine.text, True)
        agent = {} if is_ready else {"vmAgent": {"statuses": [{"code": "ProvisioningState/unavailable"}]}}
        return MachineView.model_validate(machine_body(self.power[machine.text], **agent))


@pytest.fixture
def azure(services: Services) -> Azure:
    found = Azure()
    vars(services).update(resource_graph=found, resource_manager=found)
    return found


async def put_policy(storage: Storage, **document: Any) -> dict[str, Any]:
    whole = {"name": "monthly", "scope": {"subscriptions": [SUBSCRIPTION]}, "schedule": SCHEDULE} | document
    await storage.policies.put("monthly", whole, if_match=None, if_none_match=False, at=STORED_AT)
    return whole


async def ended(
    storage: Storage,
    ends: dict[int, Outcome],
    *,
    state: RunState = RunState.COMPLETED,
    policy: dict[str, Any] | None = None,
    by_hand: bool = False,
    local_window: LocalWindow | None = None,
) -> Run:
    """The run of the window, in which these machines ended so; others are not in it."""
    document = await put_policy(storage, **(policy or {}))
    snapshot = parse_policy(document).to_wire()
    made = a_run(OPENS, occurrence=OPENS, window_end=CLOSES, local_window=local_window, policy_snapshot=snapshot)
    await storage.runs.create(made)
    await storage.runs.start(RUN, OPENS)
    window = {} if by_hand else {"occurrence": OPENS, "max_failed_windows": 3}
    machines = [record(number, **window) for number in ends]
    await storage.machines.add(RUN, machines)
    for each, outcome in zip(machines, ends.values(), strict=True):
        await storage.results.record_outcome(
            RUN, each.key, outcome, at=OPENS + TICK, installation=None, patches=[], release=True
        )
    if state is not RunState.RUNNING:
        await storage.runs.settle(await storage.runs.close(RUN, state, "", OPENS + 2 * TICK))
    found = await storage.runs.get(RUN)
    assert found is not None
    return found


def record(number: int, **fields: Any) -> MachineRecord:
    parsed = MachineId.parse(vm(number))
    return MachineRecord(
        id=parsed.text,
        key=parsed.key,
        name=parsed.name,
        subscription_id=SUBSCRIPTION,
        resource_group="rg",
        location="westeurope",
        os_type="Linux",
        **fields,
    )


def machines_of(run: Run) -> list[str]:
    assert run.policy_snapshot is not None
    return [text.rpartition("/")[2] for text in run.policy_snapshot["scope"]["machineIds"]]


async def waiting(storage: Storage) -> set[str]:
    return {each.id.rpartition("/")[2] for each in await storage.catch_ups.list_open()}


async def test_a_machine_that_runs_again_is_patched_in_its_window(
    services: Services, storage: Storage, engine: Engine, azure: Azure
) -> None:
    await ended(storage, {1: OFF, 2: OFF, 3: Outcome.of(OutcomeKind.PATCHED, Reason.OK, "Patched.")})
    azure.power = {vm(1): "deallocated", vm(2): "deallocated", vm(3): "running"}
    assert await start_catch_ups(services, engine, AT) == []
    assert (engine.attempts, await waiting(storage)) == ([], {"vm-1", "vm-2"})
    azure.power[vm(2)] = "running"
    [run] = await start_catch_ups(services, engine, AT + TICK)
    assert machines_of(run) == ["vm-2"]
    assert (run.mode, run.occurrence, run.window_end) == (Mode.PATCH, OPENS, CLOSES)
    assert (run.trigger.kind, run.trigger.retry_of) == (TriggerKind.TIMER, RUN)
    assert run.trigger.detail == f"catch-up of {RUN}: 1 machine that was off or not ready"
    assert list(engine.instances) == [run.id]
    assert await waiting(storage) == {"vm-1"}
    # The tick asks about the waiting machines alone.
    assert all(vm(3) not in query for query in azure.queries)
    assert azure.read == []


async def test_a_machine_that_reads_its_own_clock_is_patched_in_its_own_window(
    services: Services, storage: Storage, engine: Engine, azure: Azure
) -> None:
    local = LocalWindow(day=OPENS.date(), time="offPeak", window=timedelta(hours=8))
    await ended(storage, {1: OFF}, local_window=local)
    azure.power = {vm(1): "running"}
    [run] = await start_catch_ups(services, engine, AT)
    assert (run.window_end, run.local_window) == (CLOSES, local)


async def test_without_a_waiting_machine_azure_is_not_asked(
    services: Services, storage: Storage, engine: Engine, azure: Azure
) -> None:
    await ended(storage, {1: Outcome.of(OutcomeKind.FAILED, Reason.PATCHES_FAILED, "1 patch failed.")})
    azure.power = {vm(1): "running"}
    assert await start_catch_ups(services, engine, AT) == []
    assert (azure.queries, azure.read) == ([], [])


async def test_a_run_by_hand_leaves_no_machine_waiting(
    services: Services, storage: Storage, engine: Engine, azure: Azure
) -> None:
    await ended(storage, {1: OFF}, by_hand=True)
    azure.power = {vm(1): "running"}
    assert await start_catch_ups(services, engine, AT) == []


async def test_two_workers_start_one_run(services: Services, storage: Storage, engine: Engine, azure: Azure) -> None:
    await ended(storage, {1: OFF, 2: OFF})
    azure.power = {vm(1): "running", vm(2): "running"}
    found = await asyncio.gather(*[start_catch_ups(services, engine, AT) for _ in range(3)])
    assert len({run.id for runs in found for run in runs}) == 1
    assert len(engine.instances) == 1
    assert await waiting(storage) == set()
    assert await start_catch_ups(services, engine, AT + TICK) == []


async def test_a_machine_that_is_off_again_waits_for_its_next_return(
    services: Services, storage: Storage, engine: Engine, azure: Azure
) -> None:
    await ended(storage, {1: OFF})
    azure.power = {vm(1): "running"}
    [first] = await start_catch_ups(services, engine, AT)
    await storage.machines.add(first.id, [record(1, occurrence=OPENS, max_failed_windows=3)])
    later = datetime.now(UTC) + TICK
    key = MachineId.parse(vm(1)).key
    await storage.results.record_outcome(first.id, key, OFF, at=later, installation=None, patches=[], release=True)
    assert await waiting(storage) == {"vm-1"}
    # One catch-up at a time: the limits of the policy are those of a run.
    assert await start_catch_ups(services, engine, AT + TICK) == []
    await storage.runs.settle(await storage.runs.close(first.id, RunState.COMPLETED, "", later))
    [second] = await start_catch_ups(services, engine, AT + 2 * TICK)
    assert (second.trigger.retry_of, second.window_end) == (RUN, CLOSES)
    assert second.id != first.id


async def test_a_live_run_comes_first(services: Services, storage: Storage, engine: Engine, azure: Azure) -> None:
    await ended(storage, {1: OFF}, state=RunState.RUNNING)
    azure.power = {vm(1): "running"}
    assert await start_catch_ups(services, engine, AT) == []
    assert (await waiting(storage), azure.queries) == ({"vm-1"}, [])
    await storage.runs.settle(await storage.runs.close(RUN, RunState.COMPLETED, "", AT))
    assert len(await start_catch_ups(services, engine, AT + TICK)) == 1


@pytest.mark.parametrize("state", [RunState.CANCELED, RunState.STOPPED, RunState.FAILED])
async def test_a_run_that_was_stopped_is_not_followed(
    services: Services, storage: Storage, engine: Engine, azure: Azure, state: RunState
) -> None:
    await ended(storage, {1: OFF}, state=state)
    azure.power = {vm(1): "running"}
    assert await start_catch_ups(services, engine, AT) == []
    assert await waiting(storage) == set()


async def test_after_the_cutoff_nothing_starts_and_nothing_waits(
    services: Services, storage: Storage, engine: Engine, azure: Azure
) -> None:
    await ended(storage, {1: OFF})
    azure.power = {vm(1): "running"}
    assert await start_catch_ups(services, engine, CLOSES - timedelta(minutes=59)) == []
    assert (await waiting(storage), engine.attempts) == (set(), [])


async def test_what_holds_the_schedule_holds_catch_ups(
    services: Services, storage: Storage, engine: Engine, azure: Azure
) -> None:
    await ended(storage, {1: OFF})
    azure.power = {vm(1): "running"}
    await storage.overrides.pause("monthly", Pause(actor="ann", reason="audit", at=STORED_AT))
    assert await start_catch_ups(services, engine, AT) == []
    await storage.overrides.resume("monthly", actor="ann", reason="done", at=AT)
    for held in ({"enabled": False}, {"retryInNextWindow": False}, {"mode": "assess"}):
        await put_policy(storage, **held)
        assert await start_catch_ups(services, engine, AT) == []
    assert await waiting(storage) == {"vm-1"}
    await put_policy(storage)
    assert len(await start_catch_ups(services, engine, AT)) == 1


async def test_a_policy_without_retries_leaves_no_machine_waiting(storage: Storage) -> None:
    await ended(storage, {})
    await storage.machines.add(RUN, [record(1, occurrence=OPENS, max_failed_windows=1)])
    key = MachineId.parse(vm(1)).key
    await storage.results.record_outcome(RUN, key, OFF, at=AT, installation=None, patches=[], release=True)
    assert await waiting(storage) == set()


async def test_an_agent_has_to_be_ready_where_it_was_not(
    services: Services, storage: Storage, engine: Engine, azure: Azure
) -> None:
    await ended(storage, {1: NOT_READY, 2: NOT_READY, 3: NOT_READY})
    azure.power = {vm(1): "running", vm(2): "running"}
    azure.agents = {vm(1): False}
    [run] = await start_catch_ups(services, engine, AT)
    assert machines_of(run) == ["vm-2"]
    assert (sorted(azure.read), azure.queries) == ([vm(1), vm(2), vm(3)], [])


async def test_so_many_machines_without_an_agent_are_read_at_a_tick(
    services: Services, storage: Storage, engine: Engine, azure: Azure
) -> None:
    await ended(storage, dict.fromkeys(range(50), NOT_READY))
    azure.power = {vm(number): "running" for number in range(50)}
    azure.agents = dict.fromkeys(azure.power, False)
    for tick in range(5):
        before = len(azure.read)
        assert await start_catch_ups(services, engine, AT + tick * TICK) == []
        assert len(azure.read) - before == 20
    assert set(azure.read) == set(azure.power)


async def test_a_read_of_azure_that_fails_waits_for_the_next_tick(
    services: Services, storage: Storage, engine: Engine, azure: Azure
) -> None:
    await ended(storage, {1: OFF})
    azure.power = {vm(1): "running"}
    azure.failure = ArmFailure(status=429, code="RateLimiting", message="Slow down.")
    assert await start_catch_ups(services, engine, AT) == []
    azure.failure = None
    assert len(await start_catch_ups(services, engine, AT + TICK)) == 1


async def test_a_run_that_the_engine_missed_is_left_to_the_watchdog(
    services: Services, storage: Storage, engine: Engine, azure: Azure
) -> None:
    await ended(storage, {1: OFF})
    azure.power = {vm(1): "running"}
    engine.failing = True
    assert await start_catch_ups(services, engine, AT) == []
    assert await waiting(storage) == {"vm-1"}
    engine.failing = False
    [live] = await storage.runs.list_live()
    assert (live.state, live.trigger.retry_of) == (RunState.QUEUED, RUN)
    # The watchdog starts it. Until it has ended, no other catch-up does.
    assert await start_catch_ups(services, engine, AT + TICK) == []
    assert (await waiting(storage), engine.instances) == (set(), {})


async def test_the_pin_and_the_rings_of_the_run_are_kept(
    services: Services, storage: Storage, engine: Engine, azure: Azure
) -> None:
    rings = [{"name": "canary", "percent": 25}, {"name": "broad"}]
    await ended(storage, dict.fromkeys(range(8), OFF), policy={"rings": rings, "pinRings": True})
    await storage.patch_pins.save(RUN, Pin(from_ring="canary", at=OPENS))
    azure.power = {vm(number): "running" for number in range(8)}
    [run] = await start_catch_ups(services, engine, AT)
    assert run.policy_snapshot is not None
    canary, broad = run.policy_snapshot["rings"]
    assert (canary["percent"], len(canary["machineIds"]), broad["machineIds"]) == (None, 2, None)
    assert await storage.patch_pins.get(run.id) == Pin(from_ring="canary", at=OPENS)


# --- the event of a start


def started(machine: str, operation: str = "Microsoft.Compute/virtualMachines/start/action") -> str:
    event = {
        "id": "e-1",
        "topic": f"/subscriptions/{SUBSCRIPTION}",
        "subject": machine,
        "eventType": "Microsoft.Resources.ResourceActionSuccess",
        "data": {"operationName": operation},
    }
    return json.dumps(event)


@pytest.fixture
def clock(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The events come inside the window, from a topic that counts."""
    del storage  # which has made the other settings

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return AT

    monkeypatch.setattr(azure_events, "datetime", Clock)
    monkeypatch.setenv("PATCHWAVE_EVENT_TOPICS", f"/subscriptions/{SUBSCRIPTION}")
    load_settings.cache_clear()


@pytest.mark.usefixtures("clock")
async def test_the_event_of_a_start_leads_to_the_same(
    services: Services, storage: Storage, engine: Engine, azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ended(storage, {1: OFF, 2: OFF})
    # Resource Graph is behind.
    azure.power = {vm(1): "running"}
    azure.failure = ArmFailure(status=429, code="RateLimiting", message="Slow down.")
    for _ in range(2):
        await azure_events.handle_event(services, engine, started(vm(1)))
    [run_id] = engine.instances
    run = await storage.runs.get(run_id)
    assert run is not None
    assert machines_of(run) == ["vm-1"]
    assert await waiting(storage) == {"vm-2"}


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    "event",
    [
        started(vm(1), "Microsoft.Compute/virtualMachines/deallocate/action"),
        started(vm(7)),
        started(vm(1)).replace(f'"/subscriptions/{SUBSCRIPTION}"', f'"/subscriptions/{ELSEWHERE}"'),
    ],
)
async def test_other_events_start_nothing(
    services: Services, storage: Storage, engine: Engine, azure: Azure, event: str
) -> None:
    await ended(storage, {1: OFF})
    azure.power = {vm(1): "running", vm(7): "running"}
    await azure_events.handle_event(services, engine, event)
    assert (engine.attempts, azure.read) == ([], [])


@pytest.mark.usefixtures("clock")
async def test_an_event_about_a_machine_that_is_off_starts_nothing(
    services: Services, storage: Storage, engine: Engine, azure: Azure
) -> None:
    await ended(storage, {1: OFF})
    azure.power = {vm(1): "deallocated"}
    await azure_events.handle_event(services, engine, started(vm(1)))
    assert (engine.attempts, azure.queries, await waiting(storage)) == ([], [], {"vm-1"})
