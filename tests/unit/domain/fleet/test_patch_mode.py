"""What patches a machine by itself, in each of the eight scenarios, and which changes Azure allows."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from patchwave.domain.fleet.patch_mode import (
    AssessmentMode,
    AttachedSchedule,
    PatchMode,
    PatchSettings,
    PatchSource,
    RefusalCode,
    WantedSettings,
    patch_ownership,
    refusal_of,
)
from patchwave.domain.policy.scope import OsType

SOON = datetime(2026, 12, 1, 3, tzinfo=UTC)
LATER = datetime(2026, 12, 8, 3, tzinfo=UTC)
PLATFORM = PatchMode.AUTOMATIC_BY_PLATFORM
NIGHTLY = AttachedSchedule(configuration_id="/subscriptions/s/resourcegroups/g/providers/m/c/nightly", next_at=SOON)
WEEKLY = AttachedSchedule(configuration_id="/subscriptions/s/resourcegroups/g/providers/m/c/weekly", next_at=LATER)
ENDED = AttachedSchedule(configuration_id="/subscriptions/s/resourcegroups/g/providers/m/c/old")


def windows(mode: PatchMode = PLATFORM, **changes: object) -> PatchSettings:
    updates = {"enable_automatic_updates": mode is not PatchMode.MANUAL} | changes
    return PatchSettings.model_validate(
        {"os_type": OsType.WINDOWS, "patch_mode": mode, "assessment_mode": AssessmentMode.IMAGE_DEFAULT} | updates
    )


def linux(mode: PatchMode = PLATFORM, **changes: object) -> PatchSettings:
    return PatchSettings.model_validate(
        {"os_type": OsType.LINUX, "patch_mode": mode, "assessment_mode": AssessmentMode.IMAGE_DEFAULT} | changes
    )


@pytest.mark.parametrize(
    ("scenario", "mode", "bypass", "schedules", "patcher", "is_mistake"),
    [
        (1, PLATFORM, True, [NIGHTLY], PatchSource.SCHEDULE, False),
        (2, PLATFORM, True, [], PatchSource.NONE, False),
        (3, PLATFORM, False, [NIGHTLY], PatchSource.NONE, True),
        (4, PLATFORM, False, [], PatchSource.PLATFORM, False),
        (5, PatchMode.MANUAL, True, [NIGHTLY], PatchSource.NONE, True),
        (6, PatchMode.MANUAL, True, [], PatchSource.NONE, False),
        (7, PatchMode.MANUAL, False, [NIGHTLY], PatchSource.NONE, True),
        (8, PatchMode.MANUAL, False, [], PatchSource.NONE, False),
    ],
)
def test_each_of_the_eight_scenarios(
    scenario: int,
    mode: PatchMode,
    bypass: bool,
    schedules: list[AttachedSchedule],
    patcher: PatchSource,
    is_mistake: bool,
) -> None:
    patching = patch_ownership(windows(mode, bypass=bypass), schedules)
    assert (patching.scenario, patching.patcher, patching.is_mistake) == (scenario, patcher, is_mistake)
    assert patching.at == (SOON if patcher is PatchSource.SCHEDULE else None)
    assert patching.sentence.endswith(".")


@pytest.mark.parametrize("scenario", [5, 6, 7, 8])
@pytest.mark.parametrize("settings", [windows(PatchMode.AUTOMATIC_BY_OS), linux(PatchMode.IMAGE_DEFAULT)])
def test_in_the_other_modes_the_guest_patches_itself_under_any_flag_and_schedule(
    settings: PatchSettings, scenario: int
) -> None:
    schedules = [NIGHTLY] if scenario in (5, 7) else []
    patching = patch_ownership(settings.model_copy(update={"bypass": scenario in (5, 6)}), schedules)
    assert patching.scenario == scenario
    assert patching.patcher is PatchSource.OPERATING_SYSTEM
    assert patching.is_mistake == bool(schedules)
    assert ("nightly fails" in patching.sentence) == bool(schedules)


def test_the_earliest_schedule_patches() -> None:
    patching = patch_ownership(linux(bypass=True), [WEEKLY, ENDED, NIGHTLY])
    assert (patching.patcher, patching.at) == (PatchSource.SCHEDULE, SOON)
    assert "nightly" in patching.sentence


def test_schedules_that_have_ended_patch_nothing() -> None:
    patching = patch_ownership(linux(bypass=True), [ENDED])
    assert (patching.scenario, patching.patcher) == (1, PatchSource.NONE)
    assert "old" in patching.sentence


def test_what_azure_leaves_out_is_unpatched() -> None:
    patching = patch_ownership(linux(), unsupported="its image is custom.")
    assert (patching.scenario, patching.patcher) == (4, PatchSource.NONE)
    assert patching.sentence.endswith("its image is custom.")


def test_an_unknown_mode_is_not_called_patched() -> None:
    settings = PatchSettings.read("Linux", {"patchSettings": {"patchMode": "AutomaticByMagic"}})
    assert settings is not None
    assert patch_ownership(settings, [NIGHTLY]).patcher is PatchSource.UNKNOWN


# --- reading ---------------------------------------------------------------------------------------------------


def test_every_setting_of_azure_is_read() -> None:
    settings = PatchSettings.read(
        "windows",
        {
            "provisionVMAgent": False,
            "enableAutomaticUpdates": False,
            "patchSettings": {
                "patchMode": "automaticbyplatform",
                "assessmentMode": "AUTOMATICBYPLATFORM",
                "enableHotpatching": True,
                "automaticByPlatformSettings": {
                    "rebootSetting": "IfRequired",
                    "bypassPlatformSafetyChecksOnUserSchedule": True,
                },
            },
        },
    )
    assert settings == PatchSettings(
        os_type=OsType.WINDOWS,
        patch_mode=PLATFORM,
        assessment_mode=AssessmentMode.AUTOMATIC_BY_PLATFORM,
        bypass=True,
        hotpatching=True,
        enable_automatic_updates=False,
        provision_vm_agent=False,
    )


@pytest.mark.parametrize(
    ("os_type", "configuration", "mode"),
    [
        ("Windows", None, PatchMode.AUTOMATIC_BY_OS),
        ("Windows", {"enableAutomaticUpdates": False}, PatchMode.MANUAL),
        ("Linux", {"patchSettings": None}, PatchMode.IMAGE_DEFAULT),
        ("LINUX", {"patchSettings": {"patchMode": ""}}, PatchMode.IMAGE_DEFAULT),
    ],
)
def test_what_azure_does_not_say_has_its_defaults(os_type: str, configuration: object, mode: PatchMode) -> None:
    settings = PatchSettings.read(os_type, configuration)
    assert settings is not None
    assert settings.patch_mode is mode
    assert settings.assessment_mode is AssessmentMode.IMAGE_DEFAULT
    assert settings.provision_vm_agent
    assert not settings.bypass


def test_a_machine_without_a_system_has_no_settings() -> None:
    assert PatchSettings.read("", {}) is None


# --- changes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("updates", "before", "allowed"),
    [
        (True, PatchMode.AUTOMATIC_BY_OS, {PLATFORM}),
        (True, PLATFORM, {PatchMode.AUTOMATIC_BY_OS}),
        (False, PatchMode.MANUAL, {PLATFORM}),
        (False, PLATFORM, {PatchMode.MANUAL}),
    ],
)
def test_windows_changes_as_the_document_allows(updates: bool, before: PatchMode, allowed: set[PatchMode]) -> None:
    settings = windows(before, enable_automatic_updates=updates)
    possible = {mode for mode in PatchMode if refusal_of(settings, WantedSettings(patch_mode=mode)) is None}
    assert possible == {before, *allowed}


def test_linux_changes_between_its_two_modes() -> None:
    for settings in (linux(), linux(PatchMode.IMAGE_DEFAULT)):
        possible = {mode for mode in PatchMode if refusal_of(settings, WantedSettings(patch_mode=mode)) is None}
        assert possible == {PLATFORM, PatchMode.IMAGE_DEFAULT}


@pytest.mark.parametrize(
    ("before", "after", "instead"),
    [
        (PatchMode.AUTOMATIC_BY_OS, PatchMode.MANUAL, "AutomaticByOS"),
        (PatchMode.MANUAL, PatchMode.AUTOMATIC_BY_OS, "Manual"),
    ],
)
def test_automatic_by_os_and_manual_never_follow_each_other(before: PatchMode, after: PatchMode, instead: str) -> None:
    refusal = refusal_of(windows(before), WantedSettings(patch_mode=after))
    assert refusal is not None
    assert refusal.code is RefusalCode.FIXED_AT_CREATION
    assert "enableAutomaticUpdates" in refusal.sentence
    assert f"choose {instead} or AutomaticByPlatform" in refusal.sentence


@pytest.mark.parametrize("mode", [PatchMode.AUTOMATIC_BY_OS, PatchMode.MANUAL])
def test_linux_has_no_modes_of_windows(mode: PatchMode) -> None:
    refusal = refusal_of(linux(), WantedSettings(patch_mode=mode))
    assert refusal is not None
    assert refusal.code is RefusalCode.OTHER_SYSTEM
    assert refusal.sentence == f"Linux has no mode {mode}; it has AutomaticByPlatform, ImageDefault."


def test_windows_has_no_image_default() -> None:
    refusal = refusal_of(windows(), WantedSettings(patch_mode=PatchMode.IMAGE_DEFAULT))
    assert refusal is not None
    assert refusal.code is RefusalCode.OTHER_SYSTEM


@pytest.mark.parametrize(
    "wanted",
    [WantedSettings(bypass=True), WantedSettings(patch_mode=PatchMode.AUTOMATIC_BY_OS)],
)
def test_hotpatching_keeps_the_platforms_checks_and_mode(wanted: WantedSettings) -> None:
    refusal = refusal_of(windows(hotpatching=True), wanted)
    assert refusal is not None
    assert refusal.code is RefusalCode.HOTPATCH
    assert refusal_of(windows(), wanted) is None


@pytest.mark.parametrize(
    "wanted",
    [WantedSettings(patch_mode=PLATFORM), WantedSettings(assessment_mode=AssessmentMode.AUTOMATIC_BY_PLATFORM)],
)
def test_the_platform_needs_an_agent(wanted: WantedSettings) -> None:
    refusal = refusal_of(linux(PatchMode.IMAGE_DEFAULT, provision_vm_agent=False), wanted)
    assert refusal is not None
    assert refusal.code is RefusalCode.NO_AGENT


def test_the_flag_is_of_the_platforms_mode() -> None:
    refusal = refusal_of(linux(PatchMode.IMAGE_DEFAULT), WantedSettings(bypass=True))
    assert refusal is not None
    assert refusal.code is RefusalCode.NOT_BY_PLATFORM
    assert refusal_of(linux(PatchMode.IMAGE_DEFAULT), WantedSettings(patch_mode=PLATFORM, bypass=True)) is None
    with pytest.raises(ValidationError, match="AutomaticByPlatform only"):
        WantedSettings(patch_mode=PatchMode.MANUAL, bypass=True)


def test_wanting_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="changes nothing"):
        WantedSettings()


def test_the_body_names_only_what_changes() -> None:
    assert WantedSettings(patch_mode=PLATFORM, bypass=True).to_azure(OsType.LINUX) == {
        "properties": {
            "osProfile": {
                "linuxConfiguration": {
                    "patchSettings": {
                        "patchMode": "AutomaticByPlatform",
                        "automaticByPlatformSettings": {"bypassPlatformSafetyChecksOnUserSchedule": True},
                    }
                }
            }
        }
    }
    assert WantedSettings(assessment_mode=AssessmentMode.IMAGE_DEFAULT).to_azure(OsType.WINDOWS) == {
        "properties": {"osProfile": {"windowsConfiguration": {"patchSettings": {"assessmentMode": "ImageDefault"}}}}
    }


_SETTINGS = st.fixed_dictionaries(
    {
        "os_type": st.sampled_from(OsType),
        "patch_mode": st.sampled_from(PatchMode),
        "assessment_mode": st.sampled_from(AssessmentMode),
        "bypass": st.booleans(),
        "hotpatching": st.booleans(),
        "enable_automatic_updates": st.booleans(),
        "provision_vm_agent": st.booleans(),
    }
).map(PatchSettings.model_validate)


@given(settings=_SETTINGS)
def test_a_machine_may_always_stay_as_it_is(settings: PatchSettings) -> None:
    wanted = WantedSettings(patch_mode=settings.patch_mode, assessment_mode=settings.assessment_mode)
    assert wanted.is_met_by(settings)
    assert refusal_of(settings, wanted) is None


@given(
    settings=_SETTINGS,
    patch_mode=st.none() | st.sampled_from(PatchMode),
    assessment_mode=st.sampled_from(AssessmentMode),
)
def test_what_is_written_reads_as_what_was_wanted(
    settings: PatchSettings, patch_mode: PatchMode | None, assessment_mode: AssessmentMode
) -> None:
    wanted = WantedSettings(patch_mode=patch_mode, assessment_mode=assessment_mode)
    body = wanted.to_azure(settings.os_type)["properties"]["osProfile"]
    after = PatchSettings.read(settings.os_type, next(iter(body.values())))
    assert after is not None
    assert after.assessment_mode is assessment_mode
    assert patch_mode in (None, after.patch_mode)
