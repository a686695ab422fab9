"""How long an installation may last, from what is left of the window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.patching import SHORTEST_DURATION
from domain.window import REBOOT_RESERVE, deadline, permitted_duration

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


@pytest.mark.parametrize(
    ("left", "permitted"),
    [
        (minutes(240), minutes(120)),
        (minutes(120), minutes(120)),
        (minutes(119.9), minutes(119)),
        (minutes(30), minutes(30)),
        (minutes(29.99), None),
        (minutes(0), None),
        (minutes(-5), None),
    ],
)
def test_the_rest_of_the_window_bounds_the_duration(left: timedelta, permitted: timedelta | None) -> None:
    assert permitted_duration(NOW, minutes(120), NOW + left) == permitted


def test_without_a_window_the_policy_decides() -> None:
    assert permitted_duration(NOW, minutes(120), None) == minutes(120)


@given(st.integers(-10_000, 200_000), st.integers(30, 1_439))
def test_never_more_than_what_is_left_and_never_too_little_to_start(left_seconds: int, maximum: int) -> None:
    left = timedelta(seconds=left_seconds)
    permitted = permitted_duration(NOW, minutes(maximum), NOW + left)
    if permitted is None:
        assert min(left, minutes(maximum)) < SHORTEST_DURATION
    else:
        assert SHORTEST_DURATION <= permitted <= min(left, minutes(maximum))
        assert min(left, minutes(maximum)) - permitted < minutes(1)
        assert permitted % minutes(1) == timedelta(0)


def test_point_39_every_wait_has_an_end_of_our_own() -> None:
    assert deadline(NOW, minutes(120)) == NOW + minutes(120) + REBOOT_RESERVE
    assert minutes(40) < REBOOT_RESERVE < minutes(120)
