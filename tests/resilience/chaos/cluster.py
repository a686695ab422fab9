"""Two workers in one process: the app's own functions on the embedded host's engine, killed and started again.

A worker is what its process would be: it has clients and caches of its own, and everything that it was doing ends with
it. A killed worker sends nothing more, whatever its code still tries to do on the way out.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, cast
from unittest.mock import patch

import grpc
from azure.durable_functions.worker import DurableFunctionsWorker
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf import wrappers_pb2

from local.functions_host.durable.engine import FINISHED, Engine
from patchwave.azure.clients import PerLoop
from patchwave.settings import Settings
from tests.resilience.chaos.fault_schedule import FaultSchedule
from tests.resilience.chaos.virtual_time import LoopTimers, VirtualLoop
from tests.support.function_index import registered

_MAX_ITEMS = 20
_RESTART_SECONDS = (1.0, 40.0)
_LATENCY_SECONDS = (0.005, 0.5)

_functions: dict[str, Callable[[Any], Any]] = {
    name: function.get_user_function() for name, function in registered().items()
}
_current: ContextVar[Worker] = ContextVar("worker")


class Worker:
    """One life of a worker process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.clients: dict[int, Any] = {}
        self.tasks: set[asyncio.Task[None]] = set()


async def travel(fault_schedule: FaultSchedule) -> None:
    """The way of a request or an answer. What a worker sends that was killed meanwhile never arrives."""
    await asyncio.sleep(fault_schedule.source.uniform(*_LATENCY_SECONDS))
    if _current.get().is_dead:
        raise asyncio.CancelledError


class Cluster:
    """The engine and its workers. ``async with`` starts the workers and their ends."""

    def __init__(self, loop: VirtualLoop, fault_schedule: FaultSchedule, *, workers: int = 2) -> None:
        self.engine = Engine()
        self.engine._timers = LoopTimers(loop, self.engine._lock)  # pyright: ignore[reportAttributeAccessIssue] - the same three methods
        self.kills = 0
        self.doubled = 0
        self._loop = loop
        self._weather = fault_schedule
        self._size = workers
        self._made = 0
        self._workers: list[Worker] = []
        self._is_waking = False
        self._library = DurableFunctionsWorker()
        self._clients = patch.multiple(PerLoop, get=_client_of_worker, pop=lambda _: None)

    async def __aenter__(self) -> Cluster:
        # The client that starts the run is in a process of its own as well.
        _current.set(Worker("outside"))
        self._clients.start()
        self.engine.subscribe(self._wake)
        for _ in range(self._size):
            self._begin()
        for moment in self._weather.kills:
            self._loop.call_at(moment, self._kill)
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.is_dead = True
        tasks = [task for worker in self._workers for task in worker.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._clients.stop()

    # --- a durable client, as triggers have it

    async def schedule_new_orchestration(
        self, orchestrator: str, /, *, input: object, instance_id: str, version: str | None = None
    ) -> str:
        """Start an instance; the runs of a schedule never meet."""
        request = pb.CreateInstanceRequest(
            instanceId=instance_id,
            name=orchestrator,
            input=wrappers_pb2.StringValue(value=json.dumps(input)),
            version=None if version is None else wrappers_pb2.StringValue(value=version),
        )
        # The context of the call is asked only to refuse an instance that lives.
        self.engine.StartInstance(request, cast("grpc.ServicerContext", None))
        return instance_id

    async def raise_orchestration_event(self, instance_id: str, event_name: str, *, data: object = None) -> None:
        """No control command is sent to the run of a schedule."""
        raise NotImplementedError

    async def get_orchestration_state(self, instance_id: str) -> object:
        """The instance, or ``None``."""
        return self.engine._instances.get(instance_id)

    def has_ended(self, instance_id: str) -> bool:
        """Whether an orchestration is over."""
        return self.engine._instances[instance_id].status in FINISHED

    # --- workers

    def _begin(self) -> None:
        self._made += 1
        self._workers.append(Worker(f"worker-{self._made}"))
        self._wake()

    def _kill(self) -> None:
        if not self._workers:
            return
        worker = self._weather.source.choice(self._workers)
        self._workers.remove(worker)
        worker.is_dead = True
        for task in worker.tasks:
            task.cancel()
        self.engine.release_worker(worker.name)
        self.kills += 1
        self._loop.call_later(self._weather.source.uniform(*_RESTART_SECONDS), self._begin)

    def _wake(self) -> None:
        if not self._is_waking:
            self._is_waking = True
            self._loop.call_soon(self._hand_out)

    def _hand_out(self) -> None:
        self._is_waking = False
        while free := [worker for worker in self._workers if len(worker.tasks) < _MAX_ITEMS]:
            worker = self._weather.source.choice(free)
            item = self.engine.next_work_item(worker.name)
            if item is None:
                return
            context = copy_context()
            context.run(_current.set, worker)
            task = self._loop.create_task(self._carry(item), context=context)
            worker.tasks.add(task)
            task.add_done_callback(lambda done, owner=worker: self._is_free(owner, done))

    def _is_free(self, worker: Worker, done: asyncio.Task[None]) -> None:
        worker.tasks.discard(done)
        if not done.cancelled():
            done.result()
        self._wake()

    async def _carry(self, item: pb.WorkItem) -> None:
        fault_schedule = self._weather
        await travel(fault_schedule)
        if item.HasField("orchestratorRequest"):
            response = self._turn(item)
        else:
            if fault_schedule.source.random() < fault_schedule.twice:
                # The lease of the message ran out: another worker gets it while this one works on.
                self.doubled += 1
                self._loop.call_later(fault_schedule.source.uniform(0, 2), self.engine.abandon, item.completionToken)
            response = await self._activity(item)
            if fault_schedule.source.random() < fault_schedule.late:
                await asyncio.sleep(fault_schedule.source.uniform(1, 90))
        await travel(fault_schedule)
        self.engine.complete(response)

    def _turn(self, item: pb.WorkItem) -> pb.OrchestratorResponse:
        request = item.orchestratorRequest
        name = next(
            event.executionStarted.name
            for events in (request.pastEvents, request.newEvents)
            for event in events
            if event.HasField("executionStarted")
        )
        orchestrator: Any = _functions[name]
        # The function itself would take this to another thread, and threads have no seed.
        answer = self._library.execute_orchestration_request(
            orchestrator.orchestrator_function, base64.b64encode(request.SerializeToString()).decode()
        )
        response = pb.OrchestratorResponse.FromString(base64.b64decode(answer))
        response.completionToken = item.completionToken
        return response

    async def _activity(self, item: pb.WorkItem) -> pb.ActivityResponse:
        request = item.activityRequest
        response = pb.ActivityResponse(
            instanceId=request.orchestrationInstance.instanceId,
            taskId=request.taskId,
            completionToken=item.completionToken,
        )
        try:
            result = await _functions[request.name](json.loads(request.input.value))
        except Exception as error:
            # What an activity raises is its failure, as the worker library tells the host.
            response.failureDetails.CopyFrom(
                pb.TaskFailureDetails(errorType=type(error).__name__, errorMessage=str(error))
            )
        else:
            response.result.CopyFrom(wrappers_pb2.StringValue(value=json.dumps(result)))
        return response


def _client_of_worker(clients: Any, settings: Settings | None = None) -> Any:
    """In the place of `PerLoop.get`: workers share a loop here, and must share nothing else."""
    kept = _current.get().clients
    if id(clients) not in kept:
        kept[id(clients)] = clients._make(settings)
    return kept[id(clients)]


__all__ = ["Cluster", "travel"]
