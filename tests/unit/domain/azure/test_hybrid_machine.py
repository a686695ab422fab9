"""Arc machines and their results: recorded bodies, counts of every kind, and words that are missing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.hybrid_machine import HybridMachineView, count_patches, read_summary, to_compute_result
from patchwave.domain.azure.instance_view import Power
from patchwave.domain.azure.patch_results import AssessResult, InstallResult, PatchOperationStatus, RebootStatus

ASSESSED: dict[str, Any] = {
    "startDateTime": "2024-11-26T06:14:18.0000000Z",
    "lastModifiedDateTime": "2024-11-26T06:15:11.0000000Z",
    "startedBy": "User",
    "rebootPending": False,
    "patchServiceUsed": "WU",
    "status": "Succeeded",
    "availablePatchCountByClassification": {
        "security": 2,
        "critical": 1,
        "definition": 3,
        "updateRollup": 1,
        "featurePack": 0,
        "servicePack": 0,
        "tools": 0,
        "updates": 4,
    },
    "assessmentActivityId": "11111111-0000-0000-0000-000000000001",
    "osType": "Windows",
}
INSTALLED: dict[str, Any] = {
    "startDateTime": "2024-11-26T06:14:18.0000000Z",
    "lastModifiedDateTime": "2024-11-26T06:40:11.0000000Z",
    "startedBy": "User",
    "patchServiceUsed": "APT",
    "status": "CompletedWithWarnings",
    "maintenanceWindowExceeded": True,
    "rebootStatus": "Completed",
    "notSelectedPatchCount": 4,
    "pendingPatchCount": 1,
    "failedPatchCount": 2,
    "installedPatchCount": 3,
    "excludedPatchCount": 5,
    "osType": "Linux",
    "installationActivityId": "11111111-0000-0000-0000-000000000002",
    "errorDetails": {"code": "1", "message": "1 error/s", "details": [{"code": "PACKAGE", "message": "2 failed"}]},
}


def machine(status: str = "Connected", **properties: Any) -> HybridMachineView:
    body = {"id": "x", "tags": {"site": "a"}, "properties": {"status": status, "osType": "linux"} | properties}
    return HybridMachineView.model_validate(body)


@pytest.mark.parametrize(
    ("status", "is_up"),
    [
        ("Connected", True),
        ("connected", True),
        ("Disconnected", False),
        ("Expired", False),
        ("Error", False),
        ("", False),
    ],
)
def test_only_a_connected_machine_is_up(status: str, is_up: bool) -> None:
    assert (machine(status).is_connected, machine(status).is_up) == (is_up, is_up)


def test_a_machine_has_no_instance_view() -> None:
    found = machine()
    assert (found.power, found.is_agent_ready, found.vm_health, found.update_domain) == (Power.UNKNOWN, False, "", "")
    assert (found.os_type, found.tags, found.last_assessment) == ("linux", {"site": "a"}, None)
    assert HybridMachineView.model_validate({}).status == ""


def test_an_assessment_counts_as_that_of_a_virtual_machine() -> None:
    summary = AssessResult.model_validate(to_compute_result(ASSESSED)).summarize()
    assert (summary.critical_and_security, summary.other, summary.pending) == (3, 8, 11)
    assert (summary.status, summary.reboot_pending, summary.list_is_partial) == ("Succeeded", False, True)
    assert summary.activity_id == "11111111-0000-0000-0000-000000000001"
    assert summary.at is not None
    assert summary.errors == []


def test_an_installation_has_its_counts_reboot_and_errors() -> None:
    found = InstallResult.model_validate(to_compute_result(INSTALLED))
    summary = found.summarize()
    assert (summary.installed, summary.failed, summary.pending, summary.excluded, summary.not_selected) == (
        3,
        2,
        1,
        5,
        4,
    )
    assert (found.status, found.reboot_status) == (PatchOperationStatus.COMPLETED_WITH_WARNINGS, RebootStatus.COMPLETED)
    assert [(error.code, error.message) for error in summary.errors] == [("PACKAGE", "2 failed")]
    assert summary.window_exceeded
    assert count_patches(to_compute_result(INSTALLED)) == 15


@pytest.mark.parametrize("counts", [None, "3", [], {"security": None}, {"security": True}, {"security": -1}])
def test_odd_counts_are_none(counts: object) -> None:
    assert count_patches(to_compute_result(ASSESSED | {"availablePatchCountByClassification": counts})) == 0


def test_a_total_is_not_counted_twice_and_names_have_any_case() -> None:
    counts = {"Security": 2, "CRITICAL": 1, "Other": 3, "total": 6}
    found = to_compute_result(ASSESSED | {"availablePatchCountByClassification": counts})
    assert (found["criticalAndSecurityPatchCount"], found["otherPatchCount"]) == (3, 3)


@given(st.dictionaries(st.sampled_from(["security", "critical", "other", "tools", "updates"]), st.integers(0, 9)))
def test_every_patch_is_counted_once(counts: dict[str, int]) -> None:
    found = to_compute_result({"availablePatchCountByClassification": counts})
    assert count_patches(found) == sum(counts.values())
    assert found["criticalAndSecurityPatchCount"] == counts.get("security", 0) + counts.get("critical", 0)


def test_a_summary_tells_when_it_began_and_how_the_machine_restarted() -> None:
    found = read_summary(INSTALLED)
    assert found.activity_id == "11111111-0000-0000-0000-000000000002"
    assert found.start_time is not None
    assert found.to_install_result().reboot_status is RebootStatus.COMPLETED
    assert read_summary(ASSESSED).to_assess_result().critical_and_security_patch_count == 3


def test_what_is_missing_is_unknown() -> None:
    found = read_summary({})
    assert (found.status, found.reboot_pending, found.activity_id) == (PatchOperationStatus.UNKNOWN, None, "")
