"""Nothing of an ended execution reaches the next one of the same instance (B9, B10, B14)."""

import time

from durabletask.internal import orchestrator_service_pb2 as pb

from local.functions_host.tests.rig import (
    COMPLETED,
    RUNNING,
    Rig,
    activity,
    child,
    complete,
    continue_as_new,
    new_events,
    timer,
)


def test_b9_a_timer_does_not_fire_into_the_next_execution(rig: Rig, mended: bool) -> None:
    rig.begun(timer(0.08), continue_as_new())
    rig.turn(rig.must_take(), timer(30))
    time.sleep(0.5)
    assert len(new_events(rig.take(), "timerFired")) == int(not mended)


def test_b9_a_timer_does_not_survive_a_reset(rig: Rig, mended: bool) -> None:
    rig.begun(timer(0.08))
    rig.backend.reset()
    rig.begun(timer(30))
    time.sleep(0.5)
    assert len(new_events(rig.take(), "timerFired")) == int(not mended)


def test_b10_a_late_result_does_not_complete_a_task_of_the_next_execution(rig: Rig, mended: bool) -> None:
    rig.begun(activity(), continue_as_new())
    taken = [rig.must_take(), rig.must_take()]
    late = next(item for item in taken if item.HasField("activityRequest"))
    turn = next(item for item in taken if item.HasField("orchestratorRequest"))
    rig.turn(turn, activity())
    rig.finish(late, '"stale"')
    follow = rig.take()
    assert len(new_events(follow, "taskCompleted")) == int(not mended)
    if mended:
        assert follow is not None
        rig.finish(follow, '"fresh"')
        assert new_events(rig.must_take(), "taskCompleted")[0].taskCompleted.result.value == '"fresh"'


def test_b10_a_result_during_the_last_turn_is_not_carried_over(rig: Rig, mended: bool) -> None:
    rig.begun(activity(1))
    item = rig.must_take()
    rig.raise_event("wake")
    turn = rig.must_take()
    rig.finish(item, '"stale"')
    rig.turn(turn, continue_as_new())
    assert len(new_events(rig.must_take(), "taskCompleted")) == int(not mended)


def test_b10_a_late_child_does_not_complete_a_task_of_the_next_execution(rig: Rig, mended: bool) -> None:
    rig.begun(child("kid"), continue_as_new())
    turns = {item.orchestratorRequest.instanceId: item for item in (rig.must_take(), rig.must_take())}
    rig.turn(turns["main"], child("another kid"))
    rig.turn(turns["kid"], complete(text='"stale"'))
    # The original reports on a thread of its own.
    time.sleep(0.05)
    seen = [rig.take(), rig.take()]
    stale = [event for item in seen for event in new_events(item, "subOrchestrationInstanceCompleted")]
    assert len(stale) == int(not mended)


def test_events_during_the_last_turn_are_carried_over(rig: Rig, mended: bool) -> None:
    rig.start()
    turn = rig.must_take()
    rig.raise_event("kept")
    rig.turn(turn, continue_as_new())
    assert [event.eventRaised.name for event in new_events(rig.must_take(), "eventRaised")] == ["kept"]


def test_a_termination_during_the_last_turn_is_carried_over(rig: Rig) -> None:
    rig.start()
    turn = rig.must_take()
    rig.backend.TerminateInstance(pb.TerminateRequest(instanceId="main"), None)  # pyright: ignore[reportArgumentType]
    rig.turn(turn, continue_as_new())
    assert len(new_events(rig.must_take(), "executionTerminated")) == 1


def test_a_child_that_continues_as_new_still_reports_to_its_parent(rig: Rig) -> None:
    rig.begun(child("kid"))
    rig.turn(rig.must_take(), continue_as_new())
    again = rig.must_take()
    started = new_events(again, "executionStarted")[0].executionStarted
    assert started.parentInstance.orchestrationInstance.instanceId == "main"
    rig.turn(again, complete())
    assert len(new_events(rig.must_take(), "subOrchestrationInstanceCompleted")) == 1


def test_b14_starting_a_child_that_runs_leaves_it_alone_and_does_not_fail_the_parent(rig: Rig, mended: bool) -> None:
    rig.begun(activity(), instance_id="kid")
    held = rig.must_take()
    rig.begun(child("kid"))
    assert len(new_events(rig.take(), "subOrchestrationInstanceFailed")) == int(not mended)
    assert rig.state().orchestrationStatus == RUNNING
    rig.finish(held)
    assert len(new_events(rig.must_take(), "taskCompleted")) == 1


def test_b14_a_replaced_child_gets_nothing_of_the_finished_one(rig: Rig, mended: bool) -> None:
    rig.begun(activity(), instance_id="kid")
    late = rig.must_take()
    rig.raise_event("end", "kid")
    rig.turn(rig.must_take(), complete())
    assert rig.state("kid").orchestrationStatus == COMPLETED
    rig.begun(child("kid"))
    rig.turn(rig.must_take(), activity())
    rig.finish(late, '"of the finished one"')
    stale = [event for item in (rig.take(), rig.take()) for event in new_events(item, "taskCompleted")]
    assert len(stale) == int(not mended)
