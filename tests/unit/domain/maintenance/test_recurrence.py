"""How often a maintenance window comes back."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.calendar.recurrence import NthWeekday
from patchwave.domain.maintenance.recurrence import MAX_OFFSET, WEEKDAYS, RecurEvery, Unit

BERLIN = ZoneInfo("Europe/Berlin")
NEVER = datetime(2999, 1, 1, tzinfo=UTC)


def dates(text: str, start: str, count: int, after: str = "2000-01-01") -> list[str]:
    """The first dates of a rate that starts at 22:00 in Berlin on a day."""
    found = RecurEvery.parse(text).occurrences(
        datetime.fromisoformat(f"{start}T22:00"), BERLIN, datetime.fromisoformat(f"{after}T00:00Z"), NEVER
    )
    return [f"{moment.astimezone(BERLIN):%Y-%m-%d}" for moment in islice(found, count)]


# The examples of the table in "How to programmatically manage updates", and those of the TypeSpec for offsets.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Day", ["2026-11-20", "2026-11-21", "2026-11-22"]),
        ("3Days", ["2026-11-20", "2026-11-23", "2026-11-26"]),
        ("20days", ["2026-11-20", "2026-12-10", "2026-12-30"]),
        ("3Weeks", ["2026-11-20", "2026-12-11", "2027-01-01"]),
        ("Week Saturday, Sunday", ["2026-11-21", "2026-11-22", "2026-11-28"]),
        ("2Weeks Monday", ["2026-11-30", "2026-12-14", "2026-12-28"]),
        ("Month", ["2026-11-20", "2026-12-20", "2027-01-20"]),
        ("2Months", ["2026-11-20", "2027-01-20", "2027-03-20"]),
        ("Month day23, day24", ["2026-11-23", "2026-11-24", "2026-12-23"]),
        ("Month day31", ["2026-12-31", "2027-01-31", "2027-03-31"]),
        ("Month Last Sunday", ["2026-11-29", "2026-12-27", "2027-01-31"]),
        ("Month Fourth Monday", ["2026-11-23", "2026-12-28", "2027-01-25"]),
        ("2Months First Friday", ["2027-01-01", "2027-03-05", "2027-05-07"]),
        ("Month Last Sunday Offset-3", ["2026-11-26", "2026-12-24", "2027-01-28"]),
        ("Month Third Sunday Offset6", ["2026-11-21", "2026-12-26", "2027-01-23"]),
    ],
)
def test_the_documented_rates_begin_at_the_first_recurrence_at_or_after_the_start(
    text: str, expected: list[str]
) -> None:
    assert dates(text, "2026-11-20", 3) == expected


def test_hours_go_by_the_wall_clock() -> None:
    rate = RecurEvery.parse("6Hours")
    found = rate.occurrences(
        datetime.fromisoformat("2026-10-24T22:00"), BERLIN, datetime(2026, 10, 24, tzinfo=UTC), NEVER
    )
    assert [f"{moment.astimezone(BERLIN):%d %H:%M}" for moment in islice(found, 3)] == [
        "24 22:00",
        "25 04:00",
        "25 10:00",
    ]
    assert not rate.is_too_often
    assert RecurEvery.parse("5Hours").is_too_often


def test_daylight_saving_moves_the_moment_and_not_the_clock() -> None:
    found = RecurEvery.parse("Day").occurrences(
        datetime.fromisoformat("2027-03-27T02:30"), BERLIN, datetime(2027, 3, 26, tzinfo=UTC), NEVER
    )
    assert [f"{moment:%d %H:%M}" for moment in islice(found, 3)] == ["27 01:30", "28 01:00", "29 00:30"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no rate"),
        ("Daily", "is no rate"),
        ("0Days", "from 1 to 999"),
        ("Day Monday", "nothing may follow Days"),
        ("Week Mon", "'Mon' is not a weekday"),
        ("Week Monday,Monday", "twice"),
        ("Month day32", "day1 to day31"),
        ("Month day1, 2", "day1 to day31"),
        ("Month day1,day1", "twice"),
        ("Month Fifth Sunday", "First, Second, Third, Fourth, Last"),
        ("Month Third Sunday Offset7", "from -6 to 6 days"),
        ("Month Third Sunday Offset-7", "from -6 to 6 days"),
        ("Month Sunday", "no day of a month"),
        ("Year", "is no rate"),
    ],
)
def test_what_is_no_rate_is_refused_with_the_part(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RecurEvery.parse(text)


counts = st.integers(1, 60)
rates = st.one_of(
    st.builds(RecurEvery, st.just(Unit.HOUR), st.integers(6, 100)),
    st.builds(RecurEvery, st.just(Unit.DAY), counts),
    st.builds(
        RecurEvery,
        st.just(Unit.WEEK),
        counts,
        weekdays=st.sets(st.integers(0, 6)).map(lambda days: tuple(sorted(days))),
    ),
    st.builds(
        RecurEvery, st.just(Unit.MONTH), counts, days=st.sets(st.integers(1, 31)).map(lambda days: tuple(sorted(days)))
    ),
    st.builds(
        RecurEvery,
        st.just(Unit.MONTH),
        counts,
        nth=st.builds(
            NthWeekday,
            st.sampled_from([1, 2, 3, 4, -1]),
            st.integers(0, 6),
            st.integers(-MAX_OFFSET, MAX_OFFSET),
        ),
    ),
)


@given(rates)
def test_a_rate_is_parsed_from_its_text(rate: RecurEvery) -> None:
    assert RecurEvery.parse(str(rate)) == rate
    assert RecurEvery.parse(str(rate).upper()) == rate


@settings(max_examples=50)
@given(rates, st.dates(date(2020, 1, 1), date(2030, 12, 31)), st.times(), st.integers(0, 400))
def test_occurrences_do_not_depend_on_the_first_moment(rate: RecurEvery, day: date, clock: time, later: int) -> None:
    start = datetime.combine(day, clock.replace(second=0, microsecond=0, tzinfo=None))
    first = datetime(2019, 1, 1, tzinfo=UTC)
    until = start.replace(tzinfo=UTC) + timedelta(days=500)
    every = list(rate.occurrences(start, BERLIN, first, until))
    after = start.replace(tzinfo=UTC) + timedelta(days=later)
    assert list(rate.occurrences(start, BERLIN, after, until)) == [moment for moment in every if moment > after]
    assert every == sorted(set(every))
    assert all(moment.astimezone(BERLIN).replace(tzinfo=None) >= start for moment in every)


@given(rates, st.dates(date(2020, 1, 1), date(2030, 12, 31)))
def test_each_run_falls_on_a_day_that_the_rate_names(rate: RecurEvery, day: date) -> None:
    start = datetime.combine(day, time(12))
    found = rate.occurrences(start, BERLIN, datetime(2019, 1, 1, tzinfo=UTC), datetime(2033, 1, 1, tzinfo=UTC))
    for moment in islice(found, 40):
        local = moment.astimezone(BERLIN)
        if rate.weekdays:
            assert local.weekday() in rate.weekdays
        if rate.days:
            assert local.day in rate.days
        if rate.nth is not None:
            base = local - timedelta(days=rate.nth.offset_days)
            assert WEEKDAYS[base.weekday()] == WEEKDAYS[rate.nth.weekday]
            week = (base.day - 1) // 7 + 1
            assert week == rate.nth.ordinal or (
                rate.nth.ordinal == -1 and (base + timedelta(days=7)).month != base.month
            )
