"""Scheduled activities until their first result: waiting for a worker, or leased to one."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf import wrappers_pb2


@dataclass(frozen=True, slots=True)
class ScheduledActivity:
    """One call of an activity; ``execution`` is the calling execution of the orchestration."""

    token: str
    instance_id: str
    execution: str
    request: pb.ActivityRequest

    @classmethod
    def of(cls, token: str, instance_id: str, execution: str, action: pb.OrchestratorAction) -> "ScheduledActivity":
        """The call of an orchestrator's ``scheduleTask`` action."""
        schedule = action.scheduleTask
        request = pb.ActivityRequest(
            name=schedule.name,
            version=schedule.version if schedule.HasField("version") else None,
            input=schedule.input if schedule.HasField("input") else None,
            orchestrationInstance=pb.OrchestrationInstance(
                instanceId=instance_id, executionId=wrappers_pb2.StringValue(value=execution)
            ),
            taskId=action.id,
            tags=dict(schedule.tags),
        )
        return cls(token, instance_id, execution, request)

    @property
    def version(self) -> str | None:
        """The requested version, if any."""
        return self.request.version.value if self.request.HasField("version") else None

    def result(self, response: pb.ActivityResponse) -> pb.HistoryEvent:
        """The event for the orchestration; a failure counts by its presence, not by its text (B4)."""
        task_id = self.request.taskId
        if response.HasField("failureDetails"):
            failed = pb.TaskFailedEvent(taskScheduledId=task_id, failureDetails=response.failureDetails)
            return pb.HistoryEvent(taskFailed=failed)
        result = response.result if response.HasField("result") else None
        return pb.HistoryEvent(taskCompleted=pb.TaskCompletedEvent(taskScheduledId=task_id, result=result))


class ActivityQueue:
    """Activities in the order of their scheduling. Not safe for threads: the engine's lock guards it."""

    def __init__(self) -> None:
        self._open: dict[str, ScheduledActivity] = {}
        self._waiting: deque[str] = deque()

    def __contains__(self, token: str) -> bool:
        return token in self._open

    def find(self, token: str) -> ScheduledActivity | None:
        return self._open.get(token)

    @property
    def is_waiting(self) -> bool:
        """Whether an activity waits for a worker."""
        return bool(self._waiting)

    def add(self, activity: ScheduledActivity) -> None:
        self._open[activity.token] = activity
        self._waiting.append(activity.token)

    def take(self, accepts: Callable[[ScheduledActivity], bool]) -> ScheduledActivity | None:
        """The first waiting activity that the worker accepts; it stays open until ``close``."""
        passed_over: list[str] = []
        found: ScheduledActivity | None = None
        while found is None and self._waiting:
            token = self._waiting.popleft()
            # A closed one already got the late result of a worker that was considered lost.
            activity = self._open.get(token)
            if activity is not None and accepts(activity):
                found = activity
            elif activity is not None:
                passed_over.append(token)
        self._waiting.extendleft(reversed(passed_over))
        return found

    def requeue(self, token: str) -> None:
        """Makes an activity of a worker the first in the queue again."""
        self._waiting.appendleft(token)

    def close(self, token: str) -> ScheduledActivity | None:
        """Removes an activity; None when it is closed already (B11)."""
        return self._open.pop(token, None)

    def clear(self) -> None:
        self._open.clear()
        self._waiting.clear()
