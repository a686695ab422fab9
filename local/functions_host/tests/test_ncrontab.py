"""Schedules of timer triggers."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.functions_host.host_json import HostJsonError
from local.functions_host.ncrontab import Cron, parse_schedule


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "after", "due"),
    [
        ("0 */5 * * * *", "2026-11-21T01:02:03", "2026-11-21T01:05:00"),
        ("0 */5 * * * *", "2026-11-21T01:05:00", "2026-11-21T01:10:00"),
        ("*/5 * * * *", "2026-11-21T01:05:00", "2026-11-21T01:10:00"),
        ("30 0 9 * * *", "2026-11-21T09:00:30", "2026-11-22T09:00:30"),
        ("0 0 9 * * Mon-Fri", "2026-11-20T10:00:00", "2026-11-23T09:00:00"),
        ("0 0 0 29 2 *", "2026-03-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 0 29 2 Sun", "2026-03-01T00:00:00", "2032-02-29T00:00:00"),
        ("0 0 0 31 * *", "2026-11-01T00:00:00", "2026-12-31T00:00:00"),
        ("0 0 3 13 * Fri", "2026-11-14T00:00:00", "2027-08-13T03:00:00"),
        ("0 10-20/5,59 8,17 * Jan,dec *", "2026-11-21T00:00:00", "2026-12-01T08:10:00"),
        ("0 10-20/5,59 8,17 * Jan,dec *", "2026-12-01T08:20:00", "2026-12-01T08:59:00"),
        ("0 10/20 * * * *", "2026-11-21T00:31:00", "2026-11-21T00:50:00"),
        ("0 0 0 1 1 *", "2026-12-31T23:59:59.500000", "2027-01-01T00:00:00"),
        ("00:10:00", "2026-11-21T00:31:00", "2026-11-21T00:41:00"),
    ],
)
def test_the_next_time(schedule: str, after: str, due: str) -> None:
    assert parse_schedule(schedule).next_after(_at(after)) == _at(due)


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "* * * *",
        "60 * * * * *",
        "0 0 24 * * *",
        "0 0 0 0 * *",
        "0 0 0 * 13 *",
        "0 0 0 * * 7",
        "0 5-1 * * * *",
        "0 */0 * * * *",
        "0 x * * * *",
        "0 0 0 * * Someday",
        "00:00:00",
    ],
)
def test_what_is_not_a_schedule(schedule: str) -> None:
    with pytest.raises(HostJsonError):
        parse_schedule(schedule)


def test_a_schedule_without_occurrences_is_refused() -> None:
    with pytest.raises(HostJsonError, match="never"):
        parse_schedule("0 0 0 31 2 *").next_after(_at("2026-01-01T00:00:00"))


_numbers = st.lists(st.integers(0, 59), min_size=1, max_size=4, unique=True)


@given(
    seconds=_numbers,
    minutes=_numbers,
    hours=st.lists(st.integers(0, 23), min_size=1, max_size=3, unique=True),
    after=st.datetimes(
        _at("2024-01-01T00:00:00").replace(tzinfo=None),
        _at("2030-01-01T00:00:00").replace(tzinfo=None),
        timezones=st.just(UTC),
    ),
)
def test_the_next_time_is_the_first_match(
    seconds: list[int], minutes: list[int], hours: list[int], after: datetime
) -> None:
    text = " ".join(",".join(map(str, numbers)) for numbers in (seconds, minutes, hours))
    schedule = parse_schedule(f"{text} * * *")
    assert isinstance(schedule, Cron)
    due = schedule.next_after(after)
    day = after.replace(hour=0, minute=0, second=0, microsecond=0)
    matches = (
        day + timedelta(days=d, hours=h, minutes=m, seconds=s)
        for d in (0, 1)
        for h in sorted(hours)
        for m in sorted(minutes)
        for s in sorted(seconds)
    )
    assert due == next(match for match in matches if match > after)
