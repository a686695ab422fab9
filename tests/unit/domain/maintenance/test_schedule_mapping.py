"""Schedules of both worlds: what is carried means the same moments, years ahead and over every change of clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from patchwave.domain.calendar.schedule import Schedule, upcoming
from patchwave.domain.maintenance.configuration import MaintenanceWindow, format_wall_clock
from patchwave.domain.maintenance.conversion_report import NotConvertible
from patchwave.domain.maintenance.recurrence import WEEKDAYS
from patchwave.domain.maintenance.schedule_mapping import recurrence_of, window_of
from patchwave.domain.maintenance.validation import NOTICE_WITH_EVENTS

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
ZONES = (
    "UTC",
    "W. Europe Standard Time",
    "Pacific Standard Time",
    "Lord Howe Standard Time",  # moves by half an hour
    "Pacific SA Standard Time",  # moves at midnight
    "Morocco Standard Time",  # moves back during Ramadan
    "India Standard Time",
)


def window(recur_every: str, start: str = "2026-12-01 22:00", **more: str) -> MaintenanceWindow:
    given = {"startDateTime": start, "duration": "03:00", "timeZone": "W. Europe Standard Time"} | more
    return MaintenanceWindow.model_validate(given | {"recurEvery": recur_every})


def schedule_of(given: MaintenanceWindow) -> Schedule:
    """The schedule as `patchwave.domain.maintenance.import_policy` puts it together, written a second time."""
    return Schedule(
        recurrence=recurrence_of(given),
        start_date=given.start.date(),
        time=f"{given.start:%H:%M}",
        time_zone=given.time_zone,
        window=given.length,
    )


def schedule(recurrence: str, **more: str) -> Schedule:
    given = {"time": "22:00", "timeZone": "Europe/Berlin", "window": "PT3H"} | more
    return Schedule.model_validate(given | {"recurrence": recurrence})


@st.composite
def rates(draw: st.DrawFn) -> str:
    """Every form of the grammar that a policy has words for."""
    count = draw(st.sampled_from(("", "", "2", "3", "7", "12")))
    unit = draw(st.sampled_from(("Day", "Week", "Weeks of days", "Month", "Month of days", "Month of weekday")))
    match unit:
        case "Weeks of days":
            days = draw(st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=4, unique=True))
            return f"{count}Weeks {','.join(days)}"
        case "Month of days":
            days = draw(st.lists(st.integers(1, 31), min_size=1, max_size=4, unique=True))
            return f"{count}Months {','.join(f'day{day}' for day in days)}"
        case "Month of weekday":
            ordinal, weekday = (
                draw(st.sampled_from(("First", "Second", "Third", "Fourth", "Last"))),
                draw(st.sampled_from(WEEKDAYS)),
            )
            offset = draw(st.sampled_from(("", " Offset3", " Offset-2", " Offset6", " Offset-6")))
            return f"{count}Months {ordinal} {weekday}{offset}"
        case _:
            return f"{count}{unit}s"


@st.composite
def windows(draw: st.DrawFn) -> MaintenanceWindow:
    start = datetime(2024, 1, 1) + timedelta(  # noqa: DTZ001 - wall-clock time
        days=draw(st.integers(0, 1500)), minutes=draw(st.sampled_from((0, 30, 90, 120, 150, 170, 1350, 1439)))
    )
    ends = draw(st.one_of(st.just(None), st.integers(1, 4000)))
    return window(
        draw(rates()),
        format_wall_clock(start),
        expirationDateTime=format_wall_clock(start + timedelta(days=ends, minutes=17)) if ends else "",
        timeZone=draw(st.sampled_from(ZONES)),
        duration=draw(st.sampled_from(("01:30", "02:00", "03:55"))),
    )


@settings(max_examples=40)
@given(windows(), st.integers(-400, 2000))
def test_an_imported_schedule_runs_at_the_same_moments(given: MaintenanceWindow, days: int) -> None:
    try:
        made = schedule_of(given)
    except ValidationError:
        # The last day of a month that no such month has: neither ever runs.
        assert next(given.occurrences(NOW - timedelta(days=4000)), None) is None
        return
    except ValueError as error:
        if "another month" not in str(error):
            raise
        return
    after = NOW + timedelta(days=days)
    assert list(islice(upcoming(made, after), 40)) == list(islice(given.occurrences(after), 40))


@settings(max_examples=40)
@given(windows())
def test_a_round_trip_keeps_every_run_to_come(given: MaintenanceWindow) -> None:
    try:
        back = window_of(schedule_of(given), NOW)
    except (ValueError, NotConvertible) as error:
        if "another month" not in str(error):
            assert next(given.occurrences(NOW + NOTICE_WITH_EVENTS), None) is None
        return
    ours = given.occurrences(NOW + NOTICE_WITH_EVENTS)
    theirs = back.occurrences(datetime(2000, 1, 1, tzinfo=UTC))
    assert list(islice(theirs, 60)) == list(islice(ours, 60))


RECURRENCES = (
    ("second Tuesday + 3 days", "Month Second Tuesday Offset3"),
    ("last Friday - 6 days", "Month Last Friday Offset-6"),
    ("RRULE:FREQ=DAILY", "Day"),
    ("RRULE:FREQ=DAILY;BYDAY=SA,MO", "Week Monday,Saturday"),
    ("RRULE:FREQ=WEEKLY;BYDAY=TU,TU", "Week Tuesday"),
    ("RRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=TU;WKST=SU", "2Weeks Tuesday"),
    ("RRULE:FREQ=WEEKLY;INTERVAL=3", "3Weeks Thursday"),
    ("RRULE:FREQ=MONTHLY;BYMONTHDAY=23,4", "Month day4,day23"),
    ("RRULE:FREQ=MONTHLY;INTERVAL=2", "2Months day31"),
    ("RRULE:FREQ=MONTHLY;BYDAY=2TU", "Month Second Tuesday"),
    ("RRULE:FREQ=MONTHLY;BYDAY=TU;BYSETPOS=2", "Month Second Tuesday"),
    ("RRULE:FREQ=MONTHLY;BYDAY=TU;BYMONTHDAY=8,9,10,11,12,13,14", "Month Second Tuesday"),
    ("RRULE:FREQ=MONTHLY;INTERVAL=3;BYDAY=FR;BYMONTHDAY=11,12,13,14,15,16,17", "3Months Second Tuesday Offset3"),
    ("2025-01-01, 2027-02-03", "Day"),
    ("RRULE:FREQ=WEEKLY;BYDAY=TU;COUNT=200", "Week Tuesday"),
    ("RRULE:FREQ=WEEKLY;BYDAY=TU;UNTIL=20280101", "Week Tuesday"),
)


@pytest.mark.parametrize(("recurrence", "rate"), RECURRENCES)
def test_what_is_moved_out_runs_at_the_same_moments(recurrence: str, rate: str) -> None:
    given = schedule(recurrence, startDate="2024-10-31")
    made = window_of(given, NOW)
    until = NOW + timedelta(days=2500)
    ours = takewhile(lambda each: each.at_utc <= until, upcoming(given, NOW))
    assert made.recur_every == rate
    assert list(made.occurrences(datetime(2000, 1, 1, tzinfo=UTC), until)) == list(ours)


@pytest.mark.parametrize(
    ("recurrence", "sentence"),
    [
        ("second Tuesday + 7 days", "at most 6 days"),
        ("2027-02-03, 2027-03-03", "cannot list dates"),
        ("2024-02-03", "has ended"),
        ("RRULE:FREQ=WEEKLY;BYDAY=TU;UNTIL=20250101", "has ended"),
        ("RRULE:FREQ=YEARLY;BYMONTH=3;BYMONTHDAY=1", "BYMONTH, which a schedule cannot say"),
        ("RRULE:FREQ=YEARLY", "FREQ=MONTHLY;INTERVAL=12"),
        ("RRULE:FREQ=DAILY;INTERVAL=2;BYDAY=MO", "beside FREQ=DAILY"),
        ("RRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,SU;WKST=SU", "begin on Monday"),
        ("RRULE:FREQ=MONTHLY;BYMONTHDAY=-1", "from the end of the month"),
        ("RRULE:FREQ=MONTHLY;BYDAY=5TU", "First, Second, Third, Fourth or Last"),
        ("RRULE:FREQ=MONTHLY;BYDAY=1MO,3MO", "more than one weekday"),
        ("RRULE:FREQ=MONTHLY;BYDAY=MO", "more than one weekday"),
        ("RRULE:FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", "more than one weekday"),
    ],
)
def test_what_a_schedule_cannot_say_is_refused(recurrence: str, sentence: str) -> None:
    with pytest.raises(NotConvertible) as caught:
        window_of(schedule(recurrence, startDate="2024-01-01"), NOW)
    assert [problem.path for problem in caught.value.problems] == ["schedule.recurrence"]
    assert sentence in str(caught.value)


def test_a_schedule_whose_first_run_the_clock_skips_is_refused_until_that_day_is_over() -> None:
    """The policy's occurrence is shifted to 03:00; Azure takes no such start."""
    given = schedule("RRULE:FREQ=WEEKLY;BYDAY=SU", time="02:30")
    with pytest.raises(NotConvertible) as refused:
        window_of(given, datetime(2027, 3, 22, 9, 0, tzinfo=UTC))
    [problem] = refused.value.problems
    assert problem.path == "schedule.time"
    assert "is skipped on 2027-03-28" in problem.message
    after = window_of(given, datetime(2027, 3, 28, 9, 0, tzinfo=UTC))
    assert after.start_date_time == "2027-04-04 02:30"


def test_every_problem_of_a_schedule_is_listed_at_once() -> None:
    given = schedule("second Tuesday + 9 days", timeZone="Etc/GMT-5", window="PT4H")
    with pytest.raises(NotConvertible) as caught:
        window_of(given, NOW)
    assert {problem.path for problem in caught.value.problems} >= {"schedule.window", "schedule.recurrence"}


def test_a_zone_whose_windows_name_keeps_other_time_is_refused() -> None:
    given = schedule("RRULE:FREQ=DAILY", timeZone="America/Scoresbysund")
    with pytest.raises(NotConvertible, match="and Azores Standard Time keep different times"):
        window_of(given, NOW)


@pytest.mark.parametrize(
    ("rate", "more", "sentence"),
    [
        ("6Hours", {}, "a policy for each time"),
        ("2Months First Sunday Offset-1", {}, "another month"),
        ("Month Last Sunday Offset1", {"expirationDateTime": "2028-01-01 00:00"}, "another month"),
        ("400Days", {}, "INTERVAL"),
        ("Fortnight", {}, "is no rate"),
        ("Day", {"timeZone": "Central European Summer"}, "is not a time zone"),
    ],
)
def test_what_a_policy_cannot_say_is_refused(rate: str, more: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        schedule_of(window(rate, **({"expirationDateTime": "2028-01-01 00:00"} | more)))


def test_hours_that_make_whole_days_are_days() -> None:
    assert recurrence_of(window("48Hours")) == "RRULE:FREQ=DAILY;INTERVAL=2"


def test_a_run_that_no_new_schedule_can_have_stays_with_the_policy() -> None:
    soon = schedule("RRULE:FREQ=DAILY", time="10:30")  # 09:30 UTC, half an hour ahead
    assert window_of(soon, NOW).start_date_time == "2026-11-22 10:30"
