"""patch_wave: a sliding window that loses nobody, starts nobody twice, and stops when told."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus

from domain.run import Mode
from domain.work import Step, Wave
from local.host.testing import Workbench
from orchestrators import names
from orchestrators.wave import ENDINGS_PER_GENERATION, patch_wave
from tests.replay.fakes import RUN_ID, Fleet

type Steps = Generator[task.Task[Any], Any, Any]


def keys(count: int) -> list[str]:
    return [f"{number:024x}" for number in range(count)]


class Floor:
    """Children that only keep count: how often each was started, and how many ran at a time."""

    def __init__(self, fleet: Fleet, *, seed: int = 1, silent: frozenset[str] = frozenset(), repeats: int = 1) -> None:
        self.fleet = fleet
        self.started: list[str] = []
        self.running: set[str] = set()
        self.most = 0
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._silent = silent
        self._repeats = repeats

    def patch_machine(self, context: task.OrchestrationContext, data: Any) -> Steps:
        seconds = yield context.call_activity("enter", input=data["machineKey"])
        yield context.create_timer(timedelta(seconds=seconds))
        yield context.call_activity("leave", input=data["machineKey"])
        if data["machineKey"] not in self._silent:
            for _ in range(self._repeats):
                context.send_event(data["waveId"], names.MACHINE_ENDED_EVENT, data=data["machineKey"])
        return None

    def enter(self, key: str) -> float:
        with self._lock:
            self.started.append(key)
            self.running.add(key)
            self.most = max(self.most, len(self.running))
            return self._random.uniform(1, 600)

    def leave(self, key: str) -> None:
        with self._lock:
            self.running.remove(key)
            self.fleet.recorded[key] = [{}]

    def bench(self) -> Workbench:
        activities = self.fleet.activities() | {"enter": self.enter, "leave": self.leave}
        return Workbench({"patch_wave": patch_wave, "patch_machine": self.patch_machine}, activities)


def wave(cap: int) -> dict[str, Any]:
    return Wave(run_id=RUN_ID, step=Step.PATCH, mode=Mode.PATCH, max_concurrent=cap, start_stopped=False).to_wire()


@pytest.mark.parametrize(("count", "cap"), [(1, 5), (7, 1), (30, 4), (12, 50)])
def test_every_machine_once_and_never_more_than_the_cap(count: int, cap: int) -> None:
    floor = Floor(Fleet(keys(count)))
    with floor.bench() as bench:
        ended = bench.run("patch_wave", wave(cap))
    assert ended.output == {"started": count}
    assert sorted(floor.started) == keys(count)
    assert floor.most <= cap


def test_an_empty_fleet_ends_at_once() -> None:
    floor = Floor(Fleet([]))
    with floor.bench() as bench:
        assert bench.run("patch_wave", wave(5)).output == {"started": 0}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_generations_lose_no_completion_and_keep_the_history_small(seed: int) -> None:
    count = 2 * ENDINGS_PER_GENERATION + 57
    floor = Floor(Fleet(keys(count)), seed=seed)
    with floor.bench() as bench:
        ended = bench.run("patch_wave", wave(40), timeout=60)
    assert ended.status is OrchestrationStatus.COMPLETED
    assert ended.output == {"started": count}
    assert sorted(floor.started) == keys(count)
    assert floor.most <= 40
    assert len(ended.history) < 12 * ENDINGS_PER_GENERATION


def test_an_end_that_is_told_twice_counts_once() -> None:
    floor = Floor(Fleet(keys(20)), repeats=2)
    with floor.bench() as bench:
        assert bench.run("patch_wave", wave(3)).output == {"started": 20}
    assert floor.most <= 3
    assert sorted(floor.started) == keys(20)


def test_an_end_that_is_never_told_is_found_in_the_records() -> None:
    lost = frozenset(keys(10)[2:4])
    floor = Floor(Fleet(keys(10)), silent=lost)
    with floor.bench() as bench:
        assert bench.run("patch_wave", wave(2)).output == {"started": 10}
        assert bench.calls_of(names.STILL_OPEN_MACHINES)
    assert sorted(floor.started) == keys(10)


def test_a_cancel_starts_nothing_more_and_waits_for_what_runs() -> None:
    floor = Floor(Fleet(keys(60)))
    canceled_at: list[int] = []

    def leave(key: str) -> None:
        floor.leave(key)
        if not canceled_at:
            # From inside the run, so that virtual time cannot pass between the cancel and its delivery.
            bench.client.raise_orchestration_event("wave", names.CANCEL_EVENT)
            time.sleep(0.3)
            canceled_at.append(len(floor.started))

    activities = floor.fleet.activities() | {"enter": floor.enter, "leave": leave}
    with Workbench({"patch_wave": patch_wave, "patch_machine": floor.patch_machine}, activities) as bench:
        ended = bench.run("patch_wave", wave(4), instance_id="wave")
    assert canceled_at == [4]
    assert len(floor.started) == 4
    assert ended.output == {"started": 4}
    assert not floor.running
