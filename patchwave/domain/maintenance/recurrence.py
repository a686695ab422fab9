"""How often a maintenance window comes back: the ``recurEvery`` text of Microsoft.Maintenance.

``[n]Day(s)``, ``[n]Week(s) [weekdays]``, ``[n]Month(s) [days of the month]`` and ``[n]Month(s) First|...|Last Weekday
[Offset-6..6]``, as its TypeSpec describes them; ``[n]Hour(s)`` is what the portal writes for repeats under a day.

The first run is the first recurrence at or after the start, not the start. What Microsoft leaves open is decided as
RFC 5545 does: weeks begin on Monday, and a month without the day has no run. Every step is one of the wall clock, since
windows follow daylight saving.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal, Self
from zoneinfo import ZoneInfo

from dateutil.rrule import DAILY, HOURLY, MONTHLY, WEEKLY, rrule, weekday

from patchwave.domain.calendar.recurrence import NthWeekday
from patchwave.domain.calendar.wall_clock import from_wall_clock

MAX_OFFSET = 6
"""Days by which the weekday of a month may be moved, either way."""
MAX_COUNT = 999
MIN_REPEAT = timedelta(hours=6)
"""Guest patching schedules repeat no more often."""
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_ORDINALS = {"First": 1, "Second": 2, "Third": 3, "Fourth": 4, "Last": -1}
_END = datetime(9900, 12, 31)  # noqa: DTZ001 - wall-clock time
_RATE = re.compile(r"([0-9]{0,4})\s*(hour|day|week|month)s?(?:\s+(\S.*))?", re.IGNORECASE)
_NTH = re.compile(r"([a-z]+)\s+([a-z]+)(?:\s+offset\s*([+-]?[0-9]{1,3}))?", re.IGNORECASE)
_MONTH_DAY = re.compile(r"day\s*([0-9]{1,2})", re.IGNORECASE)
_EXAMPLE = "write for example Day, 3Days, Week Saturday,Sunday, Month day23,day24 or Month Third Sunday Offset6"


class Unit(StrEnum):
    """What the frequency counts."""

    HOUR = "Hour"
    DAY = "Day"
    WEEK = "Week"
    MONTH = "Month"


_FREQUENCIES: Mapping[Unit, Literal[1, 2, 3, 4]] = {
    Unit.HOUR: HOURLY,
    Unit.DAY: DAILY,
    Unit.WEEK: WEEKLY,
    Unit.MONTH: MONTHLY,
}


@dataclass(frozen=True, slots=True)
class RecurEvery:
    """A rate, read. ``weekdays`` (Monday is 0) go with weeks; ``days`` or ``nth`` with months."""

    unit: Unit
    count: int = 1
    weekdays: tuple[int, ...] = ()
    days: tuple[int, ...] = ()
    nth: NthWeekday | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text, without case.

        Raises:
            ValueError: it is no such rate; the message names the part and the fix.
        """
        found = _RATE.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is no rate; {_EXAMPLE}")
        unit, rest = Unit(found[2].capitalize()), (found[3] or "").strip()
        count = int(found[1] or 1)
        if not 1 <= count <= MAX_COUNT:
            raise ValueError(f"{text!r}: the frequency must be from 1 to {MAX_COUNT}")
        if not rest:
            return cls(unit, count)
        if unit is Unit.WEEK:
            return cls(unit, count, weekdays=_weekdays(rest))
        if unit is Unit.MONTH and _MONTH_DAY.match(rest):
            return cls(unit, count, days=_days(rest))
        if unit is Unit.MONTH:
            return cls(unit, count, nth=_nth(rest))
        raise ValueError(f"{text!r}: nothing may follow {unit}s; {_EXAMPLE}")

    def __str__(self) -> str:
        """The one spelling in which Patchwave writes a rate."""
        rate = f"{self.count}{self.unit}s" if self.count > 1 else str(self.unit)
        detail = ",".join([WEEKDAYS[day] for day in self.weekdays] + [f"day{day}" for day in self.days])
        if self.nth is not None:
            ordinal = next(word for word, number in _ORDINALS.items() if number == self.nth.ordinal)
            offset = f" Offset{self.nth.offset_days}" if self.nth.offset_days else ""
            detail = f"{ordinal} {WEEKDAYS[self.nth.weekday]}{offset}"
        return f"{rate} {detail}" if detail else rate

    @property
    def is_too_often(self) -> bool:
        """Whether it repeats more often than guest patching schedules may."""
        return self.unit is Unit.HOUR and timedelta(hours=self.count) < MIN_REPEAT

    def occurrences(self, start: datetime, zone: ZoneInfo, after: datetime, until: datetime) -> Iterator[datetime]:
        """The UTC moments strictly after ``after`` and not after ``until``, oldest first.

        Args:
            start: wall-clock time in ``zone``, without a zone of its own; nothing is before it.
            zone: where the clock hangs.
            after: UTC.
            until: UTC.
        """
        # Two days of margin are more than any zone and any gap of a clock.
        since = max(start, (after.astimezone(UTC) - timedelta(days=2)).replace(tzinfo=None))
        previous: datetime | None = None
        for wall in self._walls(start, since):
            moment = from_wall_clock(wall, zone)
            if moment > until:
                return
            # Where a clock skips a day, two times of it are one moment.
            if moment > after and moment != previous:
                yield moment
            previous = moment

    def _walls(self, start: datetime, since: datetime) -> Iterator[datetime]:
        """Wall-clock times at or after ``since``, in order; some before it may come as well, none before ``start``."""
        offset = timedelta(days=self.nth.offset_days if self.nth else 0)
        weekdays: Iterable[weekday | int] | None = None
        if self.nth is not None:
            weekdays = [weekday(self.nth.weekday, self.nth.ordinal)]
        elif self.unit is Unit.WEEK:
            weekdays = self.weekdays or [start.weekday()]
        walls = rrule(
            _FREQUENCIES[self.unit],
            dtstart=self._period_before(start, since - offset),
            interval=self.count,
            until=_END,
            byweekday=weekdays,
            bymonthday=(self.days or start.day) if self.unit is Unit.MONTH and self.nth is None else None,
        )
        return (moved for wall in walls if (moved := wall + offset) >= start)

    def _period_before(self, start: datetime, since: datetime) -> datetime:
        """The beginning of the last period until ``since`` that the rate takes; that of ``start`` is the first."""
        if self.unit is Unit.MONTH:
            # An offset can bring a day of the month before the start, which the rate takes if it takes all months.
            passed = max((_month(since) - _month(start)) // self.count, -1 if self.count == 1 else 0)
            year, month = divmod(_month(start) + passed * self.count, 12)
            return start.replace(year=year, month=month + 1, day=1)
        first = start - timedelta(days=start.weekday() if self.unit is Unit.WEEK else 0)
        step = timedelta(**{f"{self.unit.lower()}s": self.count})
        return first + (since - first) // step * step


def _month(day: datetime) -> int:
    return day.year * 12 + day.month - 1


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",")]


def _weekdays(text: str) -> tuple[int, ...]:
    days = [_weekday(entry) for entry in _entries(text)]
    if len(set(days)) < len(days):
        raise ValueError(f"{text!r} names a weekday twice; keep one")
    return tuple(sorted(days))


def _weekday(text: str) -> int:
    if text.capitalize() not in WEEKDAYS:
        raise ValueError(f"{text!r} is not a weekday; write {', '.join(WEEKDAYS)}")
    return WEEKDAYS.index(text.capitalize())


def _days(text: str) -> tuple[int, ...]:
    days: list[int] = []
    for entry in _entries(text):
        found = _MONTH_DAY.fullmatch(entry)
        if found is None or not 1 <= int(found[1]) <= 31:
            raise ValueError(f"{entry!r} is not a day of a month; write day1 to day31, separated by commas")
        days.append(int(found[1]))
    if len(set(days)) < len(days):
        raise ValueError(f"{text!r} names a day twice; keep one")
    return tuple(sorted(days))


def _nth(text: str) -> NthWeekday:
    found = _NTH.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no day of a month; {_EXAMPLE}")
    ordinal, offset = _ORDINALS.get(found[1].capitalize()), int(found[3] or 0)
    if ordinal is None:
        raise ValueError(f"{found[1]!r} is no week of a month; write {', '.join(_ORDINALS)}")
    if abs(offset) > MAX_OFFSET:
        raise ValueError(f"Offset{offset} is too far; an offset is from -{MAX_OFFSET} to {MAX_OFFSET} days")
    return NthWeekday(ordinal, _weekday(found[2]), offset)
