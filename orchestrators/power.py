"""The power of a machine that was started for its patches, as a part of its orchestrator."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durabletask import task

from domain.work import MachineRef, PowerResult
from orchestrators.names import STOP_MACHINE
from orchestrators.retries import RETRY_RESULT

MOST_START_CALLS = 6
MOST_STOP_CALLS = 12
"""How often Azure is asked to start a stopped machine, and to put its power back: calls may get lost on their way, or
be refused for a passing reason, and repeating them does no harm."""


def put_power_back(context: task.OrchestrationContext, machine: MachineRef) -> Generator[task.Task[Any], Any, str]:
    """Stop it as it was before we started it; the sentence that says why that did not work, empty when it did.

    Raises:
        TaskFailedError: the activity failed for good.
    """
    stops = 0
    while True:
        answer = yield context.call_activity(STOP_MACHINE, input=machine.to_wire(), retry_policy=RETRY_RESULT)
        stopped = PowerResult.from_wire(answer)
        stops += 1
        if stopped.accepted:
            return ""
        if not stopped.wait_seconds or stops >= MOST_STOP_CALLS:
            reason = stopped.failure.text if stopped.failure else "Azure did not take the call"
            return f"It was started for this and could not be stopped again: {reason}."
        yield context.create_timer(timedelta(seconds=stopped.wait_seconds))
