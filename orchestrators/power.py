"""The power of a machine that was started for its patches, as a part of its orchestrator."""

from __future__ import annotations

from orchestrators.patience import Patience
from orchestrators.runtime import Context, Steps, call, utc_now
from orchestrators.waits import Waits
from patchwave.domain.machine.power import NotRestored, not_started, not_stopped
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.messages import MachineRef, PowerRequest, PowerResult, PreflightResult

MAX_POWER_LOOKS = 60
"""How often a start or stop is refused for a passing reason before it is given up. What Azure carries out has its
deadline in the activities, and throttling ends with the patience of a day."""


def power_request(context: Context, machine: MachineRef) -> PowerRequest:
    """A change of power that begins now."""
    return PowerRequest(run_id=machine.run_id, machine_key=machine.machine_key, since=utc_now(context))


def explain_start(look: PreflightResult, started: PowerResult) -> PreflightResult:
    """The look at a machine that could not be started, with the reason of Azure for that."""
    found = look.preflight.outcome
    if found is None:
        return look
    explained = look.preflight.model_copy(update={"outcome": not_started(found, started.failure)})
    return look.model_copy(update={"preflight": explained})


def put_power_back(context: Context, machine: MachineRef, waits: Waits) -> Steps[NotRestored | None]:
    """Stop it as it was before we started it, until the machine shows it; why that did not work, if it did not.

    Raises:
        TaskFailedError: the activity failed for good.
    """
    request = power_request(context, machine)
    patience = Patience(context, MAX_POWER_LOOKS)
    while True:
        stopped = yield from call(context, contracts.STOP_MACHINE, request)
        if stopped.accepted:
            return None
        pause = (
            patience.pause(stopped.wait_seconds, counts_as_attempt=stopped.counts_as_attempt)
            if stopped.wait_seconds
            else None
        )
        if pause is None:
            return not_stopped(stopped.failure, is_open=stopped.is_open)
        yield from waits.wait(pause)
