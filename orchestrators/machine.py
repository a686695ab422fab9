"""patch_machine: one machine through one step of a run, to exactly one outcome.

Assess step: lock, look, assess. Patch step: lock, look, start it if the policy says so, assess if that has not been
done, install, verify, put its power back, record. Expected failures are values; what is thrown is recorded as well.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any, NamedTuple

from durabletask import task

from domain import verdict
from domain.outcome import Outcome, OutcomeKind, Reason
from domain.patch_results import InstallResult
from domain.preflight import Readiness
from domain.run import AssessmentSummary, InstallationSummary, Mode, OperationKind
from domain.work import (
    AwaitOperation,
    MachineRef,
    MachineWork,
    OperationReport,
    OperationState,
    PowerResult,
    PreflightRequest,
    PreflightResult,
    RecordOutcome,
    StartOperation,
    StartResult,
    StartState,
    Step,
    Verified,
    VerifyRequest,
)
from orchestrators import names
from orchestrators.retries import RETRY, RETRY_RESULT

MOST_LOOKS = 6
"""How often a machine that is busy, booting, or locked is looked at before it is given up."""
MOST_BOOT_LOOKS = 20
"""The same for a machine that was just started: Windows takes its time."""
LONGEST_PAUSE = timedelta(minutes=5)
"""The longest wait without a look at the cancel mark; whether a call may be sent is decided anew each time."""
MOST_UNCOUNTED_WAITS = 60
"""A machine ends in bounded time and with a bounded history, even when Azure throttles for ever."""

type Steps[Result] = Generator[task.Task[Any], Any, Result]


class _End(NamedTuple):
    """How a machine ends, and whether something may still run in its guest."""

    outcome: Outcome
    installation: InstallationSummary | None = None
    keep_lock: bool = False


def patch_machine(
    context: task.OrchestrationContext, data: dict[str, Any]
) -> Generator[task.Task[Any], Any, dict[str, Any]]:
    """Take one machine through a step. Input ``MachineWork``; tells the wave when it is done, whatever happened."""
    work = MachineWork.from_wire(data)
    machine = _Machine(context, work)
    try:
        if work.step is Step.ASSESS:
            yield from machine.assess_step()
        else:
            yield from machine.patch_step()
    except task.TaskFailedError as error:
        yield from machine.record_crash(error)
    context.send_event(work.wave_id, names.MACHINE_ENDED_EVENT, data=work.machine_key)
    return {"machineKey": work.machine_key}


class _Machine:
    """The steps of one machine. Every method that yields is part of the orchestrator and is replayed with it."""

    def __init__(self, context: task.OrchestrationContext, work: MachineWork) -> None:
        self._context = context
        self._work = work
        self._ref = MachineRef(run_id=work.run_id, machine_key=work.machine_key)

    # --- the two steps

    def assess_step(self) -> Steps[None]:
        """Assess; machines that stay in the run are released, the others get their outcome."""
        work = self._work
        may_start_later = work.start_stopped and work.mode is Mode.PATCH
        look = yield from self._look(may_start=may_start_later, most_looks=MOST_LOOKS)
        if look.preflight.readiness is Readiness.NEEDS_START:
            # It is assessed in the patch step, once it runs.
            yield from self._call(names.RELEASE_MACHINE, self._ref.to_wire())
            return
        if look.preflight.outcome is not None:
            yield from self._record(_End(look.preflight.outcome))
            return
        found = yield from self._assess(look)
        if isinstance(found, _End):
            yield from self._record(found)
        elif work.mode is Mode.ASSESS:
            yield from self._record(_End(verdict.assessed(found)))
        elif (nothing := verdict.nothing_to_install(found)) is not None:
            yield from self._record(_End(nothing))
        else:
            yield from self._call(names.RELEASE_MACHINE, self._ref.to_wire())

    def patch_step(self) -> Steps[None]:
        """Install, and leave the machine's power as it was."""
        look = yield from self._look(may_start=self._work.start_stopped, most_looks=MOST_LOOKS)
        was_started = look.preflight.readiness is Readiness.NEEDS_START
        if was_started:
            look = yield from self._start()
        if look.preflight.outcome is not None:
            end = _End(look.preflight.outcome)
        else:
            end = yield from self._assess_and_install(look)
        if was_started and not end.keep_lock:
            end = yield from self._put_power_back(end)
        yield from self._record(end)

    def record_crash(self, error: task.TaskFailedError) -> Steps[None]:
        """The last resort: an activity failed for good. When even this cannot be stored, closing the run finds it."""
        # In the patch step an installation may have been accepted: nobody may call that a plain failure.
        kind = OutcomeKind.FAILED if self._work.step is Step.ASSESS else OutcomeKind.UNKNOWN
        outcome = Outcome(
            outcome=kind,
            reason=Reason.INTERNAL,
            message=f"Patchwave itself failed on this machine: {error}"[:2_000],
        )
        try:
            yield from self._record(_End(outcome, keep_lock=True))
        except task.TaskFailedError:
            return

    # --- parts of a step

    def _assess_and_install(self, look: PreflightResult) -> Steps[_End]:
        assessment = look.assessment
        if assessment is None:
            found = yield from self._assess(look)
            if isinstance(found, _End):
                return found
            nothing = verdict.nothing_to_install(found)
            if nothing is not None:
                return _End(nothing)
            assessment = found
        report = yield from self._operate(OperationKind.INSTALL, look.install_activity_id)
        if isinstance(report, _End):
            return report
        if report.installation is None:
            return _unfinished(report)
        return (yield from self._verify(report.installation, assessment, adopted=report.adopted))

    def _assess(self, look: PreflightResult) -> Steps[AssessmentSummary | _End]:
        report = yield from self._operate(OperationKind.ASSESS, look.assess_activity_id)
        if isinstance(report, _End):
            return report
        if report.outcome is not None:
            return _End(report.outcome)
        if report.assessment is not None:
            return report.assessment
        return _unfinished(report)

    def _look(self, *, may_start: bool, most_looks: int) -> Steps[PreflightResult]:
        """Look until the machine is ready or will not be: something that changes on its own gets time to settle."""
        request = PreflightRequest(
            run_id=self._work.run_id, machine_key=self._work.machine_key, start_stopped=may_start
        ).to_wire()
        look = PreflightResult.from_wire((yield from self._call(names.PREFLIGHT_MACHINE, request)))
        looks = 1
        while look.preflight.readiness is Readiness.WAIT and looks < most_looks:
            yield self._pause(look.wait_seconds)
            look = PreflightResult.from_wire((yield from self._call(names.PREFLIGHT_MACHINE, request)))
            looks += 1
        return look

    def _start(self) -> Steps[PreflightResult]:
        """Start the machine and wait for its agent."""
        started = PowerResult.from_wire((yield from self._call(names.START_MACHINE, self._ref.to_wire())))
        if started.accepted:
            yield self._pause(started.wait_seconds)
        # When it was not accepted the look finds it stopped, and says so.
        return (yield from self._look(may_start=False, most_looks=MOST_BOOT_LOOKS if started.accepted else 1))

    def _put_power_back(self, end: _End) -> Steps[_End]:
        stopped = PowerResult.from_wire((yield from self._call(names.STOP_MACHINE, self._ref.to_wire())))
        if stopped.accepted:
            return end
        reason = stopped.failure.text if stopped.failure else "Azure did not take the call"
        message = f"{end.outcome.message} It was started for this and could not be stopped again: {reason}."
        return end._replace(outcome=end.outcome.model_copy(update={"message": message}))

    def _operate(self, kind: OperationKind, previous_activity_id: str) -> Steps[OperationReport | _End]:
        """Start one operation and follow it to its end.

        An assessment that Azure accepted and then failed for a passing reason is tried again; an installation never
        is: at most one accepted installation per machine and run (safety rule 1).
        """
        attempt = 1
        while True:
            refused = yield from self._submit(kind, attempt, previous_activity_id)
            if refused is not None:
                return refused
            follow = AwaitOperation(run_id=self._work.run_id, machine_key=self._work.machine_key, kind=kind)
            answer = yield self._context.call_sub_orchestrator(
                names.AWAIT_OPERATION,
                input=follow.to_wire(),
                instance_id=names.operation_instance(self._context.instance_id, kind.value, attempt),
            )
            report = OperationReport.from_wire(answer)
            failure = report.failure if report.state is OperationState.FAILED else None
            if failure is None or kind is OperationKind.INSTALL or not verdict.may_retry(failure, attempt):
                return report
            attempt += 1
            yield self._pause(report.wait_seconds)

    def _submit(self, kind: OperationKind, attempt: int, previous_activity_id: str) -> Steps[_End | None]:
        """Submit until Azure has accepted or will not. Being throttled costs no patience, being busy does."""
        activity = names.ASSESS_MACHINE if kind is OperationKind.ASSESS else names.INSTALL_PATCHES
        request = StartOperation(
            run_id=self._work.run_id,
            machine_key=self._work.machine_key,
            kind=kind,
            attempt=attempt,
            previous_activity_id=previous_activity_id,
        ).to_wire()
        counted = uncounted = 0
        while True:
            started = StartResult.from_wire((yield from self._call(activity, request)))
            if started.state is StartState.ACCEPTED:
                return None
            if started.state is StartState.ENDED and started.outcome is not None:
                return _End(started.outcome)
            counted += started.counts
            uncounted += not started.counts
            if counted >= MOST_LOOKS or uncounted >= MOST_UNCOUNTED_WAITS:
                return _End(started.outcome or verdict.lost(None), keep_lock=started.outcome is None)
            # The longer Azure throttles, the longer the waits; how long it asks for is kept with the budget.
            stretch = 2 ** min(uncounted // 5, 4)
            longer = min(started.wait_seconds * stretch, LONGEST_PAUSE.total_seconds())
            yield self._pause(started.wait_seconds if started.counts else longer)

    def _verify(self, result: InstallResult, assessment: AssessmentSummary, *, adopted: bool) -> Steps[_End]:
        """Read the machine again: an installation is done when the machine is back and no reboot is pending."""
        request = VerifyRequest(
            run_id=self._work.run_id, machine_key=self._work.machine_key, installed_at=result.start_date_time
        ).to_wire()
        looks = 0
        while True:
            answer = yield self._context.call_activity(names.VERIFY_MACHINE, input=request, retry_policy=RETRY_RESULT)
            seen = Verified.from_wire(answer)
            looks += 1
            if seen.is_ready or looks >= MOST_LOOKS:
                break
            yield self._pause(seen.wait_seconds)
        outcome = verdict.judge_installation(
            result,
            reboot_pending=seen.reboot_pending,
            needs_subscription=assessment.needs_subscription,
        )
        return _End(outcome, result.summarize(adopted=adopted))

    def _record(self, end: _End) -> Steps[None]:
        request = RecordOutcome(
            run_id=self._work.run_id,
            machine_key=self._work.machine_key,
            outcome=end.outcome,
            installation=end.installation,
            keep_lock=end.keep_lock,
        )
        yield self._context.call_activity(names.RECORD_OUTCOME, input=request.to_wire(), retry_policy=RETRY_RESULT)

    def _call(self, activity: str, request: dict[str, Any]) -> Steps[Any]:
        return (yield self._context.call_activity(activity, input=request, retry_policy=RETRY))

    def _pause(self, seconds: float) -> task.Task[Any]:
        return self._context.create_timer(timedelta(seconds=seconds))


def _unfinished(report: OperationReport) -> _End:
    """The end of a machine whose operation brought no result."""
    match report.state:
        case OperationState.CANCELED:
            return _End(verdict.left_running(), keep_lock=True)
        case OperationState.DEADLINE:
            return _End(verdict.past_deadline(), keep_lock=True)
        case OperationState.FAILED if report.failure is not None:
            return _End(verdict.failed(report.failure))
        case _:
            return _End(verdict.lost(report.failure), keep_lock=True)
