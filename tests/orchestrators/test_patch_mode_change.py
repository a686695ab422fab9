"""change_patch_modes on the real engine, with virtual time: waves, polls, and what becomes of a wave that was lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from durabletask.client import OrchestrationStatus

from local.functions_host.durable.workbench import Workbench, WorkflowResult
from orchestrators.patch_mode_change import change_machine_patch_mode, change_patch_modes
from patchwave.domain.fleet.patch_mode_change import ChangeProgress, ChangeRef, MachineChangeRef, NextChanges
from patchwave.domain.workflow import contracts

type Json = dict[str, Any]

CHANGE = "20261121T140000Z-modes-1a2b3c4d"


class Broken(Exception):
    """Storage or the worker failed."""


class Machines:
    """Machines that need so many polls each, so many at a time; the activity of ``broken`` ones fails so often."""

    def __init__(self, polls: dict[str, int], wave: int, broken: dict[str, int] | None = None) -> None:
        self.left = dict(polls)
        self.wave = wave
        self.broken = broken or {}
        self.polls: Counter[str] = Counter()
        self.waves: list[list[str]] = []
        self.numbers: list[int] = []
        self._lock = threading.Lock()

    def activities(self) -> dict[str, Callable[[Any], Any]]:
        return {contracts.NEXT_PATCH_MODE_WAVE.name: self.next, contracts.STEP_PATCH_MODE_CHANGE.name: self.step}

    def next(self, data: Json) -> Json:
        ref = ChangeRef.model_validate(data)
        with self._lock:
            self.numbers.append(ref.wave)
            keys = sorted(key for key, polls in self.left.items() if polls > 0)[: self.wave]
            self.waves.append(keys)
            return NextChanges(machine_keys=keys).to_wire()

    def step(self, data: Json) -> Json:
        key = MachineChangeRef.model_validate(data).machine_key
        with self._lock:
            if self.broken.get(key, 0) > 0:
                self.broken[key] -= 1
                raise Broken(key)
            self.polls[key] += 1
            self.left[key] -= 1
            return ChangeProgress(has_ended=self.left[key] <= 0, wait_seconds=30).to_wire()


def run(machines: Machines) -> WorkflowResult:
    with Workbench([change_patch_modes, change_machine_patch_mode], machines.activities()) as bench:
        return bench.run(contracts.CHANGE_PATCH_MODES.name, ChangeRef(change_id=CHANGE).to_wire(), instance_id=CHANGE)


def test_wave_after_wave_until_none_is_left() -> None:
    machines = Machines({f"{number:024x}": 1 + number % 3 for number in range(7)}, wave=3)
    ended = run(machines)
    assert ended.status is OrchestrationStatus.COMPLETED
    assert [len(keys) for keys in machines.waves] == [3, 3, 1, 0]
    assert machines.numbers == [0, 1, 2, 3]
    assert machines.polls == {f"{number:024x}": 1 + number % 3 for number in range(7)}
    # A history is one wave long, however large the fleet is.
    assert len(ended.history) < 12


def test_nothing_to_change_ends_at_once() -> None:
    machines = Machines({}, wave=3)
    assert run(machines).status is OrchestrationStatus.COMPLETED
    assert machines.waves == [[]]


def test_a_machine_that_takes_long_is_taken_again_in_the_next_wave() -> None:
    key = "a" * 24
    machines = Machines({key: 102}, wave=1)
    assert run(machines).status is OrchestrationStatus.COMPLETED
    assert machines.waves == [[key], [key], []]
    assert machines.polls[key] == 102


def test_a_wave_that_was_lost_is_made_up_for() -> None:
    lost, fine = "a" * 24, "b" * 24
    # As often as an activity is tried before its orchestration fails.
    machines = Machines({lost: 1, fine: 1}, wave=2, broken={lost: 12})
    assert run(machines).status is OrchestrationStatus.COMPLETED
    assert machines.waves == [[lost, fine], [lost], []]


def test_waves_are_not_lost_for_ever() -> None:
    lost = "a" * 24
    machines = Machines({lost: 1}, wave=1, broken={lost: 1_000})
    ended = run(machines)
    assert ended.status is OrchestrationStatus.FAILED
    assert len(machines.waves) == 3
