"""Runs orchestrators of the app with fake activities, on the real engine and the codec of Azure Functions.

    with Workbench([patch_machine, await_operation], {"assess": lambda value: {...}}) as bench:
        ended = bench.run("patch_machine", {"machine": "..."})
        assert ended.output == {...}

Durable timers take no time: when nothing runs, the engine's clock jumps to the next timer.
"""

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, cast

from azure.durable_functions.internal.serialization import FunctionsDataConverter
from durabletask import task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.grpc_options import GrpcChannelOptions
from durabletask.history import HistoryEvent
from durabletask.worker import ConcurrencyOptions, TaskHubGrpcWorker

from local.functions_host.durable.engine import Engine

type FakeActivity = Callable[[Any], Any]

_CHANNEL = GrpcChannelOptions(max_receive_message_length=-1, max_send_message_length=-1)


@dataclass(frozen=True, slots=True)
class WorkflowResult:
    """The end of an orchestration: its status, its output as JSON values, its failure, and its history."""

    instance_id: str
    status: OrchestrationStatus
    output: Any
    failure: task.FailureDetails | None
    history: list[HistoryEvent]


class Workbench:
    """An engine with one gRPC worker on it.

    Args:
        orchestrators: generator functions ``(context, input)``, plain or decorated for a function app, by name or
            as a list (then their own names count).
        activities: fakes by name: called with the input as JSON values; may be coroutine functions; an exception
            fails the activity.
        skip_time: whether durable timers take no time.
        max_history_size: see ``Engine``.
    """

    def __init__(
        self,
        orchestrators: Iterable[Any] | Mapping[str, Any],
        activities: Mapping[str, FakeActivity] | None = None,
        *,
        skip_time: bool = True,
        max_history_size: int = 10_000,
    ) -> None:
        self.engine = Engine(skip_time=skip_time, max_history_size=max_history_size)
        self._calls: list[tuple[str, Any]] = []
        self._calls_lock = threading.Lock()
        self._named = _by_name(orchestrators)
        self._fakes = dict(activities or {})
        self._worker: TaskHubGrpcWorker | None = None
        self._client: TaskHubGrpcClient | None = None

    def __enter__(self) -> Self:
        address = self.engine.start()
        logger = logging.getLogger("durabletask.workbench")
        logger.setLevel(logging.ERROR)
        worker = TaskHubGrpcWorker(
            host_address=address,
            data_converter=FunctionsDataConverter(),
            channel_options=_CHANNEL,
            concurrency_options=ConcurrencyOptions(maximum_thread_pool_workers=16),
            logger=logger,
            emit_trace_spans=False,
        )
        registry = worker._registry  # pyright: ignore[reportPrivateUsage] - names are not public in 1.12.0
        for name, orchestrator in self._named.items():
            registry.add_named_orchestrator(name, orchestrator)
        for name, fake in self._fakes.items():
            registry.add_named_activity(name, self._recorded(name, fake))
        worker.start()
        self._worker = worker
        self._client = TaskHubGrpcClient(
            host_address=address,
            data_converter=FunctionsDataConverter(),
            channel_options=_CHANNEL,
            logger=logger,
            emit_trace_spans=False,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
        if self._worker is not None:
            # Stopping takes a second, in which the worker's queues time out; there is no need to wait for it.
            stop = threading.Thread(target=self._worker.stop, name="workbench-stop", daemon=True)
            stop.start()
            stop.join(timeout=0.05)
        self.engine.stop()

    @property
    def client(self) -> TaskHubGrpcClient:
        """A durable client: raise events, terminate, query."""
        if self._client is None:
            raise RuntimeError("The workbench is not open: use it in a with statement.")
        return self._client

    def now(self) -> datetime:
        """The engine's time, which durable timers advance."""
        return self.engine.now()

    def start(self, name: str, value: Any = None, *, instance_id: str | None = None) -> str:
        """Starts an orchestration and returns its instance id."""
        return self.client.schedule_new_orchestration(name, input=value, instance_id=instance_id)

    def wait(self, instance_id: str, *, timeout: int = 60) -> WorkflowResult:
        """Waits until an instance has ended; TimeoutError after ``timeout`` seconds."""
        state = self.client.wait_for_orchestration_completion(instance_id, timeout=timeout)
        if state is None:
            raise LookupError(f"No instance '{instance_id}'.")
        return WorkflowResult(
            instance_id=instance_id,
            status=state.runtime_status,
            output=state.get_output(),
            failure=state.failure_details,
            history=self.client.get_orchestration_history(instance_id),
        )

    def run(self, name: str, value: Any = None, *, instance_id: str | None = None, timeout: int = 60) -> WorkflowResult:
        return self.wait(self.start(name, value, instance_id=instance_id), timeout=timeout)

    def calls_of(self, name: str) -> list[Any]:
        """The inputs that a fake activity was called with, in order."""
        with self._calls_lock:
            return [value for called, value in self._calls if called == name]

    def _recorded(self, name: str, fake: FakeActivity) -> task.Activity[Any, Any]:
        def activity(_: task.ActivityContext, value: Any = None) -> Any:
            with self._calls_lock:
                self._calls.append((name, value))
            result = fake(value)
            return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result

        return activity


async def _awaited(result: Any) -> Any:
    return await result


def _by_name(orchestrators: Iterable[Any] | Mapping[str, Any]) -> dict[str, task.Orchestrator[Any, Any]]:
    if isinstance(orchestrators, Mapping):
        named = cast(Mapping[str, Any], orchestrators)
        return {name: _plain(function) for name, function in named.items()}
    plain = [_plain(function) for function in orchestrators]
    return {cast(str, function.__name__): function for function in plain}


def _plain(function: Any) -> Any:
    """The generator function inside a decorated one."""
    if hasattr(function, "build"):
        function = function.build().get_user_function()
    return getattr(function, "orchestrator_function", function)
