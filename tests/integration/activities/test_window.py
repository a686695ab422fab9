"""The windows of a run: its cutoff, the window in which it goes on, and machines that are frozen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities import window
from activities.context import load_machine
from activities.machine import preflight_machine
from activities.run import close_run
from activities.submit_operation import submit
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.calendar.schedule import Occurrence
from patchwave.domain.core.command import Command
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.machine.preflight import Readiness
from patchwave.domain.policy.policy import Policy, parse_policy
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Mode, Run, RunState, Step, Trigger, TriggerKind
from patchwave.domain.scheduling.freeze import parse_freeze
from patchwave.domain.scheduling.overrides import Pause, Skip
from patchwave.domain.scheduling.upcoming import ScheduleDecision, decide
from patchwave.domain.workflow.machine import PreflightRequest
from patchwave.domain.workflow.operation import StartOperation, StartState
from patchwave.domain.workflow.run import CloseRun, NextWindow, OpenWindow, RunRef, StepRef
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.factories import machine

HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
OPENS = datetime(2026, 11, 10, 19, tzinfo=UTC)
NEXT = datetime(2026, 12, 8, 19, tzinfo=UTC)
AFTER_NEXT = datetime(2027, 1, 12, 19, tzinfo=UTC)
END = OPENS + 4 * HOUR
RUN = "20261110T190000Z-monthly"
SCHEDULE = {
    "recurrence": "second Tuesday",
    "time": "20:00",
    "timeZone": "Europe/Berlin",
    "window": "PT4H",
    "continueInNextWindow": True,
}
DOCUMENT: dict[str, Any] = {"name": "monthly", "scope": {"locations": ["westeurope"]}, "schedule": SCHEDULE}
LEAST = {"install": {"minimumDuration": "PT20M"}}


class Clock:
    """The clock of the activities, which a test sets."""

    def __init__(self) -> None:
        self.now = OPENS + 3 * HOUR


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for module in ("window", "run", "submit_operation", "machine", "context"):
        monkeypatch.setattr(f"activities.{module}.now", lambda: found.now)
    return found


@pytest.fixture
async def run(storage: Storage, clock: Clock) -> Run:
    """A run of a stored policy, which has begun in its first window."""
    return await begin(storage, changes={})


async def begin(storage: Storage, window_end: datetime | None = END, changes: dict[str, Any] = LEAST) -> Run:
    policy = parse_policy(DOCUMENT | changes)
    await storage.policies.put("monthly", policy.to_wire(), if_match=None, if_none_match=False, at=OPENS)
    wanted = Run(
        id=RUN,
        policy="monthly",
        mode=Mode.PATCH,
        state=RunState.QUEUED,
        trigger=Trigger(kind=TriggerKind.TIMER),
        created_at=OPENS,
        occurrence=OPENS,
        window_end=window_end,
        policy_snapshot=policy.to_wire(),
    )
    await storage.runs.create(wanted)
    return await storage.runs.start(RUN, OPENS)


async def change(storage: Storage, **changes: Any) -> Policy:
    policy = parse_policy(DOCUMENT | changes)
    await storage.policies.put("monthly", policy.to_wire(), if_match=None, if_none_match=False, at=OPENS)
    return policy


async def freeze(storage: Storage, start: datetime, end: datetime, **fields: Any) -> None:
    bounds = {"from": start.isoformat(), "to": end.isoformat(), "reason": "closing"}
    await storage.freezes.put(parse_freeze(bounds | fields, name="year-end"), actor="ann", at=OPENS)


async def find(services: Services) -> NextWindow:
    return await window.find_next_window(services, RunRef(run_id=RUN))


async def stored(storage: Storage) -> Run:
    found = await storage.runs.get(RUN)
    assert found is not None
    return found


class TestCutoff:
    async def cutoff(self, services: Services, step: Step) -> datetime | None:
        return (await window.get_start_cutoff(services, StepRef(run_id=RUN, step=step))).at

    async def test_each_step_has_its_own(self, services: Services, storage: Storage, run: Run) -> None:
        assert await self.cutoff(services, Step.ASSESS) is None
        assert await self.cutoff(services, Step.PATCH) == END - HOUR
        assert await self.cutoff(services, Step.RESTART) == END - 10 * MINUTE

    @pytest.mark.parametrize(("systems", "minutes"), [([], 20), (["Linux"], 20), (["Windows"], 25)])
    async def test_the_shortest_machine_decides(
        self, services: Services, storage: Storage, clock: Clock, systems: list[str], minutes: int
    ) -> None:
        await begin(storage, changes=LEAST | {"scope": {"locations": ["westeurope"], "osTypes": systems}})
        assert await self.cutoff(services, Step.PATCH) == END - minutes * MINUTE

    async def test_without_a_window_there_is_none(self, services: Services, storage: Storage, clock: Clock) -> None:
        await begin(storage, None)
        assert [await self.cutoff(services, step) for step in Step] == [None, None, None]


class TestNextWindow:
    async def test_the_run_shows_what_it_waits_for_and_keeps_the_window(
        self, services: Services, storage: Storage, run: Run
    ) -> None:
        assert await find(services) == NextWindow(opens_at=NEXT, ends_at=NEXT + 4 * HOUR)
        waiting = await stored(storage)
        assert (waiting.state, waiting.waiting_for) == (
            RunState.AWAITING_WINDOW,
            "the window that opens at 2026-12-08 19:00 UTC",
        )
        controls = await storage.overrides.get("monthly")
        policy = parse_policy(DOCUMENT)
        for opening, decision in ((OPENS, ScheduleDecision.RUN), (NEXT, ScheduleDecision.CONTINUE)):
            assert decide(policy, controls, [], Occurrence(opening, opening + 4 * HOUR)).decision is decision

    async def test_asked_again_when_the_window_opens_it_is_the_same_one(
        self, services: Services, storage: Storage, run: Run, clock: Clock
    ) -> None:
        first = await find(services)
        for late in (timedelta(0), MINUTE, 3 * HOUR):
            clock.now = NEXT + late
            assert await find(services) == first
        clock.now = NEXT + 3 * HOUR + MINUTE
        assert (await find(services)).opens_at == AFTER_NEXT

    async def test_an_open_window_is_gone_on_in_and_used_once(
        self, services: Services, storage: Storage, run: Run, clock: Clock
    ) -> None:
        await find(services)
        clock.now = NEXT + MINUTE
        again = await find(services)
        assert again.ends_at is not None
        opened = OpenWindow(run_id=RUN, ends_at=again.ends_at)
        for _ in range(2):
            await window.enter_window(services, opened)
        running = await stored(storage)
        assert (running.state, running.window_end, running.waiting_for) == (RunState.RUNNING, NEXT + 4 * HOUR, "")
        assert running.windows == 1
        await window.enter_window(services, OpenWindow(run_id=RUN, ends_at=NEXT + 28 * HOUR))
        further = await storage.runs.get(RUN)
        assert further is not None
        assert further.windows == 2
        assert (await find(services)).opens_at == AFTER_NEXT

    async def test_a_pause_by_command_outlasts_the_wait(self, services: Services, storage: Storage, run: Run) -> None:
        await storage.runs.pause(RUN, Command(actor="ann", reason="storm", at=OPENS))
        await find(services)
        await window.enter_window(services, OpenWindow(run_id=RUN, ends_at=NEXT + 4 * HOUR))
        paused = await stored(storage)
        assert (paused.state, paused.paused_from_state, paused.window_end) == (
            RunState.PAUSED,
            RunState.RUNNING,
            NEXT + 4 * HOUR,
        )

    async def test_commands_during_the_wait_count(
        self, services: Services, storage: Storage, run: Run, clock: Clock
    ) -> None:
        await find(services)
        await storage.overrides.skip("monthly", Skip(occurrence=NEXT, actor="ann", reason="x", at=OPENS))
        assert (await find(services)).opens_at == AFTER_NEXT
        await storage.overrides.unskip("monthly", NEXT, actor="ann", reason="x", at=OPENS)
        await freeze(storage, NEXT, NEXT + HOUR)
        assert (await find(services)).opens_at == AFTER_NEXT
        await storage.freezes.delete("year-end", actor="ann", reason="x", at=OPENS)
        await storage.overrides.pause("monthly", Pause(actor="ann", reason="x", at=OPENS))
        assert (await find(services)).opens_at == NEXT
        clock.now = NEXT
        assert (await find(services)).opens_at == AFTER_NEXT
        await storage.overrides.resume("monthly", actor="ann", reason="x", at=OPENS)
        assert (await find(services)).opens_at == NEXT
        await change(storage, schedule=SCHEDULE | {"recurrence": "third Tuesday"})
        assert (await find(services)).opens_at == NEXT + 7 * DAY

    async def test_no_window_is_in_sight(self, services: Services, storage: Storage, run: Run) -> None:
        await change(storage, enabled=False)
        assert await find(services) == NextWindow()
        await change(storage, schedule=None)
        assert await find(services) == NextWindow()
        broken = DOCUMENT | {"schedule": SCHEDULE | {"timeZone": "Mars/Olympus"}}
        await storage.policies.put("monthly", broken, if_match=None, if_none_match=False, at=OPENS)
        assert await find(services) == NextWindow()
        await storage.policies.delete("monthly", if_match=None)
        assert await find(services) == NextWindow()
        assert (await stored(storage)).state is RunState.RUNNING
        assert (await storage.overrides.get("monthly")).window_reservations == []

    async def test_a_run_without_a_window_does_not_wait_for_one(
        self, services: Services, storage: Storage, clock: Clock
    ) -> None:
        await begin(storage, None)
        assert await find(services) == NextWindow()

    async def test_the_end_of_the_run_gives_the_windows_back(
        self, services: Services, storage: Storage, run: Run, clock: Clock
    ) -> None:
        await find(services)
        clock.now = NEXT + HOUR
        for _ in range(2):
            await close_run(services, CloseRun(run_id=RUN, state=RunState.COMPLETED, reason=""))
        assert await find(services) == NextWindow()
        controls = await storage.overrides.get("monthly")
        policy = parse_policy(DOCUMENT)
        # The one that it used stays its own, so that no second run begins in what is left of it.
        for opening, decision in ((NEXT, ScheduleDecision.CONTINUE), (AFTER_NEXT, ScheduleDecision.RUN)):
            assert decide(policy, controls, [], Occurrence(opening, opening + 4 * HOUR)).decision is decision


class TestFrozenMachines:
    SHOP = machine(1, tags={"App": "shop"}, stage=Stage.ASSESSED)
    MAIL = machine(2, tags={"App": "mail"}, stage=Stage.ASSESSED)

    async def judge(self, services: Services, key: str) -> tuple[OutcomeKind, Reason, str] | None:
        outcome = await window.frozen(await load_machine(services, RUN, key))
        return outcome and (outcome.outcome, outcome.reason, outcome.message)

    async def test_tags_decide_at_this_very_moment(
        self, services: Services, storage: Storage, run: Run, clock: Clock
    ) -> None:
        await storage.machines.add(RUN, [self.SHOP, self.MAIL])
        assert await self.judge(services, self.SHOP.key) is None
        await freeze(storage, clock.now, clock.now + HOUR, tags={"values": {"app": ["Shop"]}})
        assert await self.judge(services, self.SHOP.key) == (
            OutcomeKind.SKIPPED,
            Reason.FROZEN,
            "The machine is frozen until 2026-11-10 23:00 UTC by year-end: closing",
        )
        assert await self.judge(services, self.MAIL.key) is None
        clock.now += HOUR
        assert await self.judge(services, self.SHOP.key) is None

    async def test_a_freeze_of_the_policy_that_begins_during_the_run_holds_the_rest(
        self, services: Services, storage: Storage, run: Run, clock: Clock
    ) -> None:
        await storage.machines.add(RUN, [self.SHOP])
        await freeze(storage, clock.now + MINUTE, clock.now + HOUR, policies=["monthly"])
        assert await self.judge(services, self.SHOP.key) is None
        clock.now += MINUTE
        assert await self.judge(services, self.SHOP.key) is not None

    @pytest.mark.parametrize("stage", [Stage.ASSESSED, Stage.INSTALLED])
    async def test_no_request_is_sent_for_a_frozen_machine(
        self, services: Services, storage: Storage, run: Run, clock: Clock, stage: Stage
    ) -> None:
        """There is no Azure here: a call of it would fail."""
        await storage.machines.add(RUN, [self.SHOP.model_copy(update={"stage": stage})])
        await freeze(storage, clock.now, clock.now + HOUR)
        request = PreflightRequest(run_id=RUN, machine_key=self.SHOP.key, start_stopped=True)
        result = await preflight_machine(services, request)
        assert result.preflight.readiness is Readiness.SKIP
        assert result.preflight.outcome is not None
        assert result.preflight.outcome.reason is Reason.FROZEN
        install = StartOperation(run_id=RUN, machine_key=self.SHOP.key, kind=OperationKind.INSTALL, attempt=1)
        started = await submit(services, install)
        assert (started.state, started.outcome) == (StartState.ENDED, result.preflight.outcome)
        assert await storage.intents.get(RUN, self.SHOP.key, OperationKind.INSTALL) is None
