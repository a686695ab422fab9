"""Checks whether a machine is ready for a step, and starts one that is stopped."""

from __future__ import annotations

from collections.abc import Callable

from orchestrators.power import MAX_POWER_POLLS, power_request
from orchestrators.retry_budget import RetryBudget
from orchestrators.runtime import Steps, call
from orchestrators.waits import Waits
from patchwave.domain.machine.power import not_started
from patchwave.domain.machine.preflight import Readiness
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.machine import MachineRef, PowerResult, PreflightRequest, PreflightResult

MAX_POLLS = 6
"""Polls of a machine that is busy, booting, or locked, before it is skipped."""
MAX_BOOT_POLLS = 20
"""The same for a machine that was just started: Windows boots slowly."""


class Preflight:
    """The checks of one machine before a step. ``is_too_late``: nothing is waited for or started any more."""

    def __init__(self, machine: MachineRef, waits: Waits, is_too_late: Callable[[], bool] = lambda: False) -> None:
        self._machine = machine
        self._waits = waits
        self._is_too_late = is_too_late

    def check(self, *, may_start: bool = False, max_polls: int = MAX_POLLS) -> Steps[PreflightResult]:
        """Poll until the machine is ready or cannot become ready; transient states get time to pass."""
        request = PreflightRequest(
            run_id=self._machine.run_id, machine_key=self._machine.machine_key, start_stopped=may_start
        )

        def is_done(checked: PreflightResult) -> bool:
            return checked.preflight.readiness is not Readiness.WAIT or self._is_too_late()

        return (yield from self._waits.poll(contracts.PREFLIGHT_MACHINE, request, max_polls, is_done))

    def start(self) -> Steps[tuple[PreflightResult, PowerResult]]:
        """Start the machine and wait for its agent; returns the last check and the result of the last call.

        The call is repeated when it was lost or refused. If a user stops the machine while it boots, it stays stopped.
        """
        request = power_request(self._waits.context, self._machine)
        retries = RetryBudget(self._waits.context, MAX_POWER_POLLS)
        while True:
            started = yield from call(self._waits.context, contracts.START_MACHINE, request)
            pause = retries.pause(started) if started.wait_seconds else None
            if pause is None or self._is_too_late():
                break
            yield from self._waits.wait(pause)
            # Check before each call: it extends the lease, and the run may have been stopped.
            checked = yield from self.check(may_start=True, max_polls=1 if started.accepted else MAX_POLLS)
            is_booting = started.accepted and checked.preflight.readiness is Readiness.WAIT
            if is_booting and not self._is_too_late():
                yield from self._waits.wait(checked.wait_seconds)
                return (yield from self.check(max_polls=MAX_BOOT_POLLS)), started
            if checked.preflight.readiness is not Readiness.NEEDS_START:
                return checked, started
            if self._is_too_late():
                break
        # The machine is still stopped; Azure gave the reason.
        return explain_start((yield from self.check(max_polls=1)), started), started


def explain_start(checked: PreflightResult, started: PowerResult) -> PreflightResult:
    """The check of a machine that could not be started, with Azure's reason."""
    outcome = checked.preflight.outcome
    reason = None if outcome is None else not_started(outcome, started.failure)
    preflight = checked.preflight.model_copy(update={"outcome": reason})
    return checked.model_copy(update={"preflight": preflight, "requeued": checked.requeued or started.requeued})
