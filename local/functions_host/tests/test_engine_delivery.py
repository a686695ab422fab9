"""Work items reach a worker until one completes them, and their results count once (B2, B3, B4, B11)."""

from durabletask.internal import orchestrator_service_pb2 as pb

from local.functions_host.durable.engine import Engine
from local.functions_host.tests.conftest import MakeRig
from local.functions_host.tests.rig import COMPLETED, Rig, activity, complete, new_events


def test_b2_an_activity_of_a_dead_worker_is_given_out_again(rig: Rig, mended: bool) -> None:
    rig.begun(activity())
    lost = rig.must_take()
    rig.worker_dies()
    again = rig.take()
    assert (again is not None) is mended
    if again is not None:
        assert again.activityRequest == lost.activityRequest


def test_b2_the_turn_of_a_dead_worker_is_given_out_again(rig: Rig, mended: bool) -> None:
    rig.start(text='"given"')
    lost = rig.must_take()
    rig.worker_dies()
    again = rig.take()
    assert (again is not None) is mended
    if again is not None:
        assert again.orchestratorRequest.newEvents == lost.orchestratorRequest.newEvents
        assert again.completionToken != lost.completionToken


def test_b3_an_abandoned_activity_is_given_out_again(rig: Rig, mended: bool) -> None:
    rig.begun(activity())
    item = rig.must_take()
    rig.backend.AbandonTaskActivityWorkItem(
        pb.AbandonActivityTaskRequest(completionToken=item.completionToken),
        None,  # pyright: ignore[reportArgumentType]
    )
    assert (rig.take() is not None) is mended


def test_b4_an_exception_without_text_is_a_failure(rig: Rig, mended: bool) -> None:
    rig.begun(activity())
    rig.fail(rig.must_take(), "builtins.TimeoutError", "")
    item = rig.must_take()
    assert len(new_events(item, "taskFailed")) == int(mended)
    assert len(new_events(item, "taskCompleted")) == int(not mended)


def test_b11_a_duplicate_result_is_dropped(rig: Rig, mended: bool) -> None:
    rig.begun(activity())
    item = rig.must_take()
    rig.finish(item)
    rig.finish(item)
    assert len(new_events(rig.must_take(), "taskCompleted")) == (1 if mended else 2)


def test_the_first_of_two_results_counts_after_redelivery(rig: Rig) -> None:
    rig.begun(activity())
    slow = rig.must_take()
    rig.worker_dies()
    # The worker was only slow: its result comes while the item waits to be given out again.
    rig.finish(slow, '"from the slow one"')
    turn = rig.must_take()
    assert new_events(turn, "taskCompleted")[0].taskCompleted.result.value == '"from the slow one"'
    assert rig.take() is None


def test_a_late_turn_of_a_lost_worker_is_dropped(rig: Rig) -> None:
    rig.start()
    late = rig.must_take()
    rig.worker_dies()
    current = rig.must_take()
    rig.turn(late, complete(text='"late"'))
    assert rig.take() is None, "the turn in flight was given out twice"
    rig.turn(current, complete(text='"current"'))
    assert rig.state().output.value == '"current"'
    assert rig.state().orchestrationStatus == COMPLETED


def test_releasing_a_worker_leaves_what_others_hold(make_rig: MakeRig) -> None:
    rig = make_rig()
    engine = rig.backend
    assert isinstance(engine, Engine)
    rig.begun(activity(1), activity(2))
    first, second = engine.next_work_item("one"), engine.next_work_item("two")
    assert first is not None
    assert second is not None
    assert (engine.outstanding("one"), engine.outstanding("two")) == (1, 1)
    assert engine.release_worker("one") == 1
    again = engine.next_work_item("two")
    assert again is not None
    assert again.completionToken == first.completionToken
    assert engine.release_worker("one") == 0
    assert engine.outstanding("two") == 2


def test_an_event_that_arrives_during_one_turn_is_in_the_next(rig: Rig) -> None:
    rig.start()
    item = rig.must_take()
    rig.raise_event("go")
    assert rig.take() is None
    rig.turn(item)
    assert len(new_events(rig.must_take(), "eventRaised")) == 1


def test_a_resume_that_arrives_during_the_suspending_turn_is_not_lost(rig: Rig) -> None:
    rig.begun()
    rig.backend.SuspendInstance(pb.SuspendRequest(instanceId="main"), None)  # pyright: ignore[reportArgumentType]
    item = rig.must_take()
    rig.backend.ResumeInstance(pb.ResumeRequest(instanceId="main"), None)  # pyright: ignore[reportArgumentType]
    rig.turn(item)
    assert len(new_events(rig.must_take(), "executionResumed")) == 1


def test_activities_wait_when_only_turns_are_requested(make_rig: MakeRig) -> None:
    rig = make_rig()
    engine = rig.backend
    assert isinstance(engine, Engine)
    rig.begun(activity())
    assert engine.next_work_item("one", activities=False) is None
    assert engine.next_work_item("one", orchestrations=False) is not None
