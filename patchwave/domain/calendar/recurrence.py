"""On which local dates a schedule falls: "second Tuesday + 3 days", an RRULE, or a list of dates.

Only dates are decided here; the time of day and the zone belong to `patchwave.domain.calendar.schedule`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

from dateutil.rrule import MONTHLY, rrule, rrulestr, weekday

MAXIMUM_OFFSET_DAYS = 30
FIRST_DATE, LAST_DATE = date(2000, 1, 1), date(2999, 12, 31)
"""Dates that a schedule may name."""
_LAST_MOMENT = datetime(9990, 12, 31)  # noqa: DTZ001 - wall-clock time
_ERA_YEARS, _ERA = 400, timedelta(days=146_097)
"""After 400 years the calendar repeats, weekdays and all."""
_LAST_ERA = 9_200
"""A rule is expanded from its place in the last era on, where dateutil ends after 400 to 799 years."""

_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "last": -1}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WORDS = re.compile(r"([a-z0-9]+) +([a-z]+)(?: *([+-]) *([0-9]{1,4}) *(?:days?)?)?", re.IGNORECASE)
_EXAMPLE = (
    'write for example "second Tuesday", "second Tuesday + 3 days", "last Friday", RRULE:FREQ=WEEKLY;BYDAY=TU'
    ' or "2026-12-10, 2027-01-14"'
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LOOKS_LIKE_DATES = re.compile(r"[0-9 ,]*[0-9]{1,4}[-./][0-9]")

_INTEGER_PARTS = {
    # part: (largest value, negative allowed, frequencies that allow it)
    "INTERVAL": (366, False, ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")),
    "COUNT": (10_000, False, ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")),
    "BYMONTH": (12, False, ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")),
    # RFC 5545 knows DAILY;BYMONTHDAY as well. MONTHLY says the same, and never takes long to find nothing.
    "BYMONTHDAY": (31, True, ("YEARLY", "MONTHLY")),
    "BYYEARDAY": (366, True, ("YEARLY",)),
    "BYWEEKNO": (53, True, ("YEARLY",)),
    "BYSETPOS": (366, True, ("YEARLY", "MONTHLY", "WEEKLY")),
}
_SINGLE_PARTS = ("INTERVAL", "COUNT")
_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")
_FINER_FREQUENCIES = ("HOURLY", "MINUTELY", "SECONDLY")
_TIME_PARTS = ("BYHOUR", "BYMINUTE", "BYSECOND")
_WEEKDAYS_OF_A_MONTH = 5
DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_DAY = re.compile(r"([+-]?[0-9]{1,2})?(MO|TU|WE|TH|FR|SA|SU)")
_UNTIL = re.compile(r"([0-9]{8})(?:T([0-9]{6})(Z?))?")
# What says on which day of the period it falls; without one of these the first date decides.
_DAY_PARTS = {
    "YEARLY": ("BYDAY", "BYMONTHDAY", "BYYEARDAY"),
    "MONTHLY": ("BYDAY", "BYMONTHDAY"),
    "WEEKLY": ("BYDAY",),
    "DAILY": (),
}


@dataclass(frozen=True, slots=True)
class NthWeekday:
    """A weekday of every month, moved by some days. ``ordinal`` is 1 to 4, or -1 for the last."""

    ordinal: int
    weekday: int
    offset_days: int = 0

    needs_start: ClassVar[str] = ""

    def dates(self, since: date, start: date | None) -> Iterator[date]:
        """The dates from ``since`` on, without end, none before ``start``."""
        earliest, offset = max(since, start) if start else since, timedelta(days=self.offset_days)
        month = datetime.combine((earliest - offset).replace(day=1), time.min)
        for base in rrule(MONTHLY, dtstart=month, until=_LAST_MOMENT, byweekday=weekday(self.weekday, self.ordinal)):
            day = base.date() + offset
            if day >= earliest:
                yield day


@dataclass(frozen=True, slots=True)
class Rule:
    """An RFC 5545 recurrence rule of days or longer; ``parts`` without UNTIL, which needs the zone."""

    parts: tuple[tuple[str, str], ...]
    until: str = ""

    @property
    def needs_start(self) -> str:
        """Why the rule needs a first date; empty when it says everything itself."""
        parts = dict(self.parts)
        if "COUNT" in parts:
            return "COUNT counts from a first date"
        if parts.get("INTERVAL", "1") != "1":
            return "INTERVAL counts from a first date"
        wanted = _DAY_PARTS[parts["FREQ"]]
        if wanted and not any(part in parts for part in wanted):
            return f"the rule does not say on which day: add {' or '.join(wanted)}, or a first date"
        return ""

    def dates(self, since: date, start: date | None) -> Iterator[date]:
        """The dates from ``since`` on, none before ``start``; UNTIL is not looked at (see `end`).

        The dates of 400 to 799 years: a rule without a date in one era has none at all. dateutil would search to the
        year 9999, for more than a second, so it searches the last era of its calendar, and the dates are moved back.
        """
        # A rule without COUNT or INTERVAL is the same from any first date, so begin near by: a year early, for
        # weeks and sets that begin before it.
        anchor = start or date(max(since.year - 1, 1), 1, 1)
        eras = max((_LAST_ERA + _ERA_YEARS - 1 - anchor.year) // _ERA_YEARS, 0)
        begin = anchor.replace(year=anchor.year + eras * _ERA_YEARS)
        for moment in rrulestr(self._text(anchor), dtstart=datetime.combine(begin, time.min)):
            day = moment.date() - eras * _ERA
            if day >= since:
                yield day

    def _text(self, anchor: date) -> str:
        """The rule for dateutil. What it leaves open comes from the first date (RFC 5545)."""
        parts = dict(self.parts)
        # Of a week without a weekday dateutil takes all seven days.
        if "BYWEEKNO" in parts and not any(part in parts for part in _DAY_PARTS["YEARLY"]):
            parts["BYDAY"] = DAYS[anchor.weekday()]
        return ";".join(f"{name}={value}" for name, value in parts.items())

    @property
    def end(self) -> date | datetime | None:
        """UNTIL, inclusive: a local date, a moment in UTC, or a naive wall-clock time; ``None`` without one."""
        found = _UNTIL.fullmatch(self.until)
        if found is None:
            return None
        day, clock, utc = found.groups()
        moment = datetime.strptime(day + (clock or "000000"), "%Y%m%d%H%M%S")  # noqa: DTZ007 - wall-clock time
        if clock is None:
            return moment.date()
        return moment.replace(tzinfo=UTC) if utc else moment

    def last_moment(self, zone: ZoneInfo) -> datetime | None:
        """UNTIL as local wall-clock time, inclusive; a date alone means its whole day."""
        end = self.end
        if not isinstance(end, datetime):
            return end and datetime.combine(end, time(23, 59, 59))
        try:
            return end.astimezone(zone).replace(tzinfo=None) if end.tzinfo else end
        except OverflowError:
            # An end of the calendar, such as 99991231T235959Z for "never": no date is near it.
            return end.replace(tzinfo=None)


@dataclass(frozen=True, slots=True)
class FixedDates:
    """Exactly these dates, oldest first."""

    days: tuple[date, ...]
    needs_start: ClassVar[str] = ""

    def dates(self, since: date, start: date | None) -> Iterator[date]:
        """The dates from ``since`` on, none before ``start``."""
        earliest = max(since, start) if start else since
        return (day for day in self.days if day >= earliest)


type Recurrence = NthWeekday | Rule | FixedDates


def parse_recurrence(text: str) -> Recurrence:
    """Read any of the three forms, without case.

    Raises:
        ValueError: it is none of them; the message names the part and the fix.
    """
    trimmed = text.strip()
    if "=" in trimmed or trimmed.upper().startswith("RRULE"):
        return _parse_rule(trimmed)
    if _LOOKS_LIKE_DATES.match(trimmed):
        return _parse_dates(trimmed)
    return _parse_words(trimmed)


def _parse_words(text: str) -> NthWeekday:
    found = _WORDS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a recurrence; {_EXAMPLE}")
    ordinal, named, sign, days = found.groups()
    if ordinal.lower() not in _ORDINALS:
        raise ValueError(f"{ordinal!r} is not one of {', '.join(_ORDINALS)}; {_EXAMPLE}")
    matches = [number for number, name in enumerate(_WEEKDAYS) if named.lower() in (name, name[:3])]
    if not matches:
        raise ValueError(f"{named!r} is not a weekday; {_EXAMPLE}")
    offset = int(days or 0) * (-1 if sign == "-" else 1)
    if abs(offset) > MAXIMUM_OFFSET_DAYS:
        raise ValueError(
            f"the offset of {offset} days is too far; use -{MAXIMUM_OFFSET_DAYS} to +{MAXIMUM_OFFSET_DAYS} days"
        )
    return NthWeekday(_ORDINALS[ordinal.lower()], matches[0], offset)


def _parse_dates(text: str) -> FixedDates:
    days: list[date] = []
    for item in re.split(r"[,\s]+", text.rstrip(", ")):
        try:
            if not _DATE.fullmatch(item):
                raise ValueError
            day = date.fromisoformat(item)
        except ValueError:
            raise ValueError(f"{item!r} is not a date; write dates such as 2026-12-10, 2027-01-14") from None
        if not FIRST_DATE <= day <= LAST_DATE:
            raise ValueError(f"{item} is too far away; dates lie between {FIRST_DATE} and {LAST_DATE}")
        if day in days:
            raise ValueError(f"{item} is given twice; keep one")
        days.append(day)
    return FixedDates(tuple(sorted(days)))


def _parse_rule(text: str) -> Rule:
    body = re.sub(r"^RRULE:", "", text, flags=re.IGNORECASE).upper()
    parts: dict[str, str] = {}
    for item in body.split(";"):
        name, equals, value = item.partition("=")
        if not equals or not value:
            raise ValueError(f"{item!r} is not NAME=value; {_EXAMPLE}")
        if name in parts:
            raise ValueError(f"{name} is given twice; keep one")
        parts[name] = value
    _check_frequency(parts)
    for name, value in parts.items():
        _check_part(name, value, parts["FREQ"])
    if "COUNT" in parts and "UNTIL" in parts:
        raise ValueError("has COUNT and UNTIL; keep one")
    if "BYSETPOS" in parts and not any(name.startswith("BY") and name != "BYSETPOS" for name in parts):
        raise ValueError("BYSETPOS picks from a set: add BYDAY or another BY part")
    numbers = [int(day[:-2]) for day in parts.get("BYDAY", "").split(",") if day[:-2]]
    if "BYMONTH" in parts and any(abs(number) > _WEEKDAYS_OF_A_MONTH for number in numbers):
        raise ValueError("BYDAY counts within the month beside BYMONTH; write a number from 1 to 5")
    if "BYWEEKNO" in parts and numbers:
        raise ValueError("BYDAY may not be numbered beside BYWEEKNO; write the weekday alone")
    until = parts.pop("UNTIL", "")
    return Rule(tuple(parts.items()), until)


def _check_frequency(parts: dict[str, str]) -> None:
    frequency = parts.get("FREQ", "")
    if frequency in _FINER_FREQUENCIES:
        raise ValueError(f"FREQ={frequency} is too often; use {', '.join(_FREQUENCIES)}")
    if frequency not in _FREQUENCIES:
        raise ValueError(f"FREQ must be one of {', '.join(_FREQUENCIES)}")


def _check_part(name: str, value: str, frequency: str) -> None:
    if name == "FREQ":
        return
    if name in _TIME_PARTS:
        raise ValueError(f"{name} is not used here; the time of day is the schedule's own time")
    if name == "UNTIL":
        _check_until(value)
    elif name == "WKST":
        if not re.fullmatch(r"MO|TU|WE|TH|FR|SA|SU", value):
            raise ValueError("WKST must be one of MO, TU, WE, TH, FR, SA, SU")
    elif name == "BYDAY":
        _check_days(value, frequency)
    elif name in _INTEGER_PARTS:
        _check_integers(name, value, frequency)
    else:
        raise ValueError(f"{name} is not a part of a recurrence rule")


def _check_until(value: str) -> None:
    found = _UNTIL.fullmatch(value)
    try:
        if found is None:
            raise ValueError
        datetime.strptime(found[1] + (found[2] or "000000"), "%Y%m%d%H%M%S")  # noqa: DTZ007 - only checked
    except ValueError:
        raise ValueError("UNTIL must be a date or time, as 20271231 or 20271231T220000Z") from None


def _check_days(value: str, frequency: str) -> None:
    limit = {"MONTHLY": _WEEKDAYS_OF_A_MONTH, "YEARLY": 53}.get(frequency, 0)
    for day in value.split(","):
        found = _DAY.fullmatch(day)
        if found is None:
            raise ValueError(f"BYDAY has {day!r}; write MO, TU, WE, TH, FR, SA, SU, or 2TU and -1FR in a month")
        if found[1] is not None and not 1 <= abs(int(found[1])) <= limit:
            raise ValueError(
                f"BYDAY has {day!r}; a number before the weekday is for FREQ=MONTHLY (1 to 5) and YEARLY (1 to 53)"
            )


def _check_integers(name: str, value: str, frequency: str) -> None:
    largest, negative, frequencies = _INTEGER_PARTS[name]
    if frequency not in frequencies:
        raise ValueError(f"{name} does not go with FREQ={frequency}; use FREQ={' or '.join(frequencies)}")
    numbers = value.split(",")
    if name in _SINGLE_PARTS and len(numbers) > 1:
        raise ValueError(f"{name} must be one number")
    for number in numbers:
        if not re.fullmatch(r"[+-]?[0-9]{1,5}", number) or not 1 <= abs(int(number)) <= largest:
            raise ValueError(f"{name} has {number!r}; write numbers from 1 to {largest}")
        if number.startswith("-") and not negative:
            raise ValueError(f"{name} has {number!r}; it may not be negative")
