"""Records the histories of the current version (``make golden``).

Histories of a released version are never recorded again: they are what runs of that version have in their engine. While
a version has not been released, ``--again`` replaces them.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from durabletask.internal import orchestrator_service_pb2 as pb

from local.functions_host.durable.workbench import Workbench
from patchwave.domain.core.patches import AssessmentSummary
from patchwave.domain.machine.hooks import HookResult, HookState
from patchwave.domain.notifications.events import NoticeChannels, SendResult
from patchwave.domain.planning.admission import RUN_GROUP, Permit
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.policy.gates import ErrorBudget, OnExceeded
from patchwave.domain.runs.run import Mode, RunControls, Step
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.run import (
    Checkpoint,
    Cutoff,
    InProgressMachines,
    MachineOptions,
    NextWindow,
    RunInput,
    RunRef,
)
from tests.orchestrators.replay_compatibility.histories import FOLDER, ORCHESTRATORS, Execution, Turn, as_json
from tests.support import scripted_fleet
from tests.support.product import wait_until
from tests.support.scripted_fleet import RUN_ID, Fleet, Ring, Script

_KEPT_EXECUTIONS = 3
"""Of an instance: the first, the second, and the last."""
_TURN_SECONDS = 0.2
"""An orchestration that has got an answer responds in less."""


class Recorder:
    """Listens to what an engine hands out and gets back."""

    def __init__(self, bench: Workbench) -> None:
        self._open: dict[str, pb.OrchestratorRequest] = {}
        self.executions: dict[str, dict[str, Execution]] = defaultdict(dict)
        engine = bench.engine
        take, complete = engine.next_work_item, engine.complete

        def next_work_item(*args: Any, **options: Any) -> pb.WorkItem | None:
            item = take(*args, **options)
            if item is not None and item.HasField("orchestratorRequest"):
                self._open[item.orchestratorRequest.instanceId] = _copied(item.orchestratorRequest)
            return item

        def completed(response: Any) -> bool:
            if isinstance(response, pb.OrchestratorResponse):
                self._note(self._open[response.instanceId], response)
            return complete(response)

        engine.next_work_item, engine.complete = next_work_item, completed

    def _note(self, request: pb.OrchestratorRequest, response: pb.OrchestratorResponse) -> None:
        events = [*request.pastEvents, *request.newEvents]
        started = next(event.executionStarted for event in events if event.HasField("executionStarted"))
        execution = self.executions[request.instanceId].setdefault(
            request.executionId.value, Execution(request.instanceId, started.name, started.version.value)
        )
        execution.history = [as_json(event) for event in events]
        actions = [as_json(action) for action in response.actions]
        execution.turns.append(Turn(len(request.pastEvents), len(events), actions))


def rollout(bench: Callable[..., Workbench]) -> None:
    """Two rings with an approval, a bake time, health, hooks and restarts of their own."""
    options = MachineOptions(mode=Mode.PATCH, hooks=True, health=True, reboot_apart=True)
    first, second, third = _keys(3)
    fleet = Fleet(
        [first, second, third],
        {
            first: Script(
                install_polls=[scripted_fleet.RUNNING] * 12 + [scripted_fleet.NEEDS_REBOOT],
                verifications=[scripted_fleet.REBOOT_PENDING, scripted_fleet.READY_AGAIN],
                health=[scripted_fleet.SETTLING, scripted_fleet.WELL],
            ),
            second: Script(assess_polls=[scripted_fleet.CLEAN]),
        },
        rings=[
            Ring("canary", [{"westeurope": [first, second]}], approval_seconds=3_600, bake_seconds=600),
            Ring("broad", [{"westeurope": [third]}]),
        ],
        options=options,
        announces=True,
        pin_rings=True,
    )

    def approve(_: Any) -> Any:
        # While an activity runs, no timer fires: the approval always comes before its deadline.
        if contracts.SET_RUN_STATE.name in fleet.order and not fleet.controls.decided:
            wait_until(lambda: contracts.EXTEND_HEARTBEAT.name in fleet.order)
            time.sleep(_TURN_SECONDS)
            fleet.controls = fleet.controls.model_copy(update={"decided": {"canary": True}})
            open_bench.client.raise_orchestration_event(RUN_ID, Signal.CONTROL)
        return SendResult(sent=True).to_wire()

    with bench(fleet, {contracts.SEND_NOTIFICATION.name: approve}) as open_bench:
        _start(open_bench)
        open_bench.wait(RUN_ID)


def troubles(bench: Callable[..., Workbench]) -> None:
    """Machines that are stopped, busy, throttled, requeued, or fail; a budget ends the run."""
    keys = _keys(6)
    fleet = Fleet(
        keys,
        {
            keys[0]: Script(preflights=[scripted_fleet.NEEDS_START, scripted_fleet.NEEDS_START, scripted_fleet.READY]),
            keys[1]: Script(install_starts=[scripted_fleet.THROTTLED, scripted_fleet.BUSY, scripted_fleet.ACCEPTED]),
            keys[2]: Script(install_starts=[scripted_fleet.REQUEUED, scripted_fleet.ACCEPTED]),
            keys[3]: Script(
                assess_polls=[scripted_fleet.PASSING, scripted_fleet.ASSESSED],
                verifications=[scripted_fleet.BOOTING, scripted_fleet.READY_AGAIN],
            ),
            keys[4]: Script(install_polls=[scripted_fleet.BROKEN]),
            keys[5]: Script(preflights=[scripted_fleet.LOCKED]),
        },
        cap=2,
        error_budget=ErrorBudget(run=0, on_exceeded=OnExceeded.END),
        options=MachineOptions(mode=Mode.PATCH, start_stopped=True),
    )
    with bench(fleet) as open_bench:
        _start(open_bench)
        open_bench.wait(RUN_ID)


def windows(bench: Callable[..., Workbench]) -> None:
    """What the first window leaves goes on in the next one."""
    fleet = Fleet(_keys(2), options=MachineOptions(mode=Mode.PATCH, continues=True), announces=True)
    now = datetime.now(UTC)
    fleet.cutoffs = [Cutoff(at=now - timedelta(hours=1)), Cutoff(at=now + timedelta(days=30))]
    fleet.next_windows = [
        NextWindow(opens_at=now + timedelta(days=2), ends_at=now + timedelta(days=3)),
    ]
    with bench(fleet) as open_bench:
        _start(open_bench)
        open_bench.wait(RUN_ID)


def assessment(bench: Callable[..., Workbench]) -> None:
    """A run that only assesses, and is cancelled."""
    fleet = Fleet(_keys(2), mode=Mode.ASSESS)
    fleet.on_poll = lambda: setattr(
        fleet, "controls", RunControls(is_canceled=contracts.ASSESS_MACHINE.name in fleet.order)
    )
    with bench(fleet) as open_bench:
        _start(open_bench)
        open_bench.wait(RUN_ID)


def generation(bench: Callable[..., Workbench]) -> None:
    """A run that goes on from the records."""
    fleet = Fleet(_keys(3))
    found = AssessmentSummary(status="Succeeded", critical_and_security=3).to_wire()
    fleet.assessments = dict.fromkeys(fleet.keys, found)
    taken = PlacedMachine(key=fleet.keys[0], lane="westeurope", wave=1, permits=[Permit(RUN_GROUP, 5).text])
    in_progress = InProgressMachines(step=Step.PATCH, ring_number=0, phase_number=0, machines=[taken])
    fleet.checkpoints = [Checkpoint(is_planned=True, in_progress=[in_progress]), Checkpoint(is_planned=True)]
    with bench(fleet) as open_bench:
        _start(open_bench, RunInput(run_id=RUN_ID, generation=2).to_wire())
        open_bench.wait(RUN_ID)


def closing(bench: Callable[..., Workbench]) -> None:
    """A run that is closed without its own orchestration."""
    fleet = Fleet(_keys(2))
    instance = instance_ids.closing(RUN_ID)
    with bench(fleet) as open_bench:
        open_bench.client.schedule_new_orchestration(
            contracts.CLOSE_ORPHANED_RUN.name,
            input=RunRef(run_id=RUN_ID).to_wire(),
            instance_id=instance,
            version=contracts.VERSION,
        )
        open_bench.wait(instance)


SCENARIOS = (rollout, troubles, windows, assessment, generation, closing)
_NO_OTHERS: dict[str, Callable[[Any], Any]] = {}
_BESIDE: dict[str, Callable[[Any], Any]] = {
    contracts.TAKE_SNAPSHOT.name: lambda _: HookResult(state=HookState.DONE).to_wire(),
    contracts.RUN_SCRIPT.name: lambda _: HookResult(state=HookState.DONE).to_wire(),
    contracts.LIST_CHANNELS.name: lambda _: NoticeChannels(channels=["hub"]).to_wire(),
    contracts.SEND_NOTIFICATION.name: lambda _: SendResult(sent=True).to_wire(),
    contracts.RECORD_DELIVERY.name: lambda _: {},
}


def record(scenario: Callable[[Callable[..., Workbench]], None], folder: Path) -> None:
    """Run a scenario, and store what each of its instances did."""
    recorders: list[Recorder] = []

    def bench(fleet: Fleet, others: Mapping[str, Callable[[Any], Any]] = _NO_OTHERS) -> Workbench:
        made = Workbench(ORCHESTRATORS, {**fleet.activities(), **_BESIDE, **others})
        recorders.append(Recorder(made))
        return made

    scenario(bench)
    for instance_id, executions in sorted(recorders[0].executions.items()):
        kept = list(executions.values())
        kept = [*kept[: _KEPT_EXECUTIONS - 1], kept[-1]] if len(kept) > _KEPT_EXECUTIONS else kept
        place = re.sub(r"[^\w.]+", "-", instance_id.removeprefix(RUN_ID)).strip("-") or "run"
        for number, execution in enumerate(kept, start=1):
            execution.write(folder / f"{scenario.__name__}.{place}.{number}.json")


def main() -> None:
    """Record every scenario."""
    folder = FOLDER / contracts.VERSION
    if folder.exists() and "--again" not in sys.argv[1:]:
        sys.exit(f"Version {contracts.VERSION} is recorded: raise contracts.VERSION, or say --again.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for scenario in SCENARIOS:
        record(scenario, folder)
        sys.stdout.write(f"{scenario.__name__}\n")


def _start(bench: Workbench, given: Any = None) -> None:
    bench.client.schedule_new_orchestration(
        contracts.PATCH_RUN.name,
        input=given or RunInput(run_id=RUN_ID).to_wire(),
        instance_id=RUN_ID,
        version=contracts.VERSION,
    )


def _keys(count: int) -> list[str]:
    return [f"{number:024x}" for number in range(count)]


def _copied(request: pb.OrchestratorRequest) -> pb.OrchestratorRequest:
    copy = pb.OrchestratorRequest()
    copy.CopyFrom(request)
    return copy


if __name__ == "__main__":
    main()
