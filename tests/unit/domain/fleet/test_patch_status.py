"""How the patching of a machine stands, at both levels, and how far its enablement is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.instance_view import PatchStatusView, Power
from patchwave.domain.core.documents import format_instant
from patchwave.domain.fleet.eligibility import Cause, Eligibility, Obstacle
from patchwave.domain.fleet.patch_mode import PatchSettings
from patchwave.domain.fleet.patch_status import (
    Enablement,
    LastAssessment,
    PatchExtension,
    PatchStatus,
    StatusLevel,
    evaluate_enablement,
    fleet_status,
    machine_status,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ASSESSED: dict[str, Any] = {
    "id": "/subscriptions/s/resourceGroups/g/providers/m/virtualMachines/vm/patchAssessmentResults/latest",
    "startedAt": "2026-11-21T05:58:00.1234567Z",
    "modifiedAt": "2026-11-21T06:00:00Z",
    "startedBy": "Platform",
    "rebootPending": False,
    "missing": {"critical": 2, "security": 3, "other": 4, "tools": 0},
    "error": {"code": "0", "message": "0 error/s reported.", "details": []},
}
INSTALLED: dict[str, Any] = {
    "startedAt": "2026-11-20T22:00:00Z",
    "modifiedAt": "2026-11-20T22:40:00Z",
    "startedBy": "User",
    "status": "Failed",
    "activityId": "a-1",
    "windowExceeded": True,
    "rebootStatus": "Completed",
    "runId": "/run/20261120220000",
    "installed": 5,
    "failed": 1,
    "pending": 2,
    "excluded": 3,
    "notSelected": 4,
    "error": {"code": "1", "message": "1 error", "details": [{"code": "OPERATION_FAILED", "message": "curl"}]},
}
EXTENDED = {
    "publisher": "Microsoft.CPlat.Core",
    "type": "LinuxPatchExtension",
    "version": "1.6",
    "state": "Succeeded",
}


def view(
    *,
    extension: str = "ProvisioningState/succeeded",
    ready: tuple[str, ...] = (),
    assessed: dict[str, Any] | None = None,
    installed: dict[str, Any] | None = None,
) -> PatchStatusView:
    kind = {"type": "Microsoft.CPlat.Core.LinuxPatchExtension", "typeHandlerVersion": "1.6.60"}
    monitor = {
        "type": "Microsoft.Azure.Monitor.AzureMonitorLinuxAgent",
        "statuses": [{"code": "ProvisioningState/failed"}],
    }
    shown = kind | {"statuses": [{"code": extension, "message": "as it said"}]}
    return PatchStatusView.model_validate(
        {
            "properties": {
                "instanceView": {
                    "extensions": [monitor, *([shown] if extension else [])],
                    "statuses": [{"code": "PowerState/running"}],
                    "patchStatus": {
                        "availablePatchSummary": assessed,
                        "lastPatchInstallationSummary": installed,
                        "configurationStatuses": [{"code": f"{name}ConfigurationState/Ready"} for name in ready],
                    },
                }
            }
        }
    )


class TestFleetLevel:
    def test_the_assessment(self):
        status = fleet_status(ASSESSED, None, None, NOW)
        assert status.level == "fleet"
        assert status.assessment is not None
        told = status.assessment.to_wire()
        assert told == {
            "resultStatus": "",
            "startedAt": "2026-11-21T05:58:00.123Z",
            "endedAt": "2026-11-21T06:00:00.000Z",
            "ageHours": 6.0,
            "criticalAndSecurity": 5,
            "other": 4,
            "byClassification": {"critical": 2, "security": 3, "other": 4},
            "startedBy": "Platform",
            "activityId": "",
            "errors": [],
        }
        assert status.reboot_pending is False

    def test_the_installation(self):
        installation = fleet_status(None, INSTALLED, None, NOW).installation
        assert installation is not None
        assert installation.to_wire() == {
            "resultStatus": "Failed",
            "startedAt": "2026-11-20T22:00:00.000Z",
            "endedAt": "2026-11-20T22:40:00.000Z",
            "installed": 5,
            "failed": 1,
            "pending": 2,
            "excluded": 3,
            "notSelected": 4,
            "windowExceeded": True,
            "rebootStatus": "Completed",
            "startedBy": "User",
            "maintenanceRunId": "/run/20261120220000",
            "activityId": "a-1",
            "errors": [{"code": "OPERATION_FAILED", "message": "curl", "target": "", "count": None}],
        }

    @pytest.mark.parametrize("status", ["InProgress", "NotStarted", "inprogress"])
    def test_one_that_runs_has_no_end(self, status: str):
        installation = fleet_status(None, INSTALLED | {"status": status}, None, NOW).installation
        assert installation is not None
        assert installation.ended_at is None

    def test_the_extension(self):
        extension = fleet_status(None, None, EXTENDED, NOW).extension
        assert extension is not None
        assert (extension.type, extension.version) == ("Microsoft.CPlat.Core.LinuxPatchExtension", "1.6")
        assert extension.is_installed

    @pytest.mark.parametrize(
        ("reboot", "minutes", "pending"),
        [("Required", 10, True), ("Failed", 10, True), ("Completed", 10, False), ("Required", -10, False)],
    )
    def test_an_installation_after_the_assessment_knows_better_about_the_reboot(
        self, reboot: str, minutes: int, pending: bool
    ):
        began = datetime(2026, 11, 21, 5, 58, tzinfo=UTC) + timedelta(minutes=minutes)
        installed = INSTALLED | {"rebootStatus": reboot, "startedAt": format_instant(began)}
        assert fleet_status(ASSESSED, installed, None, NOW).reboot_pending is pending

    def test_what_azure_does_not_tell_is_not_a_no(self):
        assert fleet_status(ASSESSED | {"rebootPending": None}, None, None, NOW).reboot_pending is None
        assert fleet_status(None, None, None, NOW) == PatchStatus()

    @given(
        *[st.dictionaries(st.sampled_from([*ASSESSED, *INSTALLED, *EXTENDED]), st.none() | st.text() | st.integers())]
        * 3
    )
    def test_any_row_is_read(self, assessed: dict[str, Any], installed: dict[str, Any], extended: dict[str, Any]):
        status = fleet_status(assessed, installed, extended, NOW)
        assert status.assessment is not None
        assert status.assessment.critical_and_security >= 0
        assert status.installation is not None
        assert PatchStatus.model_validate(status.to_wire()) == status


ASSESSED_SUMMARY: dict[str, Any] = {
    "status": "Succeeded",
    "assessmentActivityId": "b-1",
    "rebootPending": True,
    "criticalAndSecurityPatchCount": 7,
    "otherPatchCount": 1,
    "startTime": "2026-11-21T10:00:00Z",
    "lastModifiedTime": "2026-11-21T10:02:00Z",
    "error": {"code": "1", "message": "m", "details": [{"code": "UA_ESM_REQUIRED", "message": "2 patches"}]},
}
INSTALLED_SUMMARY: dict[str, Any] = {
    "status": "CompletedWithWarnings",
    "installationActivityId": "A-1",
    "maintenanceWindowExceeded": False,
    "installedPatchCount": 9,
    "failedPatchCount": 0,
    "startTime": "2026-11-20T22:00:00Z",
    "lastModifiedTime": "2026-11-20T22:40:00Z",
}


class TestMachineLevel:
    def test_the_instance_view_counts(self):
        fleet = fleet_status(ASSESSED, INSTALLED, None, NOW)
        status = machine_status(view(assessed=ASSESSED_SUMMARY, installed=INSTALLED_SUMMARY), fleet, NOW)
        assert (status.level, status.reboot_pending) == ("machine", True)
        assessment, installation = status.assessment, status.installation
        assert assessment is not None
        assert (assessment.result_status, assessment.critical_and_security, assessment.other) == ("Succeeded", 7, 1)
        assert assessment.age_hours == 2.0
        assert [error.code for error in assessment.errors] == ["UA_ESM_REQUIRED"]
        assert installation is not None
        assert (installation.result_status, installation.installed) == ("CompletedWithWarnings", 9)

    def test_what_only_the_fleet_tells_is_of_the_same_activity(self):
        fleet = fleet_status(ASSESSED, INSTALLED, None, NOW)
        status = machine_status(view(assessed=ASSESSED_SUMMARY, installed=INSTALLED_SUMMARY), fleet, NOW)
        assert status.installation is not None
        assert (status.installation.started_by, status.installation.reboot_status) == ("User", "Completed")
        # That assessment is another one.
        assert status.assessment is not None
        assert (status.assessment.started_by, status.assessment.by_classification) == ("", {})

    def test_the_extension_and_its_state(self):
        status = machine_status(view(extension="ProvisioningState/failed/52"), PatchStatus(), NOW)
        assert status.extension is not None
        assert (status.extension.state, status.extension.message) == ("Failed", "as it said")
        assert machine_status(view(extension=""), PatchStatus(), NOW).extension is None

    def test_the_handler_counts_where_the_extension_is_not_listed(self):
        handler = {
            "type": "Microsoft.CPlat.Core.WindowsPatchExtension",
            "status": {"code": "ProvisioningState/succeeded", "displayStatus": "Ready"},
        }
        document = {"properties": {"instanceView": {"vmAgent": {"extensionHandlers": [handler, None]}}}}
        status = machine_status(PatchStatusView.model_validate(document), PatchStatus(), NOW)
        assert status.extension is not None
        assert (status.extension.type, status.extension.state) == (handler["type"], "Succeeded")

    def test_an_assessment_that_runs_has_no_age(self):
        running = ASSESSED_SUMMARY | {"status": "InProgress"}
        assessment = machine_status(view(assessed=running), PatchStatus(), NOW).assessment
        assert assessment is not None
        assert (assessment.result_status, assessment.ended_at, assessment.age_hours) == ("InProgress", None, None)


INSTALLED_EXTENSION = PatchExtension(type="e", state="Succeeded")
FAILED_EXTENSION = PatchExtension(type="e", state="Failed", message="no packages")
DONE, RUNNING = LastAssessment(result_status="Succeeded"), LastAssessment(result_status="InProgress")
BY_PLATFORM = LastAssessment(started_by="Platform")


def enablement(
    status: PatchStatus,
    mode: str = "AutomaticByPlatform",
    assessment_mode: str = "ImageDefault",
    power: Power = Power.RUNNING,
    eligibility: Eligibility | None = None,
) -> Enablement:
    patch_settings = {"patchSettings": {"patchMode": mode, "assessmentMode": assessment_mode}}
    settings = PatchSettings.read("Linux", patch_settings)
    return evaluate_enablement(status, settings, eligibility or Eligibility(), power)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (PatchStatus(), "in_progress"),
        (PatchStatus(extension=FAILED_EXTENSION), "failed"),
        (PatchStatus(extension=INSTALLED_EXTENSION, assessment=DONE), "enabled"),
        (PatchStatus(extension=INSTALLED_EXTENSION), "unknown"),
        (PatchStatus(level=StatusLevel.MACHINE, extension=INSTALLED_EXTENSION), "in_progress"),
        (PatchStatus(level=StatusLevel.MACHINE, extension=INSTALLED_EXTENSION, assessment=RUNNING), "in_progress"),
        (PatchStatus(level=StatusLevel.MACHINE, modes_ready=("PatchMode",)), "enabled"),
        (PatchStatus(assessment=DONE), "in_progress"),
        (PatchStatus(assessment=BY_PLATFORM), "enabled"),
    ],
)
def test_enablement_is_complete_with_the_extension_and_an_assessment(status: PatchStatus, state: str):
    assert enablement(status).state == state


@pytest.mark.parametrize("assessment_mode", ["AutomaticByPlatform", "ImageDefault"])
def test_a_machine_that_is_set_to_neither_is_off(assessment_mode: str):
    found = enablement(PatchStatus(), "ImageDefault", assessment_mode)
    assert found.state == ("off" if assessment_mode == "ImageDefault" else "in_progress")


def test_the_failure_of_the_extension_is_told():
    assert enablement(PatchStatus(extension=FAILED_EXTENSION)).sentence.endswith("is Failed: no packages")


def test_enablement_waits_for_off_peak_hours_in_which_the_machine_runs():
    assert "off-peak hours." in enablement(PatchStatus()).sentence
    assert enablement(PatchStatus(), power=Power.DEALLOCATED).sentence.endswith("while it runs: it is deallocated.")


def test_a_machine_that_guest_patching_does_not_take_is_blocked():
    obstacle = Obstacle(cause=Cause.NO_AGENT, sentence="No agent.")
    found = enablement(PatchStatus(), eligibility=Eligibility(obstacles=(obstacle,)))
    assert (found.state, found.sentence) == ("blocked", "No agent.")
    # What Azure did takes precedence over what the table says.
    assert (
        enablement(PatchStatus(modes_ready=("PatchMode",)), eligibility=Eligibility(obstacles=(obstacle,))).state
        == "enabled"
    )
