"""Windows by the clocks of machines: their hours in every zone, also on the nights on which clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.calendar.local_window import Hours, LocalWindow
from patchwave.domain.calendar.region_time_zones import REGION_ZONES
from patchwave.domain.calendar.windows_time_zones import ZONES

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
EVERY_ZONE = sorted({*REGION_ZONES.values(), *ZONES.values()})


def window(day: date, clock: str = "offPeak", hours: float = 8) -> LocalWindow:
    return LocalWindow(day=day, time=clock, window=timedelta(hours=hours))


def wall(moment: datetime, zone: str) -> datetime:
    return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("zone", "day", "opens", "hours"),
    [
        ("Europe/Berlin", date(2027, 3, 26), "2027-03-26T21:00Z", 8),
        # Clocks go forward at 02:00 on the 28th, and back at 03:00 on the 31st.
        ("Europe/Berlin", date(2027, 3, 27), "2027-03-27T21:00Z", 7),
        ("Europe/Berlin", date(2027, 10, 30), "2027-10-30T20:00Z", 9),
        ("America/New_York", date(2027, 3, 13), "2027-03-14T03:00Z", 7),
        ("America/New_York", date(2027, 11, 6), "2027-11-07T02:00Z", 9),
        ("Australia/Sydney", date(2027, 4, 3), "2027-04-03T11:00Z", 9),
        ("Australia/Lord_Howe", date(2027, 4, 3), "2027-04-03T11:00Z", 8.5),
        ("Asia/Kolkata", date(2027, 3, 27), "2027-03-27T16:30Z", 8),
    ],
)
def test_off_peak_lasts_from_22_to_6_by_the_wall_clock(zone: str, day: date, opens: str, hours: float) -> None:
    opens_at = datetime.fromisoformat(opens)
    assert window(day).hours(zone) == Hours(opens_at, opens_at + hours * HOUR)


def test_a_shorter_window_is_a_length_of_time_and_ends_at_six_at_the_latest() -> None:
    opens_at = datetime(2027, 3, 27, 21, tzinfo=UTC)
    short, long = window(date(2027, 3, 27), hours=3), window(date(2027, 3, 27), hours=7.5)
    assert short.hours("Europe/Berlin") == Hours(opens_at, opens_at + 3 * HOUR)
    assert long.hours("Europe/Berlin") == Hours(opens_at, opens_at + 7 * HOUR), "06:00 comes an hour early"


@pytest.mark.parametrize(
    ("day", "clock", "opens"),
    [
        (date(2027, 3, 28), "02:30", "2027-03-28T01:00Z"),  # skipped: the first minute after the gap
        (date(2027, 10, 31), "02:30", "2027-10-31T00:30Z"),  # comes twice: the first one
    ],
)
def test_a_time_that_is_skipped_or_repeated(day: date, clock: str, opens: str) -> None:
    opens_at = datetime.fromisoformat(opens)
    assert window(day, clock, 4).hours("Europe/Berlin") == Hours(opens_at, opens_at + 4 * HOUR)


def test_the_whole_is_from_the_first_clock_on_earth_to_the_last() -> None:
    assert window(date(2026, 12, 8)).whole == Hours(
        datetime(2026, 12, 8, 8, tzinfo=UTC), datetime(2026, 12, 9, 18, tzinfo=UTC)
    )


@settings(max_examples=300)
@given(
    zone=st.sampled_from(EVERY_ZONE),
    day=st.dates(date(2020, 1, 1), date(2037, 12, 30)),
    minutes=st.integers(0, 24 * 60 - 1),
    length=st.integers(30, 24 * 60),
)
def test_every_zone_opens_when_its_clock_says_so_and_inside_of_the_whole(
    zone: str, day: date, minutes: int, length: int
) -> None:
    clock = f"{minutes // 60:02}:{minutes % 60:02}"
    found = window(day, clock, length / 60)
    opens_at, closes_at = found.hours(zone)
    asked = datetime.combine(day, datetime.strptime(clock, "%H:%M").time())  # noqa: DTZ007 - wall-clock time
    shown = wall(opens_at, zone)
    if shown == asked:
        # No earlier moment shows this time: of two the first one opens the window.
        assert all(wall(opens_at - back * MINUTE, zone) != asked for back in (30, 60, 90, 120))
    else:
        # The clock skips the time: a minute before it showed an earlier one.
        assert shown > asked > wall(opens_at - MINUTE, zone)
    assert closes_at - opens_at == length * MINUTE
    whole = found.whole
    assert whole.opens_at <= opens_at < closes_at <= whole.closes_at


@settings(max_examples=300)
@given(
    zone=st.sampled_from(EVERY_ZONE),
    day=st.dates(date(2020, 1, 1), date(2037, 12, 30)),
    hours=st.sampled_from([0.5, 3, 7, 8]),
)
def test_off_peak_never_reaches_into_the_day(zone: str, day: date, hours: float) -> None:
    opens_at, closes_at = window(day, hours=hours).hours(zone)
    assert opens_at < closes_at
    moment = opens_at
    while moment < closes_at:
        shown = wall(moment, zone)
        assert shown.hour >= 22 or shown.hour < 6, f"{shown} is by day"
        moment += 15 * MINUTE
    whole = window(day, hours=hours).whole
    assert whole.opens_at <= opens_at
    assert closes_at <= whole.closes_at


def test_a_window_outlives_the_row_of_its_run() -> None:
    made = window(date(2026, 12, 8), hours=3.5)
    assert made.to_wire() == {"day": "2026-12-08", "time": "offPeak", "window": "PT3H30M"}
    assert LocalWindow.model_validate(made.to_wire()) == made
