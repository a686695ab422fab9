"""From a result to an outcome: two levels of status, and nothing unknown is ever called good."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.errors import read_failure
from patchwave.domain.azure.operation import read_operation
from patchwave.domain.azure.patch_results import AssessResult, InstallResult, PatchOperationStatus, RebootStatus
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.runs import outcome_rules
from patchwave.domain.runs.error_budget import counts_as_failure
from patchwave.domain.runs.machine_record import Stage
from tests.support.azure_bodies import (
    ESM_ERROR,
    LINUX_CLEAN,
    WINDOWS_CLEAN,
    assessment,
    ended,
    esm_patch,
    failed,
    installation,
    linux_patch,
    refusal,
)

GOOD = {OutcomeKind.PATCHED, OutcomeKind.PATCHED_WITH_WARNINGS, OutcomeKind.NOTHING_TO_INSTALL}


def installed(*, reboot_pending: bool | None = None, needs_subscription: int = 0, **fields: Any) -> Outcome:
    """The outcome of an installation whose result arrives inside an operation that succeeded."""
    result = InstallResult.model_validate(read_operation(200, ended(installation(**fields))).result)
    return outcome_rules.evaluate_installation(
        result, reboot_pending=reboot_pending, needs_subscription=needs_subscription
    )


def error(*codes: str) -> dict[str, Any]:
    return {
        "code": "1",
        "message": f"{len(codes)} error/s reported.",
        "details": [{"code": code, "message": "words"} for code in codes],
    }


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        ({}, "patched", "ok"),
        ({"error": None}, "patched", "ok"),
        ({"error": WINDOWS_CLEAN}, "patched", "ok"),
        ({"rebootStatus": "Completed"}, "patched", "ok"),
        ({"installedPatchCount": 0, "notSelectedPatchCount": 5}, "nothing_to_install", "no_pending_patches"),
        ({"pendingPatchCount": 2}, "patched_with_warnings", "completed_with_warnings"),
        ({"status": "CompletedWithWarnings"}, "patched_with_warnings", "completed_with_warnings"),
        ({"rebootStatus": "Required"}, "reboot_required", "reboot_pending"),
        ({"rebootStatus": "Started"}, "reboot_required", "reboot_pending"),
        ({"rebootStatus": "Failed"}, "reboot_required", "reboot_failed"),
        ({"failedPatchCount": 1}, "failed", "patches_failed"),
        ({"status": "Failed"}, "failed", "operation_failed"),
        ({"status": "Failed", "failedPatchCount": 2}, "failed", "patches_failed"),
        ({"status": "Failed", "error": error("NEWER_OPERATION_SUPERSEDED")}, "failed", "superseded"),
        ({"status": "Failed", "error": error("PACKAGE_MANAGER_FAILURE")}, "failed", "operation_failed"),
        ({"status": "Failed", "error": error("CL_AGENT_TOO_OLD")}, "failed", "unsupported"),
        ({"status": "Failed", "maintenanceWindowExceeded": True}, "timed_out", "window_exceeded"),
        ({"status": "Succeeded", "maintenanceWindowExceeded": True}, "timed_out", "window_exceeded"),
        ({"status": "Unknown"}, "unknown", "operation_lost"),
        ({"status": "InProgress"}, "unknown", "operation_lost"),
        ({"status": "Excellent"}, "unknown", "operation_lost"),
        ({"status": None}, "unknown", "operation_lost"),
    ],
)
def test_installations_and_their_outcomes(fields: dict[str, Any], kind: str, reason: str) -> None:
    outcome = installed(**fields)
    assert (outcome.outcome.value, outcome.reason.value) == (kind, reason)
    assert outcome.message


def test_point_17_success_with_ubuntu_pro_missing_is_a_warning() -> None:
    outcome = installed(error=ESM_ERROR, needs_subscription=133)
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.PATCHED_WITH_WARNINGS, Reason.SUBSCRIPTION_REQUIRED)
    assert "133" in outcome.message
    result = AssessResult.model_validate(
        assessment(criticalAndSecurityPatchCount=2, availablePatches=[linux_patch(), esm_patch()], error=ESM_ERROR)
    )
    assert outcome_rules.evaluate_assessment(result) is None
    assert outcome_rules.nothing_to_install(result.summarize()) is None


@pytest.mark.parametrize("status", ["Succeeded", "CompletedWithWarnings", "Failed"])
def test_point_17_patches_that_only_ubuntu_pro_delivers_may_be_counted_as_failed(status: str) -> None:
    outcome = installed(status=status, failedPatchCount=3, error=ESM_ERROR, needs_subscription=3)
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.PATCHED_WITH_WARNINGS, Reason.SUBSCRIPTION_REQUIRED)


@pytest.mark.parametrize(
    ("fields", "needs_subscription"),
    [
        ({"failedPatchCount": 4, "error": ESM_ERROR}, 3),
        ({"failedPatchCount": 3, "error": ESM_ERROR}, 0),
        ({"failedPatchCount": 0, "error": ESM_ERROR}, 0),
        ({"failedPatchCount": 0, "error": ESM_ERROR}, 3),
        ({"failedPatchCount": 3, "error": LINUX_CLEAN}, 3),
        ({"failedPatchCount": 3, "error": error("UA_ESM_REQUIRED", "PACKAGE_MANAGER_FAILURE")}, 3),
    ],
)
def test_point_17_a_failure_that_ubuntu_pro_does_not_explain_stays_one(
    fields: dict[str, Any], needs_subscription: int
) -> None:
    assert installed(status="Failed", needs_subscription=needs_subscription, **fields).outcome is OutcomeKind.FAILED


@pytest.mark.parametrize(
    ("status", "kind"),
    [("CompletedWithWarnings", OutcomeKind.PATCHED_WITH_WARNINGS), ("Failed", OutcomeKind.FAILED)],
)
def test_point_18_the_inner_status_counts_when_the_operation_succeeded(status: str, kind: OutcomeKind) -> None:
    assert installed(status=status).outcome is kind
    bad = outcome_rules.evaluate_assessment(AssessResult.model_validate(assessment(status=status)))
    assert (bad is None) == (status != "Failed")


def test_point_19_a_machine_with_nothing_but_ubuntu_pro_patches_gets_no_installation() -> None:
    result = AssessResult.model_validate(
        assessment(criticalAndSecurityPatchCount=2, availablePatches=[esm_patch("a"), esm_patch("b")])
    )
    outcome = outcome_rules.nothing_to_install(result.summarize())
    assert outcome is not None
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.PATCHED_WITH_WARNINGS, Reason.SUBSCRIPTION_REQUIRED)


def test_point_20_a_list_that_was_cut_never_ends_a_machine_early() -> None:
    result = AssessResult.model_validate(
        assessment(criticalAndSecurityPatchCount=9, availablePatches=[esm_patch("a"), esm_patch("b")])
    )
    assert outcome_rules.nothing_to_install(result.summarize()) is None


def test_point_23_nothing_installed_is_success() -> None:
    assert installed(installedPatchCount=0).outcome is OutcomeKind.NOTHING_TO_INSTALL


@pytest.mark.parametrize("word", [status.value for status in RebootStatus])
def test_point_25_the_machines_own_word_on_a_reboot_counts_more_than_the_result(word: str) -> None:
    told = installed(rebootStatus=word, reboot_pending=True)
    assert told.outcome is OutcomeKind.REBOOT_REQUIRED
    done = installed(rebootStatus=word, reboot_pending=False)
    assert done.outcome is (OutcomeKind.REBOOT_REQUIRED if word == "Failed" else OutcomeKind.PATCHED)


def test_point_26_a_window_that_was_exceeded_names_what_is_left() -> None:
    outcome = installed(status="Failed", maintenanceWindowExceeded=True, pendingPatchCount=7, installedPatchCount=2)
    assert outcome.outcome is OutcomeKind.TIMED_OUT
    assert "2 installed" in outcome.message
    assert "7 pending" in outcome.message


def test_point_16_a_generic_failure_is_retried_within_bounds() -> None:
    generic = read_failure(
        200, failed("VMGuestPatchInternalError", "An internal execution error occurred. Please retry later.")
    )
    assert [outcome_rules.may_retry(generic, attempt) for attempt in (1, 2, 3, 4)] == [True, True, False, False]
    permanent = read_failure(
        200, failed("VMGuestPatchInternalError", "CPU Architecture 'arm64' was not found in the extension repository")
    )
    assert not outcome_rules.may_retry(permanent, 1)
    assert outcome_rules.failed(permanent).outcome is OutcomeKind.SKIPPED
    assert outcome_rules.failed(generic).outcome is OutcomeKind.FAILED


def test_point_31_and_40_an_accepted_operation_can_die_of_others() -> None:
    superseded = read_failure(200, failed("X", "Execution was stopped due to a newer operation taking precedence."))
    assert outcome_rules.failed(superseded).reason is Reason.SUPERSEDED
    deleted = outcome_rules.failed(read_failure(200, failed("VMNotFound", "The VM was not found.")))
    assert (deleted.outcome, deleted.reason) == (OutcomeKind.SKIPPED, Reason.NOT_FOUND)
    stopped = outcome_rules.failed(read_failure(200, failed("ShutdownOrUnresponsive", "x")))
    assert (stopped.outcome, stopped.reason) == (OutcomeKind.SKIPPED, Reason.NOT_RUNNING)
    busy = outcome_rules.failed(read_failure(200, failed("Conflict", "x")))
    assert busy.outcome is OutcomeKind.FAILED


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        ({"criticalAndSecurityPatchCount": 0, "availablePatches": []}, "nothing_to_install", "no_pending_patches"),
        (
            {"criticalAndSecurityPatchCount": 0, "availablePatches": [], "rebootPending": True},
            "reboot_required",
            "reboot_pending",
        ),
    ],
)
def test_machines_that_need_no_installation(fields: dict[str, Any], kind: str, reason: str) -> None:
    outcome = outcome_rules.nothing_to_install(AssessResult.model_validate(assessment(**fields)).summarize())
    assert outcome is not None
    assert (outcome.outcome.value, outcome.reason.value) == (kind, reason)


def test_assess_runs_end_as_assessed_with_the_counts() -> None:
    pending = outcome_rules.assessed(AssessResult.model_validate(assessment()).summarize())
    assert (pending.outcome, pending.reason) == (OutcomeKind.ASSESSED, Reason.PATCHES_PENDING)
    assert "1 critical and security" in pending.message
    none = AssessResult.model_validate(assessment(criticalAndSecurityPatchCount=0, availablePatches=[]))
    assert outcome_rules.assessed(none.summarize()).reason is Reason.NO_PENDING_PATCHES


@pytest.mark.parametrize("status", list(PatchOperationStatus))
def test_an_assessment_is_good_only_with_the_two_words(status: PatchOperationStatus) -> None:
    bad = outcome_rules.evaluate_assessment(AssessResult.model_validate(assessment(status=status.value, error=None)))
    assert (bad is None) == (status.value in ("Succeeded", "CompletedWithWarnings"))


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (outcome_rules.past_deadline(), OutcomeKind.TIMED_OUT),
        (outcome_rules.left_running(), OutcomeKind.LEFT_RUNNING),
        (outcome_rules.lost(None), OutcomeKind.UNKNOWN),
        (outcome_rules.window_closed(), OutcomeKind.SKIPPED),
    ],
)
def test_ends_without_a_result(outcome: Outcome, kind: OutcomeKind) -> None:
    assert outcome.outcome is kind
    assert outcome.outcome not in GOOD


codes = st.sampled_from(
    ["UA_ESM_REQUIRED", "PACKAGE_LIST_TRUNCATED", "PACKAGE_MANAGER_FAILURE", "OPERATION_FAILED", "x"]
)
errors = st.none() | st.just(LINUX_CLEAN) | st.lists(codes, max_size=3).map(lambda found: error(*found))
counts = st.integers(0, 4)
results = st.fixed_dictionaries(
    {
        "status": st.sampled_from([status.value for status in PatchOperationStatus]) | st.text(max_size=12) | st.none(),
        "rebootStatus": st.sampled_from([status.value for status in RebootStatus]) | st.text(max_size=5),
        "maintenanceWindowExceeded": st.booleans(),
        "installedPatchCount": counts,
        "failedPatchCount": counts,
        "pendingPatchCount": counts,
        "error": errors,
    }
)


@given(results, st.sampled_from([None, True, False]), counts)
def test_only_two_words_of_the_inner_status_lead_to_a_good_outcome(
    fields: dict[str, Any], reboot_pending: bool | None, needs_subscription: int
) -> None:
    result = InstallResult.model_validate(installation(**fields))
    outcome = outcome_rules.evaluate_installation(
        result, reboot_pending=reboot_pending, needs_subscription=needs_subscription
    )
    details = {detail.code for detail in result.error.details} if result.error else set[str]()
    if outcome.outcome in GOOD:
        explained = (
            result.status is PatchOperationStatus.FAILED
            and outcome.reason is Reason.SUBSCRIPTION_REQUIRED
            and details <= {"UA_ESM_REQUIRED", "PACKAGE_LIST_TRUNCATED"}
            and 0 < result.failed_patch_count <= needs_subscription
        )
        assert explained or result.status.value in ("Succeeded", "CompletedWithWarnings")
        assert not result.maintenance_window_exceeded
        assert reboot_pending is not True
    if outcome.outcome in (OutcomeKind.PATCHED, OutcomeKind.NOTHING_TO_INSTALL):
        assert result.status is PatchOperationStatus.SUCCEEDED
        assert not result.failed_patch_count
        assert not result.pending_patch_count
        assert not needs_subscription
    assert Outcome.model_validate(outcome.to_wire()) == outcome


# --- restarts apart from the installation


@pytest.mark.parametrize(
    ("is_ready", "reboot_pending", "outcome", "reason"),
    [
        (True, None, OutcomeKind.PATCHED, Reason.OK),
        (True, False, OutcomeKind.PATCHED, Reason.OK),
        (True, True, OutcomeKind.REBOOT_REQUIRED, Reason.REBOOT_PENDING),
        (False, None, OutcomeKind.REBOOT_REQUIRED, Reason.REBOOT_FAILED),
        (False, False, OutcomeKind.REBOOT_REQUIRED, Reason.REBOOT_FAILED),
    ],
)
def test_a_machine_is_patched_when_it_came_back_without_a_pending_reboot(
    is_ready: bool, reboot_pending: bool | None, outcome: OutcomeKind, reason: Reason
) -> None:
    judged = outcome_rules.evaluate_restart(is_ready, reboot_pending, 3)
    assert (judged.outcome, judged.reason) == (outcome, reason)
    assert judged.message.startswith("3 patches are installed")


def test_a_failed_restart_uses_the_budgets_and_has_the_reason() -> None:
    judged = outcome_rules.restart_failed(3, "HTTP 403 AuthorizationFailed")
    assert (judged.outcome, judged.reason) == (OutcomeKind.REBOOT_REQUIRED, Reason.REBOOT_FAILED)
    assert "AuthorizationFailed" in judged.message
    assert counts_as_failure(judged.outcome, judged.reason)


@pytest.mark.parametrize(
    ("failed", "done", "sentence"),
    [
        (0, 1, "1 patch is installed."),
        (0, 3, "3 patches are installed."),
        (1, 2, "1 patch failed; 2 patches are installed."),
    ],
)
def test_counts_are_in_plain_english(failed: int, done: int, sentence: str) -> None:
    assert installed(installedPatchCount=done, failedPatchCount=failed, error=None).message == sentence


def test_one_remaining_patch_is_in_the_singular() -> None:
    pending = installed(installedPatchCount=1, pendingPatchCount=1, failedPatchCount=0, error=None)
    assert pending.message == "1 patch is installed, 1 is pending."
    unpaid = installed(installedPatchCount=2, failedPatchCount=0, error=None, needs_subscription=1)
    assert "; 1 more needs Ubuntu Pro" in unpaid.message


# --- what the agent reports beside a result


CERTIFICATES = {
    "code": "CERTIFICATE_UPDATE",
    "message": "UEFI certificate update requires hibernation to be turned off. Skipping certificate update.",
}
NOTE = {"code": "INFORMATIONAL", "message": "Success: Safely patched your VM in a AzGPS-coordinated global rollout."}
CUT = {"code": "PACKAGE_LIST_TRUNCATED", "message": "Package lists were truncated to limit reporting data volume."}
PRO = {"code": "UA_ESM_REQUIRED", "message": "1 patches requires Ubuntu Pro"}


def reporting(*details: dict[str, str]) -> dict[str, Any]:
    return {"code": "1", "message": f"{len(details)} error/s reported.", "details": list(details)}


@pytest.mark.parametrize("details", [[CERTIFICATES], [NOTE], [CUT], [CERTIFICATES, NOTE, CUT]])
def test_informational_details_leave_a_success_what_it_is(details: list[dict[str, str]]) -> None:
    for count, kind in ((3, "patched"), (0, "nothing_to_install")):
        outcome = installed(error=reporting(*details), installedPatchCount=count)
        assert outcome.outcome.value == kind
        assert "Azure reports" not in outcome.message
    assert outcome_rules.evaluate_assessment(AssessResult.model_validate(assessment(error=reporting(*details)))) is None


@pytest.mark.parametrize("status", ["Succeeded", "CompletedWithWarnings", "Failed"])
@pytest.mark.parametrize(
    "code", ["CERTIFICATE_UPDATE", "certificate_update", "INFORMATIONAL", "PACKAGE_LIST_TRUNCATED"]
)
def test_one_failure_that_is_only_ubuntu_pro_stays_a_warning_beside_other_information(status: str, code: str) -> None:
    error = reporting(PRO, {"code": code, "message": "words"})
    outcome = installed(status=status, installedPatchCount=3, failedPatchCount=1, error=error, needs_subscription=1)
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.PATCHED_WITH_WARNINGS, Reason.SUBSCRIPTION_REQUIRED)
    assert outcome.message == "3 patches are installed; 1 more needs Ubuntu Pro (Expanded Security Maintenance)."


@pytest.mark.parametrize(
    ("failures", "needs_subscription", "kind"),
    [
        # The agent's own number explains what a cut list does not show.
        (1, 0, "patched_with_warnings"),
        (2, 0, "failed"),
        (2, 2, "patched_with_warnings"),
        (3, 2, "failed"),
        (0, 2, "failed"),
    ],
)
def test_the_number_that_the_agent_reports_explains_its_failures(
    failures: int, needs_subscription: int, kind: str
) -> None:
    outcome = installed(
        status="Failed", failedPatchCount=failures, error=reporting(PRO), needs_subscription=needs_subscription
    )
    assert outcome.outcome.value == kind
    if kind == "patched_with_warnings":
        assert f"; {failures} more need" in outcome.message


def test_a_code_that_is_not_known_stays_visible_and_changes_no_success() -> None:
    error = reporting({"code": "BRAND_NEW", "message": "something else"}, CERTIFICATES)
    said = " Azure reports: BRAND_NEW: something else"
    assert installed(error=error).message == f"3 patches are installed.{said}"
    none = installed(error=error, installedPatchCount=0)
    assert none.message == f"The installation found nothing that the policy selects.{said}"
    assert none.outcome is OutcomeKind.NOTHING_TO_INSTALL
    waits = installed(error=error, rebootStatus="Required")
    assert waits.message == f"3 patches are installed; a reboot is still pending.{said}"
    unpaid = installed(error=error, needs_subscription=2)
    assert unpaid.message.endswith(f"2 more need Ubuntu Pro (Expanded Security Maintenance).{said}")
    found = AssessResult.model_validate(assessment(error=error)).summarize()
    assert outcome_rules.assessed(found).message == f"Pending patches: 1 critical and security, 0 other.{said}"
    empty = found.model_copy(update={"critical_and_security": 0})
    assert outcome_rules.assessed(empty).message == f"The assessment found no pending patches.{said}"


def test_an_error_without_details_stays_visible_too() -> None:
    assert (
        installed(error={"code": "7x", "message": "odd"}).message == "3 patches are installed. Azure reports: 7x: odd"
    )


def test_information_does_not_explain_a_failure() -> None:
    """The words of a note must not decide what a failure is taken for."""
    misleading = {"code": "CERTIFICATE_UPDATE", "message": "Execution was stopped due to a newer operation"}
    outcome = installed(
        status="Failed", error=reporting(misleading, {"code": "PACKAGE_MANAGER_FAILURE", "message": "exit code 100"})
    )
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.FAILED, Reason.OPERATION_FAILED)
    assert "exit code 100" in outcome.message
    alone = installed(status="Failed", error=reporting(misleading))
    assert "CERTIFICATE_UPDATE" in alone.message


# --- each end, to the letter


LEFT = Outcome.skipped(Reason.NOT_APPROVED, "The ring was not approved.")


@pytest.mark.parametrize(
    ("stage", "kind", "reason", "message"),
    [
        ("waiting", "skipped", "not_approved", "The ring was not approved."),
        ("assessing", "skipped", "not_approved", "The ring was not approved."),
        ("ready", "skipped", "not_approved", "The ring was not approved."),
        (
            "installed",
            "reboot_required",
            "reboot_pending",
            "The patches are installed, but the run ended before the machine was restarted: restart it.",
        ),
        *(
            (
                stage,
                "unknown",
                "internal",
                "The run ended while this machine was in progress, and recorded no result; look at the machine.",
            )
            for stage in ("installing", "verifying", "restarting")
        ),
    ],
)
def test_what_a_run_leaves_over_is_judged_by_its_stage(stage: str, kind: str, reason: str, message: str) -> None:
    outcome = outcome_rules.left_over(Stage(stage), LEFT)
    assert (outcome.outcome.value, outcome.reason.value, outcome.message) == (kind, reason, message)


@pytest.mark.parametrize(
    ("outcome", "kind", "reason", "message"),
    [
        (
            outcome_rules.past_deadline(),
            "timed_out",
            "deadline",
            "The operation did not end within its duration and the reserve for a reboot; look at the machine.",
        ),
        (
            outcome_rules.left_running(),
            "left_running",
            "canceled_by_user",
            "The run was cancelled while the guest was installing. Azure cannot abort that: it goes on by itself.",
        ),
        (
            outcome_rules.lost(None),
            "unknown",
            "operation_lost",
            "Azure accepted the operation, but no longer reports its result; look at the machine.",
        ),
        (
            outcome_rules.window_closed(),
            "skipped",
            "window_closed",
            "The rest of the window is too short to start an installation.",
        ),
        (
            outcome_rules.window_closed(timedelta(minutes=90)),
            "skipped",
            "window_closed",
            "The rest of the window is too short to start an installation (one needs PT1H30M).",
        ),
        (
            outcome_rules.not_restarted(2, "The machine is stopped."),
            "reboot_required",
            "reboot_pending",
            "2 patches are installed; it was not restarted: The machine is stopped.",
        ),
        (
            outcome_rules.restart_failed(1, "no answer"),
            "reboot_required",
            "reboot_failed",
            "1 patch is installed, but the restart failed (no answer): restart the machine.",
        ),
        (
            outcome_rules.evaluate_restart(is_ready=True, reboot_pending=True, installed=1),
            "reboot_required",
            "reboot_pending",
            "1 patch is installed and the machine was restarted; another reboot is pending.",
        ),
        (
            outcome_rules.evaluate_restart(is_ready=True, reboot_pending=None, installed=2),
            "patched",
            "ok",
            "2 patches are installed and the machine was restarted.",
        ),
        (
            outcome_rules.evaluate_restart(is_ready=False, reboot_pending=True, installed=2),
            "reboot_required",
            "reboot_failed",
            "2 patches are installed, but the restart failed (it does not report since its restart): restart the"
            " machine.",
        ),
        (
            outcome_rules.nothing_selected(0),
            "nothing_to_install",
            "no_pending_patches",
            "The assessment found no pending patches.",
        ),
    ],
)
def test_ends_have_a_sentence_that_a_person_can_act_on(outcome: Outcome, kind: str, reason: str, message: str) -> None:
    assert (outcome.outcome.value, outcome.reason.value, outcome.message) == (kind, reason, message)


@pytest.mark.parametrize(
    ("fields", "reboot_pending", "kind", "reason", "message"),
    [
        (
            {"maintenanceWindowExceeded": True, "installedPatchCount": 2, "pendingPatchCount": 7},
            None,
            "timed_out",
            "window_exceeded",
            "The time given was not enough: 2 installed, 7 pending. Give a longer maximumDuration or window.",
        ),
        (
            {"rebootStatus": "Failed", "status": "Failed"},
            None,
            "reboot_required",
            "reboot_failed",
            "The patches are installed, but the reboot failed: restart the machine.",
        ),
        ({"rebootStatus": "Failed", "failedPatchCount": 1}, None, "failed", "patches_failed", None),
        (
            {"status": "Failed", "failedPatchCount": 2, "error": None},
            None,
            "failed",
            "patches_failed",
            "2 patches failed.",
        ),
        (
            {"status": "Failed", "error": None},
            None,
            "failed",
            "operation_failed",
            "The installation failed; Azure gave no reason.",
        ),
        (
            {"status": "Failed", "error": LINUX_CLEAN},
            None,
            "failed",
            "operation_failed",
            "The installation failed; Azure gave no reason.",
        ),
        (
            {"status": "Unknown", "error": {"code": "X", "message": "y"}},
            None,
            "unknown",
            "operation_lost",
            "The installation ended with the status Unknown and no result; look at the machine. Azure reports: X; y",
        ),
        (
            {"status": "InProgress", "error": None},
            None,
            "unknown",
            "operation_lost",
            "The installation ended with the status InProgress and no result; look at the machine.",
        ),
        (
            {"installedPatchCount": 1, "failedPatchCount": 2, "error": {"code": "X", "message": "y"}},
            None,
            "failed",
            "patches_failed",
            "2 patches failed; 1 patch is installed. Azure reports: X; y",
        ),
        (
            {"status": "CompletedWithWarnings", "error": {"code": "X", "message": "y"}},
            None,
            "patched_with_warnings",
            "completed_with_warnings",
            "3 patches are installed, 0 are pending. Azure reports: X; y",
        ),
        (
            {"rebootStatus": "NotNeeded"},
            True,
            "reboot_required",
            "reboot_pending",
            "3 patches are installed; a reboot is still pending.",
        ),
        ({"rebootStatus": "Required"}, False, "patched", "ok", "3 patches are installed."),
    ],
)
def test_messages_of_installations(
    fields: dict[str, Any], reboot_pending: bool | None, kind: str, reason: str, message: str | None
) -> None:
    outcome = installed(reboot_pending=reboot_pending, **fields)
    assert (outcome.outcome.value, outcome.reason.value) == (kind, reason)
    assert message is None or outcome.message == message


def test_message_of_a_bad_assessment() -> None:
    failure = {"code": "1", "message": "m", "details": [{"code": "PACKAGE_MANAGER_FAILURE", "message": "code 100"}]}
    bad = outcome_rules.evaluate_assessment(AssessResult.model_validate(assessment(status="Failed", error=failure)))
    assert bad
    assert (bad.outcome.value, bad.reason.value) == ("failed", "operation_failed")
    assert bad.message.startswith("The assessment failed: Azure refused or failed the operation; the text says why. (")
    assert "code 100" in bad.message
    silent = outcome_rules.evaluate_assessment(AssessResult.model_validate({"availablePatches": []}))
    assert silent
    assert silent.message == ("The assessment ended with the status Unknown and no result; look at the machine.")


def test_what_was_lost_names_the_last_failure() -> None:
    failure = read_failure(404, refusal("ResourceNotFound", "gone"))
    assert outcome_rules.lost(failure).message.endswith(f"look at the machine. ({failure.text})")
    assert "ResourceNotFound" in outcome_rules.lost(failure).message


def test_a_failed_operation_keeps_the_skip_of_what_azure_does_not_support() -> None:
    kinds = {
        "VMNotFound": "skipped",
        "ShutdownOrUnresponsive": "skipped",
        "Conflict": "failed",
        "AuthorizationFailed": "failed",
        "BrandNew": "failed",
    }
    for code, kind in kinds.items():
        assert outcome_rules.failed(read_failure(200, failed(code, "words"))).outcome.value == kind


def test_one_patch_behind_ubuntu_pro_is_enough() -> None:
    one = {"code": "1", "message": "m", "details": [{"code": "ua_esm_required", "message": "words"}]}
    explained = installed(status="Failed", failedPatchCount=1, error=one, needs_subscription=1)
    assert explained.outcome is OutcomeKind.PATCHED_WITH_WARNINGS
    assert installed(status="Failed", failedPatchCount=1, error=one, needs_subscription=0).outcome is OutcomeKind.FAILED
    unclear = installed(status="Unknown", failedPatchCount=1, error=one, needs_subscription=1)
    assert unclear.outcome is OutcomeKind.UNKNOWN, "an unknown word never means success"
