"""Starting instances: atomically, once, at the time asked for, with histories that carry times and ids."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import cast

import grpc
import pytest
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf import timestamp_pb2

from local.functions_host.tests.conftest import MakeRig
from local.functions_host.tests.rig import Aborted, FakeContext, Rig, activity, complete, is_zero, new_events


def test_of_many_starts_of_one_id_exactly_one_wins(rig: Rig) -> None:
    def start(_: int) -> str:
        try:
            return rig.start("one")
        except Aborted as refused:
            return refused.code.name

    with ThreadPoolExecutor(16) as threads:
        answers = Counter(threads.map(start, range(64)))
    assert answers == {"one": 1, "ALREADY_EXISTS": 63}


def test_a_finished_instance_is_replaced_by_a_start_with_its_id(rig: Rig) -> None:
    rig.begun(complete(text='"first"'))
    rig.start(text='"again"')
    item = rig.must_take()
    assert not item.orchestratorRequest.pastEvents
    assert new_events(item, "executionStarted")[0].executionStarted.input.value == '"again"'


def test_a_reuse_policy_decides_over_the_default(rig: Rig) -> None:
    rig.begun(complete())
    request = pb.CreateInstanceRequest(instanceId="main", name="orchestrator")
    request.orchestrationIdReusePolicy.replaceableStatus.append(pb.ORCHESTRATION_STATUS_FAILED)
    with pytest.raises(Aborted) as refused:
        rig.backend.StartInstance(request, cast(grpc.ServicerContext, FakeContext()))
    assert refused.value.code is grpc.StatusCode.ALREADY_EXISTS


def test_b15_an_instance_waits_for_its_start_time(rig: Rig, mended: bool) -> None:
    at = timestamp_pb2.Timestamp()
    at.FromDatetime(datetime.now(UTC) + timedelta(seconds=0.5))
    request = pb.CreateInstanceRequest(instanceId="main", name="orchestrator", scheduledStartTimestamp=at)
    rig.backend.StartInstance(request, cast(grpc.ServicerContext, FakeContext()))
    rig.raise_event("early")
    early = rig.take()
    assert (early is None) is mended
    if mended:
        time.sleep(0.52)
        assert [event.WhichOneof("eventType") for event in rig.must_take().orchestratorRequest.newEvents] == [
            "orchestratorStarted",
            "executionStarted",
            "eventRaised",
        ]


def test_b16_histories_have_times_and_execution_ids(rig: Rig, mended: bool) -> None:
    rig.begun(activity())
    item = rig.must_take()
    assert bool(item.activityRequest.orchestrationInstance.executionId.value) is mended
    rig.finish(item)
    rig.turn(rig.must_take(), complete())
    instance = rig.backend._instances["main"]
    stamped = [not is_zero(event.timestamp) for event in instance.history]
    assert all(stamped) is mended


def test_entities_are_refused(make_rig: MakeRig) -> None:
    rig = make_rig()
    with pytest.raises(Aborted) as refused:
        rig.backend.SignalEntity(
            pb.SignalEntityRequest(instanceId="@counter@1", name="add"), cast(grpc.ServicerContext, FakeContext())
        )
    assert refused.value.code is grpc.StatusCode.UNIMPLEMENTED
    signal = pb.SendEntityMessageAction(entityOperationSignaled=pb.EntityOperationSignaledEvent(operation="add"))
    rig.begun(pb.OrchestratorAction(id=1, sendEntityMessage=signal))
    assert rig.state().failureDetails.errorMessage == "This host has no durable entities."
