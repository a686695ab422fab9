"""A fleet that exists only in memory: the activities under their real names, following a script per machine."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from local.functions_host.durable.workbench import Workbench
from orchestrators.machine import patch_machine
from orchestrators.operation import await_operation
from orchestrators.phase import patch_phase
from orchestrators.run import patch_run
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.azure.patch_results import InstallResult
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary
from patchwave.domain.machine.health import HealthResult, HealthState
from patchwave.domain.machine.preflight import Preflight, Readiness
from patchwave.domain.planning.admission import RUN_GROUP, Permit
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.runs.error_budget import counts_as_failure
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Mode, RunControls, Step
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.machine import (
    MachineEnded,
    PowerResult,
    PreflightResult,
    Recorded,
    Verified,
)
from patchwave.domain.workflow.operation import OperationReport, OperationState, StartResult, StartState
from patchwave.domain.workflow.phase import PendingMachines, PhasePoll, ReconciledMachines
from patchwave.domain.workflow.run import (
    Checkpoint,
    Cutoff,
    DiscoveryPage,
    GroupsReleased,
    GroupsReserved,
    MachineOptions,
    NextWindow,
    PhaseSummary,
    PlanSummary,
    RingSummary,
    RunSettings,
)

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
    preflight=Preflight(readiness=Readiness.SKIP, outcome=Outcome.skipped(Reason.NOT_RUNNING, "It is stopped."))
)
ACCEPTED = StartResult(state=StartState.ACCEPTED)
REQUEUED = StartResult(state=StartState.REQUEUED)
THROTTLED = StartResult(state=StartState.WAIT, wait_seconds=60, counts_as_attempt=False)
BUSY = StartResult(
    state=StartState.WAIT,
    wait_seconds=60,
    outcome=Outcome.skipped(Reason.OPERATION_CONFLICT, "Another operation runs."),
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
NEEDS_REBOOT = OperationReport(
    state=OperationState.ENDED,
    installation=InstallResult.model_validate(
        {"status": "Succeeded", "installedPatchCount": 3, "rebootStatus": "Required"}
    ),
)
BROKEN = OperationReport(
    state=OperationState.ENDED,
    installation=InstallResult.model_validate({"status": "Failed", "installedPatchCount": 1, "failedPatchCount": 2}),
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
REBOOT_PENDING = Verified(is_ready=True, reboot_pending=True)
BOOTING = Verified(is_ready=False, wait_seconds=30)
WELL = HealthResult(state=HealthState.OK)
SETTLING = HealthResult(state=HealthState.WAIT, wait_seconds=30)
UNWELL = HealthResult(
    state=HealthState.UNHEALTHY,
    outcome=Outcome(outcome=OutcomeKind.FAILED, reason=Reason.UNHEALTHY, message="It became unhealthy."),
)


class Broken(Exception):
    """Storage or the worker failed."""


@dataclass
class Script:
    """How one machine behaves: each list is used up from the front, and its last entry stays."""

    preflights: list[PreflightResult] = field(default_factory=lambda: [READY])
    assess_starts: list[StartResult] = field(default_factory=lambda: [ACCEPTED])
    install_starts: list[StartResult] = field(default_factory=lambda: [ACCEPTED])
    assess_polls: list[OperationReport] = field(default_factory=lambda: [RUNNING, ASSESSED])
    install_polls: list[OperationReport] = field(default_factory=lambda: [RUNNING, RUNNING, INSTALLED])
    verifications: list[Verified] = field(default_factory=lambda: [READY_AGAIN])
    health: list[HealthResult] = field(default_factory=lambda: [WELL])
    restart: PowerResult = field(default_factory=lambda: PowerResult(accepted=True, wait_seconds=30))
    starts: list[PowerResult] = field(default_factory=lambda: [PowerResult(accepted=True, wait_seconds=30)])
    stops: list[PowerResult] = field(default_factory=lambda: [PowerResult(accepted=True)])
    breaks: str = ""
    """The activity that fails for good."""


def _next[Item](items: list[Item]) -> Item:
    return items.pop(0) if len(items) > 1 else items[0]


@dataclass
class Ring:
    """A ring of the scripted plan: its phases, each the keys of its machines by lane, in order."""

    name: str
    phases: list[dict[str, list[str]]]
    approval_seconds: float | None = None
    bake_seconds: float = 0

    @property
    def machines(self) -> int:
        return sum(len(keys) for phase in self.phases for keys in phase.values())


class Fleet:
    """Activities that record their calls. ``scripts`` are by machine key; other machines just work.

    Without ``rings`` all machines are in one lane of one ring. ``controls`` are the commands of users.
    """

    def __init__(
        self,
        keys: list[str],
        scripts: dict[str, Script] | None = None,
        *,
        mode: Mode = Mode.PATCH,
        rings: list[Ring] | None = None,
        cap: int = 5,
        **opened: Any,
    ) -> None:
        self.keys = sorted(keys)
        self.scripts = {key: Script() for key in keys} | (scripts or {})
        self.opened = RunSettings(options=MachineOptions(mode=mode), assess_concurrency=5).model_copy(update=opened)
        self.rings = rings if rings is not None else [Ring("all", [{"westeurope": self.keys}])]
        self.cap = cap
        self.waves: dict[str, int] = {}
        self.permits: dict[str, list[Permit]] = {}
        self.discoveries: list[DiscoveryPage] = [DiscoveryPage(machines=len(keys), selectors="tags env=prod")]
        self.checkpoints: list[Checkpoint] = [Checkpoint(is_planned=False)]
        self.controls = RunControls()
        self.on_poll: Callable[[], None] = lambda: None
        self.cutoffs: list[Cutoff] = [Cutoff()]
        self.first_openings: list[NextWindow] = [NextWindow()]
        self.next_windows: list[NextWindow] = [NextWindow()]
        self.reservations: list[GroupsReserved] = [GroupsReserved()]
        self.waiting: list[str] = []
        self.accepted: Counter[tuple[str, str]] = Counter()
        self.recorded: dict[str, list[Json]] = {}
        self.released: Counter[str] = Counter()
        self.stages: dict[str, Stage] = {}
        self.power: list[tuple[str, str]] = []
        self.assessments: dict[str, Json] = {}
        self.installations: dict[str, Json] = {}
        self.completions: dict[str, list[MachineEnded]] = {}
        self.calls: list[tuple[str, Json]] = []
        self.closed: list[Json] = []
        self._lock = threading.Lock()

    @property
    def order(self) -> list[str]:
        """The activities by name, in the order in which they were called."""
        return [name for name, _ in self.calls]

    def calls_of(self, name: str) -> list[Json]:
        """The inputs of one activity."""
        return [data for called, data in self.calls if called == name]

    @property
    def installed(self) -> list[str]:
        """Keys of machines in the order in which their installations were asked for."""
        return [data["machineKey"] for data in self.calls_of(contracts.INSTALL_PATCHES.name)]

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
        orchestrators = [patch_run, patch_phase, patch_machine, await_operation]
        return Workbench(orchestrators, self.activities() | replaced)

    def activities(self) -> dict[str, Callable[[Any], Any]]:
        """The activities by name; each takes the lock of the records, as the tests read them from another thread."""
        named: dict[str, Callable[[Json], Any]] = {
            contracts.BEGIN_RUN.name: lambda _: self.opened.to_wire(),
            contracts.DISCOVER_MACHINES.name: lambda _: _next(self.discoveries).to_wire(),
            contracts.PLAN_RUN.name: lambda _: self.plan().to_wire(),
            contracts.GET_RUN_CONTROLS.name: lambda _: self.controls.to_wire(),
            contracts.SET_RUN_STATE.name: lambda _: {},
            contracts.EXTEND_HEARTBEAT.name: lambda _: {},
            contracts.LOAD_CHECKPOINT.name: lambda _: _next(self.checkpoints).to_wire(),
            contracts.TRIP_ERROR_BUDGET.name: self._close_gate,
            contracts.STOP_RUN.name: lambda _: self.controls.to_wire(),
            contracts.GET_START_CUTOFF.name: lambda _: _next(self.cutoffs).to_wire(),
            contracts.FIND_FIRST_OPENING.name: lambda _: _next(self.first_openings).to_wire(),
            contracts.FIND_NEXT_WINDOW.name: lambda _: _next(self.next_windows).to_wire(),
            contracts.ENTER_WINDOW.name: lambda _: {},
            contracts.RESERVE_GROUPS.name: lambda _: _next(self.reservations).to_wire(),
            contracts.RELEASE_GROUPS.name: lambda _: GroupsReleased(waiting=self.waiting).to_wire(),
            contracts.PIN_RING.name: lambda _: {},
            contracts.POLL_PHASE.name: self._poll_phase,
            contracts.LIST_PENDING_MACHINES.name: self._next_machines,
            contracts.RECONCILE_MACHINES.name: self._still_open,
            contracts.PREFLIGHT_MACHINE.name: self._preflight,
            contracts.START_MACHINE.name: lambda data: self._power("start", data),
            contracts.STOP_MACHINE.name: lambda data: self._power("stop", data),
            contracts.RESTART_MACHINE.name: lambda data: self._power("restart", data),
            contracts.CHECK_HEALTH.name: lambda data: _next(self._script(data).health).to_wire(),
            contracts.ASSESS_MACHINE.name: lambda data: self._submit(data, self._script(data).assess_starts),
            contracts.INSTALL_PATCHES.name: lambda data: self._submit(data, self._script(data).install_starts),
            contracts.POLL_OPERATION.name: self._poll,
            contracts.VERIFY_MACHINE.name: lambda data: _next(self._script(data).verifications).to_wire(),
            contracts.RELEASE_MACHINE.name: self._release,
            contracts.RECORD_OUTCOME.name: self._record,
            contracts.CLOSE_OPEN_MACHINES.name: self._close_open,
            contracts.CLOSE_RUN.name: self._close,
        }
        return {name: self._guarded(name, activity) for name, activity in named.items()}

    def plan(self) -> PlanSummary:
        """The plan in short."""
        rings = [
            RingSummary(
                name=ring.name,
                machines=ring.machines,
                phases=[PhaseSummary(lanes={lane: len(keys) for lane, keys in phase.items()}) for phase in ring.phases],
                approval_seconds=ring.approval_seconds,
                bake_seconds=ring.bake_seconds,
            )
            for ring in self.rings
        ]
        return PlanSummary(machines=sum(ring.machines for ring in self.rings), rings=rings)

    def placed(self, ring: int, phase: int) -> list[PlacedMachine]:
        """The machines of a phase, with their permits."""
        lanes = self.rings[ring].phases[phase]
        waves = Counter((lane, self.waves.get(key, 1)) for lane, keys in lanes.items() for key in keys)
        return [
            PlacedMachine(
                key=key,
                lane=lane,
                wave=self.waves.get(key, 1),
                wave_size=waves[lane, self.waves.get(key, 1)],
                permits=[place.text for place in (*self.permits.get(key, []), Permit(RUN_GROUP, self.cap))],
            )
            for lane, keys in lanes.items()
            for key in keys
        ]

    def _guarded(self, name: str, activity: Callable[[Json], Any]) -> Callable[[Any], Any]:
        def call(data: Json) -> Any:
            with self._lock:
                self.calls.append((name, data))
                key = data.get("machineKey")
                if key is not None and self.scripts[key].breaks == name:
                    raise Broken("the storage is away")
                return activity(data)

        return call

    def _script(self, data: Json) -> Script:
        return self.scripts[data["machineKey"]]

    def tell(self, phase: str, ended: MachineEnded) -> None:
        """Write down for a phase that a machine has ended."""
        self.completions.setdefault(phase, []).append(ended)

    def _poll_phase(self, data: Json) -> Json:
        self.on_poll()
        completions = self.completions.get(data["phase"], [])
        # The last of those that are known is told again, as the real one does with all that are recent.
        new = completions[max(0, int(data["since"] or 0) - 1) :]
        return PhasePoll(
            controls=self.controls, ended=new, since=str(len(completions)) if completions else "", wait_seconds=30
        ).to_wire()

    def _next_machines(self, data: Json) -> Json:
        if data["step"] == Step.ASSESS:
            machines = [PlacedMachine(key=key) for key in self.keys]
        else:
            machines = self.placed(data["ringNumber"], data["phaseNumber"])
        if data["step"] == Step.RESTART:
            machines = [each for each in machines if self.stages.get(each.key) is Stage.INSTALLED]
        begin = int(data["cursor"] or 0)
        end = begin + data["limit"]
        attempt = {"attempt": data["firstAttempt"]}
        page = [each.model_copy(update=attempt) for each in machines[begin:end] if each.key not in self.recorded]
        return PendingMachines(machines=page, cursor=str(end) if end < len(machines) else None).to_wire()

    def _still_open(self, data: Json) -> Json:
        ended = [key for key in data["keys"] if key in self.recorded]
        failed = [key for key in ended if self.recorded[key][0].get("failed")]
        return ReconciledMachines(keys=[key for key in data["keys"] if key not in ended], failed=failed).to_wire()

    def _close_gate(self, data: Json) -> Json:
        if data["endsRun"]:
            update: Json = {"stop_reason": f"The error budget of {data['scope']} is used up."}
        else:
            update = {"blocked_scopes": [*self.controls.blocked_scopes, data["scope"]]}
        self.controls = self.controls.model_copy(update=update)
        return self.controls.to_wire()

    def _preflight(self, data: Json) -> Json:
        preflight = _next(self._script(data).preflights)
        assessment = self.assessments.get(data["machineKey"])
        installation = self.installations.get(data["machineKey"])
        learned = {
            "assessment": AssessmentSummary.model_validate(assessment) if assessment else None,
            "installation": InstallationSummary.model_validate(installation) if installation else None,
        }
        return preflight.model_copy(update=learned).to_wire()

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
        script = self._script(data)
        answers = {"start": script.starts, "stop": script.stops, "restart": [script.restart]}
        return _next(answers[what]).to_wire()

    def _release(self, data: Json) -> Json:
        self.released[data["machineKey"]] += 1
        self.stages[data["machineKey"]] = Stage(data["stage"])
        if data["installation"]:
            self.installations[data["machineKey"]] = data["installation"]
        self.tell(
            data["phase"], MachineEnded(key=data["machineKey"], attempt=data["attempt"], requeued=data["requeued"])
        )
        return {}

    def _record(self, data: Json) -> Json:
        self.recorded.setdefault(data["machineKey"], []).append(data)
        outcome = Outcome.model_validate(data["outcome"])
        failed = counts_as_failure(outcome.outcome, outcome.reason)
        self.tell(data["phase"], MachineEnded(key=data["machineKey"], attempt=data["attempt"], failed=failed))
        return Recorded(failed=failed).to_wire()

    def _close_open(self, data: Json) -> Json:
        left = [key for key in self.keys if key not in self.recorded]
        for key in left:
            self.recorded[key] = [{"machineKey": key, "outcome": data["outcome"]}]
        return {"closed": len(left)}

    def _close(self, data: Json) -> Json:
        self.closed.append(data)
        return {}
