"""The example of "Virtual Machines - Install Patches" (REST, 2025-04-01)."""

from __future__ import annotations

import json

import pytest

from patchwave.domain.azure.patch_results import InstallResult
from tests.support.azure_bodies import DOCUMENTED_INSTALLATION
from tests.support.document_examples import Examples
from tests.support.simulator import Json

SAMPLE: Json = {
    "maximumDuration": "PT4H",
    "rebootSetting": "IfRequired",
    "windowsParameters": {
        "classificationsToInclude": ["Critical", "Security"],
        "maxPatchPublishDate": "2020-11-19T02:36:43.0539904+00:00",
        "patchNameMasksToInclude": ["*SQL*"],
        "patchNameMasksToExclude": ["*Windows*"],
    },
}
RESULT = {
    *("status", "installationActivityId", "rebootStatus", "maintenanceWindowExceeded", "excludedPatchCount"),
    *("notSelectedPatchCount", "pendingPatchCount", "installedPatchCount", "failedPatchCount", "startDateTime"),
    *("patches", "error"),
}


def test_sample_request(examples: Examples) -> None:
    machine = examples.machine("Windows", pendingPatches=3)
    reply = examples.send("POST", f"{machine}/installPatches", "2025-04-01", SAMPLE)
    assert reply.status_code == 202
    result = examples.follow(reply)
    assert set(result) - {"maintenanceRunId"} == RESULT
    assert result["installedPatchCount"] == 0, "every patch of the simulator is younger than the date of the sample"


def test_sample_response() -> None:
    assert set(json.loads(DOCUMENTED_INSTALLATION)) == RESULT
    read = InstallResult.model_validate_json(DOCUMENTED_INSTALLATION).summarize()
    assert (read.status, read.installed, read.pending, read.failed) == ("Succeeded", 3, 2, 0)
    assert (read.reboot_status, read.window_exceeded) == ("Completed", False)


def test_the_reboot_setting_is_required(examples: Examples) -> None:
    machine = examples.machine("Windows")
    body = {key: value for key, value in SAMPLE.items() if key != "rebootSetting"}
    refused = examples.send("POST", f"{machine}/installPatches", "2025-04-01", body)
    assert (refused.status_code, refused.json()["error"]["target"]) == (400, "rebootSetting")


@pytest.mark.parametrize("mask", [None, "", "  ", "SQL-Server"])
def test_masks_of_patch_names_take_letters_digits_and_wildcards(examples: Examples, mask: str | None) -> None:
    body = SAMPLE | {"windowsParameters": {"patchNameMasksToInclude": [mask]}}
    refused = examples.send("POST", f"{examples.machine('Windows')}/installPatches", "2025-04-01", body)
    assert (refused.status_code, refused.json()["error"]["target"]) == (
        400,
        "windowsParameters.patchNameMasksToInclude",
    )


def test_a_patch_publish_date_keeps_what_is_younger(examples: Examples) -> None:
    machine = examples.machine("Windows", pendingPatches=2)
    parameters = SAMPLE["windowsParameters"] | {"maxPatchPublishDate": "2199-01-01T00:00:00+00:00"}
    all_of_it = {key: value for key, value in parameters.items() if "Masks" not in key}
    body = SAMPLE | {"windowsParameters": all_of_it | {"classificationsToInclude": ["Critical", "Security", "Updates"]}}
    result = examples.follow(examples.send("POST", f"{machine}/installPatches", "2025-04-01", body))
    assert result["installedPatchCount"] > 0
