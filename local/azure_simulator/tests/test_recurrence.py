"""``recurEvery``: the grammar, and when a schedule really runs."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from local.azure_simulator.maintenance.recurrence import read_recurrence

START = datetime(2026, 1, 14, 22, 30)  # noqa: DTZ001  a Wednesday, local to the zone
BEFORE = datetime(2026, 1, 1, tzinfo=UTC)


def starts(text: str, zone: str = "UTC", after: datetime = BEFORE, most: int = 4) -> list[str]:
    found = islice(read_recurrence(text).starts(START, ZoneInfo(zone), after), most)
    return [f"{each:%Y-%m-%d %H:%M}" for each in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Day", ["2026-01-14 22:30", "2026-01-15 22:30", "2026-01-16 22:30"]),
        ("3Days", ["2026-01-14 22:30", "2026-01-17 22:30", "2026-01-20 22:30"]),
        ("20days", ["2026-01-14 22:30", "2026-02-03 22:30", "2026-02-23 22:30"]),
        ("8Hours", ["2026-01-14 22:30", "2026-01-15 06:30", "2026-01-15 14:30"]),
        ("Week", ["2026-01-14 22:30", "2026-01-21 22:30", "2026-01-28 22:30"]),
        ("3Weeks", ["2026-01-14 22:30", "2026-02-04 22:30", "2026-02-25 22:30"]),
        ("Week Saturday, Sunday", ["2026-01-17 22:30", "2026-01-18 22:30", "2026-01-24 22:30"]),
        ("2Weeks Mon,Fri", ["2026-01-16 22:30", "2026-01-26 22:30", "2026-01-30 22:30"]),
        ("Month", ["2026-01-14 22:30", "2026-02-14 22:30", "2026-03-14 22:30"]),
        ("2Months", ["2026-01-14 22:30", "2026-03-14 22:30", "2026-05-14 22:30"]),
        ("Month day23, day24", ["2026-01-23 22:30", "2026-01-24 22:30", "2026-02-23 22:30"]),
        ("Month day31", ["2026-01-31 22:30", "2026-03-31 22:30", "2026-05-31 22:30"]),
        ("Month Last Sunday", ["2026-01-25 22:30", "2026-02-22 22:30", "2026-03-29 22:30"]),
        ("Month Fourth Monday", ["2026-01-26 22:30", "2026-02-23 22:30", "2026-03-23 22:30"]),
        ("Month Third Sunday Offset6", ["2026-01-24 22:30", "2026-02-21 22:30", "2026-03-21 22:30"]),
        ("Month Second Tuesday Offset-6", ["2026-02-04 22:30", "2026-03-04 22:30", "2026-04-08 22:30"]),
    ],
)
def test_a_schedule_runs_by_its_grammar(text: str, expected: list[str]) -> None:
    assert starts(text, most=3) == expected


def test_later_runs_do_not_depend_on_the_first_moment() -> None:
    for text in ("3Days", "2Weeks Mon,Fri", "2Months", "3Months Last Sunday Offset6"):
        many = list(islice(read_recurrence(text).starts(START, ZoneInfo("UTC"), BEFORE), 40))
        for index in (7, 20, 33):
            again = islice(read_recurrence(text).starts(START, ZoneInfo("UTC"), many[index]), 6)
            assert list(again) == many[index + 1 : index + 7]


def test_the_time_of_day_is_that_of_the_zone_in_summer_too() -> None:
    zone = "Europe/Berlin"
    assert starts("Day", zone, datetime(2026, 3, 28, tzinfo=UTC), 2) == ["2026-03-28 21:30", "2026-03-29 20:30"]


@pytest.mark.parametrize(
    "text",
    ["", "Year", "0Days", "Week Someday", "Month day32", "Month Fifth Monday", "Month Third Sunday Offset7", "Days 3"],
)
def test_what_is_not_in_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RecurEvery"):
        read_recurrence(text)
