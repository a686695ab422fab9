"""Drives a durable backend by hand, message by message, without a worker: the original one and ours alike."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, cast

import grpc
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from google.protobuf import timestamp_pb2, wrappers_pb2

from local.functions_host.durable.engine import Engine

RUNNING = pb.ORCHESTRATION_STATUS_RUNNING
COMPLETED = pb.ORCHESTRATION_STATUS_COMPLETED
FAILED = pb.ORCHESTRATION_STATUS_FAILED
CONTINUED = pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW


class Aborted(Exception):
    """The backend refused a call."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code.name)
        self.code = code


class FakeContext:
    """The part of a gRPC context that the backends use; a stream on it lives for ``seconds``."""

    def __init__(self, seconds: float = 0.15) -> None:
        self._end = time.monotonic() + seconds
        self.cancelled: Future[None] = Future()

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise Aborted(code)

    def is_active(self) -> bool:
        return time.monotonic() < self._end

    def time_remaining(self) -> float | None:
        return None

    def add_callback(self, _: Any) -> bool:
        return True


class Rig:
    """A backend of either kind and the messages of a client and a worker."""

    def __init__(self, backend: InMemoryOrchestrationBackend) -> None:
        self.backend = backend
        self._stream: Iterator[pb.WorkItem] | None = None

    def start(self, instance_id: str = "main", text: str | None = None) -> str:
        request = pb.CreateInstanceRequest(instanceId=instance_id, name="orchestrator")
        if text is not None:
            request.input.value = text
        return self.backend.StartInstance(request, _context()).instanceId

    def take(self) -> pb.WorkItem | None:
        """The next work item for the current worker; None when nothing comes within a moment."""
        if isinstance(self.backend, Engine):
            return self.backend.next_work_item("rig")
        context = FakeContext()
        self._stream = self.backend.GetWorkItems(pb.GetWorkItemsRequest(), cast(grpc.ServicerContext, context))
        return next(self._stream, None)

    def must_take(self) -> pb.WorkItem:
        """The next work item, waiting up to ten seconds for it."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            item = self.take()
            if item is not None:
                return item
            time.sleep(0.005)
        raise AssertionError("no work item came")

    def worker_dies(self) -> None:
        """The worker that took items is gone without a word."""
        if isinstance(self.backend, Engine):
            self.backend.release_worker("rig")
        elif self._stream is not None:
            cast(Any, self._stream).close()

    def turn(self, item: pb.WorkItem, *actions: pb.OrchestratorAction) -> None:
        """Completes an orchestrator turn."""
        response = pb.OrchestratorResponse(
            instanceId=item.orchestratorRequest.instanceId, completionToken=item.completionToken, actions=actions
        )
        self.backend.CompleteOrchestratorTask(response, _context())

    def finish(self, item: pb.WorkItem, text: str = '"result"') -> None:
        """Completes an activity."""
        self.backend.CompleteActivityTask(_activity_response(item, result=text), _context())

    def fail(self, item: pb.WorkItem, kind: str, message: str) -> None:
        """Fails an activity."""
        failure = pb.TaskFailureDetails(errorType=kind, errorMessage=message)
        self.backend.CompleteActivityTask(_activity_response(item, failure=failure), _context())

    def raise_event(self, name: str, instance_id: str = "main") -> None:
        self.backend.RaiseEvent(pb.RaiseEventRequest(instanceId=instance_id, name=name), _context())

    def state(self, instance_id: str = "main") -> pb.OrchestrationState:
        request = pb.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=True)
        return self.backend.GetInstance(request, _context()).orchestrationState

    def begun(self, *actions: pb.OrchestratorAction, instance_id: str = "main") -> None:
        """Starts an instance and completes its first turn with these actions."""
        self.start(instance_id)
        self.turn(self.must_take(), *actions)


def _context() -> grpc.ServicerContext:
    return cast(grpc.ServicerContext, FakeContext())


def _activity_response(
    item: pb.WorkItem, *, result: str | None = None, failure: pb.TaskFailureDetails | None = None
) -> pb.ActivityResponse:
    return pb.ActivityResponse(
        instanceId=item.activityRequest.orchestrationInstance.instanceId,
        taskId=item.activityRequest.taskId,
        completionToken=item.completionToken,
        result=None if result is None else wrappers_pb2.StringValue(value=result),
        failureDetails=failure,
    )


# Actions of an orchestrator


def activity(task_id: int = 1, name: str = "activity") -> pb.OrchestratorAction:
    return helpers.new_schedule_task_action(task_id, name, '"in"', None)


def timer(seconds: float, task_id: int = 1) -> pb.OrchestratorAction:
    return helpers.new_create_timer_action(task_id, datetime.now(UTC) + timedelta(seconds=seconds))


def child(instance_id: str, task_id: int = 1) -> pb.OrchestratorAction:
    return helpers.new_create_sub_orchestration_action(task_id, "child", instance_id, "null", None)


def complete(status: pb.OrchestrationStatus = COMPLETED, text: str = '"out"') -> pb.OrchestratorAction:
    return helpers.new_complete_orchestration_action(99, status, text)


def fail_with(kind: str, message: str) -> pb.OrchestratorAction:
    failure = pb.TaskFailureDetails(errorType=kind, errorMessage=message)
    return helpers.new_complete_orchestration_action(99, FAILED, None, failure_details=failure)


def continue_as_new() -> pb.OrchestratorAction:
    return complete(CONTINUED, '"next"')


# Reading work items


def new_events(item: pb.WorkItem | None, kind: str) -> list[pb.HistoryEvent]:
    """The new events of one kind in an orchestrator's work item."""
    if item is None:
        return []
    return [event for event in item.orchestratorRequest.newEvents if event.WhichOneof("eventType") == kind]


def is_zero(stamp: timestamp_pb2.Timestamp) -> bool:
    return stamp.seconds == 0
