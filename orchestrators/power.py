"""Restores the power state of a machine that was started for its patches."""

from __future__ import annotations

from orchestrators.retry_budget import RetryBudget
from orchestrators.runtime import Context, Steps, call, utc_now
from orchestrators.waits import Waits
from patchwave.domain.machine.power import NotRestored, not_started, not_stopped
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.machine import MachineRef, PowerRequest, PowerResult, PreflightResult

MAX_POWER_POLLS = 60
"""Transient refusals of a start or stop before it fails. Accepted changes have a deadline in the activities, and
throttling ends after a day."""


def power_request(context: Context, machine: MachineRef) -> PowerRequest:
    """A power change that begins now."""
    return PowerRequest(run_id=machine.run_id, machine_key=machine.machine_key, since=utc_now(context))


def explain_start(look: PreflightResult, started: PowerResult) -> PreflightResult:
    """The preflight result of a machine that could not be started, with Azure's reason."""
    found = look.preflight.outcome
    if found is None:
        return look
    explained = look.preflight.model_copy(update={"outcome": not_started(found, started.failure)})
    return look.model_copy(update={"preflight": explained})


def restore_power(context: Context, machine: MachineRef, waits: Waits) -> Steps[NotRestored | None]:
    """Stop the machine that the run started, until it shows that; the reason when that failed.

    Raises:
        TaskFailedError: the activity failed for good.
    """
    request = power_request(context, machine)
    retries = RetryBudget(context, MAX_POWER_POLLS)
    while True:
        stopped = yield from call(context, contracts.STOP_MACHINE, request)
        if stopped.accepted:
            return None
        pause = retries.pause(stopped) if stopped.wait_seconds else None
        if pause is None:
            return not_stopped(stopped.failure, is_open=stopped.is_open)
        yield from waits.wait(pause)
