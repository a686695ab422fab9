"""``recurEvery`` of a maintenance window: its grammar and its starts.

    [n]Day(s) | [n]Hour(s) | [n]Week(s) [Monday,Tuesday] | [n]Month(s) [day23,day24]
    [n]Month(s) First|Second|Third|Fourth|Last Weekday [Offset-6..6]

Everything is counted from the start: a schedule of two weeks runs in the start's week (Monday to Sunday) and in every
second one after it. Nothing happens before the start, so the first run is the first recurrence at or after it.
Source: the request table of "Programmatically manage updates" and the specification of Microsoft.Maintenance.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import count, islice, pairwise
from zoneinfo import ZoneInfo

_PERIOD = re.compile(r"(?P<every>\d*)\s*(?P<unit>hour|day|week|month)s?\b\s*(?P<rest>.*)", re.IGNORECASE)
_DAY = re.compile(r"day(\d{1,2})", re.IGNORECASE)
_RANKED = re.compile(r"(first|second|third|fourth|last)\s+([a-z]+)(?:\s+offset\s*([+-]?\d))?", re.IGNORECASE)
_WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_RANKS = {"first": 0, "second": 1, "third": 2, "fourth": 3, "last": -1}
_FARTHEST_OFFSET = 6
_MAX_TRIED = 2_000
"""Periods without a run before a schedule counts as one that never runs (day 31 of every twelfth month)."""


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A parsed ``recurEvery``: hours, days and weeks have ``weekdays`` at most, months ``days`` or a ranked weekday."""

    unit: str
    every: int
    weekdays: tuple[int, ...] = ()
    """0 is Monday."""
    days: tuple[int, ...] = ()
    ranked: tuple[int, int, int] | None = None
    """Which one in the month (-1 is the last), the weekday, and days after it."""

    def starts(self, first: datetime, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
        """The starts later than ``after`` (UTC), in UTC, in order; ``first`` is local to the zone."""
        for local in self._local(first, (after.astimezone(zone)).replace(tzinfo=None) - timedelta(days=2)):
            found = local.replace(tzinfo=zone).astimezone(UTC)
            if local >= first and found > after:
                yield found

    def _local(self, first: datetime, near: datetime) -> Iterator[datetime]:
        if self.unit in ("hour", "day"):
            step = timedelta(**{f"{self.unit}s": self.every})
            skipped = max(0, (near - first) // step)
            yield from (first + step * number for number in count(skipped))
        elif self.unit == "week":
            monday = first - timedelta(days=first.weekday())
            step = timedelta(weeks=self.every)
            for number in count(max(0, (near - monday) // step - 1)):
                for weekday in self.weekdays or (first.weekday(),):
                    yield monday + step * number + timedelta(days=weekday)
        else:
            months = (near.year - first.year) * 12 + near.month - first.month
            empty = 0
            for number in count(max(0, months // self.every - 1)):
                year, month = divmod(first.year * 12 + first.month - 1 + number * self.every, 12)
                dates = self._dates(year, month + 1, first) if year <= date.max.year else []
                empty = 0 if dates else empty + 1
                if empty > _MAX_TRIED or year > date.max.year:
                    return
                yield from (datetime.combine(each, time(first.hour, first.minute)) for each in dates)

    def _dates(self, year: int, month: int, first: datetime) -> list[date]:
        length = calendar.monthrange(year, month)[1]
        if self.ranked is None:
            return [date(year, month, day) for day in self.days or (first.day,) if day <= length]
        rank, weekday, offset = self.ranked
        found = [date(year, month, day) for day in range(1, length + 1) if date(year, month, day).weekday() == weekday]
        return [found[rank] + timedelta(days=offset)]

    def shortest_gap(self, first: datetime) -> timedelta:
        """The shortest time between two starts among the first few."""
        starts = list(islice(self.starts(first, ZoneInfo("UTC"), first.replace(tzinfo=UTC) - timedelta(days=1)), 16))
        return min((later - earlier for earlier, later in pairwise(starts)), default=timedelta.max)


def read_recurrence(text: str) -> Recurrence:
    """Parse ``recurEvery``.

    Raises:
        ValueError: it does not follow the grammar.
    """
    found = _PERIOD.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"RecurEvery '{text}' is not valid.")
    unit, every, rest = found["unit"].lower(), int(found["every"] or 1), found["rest"].strip()
    if every < 1:
        raise ValueError(f"RecurEvery '{text}' is not valid: the frequency must be at least 1.")
    if not rest:
        return Recurrence(unit, every)
    words = [word.strip() for word in rest.split(",")]
    if unit == "week":
        return Recurrence(unit, every, weekdays=tuple(sorted({_weekday(word, text) for word in words})))
    if unit == "month" and (ranked := _RANKED.fullmatch(rest)) is not None:
        offset = int(ranked[3] or 0)
        if abs(offset) > _FARTHEST_OFFSET:
            raise ValueError(f"RecurEvery '{text}' is not valid: the offset must be between -6 and 6.")
        return Recurrence(unit, every, ranked=(_RANKS[ranked[1].lower()], _weekday(ranked[2], text), offset))
    days = [_DAY.fullmatch(word) for word in words]
    if unit != "month" or any(day is None or not 1 <= int(day[1]) <= 31 for day in days):
        raise ValueError(f"RecurEvery '{text}' is not valid.")
    return Recurrence(unit, every, days=tuple(sorted({int(day[1]) for day in days if day is not None})))


def _weekday(word: str, text: str) -> int:
    folded = word.casefold()
    found = [number for number, name in enumerate(_WEEKDAYS) if folded in (name, name[:3])]
    if not found:
        raise ValueError(f"RecurEvery '{text}' is not valid: '{word}' is not a weekday.")
    return found[0]
