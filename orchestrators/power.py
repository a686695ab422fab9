"""Stops a machine that was started for its patches, and restarts a patched one."""

from __future__ import annotations

from orchestrators.operation import Requeue
from orchestrators.runtime import Context, Steps, utc_now
from orchestrators.waits import Waits
from patchwave.domain.machine.power import NotRestored, not_stopped
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.machine import MachineRef, PowerRequest, PowerResult

MAX_POWER_POLLS = 60
"""Transient refusals of a change of power before it fails. Accepted changes have a deadline in the activities, and
throttling ends after a day."""


def power_request(context: Context, machine: MachineRef) -> PowerRequest:
    """A power change that begins now."""
    return PowerRequest(run_id=machine.run_id, machine_key=machine.machine_key, since=utc_now(context))


def restore_power(machine: MachineRef, waits: Waits) -> Steps[NotRestored | None]:
    """Stop the machine that the run started, until it shows that; the reason when that failed.

    Raises:
        TaskFailedError: the activity failed for good.
    """
    request = power_request(waits.context, machine)
    stopped = yield from waits.poll(
        contracts.STOP_MACHINE, request, MAX_POWER_POLLS, lambda stopped: stopped.accepted or not stopped.wait_seconds
    )
    return None if stopped.accepted else not_stopped(stopped.failure, is_open=stopped.is_open)


def restart(machine: MachineRef, waits: Waits) -> Steps[PowerResult | Requeue | None]:
    """Restart the machine and wait until Azure reports that it is done; the last result when that failed.

    ``Requeue`` when nothing was sent, because the controls block it.

    The wait matters: until the machine goes down its agent still reports ready.
    """

    def is_done(result: PowerResult) -> bool:
        return result.accepted or result.requeued or not result.wait_seconds

    result = yield from waits.poll(contracts.RESTART_MACHINE, machine, MAX_POWER_POLLS, is_done)
    if result.accepted:
        return None
    return Requeue() if result.requeued else result
