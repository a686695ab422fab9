"""From what an operation brought to the outcome of the machine.

Two levels of status (safety rule 4): the operation may have succeeded while the patches inside did not. Only the
words ``Succeeded`` and ``CompletedWithWarnings`` of the inner level can lead to a good outcome; ``Failed`` to a warning
at best, and only where missing Ubuntu Pro explains every patch that failed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from patchwave.domain.azure.errors import ArmFailure, ErrorClass, classify, failure_of_error
from patchwave.domain.azure.patch_results import (
    ApiError,
    AssessResult,
    InstallResult,
    PatchOperationStatus,
    RebootStatus,
)
from patchwave.domain.core.duration import format_duration
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import ESM_REQUIRED, AssessmentSummary, ReportedError
from patchwave.domain.runs.machine_record import Stage

_GOOD = (PatchOperationStatus.SUCCEEDED, PatchOperationStatus.COMPLETED_WITH_WARNINGS)
MAX_ATTEMPTS = 3
"""Attempts at one operation that Azure accepted and then failed for a passing reason: "retry later" is sometimes a
lie (Arm64), so the third refusal is believed."""


def evaluate_assessment(result: AssessResult) -> Outcome | None:
    """The outcome when the assessment did not work; ``None`` when it did."""
    if result.status in _GOOD:
        return None
    return _bad_result("assessment", result.status, result.error)


def nothing_to_install(summary: AssessmentSummary) -> Outcome | None:
    """The outcome of a machine on which an installation would install nothing; ``None`` when it would.

    What the policy selects counts, where it was asked. A list that was cut may hide what it does not show, so only
    complete lists end a machine early.
    """
    if summary.installable > 0:
        return None
    if summary.reboot_pending:
        left = "Nothing that the policy selects is left to install" if summary.pending else "Nothing is left to install"
        return Outcome.of(
            OutcomeKind.REBOOT_REQUIRED, Reason.REBOOT_PENDING, f"{left}, but a reboot is pending: restart the machine."
        )
    if summary.behind_subscription:
        return Outcome.of(
            OutcomeKind.PATCHED_WITH_WARNINGS,
            Reason.SUBSCRIPTION_REQUIRED,
            f"Nothing can be installed: {summary.behind_subscription} security patches need Ubuntu Pro "
            "(Expanded Security Maintenance). Attach the machine to Ubuntu Pro.",
        )
    return nothing_selected(summary.critical_and_security + summary.other)


def nothing_selected(pending: int) -> Outcome:
    """The outcome of a machine of whose pending patches the policy selects none."""
    none = f"The policy selects none of the {pending} pending patches."
    if pending == 1:
        none = "The policy does not select the one pending patch."
    return Outcome.of(
        OutcomeKind.NOTHING_TO_INSTALL,
        Reason.NO_PENDING_PATCHES,
        none if pending else "The assessment found no pending patches.",
    )


def assessed(summary: AssessmentSummary) -> Outcome:
    pending = summary.critical_and_security + summary.other
    found = f"{summary.critical_and_security} critical and security, {summary.other} other"
    esm = f"; {summary.needs_subscription} of them need Ubuntu Pro" if summary.needs_subscription else ""
    if summary.installable != summary.pending:
        esm += f"; the policy selects {summary.installable}"
    return Outcome.of(
        OutcomeKind.ASSESSED,
        Reason.PATCHES_PENDING if pending else Reason.NO_PENDING_PATCHES,
        (f"Pending patches: {found}{esm}." if pending else "The assessment found no pending patches.")
        + _remarks(summary.errors),
    )


@dataclass(frozen=True, slots=True)
class _Installation:
    """An installation that ended, as the rules below look at it."""

    result: InstallResult
    reboot_pending: bool
    needs_subscription: int
    lacks_only_subscription: bool
    reported: Sequence[ReportedError]

    @property
    def has_bad_status(self) -> bool:
        """Whether Azure calls it something other than a success, for another reason than Ubuntu Pro."""
        status = self.result.status
        return status not in _GOOD and not (self.lacks_only_subscription and status is PatchOperationStatus.FAILED)

    @property
    def installed(self) -> str:
        """How many patches are installed, in words."""
        return _are_installed(self.result.installed_patch_count)


@dataclass(frozen=True, slots=True)
class _Rule:
    applies: Callable[[_Installation], bool]
    outcome: Callable[[_Installation], Outcome]


def _rule(
    applies: Callable[[_Installation], bool],
    outcome: OutcomeKind,
    reason: Reason,
    message: Callable[[_Installation], str],
) -> _Rule:
    return _Rule(applies, lambda it: Outcome.of(outcome, reason, message(it)))


_INSTALLATION_RULES: tuple[_Rule, ...] = (
    _rule(
        lambda it: it.result.maintenance_window_exceeded,
        OutcomeKind.TIMED_OUT,
        Reason.WINDOW_EXCEEDED,
        lambda it: (
            f"The time given was not enough: {it.result.installed_patch_count} installed, "
            f"{it.result.pending_patch_count} pending. Give a longer maximumDuration or window."
        ),
    ),
    # The agent calls the whole installation failed then, although every patch is installed.
    _rule(
        lambda it: it.result.reboot_status is RebootStatus.FAILED and not it.result.failed_patch_count,
        OutcomeKind.REBOOT_REQUIRED,
        Reason.REBOOT_FAILED,
        lambda _: "The patches are installed, but the reboot failed: restart the machine.",
    ),
    _Rule(
        lambda it: it.has_bad_status,
        lambda it: _bad_result("installation", it.result.status, it.result.error, failed=it.result.failed_patch_count),
    ),
    _rule(
        lambda it: it.result.failed_patch_count > 0 and not it.lacks_only_subscription,
        OutcomeKind.FAILED,
        Reason.PATCHES_FAILED,
        lambda it: f"{_patches(it.result.failed_patch_count)} failed; {it.installed}." + _reported(it.result.error),
    ),
    _rule(
        lambda it: it.reboot_pending,
        OutcomeKind.REBOOT_REQUIRED,
        Reason.REBOOT_PENDING,
        lambda it: f"{it.installed}; a reboot is still pending." + _remarks(it.reported),
    ),
    _rule(
        lambda it: it.needs_subscription > 0,
        OutcomeKind.PATCHED_WITH_WARNINGS,
        Reason.SUBSCRIPTION_REQUIRED,
        lambda it: (
            f"{it.installed}; {it.needs_subscription} more {'needs' if it.needs_subscription == 1 else 'need'} "
            "Ubuntu Pro (Expanded Security Maintenance)." + _remarks(it.reported)
        ),
    ),
    _rule(
        lambda it: (
            it.result.status is PatchOperationStatus.COMPLETED_WITH_WARNINGS or it.result.pending_patch_count > 0
        ),
        OutcomeKind.PATCHED_WITH_WARNINGS,
        Reason.COMPLETED_WITH_WARNINGS,
        lambda it: f"{it.installed}, {_are(it.result.pending_patch_count)} pending." + _reported(it.result.error),
    ),
    _rule(
        lambda it: not it.result.installed_patch_count,
        OutcomeKind.NOTHING_TO_INSTALL,
        Reason.NO_PENDING_PATCHES,
        lambda it: "The installation found nothing that the policy selects." + _remarks(it.reported),
    ),
    _rule(lambda _: True, OutcomeKind.PATCHED, Reason.OK, lambda it: f"{it.installed}." + _remarks(it.reported)),
)
"""The first rule that applies decides."""


def evaluate_installation(result: InstallResult, *, reboot_pending: bool | None, needs_subscription: int) -> Outcome:
    """The outcome of an installation that ended.

    Args:
        result: the inner result.
        reboot_pending: what the machine, read again afterwards, says of a reboot; ``None`` when it says nothing
            newer, so that the result's own word counts.
        needs_subscription: patches that the assessment listed and only Ubuntu Pro delivers.
    """
    reported = result.error.reported if result.error is not None else []
    lacks_only_subscription = _lacks_only_subscription(result.failed_patch_count, reported, needs_subscription)
    if lacks_only_subscription:
        needs_subscription = max(needs_subscription, result.failed_patch_count)
    if reboot_pending is None:
        reboot_pending = result.reboot_status in (RebootStatus.REQUIRED, RebootStatus.STARTED)
    ended = _Installation(result, reboot_pending, needs_subscription, lacks_only_subscription, reported)
    return next(rule.outcome(ended) for rule in _INSTALLATION_RULES if rule.applies(ended))


def _lacks_only_subscription(failed: int, reported: Sequence[ReportedError], needs_subscription: int) -> bool:
    """Whether missing Ubuntu Pro explains every patch that failed: the agent counts those patches as failed.

    Anything else that the agent reports, beside what is known to be information, is a failure of the machine.
    """
    told = [each.count for each in reported if each.code.casefold() == ESM_REQUIRED]
    if not told or not all(each.is_informational for each in reported):
        return False
    # The assessment's list may have been cut, or be of before the installation: the agent's own number counts as well.
    return 0 < failed <= needs_subscription or (failed > 0 and failed in told)


def evaluate_restart(is_ready: bool, reboot_pending: bool | None, installed: int) -> Outcome:
    """The outcome of a machine whose patches are in and that was restarted apart from the installation.

    Args:
        is_ready: whether it runs and its agent reports, some time after the restart.
        reboot_pending: what it says of a reboot in words newer than the restart; ``None`` when it says nothing.
        installed: how many patches the installation brought.
    """
    if not is_ready:
        return restart_failed(installed, "it does not report since its restart")
    if reboot_pending:
        return Outcome.of(
            OutcomeKind.REBOOT_REQUIRED,
            Reason.REBOOT_PENDING,
            f"{_are_installed(installed)} and the machine was restarted; another reboot is pending.",
        )
    return Outcome.of(OutcomeKind.PATCHED, Reason.OK, f"{_are_installed(installed)} and the machine was restarted.")


def restart_failed(installed: int, why: str) -> Outcome:
    """The outcome of a machine whose patches are in and whose restart did not work."""
    return Outcome.of(
        OutcomeKind.REBOOT_REQUIRED,
        Reason.REBOOT_FAILED,
        f"{_are_installed(installed)}, but the restart failed ({why}): restart the machine.",
    )


def not_restarted(installed: int, why: str) -> Outcome:
    """The outcome of a machine whose patches are in and that could not even be asked to restart."""
    return Outcome.of(
        OutcomeKind.REBOOT_REQUIRED, Reason.REBOOT_PENDING, f"{_are_installed(installed)}; it was not restarted: {why}"
    )


def may_retry(failure: ArmFailure, attempt: int) -> bool:
    """Whether an operation that Azure accepted and then failed may be tried once more. ``attempt`` counts from 1."""
    return classify(failure).kind is ErrorClass.RETRY_LATER and attempt < MAX_ATTEMPTS


def failed(failure: ArmFailure) -> Outcome:
    """The outcome of an operation that Azure accepted and then failed: something was done, so it is never skipped
    unless Azure does not support the machine at all."""
    verdict = classify(failure)
    outcome = verdict.to_outcome(failure)
    if verdict.kind in (ErrorClass.UNSUPPORTED, ErrorClass.GONE, ErrorClass.NOT_RUNNING):
        return outcome
    return outcome.model_copy(update={"outcome": OutcomeKind.FAILED})


def gone(installed: int) -> Outcome:
    """The outcome of a machine that was deleted after its patches were installed, as autoscale does with members."""
    return Outcome.skipped(
        Reason.NOT_FOUND, f"The machine no longer exists: it was deleted after {_were_installed(installed)}."
    )


def past_deadline() -> Outcome:
    return Outcome.of(
        OutcomeKind.TIMED_OUT,
        Reason.DEADLINE,
        "The operation did not end within its duration and the reserve for a reboot; look at the machine.",
    )


def left_running() -> Outcome:
    """The outcome of a machine whose installation still ran when the run was stopped."""
    return Outcome.of(
        OutcomeKind.LEFT_RUNNING,
        Reason.CANCELED_BY_USER,
        "The run was cancelled while the guest was installing. Azure cannot abort that: it goes on by itself.",
    )


def lost(failure: ArmFailure | None) -> Outcome:
    """The outcome when neither the operation nor the machine tells how an accepted operation ended."""
    return Outcome.of(
        OutcomeKind.UNKNOWN,
        Reason.OPERATION_LOST,
        "Azure accepted the operation, but no longer reports its result; look at the machine."
        + (f" ({failure.text})" if failure else ""),
    )


def unsettled(failure: ArmFailure | None, *, is_shown: bool = False) -> Outcome:
    """The outcome when Azure may have accepted the call, and the machine does not tell.

    Args:
        failure: the answer of Azure, or why the machine could not be asked.
        is_shown: the machine shows an operation that began at about the time of the call.
    """
    shown = "an operation began on the machine at that time, and nothing tells whose it is"
    why = shown if is_shown else "the machine could not be asked"
    return Outcome.of(
        OutcomeKind.UNKNOWN,
        Reason.OPERATION_LOST,
        f"Azure may have accepted the call: {why}; look at the machine." + (f" ({failure.text})" if failure else ""),
    )


def left_over(stage: Stage, outcome: Outcome) -> Outcome:
    """The outcome of a machine that the run ends without: ``outcome`` unless more than an assessment was done."""
    match stage:
        case Stage.INSTALLED:
            return Outcome.of(
                OutcomeKind.REBOOT_REQUIRED,
                Reason.REBOOT_PENDING,
                "The patches are installed, but the run ended before the machine was restarted: restart it.",
            )
        case Stage.INSTALLING | Stage.VERIFYING | Stage.RESTARTING:
            return Outcome.of(
                OutcomeKind.UNKNOWN,
                Reason.INTERNAL,
                "The run ended while this machine was in progress, and recorded no result; look at the machine.",
            )
        case _:
            return outcome


def window_closed(needed: timedelta | None = None) -> Outcome:
    """The outcome of a machine that the window leaves no time for; ``needed`` is what one installation takes there."""
    least = f" (one needs {format_duration(needed)})" if needed else ""
    return Outcome.skipped(
        Reason.WINDOW_CLOSED, f"The rest of the window is too short to start an installation{least}."
    )


def _bad_result(what: str, status: PatchOperationStatus, error: ApiError | None, *, failed: int = 0) -> Outcome:
    failure = failure_of_error(200, _without_information(error).model_dump() if error else {})
    if status in (PatchOperationStatus.UNKNOWN, PatchOperationStatus.IN_PROGRESS):
        return Outcome.of(
            OutcomeKind.UNKNOWN,
            Reason.OPERATION_LOST,
            f"The {what} ended with the status {status.value} and no result; look at the machine." + _reported(error),
        )
    verdict = classify(failure)
    if failed and verdict.reason is Reason.OPERATION_FAILED:
        return Outcome.of(OutcomeKind.FAILED, Reason.PATCHES_FAILED, f"{_patches(failed)} failed." + _reported(error))
    if not (error and error.is_error):
        return Outcome.of(OutcomeKind.FAILED, Reason.OPERATION_FAILED, f"The {what} failed; Azure gave no reason.")
    return Outcome.of(OutcomeKind.FAILED, verdict.reason, f"The {what} failed: {verdict.sentence} ({failure.text})")


def _patches(count: int) -> str:
    return "1 patch" if count == 1 else f"{count} patches"


def _are(count: int) -> str:
    return "1 is" if count == 1 else f"{count} are"


def _were_installed(count: int) -> str:
    return f"{_patches(count)} {'was' if count == 1 else 'were'} installed"


def _are_installed(count: int) -> str:
    return f"{_patches(count)} {'is' if count == 1 else 'are'} installed"


def _without_information(error: ApiError) -> ApiError:
    """The error without details that explain no failure, unless there is nothing else in it."""
    problems = [
        detail
        for detail in error.details
        if not ReportedError(code=detail.code, message=detail.message).is_informational
    ]
    return error.model_copy(update={"details": problems}) if problems else error


def _remarks(reported: Sequence[ReportedError]) -> str:
    """What was reported beside a good result and is not known to be information, so that a new code stays visible."""
    texts = [each.text for each in reported if not each.is_informational]
    return f" Azure reports: {'; '.join(texts)}" if texts else ""


def _reported(error: ApiError | None) -> str:
    return f" Azure reports: {error.sentence}" if error is not None and error.is_error else ""
