"""Tools of orchestrators: typed calls by contract, signals, the orchestration's clock, and retries.

Expected failures of Azure are values. An exception of an activity means that storage or the worker failed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from typing import Any

from durabletask import task

from patchwave.domain.workflow.contracts import Activity, Orchestration, Signal

type Context = task.OrchestrationContext
type Steps[Result] = Generator[task.Task[Any], Any, Result]
"""A part of an orchestrator: a generator that yields tasks to the engine and is replayed from history."""
type DurableFunction = Callable[[Context, Any], Generator[task.Task[Any], Any, Any]]

MAX_TIMER = timedelta(days=1)
"""The Functions extension cannot cancel timers of more than six days, so long waits are split."""
RETRY = task.RetryPolicy(
    first_retry_interval=timedelta(seconds=2),
    max_number_of_attempts=5,
    backoff_coefficient=2,
    max_retry_interval=timedelta(minutes=1),
)
RETRY_RESULT = task.RetryPolicy(
    first_retry_interval=timedelta(seconds=2),
    max_number_of_attempts=12,
    backoff_coefficient=2,
    max_retry_interval=timedelta(minutes=2),
)
"""For the activities of a run: an outage of a quarter of an hour must lose no result."""


def implements[Request, Result](
    contract: Orchestration[Request, Result],
) -> Callable[[Callable[[Context, Request], Steps[Result | None]]], DurableFunction]:
    """Register a typed orchestrator as the durable function of its contract. ``None``: it continues as new."""

    def durable(orchestrator: Callable[[Context, Request], Steps[Result | None]]) -> DurableFunction:
        # The library recognizes native orchestrators by these two parameters.
        def run(context: Context, data: Any) -> Generator[task.Task[Any], Any, Any]:
            result = yield from orchestrator(context, contract.request.decode(data))
            return None if result is None else contract.result.encode(result)

        run.__name__ = contract.name
        run.__doc__ = orchestrator.__doc__
        return run

    return durable


def schedule[Request, Result](
    context: Context, activity: Activity[Request, Result], request: Request, retry: task.RetryPolicy = RETRY_RESULT
) -> task.Task[Any]:
    """Schedule an activity without waiting; its task has the result as plain JSON."""
    return context.call_activity(activity.name, input=activity.request.encode(request), retry_policy=retry)


def call[Request, Result](context: Context, activity: Activity[Request, Result], request: Request) -> Steps[Result]:
    """Call an activity and wait for its result.

    Raises:
        TaskFailedError: it failed for good.
    """
    return activity.result.decode((yield schedule(context, activity, request)))


def start[Request, Result](
    context: Context, orchestration: Orchestration[Request, Result], request: Request, instance_id: str
) -> task.Task[Any]:
    """Start a child of the same version; its task has the result as plain JSON."""
    return context.call_sub_orchestrator(
        orchestration.name,
        input=orchestration.request.encode(request),
        instance_id=instance_id,
        version=context.version,
    )


def continue_as_new[Request, Result](
    context: Context, orchestration: Orchestration[Request, Result], state: Request, *, keep_signals: bool = False
) -> None:
    """End this execution; the next one begins with ``state``."""
    context.continue_as_new(orchestration.request.encode(state), save_events=keep_signals)


def receive(context: Context, signal: Signal) -> task.Task[Any]:
    """A task that completes when the signal comes."""
    return context.wait_for_external_event(signal.value)


def send(context: Context, instance_id: str, signal: Signal) -> None:
    """Send a signal to another instance."""
    context.send_event(instance_id, signal.value)


def utc_now(context: Context) -> datetime:
    """The time of this turn, equal in every replay; the engine omits the zone, which is UTC."""
    moment = context.current_utc_datetime
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def timer_until(context: Context, until: datetime) -> task.CancellableTask[Any]:
    """A timer that fires at ``until``, or after a day if that is earlier."""
    left = until - utc_now(context)
    return context.create_timer(max(timedelta(seconds=1), min(left, MAX_TIMER)))
