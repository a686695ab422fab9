"""One long-running operation on one machine: submitted until Azure takes it or will not, followed until it ends."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from orchestrators.patience import Patience
from orchestrators.runtime import Context, Steps, call, call_child, continue_as_new, implements
from orchestrators.waits import Waits
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.core.patches import InstallationSummary
from patchwave.domain.runs import outcome_rules
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.messages import (
    AwaitOperation,
    MachineWork,
    OperationRef,
    OperationReport,
    OperationState,
    StartOperation,
    StartResult,
    StartState,
)

POLLS_PER_GENERATION = 10
"""Replay costs 8K+4 events per poll when a generation holds K polls; without generations 8P+4, for all P polls."""
MAX_REFUSALS = 6
"""How often a machine that is busy is asked again before it is given up."""
MAX_RESERVATION_WAIT = 300.0
"""Seconds that a turn is waited for at most without a call: what may be sent is decided anew."""


class MachineResult(NamedTuple):
    """How a machine ends, and whether something may still run in its guest."""

    outcome: Outcome
    installation: InstallationSummary | None = None
    keep_lock: bool = False


class Requeue(NamedTuple):
    """Nothing was sent, and nothing may be for now: the machine waits for its turn again."""


def operate(
    context: Context,
    work: MachineWork,
    waits: Waits,
    kind: OperationKind,
    previous_activity_id: str,
    first_attempt: int = 1,
) -> Steps[OperationReport | MachineResult | Requeue]:
    """Start one operation and follow it to its end.

    An assessment that Azure accepted and then failed for a passing reason is tried again; an installation never
    is: at most one accepted installation per machine and run (safety rule 1).
    """
    attempt = first_attempt
    while True:
        submitted = yield from _submit(context, work, waits, kind, attempt, previous_activity_id)
        if not isinstance(submitted, StartResult):
            return submitted
        report = submitted.report
        if report is None:
            follow = AwaitOperation(
                run_id=work.run_id, machine_key=work.machine_key, kind=kind, wait_seconds=submitted.wait_seconds
            )
            instance = instance_ids.operation(context.instance_id, kind.value, attempt)
            report = yield from call_child(context, contracts.AWAIT_OPERATION, follow, instance)
        failure = report.failure if report.state is OperationState.FAILED else None
        tries = attempt - first_attempt + 1
        if failure is None or kind is OperationKind.INSTALL or not outcome_rules.may_retry(failure, tries):
            return report
        attempt += 1
        yield from waits.wait(report.wait_seconds)


def unfinished(kind: OperationKind, report: OperationReport) -> MachineResult:
    """The end of a machine whose operation brought no result.

    An assessment changes nothing in the guest and ends by itself: a run that is cancelled meanwhile leaves nothing
    behind that another run would have to keep away from.
    """
    match report.state:
        case OperationState.CANCELED if kind is OperationKind.ASSESS:
            return MachineResult(Outcome.canceled())
        case OperationState.CANCELED:
            return MachineResult(outcome_rules.left_running(), keep_lock=True)
        case OperationState.DEADLINE:
            return MachineResult(outcome_rules.past_deadline(), keep_lock=True)
        case OperationState.FAILED if report.failure is not None:
            return MachineResult(outcome_rules.failed(report.failure))
        case _:
            return MachineResult(outcome_rules.lost(report.failure), keep_lock=True)


@implements(contracts.AWAIT_OPERATION)
def await_operation(context: Context, operation: AwaitOperation) -> Steps[OperationReport | None]:
    """Poll until the operation has ended, is lost, is past its deadline, or the run was stopped.

    Nothing of the operation is kept here: its URLs are signed
    and stay in the intent row, its result is stored by the poll that saw it.
    """
    target = OperationRef(run_id=operation.run_id, machine_key=operation.machine_key, kind=operation.kind)
    wait_seconds = operation.wait_seconds
    for _ in range(POLLS_PER_GENERATION):
        if wait_seconds:
            yield context.create_timer(timedelta(seconds=wait_seconds))
        report = yield from call(context, contracts.POLL_OPERATION, target)
        if report.state is not OperationState.RUNNING:
            return report
        wait_seconds = report.wait_seconds
    following = {"polls": operation.polls + POLLS_PER_GENERATION, "wait_seconds": wait_seconds}
    continue_as_new(context, contracts.AWAIT_OPERATION, operation.model_copy(update=following))
    return None


def _submit(
    context: Context,
    work: MachineWork,
    waits: Waits,
    kind: OperationKind,
    attempt: int,
    previous_activity_id: str,
) -> Steps[StartResult | MachineResult | Requeue]:
    """Submit until Azure has accepted or will not. Being throttled costs no patience, being busy does.

    When patience is out while Azure may have accepted the last POST, the machine is asked about that one, and nothing
    more is sent: the machine ends as busy only when nothing of ours can run there, and else keeps its lock.

    A turn that was given is waited for and handed in: everybody waits for theirs, which is no reason to give up.
    """
    activity = contracts.ASSESS_MACHINE if kind is OperationKind.ASSESS else contracts.INSTALL_PATCHES
    request = StartOperation(
        run_id=work.run_id,
        machine_key=work.machine_key,
        kind=kind,
        attempt=attempt,
        previous_activity_id=previous_activity_id,
    )
    patience = Patience(context, MAX_REFUSALS)
    while True:
        # An execution that failed may have been the one that Azure accepted: only the next one can tell.
        started = yield from call(context, activity, request)
        if started.state is StartState.ACCEPTED:
            return started
        if started.state is StartState.REQUEUED:
            return Requeue()
        if started.state is StartState.ENDED and started.outcome is not None:
            return MachineResult(started.outcome, keep_lock=started.may_run)
        request = request.model_copy(update={"reserved_at": started.reserved_at})
        if started.reserved_at is not None:
            yield from waits.wait(min(max(0.0, started.wait_seconds), MAX_RESERVATION_WAIT))
            continue
        pause = patience.pause(started.wait_seconds, counts_as_attempt=started.counts_as_attempt)
        if pause is None:
            if started.outcome is not None:
                return MachineResult(started.outcome)
            if request.is_last:
                return MachineResult(outcome_rules.unsettled(None), keep_lock=True)
            request = request.model_copy(update={"is_last": True})
            patience = Patience(context, MAX_REFUSALS)
            pause = started.wait_seconds
        yield from waits.wait(pause)
