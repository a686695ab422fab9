"""NCRONTAB expressions of timer triggers: ``{second} {minute} {hour} {day} {month} {day of week}``, in UTC.

Five fields mean second 0. Day and day of week must both match (as in Azure, and unlike classic cron). A time span
``hh:mm:ss`` means that interval. ``croniter`` reads more than Azure does (``L``, ``W``, ``#``, ``?``, day of week 7,
ranges past the end of a field): those are errors here.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from croniter import CroniterBadCronError, CroniterBadDateError, croniter

from local.functions_host.host_json import HostJsonError, parse_time_span

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NUMBERS = {name: number for number, name in [*enumerate(_MONTHS, 1), *enumerate(_DAYS)]}


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
    """An expression with six fields."""

    expression: str

    def next_after(self, moment: datetime) -> datetime:
        """The first matching second after ``moment``; ``HostJsonError`` when there is none in 50 years."""
        try:
            return croniter(self.expression, moment, second_at_beginning=True, day_or=False).get_next(datetime)
        except CroniterBadDateError:
            raise HostJsonError("The schedule never comes.") from None


def parse_schedule(text: str) -> Schedule:
    """Reads the ``schedule`` of a timer trigger; ``HostJsonError`` says what is wrong with it."""
    if ":" in text:
        every = parse_time_span(text)
        if every <= timedelta(0):
            raise HostJsonError(f"'{text}' is not an interval")
        return Interval(every)
    fields = text.casefold().split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise HostJsonError(
            f"'{text}' is not a schedule: write {{second}} {{minute}} {{hour}} {{day}} {{month}} {{day of week}}"
        )
    # croniter takes a range of one number for the whole field.
    expression = re.sub(r"\b(\w+)-\1\b(?:/[1-9]\d*)?", r"\1", " ".join(fields))
    foreign = [w for w in re.findall(r"[^\s*,/-]+", expression) if not w.isdecimal() and w not in _NUMBERS]
    foreign += re.findall(r"(?<![/\d])0*7", fields[5])
    if foreign:
        raise HostJsonError(f"'{text}' is not a schedule: '{foreign[0]}' is no number or name of NCRONTAB")
    for first, last in re.findall(r"(\w+)-(\w+)", expression):
        if _number(first) >= _number(last):
            raise HostJsonError(f"'{text}' is not a schedule: '{first}-{last}' does not go up")
    try:
        croniter.expand(expression, second_at_beginning=True)
    except CroniterBadCronError as error:
        raise HostJsonError(f"'{text}' is not a schedule: {error}") from None
    return Cron(expression)


def _number(word: str) -> int:
    return _NUMBERS[word] if word in _NUMBERS else int(word)
