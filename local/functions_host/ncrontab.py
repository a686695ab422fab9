"""NCRONTAB expressions of timer triggers: ``{second} {minute} {hour} {day} {month} {day of week}``, in UTC.

Five fields mean second 0. A field is ``*``, a number, a range ``a-b``, a list, or any of them with a step ``/n``;
months and days of the week have English names too. Day and day of week must both match (as in Azure, and unlike
classic cron). A time span ``hh:mm:ss`` means that interval.
"""

import calendar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from local.functions_host.host_json import HostJsonError, parse_time_span

_MONTHS = {name.casefold(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)

# The 29th of February on a given day of the week comes back within 40 years (28, and 40 across 2100).
_HORIZON = timedelta(days=366 * 41)


class Schedule(Protocol):
    """When a timer is due."""

    def next_after(self, moment: datetime) -> datetime:
        """The first due time after ``moment`` (aware, UTC)."""
        ...


@dataclass(frozen=True, slots=True)
class Interval:
    """Every so often, counted from the last time."""

    every: timedelta

    def next_after(self, moment: datetime) -> datetime:
        """``moment`` plus the interval."""
        return moment + self.every


@dataclass(frozen=True, slots=True)
class Cron:
    """An expression with six fields, as sets of numbers."""

    seconds: list[int]
    minutes: list[int]
    hours: list[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    def next_after(self, moment: datetime) -> datetime:
        """The first matching second after ``moment``; ``HostJsonError`` when there is none in 40 years."""
        start = moment.replace(microsecond=0) + timedelta(seconds=1)
        day, earliest = start.replace(hour=0, minute=0, second=0), (start.hour, start.minute, start.second)
        end = start + _HORIZON
        while day < end:
            if day.month not in self.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
                earliest = (0, 0, 0)
                continue
            if day.day in self.days and day.isoweekday() % 7 in self.weekdays:
                time = self._time_from(earliest)
                if time is not None:
                    return day.replace(hour=time[0], minute=time[1], second=time[2])
            day += timedelta(days=1)
            earliest = (0, 0, 0)
        raise HostJsonError("The schedule never comes.")

    def _time_from(self, earliest: tuple[int, int, int]) -> tuple[int, int, int] | None:
        hour, minute, second = earliest
        for h in self.hours:
            if h < hour:
                continue
            for m in self.minutes:
                if h == hour and m < minute:
                    continue
                for s in self.seconds:
                    if (h, m) != (hour, minute) or s >= second:
                        return h, m, s
        return None


def parse_schedule(text: str) -> Schedule:
    """Reads the ``schedule`` of a timer trigger; ``HostJsonError`` says what is wrong with it."""
    if ":" in text:
        every = parse_time_span(text)
        if every <= timedelta(0):
            raise HostJsonError(f"'{text}' is not an interval")
        return Interval(every)
    fields = text.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise HostJsonError(
            f"'{text}' is not a schedule: write {{second}} {{minute}} {{hour}} {{day}} {{month}} {{day of week}}"
        )
    second, minute, hour, day, month, weekday = (
        _numbers(field, *limits) for field, limits in zip(fields, _FIELDS, strict=True)
    )
    return Cron(sorted(second), sorted(minute), sorted(hour), frozenset(day), frozenset(month), frozenset(weekday))


def _numbers(field: str, name: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    found: set[int] = set()
    for part in field.casefold().split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            if span == "*":
                begin, end = low, high
            else:
                begin = names.get(first) if first in names else int(first)
                end = (names.get(last) if last in names else int(last)) if dash else begin
                # A step without a range runs to the end of the field.
                end = high if step and not dash else end
            every = int(step) if step else 1
        except ValueError:
            raise HostJsonError(f"'{part}' is not a {name}") from None
        if begin is None or end is None or not low <= begin <= end <= high or every < 1:
            raise HostJsonError(f"'{part}' is not a {name} between {low} and {high}")
        found.update(range(begin, end + 1, every))
    return found
