"""Which machines Azure's guest patching takes, and why not."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.fleet.eligibility import (
    NO_ANSWERS,
    OLDEST_LINUX_AGENT,
    AzureAnswers,
    Cause,
    Eligibility,
    ImageSupport,
    evaluate,
    parse_version,
)
from patchwave.domain.fleet.patch_mode import AssessmentMode, PatchMode, PatchSettings
from patchwave.domain.fleet.supported_images import IMAGE_TABLE
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
        ("MicrosoftWindowsDesktop:windows-11:win11-23h2-pro:latest", Cause.WINDOWS_CLIENT),
        (GALLERY, Cause.CUSTOM_IMAGE),
    ],
)
def test_custom_images_and_client_systems_are_not(image: str, cause: Cause) -> None:
    [obstacle] = evaluate(LINUX, image=image, agent_version="2.11.1.12").obstacles
    assert obstacle.cause is cause
    # Update Manager patches custom images on demand; client systems never.
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


# --- images that the table lacks ---------------------------------------------------------------------------------

UNLISTED = "Canonical:ubuntu-26_04-lts:server:latest"


def judged(image: str = UNLISTED, answers: AzureAnswers = NO_ANSWERS, **given: Any) -> Eligibility:
    return evaluate(LINUX, image=image, agent_version="2.11.1.12", answers=answers, **given)


def test_an_image_that_the_table_lacks_is_unknown_and_never_unsupported() -> None:
    found = judged()
    assert found.is_eligible
    assert found.is_image_undecided
    assert (found.image_support, found.unknown) == (ImageSupport.UNKNOWN, ("image",))
    assert found.image_note == (
        "Its image Canonical:ubuntu-26_04-lts:server is not in the table of 2026-12-01. No answer of Azure shows yet"
        " whether it takes the image."
    )


def test_one_that_was_taken_off_the_table_is_unknown_too() -> None:
    found = judged("OpenLogic:CentOS:7_9:latest")
    assert found.is_image_undecided
    assert "is not in the table of 2026-12-01; it was in that of 2021-10-20." in found.image_note
    assert found.end_of_life == date(2024, 6, 30)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (AzureAnswers(assessed_at=datetime(2026, 11, 20, 4, tzinfo=UTC)), "assessed the machine at 2026-11-20T04:00"),
        (AzureAnswers(extension="succeeded"), "has installed its patch extension"),
    ],
)
def test_what_azure_last_answered_decides(answers: AzureAnswers, reason: str) -> None:
    found = judged(answers=answers)
    assert (found.image_support, found.unknown, found.is_image_undecided) == (ImageSupport.ANSWERED, (), False)
    assert "not in the table of 2026-12-01" in found.image_note
    assert reason in found.image_note


@pytest.mark.parametrize("answers", [AzureAnswers(extension="Failed"), AzureAnswers(extension="Creating")])
def test_an_extension_that_is_not_installed_is_no_answer(answers: AzureAnswers) -> None:
    assert judged(answers=answers).is_image_undecided


def test_an_answer_is_no_way_around_what_the_page_excludes() -> None:
    answers = AzureAnswers(datetime(2026, 11, 20, tzinfo=UTC), "Succeeded")
    for image in (GALLERY, "MicrosoftWindowsDesktop:windows-11:win11-23h2-pro:latest"):
        found = judged(image, answers)
        assert (found.is_eligible, found.image_support) == (False, ImageSupport.UNSUPPORTED)


def test_an_image_that_a_setting_adds_is_listed() -> None:
    found = judged(images=IMAGE_TABLE.extend(["canonical:ubuntu-26_04-lts:*"]))
    assert (found.image_support, found.image_note, found.unknown) == (ImageSupport.LISTED, "", ())


def test_the_agent_counts_beside_the_image() -> None:
    found = evaluate(LINUX, image=UNLISTED, agent_version="2.2.45")
    assert [obstacle.cause for obstacle in found.obstacles] == [Cause.OLD_AGENT]
    assert not found.is_image_undecided
