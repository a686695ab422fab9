"""Machines that read their own clocks: what the activities know of their windows, and refuse outside of them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from activities import window
from activities.context import load_machine
from activities.discover import record_of
from activities.hooks import too_late
from activities.plan import plan_run
from activities.power import restart_machine
from activities.run import begin_run
from activities.submit_operation import submit
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.calendar.local_window import LocalWindow
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.fleet.discovery import read_row
from patchwave.domain.machine.at_most_once import GuardedCall
from patchwave.domain.machine.hooks import HookState
from patchwave.domain.planning.topology import Topology
from patchwave.domain.policy.policy import parse_policy
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Mode, Run, RunState, Step, Trigger, TriggerKind
from patchwave.domain.workflow.machine import MachineRef
from patchwave.domain.workflow.operation import StartOperation, StartState
from patchwave.domain.workflow.run import NextWindow, OpenWindow, RunRef, StartHours, StepRef
from patchwave.storage import Storage
from patchwave.storage.engine.client import TableRequests
from patchwave.wiring import Services
from tests.support.factories import machine

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
EARTH_OPENS, EARTH_CLOSES = datetime(2026, 12, 8, 8, tzinfo=UTC), datetime(2026, 12, 9, 18, tzinfo=UTC)
BERLIN_OPENS, TOKYO_OPENS = datetime(2026, 12, 8, 21, tzinfo=UTC), datetime(2026, 12, 8, 13, tzinfo=UTC)
RUN = "20261208T080000Z-monthly"
SCHEDULE: dict[str, Any] = {"recurrence": "second Tuesday", "time": "offPeak", "timeZone": "machine"}
NIGHT = LocalWindow(day=date(2026, 12, 8), time="offPeak", window=8 * HOUR)
BERLIN = machine(1, time_zone="Europe/Berlin", location="germanywestcentral", stage=Stage.ASSESSED)
TOKYO = machine(2, time_zone="Asia/Tokyo", location="japaneast", stage=Stage.ASSESSED)
ZONES = [*(f"Etc/GMT-{offset}" for offset in range(1, 15)), *(f"Etc/GMT+{offset}" for offset in range(1, 11))]
LOST = machine(3, time_zone="", location="moonbase", stage=Stage.ASSESSED)


class Clock:
    """The clock of the activities, which a test sets."""

    def __init__(self) -> None:
        self.now = EARTH_OPENS


class Regions:
    async def read(self, subscriptions: Collection[str]) -> Topology:
        return Topology.of()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, services: Services) -> Clock:
    found = Clock()
    for module in ("window", "run", "submit_operation", "plan", "context", "hooks", "power"):
        monkeypatch.setattr(f"activities.{module}.now", lambda: found.now)
    vars(services).update(locations=Regions())
    return found


async def begin(storage: Storage, schedule: dict[str, Any] = SCHEDULE, **changes: Any) -> Run:
    document = {"name": "monthly", "scope": {"osTypes": ["Linux"]}, "schedule": schedule}
    policy = parse_policy(document)
    await storage.policies.put("monthly", policy.to_wire(), if_match=None, if_none_match=False, at=EARTH_OPENS)
    fields: dict[str, Any] = {
        "id": RUN,
        "policy": "monthly",
        "mode": Mode.PATCH,
        "state": RunState.QUEUED,
        "trigger": Trigger(kind=TriggerKind.TIMER),
        "created_at": EARTH_OPENS,
        "occurrence": EARTH_OPENS,
        "window_end": EARTH_CLOSES,
        "local_window": NIGHT,
        "policy_snapshot": policy.to_wire(),
    }
    await storage.runs.create(Run(**(fields | changes)))
    run_id = str((fields | changes)["id"])
    await storage.machines.add(run_id, [BERLIN, TOKYO, LOST])
    return await storage.runs.start(run_id, EARTH_OPENS)


async def stored(storage: Storage) -> Run:
    found = await storage.runs.get(RUN)
    assert found is not None
    return found


async def test_a_run_keeps_the_window_by_the_clocks_of_its_machines(
    services: Services, storage: Storage, clock: Clock
) -> None:
    await begin(storage)
    assert (await stored(storage)).local_window == NIGHT
    assert (await begin_run(services, RunRef(run_id=RUN))).options.is_local is True


async def test_a_discovered_machine_has_the_zone_of_its_own_clock() -> None:
    ids = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/g/providers/Microsoft.Compute"
    row = {"id": f"{ids}/virtualMachines/vm", "location": "westeurope"}
    assert record_of(read_row(row)).time_zone == "Europe/Amsterdam"
    assert record_of(read_row(row | {"windowsTimeZone": "Tokyo Standard Time"})).time_zone == "Asia/Tokyo"


async def test_the_first_opening_is_that_of_the_first_machine(
    services: Services, storage: Storage, clock: Clock
) -> None:
    await begin(storage)
    first = await window.find_first_opening(services, RunRef(run_id=RUN))
    assert first == NextWindow(opens_at=TOKYO_OPENS, ends_at=EARTH_CLOSES, local=NIGHT)
    waiting = await stored(storage)
    assert (waiting.state, waiting.waiting_for) == (
        RunState.AWAITING_WINDOW,
        "the window of Asia/Tokyo, which opens at 2026-12-08 13:00 UTC",
    )


async def test_a_window_that_is_open_is_not_waited_for(services: Services, storage: Storage, clock: Clock) -> None:
    await begin(storage)
    clock.now = TOKYO_OPENS + HOUR
    assert (await window.find_first_opening(services, RunRef(run_id=RUN))).opens_at == TOKYO_OPENS
    assert (await stored(storage)).state is RunState.RUNNING


async def test_a_run_with_one_window_waits_for_none(services: Services, storage: Storage, clock: Clock) -> None:
    await begin(storage, local_window=None)
    assert await window.find_first_opening(services, RunRef(run_id=RUN)) == NextWindow()


async def test_each_zone_of_the_plan_has_its_hours(services: Services, storage: Storage, clock: Clock) -> None:
    await begin(storage)
    clock.now = TOKYO_OPENS
    whole = await window.get_start_cutoff(services, StepRef(run_id=RUN, step=Step.PATCH))
    assert (whole.at, whole.windows) == (EARTH_CLOSES - HOUR, {}), "there is no plan yet"
    planned = await plan_run(services, RunRef(run_id=RUN))
    assert planned.time_zones == ["Asia/Tokyo", "Europe/Berlin"]
    hours = await window.get_start_cutoff(services, StepRef(run_id=RUN, step=Step.PATCH))
    assert hours.at == BERLIN_OPENS + 7 * HOUR
    assert hours.windows == {
        "Asia/Tokyo": StartHours(opens_at=TOKYO_OPENS, closes_at=TOKYO_OPENS + 7 * HOUR),
        "Europe/Berlin": StartHours(opens_at=BERLIN_OPENS, closes_at=BERLIN_OPENS + 7 * HOUR),
    }
    restarts = await window.get_start_cutoff(services, StepRef(run_id=RUN, step=Step.RESTART))
    assert restarts.windows["Asia/Tokyo"].closes_at == TOKYO_OPENS + 8 * HOUR - 10 * MINUTE
    assert (await window.get_start_cutoff(services, StepRef(run_id=RUN, step=Step.ASSESS))).at is None


async def test_the_stored_plan_has_the_zones_and_the_machine_that_is_left_out(
    services: Services, storage: Storage, clock: Clock
) -> None:
    await begin(storage)
    clock.now = TOKYO_OPENS
    await plan_run(services, RunRef(run_id=RUN))
    plan = await storage.plans.get(RUN)
    assert plan is not None
    assert plan.begins_at == TOKYO_OPENS
    assert [(each.time_zone, each.opens_at, each.machines) for each in plan.time_zones] == [
        ("Asia/Tokyo", TOKYO_OPENS, 1),
        ("Europe/Berlin", BERLIN_OPENS, 1),
    ]
    assert [each.predicted_start for each in plan.machines] == [0, 8 * 3600]
    lost = await storage.machines.get(RUN, LOST.key)
    assert lost is not None
    assert (lost.outcome, lost.reason) == (OutcomeKind.SKIPPED, "unknown_time_zone")
    page = await storage.plans.list_placements(RUN, 0, 0, 10, None)
    assert [each.permits[0] for each in page.items] == ["0||window:Asia/Tokyo", "0||window:Europe/Berlin"]


@pytest.mark.parametrize(
    ("after_opening", "state"),
    [(-MINUTE, StartState.REQUEUED), (8 * HOUR - 30 * MINUTE, StartState.ENDED)],
)
async def test_no_installation_starts_outside_of_the_window_of_the_machine(
    services: Services, storage: Storage, clock: Clock, after_opening: timedelta, state: StartState
) -> None:
    """There is no Azure here: a call of it would fail."""
    await begin(storage)
    clock.now = BERLIN_OPENS + after_opening
    install = StartOperation(run_id=RUN, machine_key=BERLIN.key, kind=OperationKind.INSTALL, attempt=1)
    started = await submit(services, install)
    assert started.state is state
    assert (started.outcome.reason if started.outcome else "") == (
        "" if state is StartState.REQUEUED else "window_closed"
    )
    assert await storage.intents.get(RUN, BERLIN.key, OperationKind.INSTALL) is None


async def test_hooks_and_restarts_wait_for_the_window_of_the_machine(
    services: Services, storage: Storage, clock: Clock
) -> None:
    await begin(storage)
    clock.now = BERLIN_OPENS - MINUTE
    refused = too_late(await load_machine(services, RUN, BERLIN.key))
    assert refused is not None
    assert refused.state is HookState.REQUEUED
    restarted = await restart_machine(services, MachineRef(run_id=RUN, machine_key=BERLIN.key))
    assert restarted.requeued is True
    assert await storage.at_most_once.get(RUN, BERLIN.key, GuardedCall.RESTART) is None
    clock.now = BERLIN_OPENS
    assert too_late(await load_machine(services, RUN, BERLIN.key)) is None


async def test_the_window_of_a_machine_ends_by_its_own_clock(
    services: Services, storage: Storage, clock: Clock
) -> None:
    run = await begin(storage)
    clock.now = TOKYO_OPENS + 8 * HOUR
    assert window.is_behind_window(run, TOKYO) is True
    assert window.is_behind_window(run, BERLIN) is False
    berlin = await load_machine(services, RUN, BERLIN.key)
    assert berlin.window_end == BERLIN_OPENS + 8 * HOUR


async def test_a_run_goes_on_in_the_next_window_of_each_zone(
    services: Services, storage: Storage, clock: Clock
) -> None:
    await begin(storage, SCHEDULE | {"continueInNextWindow": True})
    clock.now = EARTH_CLOSES
    found = await window.find_next_window(services, RunRef(run_id=RUN))
    assert found.opens_at == datetime(2027, 1, 12, 8, tzinfo=UTC)
    assert found.local is not None
    assert found.local.day == date(2027, 1, 12)
    assert found.ends_at is not None
    opened = OpenWindow(run_id=RUN, ends_at=found.ends_at, local=found.local)
    await window.enter_window(services, opened)
    hours = (await stored(storage)).window_of("Europe/Berlin")
    assert hours is not None
    assert hours.opens_at == datetime(2027, 1, 12, 21, tzinfo=UTC)


async def test_a_policy_that_reads_one_clock_by_then_has_one_window_for_all(
    services: Services, storage: Storage, clock: Clock
) -> None:
    await begin(storage, SCHEDULE | {"continueInNextWindow": True})
    clock.now = EARTH_CLOSES
    fixed = {"recurrence": "second Tuesday", "time": "20:00", "timeZone": "UTC", "window": "PT4H"}
    document = {"name": "monthly", "scope": {"osTypes": ["Linux"]}, "schedule": fixed}
    await storage.policies.put("monthly", document, if_match=None, if_none_match=False, at=EARTH_CLOSES)
    found = await window.find_next_window(services, RunRef(run_id=RUN))
    assert (found.opens_at, found.local) == (datetime(2027, 1, 12, 20, tzinfo=UTC), None)
    assert found.ends_at is not None
    await window.enter_window(services, OpenWindow(run_id=RUN, ends_at=found.ends_at))
    assert (await stored(storage)).local_window is None


async def test_a_run_whose_plan_knows_no_clocks_has_no_window_by_them(
    services: Services, storage: Storage, clock: Clock
) -> None:
    fixed = {"recurrence": "second Tuesday", "time": "20:00", "timeZone": "UTC", "window": "PT4H"}
    await begin(storage, fixed | {"continueInNextWindow": True}, local_window=None)
    document = {"name": "monthly", "scope": {"osTypes": ["Linux"]}, "schedule": SCHEDULE}
    await storage.policies.put("monthly", document, if_match=None, if_none_match=False, at=EARTH_CLOSES)
    clock.now = EARTH_CLOSES
    assert await window.find_next_window(services, RunRef(run_id=RUN)) == NextWindow()


async def test_the_plan_of_twenty_four_zones_costs_as_many_transactions_as_that_of_one(
    services: Services, storage: Storage, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("commit", "get"):
        send = getattr(TableRequests, name)

        async def counted(table: TableRequests, *arguments: Any, send: Any = send, name: str = name) -> Any:
            calls.append(name)
            return await send(table, *arguments)

        monkeypatch.setattr(TableRequests, name, counted)
    clock.now = EARTH_OPENS
    costs: list[int] = []
    for zones in (1, 24):
        run_id = f"2026120{zones % 7 + 1}T080000Z-monthly"
        await begin(storage, id=run_id)
        fleet = [machine(number, time_zone=ZONES[number % zones], stage=Stage.ASSESSED) for number in range(100, 340)]
        await storage.machines.add(run_id, fleet)
        calls.clear()
        await plan_run(services, RunRef(run_id=run_id))
        await window.get_start_cutoff(services, StepRef(run_id=run_id, step=Step.PATCH))
        costs.append(len(calls))
    assert costs[1] <= costs[0] + 1
