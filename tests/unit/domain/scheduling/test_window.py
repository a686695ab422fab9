"""What still fits into a window: the floor under an installation, the cutoff, and the duration that is sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.install_request import (
    MIN_DURATION,
    InstallParameters,
    RebootSetting,
    WindowsClassification,
)
from patchwave.domain.policy.install import Install, shortest_installation, too_short
from patchwave.domain.policy.scope import OsType
from patchwave.domain.scheduling.window import RESTART_NEEDS, cutoff, deadline, last_start, permitted_duration

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
LINUX, WINDOWS = OsType.LINUX, OsType.WINDOWS
SERVICE_PACKS = {"windows": {"classificationsToInclude": ["Security", "ServicePack"]}}


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def install(**fields: Any) -> Install:
    return Install.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "os_type", "expected"),
    [
        ({}, LINUX, 60),
        ({}, WINDOWS, 60),
        # A policy may go below 60, and never below what the agent needs.
        ({"minimumDuration": "PT20M"}, LINUX, 20),
        ({"minimumDuration": "PT20M"}, WINDOWS, 25),
        ({"minimumDuration": "PT20M"} | SERVICE_PACKS, WINDOWS, 30),
        ({"minimumDuration": "PT20M"} | SERVICE_PACKS, LINUX, 20),
        ({"minimumDuration": "PT28M"} | SERVICE_PACKS, WINDOWS, 30),
        ({"minimumDuration": "PT28M"}, WINDOWS, 28),
        ({"minimumDuration": "PT1H30M"}, LINUX, 90),
        # An installation that may take 40 minutes at most fits into 40.
        ({"maximumDuration": "PT40M"}, LINUX, 40),
        ({"maximumDuration": "PT30M"} | SERVICE_PACKS, WINDOWS, 30),
        ({"maximumDuration": "PT40M", "minimumDuration": "PT3H"}, WINDOWS, 40),
    ],
)
def test_the_floor_of_an_installation(fields: dict[str, Any], os_type: OsType, expected: int) -> None:
    assert shortest_installation(install(**fields), os_type) == minutes(expected)
    assert cutoff(NOW, install(**fields), os_type) == NOW - minutes(expected)


@pytest.mark.parametrize(
    ("left", "permitted"),
    [
        (minutes(240), minutes(120)),
        (minutes(120), minutes(120)),
        (minutes(119.9), minutes(119)),
        (minutes(60), minutes(60)),
        (minutes(60) - timedelta(microseconds=1), None),
        (minutes(0), None),
        (minutes(-5), None),
    ],
)
def test_the_rest_of_the_window_bounds_the_duration(left: timedelta, permitted: timedelta | None) -> None:
    assert permitted_duration(NOW, NOW + left, install(), LINUX) == permitted


def test_without_a_window_the_policy_decides() -> None:
    assert permitted_duration(NOW, None, install(), WINDOWS) == minutes(120)


@given(
    left=st.integers(-10_000, 200_000).map(lambda seconds: timedelta(seconds=seconds)),
    maximum=st.integers(30, 1_439),
    minimum=st.integers(20, 1_439),
    os_type=st.sampled_from(OsType),
    service_packs=st.booleans(),
)
def test_what_starts_can_end_inside_the_window_and_azure_takes_it(
    left: timedelta, maximum: int, minimum: int, os_type: OsType, service_packs: bool
) -> None:
    chosen = install(
        maximumDuration=f"PT{maximum}M", minimumDuration=f"PT{minimum}M", **(SERVICE_PACKS if service_packs else {})
    )
    end = NOW + left
    permitted = permitted_duration(NOW, end, chosen, os_type)
    assert (permitted is not None) == (cutoff(end, chosen, os_type) >= NOW)
    if permitted is None:
        return
    assert NOW + permitted <= end
    assert shortest_installation(chosen, os_type) <= permitted <= minutes(maximum)
    # As long as it can be: less than a minute of what may be given is lost.
    assert min(left, minutes(maximum)) - permitted < minutes(1)
    sent = InstallParameters(
        maximum_duration=permitted,
        reboot_setting=RebootSetting.NEVER,
        windows_parameters=chosen.windows if os_type is WINDOWS else None,
        linux_parameters=chosen.linux if os_type is LINUX else None,
    )
    assert InstallParameters.model_validate(sent.to_wire()).maximum_duration == permitted


def test_no_floor_lies_below_what_the_install_call_takes() -> None:
    for os_type in OsType:
        assert shortest_installation(install(minimumDuration="PT20M"), os_type) >= MIN_DURATION


def test_service_packs_are_the_classification_of_azure() -> None:
    assert WindowsClassification.SERVICE_PACK.value == "ServicePack"


def test_a_window_that_nothing_fits_into() -> None:
    assert too_short(minutes(60), install(), OsType) == ""
    assert too_short(minutes(59), install(), [LINUX]) == (
        "PT59M is shorter than one installation on Linux, which needs PT1H; make the window longer, or"
        " install.minimumDuration shorter"
    )
    least = install(minimumDuration="PT20M")
    assert too_short(minutes(20), least, [LINUX]) == ""
    assert "on Windows, which needs PT25M" in too_short(minutes(20), least, [LINUX, WINDOWS])


def test_point_39_every_wait_has_an_end_of_our_own() -> None:
    assert deadline(NOW, minutes(120)) == NOW + minutes(175)
    assert deadline(NOW, minutes(0)) == NOW + minutes(55)


def test_a_restart_needs_ten_minutes() -> None:
    assert minutes(10) == RESTART_NEEDS


def test_the_last_start_is_that_of_the_system_which_needs_least() -> None:
    short = install(minimumDuration="PT20M")
    assert last_start(NOW, short, [WINDOWS]) == NOW - minutes(25)
    assert last_start(NOW, short, OsType) == last_start(NOW, short, [LINUX]) == NOW - minutes(20)
