"""patch_machine: one machine through one step of a run, to exactly one outcome.

Assess step: lease, preflight, assess. Patch step: lease, preflight, power-on if the policy allows it, assessment if it
is missing or outdated, health, hooks, install, hooks, verify, health, power restored, record. Restart step: lease,
preflight, restart, verify, health, record. Expected failures are values; exceptions are recorded as well.
"""

from __future__ import annotations

import logging
from datetime import datetime

from durabletask import task

from orchestrators.hooks import after_install, before_install
from orchestrators.operation import MachineResult, Requeue, assess, operate, unfinished
from orchestrators.power import restart, restore_power
from orchestrators.preflight import MAX_BOOT_POLLS, MAX_POLLS, Preflight
from orchestrators.retry_budget import RetryBudget
from orchestrators.runtime import Context, Steps, call, implements, receive, utc_now
from orchestrators.waits import Waits
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary
from patchwave.domain.machine.health import HealthRequest, HealthState, Moment
from patchwave.domain.machine.power import LEFT_ON, NotRestored, not_restored
from patchwave.domain.machine.preflight import Readiness
from patchwave.domain.runs import outcome_rules
from patchwave.domain.runs.error_budget import counts_as_failure
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Mode, Step
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.machine import (
    MachineEnded,
    MachineWork,
    PreflightResult,
    RecordOutcome,
    ReleaseMachine,
    Verified,
    VerifyRequest,
)

_LOG = logging.getLogger("patchwave.orchestrators")

_RUN_IS_STOPPED = (Reason.CANCELED_BY_USER, Reason.ERROR_BUDGET, Reason.NOT_APPROVED)
"""Preflight outcomes when the run starts nothing more: the run's close decides how its machines end."""


@implements(contracts.PATCH_MACHINE)
def patch_machine(context: Context, work: MachineWork) -> Steps[MachineEnded]:
    """Take one machine through a step. Its last activity stores the completion that the phase polls, in any case."""
    machine = _Machine(context, work)
    try:
        match work.step:
            case Step.ASSESS:
                ended = yield from machine.assess_step()
            case Step.PATCH:
                ended = yield from machine.patch_step()
            case Step.RESTART:
                ended = yield from machine.restart_step()
    except Exception as error:
        # Any exception: without a completion the phase would wait for this machine for ever.
        if not context.is_replaying:
            _LOG.error("Machine %s of run %s failed.", work.machine_key, work.run_id, exc_info=error)
        ended = yield from machine.record_crash(error)
    return ended


class _Machine:
    """The steps of one machine. Every method that yields is part of the orchestrator and is replayed with it."""

    def __init__(self, context: Context, work: MachineWork) -> None:
        self._context = context
        self._work = work
        self._options = work.options
        self._waits = Waits(context, receive(context, Signal.CANCEL))
        self._preflight = Preflight(work, self._waits)

    # --- the steps

    def assess_step(self) -> Steps[MachineEnded]:
        """Assess; machines that stay in the run are released, the others get their outcome."""
        may_start_later = self._options.start_stopped and self._options.mode is Mode.PATCH
        checked = yield from self._preflight.check(may_start=may_start_later)
        if checked.requeued or checked.preflight.readiness is Readiness.NEEDS_START:
            # It is assessed in the patch step, once it runs, or in another window.
            return (yield from self._release(Stage.ASSESSED))
        if checked.preflight.outcome is not None:
            if self._options.is_local and checked.preflight.outcome.reason is Reason.LOCKED_BY_RUN:
                # The run of the day before works on it, in the window by its own clock. That of this run comes later.
                return (yield from self._release(Stage.ASSESSED))
            return (yield from self._record(MachineResult(checked.preflight.outcome)))
        found = yield from assess(self._work, self._waits, checked.assess_activity_id, checked.assess_attempt)
        if isinstance(found, Requeue):
            return (yield from self._requeue(Stage.WAITING))
        if isinstance(found, MachineResult):
            return (yield from self._record(found))
        is_last_step = self._options.mode is Mode.ASSESS
        outcome = outcome_rules.assessed(found) if is_last_step else outcome_rules.nothing_to_install(found)
        if outcome is None:
            return (yield from self._release(Stage.ASSESSED))
        return (yield from self._record(MachineResult(outcome)))

    def patch_step(self) -> Steps[MachineEnded]:
        """Install, and restore the machine's power state."""
        checked = yield from self._preflight.check(may_start=self._options.start_stopped)
        is_ours_to_stop = checked.powered_on_by_run
        if checked.preflight.readiness is Readiness.NEEDS_START:
            is_ours_to_stop = True
            checked, _ = yield from self._preflight.start()
        end: MachineResult | Requeue
        if checked.requeued:
            end = Requeue()
        elif checked.preflight.outcome is not None:
            end = MachineResult(checked.preflight.outcome)
        else:
            end = yield from self._patch(checked)
        if isinstance(end, Requeue):
            if is_ours_to_stop:
                # If it cannot be stopped now, ``powered_on_by_run`` stays set, and its next attempt stops it.
                left = yield from self._restore_power()
                is_open = left is not None and left.is_open
                return (yield from self._release(Stage.ASSESSED, requeued=True, keep_lease=is_open))
            return (yield from self._requeue(Stage.ASSESSED))
        if is_ours_to_stop and end.keep_lease:
            end = end._replace(outcome=not_restored(end.outcome, LEFT_ON))
        elif is_ours_to_stop:
            left = yield from self._restore_power()
            is_open = left is not None and left.is_open
            end = end._replace(outcome=not_restored(end.outcome, left), keep_lease=is_open)
        elif self._restarts_later(end):
            return (yield from self._release(Stage.INSTALLED, end))
        return (yield from self._record(end))

    def restart_step(self) -> Steps[MachineEnded]:
        """Restart a patched machine, and verify that it comes back."""
        checked = yield from self._preflight.check()
        installation = checked.installation
        installed = installation.installed if installation else 0
        if checked.requeued:
            return (yield from self._requeue(Stage.INSTALLED))
        if checked.preflight.outcome is not None:
            if checked.preflight.outcome.reason in _RUN_IS_STOPPED:
                return (yield from self._requeue(Stage.INSTALLED))
            if checked.preflight.outcome.reason is Reason.NOT_FOUND:
                return (yield from self._record(MachineResult(outcome_rules.gone(installed), installation)))
            outcome = outcome_rules.not_restarted(installed, checked.preflight.outcome.message)
            return (yield from self._record(MachineResult(outcome, installation)))
        asked_at = utc_now(self._context)
        failure = yield from restart(self._work, self._waits)
        if isinstance(failure, Requeue):
            return (yield from self._requeue(Stage.INSTALLED))
        if failure is not None:
            why = failure.failure.text if failure.failure else "Azure did not say that it is done"
            outcome = outcome_rules.restart_failed(installed, why)
            return (yield from self._record(MachineResult(outcome, installation, keep_lease=failure.is_open)))
        seen = yield from self._watch(asked_at, MAX_BOOT_POLLS)
        if seen.is_gone:
            return (yield from self._record(MachineResult(outcome_rules.gone(installed), installation)))
        end = MachineResult(outcome_rules.evaluate_restart(seen.is_ready, seen.reboot_pending, installed), installation)
        return (yield from self._record((yield from self._check_health_after(end))))

    def record_crash(self, error: Exception) -> Steps[MachineEnded]:
        """Last resort after an activity failed for good. If this fails too, the run's close gives the outcome."""
        # In the patch step an installation may have been accepted: the outcome must not deny that.
        kind = OutcomeKind.FAILED if self._work.step is Step.ASSESS else OutcomeKind.UNKNOWN
        message = f"Patchwave itself failed on this machine: {error}"[:2_000]
        outcome = Outcome(outcome=kind, reason=Reason.INTERNAL, message=message)
        try:
            return (yield from self._record(MachineResult(outcome, keep_lease=True)))
        except task.TaskFailedError:
            return MachineEnded(key=self._work.machine_key, attempt=self._work.attempt, failed=True)

    # --- parts of the patch step

    def _patch(self, checked: PreflightResult) -> Steps[MachineResult | Requeue]:
        """Everything between lease and record, on a machine that runs."""
        assessment = checked.assessment
        if assessment is None:
            assessment = yield from assess(self._work, self._waits, checked.assess_activity_id, checked.assess_attempt)
            if isinstance(assessment, MachineResult | Requeue):
                return assessment
            if (nothing := outcome_rules.nothing_to_install(assessment)) is not None:
                return MachineResult(nothing)
        veto: Outcome | Requeue | None = None
        if not checked.is_in_progress:
            veto = yield from self._check_health(Moment.BEFORE)
            if veto is None and self._options.hooks:
                veto = yield from before_install(self._work, self._waits)
        if veto is not None:
            return MachineResult(veto) if isinstance(veto, Outcome) else veto
        end = yield from self._install(checked, assessment)
        if isinstance(end, Requeue) or end.outcome.reason is Reason.NOT_FOUND:
            # Neither is there anything to do afterwards on a machine that is gone.
            return end
        if self._options.hooks and not end.keep_lease:
            # After any result: the post script may undo what the pre script did.
            end = _add(end, (yield from after_install(self._work, self._waits, end.outcome.outcome)))
        return (yield from self._check_health_after(end)) if end.installation is not None else end

    def _install(self, checked: PreflightResult, assessment: AssessmentSummary) -> Steps[MachineResult | Requeue]:
        report = yield from operate(self._work, self._waits, OperationKind.INSTALL, checked.install_activity_id)
        if isinstance(report, MachineResult | Requeue):
            return report
        result = report.installation
        if result is None:
            return unfinished(OperationKind.INSTALL, report)
        # An installation is done when the machine is back and no reboot is pending.
        seen = yield from self._watch(result.start_date_time, MAX_POLLS)
        if seen.is_gone:
            installed = result.installed_patch_count
            return MachineResult(outcome_rules.gone(installed), result.summarize(adopted=report.adopted))
        outcome = outcome_rules.evaluate_installation(
            result, reboot_pending=seen.reboot_pending, needs_subscription=assessment.behind_subscription
        )
        return MachineResult(outcome, result.summarize(adopted=report.adopted))

    def _restarts_later(self, end: MachineResult) -> bool:
        """Whether the machine waits for the restart step. One that was started for this run has restarted already."""
        waits = end.outcome.outcome is OutcomeKind.REBOOT_REQUIRED and end.outcome.reason is Reason.REBOOT_PENDING
        return self._options.reboot_apart and waits and end.installation is not None

    # --- polling the machine

    def _watch(self, since: datetime | None, max_polls: int) -> Steps[Verified]:
        """Poll until the machine runs and its agent reports, or two polls in a row do not find it.

        Its reboot status counts when newer than ``since``.
        """
        request = VerifyRequest(run_id=self._work.run_id, machine_key=self._work.machine_key, installed_at=since)
        was_missed = False

        def is_over(seen: Verified) -> bool:
            nonlocal was_missed
            is_gone, was_missed = seen.is_gone and was_missed, seen.is_gone
            return seen.is_ready or is_gone

        return (yield from self._waits.poll(contracts.VERIFY_MACHINE, request, max_polls, is_over))

    def _check_health(self, moment: Moment) -> Steps[Outcome | None]:
        """Poll until the health signals have settled; the outcome when the machine is unhealthy."""
        looked_for = 0.0
        if not self._options.health:
            return None
        retries = RetryBudget(self._context)
        while True:
            request = HealthRequest(
                run_id=self._work.run_id, machine_key=self._work.machine_key, moment=moment, looked_for=looked_for
            )
            answer = yield from call(self._context, contracts.CHECK_HEALTH, request)
            if answer.state is not HealthState.WAIT:
                return answer.outcome
            pause = retries.pause(answer)
            if pause is None:
                return None
            yield from self._waits.wait(pause)
            looked_for += answer.wait_seconds if answer.counts_as_attempt else 0

    def _check_health_after(self, end: MachineResult) -> Steps[MachineResult]:
        """A machine that became unhealthy has failed, also after a successful installation."""
        worse = yield from self._check_health(Moment.AFTER)
        if worse is None or counts_as_failure(end.outcome.outcome, end.outcome.reason):
            return end
        return _add(end._replace(outcome=worse), end.outcome.message)

    def _restore_power(self) -> Steps[NotRestored | None]:
        """Stop the machine; the reason when that failed. A failure never hides the machine's outcome."""
        try:
            return (yield from restore_power(self._work, self._waits))
        except task.TaskFailedError:
            sentence = "It was started for this; Patchwave itself failed, so that it may not be stopped again."
            return NotRestored(sentence, is_open=True)

    # --- the end

    def _record(self, end: MachineResult) -> Steps[MachineEnded]:
        request = RecordOutcome(
            run_id=self._work.run_id,
            machine_key=self._work.machine_key,
            outcome=end.outcome,
            phase=self._work.phase,
            attempt=self._work.attempt,
            installation=end.installation,
            keep_lease=end.keep_lease,
        )
        stored = yield from call(self._context, contracts.RECORD_OUTCOME, request)
        return MachineEnded(key=self._work.machine_key, attempt=self._work.attempt, failed=stored.failed)

    def _release(
        self, stage: Stage, end: MachineResult | None = None, *, requeued: bool = False, keep_lease: bool = False
    ) -> Steps[MachineEnded]:
        """Release a machine that stays in the run; it keeps its lease while a call is still open."""
        request = ReleaseMachine(
            run_id=self._work.run_id,
            machine_key=self._work.machine_key,
            stage=stage,
            phase=self._work.phase,
            attempt=self._work.attempt,
            installation=end.installation if end else None,
            requeued=requeued,
            keep_lease=keep_lease,
        )
        yield from call(self._context, contracts.RELEASE_MACHINE, request)
        return MachineEnded(key=self._work.machine_key, attempt=self._work.attempt, requeued=requeued)

    def _requeue(self, stage: Stage) -> Steps[MachineEnded]:
        return (yield from self._release(stage, requeued=True))


def _add(end: MachineResult, sentence: str) -> MachineResult:
    """The same result with one more sentence."""
    if not sentence:
        return end
    message = f"{end.outcome.message} {sentence}"
    return end._replace(outcome=end.outcome.model_copy(update={"message": message}))
