"""await_operation: follow one long-running operation with durable timers until it ends."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durabletask import task

from domain.work import AwaitOperation, OperationRef, OperationReport, OperationState
from orchestrators.names import POLL_OPERATION
from orchestrators.retries import RETRY_RESULT

POLLS_PER_GENERATION = 10
"""Replay costs 8K+4 events per poll when a generation holds K polls; without generations 8P+4, for all P polls."""


def await_operation(
    context: task.OrchestrationContext, data: dict[str, Any]
) -> Generator[task.Task[Any], Any, dict[str, Any] | None]:
    """Poll until the operation has ended, is lost, is past its deadline, or the run was stopped.

    Input ``AwaitOperation``, output ``OperationReport``. Nothing of the operation is kept here: its URLs are signed
    and stay in the intent row, its result is stored by the poll that saw it.
    """
    operation = AwaitOperation.from_wire(data)
    target = OperationRef(run_id=operation.run_id, machine_key=operation.machine_key, kind=operation.kind).to_wire()
    for _ in range(POLLS_PER_GENERATION):
        answer = yield context.call_activity(POLL_OPERATION, input=target, retry_policy=RETRY_RESULT)
        report = OperationReport.from_wire(answer)
        if report.state is not OperationState.RUNNING:
            return report.to_wire()
        yield context.create_timer(timedelta(seconds=report.wait_seconds))
    polls = operation.polls + POLLS_PER_GENERATION
    context.continue_as_new(operation.model_copy(update={"polls": polls}).to_wire(), save_events=True)
    return None
