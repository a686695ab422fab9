"""The durable engine: ``durabletask``'s in-memory backend with its defects fixed, in one subclass.

B1 to B16 are the defects, as listed in ``docs/contributing/functions-host.md``; each fix has a test that fails on the
original (``local/functions_host/tests/test_engine_*.py``).

The embedded host takes work items in process (``next_work_item``, ``complete``, ``release_worker``); plain
``TaskHubGrpcWorker`` clients stream them over gRPC, which durable clients always use. The engine listens on 127.0.0.1
only and keeps everything in memory.

Entities are not supported: a signal gets UNIMPLEMENTED, and an orchestration that calls one fails with a message.
"""

import logging
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from datetime import UTC, datetime
from typing import Any, cast, override

import grpc
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal import orchestrator_service_pb2_grpc as stubs
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend, OrchestrationInstance, StateWaiter
from google.protobuf import wrappers_pb2
from grpc import ServicerContext, StatusCode

from local.functions_host.durable.activity_queue import ActivityQueue, ScheduledActivity
from local.functions_host.durable.history_events import Parent, history_too_long, size_after
from local.functions_host.durable.metrics import Metrics
from local.functions_host.durable.timer_queue import TimerQueue

log = logging.getLogger(__name__)

FINISHED = frozenset(
    {
        pb.ORCHESTRATION_STATUS_COMPLETED,
        pb.ORCHESTRATION_STATUS_FAILED,
        pb.ORCHESTRATION_STATUS_CANCELED,
        pb.ORCHESTRATION_STATUS_TERMINATED,
    }
)
ANY_STATUS = FINISHED | {
    pb.ORCHESTRATION_STATUS_PENDING,
    pb.ORCHESTRATION_STATUS_RUNNING,
    pb.ORCHESTRATION_STATUS_SUSPENDED,
    pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW,
}

# Every stream of a gRPC worker and every waiting client holds a thread of the gRPC server (B7). Threads are created
# on demand; past the limit a caller is refused instead of all of them hanging.
_SERVER_THREADS = 1024
_BLOCKED_THREADS = _SERVER_THREADS - 64

# The Python SDK drops a stream that is silent for 120 s; Azure's services send a ping well before that.
_PING_SECONDS = 30.0

MAX_HISTORY = 10_000
"""Events at which an instance fails unless another limit is given; Azure only gets slower."""

# continue_as_new passes these to the next execution too.
_REQUESTS = ("eventRaised", "executionSuspended", "executionResumed", "executionTerminated")

type _Filter = dict[str, frozenset[str]] | None
type Completion = pb.OrchestratorResponse | pb.ActivityResponse


class Engine(InMemoryOrchestrationBackend):
    """A durable engine in memory.

    Args:
        port: loopback port of the gRPC service; 0 takes a free one (see ``address``).
        max_history_size: an instance whose history would grow beyond this fails (B5).
        replaceable: states in which an instance is replaced when its id is started again without an explicit reuse
            policy; others are refused with ALREADY_EXISTS. By default as in Durable Functions
            (``overridableExistingInstanceStates: NonRunningStates``).
        skip_time: when nothing runs, the engine's clock jumps to the next timer instead of waiting for it.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        max_history_size: int = MAX_HISTORY,
        replaceable: frozenset[pb.OrchestrationStatus] = FINISHED,
        skip_time: bool = False,
    ) -> None:
        # The base class checks its limit too late, and aborts the call; ours is checked before a work item is written.
        super().__init__(max_history_size=sys.maxsize, port=port)
        self.skip_time = skip_time
        self._history_limit = max_history_size
        self._replaceable = replaceable
        self._work = threading.Condition(self._lock)
        self._timers = TimerQueue(self._lock)
        self._blocked = threading.BoundedSemaphore(_BLOCKED_THREADS)
        self._listeners: list[Callable[[], object]] = []
        self._executions: dict[str, str] = {}
        self._parents: dict[str, Parent] = {}
        self._activities = ActivityQueue()
        self._metrics = Metrics()
        self._delayed: set[str] = set()
        self._leases: dict[str, str] = {}

    # Life

    @override
    def start(self) -> str:
        """Starts the gRPC service on loopback and returns its address, ``127.0.0.1:PORT``."""
        self._shutdown_event.clear()
        server = grpc.server(
            futures.ThreadPoolExecutor(_SERVER_THREADS, thread_name_prefix="engine-grpc"),
            options=[
                # Payloads are as large as the histories that the app makes (B6).
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
        )
        add_servicer = cast(
            Callable[[Any, grpc.Server], None],
            stubs.add_TaskHubSidecarServiceServicer_to_server,  # pyright: ignore[reportUnknownMemberType] - untyped
        )
        add_servicer(self, server)
        self._port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        server.start()
        self._server = server
        return self.address

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def now(self) -> datetime:
        """The engine's time: UTC, plus skipped time."""
        return self._timers.now()

    @override
    def stop(self, grace: float | None = None) -> None:
        """Ends the gRPC service and the timers; instances stay in memory until ``reset``."""
        with self._lock:
            self._shutdown_event.set()
            for waiters in self._state_waiters.values():
                for waiter in waiters:
                    waiter.event.set()
            self._work.notify_all()
        super().stop(grace)
        self._timers.close()

    @override
    def reset(self) -> None:
        """Forgets everything; earlier timers do not fire into the new state (B9)."""
        with self._lock:
            super().reset()
            self._timers.clear()
            for table in (self._executions, self._parents, self._activities, self._leases, self._delayed):
                table.clear()

    # Work items

    def subscribe(self, listener: Callable[[], object]) -> None:
        """``listener`` is called, on any thread and with the engine's lock held, when there may be work."""
        with self._lock:
            self._listeners.append(listener)

    def next_work_item(
        self,
        worker: str,
        *,
        orchestrations: bool = True,
        activities: bool = True,
        orchestration_filter: _Filter = None,
        activity_filter: _Filter = None,
    ) -> pb.WorkItem | None:
        """Leases the next work item to ``worker`` (any name) until ``complete`` or ``release_worker`` (B2).

        Never waits; None when there is no work.
        """
        with self._lock:
            while True:
                item = self._take_orchestration(orchestration_filter) if orchestrations else None
                if item is None and activities:
                    item = self._take_activity(activity_filter)
                if item is not None:
                    self._leases[item.completionToken] = worker
                    return item
                if not (self.skip_time and self._is_idle() and self._timers.skip_to_next()):
                    return None

    def complete(self, response: Completion) -> bool:
        """Applies the result of a work item, which its completion token identifies.

        False when the item is not outstanding any more: it was completed before (B11), or belongs to an execution
        that has ended or continued as new (B10), or its orchestrator turn was given to another worker (B2).
        """
        if isinstance(response, pb.ActivityResponse):
            return self._complete_activity(response)
        return self._complete_turn(response)

    def abandon(self, token: str) -> bool:
        """Requeues one work item (B3); False when it is not outstanding."""
        with self._lock:
            if self._leases.pop(token, None) is None:
                return False
            if token in self._activities:
                self._activities.requeue(token)
                self._announce()
                return True
            for instance_id in self._orchestration_in_flight:
                instance = self._instances.get(instance_id)
                if instance is not None and str(instance.completion_token) == token:
                    self._requeue(instance)
                    return True
            return False

    def release_worker(self, worker: str) -> int:
        """Requeues every outstanding item of a worker that has ended; returns how many (B2)."""
        with self._lock:
            held = [token for token, owner in self._leases.items() if owner == worker]
            for token in held:
                if (activity := self._activities.find(token)) is not None:
                    self._metrics.activity_lost(activity.request.name)
            return sum(map(self.abandon, held))

    def outstanding(self, worker: str) -> int:
        """Number of work items that ``worker`` holds."""
        with self._lock:
            return sum(owner == worker for owner in self._leases.values())

    # Metrics

    def measure(self) -> dict[str, Any]:
        """The counts since the start, or since ``reset_metrics``; see `local.functions_host.durable.metrics`."""
        with self._lock:
            return self._metrics.document()

    def reset_metrics(self) -> None:
        with self._lock:
            self._metrics.reset()

    # gRPC: work items

    @override
    def GetWorkItems(self, request: pb.GetWorkItemsRequest, context: ServicerContext) -> Iterator[pb.WorkItem]:
        """Streams work items to a gRPC worker; items that are not completed when the stream ends are requeued."""
        worker = uuid.uuid4().hex
        orchestration_filter, activity_filter, _ = self._parse_work_item_filters(request)
        self._hold_thread(context)
        context.add_callback(self._wake)
        try:
            while context.is_active() and not self._shutdown_event.is_set():
                with self._work:
                    item = self.next_work_item(
                        worker, orchestration_filter=orchestration_filter, activity_filter=activity_filter
                    )
                    timed_out = item is None and not self._work.wait(_PING_SECONDS)
                if item is not None:
                    yield item
                elif timed_out:
                    yield pb.WorkItem(healthPing=pb.HealthPing())
        finally:
            self._blocked.release()
            self.release_worker(worker)

    @override
    def CompleteOrchestratorTask(
        self, request: pb.OrchestratorResponse, context: ServicerContext
    ) -> pb.CompleteTaskResponse:
        self.complete(request)
        return pb.CompleteTaskResponse()

    @override
    def CompleteActivityTask(self, request: pb.ActivityResponse, context: ServicerContext) -> pb.CompleteTaskResponse:
        self.complete(request)
        return pb.CompleteTaskResponse()

    @override
    def AbandonTaskActivityWorkItem(
        self, request: pb.AbandonActivityTaskRequest, context: ServicerContext
    ) -> pb.AbandonActivityTaskResponse:
        self.abandon(request.completionToken)
        return pb.AbandonActivityTaskResponse()

    @override
    def AbandonTaskOrchestratorWorkItem(
        self, request: pb.AbandonOrchestrationTaskRequest, context: ServicerContext
    ) -> pb.AbandonOrchestrationTaskResponse:
        self.abandon(request.completionToken)
        return pb.AbandonOrchestrationTaskResponse()

    # gRPC: clients

    @override
    def StartInstance(self, request: pb.CreateInstanceRequest, context: ServicerContext) -> pb.CreateInstanceResponse:
        """Creates an instance, atomically: a live id is refused with ALREADY_EXISTS (see ``replaceable``)."""
        instance_id = request.instanceId or uuid.uuid4().hex
        with self._lock:
            existing = self._instances.get(instance_id)
            if existing is not None:
                replaceable = frozenset(request.orchestrationIdReusePolicy.replaceableStatus) or self._replaceable
                if existing.status not in replaceable:
                    context.abort(StatusCode.ALREADY_EXISTS, f"Instance '{instance_id}' already exists.")
            start_at = request.scheduledStartTimestamp.ToDatetime(UTC)
            self._create(
                instance_id,
                request.name,
                request.input.value if request.HasField("input") else None,
                version=request.version.value if request.HasField("version") else None,
                tags=dict(request.tags),
                start_at=start_at if request.HasField("scheduledStartTimestamp") else None,
            )
        return pb.CreateInstanceResponse(instanceId=instance_id)

    @override
    def WaitForInstanceStart(self, request: pb.GetInstanceRequest, context: ServicerContext) -> pb.GetInstanceResponse:
        return self._wait(request, context, lambda instance: instance.status != pb.ORCHESTRATION_STATUS_PENDING)

    @override
    def WaitForInstanceCompletion(
        self, request: pb.GetInstanceRequest, context: ServicerContext
    ) -> pb.GetInstanceResponse:
        return self._wait(request, context, lambda instance: instance.status in FINISHED)

    @override
    def PurgeInstances(self, request: pb.PurgeInstancesRequest, context: ServicerContext) -> pb.PurgeInstancesResponse:
        with self._lock:
            response = super().PurgeInstances(request, context)
            for instance_id in self._executions.keys() - self._instances.keys():
                del self._executions[instance_id]
                self._parents.pop(instance_id, None)
            return response

    @override
    def SignalEntity(self, request: pb.SignalEntityRequest, context: ServicerContext) -> pb.SignalEntityResponse:
        context.abort(StatusCode.UNIMPLEMENTED, "This host has no durable entities.")
        return pb.SignalEntityResponse()

    # Taking

    def _take_orchestration(self, accepted: _Filter) -> pb.WorkItem | None:
        passed_over: list[str] = []
        item: pb.WorkItem | None = None
        while item is None and self._orchestration_queue:
            instance_id = self._orchestration_queue.popleft()
            instance = self._instances.get(instance_id)
            if instance is None or not instance.pending_events or instance_id in self._orchestration_in_flight:
                # An instance in flight is queued again when its work item completes.
                self._orchestration_queue_set.discard(instance_id)
            elif not self._matches_filter(instance.name, instance.version, accepted):
                passed_over.append(instance_id)
            else:
                self._orchestration_queue_set.discard(instance_id)
                item = self._start_turn(instance)
        self._orchestration_queue.extend(passed_over)
        return item

    def _start_turn(self, instance: OrchestrationInstance) -> pb.WorkItem:
        events = instance.pending_events
        instance.pending_events = []
        if instance.history and not events[0].HasField("orchestratorStarted"):
            # The time of this event is the orchestrator's clock for the turn.
            events.insert(0, helpers.new_orchestrator_started_event(self._timers.now()))
        for event in events:
            if not event.timestamp.seconds:
                event.timestamp.FromDatetime(self._timers.now())
        instance.dispatched_events = events
        self._orchestration_in_flight.add(instance.instance_id)
        item = pb.WorkItem(
            completionToken=str(instance.completion_token),
            orchestratorRequest=pb.OrchestratorRequest(
                instanceId=instance.instance_id,
                executionId=wrappers_pb2.StringValue(value=self._executions.get(instance.instance_id, "")),
                pastEvents=instance.history,
                newEvents=events,
            ),
        )
        self._metrics.turn_begins(instance.name, item)
        return item

    def _take_activity(self, accepted: _Filter) -> pb.WorkItem | None:
        found = self._activities.take(lambda each: self._matches_filter(each.request.name, each.version, accepted))
        if found is None:
            return None
        self._metrics.activity_begins(found.token, found.request)
        return pb.WorkItem(completionToken=found.token, activityRequest=found.request)

    def _requeue(self, instance: OrchestrationInstance) -> None:
        instance.pending_events = [*instance.dispatched_events, *instance.pending_events]
        instance.dispatched_events = []
        # A new token, so that a late response of the worker that lost the turn does not count as the next one's.
        instance.completion_token = self._new_token()
        self._orchestration_in_flight.discard(instance.instance_id)
        self._enqueue_orchestration(instance.instance_id)

    def _is_idle(self) -> bool:
        return not (self._leases or self._orchestration_in_flight or self._activities.is_waiting)

    # Completing

    def _complete_activity(self, response: pb.ActivityResponse) -> bool:
        with self._lock:
            activity = self._activities.close(response.completionToken)
            self._leases.pop(response.completionToken, None)
            if activity is None:
                log.debug("dropped a duplicate result of task %d of '%s'", response.taskId, response.instanceId)
                return False
            self._metrics.activity_ends(activity.token, activity.request.name, response)
            return self._deliver(activity.instance_id, activity.execution, activity.result(response))

    def _complete_turn(self, response: pb.OrchestratorResponse) -> bool:
        with self._lock:
            instance = self._instances.get(response.instanceId)
            if (
                instance is None
                or response.instanceId not in self._orchestration_in_flight
                or str(instance.completion_token) != response.completionToken
            ):
                log.debug("dropped a late turn of '%s'", response.instanceId)
                return False
            self._leases.pop(response.completionToken, None)
            written = len(instance.history) + len(instance.dispatched_events)
            size = size_after(instance, response)
            self._metrics.turn_ends(instance.name, response, max(size, written))
            if size > self._history_limit:
                log.error("the history of instance '%s' would have %d events: it fails", instance.instance_id, size)
                response = history_too_long(response, size, self._history_limit)
            # The context is used only to abort at the base class's own history limit, which is out of reach.
            super().CompleteOrchestratorTask(response, cast(ServicerContext, None))
            now = self._timers.now()
            instance.last_updated_at = now
            for event in instance.history[written:]:
                event.timestamp.FromDatetime(now)
            if instance.pending_events and instance.status not in FINISHED:
                # The base class loses a suspended instance that was resumed during the turn.
                self._enqueue_orchestration(instance.instance_id)
            self._announce()
            return True

    def _deliver(self, instance_id: str, execution: str, event: pb.HistoryEvent) -> bool:
        """Queues an event for one execution of an instance; False when that execution is over (B9, B10)."""
        instance = self._instances.get(instance_id)
        if instance is None or instance.status in FINISHED or self._executions.get(instance_id) != execution:
            log.debug("dropped a %s of an ended execution of '%s'", event.WhichOneof("eventType"), instance_id)
            self._announce()
            return False
        event.eventId = -1
        event.timestamp.FromDatetime(self._timers.now())
        instance.pending_events.append(event)
        instance.last_updated_at = self._timers.now()
        self._enqueue_orchestration(instance_id)
        return True

    # Hooks of the base class

    @override
    def _enqueue_orchestration(self, instance_id: str) -> None:
        if instance_id not in self._orchestration_in_flight and instance_id not in self._delayed:
            super()._enqueue_orchestration(instance_id)
        self._announce()

    @override
    def _notify_waiters(self, instance_id: str) -> None:
        super()._notify_waiters(instance_id)
        instance = self._instances.get(instance_id)
        if instance is not None and instance.status in FINISHED:
            self._report_to_parent(instance)

    @override
    def _create_instance_internal(
        self, instance_id: str, name: str, encoded_input: str | None = None, version: str | None = None
    ) -> None:
        self._create(instance_id, name, encoded_input, version=version)

    @override
    def _process_complete_orchestration_action(
        self, instance: OrchestrationInstance, complete_action: pb.CompleteOrchestrationAction
    ) -> None:
        if complete_action.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
            # B10: results that arrived during the last turn belong to tasks of this execution, not of the next one.
            instance.pending_events = [e for e in instance.pending_events if e.WhichOneof("eventType") in _REQUESTS]
            parent = self._parents.get(instance.instance_id)
            super()._process_complete_orchestration_action(instance, complete_action)
            self._open_execution(instance, parent)
        else:
            super()._process_complete_orchestration_action(instance, complete_action)

    @override
    def _process_schedule_task_action(self, instance: OrchestrationInstance, action: pb.OrchestratorAction) -> None:
        schedule = action.scheduleTask
        text = schedule.input.value if schedule.HasField("input") else None
        instance.history.append(helpers.new_task_scheduled_event(action.id, schedule.name, text))
        execution = self._executions[instance.instance_id]
        token = str(self._new_token())
        self._activities.add(ScheduledActivity.of(token, instance.instance_id, execution, action))
        self._announce()

    @override
    def _process_create_timer_action(self, instance: OrchestrationInstance, action: pb.OrchestratorAction) -> None:
        due = action.createTimer.fireAt.ToDatetime(UTC)
        instance.history.append(helpers.new_timer_created_event(action.id, due))
        instance_id, execution = instance.instance_id, self._executions[instance.instance_id]

        def fire() -> None:
            self._deliver(instance_id, execution, helpers.new_timer_fired_event(action.id, due))

        self._timers.at(due, fire)

    @override
    def _process_create_sub_orchestration_action(
        self, instance: OrchestrationInstance, action: pb.OrchestratorAction
    ) -> None:
        """Starts a child and records its parent (B1, B8: no thread waits).

        For the id of a live instance (B14) the start is dropped and the parent keeps waiting, as on the Durable Task
        Scheduler; on Azure Storage the new child would overwrite the live one. The id of a finished instance gets a new
        execution, as on Azure Storage.
        """
        create = action.createSubOrchestration
        text = create.input.value if create.HasField("input") else None
        version = create.version.value if create.HasField("version") else None
        instance.history.append(
            helpers.new_sub_orchestration_created_event(
                action.id, create.name, create.instanceId, text, version=version
            )
        )
        existing = self._instances.get(create.instanceId)
        if existing is not None and existing.status not in FINISHED:
            log.error(
                "instance '%s' starts sub-orchestration '%s', which is running already; the start is dropped",
                instance.instance_id,
                create.instanceId,
            )
            return
        if existing is not None:
            log.info("sub-orchestration '%s' had finished and is replaced by a new execution", create.instanceId)
        parent = Parent(instance.instance_id, self._executions[instance.instance_id], action.id)
        self._create(create.instanceId, create.name, text, version=version, parent=parent)

    @override
    def _watch_sub_orchestration(self, parent_instance_id: str, sub_instance_id: str, task_id: int) -> None:
        """Called when a parent is rewound."""
        self._parents[sub_instance_id] = Parent(parent_instance_id, self._executions[parent_instance_id], task_id)
        child = self._instances.get(sub_instance_id)
        if child is not None and child.status in FINISHED:
            self._report_to_parent(child)

    @override
    def _process_send_entity_message_action(
        self, instance: OrchestrationInstance, action: pb.OrchestratorAction
    ) -> None:
        raise NotImplementedError("This host has no durable entities.")

    # Instances

    def _create(
        self,
        instance_id: str,
        name: str,
        text: str | None,
        *,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        start_at: datetime | None = None,
        parent: Parent | None = None,
    ) -> None:
        """Creates an instance, or replaces the one with its id, and queues its first turn."""
        former = self._instances.get(instance_id)
        if former is not None:
            self._leases.pop(str(former.completion_token), None)
            self._orchestration_in_flight.discard(instance_id)
        self._parents.pop(instance_id, None)
        self._delayed.discard(instance_id)
        now = self._timers.now()
        instance = OrchestrationInstance(
            instance_id=instance_id,
            name=name,
            status=pb.ORCHESTRATION_STATUS_PENDING,
            version=version,
            input=text,
            created_at=now,
            last_updated_at=now,
            completion_token=self._new_token(),
            tags=tags or None,
        )
        instance.pending_events = [
            helpers.new_orchestrator_started_event(now),
            helpers.new_execution_started_event(name, instance_id, text, tags or None, version=version),
        ]
        self._instances[instance_id] = instance
        if parent is not None:
            self._parents[instance_id] = parent
        execution = self._open_execution(instance, parent)
        if start_at is None or start_at <= now:
            self._enqueue_orchestration(instance_id)
            return

        def begin() -> None:
            if self._executions.get(instance_id) == execution:
                self._delayed.discard(instance_id)
                instance.pending_events[0].timestamp.FromDatetime(self._timers.now())
                self._enqueue_orchestration(instance_id)

        self._delayed.add(instance_id)
        self._timers.at(start_at, begin)

    def _open_execution(self, instance: OrchestrationInstance, parent: Parent | None) -> str:
        """Gives the instance a new execution id, and its first events the ids and the time of the engine."""
        execution = uuid.uuid4().hex
        self._executions[instance.instance_id] = execution
        started, execution_started = instance.pending_events[0], instance.pending_events[1].executionStarted
        started.timestamp.FromDatetime(self._timers.now())
        execution_started.orchestrationInstance.executionId.value = execution
        if parent is not None:
            source = self._instances.get(parent.instance_id)
            execution_started.parentInstance.CopyFrom(parent.info(source.name if source is not None else ""))
        return execution

    def _report_to_parent(self, child: OrchestrationInstance) -> None:
        parent = self._parents.pop(child.instance_id, None)
        if parent is not None:
            self._deliver(parent.instance_id, parent.execution, parent.told_of(child))

    # Waiting

    def _wait(
        self,
        request: pb.GetInstanceRequest,
        context: ServicerContext,
        predicate: Callable[[OrchestrationInstance], bool],
    ) -> pb.GetInstanceResponse:
        waiter = StateWaiter(predicate=predicate)
        self._hold_thread(context)
        try:
            with self._lock:
                instance = self._instances.get(request.instanceId)
                if instance is not None and predicate(instance):
                    return self._build_instance_response(instance, request.getInputsAndOutputs)
                self._state_waiters.setdefault(request.instanceId, []).append(waiter)
            # Without a deadline a call waits as long as its client is connected (B1: not for 30 s).
            if context.add_callback(waiter.event.set):
                waiter.event.wait(context.time_remaining())
        finally:
            self._blocked.release()
            with self._lock:
                waiters = self._state_waiters.get(request.instanceId, [])
                if waiter in waiters:
                    waiters.remove(waiter)
                if not waiters:
                    self._state_waiters.pop(request.instanceId, None)
        if waiter.result is not None:
            return self._build_instance_response(waiter.result, request.getInputsAndOutputs)
        with self._lock:
            if request.instanceId in self._instances:
                context.abort(StatusCode.DEADLINE_EXCEEDED, f"Instance '{request.instanceId}' is not there yet.")
        return pb.GetInstanceResponse(exists=False)

    def _hold_thread(self, context: ServicerContext) -> None:
        if not self._blocked.acquire(blocking=False):
            context.abort(StatusCode.RESOURCE_EXHAUSTED, f"More than {_BLOCKED_THREADS} workers and waiting clients.")

    def _announce(self) -> None:
        self._work.notify_all()
        for listener in self._listeners:
            listener()

    def _wake(self) -> None:
        with self._lock:
            self._work.notify_all()

    def _new_token(self) -> int:
        token = self._next_completion_token
        self._next_completion_token += 1
        return token
