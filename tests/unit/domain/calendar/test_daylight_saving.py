"""Ten years of "second Tuesday + N" in five zones, against a reckoning that shares no code with the product.

The reckoning reads the month off a printed calendar, and finds the moment of a wall-clock time by trying every offset
that the zone ever had. The product does month arithmetic, and asks the zone database about folds and gaps.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest

from patchwave.domain.calendar.schedule import Schedule, occurrences

FIRST_YEAR, LAST_YEAR = 2026, 2035
OFFSETS = range(-30, 31)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)

# A clock time that spring skips and one that autumn repeats, for every zone; both halves of the globe, a change of half
# an hour, and one at midnight.
CLOCKS = {
    "Europe/Berlin": ("02:30", "02:30"),
    "America/New_York": ("02:30", "01:30"),
    "Australia/Lord_Howe": ("02:15", "01:45"),
    "America/Santiago": ("00:30", "23:30"),
    "Pacific/Auckland": ("02:00", "02:59"),
}


@dataclass(frozen=True)
class Change:
    """A change of clocks: when, and the offsets from UTC on both sides of it."""

    at: datetime
    before: timedelta
    after: timedelta


def offset_at(zone: ZoneInfo, instant: datetime) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


@cache
def changes_of(name: str) -> tuple[Change, ...]:
    """Every change of clocks in the ten years and a margin, found by looking at every hour and then every minute."""

    def look() -> Iterator[Change]:
        zone = ZoneInfo(name)
        hour, end = datetime(FIRST_YEAR - 2, 11, 1, tzinfo=UTC), datetime(LAST_YEAR + 2, 3, 1, tzinfo=UTC)
        before = offset_at(zone, hour)
        while hour < end:
            hour += HOUR
            after = offset_at(zone, hour)
            if after != before:
                at = next(
                    moment
                    for moment in (hour - n * MINUTE for n in range(60))
                    if offset_at(zone, moment - MINUTE) == before
                )
                yield Change(at, before, after)
            before = after

    return tuple(look())


def moment_of(wall: datetime, name: str) -> tuple[datetime, str]:
    """The UTC moment of a wall-clock time, and whether it is ``plain``, in a ``gap``, or in an ``overlap``."""
    zone, changes = ZoneInfo(name), changes_of(name)
    offsets = {change.before for change in changes} | {change.after for change in changes}
    instants = sorted((wall - offset).replace(tzinfo=UTC) for offset in offsets)
    real = [each for each in instants if each.astimezone(zone).replace(tzinfo=None) == wall]
    if real:
        return real[0], "overlap" if len(real) > 1 else "plain"
    for change in changes:
        local = change.at.replace(tzinfo=None)
        if local + change.before <= wall < local + change.after:
            return change.at, "gap"
    raise AssertionError(f"{wall} does not exist in {name}")


def second_tuesdays() -> Iterator[date]:
    for year in range(FIRST_YEAR - 1, LAST_YEAR + 2):
        for month in range(1, 13):
            days = [week[calendar.TUESDAY] for week in calendar.monthcalendar(year, month)]
            yield date(year, month, [day for day in days if day][1])


@pytest.mark.parametrize("name", CLOCKS)
def test_ten_years_of_every_offset(name: str) -> None:
    begin, end = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC)
    met = {"plain": 0, "gap": 0, "overlap": 0}
    for clock in dict.fromkeys(CLOCKS[name]):
        for offset in OFFSETS:
            expected: list[datetime] = []
            for tuesday in second_tuesdays():
                day = tuesday + timedelta(days=offset)
                at, kind = moment_of(datetime.combine(day, time.fromisoformat(clock)), name)
                if begin <= at < end:
                    expected.append(at)
                    met[kind] += 1
            plan = Schedule.model_validate(
                {
                    "recurrence": f"second Tuesday {'+' if offset >= 0 else '-'} {abs(offset)} days",
                    "time": clock,
                    "timeZone": name,
                    "window": "PT4H",
                }
            )
            found = occurrences(plan, begin - timedelta(microseconds=1), len(expected) + 1)
            # One for every month, none twice, and the next one belongs to the year after.
            assert [each.at_utc for each in found[:-1]] == expected
            assert found[-1].at_utc >= end
            assert all(each.window_end_utc - each.at_utc == 4 * HOUR for each in found)
    # The ten years really held both changes, at the very times that they touch.
    assert met["gap"] >= 5
    assert met["overlap"] >= 5
    assert met["plain"] > 119 * len(OFFSETS)


def test_each_zone_changes_its_clocks_twice_a_year() -> None:
    for name in CLOCKS:
        inside = [change for change in changes_of(name) if FIRST_YEAR <= change.at.year <= LAST_YEAR]
        assert len(inside) == 20
        assert sum(change.after > change.before for change in inside) == 10


def test_the_first_minute_after_a_gap() -> None:
    for name, (skipped, _) in CLOCKS.items():
        zone = ZoneInfo(name)
        for change in changes_of(name):
            if change.after < change.before:
                continue
            day = change.at.astimezone(zone).date()
            at, kind = moment_of(datetime.combine(day, time.fromisoformat(skipped)), name)
            assert (kind, at) == ("gap", change.at)
            plan = Schedule.model_validate(
                {"recurrence": f"{day}", "time": skipped, "timeZone": name, "window": "PT4H"}
            )
            [only] = occurrences(plan, change.at - timedelta(days=40), 2)
            assert only.at_utc == change.at
