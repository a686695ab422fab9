"""run_maintenance on the engine, with virtual time, and a simulated Azure that must be left as it was found."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from durabletask.client import OrchestrationStatus

from local.functions_host.durable.workbench import Workbench, WorkflowResult
from orchestrators.maintenance_machine import maintain_machine, maintain_shard
from orchestrators.maintenance_run import MAX_COPIES, run_maintenance
from orchestrators.operation import await_operation
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.documents import parse_instant
from patchwave.domain.core.outcome import Outcome, Reason
from patchwave.domain.core.patches import AssessmentSummary
from patchwave.domain.machine.hooks import HookResult, HookState
from patchwave.domain.machine.preflight import Preflight, Readiness
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.machine import PowerResult, PreflightResult
from patchwave.domain.workflow.maintenance_run import (
    CancelResult,
    MaintenancePhase,
    MaintenanceRunStatus,
    PowerCheck,
    PowerState,
    PreSummary,
    ResultsPage,
    ShardMachines,
    Shards,
)
from patchwave.domain.workflow.operation import OperationReport, OperationState, StartResult, StartState
from patchwave.domain.workflow.run import MachinesPage, RunInput

type Json = dict[str, Any]

RUN_ID = "20261121T030000Z-weekly-0a1b2c3d"
READY = PreflightResult(preflight=Preflight(readiness=Readiness.READY), wait_seconds=30)
STOPPED = PreflightResult(preflight=Preflight(readiness=Readiness.NEEDS_START), wait_seconds=30)
OFF = PreflightResult(
    preflight=Preflight(readiness=Readiness.SKIP, outcome=Outcome.skipped(Reason.NOT_RUNNING, "It is deallocated."))
)
HIBERNATED = PreflightResult(
    preflight=Preflight(readiness=Readiness.SKIP, outcome=Outcome.skipped(Reason.HIBERNATED, "It is hibernated."))
)
BOOTING = PreflightResult(
    preflight=Preflight(
        readiness=Readiness.WAIT, outcome=Outcome.skipped(Reason.AGENT_NOT_READY, "The VM agent is not ready.")
    ),
    wait_seconds=30,
)
HOOK_DONE = HookResult(state=HookState.DONE)
HOOK_RUNS = HookResult.wait(60, "It did not end.", counts_as_attempt=False)
HOOK_FAILED = HookResult.failed("The snapshot failed.")
NO = ArmFailure(status=409, code="OperationNotAllowed", message="Not now.")


class Azure:
    """The activities, with books of their own, around a scheduled run that starts in 35 minutes and lasts 2 hours."""

    def __init__(self, *keys: str, stopped: tuple[str, ...] = (), **stand: Any) -> None:
        self.at = datetime.now(UTC)
        self.keys = list(keys)
        self.stopped = set(stopped)
        self.running = set(keys) - self.stopped
        self.ours: set[str] = set()
        self.prepared: dict[str, str] = {}
        self.concluded: dict[str, list[str]] = {}
        self.listings: list[int] = [len(keys)]
        self.pages: list[MachinesPage] = []
        self.hooks: dict[str, list[HookResult]] = defaultdict(lambda: [HOOK_DONE])
        self.boots: dict[str, list[PreflightResult]] = {}
        self.refuses_start: set[str] = set()
        self.stops: dict[str, list[PowerResult]] = defaultdict(lambda: [PowerResult(accepted=True)])
        self.cancels: list[CancelResult] = [CancelResult(canceled=True)]
        self.copies: list[ResultsPage] = [ResultsPage()]
        self.breaks: Counter[str] = Counter()
        self.post_after: timedelta | None = timedelta(hours=3)
        self.post_comes_at_once = False
        self.canceled = False
        self.is_prepared = False
        self.has_results = False
        self.closed: list[Json] = []
        self.seconds: float = 0.0
        self.calls: list[tuple[str, Json]] = []
        self.opened = MaintenanceRunStatus(
            start_stopped=True,
            pre_deadline=self.at + timedelta(minutes=20),
            post_deadline=self.at + timedelta(minutes=35) + timedelta(hours=3),
        ).model_copy(update=stand)
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.tell: Callable[[], None] = lambda: None
        self.cancel: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def run(self, *, generation: int = 1) -> WorkflowResult:
        fakes = {name: self._fake(name) for name in _ACTIVITIES}
        with Workbench([run_maintenance, maintain_shard, maintain_machine, await_operation], fakes) as bench:
            self.now = bench.now
            self.tell = lambda: bench.client.raise_orchestration_event(RUN_ID, Signal.POST_MAINTENANCE)
            self.cancel = lambda: bench.client.raise_orchestration_event(RUN_ID, Signal.CANCEL)
            follow = RunInput(run_id=RUN_ID, generation=generation).to_wire()
            return bench.run("run_maintenance", follow, instance_id=RUN_ID)

    def calls_of(self, name: str) -> list[Json]:
        return [data for called, data in self.calls if called == name]

    def keys_of(self, name: str) -> list[str]:
        return [data["machineKey"] for data in self.calls_of(name)]

    def _fake(self, name: str) -> Callable[[Any], Any]:
        def call(data: Json) -> Any:
            with self._lock:
                self.calls.append((name, data))
                if self.breaks[name]:
                    self.breaks[name] -= 1
                    raise RuntimeError("the storage is away")
                answer = getattr(self, name)(data)
                return answer.to_wire() if hasattr(answer, "to_wire") else answer

        return call

    # --- the run

    def set_run_state(self, _: Json) -> Json:
        return {}

    def load_maintenance_run(self, _: Json) -> MaintenanceRunStatus:
        has_post_event = self.post_after is not None and self.now() >= self.at + self.post_after
        return self.opened.model_copy(
            update={
                "is_prepared": self.is_prepared,
                "is_canceled": self.canceled,
                "is_over": self.canceled or has_post_event,
                "has_results": self.has_results,
            }
        )

    def find_occurrence_machines(self, data: Json) -> MachinesPage:
        if self.pages:
            return self.pages.pop(0)
        return MachinesPage(machines=self.listings.pop(0) if len(self.listings) > 1 else self.listings[0])

    def list_shards(self, data: Json) -> Shards:
        return Shards(cursors=[None] if self._open(data) else [])

    def get_shard(self, data: Json) -> ShardMachines:
        return ShardMachines(keys=self._open(data))

    def _open(self, data: Json) -> list[str]:
        done = self.prepared if data["phase"] == MaintenancePhase.PRE.value else self.concluded
        return [key for key in self.keys[: self.listings[0]] if key not in done]

    def finish_pre_phase(self, data: Json) -> PreSummary:
        self.is_prepared = True
        failed = [key for key in self.keys if self.prepared.get(key, "not ready")]
        return PreSummary(machines=len(self.keys), failed=len(failed))

    def cancel_occurrence(self, _: Json) -> CancelResult:
        result = self.cancels.pop(0) if len(self.cancels) > 1 else self.cancels[0]
        self.canceled = self.canceled or result.canceled
        return result

    def extend_heartbeat(self, _: Json) -> Json:
        if self.post_comes_at_once:
            self.post_after = timedelta(0)
            self.tell()
        return {}

    def import_results(self, _: Json) -> ResultsPage:
        return self.copies.pop(0) if len(self.copies) > 1 else self.copies[0]

    def finish_results_import(self, _: Json) -> Json:
        self.has_results = True
        return {}

    def close_open_machines(self, _: Json) -> Json:
        return {"closed": 0}

    def summarize_maintenance_run(self, _: Json) -> Json:
        return {"statusMismatches": 0}

    def close_run(self, data: Json) -> Json:
        self.closed.append(data)
        return {}

    # --- a machine

    def preflight_machine(self, data: Json) -> PreflightResult:
        key = data["machineKey"]
        if key in self.running:
            script = self.boots.get(key, [READY])
            return script.pop(0) if len(script) > 1 else script[0]
        return STOPPED if data["startStopped"] else OFF

    def start_machine(self, data: Json) -> PowerResult:
        key = data["machineKey"]
        self.ours.add(key)
        if key in self.refuses_start:
            return PowerResult(accepted=False, failure=NO)
        self.running.add(key)
        return PowerResult(accepted=True, wait_seconds=30)

    def stop_machine(self, data: Json) -> PowerResult:
        key = data["machineKey"]
        result = self.stops[key].pop(0) if len(self.stops[key]) > 1 else self.stops[key][0]
        if result.accepted and key in self.ours:
            self.ours.discard(key)
            self.running.discard(key)
        return result

    def take_snapshot(self, data: Json) -> HookResult:
        script = self.hooks[data["machineKey"]]
        return script.pop(0) if len(script) > 1 else script[0]

    def run_script(self, _: Json) -> HookResult:
        return HOOK_DONE

    def record_pre_result(self, data: Json) -> Json:
        self.prepared[data["machineKey"]] = data["preTasksError"]
        if data["startRefused"]:
            self.ours.discard(data["machineKey"])
        return {}

    def check_machine_power(self, data: Json) -> PowerCheck:
        key = data["machineKey"]
        state = PowerState.READY if key in self.running else PowerState.OFF
        return PowerCheck(state=state, powered_on_by_run=key in self.ours, wait_seconds=30)

    def assess_machine(self, _: Json) -> StartResult:
        return StartResult(state=StartState.ACCEPTED)

    def poll_operation(self, _: Json) -> OperationReport:
        return OperationReport(state=OperationState.ENDED, assessment=AssessmentSummary(status="Succeeded"))

    def finalize_machine(self, data: Json) -> Json:
        self.concluded[data["machineKey"]] = data["problems"]
        return {}


_ACTIVITIES = [
    contracts.LOAD_MAINTENANCE_RUN.name,
    contracts.FIND_OCCURRENCE_MACHINES.name,
    contracts.LIST_SHARDS.name,
    contracts.GET_SHARD.name,
    contracts.FINISH_PRE_PHASE.name,
    contracts.CANCEL_OCCURRENCE.name,
    contracts.EXTEND_HEARTBEAT.name,
    contracts.SET_RUN_STATE.name,
    contracts.IMPORT_RESULTS.name,
    contracts.FINISH_RESULTS_IMPORT.name,
    contracts.CLOSE_OPEN_MACHINES.name,
    contracts.SUMMARIZE_MAINTENANCE_RUN.name,
    contracts.CLOSE_RUN.name,
    contracts.PREFLIGHT_MACHINE.name,
    contracts.START_MACHINE.name,
    contracts.STOP_MACHINE.name,
    contracts.TAKE_SNAPSHOT.name,
    contracts.RUN_SCRIPT.name,
    contracts.RECORD_PRE_RESULT.name,
    contracts.CHECK_MACHINE_POWER.name,
    contracts.ASSESS_MACHINE.name,
    contracts.POLL_OPERATION.name,
    contracts.FINALIZE_MACHINE.name,
]


def state_of(azure: Azure) -> str:
    [closed] = azure.closed
    return str(closed["state"])


def test_what_was_started_is_stopped_again_and_nothing_else() -> None:
    azure = Azure("a", "b", "c", stopped=("b", "c"))
    assert azure.run().output == {"runId": RUN_ID, "state": "completed"}
    assert sorted(azure.keys_of(contracts.START_MACHINE.name)) == ["b", "c"]
    assert sorted(azure.keys_of(contracts.STOP_MACHINE.name)) == ["b", "c"]
    assert azure.running == {"a"}
    assert azure.prepared == {"a": "", "b": "", "c": ""}
    assert azure.concluded == {"a": [], "b": [], "c": []}
    assert len(azure.calls_of(contracts.ASSESS_MACHINE.name)) == 3
    [before] = {each["until"] for name, each in azure.calls if name == contracts.EXTEND_HEARTBEAT.name}
    assert parse_instant(before) is not None


def test_nothing_is_started_unless_the_policy_has_it() -> None:
    azure = Azure("a", "b", stopped=("b",), start_stopped=False, cancel_on_pre_failure=True)
    azure.run()
    assert azure.calls_of(contracts.START_MACHINE.name) == []
    assert azure.prepared["b"] == "", "it was not requested: nothing has failed"
    assert not azure.canceled
    assert azure.running == {"a"}


def test_a_hibernated_machine_is_left_alone_which_is_no_failure() -> None:
    azure = Azure("a", "b", cancel_on_pre_failure=True)
    azure.boots["a"] = [HIBERNATED]
    azure.run()
    assert azure.keys_of(contracts.START_MACHINE.name) == []
    assert azure.prepared == {"a": "", "b": ""}
    assert {data["machineKey"]: data["isHibernated"] for data in azure.calls_of(contracts.RECORD_PRE_RESULT.name)} == {
        "a": True,
        "b": False,
    }
    assert azure.calls_of(contracts.CANCEL_OCCURRENCE.name) == []


def test_the_machines_are_listed_until_their_number_is_stable() -> None:
    azure = Azure("a", "b", "c")
    azure.listings = [0, 1, 3, 3]
    azure.run()
    assert sorted(azure.prepared) == ["a", "b", "c"]
    assert azure.listings == [3]


THROTTLED = MachinesPage(wait_seconds=30, failure="Azure throttles.", counts_as_attempt=False)


def test_being_throttled_is_no_failure_of_a_list() -> None:
    azure = Azure("a", "b", cancel_on_pre_failure=True)
    azure.pages = [THROTTLED] * 20
    azure.run()
    assert sorted(azure.prepared) == ["a", "b"]
    assert not azure.canceled
    assert [call["attempt"] for call in azure.calls_of(contracts.FIND_OCCURRENCE_MACHINES.name)[:21]] == list(range(21))
    assert [call["waitingFor"] for call in azure.calls_of(contracts.SET_RUN_STATE.name)[:2]] == ["Azure throttles.", ""]


def test_throttling_before_the_run_lasts_until_its_deadline() -> None:
    azure = Azure("a", cancel_on_pre_failure=True)
    azure.pages = [THROTTLED] * 200
    ended_at: list[datetime] = []
    end = azure.finish_pre_phase

    def finish_pre_phase(data: Json) -> PreSummary:
        ended_at.append(azure.now())
        azure.pages = []
        return end(data)

    azure.finish_pre_phase = finish_pre_phase
    azure.run()
    assert azure.calls_of(contracts.FINISH_PRE_PHASE.name)[0]["failure"] == "Azure throttles."
    left = azure.opened.pre_deadline - ended_at[0].replace(tzinfo=UTC) if azure.opened.pre_deadline else None
    assert left is not None
    assert timedelta(seconds=0) <= left < timedelta(seconds=40)


def test_six_failures_of_a_list_in_a_row_are_the_end_of_it() -> None:
    azure = Azure("a")
    failing = MachinesPage(wait_seconds=30, failure="No answer.")
    azure.pages = [*[failing] * 5, MachinesPage(machines=1, cursor="2"), *[failing] * 6]
    azure.run()
    asked = [(call["cursor"], call["attempt"]) for call in azure.calls_of(contracts.FIND_OCCURRENCE_MACHINES.name)]
    assert asked[:13] == [*[("", number) for number in range(6)], *[("2", number) for number in range(6)], ("", 0)]


@pytest.mark.parametrize("pages", [[THROTTLED] * 100, []], ids=["throttled", "listing"])
def test_a_cancel_ends_the_waits_before_the_run(pages: list[MachinesPage]) -> None:
    azure = Azure("a", poll_seconds=600)
    azure.pages = [page.model_copy(update={"wait_seconds": 600}) for page in pages]
    azure.listings = [0]
    ended_at: list[datetime] = []
    find, end = azure.find_occurrence_machines, azure.finish_pre_phase

    def find_machines(data: Json) -> MachinesPage:
        if not ended_at:
            azure.cancel()
            time.sleep(0.3)
        else:
            azure.pages = []
        return find(data)

    def finish_pre_phase(data: Json) -> PreSummary:
        ended_at.append(azure.now())
        return end(data)

    azure.find_occurrence_machines, azure.finish_pre_phase = find_machines, finish_pre_phase
    azure.run()
    assert ended_at[0].replace(tzinfo=UTC) - azure.at < timedelta(minutes=2)
    assert azure.prepared == {}


def test_a_failed_step_cancels_the_scheduled_run_where_the_policy_has_it() -> None:
    azure = Azure("a", "b", stopped=("b",), hooks=True, cancel_on_pre_failure=True)
    azure.hooks["a"] = [HOOK_FAILED]
    azure.run()
    assert azure.canceled
    assert azure.prepared == {"a": "The snapshot failed.", "b": ""}
    assert state_of(azure) == "stopped"
    assert azure.running == {"a"}, "power is restored although nothing was patched"
    assert azure.calls_of(contracts.IMPORT_RESULTS.name) == azure.calls_of(contracts.ASSESS_MACHINE.name) == []
    assert azure.now() < azure.at + timedelta(minutes=30), "no post event is waited for then"


def test_otherwise_azure_patches_all_the_same() -> None:
    azure = Azure("a", "b", hooks=True)
    azure.hooks["a"] = [HOOK_FAILED]
    azure.run()
    assert azure.calls_of(contracts.CANCEL_OCCURRENCE.name) == []
    assert state_of(azure) == "completed"


def test_pre_maintenance_that_misses_its_deadline_has_failed_and_the_run_is_cancelled_in_time() -> None:
    azure = Azure("a", "b", stopped=("b",), hooks=True, cancel_on_pre_failure=True)
    azure.hooks["a"] = [HOOK_RUNS] * 40 + [HOOK_DONE]
    moments: list[datetime] = []
    cancel = azure.cancel_occurrence

    def noted(_: Json) -> CancelResult:
        moments.append(azure.now())
        return cancel(_)

    azure.cancel_occurrence = noted
    azure.run()
    assert azure.canceled
    assert timedelta(minutes=19) < moments[0] - azure.at < timedelta(minutes=22)
    order = [name for name, _ in azure.calls]
    last_hook = max(index for index, name in enumerate(order) if name == contracts.TAKE_SNAPSHOT.name)
    assert order.index(contracts.STOP_MACHINE.name) > last_hook, (
        "power is not restored while pre maintenance is in progress"
    )
    assert azure.running == {"a"}


def test_a_cancellation_that_is_refused_leaves_the_run_to_azure() -> None:
    azure = Azure("a", hooks=True, cancel_on_pre_failure=True)
    azure.hooks["a"] = [HOOK_FAILED]
    azure.cancels = [CancelResult(wait_seconds=10, failure=NO), CancelResult(failure=NO)]
    azure.run()
    assert len(azure.calls_of(contracts.CANCEL_OCCURRENCE.name)) == 2
    assert state_of(azure) == "completed"
    assert azure.calls_of(contracts.IMPORT_RESULTS.name)


def test_a_machine_that_azure_refused_to_start_is_not_ours_to_stop() -> None:
    azure = Azure("a", stopped=("a",))
    azure.refuses_start.add("a")
    azure.run()
    assert azure.prepared["a"]
    assert azure.calls_of(contracts.STOP_MACHINE.name) == []


def test_a_start_that_got_lost_is_sent_again() -> None:
    azure = Azure("a", stopped=("a",))
    start = azure.start_machine
    sent: list[Json] = []

    def lost_at_first(data: Json) -> PowerResult:
        sent.append(data)
        return start(data) if len(sent) > 1 else PowerResult(accepted=True, wait_seconds=30)

    azure.start_machine = lost_at_first
    azure.run()
    assert azure.prepared == {"a": ""}
    assert len(sent) == 2
    assert azure.keys_of(contracts.STOP_MACHINE.name) == ["a"]


def test_a_start_that_is_refused_because_it_was_sent_before_is_ours() -> None:
    """The execution that sent it died, and the repeated one is told that the machine is being started."""
    azure = Azure("a", stopped=("a",))
    start = azure.start_machine

    def started_twice(data: Json) -> PowerResult:
        start(data)
        return PowerResult(accepted=False, failure=NO)

    azure.start_machine = started_twice
    azure.run()
    assert azure.keys_of(contracts.STOP_MACHINE.name) == ["a"]
    assert azure.running == set()


def test_a_machine_that_boots_for_long_is_waited_for_until_the_deadline() -> None:
    azure = Azure("a", stopped=("a",))
    azure.boots["a"] = [BOOTING] * 5 + [READY]
    azure.run()
    assert azure.prepared == {"a": ""}
    azure = Azure("a", stopped=("a",))
    azure.boots["a"] = [BOOTING]
    azure.run()
    assert azure.prepared == {"a": "The VM agent is not ready."}
    assert azure.running == set()


def test_a_pre_without_a_post_is_closed_by_the_clock() -> None:
    azure = Azure("a", stopped=("a",))
    azure.post_after = None
    azure.run()
    assert azure.running == set()
    assert state_of(azure) == "completed"
    assert azure.now() >= azure.at + timedelta(hours=3, minutes=35)


@pytest.mark.parametrize("stand", [{"pre_deadline": datetime(2020, 1, 1, tzinfo=UTC)}, {"is_stopped": True}])
def test_a_late_or_stopped_run_begins_and_cancels_nothing(stand: Json) -> None:
    azure = Azure("a", "b", stopped=("b",), cancel_on_pre_failure=True, **stand)
    azure.run()
    assert azure.calls_of(contracts.START_MACHINE.name) == azure.calls_of(contracts.CANCEL_OCCURRENCE.name) == []
    assert sorted(azure.concluded) == ["a", "b"], "the results are kept all the same"


def test_a_post_event_ends_the_wait() -> None:
    azure = Azure("a", stopped=("a",))
    azure.post_comes_at_once = True
    azure.run()
    assert azure.running == set()
    assert azure.now() < azure.at + timedelta(hours=1)


def test_a_post_event_that_arrives_first_begins_with_the_results() -> None:
    azure = Azure("a", "b")
    azure.post_after = timedelta(0)
    azure.run()
    assert azure.prepared == {}
    assert sorted(azure.concluded) == ["a", "b"]


def test_a_stop_that_azure_refuses_is_retried() -> None:
    azure = Azure("a", stopped=("a",))
    azure.stops["a"] = [PowerResult(accepted=False, wait_seconds=30, failure=NO)] * 3 + [PowerResult(accepted=True)]
    azure.run()
    assert azure.running == set()
    assert azure.concluded == {"a": []}
    azure = Azure("a", stopped=("a",))
    azure.stops["a"] = [PowerResult(accepted=False, wait_seconds=30, failure=NO)]
    azure.run()
    assert len(azure.calls_of(contracts.STOP_MACHINE.name)) == 60
    [concluded] = azure.calls_of(contracts.FINALIZE_MACHINE.name)
    assert "could not be stopped again: HTTP 409" in concluded["notRestored"]
    assert concluded["keepLease"] is False


def test_a_stop_that_azure_may_still_carry_out_keeps_the_lock() -> None:
    azure = Azure("a", stopped=("a",))
    azure.stops["a"] = [PowerResult(accepted=False, is_open=True, failure=NO)]
    azure.run()
    [concluded] = azure.calls_of(contracts.FINALIZE_MACHINE.name)
    assert concluded["keepLease"] is True
    assert len(azure.calls_of(contracts.STOP_MACHINE.name)) == 1


def test_late_results_are_waited_for_for_a_bounded_time() -> None:
    azure = Azure("a")
    azure.copies = [ResultsPage(awaited=1), ResultsPage(cursor="x"), ResultsPage(awaited=1), ResultsPage()]
    azure.run()
    assert len(azure.calls_of(contracts.IMPORT_RESULTS.name)) == 4
    azure = Azure("a")
    azure.copies = [ResultsPage(awaited=1)]
    azure.run()
    assert len(azure.calls_of(contracts.IMPORT_RESULTS.name)) == MAX_COPIES
    assert sorted(azure.concluded) == ["a"]


@pytest.mark.parametrize("in_progress", [1, 0])
def test_an_early_post_event_stops_no_machine_that_may_be_patched(in_progress: int) -> None:
    """It may be forged, or of a run that has ended for others: machines without a result may still be patched.

    Not so when Update Manager has said that they failed: those never get a result.
    """
    azure = Azure("a", stopped=("a",), ends_at=datetime.now(UTC) + timedelta(hours=2, minutes=30))
    azure.post_comes_at_once = True
    azure.copies = [ResultsPage(awaited=1, in_progress=in_progress)]
    stops: list[datetime] = []
    stop = azure.stop_machine

    def noted(data: Json) -> PowerResult:
        stops.append(azure.now())
        return stop(data)

    azure.stop_machine = noted
    azure.run()
    assert azure.opened.ends_at is not None
    assert (stops[0] >= azure.opened.ends_at) == bool(in_progress)


def test_unreadable_results_do_not_keep_power_from_being_restored() -> None:
    azure = Azure("a", stopped=("a",))
    azure.copies = [ResultsPage(failure="Forbidden.")]
    azure.run()
    assert azure.running == set()


@pytest.mark.parametrize("name", [contracts.STOP_MACHINE.name, contracts.FINALIZE_MACHINE.name])
def test_an_activity_that_fails_for_good_after_the_run_is_begun_again(name: str) -> None:
    azure = Azure("a", "b", stopped=("b",))
    azure.breaks[name] = 12
    azure.run()
    assert azure.running == {"a"}
    assert sorted(azure.concluded) == ["a", "b"]


def test_an_activity_that_fails_for_good_before_the_run_is_a_failed_step() -> None:
    azure = Azure("a", stopped=("a",), hooks=True, cancel_on_pre_failure=True)
    azure.breaks[contracts.TAKE_SNAPSHOT.name] = 12
    azure.run()
    assert azure.prepared["a"].startswith("Patchwave itself failed")
    assert azure.canceled
    assert azure.running == set()


@pytest.mark.parametrize(
    "name", [contracts.FINISH_PRE_PHASE.name, contracts.EXTEND_HEARTBEAT.name, contracts.CLOSE_RUN.name]
)
def test_an_orchestration_that_dies_is_gone_on_with_from_the_records(name: str) -> None:
    """The watchdog starts the next generation; whatever the first one started is stopped once, by the second."""
    azure = Azure("a", "b", stopped=("b",))
    azure.breaks[name] = 12
    assert azure.run().status is OrchestrationStatus.FAILED
    assert azure.closed == []
    started = len(azure.keys_of(contracts.START_MACHINE.name))
    again = azure.run(generation=2)
    assert again.status is OrchestrationStatus.COMPLETED
    assert azure.running == {"a"}
    assert sorted(azure.concluded) == ["a", "b"]
    assert len(azure.keys_of(contracts.START_MACHINE.name)) <= max(started, 1)
    assert len(azure.keys_of(contracts.STOP_MACHINE.name)) == len(azure.keys_of(contracts.START_MACHINE.name))


def test_no_history_grows_with_the_fleet() -> None:
    azure = Azure(*(f"m{number:03d}" for number in range(40)))
    ended = azure.run()
    assert len(azure.concluded) == 40
    assert len(ended.history) < 110
