"""The separate restart of a patched machine."""

from __future__ import annotations

from orchestrators.operation import Requeue
from orchestrators.retry_budget import RetryBudget
from orchestrators.runtime import Context, Steps, call
from orchestrators.waits import Waits
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.machine import MachineRef, PowerResult

MAX_POLLS = 60
"""Transient refusals of the restart before it fails; throttling does not count."""


def restart(context: Context, machine: MachineRef, waits: Waits) -> Steps[PowerResult | Requeue | None]:
    """Restart the machine and wait until Azure reports that it is done; the last result when that failed.

    ``Requeue`` when nothing was sent, because the controls block it.

    The wait matters: until the machine goes down its agent still reports ready.
    """
    retries = RetryBudget(context, MAX_POLLS)
    while True:
        result = yield from call(context, contracts.RESTART_MACHINE, machine)
        if result.accepted:
            return None
        if result.requeued:
            return Requeue()
        pause = retries.pause(result) if result.wait_seconds else None
        if pause is None:
            return result
        yield from waits.wait(pause)
