"""Costs of orchestrations in counts and bytes, which are the same on every computer, unlike seconds.

Replayed events are the past events of all turns, which an app processes again each time an orchestration wakes up.
Sizes are those of the messages that the engine sends, and of the JSON payloads inside them.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf.wrappers_pb2 import StringValue
from pydantic.alias_generators import to_camel

# The payload of each kind of event and action.
_RESULTS = {"taskCompleted": "result", "subOrchestrationInstanceCompleted": "result", "eventRaised": "input"}
_SENT = {
    "scheduleTask": "input", "createSubOrchestration": "input", "sendEvent": "data", "completeOrchestration": "result",
}  # fmt: skip


@dataclass(slots=True)
class OrchestratorCounts:
    """All instances of one orchestrator. Sizes are bytes, ``largest_*`` of a single one, ``*_bytes`` of all."""

    executions: int = 0
    """Instances, and each continuing as new."""
    turns: int = 0
    replayed_events: int = 0
    longest_history: int = 0
    """Events, with those that the turn adds."""
    largest_work_item: int = 0
    largest_response: int = 0
    largest_input: int = 0
    """Of the caller."""
    largest_output: int = 0
    largest_state: int = 0
    """Carried from one execution to the next when it continued as new."""
    largest_payload: int = 0
    """Of its activities, children and events, and of its own input and output."""
    sent_bytes: int = 0
    """Inputs of its activities and children, events that it raised, and its outputs."""
    result_bytes: int = 0
    """Results of its activities and children, and events that it received."""


@dataclass(slots=True)
class ActivityCounts:
    """All calls of one activity."""

    executions: int = 0
    repeated: int = 0
    """Executions of a call that a worker had before."""
    lost: int = 0
    """Calls of a worker that ended."""
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
        """Resets all counts; dispatched calls stay known, and instances count as new."""
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
        """A worker has responded; the history then has so many events."""
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
        """A worker gets a call, perhaps not for the first time."""
        counts = self._activity(request.name)
        counts.executions += 1
        counts.repeated += token in self._given_out
        counts.largest_input = max(counts.largest_input, _size(request.input))
        self._given_out.add(token)

    def activity_lost(self, name: str) -> None:
        """The worker that had a call has ended."""
        self._activity(name).lost += 1

    def activity_ends(self, token: str, name: str, response: pb.ActivityResponse) -> None:
        """The first result of a call has arrived."""
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
    kind = event.WhichOneof("eventType") or ""
    return _size(getattr(getattr(event, kind), _RESULTS[kind])) if kind in _RESULTS else 0


def _sent_sizes(response: pb.OrchestratorResponse) -> Iterator[int]:
    for action in response.actions:
        kind = action.WhichOneof("orchestratorActionType") or ""
        if kind in _SENT:
            yield _size(getattr(getattr(action, kind), _SENT[kind]))
