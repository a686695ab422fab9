"""What the hooks have in common: the reasons not to begin, and the result of a refused call."""

from __future__ import annotations

from activities.context import MachineContext, acquire_lease, locked_by, now, wait_seconds
from activities.window import frozen
from patchwave.domain.azure.errors import NO_ANSWER, ArmFailure, ErrorClass, classify, is_throttling
from patchwave.domain.machine.hooks import HookResult, HookState
from patchwave.domain.maintenance.occurrence import too_late_to_prepare
from patchwave.domain.policy.install import shortest_installation
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.outcome_rules import window_closed
from patchwave.domain.scheduling.window import cutoff
from patchwave.domain.workflow.start_blocker import start_blocker
from patchwave.settings import Settings

DONE = HookResult(state=HookState.DONE)
_REQUEUED = HookResult(state=HookState.REQUEUED)


async def reason_not_to_begin(context: MachineContext) -> HookResult | None:
    """Why no hook may begin on the machine, ``None`` if it may: the same reasons that block an installation.

    Extends the lease, which may have to last longer than the preflight expected.
    """
    refusal = start_blocker(context.run, context.machine)
    if refusal is not None:
        return _REQUEUED if refusal.outcome is None else HookResult.stopped(refusal.outcome)
    held = await frozen(context)
    if held is not None:
        return HookResult.stopped(held)
    late = too_late(context)
    if late is not None:
        return late
    holder = await acquire_lease(context)
    return None if holder is None else HookResult.stopped(locked_by(holder))


def too_late(context: MachineContext) -> HookResult | None:
    """The end when the window leaves no time for the installation, or Azure is about to begin its own."""
    occurrence = context.run.maintenance
    if occurrence is not None:
        return HookResult.stopped(too_late_to_prepare()) if now() >= occurrence.pre_deadline else None
    if context.is_before_window:
        return _REQUEUED
    os_type, end = OsType.read(context.machine.os_type), context.window_end
    if os_type is None or end is None or now() <= cutoff(end, context.policy.install, os_type):
        return None
    if context.policy.continues:
        return _REQUEUED
    return HookResult.stopped(window_closed(shortest_installation(context.policy.install, os_type)))


def refused_call(settings: Settings, what: str, failure: ArmFailure | None) -> HookResult:
    """The result of a refused call: retried after a transient failure, else failed."""
    failure = failure or NO_ANSWER
    verdict = classify(failure)
    message = f"{what}: {failure.clause}."
    if is_throttling(failure):
        return HookResult.wait(wait_seconds(settings, failure.retry_after), message, counts_as_attempt=False)
    match verdict.kind:
        case ErrorClass.RETRY_LATER | ErrorClass.BUSY:
            return HookResult.wait(wait_seconds(settings, failure.retry_after, polls=2), message)
        case ErrorClass.FORBIDDEN:
            return HookResult.failed(f"{what}: {verdict.to_outcome(failure).message}")
        case _:
            return HookResult.failed(message)
