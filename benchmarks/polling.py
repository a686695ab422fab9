"""M1 and M2: what waiting for one operation replays, by how often it is polled.

The real orchestrator runs on the real engine with a poll that answers "still running" until its last time; durable
timers take no time. Nothing is estimated: the engine counts the past events of every turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from durabletask.client import OrchestrationStatus

from local.functions_host.durable.workbench import Workbench
from orchestrators.operation import await_operation
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.operation import AwaitOperation, OperationReport, OperationState

POLLS = (60, 120, 240, 480, 960)
_TIMEOUT_SECONDS = 300


def replayed_events(polls: int) -> int:
    """Past events of all turns of an operation that ends at so many polls.

    Raises:
        RuntimeError: the orchestration did not end well, or polled another number of times.
    """
    asked = 0

    def poll(_: Any) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked < polls:
            return OperationReport(state=OperationState.RUNNING, wait_seconds=30).to_wire()
        return OperationReport(state=OperationState.ENDED).to_wire()

    follow = AwaitOperation(run_id="bench", machine_key="m", kind=OperationKind.INSTALL)
    with Workbench([await_operation], {contracts.POLL_OPERATION.name: poll}) as workbench:
        ended = workbench.run(contracts.AWAIT_OPERATION.name, follow.to_wire(), timeout=_TIMEOUT_SECONDS)
        counts: dict[str, Any] = workbench.engine.measure()["orchestrators"][contracts.AWAIT_OPERATION.name]
    if ended.status is not OrchestrationStatus.COMPLETED or asked != polls:
        raise RuntimeError(f"{polls} polls: {ended.status.name} after {asked}")
    return int(counts["replayedEvents"])


def measure(polls: Sequence[int] = POLLS) -> dict[str, int]:
    """Replayed events by number of polls."""
    return {str(each): replayed_events(each) for each in polls}
