"""One long-running operation on one machine: submitted until it is accepted or refused, then polled until it ends."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from orchestrators.retry_budget import RetryBudget
from orchestrators.runtime import Context, Steps, call, continue_as_new, implements, start
from orchestrators.waits import Waits
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary
from patchwave.domain.runs import outcome_rules
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.machine import MachineRef
from patchwave.domain.workflow.operation import (
    AwaitOperation,
    OperationReport,
    OperationState,
    StartOperation,
    StartResult,
    StartState,
)

POLLS_PER_EXECUTION = 10
"""Polls before continue-as-new. Bounds the history and the cost of its replays (docs/adr/0017-benchmark-method.md)."""
MAX_REFUSALS = 6
"""How often a busy machine is retried before it ends as busy."""
MAX_RESERVATION_WAIT = 300.0
"""Seconds that a reservation is waited for at most without a call: the call checks the controls again."""


class MachineResult(NamedTuple):
    """The machine's outcome, and whether an operation may still run in its guest."""

    outcome: Outcome
    installation: InstallationSummary | None = None
    keep_lease: bool = False


class Requeue(NamedTuple):
    """Nothing was sent, and nothing may be for now: the machine is requeued."""


def operate(
    machine: MachineRef, waits: Waits, kind: OperationKind, previous_activity_id: str, first_attempt: int = 1
) -> Steps[OperationReport | MachineResult | Requeue]:
    """Start one operation and follow it to its end.

    A failed assessment is retried after a transient failure; an installation never is: at most one accepted
    installation per machine and run (safety rule 1).
    """
    attempt = first_attempt
    while True:
        request = StartOperation(
            run_id=machine.run_id,
            machine_key=machine.machine_key,
            kind=kind,
            attempt=attempt,
            previous_activity_id=previous_activity_id,
        )
        submitted = yield from _submit(request, waits)
        if not isinstance(submitted, StartResult):
            return submitted
        report = submitted.report
        if report is None:
            follow = AwaitOperation(
                run_id=machine.run_id, machine_key=machine.machine_key, kind=kind, wait_seconds=submitted.wait_seconds
            )
            instance = instance_ids.operation(waits.context.instance_id, kind.value, attempt)
            ended = yield start(waits.context, contracts.AWAIT_OPERATION, follow, instance)
            report = contracts.AWAIT_OPERATION.result.decode(ended)
        failure = report.failure if report.state is OperationState.FAILED else None
        tries = attempt - first_attempt + 1
        if failure is None or kind is OperationKind.INSTALL or not outcome_rules.may_retry(failure, tries):
            return report
        attempt += 1
        yield from waits.wait(report.wait_seconds)


def assess(
    machine: MachineRef, waits: Waits, previous_activity_id: str, first_attempt: int = 1
) -> Steps[AssessmentSummary | MachineResult | Requeue]:
    """Assess the machine; its result when there is no assessment."""
    report = yield from operate(machine, waits, OperationKind.ASSESS, previous_activity_id, first_attempt)
    if isinstance(report, MachineResult | Requeue):
        return report
    if report.outcome is not None:
        return MachineResult(report.outcome)
    return report.assessment or unfinished(OperationKind.ASSESS, report)


def unfinished(kind: OperationKind, report: OperationReport) -> MachineResult:
    """The result of a machine whose operation brought no result.

    An assessment changes nothing in the guest and ends by itself, so it does not keep the machine's lease after a
    cancel.
    """
    match report.state:
        case OperationState.CANCELED if kind is OperationKind.ASSESS:
            return MachineResult(Outcome.canceled())
        case OperationState.CANCELED:
            return MachineResult(outcome_rules.left_running(), keep_lease=True)
        case OperationState.DEADLINE:
            return MachineResult(outcome_rules.past_deadline(), keep_lease=True)
        case OperationState.FAILED if report.failure is not None:
            return MachineResult(outcome_rules.failed(report.failure))
        case _:
            return MachineResult(outcome_rules.lost(report.failure), keep_lease=True)


@implements(contracts.AWAIT_OPERATION)
def await_operation(context: Context, operation: AwaitOperation) -> Steps[OperationReport | None]:
    """Poll until the operation has ended, is lost, is past its deadline, or the run was stopped.

    The operation's state stays outside of this history: its signed URLs are in the intent, and its result is stored
    by the poll that read it.
    """
    wait_seconds = operation.wait_seconds
    for _ in range(POLLS_PER_EXECUTION):
        if wait_seconds:
            yield context.create_timer(timedelta(seconds=wait_seconds))
        report = yield from call(context, contracts.POLL_OPERATION, operation)
        if report.state is not OperationState.RUNNING:
            return report
        wait_seconds = report.wait_seconds
    following = {"polls": operation.polls + POLLS_PER_EXECUTION, "wait_seconds": wait_seconds}
    continue_as_new(context, contracts.AWAIT_OPERATION, operation.model_copy(update=following))
    return None


def _submit(request: StartOperation, waits: Waits) -> Steps[StartResult | MachineResult | Requeue]:
    """Submit until Azure accepts or refuses. Throttling does not count as an attempt; a busy machine does.

    When the attempts are used up while the last POST may have been accepted, further calls only resolve that POST. The
    machine ends as busy when it certainly runs no operation of ours, and else keeps its lease.

    If a rate-limit slot was reserved, sleep until then and retry with it. Such waits do not count as attempts.
    """
    activity = contracts.ASSESS_MACHINE if request.kind is OperationKind.ASSESS else contracts.INSTALL_PATCHES
    retries = RetryBudget(waits.context, MAX_REFUSALS)
    while True:
        # A failed execution may have sent the POST that Azure accepted: only the next call can tell.
        started = yield from call(waits.context, activity, request)
        if started.state is StartState.ACCEPTED:
            return started
        if started.state is StartState.REQUEUED:
            return Requeue()
        if started.state is StartState.ENDED and started.outcome is not None:
            return MachineResult(started.outcome, keep_lease=started.may_run)
        request = request.model_copy(update={"reserved_at": started.reserved_at})
        if started.reserved_at is not None:
            yield from waits.wait(min(max(0.0, started.wait_seconds), MAX_RESERVATION_WAIT))
            continue
        pause = retries.pause(started)
        if pause is None:
            if started.outcome is not None:
                return MachineResult(started.outcome)
            if request.is_last:
                return MachineResult(outcome_rules.unsettled(None), keep_lease=True)
            request = request.model_copy(update={"is_last": True})
            retries = RetryBudget(waits.context, MAX_REFUSALS)
            pause = started.wait_seconds
        yield from waits.wait(pause)
