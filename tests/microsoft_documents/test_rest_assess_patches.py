"""The example of "Virtual Machines - Assess Patches" (REST, 2025-04-01)."""

from __future__ import annotations

import json

from patchwave.domain.azure.patch_results import AssessResult
from tests.support.azure_bodies import DOCUMENTED_ASSESSMENT
from tests.support.document_examples import Examples

RESULT = {
    *("status", "assessmentActivityId", "rebootPending", "criticalAndSecurityPatchCount", "otherPatchCount"),
    *("startDateTime", "availablePatches", "error"),
}
PATCH = {
    *("patchId", "name", "kbId", "classifications", "rebootBehavior", "activityId", "publishedDate"),
    *("lastModifiedDateTime", "assessmentState"),
}


def test_sample_request(examples: Examples) -> None:
    machine = examples.machine("Windows", pendingPatches=3)
    reply = examples.send("POST", f"{machine}/assessPatches", "2025-04-01")
    assert reply.status_code == 202
    result = examples.follow(reply)
    assert set(result) == RESULT
    # Recorded: Windows has no ``version``, which the sample shows as an empty text, and may have ``msrcSeverity``.
    assert all(set(patch) - {"msrcSeverity"} == PATCH for patch in result["availablePatches"])
    assert result["criticalAndSecurityPatchCount"] + result["otherPatchCount"] == len(result["availablePatches"]) == 3


def test_sample_response() -> None:
    assert set(json.loads(DOCUMENTED_ASSESSMENT)) == RESULT
    read = AssessResult.model_validate_json(DOCUMENTED_ASSESSMENT).summarize()
    assert (read.status, read.critical_and_security, read.other, read.reboot_pending) == ("Succeeded", 1, 2, True)
    assert read.list_is_partial, "the sample lists two of the three patches that it counts"


def test_the_name_of_the_resource_group_is_case_insensitive(examples: Examples) -> None:
    machine = examples.machine("Linux").replace("/rg-sim/", "/RG-Sim/")
    assert examples.send("POST", f"{machine}/assessPatches", "2025-04-01").status_code == 202
