"""The restart of a machine apart from its installation, as a part of its orchestrator."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from durabletask import task

from orchestrators.names import RESTART_MACHINE
from orchestrators.operation import PutBack
from orchestrators.patience import Patience
from orchestrators.retries import RETRY_RESULT
from orchestrators.waits import Waits
from patchwave.domain.workflow.messages import MachineRef, PowerResult

MOST_LOOKS = 60
"""How often the restart is refused for a passing reason before it is given up; throttling is none that counts."""


def restart(
    context: task.OrchestrationContext, machine: MachineRef, waits: Waits
) -> Generator[task.Task[Any], Any, PowerResult | PutBack | None]:
    """Restart the machine and wait until Azure says that it is done; the last answer when that did not work.

    ``PutBack`` when nothing was sent, because a person or a gate says that nothing may be.

    Waiting matters: until the machine goes down its agent still counts as ready.
    """
    request = machine.to_wire()
    patience = Patience(context, MOST_LOOKS)
    while True:
        answer = yield context.call_activity(RESTART_MACHINE, input=request, retry_policy=RETRY_RESULT)
        result = PowerResult.from_wire(answer)
        if result.accepted:
            return None
        if result.left:
            return PutBack()
        pause = patience.pause(result.wait_seconds, counts=result.counts) if result.wait_seconds else None
        if pause is None:
            return result
        yield from waits.wait(pause)
