"""What is sent to the install call, and every value that is refused before any call."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from patchwave.domain.azure.install_request import (
    InstallParameters,
    LinuxClassification,
    LinuxParameters,
    RebootSetting,
    WindowsClassification,
    WindowsParameters,
    is_package_mask,
    normalize_kb,
    read_package_mask,
)
from patchwave.domain.core.duration import format_duration, parse_duration
from patchwave.domain.core.patches import PatchRecord
from patchwave.domain.machine.patch_selection import selects
from patchwave.domain.policy.policy import parse_policy

LINUX = {"classificationsToInclude": ["Critical", "Security"]}
WINDOWS = {"classificationsToInclude": ["Critical"]}


def install(**fields: Any) -> InstallParameters:
    given_fields = {"maximumDuration": "PT2H", "rebootSetting": "IfRequired", "linuxParameters": LINUX} | fields
    return InstallParameters.model_validate(given_fields)


def test_the_documented_request_is_what_we_send() -> None:
    parameters = InstallParameters.model_validate(
        {
            "maximumDuration": "PT4H",
            "rebootSetting": "IfRequired",
            "windowsParameters": {
                "classificationsToInclude": ["Critical", "Security"],
                "maxPatchPublishDate": "2020-11-19T02:36:43.0539904+00:00",
                "patchNameMasksToInclude": ["*SQL*"],
                "patchNameMasksToExclude": ["*Windows*"],
            },
        }
    )
    assert parameters.to_azure() == {
        "maximumDuration": "PT4H",
        "rebootSetting": "IfRequired",
        "windowsParameters": {
            "classificationsToInclude": ["Critical", "Security"],
            "excludeKbsRequiringReboot": False,
            "maxPatchPublishDate": "2020-11-19T02:36:43.053Z",
            "patchNameMasksToInclude": ["*SQL*"],
            "patchNameMasksToExclude": ["*Windows*"],
        },
    }


def test_every_field_of_the_two_systems_is_sent_by_its_name() -> None:
    windows = {
        "classificationsToInclude": [word.value for word in WindowsClassification],
        "kbNumbersToInclude": ["KB4512508"],
        "kbNumbersToExclude": ["KB4512509"],
        "excludeKbsRequiringReboot": True,
        "maxPatchPublishDate": "2026-11-10T00:00:00.000Z",
        "patchNameMasksToInclude": ["*SQL*"],
        "patchNameMasksToExclude": ["Preview?"],
    }
    linux = {
        "classificationsToInclude": [word.value for word in LinuxClassification],
        "packageNameMasksToInclude": ["openssl=3.0.2-0ubuntu1.18", "lib*"],
        "packageNameMasksToExclude": ["kernel*"],
        "maintenanceRunId": "2026-11",
    }
    both: list[tuple[str, dict[str, Any]]] = [("windowsParameters", windows), ("linuxParameters", linux)]
    for key, system in both:
        sent = {"maximumDuration": "PT1H30M", "rebootSetting": "Never", key: system}
        assert InstallParameters.model_validate(sent).to_azure() == sent


def test_only_one_system_is_sent_and_it_must_be_given() -> None:
    assert "windowsParameters" not in install().to_azure()
    for bad in ({"linuxParameters": None}, {"windowsParameters": WINDOWS}):
        with pytest.raises(ValidationError, match="exactly one of windowsParameters and linuxParameters"):
            install(**bad)


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("IfRequired", "IfRequired"),
        ("RebootIfRequired", "IfRequired"),
        ("Never", "Never"),
        ("NeverReboot", "Never"),
        ("Always", "Always"),
        ("ALWAYSREBOOT", "Always"),
        ("Sometimes", None),
        ("", None),
    ],
)
def test_reboot_settings_are_read_in_both_vocabularies(text: str, setting: str | None) -> None:
    assert RebootSetting.read(text) == setting


@pytest.mark.parametrize("word", ["NeverReboot", "AlwaysReboot", "ifRequired", "", None, "Maybe"])
def test_reboot_words_of_update_manager_are_refused(word: object) -> None:
    with pytest.raises(ValidationError, match="'IfRequired', 'Never' or 'Always'"):
        install(rebootSetting=word)
    assert {setting.value for setting in RebootSetting} == {"IfRequired", "Never", "Always"}


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("PT30M", "PT30M"),
        ("PT90M", "PT1H30M"),
        ("PT1H30M", "PT1H30M"),
        ("PT1800S", "PT30M"),
        ("PT23H59M", "PT23H59M"),
        ("pt4h", "PT4H"),
        (" PT2H ", "PT2H"),
        ("PT30M59S", "PT30M"),
    ],
)
def test_durations_are_sent_as_hours_and_minutes(text: str, sent: str) -> None:
    assert install(maximumDuration=text).to_azure()["maximumDuration"] == sent


@pytest.mark.parametrize("text", ["PT19M", "PT19M59S", "PT24H", "PT1440M", "PT0M", "PT100H"])
def test_durations_that_the_agents_cannot_use_are_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="at least PT20M and under PT24H"):
        install(maximumDuration=text)


@pytest.mark.parametrize(
    "text", ["", "PT", "P1D", "P1DT2H", "P1W", "2H", "PT2", "PT1.5H", "PT-1H", "-PT1H", "PT1M1H", "PT٣0M", "PT2H\nX"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValidationError, match="PT1H30M"):
        install(maximumDuration=text)


@given(st.integers(20, 24 * 60 - 1))
def test_durations_survive_the_round_trip(minutes: int) -> None:
    duration = timedelta(minutes=minutes)
    text = format_duration(duration)
    assert re.fullmatch(r"PT(\d{1,2}H)?(\d{1,2}M)?", text)
    assert parse_duration(text) == duration
    assert install(maximumDuration=text).maximum_duration == duration


@given(st.integers(30 * 60, 24 * 3600 - 1))
def test_a_duration_is_never_rounded_up(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    sent = parse_duration(format_duration(duration))
    assert timedelta(0) <= duration - sent < timedelta(minutes=1)


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        found = parse_duration(text)
    except ValueError:
        return
    assert found >= timedelta(0)


@given(st.from_regex(r"[0-9]{5,8}", fullmatch=True), st.sampled_from(["", "KB", "kb", "Kb", " KB"]))
def test_kb_numbers_get_the_prefix_that_the_api_demands(digits: str, prefix: str) -> None:
    assert normalize_kb(prefix + digits) == f"KB{digits}"
    assert normalize_kb(normalize_kb(prefix + digits)) == f"KB{digits}"


@given(st.text(max_size=12))
def test_any_other_kb_is_refused(text: str) -> None:
    if re.fullmatch(r"(?i:kb)?[0-9]{5,8}", text.strip(), re.ASCII):
        assert normalize_kb(text)[2:].isascii()
    else:
        with pytest.raises(ValueError, match="KB4512508"):
            normalize_kb(text)


@pytest.mark.parametrize(
    "value", ["", "KB", "1111", "KB1111", "KB123456789", "KB 4512508", "4512508a", "KB4512508,KB4512509", "٤٥١٢٥٠٨"]
)
def test_point_27_a_kb_that_azure_would_refuse_is_refused_before_any_call(value: str) -> None:
    for field in ("kbNumbersToInclude", "kbNumbersToExclude"):
        with pytest.raises(ValidationError) as caught:
            WindowsParameters.model_validate({"classificationsToInclude": ["Security"], field: [value]})
        (error,) = caught.value.errors()
        assert error["loc"] == (field, 0)
        assert "KB4512508" in error["msg"]


@given(st.text(alphabet="abcXYZ019*?", min_size=1, max_size=30))
def test_name_masks_of_letters_digits_and_wildcards_are_taken(mask: str) -> None:
    for field in ("patchNameMasksToInclude", "patchNameMasksToExclude"):
        found = WindowsParameters.model_validate({"classificationsToInclude": ["Security"], field: [mask]})
        assert found.to_wire()[field] == [mask]


@given(st.text(max_size=20))
def test_name_masks_with_anything_else_are_refused(mask: str) -> None:
    document = {"patchNameMasksToInclude": [mask]}
    if re.fullmatch(r"[A-Za-z0-9*?]+", mask):
        assert WindowsParameters.model_validate(document).patch_name_masks_to_include == [mask]
    else:
        with pytest.raises(ValidationError, match="name mask"):
            WindowsParameters.model_validate(document)


@pytest.mark.parametrize(
    "mask", ["openssl", "lib*", "openssl=3.0.2-0ubuntu1.18", "g++", "linux-image-?.*", "a=1:2~rc1+b"]
)
def test_packages_can_be_masked_and_pinned(mask: str) -> None:
    assert LinuxParameters.model_validate({"packageNameMasksToInclude": [mask]}).package_name_masks_to_include == [mask]


@pytest.mark.parametrize("mask", ["", " ", "a b", "=1.0", "a=", "a=b=c", "-rf", "a;reboot", "$(x)", "a|b", "a\n", "a'"])
def test_package_masks_that_select_nothing_or_are_hostile_are_refused(mask: str) -> None:
    for field in ("packageNameMasksToInclude", "packageNameMasksToExclude"):
        with pytest.raises(ValidationError, match="name=version"):
            LinuxParameters.model_validate({"classificationsToInclude": ["Security"], field: [mask]})


@pytest.mark.parametrize(
    "chosen",
    [["Other", "Critical"], ["Other", "Security"], ["security", "other"]],
)
def test_the_combination_that_the_linux_agent_refuses_is_refused(chosen: list[str]) -> None:
    with pytest.raises(ValidationError, match="give both or neither"):
        LinuxParameters.model_validate({"classificationsToInclude": chosen})


@pytest.mark.parametrize(
    "chosen",
    [["Other"], ["Critical"], ["Security"], ["Critical", "Security"], ["Critical", "Security", "Other"]],
)
def test_the_combinations_that_the_linux_agent_takes_are_taken(chosen: list[str]) -> None:
    assert (
        LinuxParameters.model_validate({"classificationsToInclude": chosen}).to_wire()["classificationsToInclude"]
        == chosen
    )


@pytest.mark.parametrize(
    "document",
    [{}, {"kbNumbersToExclude": ["KB4512508"]}, {"patchNameMasksToExclude": ["*x*"]}, {"classificationsToInclude": []}],
)
def test_windows_settings_that_select_nothing_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="at least one of classificationsToInclude"):
        WindowsParameters.model_validate(document)


@pytest.mark.parametrize("document", [{}, {"packageNameMasksToExclude": ["kernel*"]}, {"maintenanceRunId": "x"}])
def test_linux_settings_that_select_nothing_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="at least one of classificationsToInclude"):
        LinuxParameters.model_validate(document)


def test_classifications_are_compared_without_case_and_sent_as_azure_spells_them() -> None:
    found = WindowsParameters.model_validate({"classificationsToInclude": ["UpdateRollup", "SECURITY"]})
    assert found.to_wire()["classificationsToInclude"] == ["UpdateRollUp", "Security"]


@pytest.mark.parametrize("word", ["Security-ESM", "Other", "", "Moderate", 3, None])
def test_classifications_that_windows_does_not_have_are_refused(word: object) -> None:
    with pytest.raises(ValidationError):
        WindowsParameters.model_validate({"classificationsToInclude": [word]})


def test_a_misspelt_key_is_an_error_and_not_a_silent_default() -> None:
    with pytest.raises(ValidationError):
        install(rebootsetting="Never")
    with pytest.raises(ValidationError):
        WindowsParameters.model_validate(WINDOWS | {"kbNumbersToinclude": ["KB4512508"]})


# --- the form of Microsoft's text, name_version


@pytest.mark.parametrize(
    ("mask", "read"),
    [
        ("azure-cli_2.78.0-1.el9", "azure-cli=2.78.0-1.el9"),
        ("openssl_3.0.2-0ubuntu1.18", "openssl=3.0.2-0ubuntu1.18"),
        ("vim_2:8.2.3995-1ubuntu2", "vim=2:8.2.3995-1ubuntu2"),
        ("vim_2:8", "vim=2:8"),
        ("foo_1~rc1", "foo=1~rc1"),
        ("foo_1.0^git1", "foo=1.0^git1"),
        ("openssl_3.*", "openssl=3.*"),
        ("*_1.2", "*=1.2"),
        ("mod_ssl_2.4.57-8.el9", "mod_ssl=2.4.57-8.el9"),
        ("kernel_4.18.0-553.el8_10", "kernel=4.18.0-553.el8_10"),
        ("kernel_4.18.0-553.el8_10.2", "kernel=4.18.0-553.el8_10.2"),
        ("azure-cli.x86_64_2.78.0-1.el9", "azure-cli.x86_64=2.78.0-1.el9"),
        ("python3.9_3.9.18-3.el9", "python3.9=3.9.18-3.el9"),
    ],
)
def test_a_name_with_a_version_is_translated_where_only_one_reading_is_possible(mask: str, read: str) -> None:
    for field in ("packageNameMasksToInclude", "packageNameMasksToExclude"):
        document = {"classificationsToInclude": ["Security"], field: [mask]}
        assert LinuxParameters.model_validate(document).to_wire()[field] == [read]
    assert read_package_mask(read) == read


@pytest.mark.parametrize(
    "mask",
    [
        "mod_ssl",
        "python3-typing_extensions",
        "openssl.x86_64",
        "*x86_64*",
        "x86_energy_perf_policy",
        "java-1.8.0-openjdk",
        "libstdc++6",
        "libopenssl1_1=1.1.1l-150400.7",
        "libopenssl1_1=*",
        "mod_*=*",
    ],
)
def test_names_with_underscores_are_unchanged(mask: str) -> None:
    assert read_package_mask(mask) == mask


@pytest.mark.parametrize(
    ("mask", "version", "name"),
    [
        # Packages of SUSE, whose names hold numbers behind underscores.
        ("libopenssl1_1", "libopenssl1=1", "libopenssl1_1=*"),
        ("libboost_thread1_66_0", "libboost_thread1=66_0", "libboost_thread1_66_0=*"),
        ("libopenssl1_1_1.1.1l-150400.7", "libopenssl1=1_1.1.1l-150400.7", "libopenssl1_1_1.1.1l-150400.7=*"),
        ("ca-certificates_20230311", "ca-certificates=20230311", "ca-certificates_20230311=*"),
        ("kubectl_v1.29", "kubectl=v1.29", "kubectl_v1.29=*"),
        ("azure-cli_*", "azure-cli=*", "azure-cli_*=*"),
        ("azure-cli_?.1", "azure-cli=?.1", "azure-cli_?.1=*"),
        ("azure-cli_", "azure-cli=*", "azure-cli_=*"),
        # An id of a patch, and a version with its architecture: the agent compares neither.
        ("tzdata_2024a-0_Ubuntu_22.04", "tzdata=2024a-0_Ubuntu_22.04", "tzdata_2024a-0_Ubuntu_22.04=*"),
        ("azure-cli_2.78.0-1.el9.x86_64", "azure-cli=2.78.0-1.el9.x86_64", "azure-cli_2.78.0-1.el9.x86_64=*"),
        ("azure-cli_2.78.0-1.el9.aarch64", "azure-cli=2.78.0-1.el9.aarch64", "azure-cli_2.78.0-1.el9.aarch64=*"),
    ],
)
def test_a_mask_with_two_readings_is_refused_with_the_forms_that_work(mask: str, version: str, name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LinuxParameters.model_validate({"packageNameMasksToInclude": [mask]})
    (error,) = caught.value.errors()
    assert error["loc"] == ("packageNameMasksToInclude", 0)
    assert f"write {version} for the version, or {name} when" in error["msg"]
    assert read_package_mask(name) == name


@given(
    st.from_regex(r"[a-z]{1,6}(-[a-z0-9]{1,4})?", fullmatch=True),
    st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){1,3}(-[0-9])?", fullmatch=True),
)
def test_plain_names_and_versions_are_always_translated(name: str, version: str) -> None:
    assert read_package_mask(f"{name}_{version}") == f"{name}={version}"
    assert read_package_mask(name) == name


@given(st.text(max_size=12))
def test_whatever_is_read_is_a_mask_and_stays_one(text: str) -> None:
    try:
        read = read_package_mask(text)
    except ValueError:
        return
    assert is_package_mask(read)
    assert read_package_mask(read) == read
    assert read == text or "_" in text


def test_the_excluded_package_of_a_policy_in_microsofts_form_is_not_selected() -> None:
    """Once it was valid, and the package was installed: the agent takes the whole of it for a name."""
    linux = {
        "classificationsToInclude": ["Critical", "Security"],
        "packageNameMasksToExclude": ["azure-cli_2.78.0-1.el9"],
    }
    policy = parse_policy({"name": "mask", "scope": {"osTypes": ["Linux"]}, "install": {"linux": linux}})
    assert policy.install.linux.package_name_masks_to_exclude == ["azure-cli=2.78.0-1.el9"]
    pending = PatchRecord(name="azure-cli.x86_64", version="2.78.0-1.el9", classifications=["Security"])
    assert selects(policy.install.linux, pending) is False
