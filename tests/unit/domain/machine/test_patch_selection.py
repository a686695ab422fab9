"""What a policy selects of the pending patches: as the guest agents do, and never less than they would."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.install_request import (
    LinuxClassification,
    LinuxParameters,
    WindowsClassification,
    WindowsParameters,
)
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary, PatchRecord, Selection
from patchwave.domain.machine.patch_selection import (
    excludes_package,
    kb_of,
    product_name,
    rule_of,
    select,
    selects,
    wanted_on,
)
from patchwave.domain.policy.install import Install
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.outcome_rules import assessed, nothing_to_install

PUBLISHED = datetime(2026, 11, 10, 18, tzinfo=UTC)
NAME = "2026-11 Cumulative Update for SQL Server (KB5046616)"


def windows(**fields: Any) -> WindowsParameters:
    return WindowsParameters.model_validate({"classificationsToInclude": ["Critical", "Security"]} | fields)


def linux(*classifications: str, **fields: Any) -> LinuxParameters:
    return LinuxParameters.model_validate({"classificationsToInclude": list(classifications)} | fields)


def kb(**changes: Any) -> PatchRecord:
    fields: dict[str, Any] = {
        "name": NAME,
        "kb_id": "5046616",
        "classifications": ["Updates"],
        "reboot_behavior": "NeverReboots",
        "published_at": PUBLISHED,
        "state": "Available",
    }
    return PatchRecord(**fields | changes)


def package(name: str = "curl", version: str = "8.1", *classifications: str, **changes: Any) -> PatchRecord:
    fields: dict[str, Any] = {"classifications": list(classifications or ("Other",)), "state": "Available"}
    return PatchRecord(name=name, version=version, **fields | changes)


# --- Windows


@pytest.mark.parametrize(
    ("wanted", "patch", "expected"),
    [
        ({}, {}, False),
        ({}, {"classifications": ["Security"]}, True),
        ({}, {"classifications": ["SECURITY"]}, True),
        ({}, {"classifications": ["Security Updates"]}, True),
        ({}, {"classifications": ["Critical Updates"]}, True),
        ({"classificationsToInclude": ["Security"]}, {"classifications": ["Critical"]}, False),
        ({"classificationsToInclude": ["Critical"]}, {"classifications": ["Security"]}, False),
        ({}, {"classifications": ["Updates", "Critical"]}, True),
        ({"classificationsToInclude": ["UpdateRollUp"]}, {"classifications": ["UpdateRollUp"]}, True),
        ({"classificationsToInclude": ["UpdateRollUp"]}, {"classifications": ["Update Rollups"]}, True),
        ({"classificationsToInclude": ["FeaturePack"]}, {"classifications": ["Feature Packs"]}, True),
        ({"classificationsToInclude": ["FeaturePack"]}, {"classifications": ["FeaturePack"]}, True),
        ({"classificationsToInclude": ["ServicePack"]}, {"classifications": ["Service Packs"]}, True),
        ({"classificationsToInclude": ["ServicePack"]}, {"classifications": ["ServicePack"]}, True),
        ({"classificationsToInclude": ["Definition"]}, {"classifications": ["Definition"]}, True),
        ({"classificationsToInclude": ["Definition"]}, {"classifications": ["Definition Updates"]}, True),
        ({"classificationsToInclude": ["Tools"]}, {"classifications": ["Tools"]}, True),
        ({"classificationsToInclude": ["Updates"]}, {"classifications": ["Updates"]}, True),
        # Unknown words, or none: they may be what is selected.
        ({}, {"classifications": ["Drivers"]}, None),
        ({}, {"classifications": ["Updates", "Drivers"]}, None),
        ({}, {"classifications": []}, None),
        # Beyond the classifications: by number and by name.
        ({"kbNumbersToInclude": ["KB5046616"]}, {}, True),
        ({"kbNumbersToInclude": ["KB5046617"]}, {}, False),
        ({"kbNumbersToInclude": ["KB5046616"]}, {"kb_id": "KB5046616"}, True),
        ({"kbNumbersToInclude": ["KB5046617"]}, {"kb_id": ""}, None),
        ({"patchNameMasksToInclude": ["*SQL*"]}, {}, True),
        ({"patchNameMasksToInclude": ["*Exchange*"]}, {}, False),
        ({"patchNameMasksToInclude": ["*sql*"]}, {}, None),
        ({"patchNameMasksToInclude": ["SQL"]}, {}, None),
        # Excluded, whatever includes it.
        ({"kbNumbersToInclude": ["KB5046616"], "kbNumbersToExclude": ["KB5046616"]}, {}, False),
        ({"kbNumbersToInclude": ["KB5046616"], "kbNumbersToExclude": ["KB5046617"]}, {}, True),
        ({"patchNameMasksToExclude": ["*SQL*"]}, {"classifications": ["Security"]}, False),
        ({"patchNameMasksToExclude": ["*sql*"]}, {"classifications": ["Security"]}, True),
        ({"patchNameMasksToExclude": ["SQL"]}, {"classifications": ["Security"]}, True),
        # Restarts.
        ({"excludeKbsRequiringReboot": True}, {"classifications": ["Security"]}, True),
        (
            {"excludeKbsRequiringReboot": True},
            {"classifications": ["Security"], "reboot_behavior": "CanRequestReboot"},
            False,
        ),
        (
            {"excludeKbsRequiringReboot": True},
            {"classifications": ["Security"], "reboot_behavior": "AlwaysRequiresReboot"},
            False,
        ),
        ({"excludeKbsRequiringReboot": True}, {"classifications": ["Security"], "reboot_behavior": "Unknown"}, None),
        ({"excludeKbsRequiringReboot": True}, {"reboot_behavior": ""}, False),
        ({}, {"classifications": ["Security"], "reboot_behavior": "CanRequestReboot"}, True),
        # Publication.
        ({"maxPatchPublishDate": "2026-11-10T18:00:00Z"}, {"classifications": ["Security"]}, True),
        ({"maxPatchPublishDate": "2026-11-10T17:59:59Z"}, {"classifications": ["Security"]}, False),
        (
            {"maxPatchPublishDate": "2026-11-10T17:59:59Z"},
            {"classifications": ["Security"], "published_at": None},
            None,
        ),
        ({"maxPatchPublishDate": "2026-11-10T17:59:59Z"}, {"published_at": None}, False),
        ({"maxPatchPublishDate": "2026-11-09T00:00:00Z", "kbNumbersToInclude": ["KB5046616"]}, {}, False),
    ],
)
def test_windows_patches(wanted: dict[str, Any], patch: dict[str, Any], expected: bool | None) -> None:
    assert selects(windows(**wanted), kb(**patch)) is expected


# --- Linux


@pytest.mark.parametrize(
    ("chosen", "classifications", "expected"),
    [
        (("Security",), ("Critical",), True),
        (("Critical",), ("Security",), True),
        (("Critical", "Security"), ("security",), True),
        (("Critical", "Security"), ("Security-ESM",), True),
        (("Critical", "Security"), ("Other",), False),
        (("Other",), ("Other",), True),
        (("Other",), ("Security",), False),
        (("Other",), ("Security-ESM",), False),
        (("Other",), ("Other", "Security"), False),
        (("Critical", "Security"), ("Other", "Critical"), True),
        (("Critical", "Security", "Other"), ("Other",), True),
        (("Critical", "Security", "Other"), ("Brand new",), True),
        (("Critical", "Security"), ("Unclassified",), None),
        (("Critical", "Security"), ("Other", "Unclassified"), None),
        (("Other",), ("Unclassified",), None),
    ],
)
def test_linux_classifications(
    chosen: tuple[str, ...], classifications: tuple[str, ...], expected: bool | None
) -> None:
    assert selects(linux(*chosen), package("curl", "8.1", *classifications)) is expected


def test_a_linux_patch_without_a_classification_may_be_any() -> None:
    bare = PatchRecord(name="curl", version="8.1")
    assert selects(linux("Security"), bare) is None
    assert selects(linux(packageNameMasksToInclude=["vim"]), bare) is False


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (["curl"], True),
        (["cu*"], True),
        (["c?rl"], True),
        (["CURL"], False),
        (["vim"], False),
        (["curl=8.1"], True),
        (["curl=8.*"], True),
        # The repository may still hold the older version that is asked for.
        (["curl=8.0"], None),
        (["vim=8.0"], False),
        (["curl=8.0", "curl=8.1"], True),
    ],
)
def test_linux_masks_add_to_the_classifications(masks: list[str], expected: bool | None) -> None:
    assert selects(linux("Security", packageNameMasksToInclude=masks), package()) is expected
    assert selects(linux(packageNameMasksToInclude=masks), package()) is expected


@pytest.mark.parametrize("mask", ["curl", "curl=1.0", "c*"])
def test_linux_exclusions_win_whatever_their_version(mask: str) -> None:
    wanted = linux("Security", packageNameMasksToInclude=["curl"], packageNameMasksToExclude=[mask])
    assert selects(wanted, package("curl", "8.1", "Security")) is False
    assert selects(wanted, package("vim", "8.1", "Security")) is True


@pytest.mark.parametrize("architecture", ["x86_64", "noarch", "i686", "aarch64"])
def test_masks_are_matched_with_and_without_the_architecture(architecture: str) -> None:
    name = f"openssl.{architecture}"
    assert product_name(name) == "openssl"
    for mask in ("openssl", name):
        assert selects(linux(packageNameMasksToInclude=[mask]), package(name)) is True
        assert excludes_package(linux("Other", packageNameMasksToExclude=[mask]), name)
    assert not excludes_package(linux("Other", packageNameMasksToExclude=["openssl.s390x"]), name)
    assert product_name("python3.9") == "python3.9"
    assert product_name("openssl.s390x") == "openssl.s390x"


@pytest.mark.parametrize(
    ("kb_id", "number"), [("5046616", "KB5046616"), ("KB5046616", "KB5046616"), ("", None), ("x", None)]
)
def test_numbers_of_patches(kb_id: str, number: str | None) -> None:
    assert kb_of(kb(kb_id=kb_id)) == number


# --- a whole assessment


def summary(critical: int = 0, other: int = 0, **fields: Any) -> AssessmentSummary:
    return AssessmentSummary(status="Succeeded", critical_and_security=critical, other=other, **fields)


def judged(
    wanted: WindowsParameters | LinuxParameters, found: AssessmentSummary, *patches: PatchRecord
) -> AssessmentSummary:
    return found.model_copy(update={"selection": select(wanted, found, patches)})


def test_a_machine_with_only_unselected_patches_has_nothing_to_install() -> None:
    linux_machine = judged(linux("Critical", "Security"), summary(other=2), package("a"), package("b"))
    outcome = nothing_to_install(linux_machine)
    assert outcome
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.NOTHING_TO_INSTALL, Reason.NO_PENDING_PATCHES)
    assert outcome.message == "The policy selects none of the 2 pending patches."
    windows_machine = judged(windows(), summary(other=1), kb())
    outcome = nothing_to_install(windows_machine)
    assert outcome
    assert outcome.message == "The policy does not select the one pending patch."
    masked = linux("Security", packageNameMasksToExclude=["kernel*"])
    assert nothing_to_install(judged(masked, summary(critical=1), package("kernel-core", "5", "Security")))
    assert nothing_to_install(judged(linux("Security"), summary(critical=1), package("a", "1", "Security"))) is None


def test_what_is_counted_and_not_listed_counts_as_selected() -> None:
    assert select(linux("Security"), summary(other=5), []).installable == 5
    assert select(linux("Security"), summary(other=5), [package()]).installable == 4
    cut = summary(other=1, list_is_partial=True)
    assert select(linux("Security"), cut, [package()]).installable == 1
    assert select(linux("Security"), summary(other=1), [package()]).installable == 0
    assert select(linux("Security"), summary(), [package("a", "1", "Security")]).installable == 1


def test_patches_behind_ubuntu_pro_are_no_reason_to_install() -> None:
    esm = package("libc6", "UA_ESM_Required", "Security-ESM", state="NeedsSubscription")
    found = judged(linux("Security"), summary(critical=1, needs_subscription=1), esm)
    assert found.selection
    assert (found.selection.installable, found.selection.needs_subscription) == (0, 1)
    outcome = nothing_to_install(found)
    assert outcome
    assert outcome.reason is Reason.SUBSCRIPTION_REQUIRED
    assert "1 security patches need Ubuntu Pro" in outcome.message
    unselected = judged(linux("Other"), summary(critical=1, needs_subscription=1), esm)
    outcome = nothing_to_install(unselected)
    assert outcome
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.NOTHING_TO_INSTALL, Reason.NO_PENDING_PATCHES)
    assert unselected.behind_subscription == 0


def test_a_pending_reboot_is_reported_when_nothing_is_selected() -> None:
    found = judged(linux("Security"), summary(other=1, reboot_pending=True), package())
    outcome = nothing_to_install(found)
    assert outcome
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.REBOOT_REQUIRED, Reason.REBOOT_PENDING)
    assert outcome.message == (
        "Nothing that the policy selects is left to install, but a reboot is pending: restart the machine."
    )
    empty = nothing_to_install(summary(reboot_pending=True))
    assert empty
    assert empty.message == "Nothing is left to install, but a reboot is pending: restart the machine."


def test_an_assessment_counts_what_the_policy_selects() -> None:
    found = judged(linux("Security"), summary(critical=1, other=2), package("a", "1", "Security"), package(), package())
    assert assessed(found).message == "Pending patches: 1 critical and security, 2 other; the policy selects 1."
    assert assessed(summary(critical=1)).message == "Pending patches: 1 critical and security, 0 other."


def test_without_a_policy_all_that_is_pending_counts() -> None:
    found = summary(critical=5, other=3, needs_subscription=2)
    assert (found.pending, found.installable, found.behind_subscription) == (6, 6, 2)
    asked = found.model_copy(update={"selection": Selection(installable=1, needs_subscription=0)})
    assert (asked.pending, asked.installable, asked.behind_subscription) == (6, 1, 0)
    assert summary(critical=1, needs_subscription=2).pending == 0
    assert AssessmentSummary.model_validate(asked.to_wire()) == asked


def test_equal_rules_have_one_digest() -> None:
    install = Install()
    assert wanted_on(install, OsType.WINDOWS) == install.windows
    assert wanted_on(install, OsType.LINUX) == install.linux
    assert rule_of(install.linux) == rule_of(linux("Critical", "Security"))
    assert rule_of(install.linux) != rule_of(linux("Security"))
    assert rule_of(install.linux) != rule_of(linux("Critical", "Security", packageNameMasksToExclude=["a"]))
    assert select(install.linux, summary(), []).rule == rule_of(install.linux)
    assert len(rule_of(install.linux)) == 16


windows_words = [*WindowsClassification, "Drivers", "Upgrades", ""]
linux_words = [*LinuxClassification, "Security-ESM", "Unclassified", ""]


@given(
    st.lists(st.sampled_from(windows_words), max_size=2),
    st.lists(st.sampled_from(WindowsClassification), min_size=1, unique=True),
    st.lists(st.sampled_from(linux_words), max_size=2),
    st.booleans(),
)
def test_only_words_that_are_known_leave_a_patch_out(
    words: list[str], chosen: list[WindowsClassification], other_words: list[str], has_other: bool
) -> None:
    left_out = selects(windows(classificationsToInclude=chosen), kb(classifications=words)) is False
    if left_out:
        assert words
        assert set(words) <= set(WindowsClassification) - set(chosen)
    wanted = linux("Other") if has_other else linux("Critical", "Security")
    patch = PatchRecord(name="curl", version="1", classifications=other_words)
    if selects(wanted, patch) is False:
        urgent = {"Critical", "Security", "Security-ESM"}
        assert set(other_words) & urgent if has_other else set(other_words) == {"Other"}


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 6), st.timedeltas(timedelta(0), timedelta(days=9)))
def test_never_fewer_than_the_list_surely_shows(critical: int, other: int, listed: int, age: timedelta) -> None:
    patches = [package(f"p{number}", "1", "Security", published_at=PUBLISHED - age) for number in range(listed)]
    found = select(linux("Security"), summary(critical, other), patches)
    assert found.installable == max(listed, critical + other)
