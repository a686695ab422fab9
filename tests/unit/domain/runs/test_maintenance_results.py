"""Update Manager's word on a machine, compared with the result of its installation and the assessment afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.core.documents import Json
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary, ReportedError
from patchwave.domain.maintenance.occurrence import MaintenanceOccurrence
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.maintenance_results import (
    InstallationRow,
    MaintenanceUpdateRow,
    awaits_result,
    conclude,
    has_status_mismatch,
    is_in_progress,
    read_patch,
)
from tests.support.occurrence_samples import CONFIGURATION, ID, START

MACHINE = MachineId.parse(
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg-web"
    "/providers/Microsoft.Compute/virtualMachines/web-01"
)
RESULT = f"{MACHINE.text}/patchInstallationResults/8f1c2d3e-0000-4000-8000-000000000001"
INSTALLED = InstallationSummary(status="Succeeded", installed=3, reboot_status="NotNeeded")
CLEAN = AssessmentSummary(status="Succeeded")
MISSING = AssessmentSummary(status="Succeeded", critical_and_security=2)


def occurrence(**changes: Any) -> MaintenanceOccurrence:
    times = dict.fromkeys(("pre_deadline", "cancel_deadline"), START - timedelta(minutes=10))
    fields = {"id": ID, "configuration_id": CONFIGURATION, "starts_at": START, "ends_at": START, "post_deadline": START}
    return MaintenanceOccurrence.model_validate(fields | times | changes)


def machine(**fields: Any) -> MachineRecord:
    own = {"id": MACHINE.text, "key": MACHINE.key, "name": "web-01", "subscription_id": "s", "resource_group": "rg-web"}
    return MachineRecord.model_validate(own | fields)


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        ({"update_manager_status": "Succeeded", "installation": INSTALLED, "assessment": CLEAN}, "patched", "ok"),
        ({"update_manager_status": "Succeeded", "installation": INSTALLED}, "patched", "ok"),
        (
            {"update_manager_status": "Succeeded", "installation": INSTALLED, "assessment": MISSING},
            "patched_with_warnings",
            "status_mismatch",
        ),
        (
            {
                "update_manager_status": "Succeeded",
                "installation": INSTALLED,
                "assessment": AssessmentSummary(status="Succeeded", reboot_pending=True),
            },
            "reboot_required",
            "reboot_pending",
        ),
        (
            {
                "update_manager_status": "Succeeded",
                "installation": InstallationSummary(status="Failed", installed=1, failed=2),
            },
            "failed",
            "patches_failed",
        ),
        ({"update_manager_status": "Succeeded", "assessment": CLEAN}, "nothing_to_install", "no_pending_patches"),
        ({"update_manager_status": "Succeeded", "assessment": MISSING}, "failed", "status_mismatch"),
        ({"update_manager_status": "Succeeded"}, "failed", "status_mismatch"),
        ({"update_manager_status": "NoUpdatesPending"}, "nothing_to_install", "no_pending_patches"),
        ({"update_manager_status": "ShutdownOrUnresponsive"}, "skipped", "not_running"),
        ({"update_manager_status": "ShutdownOrUnresponsive", "power_state": "hibernated"}, "skipped", "hibernated"),
        ({"power_state": "hibernated"}, "skipped", "hibernated"),
        ({"update_manager_status": "Pending", "power_state": "hibernated"}, "skipped", "hibernated"),
        ({"update_manager_status": "Failed", "power_state": "hibernated"}, "failed", "update_manager_failed"),
        ({"update_manager_status": "Cancelled"}, "canceled", "occurrence_canceled"),
        ({"update_manager_status": "Failed"}, "failed", "update_manager_failed"),
        ({"update_manager_status": "InProgress"}, "unknown", "result_missing"),
        ({}, "unknown", "result_missing"),
    ],
)
def test_each_word_has_its_outcome(fields: Json, kind: str, reason: str) -> None:
    outcome = conclude(occurrence(), machine(**fields))
    assert (outcome.outcome.value, outcome.reason.value) == (kind, reason)
    ended = machine(**fields, outcome=outcome.outcome)
    says_done = fields.get("update_manager_status") == "Succeeded"
    assert has_status_mismatch(ended) == (says_done and outcome.outcome.needs_person)


def test_of_a_cancelled_run_only_the_machine_that_failed_is_skipped() -> None:
    canceled = occurrence(canceled_at=START - timedelta(minutes=20))
    guilty = conclude(canceled, machine(pre_tasks_error="The snapshot failed."))
    assert (guilty.outcome, guilty.reason) == (OutcomeKind.SKIPPED, Reason.HOOK_FAILED)
    other = conclude(canceled, machine(pre_tasks_done=True))
    assert (other.outcome, other.reason) == (OutcomeKind.CANCELED, Reason.OCCURRENCE_CANCELED)
    raced = conclude(canceled, machine(installation=INSTALLED, update_manager_status="Succeeded"))
    assert raced.outcome is OutcomeKind.PATCHED, "what was installed was installed"


def test_earlier_failures_and_reports_of_azure_are_in_the_outcome() -> None:
    bad = InstallationSummary(status="Failed", failed=1)
    told = conclude(
        occurrence(),
        machine(installation=bad, pre_tasks_error="The script failed.", update_manager_error="PACKAGE_MANAGER_FAILURE"),
    )
    assert "The script failed." in told.message
    assert "PACKAGE_MANAGER_FAILURE" in told.message


@given(
    st.sampled_from(["", "Succeeded", "Failed", "Cancelled", "InProgress", "Anything", "RetryLater"]),
    st.sampled_from(["Succeeded", "Failed", "CompletedWithWarnings", "Unknown", "None"]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.booleans(),
)
def test_a_machine_that_misses_patches_is_never_called_good(
    word: str, status: str, failed: int, missing: int, reboot_pending: bool
) -> None:
    installation = None if status == "None" else InstallationSummary(status=status, installed=1, failed=failed)
    after = AssessmentSummary(status="Succeeded", critical_and_security=missing, reboot_pending=reboot_pending)
    outcome = conclude(occurrence(), machine(update_manager_status=word, installation=installation, assessment=after))
    assert outcome.message
    if missing or (failed and installation is not None):
        assert outcome.outcome.needs_person or word == "Cancelled"


def test_rows_of_resource_graph_are_read_whatever_they_lack() -> None:
    row = {"id": "x", "resourceId": MACHINE.folded, "properties": {"status": "Succeeded"}}
    assert MaintenanceUpdateRow.read(row) == (
        MACHINE,
        MaintenanceUpdateRow(resource_id=MACHINE.folded, status="Succeeded"),
    )
    assert MaintenanceUpdateRow.read({"properties": {"resourceId": MACHINE.text}}) == (
        MACHINE,
        MaintenanceUpdateRow(resource_id=MACHINE.text),
    )
    assert MaintenanceUpdateRow.read({"id": "x", "properties": None}) is None
    found = InstallationRow.model_validate(
        {
            "id": RESULT.lower(),
            "properties": {
                "status": "CompletedWithWarnings",
                "installedPatchCount": 4,
                "rebootStatus": "Required",
                "startDateTime": "2026-11-21T03:10:00Z",
                "errorDetails": {
                    "code": "1",
                    "details": [{"code": "REBOOT", "message": "Machine is Required to reboot"}],
                },
            },
        }
    )
    assert found.machine == MACHINE
    assert found.is_over
    assert found.result.installed_patch_count == 4
    assert found.result.error is not None
    assert found.result.error.sentence == "REBOOT: Machine is Required to reboot"
    assert found.result.start_date_time == datetime(2026, 11, 21, 3, 10, tzinfo=UTC)
    assert not InstallationRow.model_validate({"id": RESULT, "properties": {"status": "InProgress"}}).is_over
    assert InstallationRow.model_validate({"id": "nonsense"}).machine is None


def test_a_patch_belongs_to_its_installation() -> None:
    properties = {"patchName": "openssl", "version": "3.0.2", "installationState": "Installed"}
    parent, patch = read_patch({"id": f"{RESULT}/softwarePatches/openssl-3.0.2", "properties": properties})
    assert parent == RESULT.lower()
    assert (patch.name, patch.patch_id, patch.installation_state.value) == ("openssl", "openssl-3.0.2", "Installed")


def test_results_are_awaited_where_there_will_be_one() -> None:
    assert awaits_result(machine())
    assert awaits_result(machine(update_manager_status="Succeeded"))
    assert not awaits_result(machine(update_manager_status="Succeeded", installation=INSTALLED))
    assert not awaits_result(machine(update_manager_status="Cancelled"))


def test_a_machine_without_a_last_word_may_still_be_patched() -> None:
    assert is_in_progress(machine())
    assert is_in_progress(machine(update_manager_status="InProgress"))
    assert not is_in_progress(machine(update_manager_status="InProgress", installation=INSTALLED))
    assert not any(is_in_progress(machine(update_manager_status=word)) for word in ("Succeeded", "Failed", "Cancelled"))


def test_a_failure_that_is_only_ubuntu_pro_is_a_warning_of_a_scheduled_run_too() -> None:
    esm = ReportedError(code="UA_ESM_REQUIRED", message="2 patches requires Ubuntu Pro", count=2)
    kept = InstallationSummary(status="Failed", installed=1, failed=2, errors=[esm])
    outcome = conclude(occurrence(), machine(update_manager_status="Failed", installation=kept))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.PATCHED_WITH_WARNINGS, Reason.SUBSCRIPTION_REQUIRED)
    plain = conclude(
        occurrence(), machine(update_manager_status="Failed", installation=kept.model_copy(update={"errors": []}))
    )
    assert plain.outcome is OutcomeKind.FAILED


def test_an_error_that_azure_reports_too_is_named_once() -> None:
    error = ReportedError(code="PACKAGE_MANAGER_FAILURE", message="exit code 100")
    kept = InstallationSummary(status="Failed", failed=1, errors=[error])
    outcome = conclude(
        occurrence(), machine(installation=kept, update_manager_error="PACKAGE_MANAGER_FAILURE: exit code 100")
    )
    assert outcome.message.count("exit code 100") == 1


def test_a_reboot_that_the_assessment_does_not_mention_is_read_from_the_installation() -> None:
    kept = INSTALLED.model_copy(update={"reboot_status": "Required"})
    silent = AssessmentSummary.model_validate({"status": "Succeeded"})
    outcome = conclude(occurrence(), machine(update_manager_status="Succeeded", installation=kept, assessment=silent))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.REBOOT_REQUIRED, Reason.REBOOT_PENDING)
