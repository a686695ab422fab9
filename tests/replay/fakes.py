"""A fleet that exists only in these books: the activities under their real names, following a script per machine."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from domain.arm_error import ArmFailure
from domain.outcome import Outcome, Reason
from domain.patch_results import InstallResult
from domain.preflight import Preflight, Readiness
from domain.run import AssessmentSummary, Mode, OperationKind
from domain.work import (
    Discovered,
    MachinePage,
    OpenedRun,
    OperationReport,
    OperationState,
    PowerResult,
    PreflightResult,
    StartResult,
    StartState,
    StillOpen,
    Verified,
)
from local.host.testing import Workbench
from orchestrators import names
from orchestrators.machine import patch_machine
from orchestrators.operation import await_operation
from orchestrators.run import patch_run
from orchestrators.wave import patch_wave

type Json = dict[str, Any]

RUN_ID = "20261121T000000Z-monthly"

READY = PreflightResult(preflight=Preflight(readiness=Readiness.READY), wait_seconds=30)
NEEDS_START = PreflightResult(preflight=Preflight(readiness=Readiness.NEEDS_START), wait_seconds=30)
LOCKED = PreflightResult(
    preflight=Preflight(
        readiness=Readiness.WAIT, outcome=Outcome.skipped(Reason.LOCKED_BY_RUN, "Another run works on it.")
    ),
    wait_seconds=30,
)
STOPPED = PreflightResult(
    preflight=Preflight(readiness=Readiness.SKIP, outcome=Outcome.skipped(Reason.NOT_RUNNING, "It is stopped.")),
)
ACCEPTED = StartResult(state=StartState.ACCEPTED)
THROTTLED = StartResult(state=StartState.WAIT, wait_seconds=60, counts=False)
BUSY = StartResult(
    state=StartState.WAIT, wait_seconds=60, outcome=Outcome.skipped(Reason.BUSY_ELSEWHERE, "Another operation runs.")
)
RUNNING = OperationReport(state=OperationState.RUNNING, wait_seconds=30)
ASSESSED = OperationReport(
    state=OperationState.ENDED, assessment=AssessmentSummary(status="Succeeded", critical_and_security=3)
)
CLEAN = OperationReport(state=OperationState.ENDED, assessment=AssessmentSummary(status="Succeeded"))
INSTALLED = OperationReport(
    state=OperationState.ENDED,
    installation=InstallResult.model_validate(
        {"status": "Succeeded", "installedPatchCount": 3, "rebootStatus": "NotNeeded"}
    ),
)
PASSING = OperationReport(
    state=OperationState.FAILED,
    failure=ArmFailure(status=200, code="VMGuestPatchInternalError", message="Please retry later."),
    wait_seconds=30,
)
CANCELED = OperationReport(state=OperationState.CANCELED)
LOST = OperationReport(state=OperationState.LOST)
OVERDUE = OperationReport(state=OperationState.DEADLINE)
READY_AGAIN = Verified(is_ready=True, reboot_pending=False)
BOOTING = Verified(is_ready=False, wait_seconds=30)


class Broken(Exception):
    """Storage or the worker failed."""


@dataclass
class Script:
    """How one machine behaves: each list is used up from the front, and its last entry stays."""

    looks: list[PreflightResult] = field(default_factory=lambda: [READY])
    assess_starts: list[StartResult] = field(default_factory=lambda: [ACCEPTED])
    install_starts: list[StartResult] = field(default_factory=lambda: [ACCEPTED])
    assess_polls: list[OperationReport] = field(default_factory=lambda: [RUNNING, ASSESSED])
    install_polls: list[OperationReport] = field(default_factory=lambda: [RUNNING, RUNNING, INSTALLED])
    verifications: list[Verified] = field(default_factory=lambda: [READY_AGAIN])
    stop: PowerResult = field(default_factory=lambda: PowerResult(accepted=True))
    breaks: str = ""
    """The activity that fails for good."""


def _next[Item](items: list[Item]) -> Item:
    return items.pop(0) if len(items) > 1 else items[0]


class Fleet:
    """Activities with books of their own. ``scripts`` are by machine key; other machines just work."""

    def __init__(self, keys: list[str], scripts: dict[str, Script] | None = None, *, mode: Mode = Mode.PATCH) -> None:
        self.keys = sorted(keys)
        self.scripts = {key: Script() for key in keys} | (scripts or {})
        self.opened = OpenedRun(mode=mode, max_concurrent=5, assess_concurrency=5, start_stopped=False)
        self.discoveries: list[Discovered] = [Discovered(machines=len(keys), selectors="tags env=prod")]
        self.accepted: Counter[tuple[str, str]] = Counter()
        self.recorded: dict[str, list[Json]] = {}
        self.released: Counter[str] = Counter()
        self.power: list[tuple[str, str]] = []
        self.assessments: dict[str, Json] = {}
        self.closed: list[Json] = []
        self.order: list[str] = []
        self._lock = threading.Lock()

    @property
    def outcomes(self) -> dict[str, tuple[str, str]]:
        """Outcome and reason of each machine that has one; fails when a machine has two."""
        assert all(len(records) == 1 for records in self.recorded.values()), self.recorded
        return {
            key: (records[0]["outcome"]["outcome"], records[0]["outcome"]["reason"])
            for key, records in self.recorded.items()
        }

    def bench(self, **replaced: Callable[[Any], Any]) -> Workbench:
        """A workbench with the real orchestrators and these activities, some of them replaced."""
        orchestrators = [patch_run, patch_wave, patch_machine, await_operation]
        return Workbench(orchestrators, self.activities() | replaced)

    def activities(self) -> dict[str, Callable[[Any], Any]]:
        """The activities by name; each takes the books' lock, as the tests read them from another thread."""
        named: dict[str, Callable[[Json], Any]] = {
            names.OPEN_RUN: lambda _: self.opened.to_wire(),
            names.DISCOVER_MACHINES: lambda _: _next(self.discoveries).to_wire(),
            names.NEXT_MACHINES: self._next_machines,
            names.STILL_OPEN_MACHINES: lambda data: StillOpen(
                keys=[key for key in data["keys"] if key not in self.recorded]
            ).to_wire(),
            names.PREFLIGHT_MACHINE: self._preflight,
            names.START_MACHINE: lambda data: self._power("start", data),
            names.STOP_MACHINE: lambda data: self._power("stop", data),
            names.ASSESS_MACHINE: lambda data: self._submit(data, self._script(data).assess_starts),
            names.INSTALL_PATCHES: lambda data: self._submit(data, self._script(data).install_starts),
            names.POLL_OPERATION: self._poll,
            names.VERIFY_MACHINE: lambda data: _next(self._script(data).verifications).to_wire(),
            names.RELEASE_MACHINE: self._release,
            names.RECORD_OUTCOME: self._record,
            names.CLOSE_OPEN_MACHINES: self._close_open,
            names.CLOSE_RUN: self._close,
        }
        return {name: self._guarded(name, activity) for name, activity in named.items()}

    def _guarded(self, name: str, activity: Callable[[Json], Any]) -> Callable[[Any], Any]:
        def call(data: Json) -> Any:
            with self._lock:
                self.order.append(name)
                key = data.get("machineKey")
                if key is not None and self.scripts[key].breaks == name:
                    raise Broken("the storage is away")
                return activity(data)

        return call

    def _script(self, data: Json) -> Script:
        return self.scripts[data["machineKey"]]

    def _next_machines(self, data: Json) -> Json:
        rest = [key for key in self.keys if key > (data["cursor"] or "")]
        page = rest[: data["limit"]]
        cursor = page[-1] if len(rest) > len(page) else None
        return MachinePage(keys=[key for key in page if key not in self.recorded], cursor=cursor).to_wire()

    def _preflight(self, data: Json) -> Json:
        look = _next(self._script(data).looks)
        found = self.assessments.get(data["machineKey"])
        assessment = AssessmentSummary.from_wire(found) if found else None
        return look.model_copy(update={"assessment": assessment}).to_wire()

    def _submit(self, data: Json, starts: list[StartResult]) -> Json:
        answer = _next(starts)
        if answer.state is StartState.ACCEPTED:
            self.accepted[data["machineKey"], data["kind"]] += 1
        return answer.to_wire()

    def _poll(self, data: Json) -> Json:
        script = self._script(data)
        is_assess = data["kind"] == OperationKind.ASSESS
        report = _next(script.assess_polls if is_assess else script.install_polls)
        if is_assess and report.assessment is not None:
            self.assessments[data["machineKey"]] = report.assessment.to_wire()
        return report.to_wire()

    def _power(self, what: str, data: Json) -> Json:
        self.power.append((what, data["machineKey"]))
        answer = self._script(data).stop if what == "stop" else PowerResult(accepted=True, wait_seconds=30)
        return answer.to_wire()

    def _release(self, data: Json) -> Json:
        self.released[data["machineKey"]] += 1
        return {}

    def _record(self, data: Json) -> Json:
        self.recorded.setdefault(data["machineKey"], []).append(data)
        return data["outcome"]

    def _close_open(self, data: Json) -> Json:
        left = [key for key in self.keys if key not in self.recorded]
        for key in left:
            self.recorded[key] = [{"machineKey": key, "outcome": data["outcome"]}]
        return {"closed": len(left)}

    def _close(self, data: Json) -> Json:
        self.closed.append(data)
        return {}
