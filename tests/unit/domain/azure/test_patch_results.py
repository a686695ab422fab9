"""What assess and install calls bring back, in the documented form and in the recorded one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.patch_results import (
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
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary, PatchRecord, ReportedError
from tests.support.azure_bodies import (
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


def test_point_20_counts_win_over_a_list_that_was_cut() -> None:
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
def test_only_values_of_the_enumeration_are_recognized(word: Any, status: PatchOperationStatus) -> None:
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
        {
            "status": "Succeeded",
            "assessmentActivityId": "a",
            "rebootPending": True,
            "otherPatchCount": 5,
        }
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
        assert type(document).model_validate(wire).to_wire() == wire
    for error in (assessed.error, installed.error):
        assert error is None or isinstance(error.sentence, str)


# --- what is missing says nothing


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"rebootPending": True}, True),
        ({"rebootPending": False}, False),
        ({"rebootPending": None}, None),
        ({"rebootPending": "true"}, None),
        ({}, None),
    ],
)
def test_a_reboot_that_is_not_mentioned_is_unknown(body: dict[str, Any], expected: bool | None) -> None:
    assert AssessResult.model_validate(body).reboot_pending is expected
    assert AssessResult.model_validate(body).summarize().reboot_pending is expected
    assert PatchSummary.model_validate(body).reboot_pending is expected
    assert PatchSummary.model_validate(body).to_assess_result().reboot_pending is expected


def test_results_with_every_key_missing_claim_nothing() -> None:
    installed = InstallResult.model_validate({"patches": [{}]})
    assert installed.status.value == "Unknown"
    assert installed.reboot_status.value == "Unknown"
    assert installed.maintenance_window_exceeded is False
    assert installed.patches[0].to_record().state == "Unknown"
    assert installed.summarize() == InstallationSummary(status="Unknown", reboot_status="Unknown")
    assessed = AssessResult.model_validate({"availablePatches": [{}]})
    assert assessed.status.value == "Unknown"
    assert assessed.available_patches[0].reboot_behavior.value == "Unknown"
    assert assessed.available_patches[0].to_record().state == "Unknown"
    assert assessed.available_patches[0].needs_subscription is False
    summary = PatchSummary.model_validate({})
    assert (summary.status.value, summary.activity_id) == ("Unknown", "")
    assert summary.to_install_result() == InstallResult.model_validate({})
    assert summary.to_assess_result() == AssessResult.model_validate({})


# --- Ubuntu Pro


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"classifications": ["Security-ESM"], "version": "UA_ESM_Required"}, True),
        ({"classifications": ["SECURITY-esm"], "version": ""}, True),
        ({"classifications": ["Other", "Security-ESM"], "version": None}, True),
        ({"classifications": ["Security"], "version": "ua_esm_required"}, True),
        ({"classifications": [], "version": "UA_ESM_REQUIRED"}, True),
        # A machine that is attached to Ubuntu Pro: the agent writes the version that it can install.
        ({"classifications": ["Security-ESM"], "version": "2.27-3ubuntu1.6+esm3"}, False),
        ({"classifications": ["Security"], "version": ""}, False),
        ({"classifications": ["Security-ESM-x"], "version": ""}, False),
    ],
)
def test_only_a_machine_without_ubuntu_pro_needs_it(fields: dict[str, Any], needs: bool) -> None:
    result = AssessResult.model_validate(assessment(availablePatches=[linux_patch(**fields)]))
    assert result.available_patches[0].needs_subscription is needs
    assert result.available_patches[0].to_record().state == ("NeedsSubscription" if needs else "Available")
    assert result.summarize().needs_subscription == int(needs)


# --- what is kept


def test_what_the_agent_reports_is_kept_with_its_number() -> None:
    kept = AssessResult.model_validate(assessment(error=ESM_ERROR)).summarize().errors
    (esm,) = kept
    assert (esm.code, esm.count, esm.is_informational) == ("UA_ESM_REQUIRED", 133, True)
    assert esm.message == "133 patches requires Ubuntu Pro for Infrastructure with Extended Security Maintenance"
    installed = InstallResult.model_validate(installation(error=ESM_ERROR)).summarize().errors
    assert installed == kept
    for clean in (LINUX_CLEAN, WINDOWS_CLEAN, None, {}):
        assert AssessResult.model_validate(assessment(error=clean)).summarize().errors == []
        assert InstallResult.model_validate(installation(error=clean)).summarize().errors == []


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        ({"code": "1", "message": "Something failed."}, [("1", "Something failed.", "", None)]),
        ({"code": "X", "message": "m", "target": "t"}, [("X", "m", "t", None)]),
        (
            {"code": "1", "message": "2 error/s", "details": [{"code": "A", "target": "b"}, {"message": "7 left"}]},
            [("A", "", "b", None), ("", "7 left", "", 7)],
        ),
        ({"code": "1", "details": [{}], "message": "m"}, []),
        (
            {"code": "0", "innererror": {"exceptiontype": "TimeoutError", "errordetail": "5 s passed"}},
            [("TimeoutError", "5 s passed", "", 5)],
        ),
        ({"details": [{"code": "N", "message": "12patches"}]}, [("N", "12patches", "", None)]),
    ],
)
def test_details_win_over_their_envelope(error: dict[str, Any], kept: list[Any]) -> None:
    found = ApiError.model_validate(error).reported
    assert [(each.code, each.message, each.target, each.count) for each in found] == kept


def test_what_is_kept_of_errors_is_bounded_and_has_no_secrets() -> None:
    details = [{"code": "c" * 600, "message": f"see https://x/y?sig=s{'m' * 600}", "target": "t" * 600}] * 20
    found = ApiError.model_validate({"details": details}).reported
    assert len(found) == 10
    assert (len(found[0].code), len(found[0].target)) == (500, 500)
    assert found[0].message == "see https://x/y?***"


def test_every_field_of_a_patch_is_kept() -> None:
    body = {
        "patchId": "p_1_Ubuntu_22.04",
        "name": "p",
        "version": "1",
        "kbId": "5046616",
        "classifications": ["Security", "Other"],
        "rebootBehavior": "CanRequestReboot",
        "activityId": OPERATION,
        "publishedDate": "2024-11-12T18:00:00Z",
        "lastModifiedDateTime": "2024-12-26T06:47:42.123+00:00",
        "assessmentState": "Available",
    }
    record = AssessResult.model_validate({"availablePatches": [body]}).available_patches[0].to_record()
    assert record == PatchRecord(
        name="p",
        version="1",
        kb_id="5046616",
        classifications=["Security", "Other"],
        state="Available",
        assessment_state="Available",
        reboot_behavior="CanRequestReboot",
        published_at=datetime(2024, 11, 12, 18, tzinfo=UTC),
        patch_id="p_1_Ubuntu_22.04",
        activity_id=OPERATION,
        last_modified_at=datetime(2024, 12, 26, 6, 47, 42, 123000, UTC),
    )
    assert PatchRecord.model_validate(record.to_wire()) == record
    assert record.to_wire()["lastModifiedAt"] == "2024-12-26T06:47:42.123Z"
    handled = InstallResult.model_validate(
        {"patches": [body | {"installationState": "Failed", "msrcSeverity": "Critical"}]}
    ).patches[0]
    assert handled.to_record() == PatchRecord(
        name="p",
        version="1",
        kb_id="5046616",
        classifications=["Security", "Other"],
        state="Failed",
        installation_state="Failed",
        patch_id="p_1_Ubuntu_22.04",
        severity="Critical",
    )


def test_every_field_of_the_results_is_kept() -> None:
    error = {"code": "1", "message": "m", "details": [{"code": "INFORMATIONAL", "message": "done"}]}
    at = datetime(2024, 11, 7, 7, 36, 52, tzinfo=UTC)
    kept = [ReportedError(code="INFORMATIONAL", message="done")]
    installed = InstallResult.model_validate(
        {
            "status": "CompletedWithWarnings",
            "installationActivityId": OPERATION,
            "rebootStatus": "Started",
            "maintenanceWindowExceeded": True,
            "excludedPatchCount": 1,
            "notSelectedPatchCount": 2,
            "pendingPatchCount": 3,
            "installedPatchCount": 4,
            "failedPatchCount": 5,
            "startDateTime": "2024-11-07T07:36:52+00:00",
            "error": error,
        }
    )
    for adopted in (True, False):
        assert installed.summarize(adopted=adopted) == InstallationSummary(
            status="CompletedWithWarnings",
            installed=4,
            failed=5,
            pending=3,
            excluded=1,
            not_selected=2,
            reboot_status="Started",
            window_exceeded=True,
            activity_id=OPERATION,
            started_at=at,
            adopted=adopted,
            errors=kept,
        )
    assert installed.summarize().adopted is False
    assert InstallResult.model_validate(installed.model_dump(mode="json", by_alias=True)) == installed
    assessed = AssessResult.model_validate(
        assessment(
            status="CompletedWithWarnings",
            rebootPending=True,
            criticalAndSecurityPatchCount=7,
            otherPatchCount=3,
            error=error,
        )
    )
    assert assessed.summarize() == AssessmentSummary(
        status="CompletedWithWarnings",
        critical_and_security=7,
        other=3,
        needs_subscription=0,
        reboot_pending=True,
        at=datetime(2024, 12, 26, 6, 46, 31, 173000, UTC),
        list_is_partial=True,
        activity_id=OPERATION,
        errors=kept,
    )


def test_every_field_of_a_machines_summary_reaches_the_result() -> None:
    """An operation that was adopted, or whose URL is lost, is judged by the machine's own summary."""
    error = {"code": "1", "message": "m", "details": [{"code": "E", "message": "d"}]}
    summary = PatchSummary.model_validate(
        {
            "status": "Succeeded",
            "assessmentActivityId": "a",
            "installationActivityId": "i",
            "rebootPending": True,
            "criticalAndSecurityPatchCount": 1,
            "otherPatchCount": 2,
            "maintenanceWindowExceeded": True,
            "excludedPatchCount": 3,
            "notSelectedPatchCount": 4,
            "pendingPatchCount": 5,
            "installedPatchCount": 6,
            "failedPatchCount": 7,
            "startTime": "2024-11-07T07:36:52Z",
            "error": error,
        }
    )
    assert summary.activity_id == "i"
    at = datetime(2024, 11, 7, 7, 36, 52, tzinfo=UTC)
    assert summary.to_install_result() == InstallResult(
        status=PatchOperationStatus.SUCCEEDED,
        installation_activity_id="i",
        maintenance_window_exceeded=True,
        excluded_patch_count=3,
        not_selected_patch_count=4,
        pending_patch_count=5,
        installed_patch_count=6,
        failed_patch_count=7,
        start_date_time=at,
    ).model_copy(update={"error": ApiError.model_validate(error)})
    assert summary.to_assess_result() == AssessResult(
        status=PatchOperationStatus.SUCCEEDED,
        assessment_activity_id="a",
        reboot_pending=True,
        critical_and_security_patch_count=1,
        other_patch_count=2,
        start_date_time=at,
    ).model_copy(update={"error": ApiError.model_validate(error)})
    only = PatchSummary.model_validate({"assessmentActivityId": "a"})
    assert only.activity_id == "a"


@pytest.mark.parametrize(
    ("classifications", "is_urgent"),
    [(["Security"], True), (["Critical"], True), (["Other", "Security"], True), (["Other"], False), ([], False)],
)
def test_a_patch_is_urgent_when_one_of_its_classes_is(classifications: list[str], is_urgent: bool) -> None:
    patch = AvailablePatch.model_validate({"name": "a", "version": "1", "classifications": classifications})
    assert patch.is_urgent is is_urgent
