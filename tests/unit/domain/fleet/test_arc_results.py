"""Rows of Resource Graph about Arc machines: which installation is the newest, and which patches are of a result."""

from __future__ import annotations

from typing import Any

from patchwave.domain.azure.patch_results import AssessResult, InstallResult
from patchwave.domain.core.ids import MachineId
from patchwave.domain.fleet.arc_results import installations_of, patches_of, read_newest, with_patches

MACHINE = MachineId.parse(
    "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg-arc"
    "/providers/Microsoft.HybridCompute/machines/srv-01"
)
ACTIVITY = "11111111-0000-0000-0000-000000000002"
ASSESSED = {"assessmentActivityId": "a", "startDateTime": "2026-11-21T10:00:00Z"}


def patch(name: str, **properties: Any) -> dict[str, Any]:
    return {"id": f"{MACHINE}/patchAssessmentResults/latest/softwarePatches/{name}_id", "properties": properties}


def test_the_queries_name_the_machine_and_the_result() -> None:
    assert installations_of(MACHINE).splitlines()[:3] == [
        "patchinstallationresources",
        f"| where id startswith '{MACHINE}/patchInstallationResults/'",
        "| where type =~ 'microsoft.hybridcompute/machines/patchinstallationresults'",
    ]
    installed = patches_of(MACHINE, {"installationActivityId": ACTIVITY})
    assert f"'{MACHINE}/patchInstallationResults/{ACTIVITY}/softwarePatches/'" in installed
    assessed = patches_of(MACHINE, ASSESSED)
    assert assessed.startswith("patchassessmentresources")
    assert "'microsoft.hybridcompute/machines/patchassessmentresults/softwarepatches'" in assessed


def test_the_newest_installation_is_the_one_that_began_last() -> None:
    rows = [
        {"properties": {"installationActivityId": name, "startDateTime": at}}
        for name, at in (("b", "2026-11-21T10:00:00Z"), ("c", "2026-11-22T10:00:00Z"), ("a", "2026-11-20T10:00:00Z"))
    ]
    found = read_newest([*rows, {"properties": {"installationActivityId": "undated"}}, {}])
    assert found is not None
    assert found.activity_id == "c"
    assert read_newest([]) is None
    undated = read_newest([{"properties": {"installationActivityId": "x"}}])
    assert undated is not None
    assert undated.activity_id == "x"


def test_the_patches_of_an_assessment_are_those_of_this_one() -> None:
    rows = [
        patch(
            "openssl",
            patchName="openssl",
            version="3.0",
            classifications=["Security"],
            lastModifiedDateTime="2026-11-21T10:01:00Z",
        ),
        patch(
            "kb", patchName="Update", kbId="5001", classifications="Critical", publishedDateTime="2026-11-10T00:00:00Z"
        ),
        patch("old", patchName="old", lastModifiedDateTime="2026-11-20T10:00:00Z"),
    ]
    found = AssessResult.model_validate(with_patches(ASSESSED, rows)).available_patches
    assert [(each.name, each.classifications) for each in found] == [
        ("openssl", ["Security"]),
        ("Update", ["Critical"]),
    ]
    assert (found[0].version, found[0].patch_id, found[1].kb_id) == ("3.0", "openssl_id", "5001")
    assert (found[1].published_date is not None, found[0].assessment_state.value) == (True, "Available")


def test_the_patches_of_an_installation_have_their_states() -> None:
    rows = [patch("a", patchName="a", installationState="Installed", msrcSeverity="Important"), patch("b"), {}]
    result = with_patches({"installationActivityId": ACTIVITY, "startDateTime": "2026-11-21T10:00:00Z"}, rows)
    found = InstallResult.model_validate(result).patches
    assert [(each.name, each.installation_state.value) for each in found] == [
        ("a", "Installed"),
        ("", "Unknown"),
        ("", "Unknown"),
    ]
    assert found[0].msrc_severity == "Important"
