"""A run that lost its orchestration goes on from the records: machines in progress first, and nothing twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from durabletask.client import OrchestrationStatus
from durabletask.internal import orchestrator_service_pb2 as pb

from local.functions_host.durable.workbench import WorkflowResult
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary
from patchwave.domain.planning.admission import RUN_GROUP, Permit
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.policy.gates import ErrorBudget, OnExceeded
from patchwave.domain.runs.run import Mode, RunControls, Step
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.run import (
    Checkpoint,
    Cutoff,
    InProgressMachines,
    MachineOptions,
    NextWindow,
    RunInput,
    RunStateShown,
)
from tests.support.product import wait_until
from tests.support.scripted_fleet import BROKEN, RUN_ID, Fleet, Ring, Script

PATCHED = Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="done")


def keys(count: int) -> list[str]:
    return [f"{number:024x}" for number in range(count)]


def planned(count: int, scripts: dict[str, Script] | None = None, **options: Any) -> Fleet:
    """A fleet whose machines have all been assessed."""
    fleet = Fleet(keys(count), scripts, **options)
    found = AssessmentSummary(status="Succeeded", critical_and_security=3).to_wire()
    fleet.assessments = dict.fromkeys(fleet.keys, found)
    return fleet


def took(ended: WorkflowResult) -> timedelta:
    """Virtual time from the first to the last event."""
    return ended.history[-1].timestamp - ended.history[0].timestamp


def in_progress(*machine_keys: str) -> Checkpoint:
    machines = [
        PlacedMachine(key=key, lane="westeurope", wave=1, permits=[Permit(RUN_GROUP, 1).text]) for key in machine_keys
    ]
    found = InProgressMachines(step=Step.PATCH, ring_number=0, phase_number=0, machines=machines)
    return Checkpoint(is_planned=True, in_progress=[found])


class TestNextGeneration:
    def follow(self, fleet: Fleet) -> tuple[dict[str, Any], list[str]]:
        with fleet.bench() as bench:
            follow = RunInput(run_id=RUN_ID, generation=2).to_wire()
            ended = bench.run("patch_run", follow, instance_id=RUN_ID, timeout=60)
            instances = [each.instance_id for each in bench.client.get_all_orchestration_states()]
        assert ended.status is OrchestrationStatus.COMPLETED, ended.failure
        return ended.output, instances

    def ended(self, fleet: Fleet, **activities: Any) -> WorkflowResult:
        with fleet.bench(**activities) as bench:
            follow = RunInput(run_id=RUN_ID, generation=2).to_wire()
            ended = bench.run("patch_run", follow, instance_id=RUN_ID, timeout=60)
        assert ended.status is OrchestrationStatus.COMPLETED, ended.failure
        return ended

    def test_resumes_machines_in_progress_before_it_starts_others(self) -> None:
        """The limit was lowered from 2 to 1 meanwhile. No other machine starts until both have ended."""
        fleet = planned(4, cap=1)
        last, third, *_ = reversed(fleet.keys)
        fleet.checkpoints = [in_progress(third, last), Checkpoint(is_planned=True)]
        output, _ = self.follow(fleet)
        assert output["state"] == "completed"
        assert set(fleet.installed[:2]) == {third, last}
        assert all(count == 1 for count in fleet.accepted.values())
        ended = [
            name
            for name in fleet.order
            if name in (contracts.RECORD_OUTCOME.name, contracts.LIST_PENDING_MACHINES.name)
        ]
        assert ended[:3] == [
            contracts.RECORD_OUTCOME.name,
            contracts.RECORD_OUTCOME.name,
            contracts.LIST_PENDING_MACHINES.name,
        ]
        assert len(fleet.outcomes) == 4

    def test_neither_discovers_nor_assesses_a_planned_run_again(self) -> None:
        fleet = planned(2)
        fleet.checkpoints = [Checkpoint(is_planned=True)]
        self.follow(fleet)
        assert contracts.DISCOVER_MACHINES.name not in fleet.order
        assert contracts.ASSESS_MACHINE.name not in fleet.order

    def test_discovers_the_rest_of_a_run_without_a_plan(self) -> None:
        fleet = Fleet(keys(2))
        output, _ = self.follow(fleet)
        assert output["state"] == "completed"
        assert contracts.DISCOVER_MACHINES.name in fleet.order

    def test_has_no_instance_id_of_the_one_before(self) -> None:
        """An engine may refuse an id that it knows, or let the old instance live on under it."""
        fleet = Fleet(keys(3))
        with fleet.bench() as bench:
            bench.run("patch_run", RunInput(run_id=RUN_ID).to_wire(), instance_id=RUN_ID, timeout=60)
            first = {each.instance_id for each in bench.client.get_all_orchestration_states()}
        fleet = planned(3)
        fleet.checkpoints = [in_progress(fleet.keys[0]), Checkpoint(is_planned=True)]
        _, second = self.follow(fleet)
        assert first & set(second) == {RUN_ID}

    def test_follows_machines_in_progress_although_the_run_was_stopped(self) -> None:
        fleet = planned(3)
        fleet.controls = RunControls(stop_reason="It was ended by hand.")
        fleet.checkpoints = [in_progress(fleet.keys[1]), Checkpoint(is_planned=True)]
        output, _ = self.follow(fleet)
        assert output["state"] == "stopped"
        assert fleet.installed == [fleet.keys[1]]
        assert len(fleet.outcomes) == 3

    def test_passes_over_completed_rings(self) -> None:
        """Their bake time and their approval were before."""
        first, second, third = keys(3)
        rings = [
            Ring("canary", [{"westeurope": [first]}], bake_seconds=3_600),
            Ring("broad", [{"westeurope": [second, third]}]),
        ]
        fleet = planned(3, rings=rings)
        fleet.checkpoints = [Checkpoint(is_planned=True, ring=1)]
        self.follow(fleet)
        assert {data["ringNumber"] for data in fleet.calls_of(contracts.LIST_PENDING_MACHINES.name)} == {1}

    def test_waits_for_an_approval_no_longer_than_the_first_generation_would(self) -> None:
        """It was asked for 50 minutes ago, and an hour was given."""
        first, second = keys(2)
        rings = [
            Ring("canary", [{"westeurope": [first]}]),
            Ring("broad", [{"westeurope": [second]}], approval_seconds=3_600),
        ]
        fleet = planned(2, rings=rings)
        fleet.checkpoints = [Checkpoint(is_planned=True, ring=1)]
        since = datetime.now(UTC) - timedelta(minutes=50)

        def show(data: dict[str, Any]) -> dict[str, Any]:
            fleet.calls.append((contracts.SET_RUN_STATE.name, data))
            return RunStateShown(since=since if data["state"] == "awaiting_approval" else None).to_wire()

        ended = self.ended(fleet, **{contracts.SET_RUN_STATE.name: show})
        assert ended.output["state"] == "stopped"
        assert timedelta(minutes=9) < took(ended) < timedelta(minutes=12)
        [asked] = [
            data for data in fleet.calls_of(contracts.SET_RUN_STATE.name) if data["state"] == "awaiting_approval"
        ]
        assert asked == {"runId": RUN_ID, "state": "awaiting_approval", "waitingFor": "broad"}
        assert fleet.installed == []

    def test_keeps_nothing_from_other_runs_while_a_person_decides(self) -> None:
        """The generation before died behind the last phase of the ring, before it gave anything back."""
        first, second = keys(2)
        rings = [
            Ring("canary", [{"westeurope": [first]}]),
            Ring("broad", [{"westeurope": [second]}], approval_seconds=3_600),
        ]
        fleet = planned(2, rings=rings)
        fleet.checkpoints = [Checkpoint(is_planned=True, ring=1)]
        self.follow(fleet)
        [given] = fleet.calls_of(contracts.RELEASE_GROUPS.name)
        assert given == {"runId": RUN_ID, "sequence": 10_000}
        asked = fleet.calls.index((contracts.RELEASE_GROUPS.name, given))
        shown = [number for number, (_, data) in enumerate(fleet.calls) if data.get("state") == "awaiting_approval"]
        assert asked < shown[0]

    def test_bakes_a_ring_from_its_last_end_on(self) -> None:
        """The canary ended 50 minutes ago, and its bake time is an hour."""
        first, second = keys(2)
        rings = [
            Ring("canary", [{"westeurope": [first]}], bake_seconds=3_600),
            Ring("broad", [{"westeurope": [second]}]),
        ]
        fleet = planned(2, rings=rings)
        fleet.recorded[first] = [{"machineKey": first, "outcome": PATCHED.to_wire()}]
        fleet.checkpoints = [Checkpoint(is_planned=True, ring=0, ended_at=datetime.now(UTC) - timedelta(minutes=50))]
        ended = self.ended(fleet)
        assert fleet.installed == [second]
        [shown] = [
            data["waitingFor"]
            for data in fleet.calls_of(contracts.SET_RUN_STATE.name)
            if "bake time" in data["waitingFor"]
        ]
        assert "bake time of the ring canary" in shown
        [until] = [datetime.fromisoformat(data["until"]) for data in fleet.calls_of(contracts.EXTEND_HEARTBEAT.name)]
        assert timedelta(minutes=9) < until - ended.history[0].timestamp.replace(tzinfo=UTC) < timedelta(minutes=12)
        assert took(ended) < timedelta(minutes=50)

    def test_bakes_a_ring_anew_when_machines_of_it_ended_in_this_generation(self) -> None:
        first, second = keys(2)
        rings = [
            Ring("canary", [{"westeurope": [first]}], bake_seconds=3_600),
            Ring("broad", [{"westeurope": [second]}]),
        ]
        fleet = planned(2, rings=rings)
        fleet.checkpoints = [Checkpoint(is_planned=True, ring=0, ended_at=datetime.now(UTC) - timedelta(minutes=50))]
        ended = self.ended(fleet)
        assert fleet.installed == [first, second]
        assert took(ended) > timedelta(minutes=60)

    def test_lets_a_lane_rest_as_long_as_it_would_have(self) -> None:
        fleet = planned(2)
        lane = fleet.rings[0].name + "/" + next(iter(fleet.rings[0].phases[0]))
        fleet.checkpoints = [
            Checkpoint(is_planned=True, lane_bake_until={lane: datetime.now(UTC) + timedelta(minutes=45)})
        ]
        ended = self.ended(fleet)
        assert len(fleet.installed) == 2
        assert took(ended) > timedelta(minutes=45)

    def test_counts_the_windows_of_all_generations(self) -> None:
        """29 were taken before; the thirtieth is one too many, as it was for the first generation."""
        fleet = planned(2)
        fleet.opened = fleet.opened.model_copy(update={"options": MachineOptions(mode=Mode.PATCH, continues=True)})
        fleet.cutoffs = [Cutoff(at=datetime.now(UTC) - timedelta(minutes=3))]
        opens = datetime.now(UTC) + timedelta(hours=1)
        fleet.next_windows = [NextWindow(opens_at=opens, ends_at=opens + timedelta(hours=3))]
        fleet.checkpoints = [Checkpoint(is_planned=True, windows=29)]
        ended = self.ended(fleet)
        assert ended.output["state"] == "completed"
        assert fleet.closed[0]["reason"] == "The policy has no further window for the remaining machines."
        assert fleet.calls_of(contracts.ENTER_WINDOW.name) == []
        assert fleet.installed == []

    def test_goes_on_with_the_failures_that_were_counted(self) -> None:
        """One machine may fail; the generation before saw one fail, and this one sees the second."""
        budget = ErrorBudget(run=1, on_exceeded=OnExceeded.END)
        fleet = planned(6, {key: Script(install_polls=[BROKEN]) for key in keys(6)}, cap=1, error_budget=budget)
        fleet.checkpoints = [Checkpoint(is_planned=True, failures={"run": 1})]
        output, _ = self.follow(fleet)
        assert output["state"] == "stopped"
        assert len(fleet.installed) == 1


def test_a_sleeping_run_extends_its_heartbeat_deadline() -> None:
    """The watchdog leaves it alone that long."""
    fleet = Fleet(keys(2), rings=[Ring("all", [{"westeurope": keys(2)}], approval_seconds=600)])
    with fleet.bench() as bench:
        bench.run("patch_run", RunInput(run_id=RUN_ID).to_wire(), instance_id=RUN_ID, timeout=60)
    assert {rest["runId"] for rest in fleet.calls_of(contracts.EXTEND_HEARTBEAT.name)} == {RUN_ID}


@pytest.mark.parametrize("sleeper", [contracts.PATCH_PHASE.name, contracts.PATCH_RUN.name])
def test_a_lost_timer_is_compensated_by_waking_the_run(sleeper: str) -> None:
    """What the watchdog does about a silent run: the event ends the sleep of the run, or goes on to its phase."""
    approval = {"approval_seconds": 600} if sleeper == contracts.PATCH_RUN.name else {}
    fleet = Fleet(keys(2), rings=[Ring("all", [{"westeurope": keys(2)}], **approval)])
    lost: list[str] = []
    with fleet.bench() as bench:
        engine: Any = bench.engine
        deliver = engine._deliver

        def deliver_but_one(instance_id: str, execution: str, event: pb.HistoryEvent) -> bool:
            state = engine._instances[instance_id]
            if not lost and state.name == sleeper and event.HasField("timerFired"):
                lost.append(instance_id)
                return False
            return deliver(instance_id, execution, event)

        engine._deliver = deliver_but_one
        bench.start("patch_run", RunInput(run_id=RUN_ID).to_wire(), instance_id=RUN_ID)
        wait_until(lambda: lost)
        if sleeper == contracts.PATCH_PHASE.name:
            # Its machines end meanwhile: the engine has nothing left to do, and their completions are never read.
            wait_until(engine._is_idle)
        assert not fleet.closed
        bench.client.raise_orchestration_event(RUN_ID, Signal.CONTROL)
        ended = bench.wait(RUN_ID)
    assert ended.status is OrchestrationStatus.COMPLETED
    assert len(fleet.closed) == 1
    assert len(fleet.outcomes) == 2
