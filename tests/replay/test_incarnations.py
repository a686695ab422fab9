"""A run that lost its orchestration goes on from the records: what was under way first, and nothing twice."""

from __future__ import annotations

from typing import Any

import pytest
from durabletask.client import OrchestrationStatus
from durabletask.internal import orchestrator_service_pb2 as pb

from domain.admission import RUN_GROUP, Place
from domain.gates import ErrorBudget, OnExceeded
from domain.roster import Placed
from domain.run import AssessmentSummary
from domain.work import FollowRun, RunControls, Step, Stock, UnderWay
from orchestrators import names
from tests.product import wait_until
from tests.replay.fakes import BROKEN, RUN_ID, Fleet, Ring, Script


def keys(count: int) -> list[str]:
    return [f"{number:024x}" for number in range(count)]


def planned(count: int, scripts: dict[str, Script] | None = None, **options: Any) -> Fleet:
    """A fleet whose machines have all been assessed."""
    fleet = Fleet(keys(count), scripts, **options)
    found = AssessmentSummary(status="Succeeded", critical_and_security=3).to_wire()
    fleet.assessments = dict.fromkeys(fleet.keys, found)
    return fleet


def under_way(*machine_keys: str) -> Stock:
    machines = [Placed(key=key, lane="westeurope", wave=1, places=[Place(RUN_GROUP, 1).text]) for key in machine_keys]
    found = UnderWay(step=Step.PATCH, ring_number=0, phase_number=0, machines=machines)
    return Stock(is_planned=True, under_way=[found])


class TestNextIncarnation:
    def follow(self, fleet: Fleet) -> tuple[dict[str, Any], list[str]]:
        with fleet.bench() as bench:
            follow = FollowRun(run_id=RUN_ID, incarnation=2).to_wire()
            ended = bench.run("patch_run", follow, instance_id=RUN_ID, timeout=60)
            instances = [each.instance_id for each in bench.client.get_all_orchestration_states()]
        assert ended.status is OrchestrationStatus.COMPLETED, ended.failure
        return ended.output, instances

    def test_takes_up_what_was_under_way_before_it_starts_anybody(self) -> None:
        """The limit was 1, and two are under way: somebody raised it meanwhile. Nobody starts until both have ended."""
        fleet = planned(4, cap=1)
        last, third, *_ = reversed(fleet.keys)
        fleet.stocks = [under_way(third, last), Stock(is_planned=True)]
        output, _ = self.follow(fleet)
        assert output["state"] == "completed"
        assert set(fleet.installed[:2]) == {third, last}
        assert all(count == 1 for count in fleet.accepted.values())
        ended = [name for name in fleet.order if name in (names.RECORD_OUTCOME, names.NEXT_MACHINES)]
        assert ended[:3] == [names.RECORD_OUTCOME, names.RECORD_OUTCOME, names.NEXT_MACHINES]
        assert len(fleet.outcomes) == 4

    def test_neither_discovers_nor_assesses_a_planned_run_again(self) -> None:
        fleet = planned(2)
        fleet.stocks = [Stock(is_planned=True)]
        self.follow(fleet)
        assert names.DISCOVER_MACHINES not in fleet.order
        assert names.ASSESS_MACHINE not in fleet.order

    def test_discovers_the_rest_of_a_run_without_a_plan(self) -> None:
        fleet = Fleet(keys(2))
        output, _ = self.follow(fleet)
        assert output["state"] == "completed"
        assert names.DISCOVER_MACHINES in fleet.order

    def test_has_no_instance_id_of_the_one_before(self) -> None:
        """An engine may refuse an id that it knows, or let the old instance live on under it."""
        fleet = Fleet(keys(3))
        with fleet.bench() as bench:
            bench.run("patch_run", FollowRun(run_id=RUN_ID).to_wire(), instance_id=RUN_ID, timeout=60)
            first = {each.instance_id for each in bench.client.get_all_orchestration_states()}
        fleet = planned(3)
        fleet.stocks = [under_way(fleet.keys[0]), Stock(is_planned=True)]
        _, second = self.follow(fleet)
        assert first & set(second) == {RUN_ID}

    def test_follows_what_is_under_way_although_the_run_was_stopped(self) -> None:
        fleet = planned(3)
        fleet.controls = RunControls(stop_reason="Somebody ended it.")
        fleet.stocks = [under_way(fleet.keys[1]), Stock(is_planned=True)]
        output, _ = self.follow(fleet)
        assert output["state"] == "stopped"
        assert fleet.installed == [fleet.keys[1]]
        assert len(fleet.outcomes) == 3

    def test_passes_over_rings_that_are_done_with(self) -> None:
        """Their bake time and their approval were before."""
        first, second, third = keys(3)
        rings = [
            Ring("canary", [{"westeurope": [first]}], bake_seconds=3_600),
            Ring("broad", [{"westeurope": [second, third]}]),
        ]
        fleet = planned(3, rings=rings)
        fleet.stocks = [Stock(is_planned=True, ring=1)]
        self.follow(fleet)
        assert {data["ringNumber"] for data in fleet.calls_of(names.NEXT_MACHINES)} == {1}

    def test_goes_on_with_the_failures_that_were_counted(self) -> None:
        """One machine may fail; the incarnation before saw one fail, and this one sees the second."""
        budget = ErrorBudget(run=1, on_exceeded=OnExceeded.END)
        fleet = planned(6, {key: Script(install_polls=[BROKEN]) for key in keys(6)}, cap=1, error_budget=budget)
        fleet.stocks = [Stock(is_planned=True, failures={"run": 1})]
        output, _ = self.follow(fleet)
        assert output["state"] == "stopped"
        assert len(fleet.installed) == 1


def test_a_sleeping_run_says_until_when_it_sleeps() -> None:
    """The watchdog leaves it alone that long."""
    fleet = Fleet(keys(2), rings=[Ring("all", [{"westeurope": keys(2)}], approval_seconds=600)])
    with fleet.bench() as bench:
        bench.run("patch_run", FollowRun(run_id=RUN_ID).to_wire(), instance_id=RUN_ID, timeout=60)
    assert {rest["runId"] for rest in fleet.calls_of(names.REST_UNTIL)} == {RUN_ID}


@pytest.mark.parametrize("sleeper", [names.PATCH_PHASE, names.PATCH_RUN])
def test_a_lost_timer_is_made_up_for_by_waking_the_run(sleeper: str) -> None:
    """What the watchdog does about a silent run: the event ends the sleep of the run, or goes on to its phase."""
    approval = {"approval_seconds": 600} if sleeper == names.PATCH_RUN else {}
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
        bench.start("patch_run", FollowRun(run_id=RUN_ID).to_wire(), instance_id=RUN_ID)
        wait_until(lambda: lost)
        if sleeper == names.PATCH_PHASE:
            # Its machines end meanwhile: the engine has nothing left to do, and nobody would ever hear of them.
            wait_until(engine._is_idle)
        assert not fleet.closed
        bench.client.raise_orchestration_event(RUN_ID, names.STEER_EVENT)
        ended = bench.wait(RUN_ID)
    assert ended.status is OrchestrationStatus.COMPLETED
    assert len(fleet.closed) == 1
    assert len(fleet.outcomes) == 2
