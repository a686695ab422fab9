"""What assess and install calls bring back, in the documented form and in the recorded one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.patch_results import (
    ApiError,
    AssessResult,
    AvailablePatch,
    InstallResult,
    PatchInstallationState,
    PatchOperationStatus,
    PatchSummary,
    RebootBehavior,
    RebootStatus,
)
from domain.run import AssessmentSummary
from tests.unit.wire_samples import (
    DOCUMENTED_ASSESSMENT,
    DOCUMENTED_INSTALLATION,
    ESM_ERROR,
    LINUX_CLEAN,
    OPERATION,
    WINDOWS_CLEAN,
    assessment,
    esm_patch,
    installation,
    linux_patch,
)


def test_the_documented_assessment_is_read_in_full() -> None:
    result = AssessResult.model_validate(json.loads(DOCUMENTED_ASSESSMENT))
    assert result.status is PatchOperationStatus.SUCCEEDED
    assert result.assessment_activity_id == OPERATION
    assert result.reboot_pending
    assert (result.critical_and_security_patch_count, result.other_patch_count) == (1, 2)
    assert result.start_date_time == datetime(2020, 4, 24, 21, 2, 4, 255615, UTC)
    assert result.error is None
    first, second = result.available_patches
    assert first.kb_id == "2267602"
    assert first.classifications == ["Definition Updates"]
    assert (first.reboot_behavior, second.reboot_behavior) == (
        RebootBehavior.NEVER_REBOOTS,
        RebootBehavior.CAN_REQUEST_REBOOT,
    )
    assert first.published_date == datetime(2018, 11, 7, tzinfo=UTC)
    # The sample itself counts three patches and lists two.
    assert result.list_is_partial
    assert result.summarize().installable == 3


def test_the_documented_installation_is_read_in_full() -> None:
    result = InstallResult.model_validate(json.loads(DOCUMENTED_INSTALLATION))
    assert result.status is PatchOperationStatus.SUCCEEDED
    assert result.reboot_status is RebootStatus.COMPLETED
    assert (result.installed_patch_count, result.pending_patch_count, result.failed_patch_count) == (3, 2, 0)
    assert [patch.installation_state for patch in result.patches] == [
        PatchInstallationState.INSTALLED,
        PatchInstallationState.PENDING,
    ]
    summary = result.summarize()
    assert (summary.installed, summary.pending, summary.activity_id) == (3, 2, OPERATION)


@pytest.mark.parametrize("error", [None, LINUX_CLEAN, WINDOWS_CLEAN, {}, "absent"])
def test_point_22_an_error_object_on_clean_success_is_no_error(error: Any) -> None:
    result = AssessResult.model_validate({"status": "Succeeded", "error": error})
    assert result.error is None or not result.error.is_error


@pytest.mark.parametrize("error", [ESM_ERROR, {"code": "2"}, {"code": "0", "details": [{"code": "ERROR"}]}])
def test_an_error_that_reports_something_is_one(error: dict[str, Any]) -> None:
    assert ApiError.model_validate(error).is_error


def test_the_sentence_of_an_error_leaves_out_bare_digits() -> None:
    sentence = ApiError.model_validate(ESM_ERROR).sentence
    assert sentence.startswith("1 error/s reported.")
    assert "UA_ESM_REQUIRED: 133 patches requires Ubuntu Pro" in sentence
    assert ApiError.model_validate({"code": "X", "message": "y"}).sentence == "X; y"


def test_point_19_patches_behind_ubuntu_pro_are_not_counted_as_installable() -> None:
    result = AssessResult.model_validate(
        assessment(
            criticalAndSecurityPatchCount=3,
            otherPatchCount=1,
            availablePatches=[
                linux_patch(),
                esm_patch("libc6"),
                linux_patch("vim", version="UA_ESM_Required"),
                linux_patch("tzdata", classifications=["Other"]),
            ],
            error=ESM_ERROR,
        )
    )
    summary = result.summarize()
    assert (summary.critical_and_security, summary.other, summary.needs_subscription) == (3, 1, 2)
    assert summary.installable == 2
    assert [patch.to_record().state for patch in result.available_patches] == [
        "Available",
        "NeedsSubscription",
        "NeedsSubscription",
        "Available",
    ]


def test_point_20_counts_are_trusted_over_a_list_that_was_cut() -> None:
    truncated = {
        "code": "1",
        "message": "1 error/s reported.",
        "details": [{"code": "PACKAGE_LIST_TRUNCATED", "message": "Package lists were truncated."}],
    }
    by_count = AssessResult.model_validate(assessment(criticalAndSecurityPatchCount=900, otherPatchCount=100))
    by_code = AssessResult.model_validate(assessment(error=truncated))
    whole = AssessResult.model_validate(assessment())
    assert (by_count.list_is_partial, by_code.list_is_partial, whole.list_is_partial) == (True, True, False)
    assert by_count.summarize().critical_and_security == 900
    assert by_count.summarize().list_is_partial


def test_point_21_a_patch_published_in_year_1_has_no_date_and_other_times_are_read() -> None:
    patch = AvailablePatch.model_validate(linux_patch())
    assert patch.published_date is None
    assert patch.last_modified_date_time == datetime(2024, 12, 26, 6, 47, 42, tzinfo=UTC)
    assert patch.to_record().published_at is None
    result = AssessResult.model_validate(assessment())
    assert result.start_date_time == datetime(2024, 12, 26, 6, 46, 31, 173000, UTC)


def test_point_22_missing_and_unknown_keys_lose_nothing() -> None:
    windows = {
        "patchId": "35428702-5784-4ba4-a6e0-5222258b5411",
        "name": "2024-11 Cumulative Update",
        "kbId": "5046616",
        "classifications": ["Security"],
        "installationState": "Installed",
        "msrcSeverity": "Critical",
        "surprise": {"deep": []},
    }
    result = InstallResult.model_validate(
        installation(patches=[windows, linux_patch(installationState="NotSelected"), None, "x"], surprise=1)
    )
    first, second = (patch.to_record() for patch in result.patches)
    assert (first.kb_id, first.version, first.severity, first.state) == ("5046616", "", "Critical", "Installed")
    assert (second.kb_id, second.severity, second.state) == ("", "", "NotSelected")
    assert InstallResult.model_validate({}).status is PatchOperationStatus.UNKNOWN


def test_point_24_other_patches_under_a_security_filter_are_reported_as_they_are() -> None:
    patch = {"name": "linux-base", "version": "4.5", "classifications": ["Other"], "installationState": "Installed"}
    (record,) = (each.to_record() for each in InstallResult.model_validate(installation(patches=[patch])).patches)
    assert (record.classifications, record.state) == (["Other"], "Installed")


@pytest.mark.parametrize("word", ["NotNeeded", "Required", "Started", "Failed", "Completed", "Unknown"])
def test_point_25_every_reboot_status_is_kept(word: str) -> None:
    result = InstallResult.model_validate(installation(rebootStatus=word))
    assert result.reboot_status.value == result.summarize().reboot_status == word


def test_point_26_a_window_that_was_exceeded_is_kept_with_what_is_pending() -> None:
    result = InstallResult.model_validate(
        installation(status="Failed", maintenanceWindowExceeded=True, pendingPatchCount=7, installedPatchCount=2)
    )
    summary = result.summarize(adopted=True)
    assert (summary.status, summary.window_exceeded, summary.pending, summary.adopted) == ("Failed", True, 7, True)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("CompletedWithWarnings", PatchOperationStatus.COMPLETED_WITH_WARNINGS),
        ("completedwithwarnings", PatchOperationStatus.COMPLETED_WITH_WARNINGS),
        ("SUCCEEDED", PatchOperationStatus.SUCCEEDED),
        ("Success", PatchOperationStatus.UNKNOWN),
        ("Succeeded ", PatchOperationStatus.UNKNOWN),
        ("", PatchOperationStatus.UNKNOWN),
        (None, PatchOperationStatus.UNKNOWN),
        (True, PatchOperationStatus.UNKNOWN),
        (["Succeeded"], PatchOperationStatus.UNKNOWN),
    ],
)
def test_only_words_of_the_enumeration_mean_what_they_say(word: Any, status: PatchOperationStatus) -> None:
    assert InstallResult.model_validate(installation(status=word)).status is status
    assert AssessResult.model_validate(assessment(status=word)).status is status


def test_point_9_and_39_the_summaries_of_the_machine_are_read_by_their_own_names() -> None:
    summary = PatchSummary.model_validate(
        {
            "status": "InProgress",
            "installationActivityId": OPERATION,
            "maintenanceWindowExceeded": False,
            "installedPatchCount": 4,
            "pendingPatchCount": 2,
            "startTime": "2024-11-07T07:36:52+00:00",
            "lastModifiedTime": "2024-11-07T08:00:00.1234567+00:00",
            "error": LINUX_CLEAN,
        }
    )
    result = summary.to_install_result()
    assert summary.activity_id == result.installation_activity_id == OPERATION
    assert (result.status, result.installed_patch_count) == (PatchOperationStatus.IN_PROGRESS, 4)
    assert result.reboot_status is RebootStatus.UNKNOWN
    assert result.start_date_time == datetime(2024, 11, 7, 7, 36, 52, tzinfo=UTC)
    assessed = PatchSummary.model_validate(
        {"status": "Succeeded", "assessmentActivityId": "a", "rebootPending": True, "otherPatchCount": 5}
    ).to_assess_result()
    assert (assessed.assessment_activity_id, assessed.reboot_pending, assessed.other_patch_count) == ("a", True, 5)
    assert assessed.list_is_partial


@pytest.mark.parametrize(
    ("start", "last", "expected"),
    [
        ("2024-11-07T07:00:00Z", "2024-11-07T07:30:00Z", False),
        ("2024-11-07T07:00:00Z", "2024-11-07T08:00:01Z", False),
        ("2024-11-07T08:00:01Z", "2024-11-07T08:00:01Z", True),
        ("2024-11-07T08:30:00Z", None, True),
        (None, "2024-11-07T08:00:01Z", True),
        (None, None, False),
    ],
)
def test_an_assessment_is_outdated_by_an_installation_that_began_later(
    start: str | None, last: str | None, expected: bool
) -> None:
    installed = PatchSummary.model_validate({"status": "Succeeded", "startTime": start, "lastModifiedTime": last})
    began = datetime(2024, 11, 7, 8, tzinfo=UTC)
    assert installed.comes_after(AssessmentSummary(status="Succeeded", at=began)) is expected
    assert not installed.comes_after(AssessmentSummary(status="Succeeded"))


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["code", "details", "name"]), inner),
    max_leaves=5,
)
KEYS = sorted({*assessment(), *installation(), *linux_patch(), "kbId", "innererror", "msrcSeverity"})
bodies = st.dictionaries(
    st.sampled_from(KEYS),
    json_values | st.lists(st.dictionaries(st.sampled_from(KEYS), json_values, max_size=5), max_size=2),
    max_size=8,
)


@given(bodies)
def test_reading_any_result_never_raises_and_what_is_kept_can_be_stored(body: dict[str, Any]) -> None:
    assessed, installed = AssessResult.model_validate(body), InstallResult.model_validate(body)
    PatchSummary.model_validate(body)
    kept = [assessed.summarize(), installed.summarize()]
    kept += [patch.to_record() for patch in [*assessed.available_patches, *installed.patches]]
    for document in kept:
        wire = document.to_wire()
        json.dumps(wire, allow_nan=False, ensure_ascii=False).encode()
        assert type(document).from_wire(wire).to_wire() == wire
    for error in (assessed.error, installed.error):
        assert error is None or isinstance(error.sentence, str)
