"""Histories, messages and callers beyond the original's limits (B5, B6, B7)."""

import contextlib
import socket
import time
from collections.abc import Iterator

import grpc
import pytest
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal import orchestrator_service_pb2_grpc as stubs
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from google.protobuf import empty_pb2, wrappers_pb2

from local.functions_host.durable.engine import Engine
from local.functions_host.tests.conftest import MakeRig
from local.functions_host.tests.rig import FAILED, RUNNING, Aborted, activity, child, new_events

_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture
def service(mended: bool) -> Iterator[stubs.TaskHubSidecarServiceStub]:
    """A gRPC client of a served backend."""
    if mended:
        backend: InMemoryOrchestrationBackend = Engine()
        address = backend.start()
    else:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        backend = InMemoryOrchestrationBackend(port=port)
        backend.start()
        address = f"127.0.0.1:{port}"
    with grpc.insecure_channel(address, options=_UNLIMITED) as channel:
        yield stubs.TaskHubSidecarServiceStub(channel)
    backend.stop(0)


def test_b5_an_instance_beyond_the_history_limit_fails_with_the_reason(make_rig: MakeRig, mended: bool) -> None:
    rig = make_rig(max_history_size=10)
    rig.begun(*(activity(n) for n in range(1, 21)))
    with contextlib.suppress(Aborted):
        for _ in range(40):
            item = rig.take()
            if item is None:
                break
            if item.HasField("activityRequest"):
                rig.finish(item)
            else:
                rig.turn(item)
    state = rig.state()
    assert state.orchestrationStatus == (FAILED if mended else RUNNING)
    if mended:
        assert state.failureDetails.errorType == "HistoryLimitExceeded"
        assert "limit of 10" in state.failureDetails.errorMessage


def test_b5_the_parent_of_such_an_instance_gets_the_failure(make_rig: MakeRig) -> None:
    rig = make_rig(max_history_size=10)
    rig.begun(child("kid"))
    rig.turn(rig.must_take(), *(activity(n) for n in range(1, 21)))
    failed = new_events(rig.must_take(), "subOrchestrationInstanceFailed")
    assert failed[0].subOrchestrationInstanceFailed.failureDetails.errorType == "HistoryLimitExceeded"
    assert rig.take() is None, "an activity of the refused turn was scheduled"


def test_b6_a_result_over_four_mebibytes_is_taken_and_replayed(
    service: stubs.TaskHubSidecarServiceStub, mended: bool
) -> None:
    service.StartInstance(pb.CreateInstanceRequest(instanceId="main", name="orchestrator"), timeout=5)
    stream = service.GetWorkItems(pb.GetWorkItemsRequest())
    first = next(stream)
    service.CompleteOrchestratorTask(
        pb.OrchestratorResponse(instanceId="main", completionToken=first.completionToken, actions=[activity()])
    )
    item = next(stream)
    large = wrappers_pb2.StringValue(value='"' + "x" * 5_000_000 + '"')
    response = pb.ActivityResponse(instanceId="main", taskId=1, completionToken=item.completionToken, result=large)
    if not mended:
        with pytest.raises(grpc.RpcError) as refused:
            service.CompleteActivityTask(response, timeout=5)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        stream.cancel()
        return
    service.CompleteActivityTask(response, timeout=5)
    turn = next(stream)
    assert new_events(turn, "taskCompleted")[0].taskCompleted.result == large
    stream.cancel()


def test_b7_many_workers_do_not_block_other_callers(service: stubs.TaskHubSidecarServiceStub, mended: bool) -> None:
    streams = [service.GetWorkItems(pb.GetWorkItemsRequest()) for _ in range(40)]
    waiting = [
        service.WaitForInstanceCompletion.future(pb.GetInstanceRequest(instanceId="missing"), timeout=5)
        for _ in range(20)
    ]
    time.sleep(0.1)
    try:
        if mended:
            service.Hello(empty_pb2.Empty(), timeout=5)
        else:
            with pytest.raises(grpc.RpcError) as refused:
                service.Hello(empty_pb2.Empty(), timeout=0.5)
            assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        for call in [*streams, *waiting]:
            call.cancel()


def test_b2_what_a_broken_stream_had_is_given_out_again(service: stubs.TaskHubSidecarServiceStub, mended: bool) -> None:
    service.StartInstance(pb.CreateInstanceRequest(instanceId="main", name="orchestrator"), timeout=5)
    broken = service.GetWorkItems(pb.GetWorkItemsRequest())
    lost = next(broken)
    broken.cancel()
    stream = service.GetWorkItems(pb.GetWorkItemsRequest(), timeout=5 if mended else 0.4)
    if mended:
        assert next(stream).orchestratorRequest.newEvents == lost.orchestratorRequest.newEvents
        stream.cancel()
    else:
        with pytest.raises(grpc.RpcError):
            next(stream)
