"""Dispatches durable work items to workers.

An orchestrator turn is one invocation of its function with a base64 ``OrchestratorRequest`` in and a base64
``OrchestratorResponse`` out; an activity is one invocation with JSON in and JSON out. Work items of a worker that
dies go back to the engine and are dispatched again (at least once, as in Azure).
"""

import asyncio
import base64
import logging
from itertools import chain

from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf import wrappers_pb2

from local.functions_host.bindings import Inputs
from local.functions_host.durable.engine import Engine
from local.functions_host.functions import ACTIVITY, ORCHESTRATION
from local.functions_host.host_json import HostJson
from local.functions_host.worker.pool import WorkerPool
from local.functions_host.worker.process import Input, Result, WorkerLost, WorkerProcess

log = logging.getLogger(__name__)


class Dispatcher:
    """Moves work items between an engine and a pool, within host.json's limits for the whole host."""

    def __init__(self, engine: Engine, pool: WorkerPool, settings: HostJson, inputs: Inputs) -> None:
        self._engine = engine
        self._pool = pool
        self._settings = settings
        self._inputs = inputs
        self._work = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = 0
        self._activities = 0

    async def run(self) -> None:
        """Runs until cancelled."""
        loop = asyncio.get_running_loop()
        self._engine.subscribe(lambda: loop.call_soon_threadsafe(self._work.set))
        while True:
            self._work.clear()
            self._hand_out()
            await self._work.wait()

    def wake(self) -> None:
        """There may be a worker that can take work again."""
        self._work.set()

    def _hand_out(self) -> None:
        while (worker := self._pool.least_busy()) is not None:
            item = self._engine.next_work_item(
                worker.name,
                orchestrations=self._turns < self._settings.max_orchestrators,
                activities=self._activities < self._settings.max_activities,
            )
            if item is None:
                return
            task = asyncio.create_task(self._carry(item, worker))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, item: pb.WorkItem, worker: WorkerProcess) -> None:
        is_turn = item.HasField("orchestratorRequest")
        self._turns += is_turn
        self._activities += not is_turn
        try:
            self._engine.complete(await (self._turn if is_turn else self._activity)(item, worker))
        except WorkerLost:
            log.info("%s ended with a work item in progress, which is dispatched again", worker.name)
        finally:
            self._turns -= is_turn
            self._activities -= not is_turn
            self._work.set()

    async def _turn(self, item: pb.WorkItem, worker: WorkerProcess) -> pb.OrchestratorResponse:
        request = item.orchestratorRequest
        text = base64.b64encode(request.SerializeToString()).decode()
        result = await self._invoke(worker, ORCHESTRATION, _orchestrator_name(request), "string", text)
        if isinstance(result, pb.TaskFailureDetails):
            return _failed_turn(item, result)
        response = pb.OrchestratorResponse()
        response.ParseFromString(base64.b64decode(str(result.value)))
        response.completionToken = item.completionToken
        return response

    async def _activity(self, item: pb.WorkItem, worker: WorkerProcess) -> pb.ActivityResponse:
        request = item.activityRequest
        response = pb.ActivityResponse(
            instanceId=request.orchestrationInstance.instanceId,
            taskId=request.taskId,
            completionToken=item.completionToken,
        )
        value = request.input.value if request.HasField("input") else "null"
        result = await self._invoke(worker, ACTIVITY, request.name, "json", value)
        if isinstance(result, pb.TaskFailureDetails):
            response.failureDetails.CopyFrom(result)
        else:
            text = str(result.value) if result.value is not None else "null"
            response.result.CopyFrom(wrappers_pb2.StringValue(value=text))
        return response

    async def _invoke(
        self, worker: WorkerProcess, trigger: str, name: str, kind: str, value: str
    ) -> Result | pb.TaskFailureDetails:
        """Runs a durable function by its name; ``WorkerLost`` when the worker ends first."""
        function = self._pool.functions.durable(trigger, name)
        if function is None:
            word = "orchestrator" if trigger == ORCHESTRATION else "activity"
            return _failure("FunctionNotFound", f"The {word} function '{name}' does not exist.", final=True)
        inputs = [Input(function.trigger["name"], kind, value), *self._inputs.extra(function)]
        limit = self._settings.function_timeout
        try:
            result = await worker.invoke(function.id, inputs, timeout=None if limit is None else limit.total_seconds())
        except TimeoutError:
            message = f"Timeout value of {limit} was exceeded by function: {name}"
            log.error("%s", message)
            return _failure("FunctionTimeoutException", message)
        return result if result.ok else _from_error(result.error)


def _orchestrator_name(request: pb.OrchestratorRequest) -> str:
    events = chain(request.pastEvents, request.newEvents)
    return next((event.executionStarted.name for event in events if event.HasField("executionStarted")), "")


def _failure(kind: str, message: str, *, final: bool = False) -> pb.TaskFailureDetails:
    return pb.TaskFailureDetails(errorType=kind, errorMessage=message, isNonRetriable=final)


def _from_error(error: str) -> pb.TaskFailureDetails:
    """``Type: message`` as the Durable extension splits it; text without a colon is all message."""
    kind, separator, message = error.partition(": ")
    return _failure(kind.strip(), message) if separator else _failure("Exception", error)


def _failed_turn(item: pb.WorkItem, failure: pb.TaskFailureDetails) -> pb.OrchestratorResponse:
    log.error("instance '%s' fails: %s", item.orchestratorRequest.instanceId, failure.errorType)
    action = helpers.new_complete_orchestration_action(
        -1, pb.ORCHESTRATION_STATUS_FAILED, None, failure_details=failure
    )
    return pb.OrchestratorResponse(
        instanceId=item.orchestratorRequest.instanceId, completionToken=item.completionToken, actions=[action]
    )
