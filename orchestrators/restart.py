"""The restart of a machine apart from its installation, as a part of its orchestrator."""

from __future__ import annotations

from orchestrators.operation import Requeue
from orchestrators.patience import Patience
from orchestrators.runtime import Context, Steps, call
from orchestrators.waits import Waits
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.messages import MachineRef, PowerResult

MAX_LOOKS = 60
"""How often the restart is refused for a passing reason before it is given up; throttling is none that counts."""


def restart(context: Context, machine: MachineRef, waits: Waits) -> Steps[PowerResult | Requeue | None]:
    """Restart the machine and wait until Azure says that it is done; the last answer when that did not work.

    ``Requeue`` when nothing was sent, because a person or a gate says that nothing may be.

    Waiting matters: until the machine goes down its agent still counts as ready.
    """
    patience = Patience(context, MAX_LOOKS)
    while True:
        result = yield from call(context, contracts.RESTART_MACHINE, machine)
        if result.accepted:
            return None
        if result.requeued:
            return Requeue()
        pause = (
            patience.pause(result.wait_seconds, counts_as_attempt=result.counts_as_attempt)
            if result.wait_seconds
            else None
        )
        if pause is None:
            return result
        yield from waits.wait(pause)
