"""Children of a phase that only record when they ran and how they ended."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Generator, Iterable
from datetime import datetime, timedelta
from typing import Any

from durabletask import task

from local.functions_host.durable.workbench import Workbench
from orchestrators.phase import patch_phase
from patchwave.domain.core.documents import Json
from patchwave.domain.runs.run import Mode, Step
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.machine import MachineEnded
from patchwave.domain.workflow.phase import Phase
from patchwave.domain.workflow.run import MachineOptions
from tests.support.scripted_fleet import RUN_ID, Fleet

type Steps = Generator[task.Task[Any], Any, Any]


def keys(count: int) -> list[str]:
    return [f"{number:024x}" for number in range(count)]


class Floor:
    """Children that only keep books: when each started, with whom it ran, and how it ended."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        seed: int = 1,
        silent: Iterable[str] = (),
        failing: Iterable[str] = (),
        left_once: Iterable[str] = (),
        always_left: Iterable[str] = (),
        repeats: int = 1,
        seconds: Callable[[str], float] | None = None,
        on_leave: Callable[[str], None] | None = None,
    ) -> None:
        self.fleet = fleet
        self.started: list[str] = []
        self.instances: list[str] = []
        self.notices: dict[str, Json] = {}
        self.began: dict[str, datetime] = {}
        self.left: dict[str, datetime] = {}
        self.running: set[str] = set()
        self.together: set[frozenset[str]] = set()
        self.most = 0
        self._lock = threading.Lock()
        random_seconds = random.Random(seed)
        self._seconds = seconds or (lambda _: random_seconds.uniform(1, 600))
        self._silent = set(silent)
        self._failing = set(failing)
        self._left_once = set(left_once)
        self._always_left = set(always_left)
        self._repeats = repeats
        self._on_leave = on_leave

    def patch_machine(self, context: task.OrchestrationContext, data: Any) -> Steps:
        key = data["machineKey"]
        at = context.current_utc_datetime.isoformat()
        seconds = yield context.call_activity("enter", input=[key, at, context.instance_id])
        yield context.create_timer(timedelta(seconds=seconds))
        is_left = yield context.call_activity("leave", input=[key, context.current_utc_datetime.isoformat()])
        if key not in self._silent:
            ended = MachineEnded(key=key, attempt=data["attempt"], failed=key in self._failing, requeued=is_left)
            yield context.call_activity("tell", input=[data["phase"], ended.to_wire()])
        return None

    def tell(self, data: list[Any]) -> None:
        for _ in range(self._repeats):
            self.fleet.tell(data[0], MachineEnded.model_validate(data[1]))

    def enter(self, data: list[str]) -> float:
        key, at, instance_id = data
        with self._lock:
            self.started.append(key)
            self.instances.append(instance_id)
            self.began[key] = datetime.fromisoformat(at)
            self.together |= {frozenset((key, other)) for other in self.running}
            self.running.add(key)
            self.most = max(self.most, len(self.running))
            return self._seconds(key)

    def leave(self, data: list[str]) -> bool:
        key, at = data
        with self._lock:
            self.running.remove(key)
            self.left[key] = datetime.fromisoformat(at)
            if key in self._always_left:
                return True
            if key in self._left_once:
                self._left_once.remove(key)
                return True
            self.fleet.recorded[key] = [{"failed": key in self._failing}]
        if self._on_leave:
            self._on_leave(key)
        return False

    def send_notifications(self, context: task.OrchestrationContext, notice: dict[str, Any]) -> Generator[Any, Any]:
        self.notices[context.instance_id] = notice
        yield context.create_timer(timedelta(seconds=1))

    def bench(self, **replaced: Callable[[Any], Any]) -> Workbench:
        own = {"enter": self.enter, "leave": self.leave, "tell": self.tell}
        orchestrators = {
            "patch_phase": patch_phase,
            "patch_machine": self.patch_machine,
            contracts.SEND_NOTIFICATIONS.name: self.send_notifications,
        }
        return Workbench(orchestrators, self.fleet.activities() | own | replaced)


def phase(fleet: Fleet, **fields: Any) -> dict[str, Any]:
    ring = fleet.rings[0]
    return Phase(
        run_id=RUN_ID,
        name="patch:0.0.1",
        step=Step.PATCH,
        options=MachineOptions(mode=Mode.PATCH),
        ring=ring.name,
        lanes={lane: len(members) for lane, members in ring.phases[0].items()},
        machines=ring.machines,
        ring_machines=ring.machines,
        **fields,
    ).to_wire()
