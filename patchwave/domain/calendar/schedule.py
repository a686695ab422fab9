"""When a policy runs: a recurrence, a time of day, a zone and a window, turned into UTC occurrences.

The clock is an argument everywhere. Daylight saving is right in both directions: an occurrence whose wall-clock
time is skipped runs at the first minute after the gap; one whose time comes twice runs once, the first time.

With `MACHINE_ZONE` each machine reads its own clock. Which zones there are is only known when the machines are, so an
occurrence lasts from the first window on earth to the last; `patchwave.domain.calendar.local_window` has the hours of
each zone inside it.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import islice, takewhile
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, ValidationInfo

from patchwave.domain.calendar.local_window import (
    ACROSS_ZONES,
    EARLIEST_ZONE,
    OFF_PEAK,
    OFF_PEAK_WINDOW,
    LocalWindow,
    hours_of,
)
from patchwave.domain.calendar.recurrence import FIRST_DATE, LAST_DATE, Rule, parse_recurrence
from patchwave.domain.calendar.wall_clock import from_wall_clock
from patchwave.domain.calendar.windows_time_zones import ZONES
from patchwave.domain.core.documents import Document
from patchwave.domain.core.duration import Duration

MIN_WINDOW = timedelta(minutes=30)
"""An installation cannot even start in less."""
MAX_WINDOW = timedelta(days=7)
MACHINE_ZONE = "machine"
"""In the place of a time zone: the clock of each machine."""
MAX_LOCAL_WINDOW = timedelta(hours=24)
"""Of machines that read their own clocks: the windows of two days do not overlap."""
_REPEATED = timedelta(hours=3)
"""By no more do the hours of daylight saving lengthen a night."""

_TIME = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# A wall-clock time at an end of the calendar has no moment in UTC, and no date is near it.
_FIRST_YEAR, _LAST_YEAR = 2, 9998
_MAX_ZONE_NAME = 64
"""Characters of a name that is compared with those of zones; comparing is quadratic."""
# Names of the zone database that do not name a place or an offset.
_NOT_ZONES = frozenset({"Factory", "localtime", "posixrules"})


@lru_cache(maxsize=1)
def _zone_names() -> dict[str, str]:
    """Every accepted name, folded, with the IANA zone it stands for."""
    names = {name.lower(): name for name in available_timezones() if name not in _NOT_ZONES}
    return {windows.lower(): zone for windows, zone in ZONES.items() if zone.lower() in names} | names


def find_zone(name: str) -> ZoneInfo:
    """The zone of an IANA name or of a Windows name, without case.

    Raises:
        ValueError: no such zone; the message offers near names.
    """
    names = _zone_names()
    zone = names.get(name.strip().lower())
    if zone is None:
        is_short = len(name) <= _MAX_ZONE_NAME
        near = difflib.get_close_matches(name.strip().lower(), names, n=2, cutoff=0.7) if is_short else []
        spelled = {known.lower(): known for known in (*ZONES, *names.values())}
        hint = f"; did you mean {' or '.join(spelled[match] for match in near)}?" if near else ""
        raise ValueError(
            f"{name!r} is not a time zone; write an IANA name such as Europe/Berlin or a Windows name such as"
            f" W. Europe Standard Time{hint}"
        )
    return ZoneInfo(zone)


def _check_recurrence(text: str, given: ValidationInfo) -> str:
    recurrence = parse_recurrence(text)
    if "start_date" not in given.data:
        return text  # it is wrong itself, which is reported
    start: date | None = given.data["start_date"]
    if start is None and recurrence.needs_start:
        raise ValueError(f"{recurrence.needs_start}; give startDate")
    if next(recurrence.dates(start or FIRST_DATE, start), None) is None:
        raise ValueError(f"{text!r} never happens")
    return text


def _check_zone(name: str) -> str:
    if name != MACHINE_ZONE:
        find_zone(name)
    return name


def _check_time(value: object) -> object:
    # YAML 1.1 reads an unquoted 02:00 as the number 120.
    if value != OFF_PEAK and (not isinstance(value, str) or not _TIME.fullmatch(value)):
        raise ValueError(
            'must be a time of day "HH:MM" from "00:00" to "23:59", in YAML in quotes; or offPeak, which is 22:00 to'
            " 06:00"
        )
    return value


def _check_date(value: object) -> object:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise ValueError("must be a date such as 2026-11-10")
    return value


def _check_start(value: date) -> date:
    if not FIRST_DATE <= value <= LAST_DATE:
        raise ValueError(f"must lie between {FIRST_DATE} and {LAST_DATE}")
    return value


def _check_window(value: timedelta, given: ValidationInfo) -> timedelta:
    # A time that is wrong itself is reported, and may have been meant as offPeak.
    if not value and given.data.get("time", OFF_PEAK) == OFF_PEAK:
        return OFF_PEAK_WINDOW
    if not value:
        raise ValueError("is missing; give window: how long it stays open, such as PT4H. Only offPeak implies one")
    if not MIN_WINDOW <= value <= MAX_WINDOW or value % timedelta(minutes=1):
        raise ValueError("must be from PT30M to PT168H, in hours and minutes such as PT4H or PT3H30M")
    if given.data.get("time") == OFF_PEAK and value > OFF_PEAK_WINDOW:
        raise ValueError("must be at most PT8H: offPeak ends at 06:00")
    if given.data.get("time_zone") == MACHINE_ZONE and value > MAX_LOCAL_WINDOW:
        raise ValueError("must be at most PT24H with timeZone machine")
    return value


class Schedule(Document):
    """When a policy runs by itself."""

    # Declared first: the recurrence is checked against it.
    start_date: Annotated[date, BeforeValidator(_check_date), AfterValidator(_check_start)] | None = Field(
        default=None,
        title="First date",
        description="Local date before which nothing runs, YYYY-MM-DD. A rule with COUNT or INTERVAL counts from it.",
    )
    recurrence: Annotated[str, AfterValidator(_check_recurrence)] = Field(
        max_length=1300,
        title="Recurrence",
        description='A weekday of the month with an optional offset of -30 to +30 days, such as "second Tuesday'
        ' + 3 days" (first to fourth, last); an RFC 5545 rule of days or longer, such as'
        ' RRULE:FREQ=MONTHLY;BYDAY=2TU; or up to a hundred dates, such as "2026-12-10, 2027-01-14".',
        examples=["second Tuesday + 3 days", "last Friday", "RRULE:FREQ=WEEKLY;BYDAY=TU", "2026-12-10, 2027-01-14"],
    )
    time: Annotated[str, BeforeValidator(_check_time)] = Field(
        title="Time",
        description="Local time of day HH:MM at which the window opens, or offPeak: from 22:00 to 06:00 by the wall"
        " clock. A time that daylight saving skips means the first minute after the gap; one that comes twice means the"
        " first.",
        json_schema_extra={"pattern": r"^(offPeak|([01][0-9]|2[0-3]):[0-5][0-9])$"},
        examples=["22:00", "offPeak"],
    )
    time_zone: Annotated[str, AfterValidator(_check_zone)] = Field(
        title="Time zone",
        description="IANA name (Europe/Berlin) or Windows name (W. Europe Standard Time); or machine: each machine has"
        " its window by its own clock, that of its Windows time zone where one is set, else of its region.",
        examples=["Europe/Berlin", "Pacific Standard Time", "machine"],
    )
    window: Annotated[Duration, AfterValidator(_check_window)] = Field(
        default_factory=timedelta,
        validate_default=True,
        title="Window",
        description="How long the window stays open, PTnHnM from PT30M to PT168H. It is needed unless time is offPeak,"
        " which implies PT8H and takes no more; with timeZone machine at most PT24H. No installation starts unless it"
        " can end inside it.",
        json_schema_extra={"pattern": r"^[Pp][Tt]([0-9]+[Hh]([0-9]+[Mm])?|[0-9]+[Mm])$"},
        examples=["PT4H"],
    )
    continue_in_next_window: StrictBool = Field(
        default=False,
        title="Continue in the next window",
        description="Machines that the window left no time for: true, the run goes on with them in the next window that"
        " is not frozen; false, they are skipped.",
    )

    @property
    def clock(self) -> ZoneInfo:
        """The zone by which its dates are found; with `MACHINE_ZONE` the first in which a date begins."""
        return EARLIEST_ZONE if self.is_local else find_zone(self.time_zone)

    @property
    def is_local(self) -> bool:
        """Whether each machine reads its own clock."""
        return self.time_zone == MACHINE_ZONE

    @property
    def span(self) -> timedelta:
        """No occurrence lasts longer."""
        return self.window + (ACROSS_ZONES if self.is_local else timedelta(0)) + _REPEATED


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One scheduled time: when the window opens and when it ends, in UTC. The end is not part of the window.

    ``local``: each machine has its own hours inside of it.
    """

    at_utc: datetime
    window_end_utc: datetime
    local: LocalWindow | None = None


def occurrences(schedule: Schedule, after: datetime, count: int) -> list[Occurrence]:
    """The next occurrences strictly after a moment, oldest first; fewer when the schedule ends."""
    return list(islice(upcoming(schedule, after), count))


def upcoming(schedule: Schedule, after: datetime) -> Iterator[Occurrence]:
    """The occurrences strictly after a moment, oldest first, without end unless the schedule has one."""
    return (each for each in _from(schedule, after) if each.at_utc > after)


def due_occurrence(schedule: Schedule, now: datetime, lookback: timedelta | None = None) -> Occurrence | None:
    """The latest occurrence that has begun and whose window is still open at ``now``, else ``None``.

    ``lookback`` limits how long ago it may have begun; without it only the window does. A trigger that missed its
    moment (the app was down) therefore still starts the run, and never after the window.
    """
    reach = schedule.span if lookback is None else min(schedule.span, lookback)
    latest: Occurrence | None = None
    for each in _from(schedule, now - reach):
        if each.at_utc > now:
            break
        if now < each.window_end_utc and now - each.at_utc <= reach:
            latest = each
    return latest


def closed_between(schedule: Schedule, since: datetime, now: datetime) -> list[Occurrence]:
    """The occurrences whose windows opened after ``since`` and are over at ``now``, oldest first; at most a hundred."""
    begun = takewhile(lambda each: each.at_utc < now, upcoming(schedule, since))
    return [each for each in islice(begun, 100) if each.window_end_utc <= now]


def _from(schedule: Schedule, moment: datetime) -> Iterator[Occurrence]:
    """Occurrences in order, beginning at or before ``moment`` by up to two days."""
    zone = schedule.clock
    recurrence = parse_recurrence(schedule.recurrence)
    end = recurrence.end if isinstance(recurrence, Rule) else None
    since = (moment.astimezone(UTC) - timedelta(days=2)).date()
    previous: datetime | None = None
    for day in recurrence.dates(since, schedule.start_date):
        at_utc, closes_at = hours_of(day, schedule.time, schedule.window, zone)
        if end is not None and _is_after(day, at_utc, end, zone):
            return
        # Where a whole day is skipped, two dates can fall on one moment.
        if at_utc != previous:
            if schedule.is_local:
                local = LocalWindow(day=day, time=schedule.time, window=schedule.window)
                yield Occurrence(at_utc, local.whole.closes_at, local)
            else:
                yield Occurrence(at_utc, closes_at)
        previous = at_utc


def _is_after(day: date, at_utc: datetime, end: date | datetime, zone: ZoneInfo) -> bool:
    """Whether an occurrence lies behind UNTIL: by its date where UNTIL is a date, else as moments in time."""
    if not isinstance(end, datetime):
        return day > end
    if end.tzinfo is not None:
        return at_utc > end
    if _FIRST_YEAR <= end.year <= _LAST_YEAR:
        return at_utc > from_wall_clock(end, zone)
    return end.year < _FIRST_YEAR
