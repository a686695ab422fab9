"""History events and responses that the engine creates."""

from dataclasses import dataclass

from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.testing.in_memory_backend import OrchestrationInstance
from google.protobuf import wrappers_pb2


@dataclass(frozen=True, slots=True)
class Parent:
    """The parent of a sub-orchestration: an execution of an instance, and the id of its waiting task."""

    instance_id: str
    execution: str
    task_id: int

    def info(self, name: str) -> pb.ParentInstanceInfo:
        """The parent in the child's ``executionStarted``; ``name`` is that of its orchestrator."""
        return pb.ParentInstanceInfo(
            taskScheduledId=self.task_id,
            name=wrappers_pb2.StringValue(value=name),
            orchestrationInstance=pb.OrchestrationInstance(
                instanceId=self.instance_id, executionId=wrappers_pb2.StringValue(value=self.execution)
            ),
        )

    def told_of(self, child: OrchestrationInstance) -> pb.HistoryEvent:
        """The event that ends the parent's task; a failure keeps the type that the child failed with (B12)."""
        if child.status == pb.ORCHESTRATION_STATUS_COMPLETED:
            return helpers.new_sub_orchestration_completed_event(self.task_id, child.output)
        failure = child.failure_details or pb.TaskFailureDetails(
            errorType="OrchestrationTerminated", errorMessage=f"Instance '{child.instance_id}' was terminated."
        )
        failed = pb.SubOrchestrationInstanceFailedEvent(taskScheduledId=self.task_id, failureDetails=failure)
        return pb.HistoryEvent(subOrchestrationInstanceFailed=failed)


def size_after(instance: OrchestrationInstance, response: pb.OrchestratorResponse) -> int:
    """Events of the history after this turn: one per action, and the one that closes it; 0 when it continues as new."""
    for action in response.actions:
        status = action.completeOrchestration.orchestrationStatus
        if action.HasField("completeOrchestration") and status == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
            return 0
    return len(instance.history) + len(instance.dispatched_events) + len(response.actions) + 1


def history_too_long(response: pb.OrchestratorResponse, size: int, limit: int) -> pb.OrchestratorResponse:
    """A response in place of ``response`` that fails its instance (B5)."""
    text = f"The history of instance '{response.instanceId}' would have {size} events, more than the limit of {limit}."
    failure = pb.TaskFailureDetails(errorType="HistoryLimitExceeded", errorMessage=text, isNonRetriable=True)
    action = helpers.new_complete_orchestration_action(
        -1, pb.ORCHESTRATION_STATUS_FAILED, None, failure_details=failure
    )
    return pb.OrchestratorResponse(
        instanceId=response.instanceId,
        completionToken=response.completionToken,
        customStatus=response.customStatus,
        actions=[action],
    )
