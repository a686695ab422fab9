"""What orchestrations cost the engine, in counts and bytes: they say the same on every machine, seconds do not.

Replayed events are the past events of all turns: what an app pays again each time an orchestration wakes up. Sizes are
those of the messages that an engine really sends, and of the JSON payloads inside them.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf.wrappers_pb2 import StringValue
from pydantic.alias_generators import to_camel


@dataclass(slots=True)
class OrchestratorCounts:
    """All instances of one orchestrator. Sizes are bytes, ``largest_*`` of a single one, ``*_bytes`` of all."""

    executions: int = 0
    """Instances, and each continuing as new."""
    turns: int = 0
    replayed_events: int = 0
    longest_history: int = 0
    """Events, with those that the turn itself adds."""
    largest_work_item: int = 0
    largest_response: int = 0
    largest_input: int = 0
    """Given by the caller."""
    largest_output: int = 0
    """Given back when it was done."""
    largest_state: int = 0
    """Carried from one execution to the next when it continued as new."""
    largest_payload: int = 0
    """Of its activities, children and events, its own input and output with them."""
    sent_bytes: int = 0
    """Inputs that it gave to activities and children, events that it raised, and its own outputs."""
    result_bytes: int = 0
    """Results of its activities and children, and events that it was told."""


@dataclass(slots=True)
class ActivityCounts:
    """All calls of one activity."""

    executions: int = 0
    repeated: int = 0
    """Executions of a call that had been given to a worker before."""
    lost: int = 0
    """Calls that a worker had in hand when it was lost."""
    largest_input: int = 0
    largest_result: int = 0


@dataclass
class Metrics:
    """Counts since the last reset. Not safe for threads: the engine's lock guards it."""

    orchestrators: dict[str, OrchestratorCounts] = field(default_factory=dict[str, OrchestratorCounts])
    activities: dict[str, ActivityCounts] = field(default_factory=dict[str, ActivityCounts])
    _given_out: set[str] = field(default_factory=set[str])
    _started: set[str] = field(default_factory=set[str])

    def reset(self) -> None:
        """Forget all counts; which calls are with a worker stays known, and an instance counts as new."""
        self.orchestrators.clear()
        self.activities.clear()
        self._started.clear()

    def document(self) -> dict[str, Any]:
        """``{orchestrators: {name: counts}, activities: {name: counts}}`` with camelCase keys."""
        return {
            "orchestrators": {name: _document(counts) for name, counts in self.orchestrators.items()},
            "activities": {name: _document(counts) for name, counts in self.activities.items()},
        }

    def turn_begins(self, name: str, item: pb.WorkItem) -> None:
        """A work item of an orchestrator goes to a worker."""
        counts = self._orchestrator(name)
        request = item.orchestratorRequest
        counts.turns += 1
        counts.replayed_events += len(request.pastEvents)
        counts.largest_work_item = max(counts.largest_work_item, request.ByteSize())
        for event in request.newEvents:
            if event.HasField("executionStarted"):
                size = _size(event.executionStarted.input)
                counts.executions += 1
                if request.instanceId not in self._started:
                    self._started.add(request.instanceId)
                    counts.largest_input = max(counts.largest_input, size)
            else:
                size = _result_size(event)
                counts.result_bytes += size
            counts.largest_payload = max(counts.largest_payload, size)

    def turn_ends(self, name: str, response: pb.OrchestratorResponse, history: int) -> None:
        """A worker has answered, and the history has so many events then."""
        counts = self._orchestrator(name)
        counts.longest_history = max(counts.longest_history, history)
        counts.largest_response = max(counts.largest_response, response.ByteSize())
        for size in _sent_sizes(response):
            counts.sent_bytes += size
            counts.largest_payload = max(counts.largest_payload, size)
        for action in response.actions:
            if not action.HasField("completeOrchestration"):
                continue
            size = _size(action.completeOrchestration.result)
            if action.completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
                counts.largest_state = max(counts.largest_state, size)
            else:
                counts.largest_output = max(counts.largest_output, size)

    def activity_begins(self, token: str, request: pb.ActivityRequest) -> None:
        """A call is given to a worker, perhaps not for the first time."""
        counts = self._activity(request.name)
        counts.executions += 1
        counts.repeated += token in self._given_out
        counts.largest_input = max(counts.largest_input, _size(request.input))
        self._given_out.add(token)

    def activity_lost(self, name: str) -> None:
        """The worker that had a call is gone."""
        self._activity(name).lost += 1

    def activity_ends(self, token: str, name: str, response: pb.ActivityResponse) -> None:
        """The first result of a call has come."""
        self._given_out.discard(token)
        counts = self._activity(name)
        counts.largest_result = max(counts.largest_result, _size(response.result))

    def _orchestrator(self, name: str) -> OrchestratorCounts:
        return self.orchestrators.setdefault(name, OrchestratorCounts())

    def _activity(self, name: str) -> ActivityCounts:
        return self.activities.setdefault(name, ActivityCounts())


def _document(counts: OrchestratorCounts | ActivityCounts) -> dict[str, int]:
    return {to_camel(name): value for name, value in asdict(counts).items()}


def _size(text: StringValue) -> int:
    return len(text.value.encode())


def _result_size(event: pb.HistoryEvent) -> int:
    match event.WhichOneof("eventType"):
        case "taskCompleted":
            return _size(event.taskCompleted.result)
        case "subOrchestrationInstanceCompleted":
            return _size(event.subOrchestrationInstanceCompleted.result)
        case "eventRaised":
            return _size(event.eventRaised.input)
        case _:
            return 0


def _sent_sizes(response: pb.OrchestratorResponse) -> Iterator[int]:
    for action in response.actions:
        match action.WhichOneof("orchestratorActionType"):
            case "scheduleTask":
                yield _size(action.scheduleTask.input)
            case "createSubOrchestration":
                yield _size(action.createSubOrchestration.input)
            case "sendEvent":
                yield _size(action.sendEvent.data)
            case "completeOrchestration":
                yield _size(action.completeOrchestration.result)
            case _:
                pass
