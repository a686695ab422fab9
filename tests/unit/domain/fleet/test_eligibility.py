"""Which machines Azure's guest patching takes, and why not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.fleet.eligibility import OLDEST_LINUX_AGENT, Cause, evaluate, parse_version
from patchwave.domain.fleet.patch_mode import AssessmentMode, PatchMode, PatchSettings
from patchwave.domain.fleet.supported_images import DOCUMENT_DATE, READ_ON, SUPPORTED_IMAGES, Image
from patchwave.domain.policy.scope import OsType

JAMMY = "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2:latest"
GALLERY = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/a/images/b/versions/1.0.0"
LINUX = PatchSettings(
    os_type=OsType.LINUX, patch_mode=PatchMode.IMAGE_DEFAULT, assessment_mode=AssessmentMode.IMAGE_DEFAULT
)
WINDOWS = LINUX.model_copy(update={"os_type": OsType.WINDOWS, "patch_mode": PatchMode.MANUAL})


def causes(
    settings: PatchSettings | None = LINUX, image: str = JAMMY, agent: str = "2.11.1.12", *, extensions: bool = True
) -> list[Cause]:
    found = evaluate(settings, image=image, agent_version=agent, extensions=extensions)
    assert found.is_eligible == (not found.obstacles) == (not found.sentence)
    return [obstacle.cause for obstacle in found.obstacles]


def test_a_supported_image_with_a_new_agent_is_eligible() -> None:
    assert causes() == []
    assert causes(WINDOWS, "MicrosoftWindowsServer:WindowsServer:2022-datacenter-azure-edition:latest") == []


@pytest.mark.parametrize(
    ("image", "cause"),
    [
        ("Canonical:0001-com-ubuntu-server-jammy:22_04-lts-arm64", Cause.OTHER_IMAGE),
        ("Canonical:ubuntu-24_04-lts:server:latest", Cause.OTHER_IMAGE),
        ("RedHat:RHEL:9_4:latest", Cause.OTHER_IMAGE),
        ("MicrosoftWindowsDesktop:windows-11:win11-23h2-pro:latest", Cause.WINDOWS_CLIENT),
        (GALLERY, Cause.CUSTOM_IMAGE),
    ],
)
def test_other_images_are_not(image: str, cause: Cause) -> None:
    [obstacle] = evaluate(LINUX, image=image, agent_version="2.11.1.12").obstacles
    assert obstacle.cause is cause
    # Update Manager patches custom and unlisted images on demand; client systems never.
    assert obstacle.only_automatic == (cause is not Cause.WINDOWS_CLIENT)


@pytest.mark.parametrize(
    ("agent", "expected"),
    [("2.2.53.1", []), ("2.11.1.12", []), ("2.2.53", [Cause.OLD_AGENT]), ("2.2.45", [Cause.OLD_AGENT])],
)
def test_linux_needs_agent_2_2_53_1_or_newer(agent: str, expected: list[Cause]) -> None:
    assert causes(agent=agent) == expected
    assert causes(WINDOWS, "MicrosoftWindowsServer:WindowsServer:2019-Datacenter", agent) == []


def test_the_agent_must_be_provisioned_and_may_install_extensions() -> None:
    assert causes(LINUX.model_copy(update={"provision_vm_agent": False})) == [Cause.NO_AGENT]
    assert causes(extensions=False) == [Cause.NO_EXTENSIONS]


def test_every_obstacle_is_named() -> None:
    assert causes(agent="2.2.45", image=GALLERY) == [Cause.OLD_AGENT, Cause.CUSTOM_IMAGE]
    assert causes(None) == [Cause.NO_SYSTEM]


@pytest.mark.parametrize("agent", ["", "Unknown", "2", "2.x", "1.2.3.4.5.6"])
def test_what_azure_does_not_report_is_unknown_and_no_obstacle(agent: str) -> None:
    found = evaluate(LINUX, image="", agent_version=agent)
    assert found.is_eligible
    assert found.unknown == ("agentVersion", "image")


@given(st.lists(st.integers(0, 99_999), min_size=4, max_size=4))
def test_versions_are_compared_by_number(parts: list[int]) -> None:
    is_old = tuple(parts) < OLDEST_LINUX_AGENT
    assert causes(agent=".".join(map(str, parts))) == ([Cause.OLD_AGENT] if is_old else [])


def test_a_version_is_numbers_and_points() -> None:
    assert parse_version("2.2.53.1") == OLDEST_LINUX_AGENT
    assert parse_version("9" * 40) is None


# --- the table -------------------------------------------------------------------------------------------------


def test_the_table_is_the_documents() -> None:
    assert (DOCUMENT_DATE.isoformat(), READ_ON.isoformat()) == ("2021-10-20", "2026-11-20")
    assert len(SUPPORTED_IMAGES) == len(set(SUPPORTED_IMAGES)) == 89
    publishers = {image.publisher: 0 for image in SUPPORTED_IMAGES}
    for image in SUPPORTED_IMAGES:
        publishers[image.publisher] += 1
    assert publishers == {
        "Canonical": 11,
        "microsoftcblmariner": 4,
        "Redhat": 27,
        "OpenLogic": 17,
        "SUSE": 4,
        "MicrosoftWindowsServer": 26,
    }


@given(st.sampled_from(SUPPORTED_IMAGES), st.sampled_from([str.upper, str.lower, str.swapcase]))
def test_images_are_compared_without_case_and_whatever_their_version(image: Image, respell: type[str]) -> None:
    found = Image.parse(f"{respell(':'.join(image))}:1.0.20261110")
    assert found is not None
    assert found.is_supported


@given(st.sampled_from(SUPPORTED_IMAGES), st.integers(0, 2))
def test_only_the_exact_combination_counts(image: Image, place: int) -> None:
    parts = list(image)
    parts[place] += "-2"
    assert not Image(*parts).is_supported or Image(*parts) in SUPPORTED_IMAGES


@pytest.mark.parametrize("text", ["", "a:b", ":b:c", GALLERY, GALLERY + ":1:2"])
def test_what_is_no_marketplace_image(text: str) -> None:
    assert Image.parse(text) is None
