"""The watchdog on real tables and a scripted engine: which runs it checks, and how long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from durabletask.client import OrchestrationQuery, OrchestrationState, OrchestrationStatus

from patchwave.domain.core.ids import RunId
from patchwave.domain.runs.run import RunState
from patchwave.domain.runs.watchdog import RecoveryAction
from patchwave.services.watchdog import Watch, supervise_runs
from patchwave.storage import Storage
from tests.support.factories import NOW, run, stored_run

HOUR = timedelta(hours=1)


def instance(instance_id: str, name: str, status: OrchestrationStatus) -> OrchestrationState:
    at = NOW.replace(tzinfo=None)
    state: Any = OrchestrationState(instance_id, name, status, at, at, None, None, None, None)  # pyright: ignore[reportCallIssue]
    return cast("OrchestrationState", state)


class Engine:
    """What the durable engine is asked and told; slow by choice."""

    def __init__(self) -> None:
        self.own: dict[str, OrchestrationState] = {}
        self.below: dict[str, list[OrchestrationState]] = {}
        self.scheduled: list[tuple[str, str]] = []
        self.terminated: list[str] = []
        self.asked: list[str] = []
        self.seconds = 0.0
        self.slow: set[str] = set()
        self.broken: set[str] = set()
        self.at_once = self.most_at_once = 0

    async def get_orchestration_state(self, instance_id: str) -> OrchestrationState | None:
        self.asked.append(instance_id)
        if instance_id in self.broken:
            raise ValueError("a payload that cannot be read")
        if instance_id in self.slow:
            await asyncio.sleep(30)
        return self.own.get(instance_id)

    async def get_all_orchestration_states(self, orchestration_query: OrchestrationQuery) -> list[OrchestrationState]:
        return self.below.get(str(orchestration_query.instance_id_prefix), [])

    async def terminate_orchestration(self, instance_id: str, *, output: object, recursive: bool) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.seconds)
        self.at_once -= 1
        self.terminated.append(instance_id)
        self.own.pop(instance_id, None)
        for prefix, states in self.below.items():
            self.below[prefix] = [each for each in states if each.instance_id != instance_id]

    async def purge_orchestration(self, instance_id: str, recursive: bool) -> object: ...

    async def schedule_new_orchestration(self, orchestrator: str, **options: Any) -> str:
        self.scheduled.append((orchestrator, str(options["instance_id"])))
        return str(options["instance_id"])

    async def raise_orchestration_event(self, instance_id: str, event_name: str, *, data: object = None) -> None: ...


@pytest.fixture
def engine() -> Engine:
    return Engine()


def ids(count: int) -> list[str]:
    """The oldest first; the index has them the other way round."""
    return [RunId.of(NOW + number * HOUR, "monthly").text for number in range(count)]


async def begin(storage: Storage, run_ids: Sequence[str]) -> None:
    for run_id in run_ids:
        await storage.runs.create(run(id=run_id))
        await storage.runs.start(run_id, NOW)


def watch(storage: Storage, engine: Engine, at: datetime = NOW + 9 * HOUR, **options: Any) -> Watch:
    return Watch(storage, engine, at, 30.0, pause=0.01, **options)  # pyright: ignore[reportArgumentType]: the engine is a fake of the client


async def test_only_runs_that_have_not_ended_are_supervised(storage: Storage, engine: Engine) -> None:
    ended, *live = ids(4)
    await begin(storage, [ended, *live])
    await storage.runs.settle(await storage.runs.close(ended, RunState.COMPLETED, "", NOW))
    done = await supervise_runs(watch(storage, engine))
    assert done == {run_id: [RecoveryAction.CONTINUE] for run_id in live}
    assert {instance_id for _, instance_id in engine.scheduled} == set(live)
    assert ended not in engine.asked


async def test_a_run_that_fails_is_logged_with_its_traceback_and_the_others_go_on(
    storage: Storage, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = ids(3)
    await begin(storage, [first, second, third])
    engine.broken = {second}
    done = await supervise_runs(watch(storage, engine))
    assert set(done) == {first, third}
    [told] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert second in told.getMessage()
    assert told.exc_info is not None
    assert "cannot be read" in str(told.exc_info[1])


async def test_a_run_whose_row_cannot_be_read_is_logged_and_the_others_go_on(
    storage: Storage, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = ids(3)
    await begin(storage, [first, second, third])
    await storage._store.runs.merge("runs", RunId.parse(second).row_key, {"state": "perhaps"})
    assert set(await supervise_runs(watch(storage, engine))) == {first, third}
    [told] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert second in told.getMessage()
    assert told.exc_info is not None


async def test_a_call_without_time_for_all_is_continued_by_the_next_one(storage: Storage, engine: Engine) -> None:
    """Eight at a time hang, so that the ninth, the oldest, is not looked at; the next call begins with it."""
    oldest, *others = ids(9)
    await begin(storage, [oldest, *others])
    engine.slow = set(others)
    begun = asyncio.get_running_loop().time()
    assert await supervise_runs(watch(storage, engine, budget=timedelta(seconds=0.5))) == {}
    assert asyncio.get_running_loop().time() - begun < 3
    assert oldest not in engine.asked
    assert await storage.live_runs.get_cursor() == oldest
    engine.asked.clear()
    done = await supervise_runs(watch(storage, engine, budget=timedelta(seconds=0.5)))
    assert engine.asked[0] == oldest
    assert done == {oldest: [RecoveryAction.CONTINUE]}
    engine.slow = set()
    assert len(await supervise_runs(watch(storage, engine))) == 9
    assert await storage.live_runs.get_cursor() == ""


async def test_what_is_left_of_a_run_is_ended_side_by_side(storage: Storage, engine: Engine) -> None:
    [run_id] = ids(1)
    await begin(storage, [run_id])
    engine.seconds = 0.1
    engine.below[f"{run_id}:"] = [
        instance(f"{run_id}:patch:{number:024x}", "patch_machine", OrchestrationStatus.RUNNING) for number in range(60)
    ]
    begun = asyncio.get_running_loop().time()
    done = await supervise_runs(watch(storage, engine))
    assert asyncio.get_running_loop().time() - begun < 4
    assert done == {run_id: [RecoveryAction.END, RecoveryAction.CONTINUE]}
    assert len(engine.terminated) == 60
    assert 16 <= engine.most_at_once <= 32


async def test_an_end_that_was_cut_off_is_completed(storage: Storage, engine: Engine) -> None:
    [run_id] = ids(1)
    await begin(storage, [run_id])
    await storage.overrides.reserve_window("monthly", run_id, NOW)
    await storage.runs.close(run_id, RunState.COMPLETED, "done", NOW + HOUR)
    soon = watch(storage, engine, NOW + HOUR + timedelta(minutes=10))
    assert await supervise_runs(soon) == {run_id: []}
    assert len(await storage.runs.list_watched()) == 1, "its own orchestration may still be about to"
    await supervise_runs(watch(storage, engine, NOW + HOUR + timedelta(minutes=11)))
    assert engine.scheduled == [("send_notifications", f"{run_id}:notify:ended:1")]
    assert await storage.runs.list_watched() == []
    assert [each.ended_at for each in (await storage.overrides.get("monthly")).window_reservations] == [NOW + HOUR]
    assert "run_ended" in [line["action"] for line in (await storage.audit.list_page(run_id, 10, None)).items]


async def test_an_announced_end_is_not_announced_again(storage: Storage, engine: Engine) -> None:
    [run_id] = ids(1)
    await begin(storage, [run_id])
    await storage.runs.close(run_id, RunState.COMPLETED, "done", NOW)
    told = f"{run_id}:notify:ended:1"
    engine.own[told] = instance(told, "send_notifications", OrchestrationStatus.COMPLETED)
    await supervise_runs(watch(storage, engine))
    assert engine.scheduled == []
    assert await storage.runs.list_watched() == []


@pytest.mark.parametrize(("minutes", "left"), [(10, 1), (11, 0)])
async def test_an_entry_without_a_run_is_removed(storage: Storage, engine: Engine, minutes: int, left: int) -> None:
    run_id = RunId.of(NOW, "monthly").text
    entry = {"runId": run_id, "since": "2026-11-10T19:00:00.000Z"}
    await storage._store.runs.insert("live", RunId.parse(run_id).row_key, entry)
    await supervise_runs(watch(storage, engine, NOW + timedelta(minutes=minutes)))
    assert len(await storage.runs.list_watched()) == left
    assert engine.asked == []


async def test_a_run_without_its_orchestration_is_known_by_its_state(storage: Storage, engine: Engine) -> None:
    [run_id] = ids(1)
    await begin(storage, [run_id])
    engine.own[run_id] = instance(run_id, "patch_run", OrchestrationStatus.SUSPENDED)
    assert await supervise_runs(watch(storage, engine)) == {run_id: []}
    stored = await stored_run(storage, run_id)
    assert stored.generation == 1
