"""When a maintenance configuration runs, said as a policy's schedule, and the other way.

Each grammar says things that the other cannot: a schedule of Azure may come back after hours, a policy may list dates
or take any RFC 5545 rule of days. What is carried means the same moments, with daylight saving; all else is refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice, takewhile

from patchwave.domain.calendar.local_window import opening_time
from patchwave.domain.calendar.recurrence import DAYS, FixedDates, NthWeekday, Recurrence, Rule, parse_recurrence
from patchwave.domain.calendar.schedule import Schedule, find_zone, upcoming
from patchwave.domain.calendar.wall_clock import is_on_the_clock
from patchwave.domain.calendar.windows_time_zones import documented_name, windows_name
from patchwave.domain.core.duration import format_duration
from patchwave.domain.core.validation import Problem
from patchwave.domain.maintenance.configuration import MaintenanceWindow, format_wall_clock
from patchwave.domain.maintenance.conversion_report import NotConvertible
from patchwave.domain.maintenance.recurrence import MAX_OFFSET, WEEKDAYS, RecurEvery, Unit
from patchwave.domain.maintenance.validation import MAX_WINDOW, MIN_WINDOW, NOTICE_WITH_EVENTS

COMPARED = timedelta(days=5 * 366)
"""How far ahead an exported schedule is compared with the policy, moment by moment."""

_WORDS = {1: "first", 2: "second", 3: "third", 4: "fourth", -1: "last"}
_DAYS_OF_EVERY_MONTH = frozenset(range(1, 29))
_CARRIED_PARTS = frozenset({"FREQ", "INTERVAL", "COUNT", "WKST", "BYDAY", "BYMONTHDAY", "BYSETPOS"})


# --- a policy's schedule of a maintenance window -------------------------------------------------------------


def recurrence_of(window: MaintenanceWindow) -> str:
    """The recurrence of a policy that falls on the same dates as the window; it counts from the window's start.

    Raises:
        ValueError: a policy cannot say it, or the window cannot be read.
    """
    rate, start, expires = RecurEvery.parse(window.recur_every), window.start, window.expires_at
    nth = rate.nth
    if nth is not None and rate.count == 1 and expires is None:
        offset = f" {'+' if nth.offset_days > 0 else '-'} {abs(nth.offset_days)} days" if nth.offset_days else ""
        return f"{_WORDS[nth.ordinal]} {WEEKDAYS[nth.weekday]}{offset}"
    parts = _rule_of(rate, start.date())
    if rate.count > 1 and "INTERVAL" not in parts:
        parts["INTERVAL"] = str(rate.count)
    if expires is not None:
        parts["UNTIL"] = f"{expires:%Y%m%dT%H%M%SZ}"
    text = "RRULE:" + ";".join(f"{name}={value}" for name, value in parts.items() if (name, value) != ("INTERVAL", "1"))
    parse_recurrence(text)
    return text


def _rule_of(rate: RecurEvery, start: date) -> dict[str, str]:
    match rate.unit:
        case Unit.HOUR:
            if rate.count % 24:
                raise ValueError(
                    f"{rate} has no place in a policy, which runs at one time of the day: make a policy for each time"
                )
            return {"FREQ": "DAILY", "INTERVAL": str(rate.count // 24)}
        case Unit.DAY:
            return {"FREQ": "DAILY"}
        case Unit.WEEK:
            weekdays = rate.weekdays or (start.weekday(),)
            return {"FREQ": "WEEKLY", "BYDAY": ",".join(DAYS[day] for day in weekdays)}
        case Unit.MONTH if rate.nth is not None:
            return {"FREQ": "MONTHLY", **_nth_parts(rate.nth)}
        case Unit.MONTH:
            days = rate.days or (start.day,)
            return {"FREQ": "MONTHLY", "BYMONTHDAY": ",".join(map(str, days))}


def _nth_parts(nth: NthWeekday) -> dict[str, str]:
    """A weekday of the month as parts of a rule: moved by days, it is another weekday among seven days."""
    if not nth.offset_days:
        return {"BYDAY": f"{nth.ordinal}{DAYS[nth.weekday]}"}
    days = _seven_days(nth)
    if not (set(days) <= _DAYS_OF_EVERY_MONTH or {-day for day in days} <= _DAYS_OF_EVERY_MONTH):
        raise ValueError(
            f"a weekday that its offset of {nth.offset_days} days can move into another month has a place in a policy"
            " only where it comes every month and has no expirationDateTime"
        )
    weekday = DAYS[(nth.weekday + nth.offset_days) % 7]
    return {"BYDAY": weekday, "BYMONTHDAY": ",".join(map(str, days))}


def _seven_days(nth: NthWeekday) -> range:
    """The days of the month on which it can fall; negative ones count from the end."""
    first = (7 * nth.ordinal - 6 if nth.ordinal > 0 else -7) + nth.offset_days
    return range(first, first + 7)


# --- a maintenance window of a policy's schedule -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Said:
    """A rate with the wall-clock time of its end, if it has one."""

    rate: RecurEvery
    expires: datetime | None = None


def window_of(schedule: Schedule, now: datetime) -> MaintenanceWindow:
    """The maintenance window whose runs are the schedule's occurrences, from the first that a new schedule can have.

    Raises:
        NotConvertible: Azure's schedules cannot say it; every problem at once.
    """
    problems: list[Problem] = []
    if not MIN_WINDOW <= schedule.window <= MAX_WINDOW:
        message = f"is {format_duration(schedule.window)}; the window of a schedule has PT1H30M to PT3H55M"
        problems.append(Problem(path="schedule.window", message=message))
    if schedule.is_local:
        message = "is machine; a schedule has one time zone for all of its machines"
        raise NotConvertible([*problems, Problem(path="schedule.timeZone", message=message)])
    zone = documented_name(schedule.time_zone) or windows_name(schedule.time_zone)
    if not zone:
        message = f"{schedule.time_zone!r} has no Windows name, and schedules know no other zones"
        problems.append(Problem(path="schedule.timeZone", message=message))
    ahead = next(upcoming(schedule, now + NOTICE_WITH_EVENTS), None)
    if ahead is None:
        raise NotConvertible(
            [*problems, Problem(path="schedule.recurrence", message="has ended: nothing is left to run")]
        )
    first = ahead.at_utc.astimezone(find_zone(schedule.time_zone)).date()
    try:
        said = _say(parse_recurrence(schedule.recurrence), schedule, first)
    except ValueError as error:
        raise NotConvertible([*problems, Problem(path="schedule.recurrence", message=str(error))]) from None
    if problems:
        raise NotConvertible(problems)
    start = datetime.combine(first, opening_time(schedule.time))
    if not is_on_the_clock(start, find_zone(zone)):
        message = (
            f"is skipped on {first}, the next occurrence, where daylight saving begins; Azure refuses a schedule that"
            " starts then: export the policy after that day"
        )
        raise NotConvertible([Problem(path="schedule.time", message=message)])
    hours, minutes = divmod(schedule.window // timedelta(minutes=1), 60)
    window = MaintenanceWindow(
        start_date_time=format_wall_clock(start),
        expiration_date_time=format_wall_clock(said.expires) if said.expires else "",
        duration=f"{hours:02}:{minutes:02}",
        time_zone=zone,
        recur_every=str(said.rate),
    )
    _compare(schedule, window, now)
    return window


def _compare(schedule: Schedule, window: MaintenanceWindow, now: datetime) -> None:
    """Whether both are the same moments: the name of a zone alone does not tell what its clocks will do."""
    after, until = now + NOTICE_WITH_EVENTS, now + COMPARED
    ours = [each.at_utc for each in takewhile(lambda each: each.at_utc <= until, upcoming(schedule, after))]
    theirs = [each.at_utc for each in window.occurrences(after, until)]
    if ours != theirs:
        moment = min(set(ours) ^ set(theirs))
        message = f"{schedule.time_zone} and {window.time_zone} keep different times from {moment:%Y-%m-%d} on"
        raise NotConvertible([Problem(path="schedule.timeZone", message=message)])


def _say(recurrence: Recurrence, schedule: Schedule, first: date) -> _Said:
    match recurrence:
        case NthWeekday():
            return _Said(RecurEvery(Unit.MONTH, nth=_checked(recurrence)))
        case FixedDates():
            left = [day for day in recurrence.days if day >= first]
            if len(left) > 1:
                raise ValueError(f"lists {len(left)} dates to come; a schedule has a rate, and cannot list dates")
            return _Said(RecurEvery(Unit.DAY), _end_of(first, schedule))
        case Rule():
            parts = dict(recurrence.parts)
            rate = _rate_of(parts, first)
            if "COUNT" in parts:
                return _Said(rate, _end_of(_last(recurrence.dates(first, schedule.start_date)), schedule))
            return _Said(rate, recurrence.last_moment(find_zone(schedule.time_zone)))


def _end_of(day: date, schedule: Schedule) -> datetime:
    """The end of the window on that day: it cuts nothing off, and no other run is so near."""
    return datetime.combine(day, opening_time(schedule.time)) + schedule.window


def _last(days: Iterable[date]) -> date:
    return max(islice(days, 10_000))


def _checked(nth: NthWeekday) -> NthWeekday:
    if abs(nth.offset_days) > MAX_OFFSET:
        raise ValueError(f"is moved by {nth.offset_days} days; a schedule moves a weekday by at most {MAX_OFFSET} days")
    return nth


def _rate_of(parts: dict[str, str], first: date) -> RecurEvery:
    strange = sorted(set(parts) - _CARRIED_PARTS)
    if strange:
        raise ValueError(f"has {strange[0]}, which a schedule cannot say")
    count, days = int(parts.get("INTERVAL", "1")), _weekdays(parts)
    match parts["FREQ"]:
        case "DAILY" if not days:
            return RecurEvery(Unit.DAY, count)
        case "DAILY" if count == 1:
            return RecurEvery(Unit.WEEK, weekdays=tuple(sorted(weekday for _, weekday in days)))
        case "WEEKLY" if "BYSETPOS" not in parts:
            weekdays = tuple(sorted({weekday for _, weekday in days})) or (first.weekday(),)
            if count > 1 and len(weekdays) > 1 and parts.get("WKST", "MO") != "MO":
                raise ValueError(f"has WKST={parts['WKST']}; the weeks of a schedule begin on Monday")
            return RecurEvery(Unit.WEEK, count, weekdays=weekdays)
        case "MONTHLY":
            return _monthly(parts, count, days, first)
        case "YEARLY":
            raise ValueError("has FREQ=YEARLY; a schedule counts months: write it with FREQ=MONTHLY;INTERVAL=12")
        case frequency:
            raise ValueError(f"has parts beside FREQ={frequency} that a schedule cannot say")


def _weekdays(parts: dict[str, str]) -> list[tuple[int, int]]:
    """The number (0 without one) and the weekday of each entry of BYDAY."""
    entries = parts["BYDAY"].split(",") if "BYDAY" in parts else []
    return [(int(entry[:-2] or 0), DAYS.index(entry[-2:])) for entry in entries]


def _monthly(parts: dict[str, str], count: int, days: list[tuple[int, int]], first: date) -> RecurEvery:
    numbers = sorted({int(number) for number in parts["BYMONTHDAY"].split(",")}) if "BYMONTHDAY" in parts else []
    if not days and "BYSETPOS" not in parts:
        numbers = numbers or [first.day]
        if numbers[0] < 0:
            raise ValueError(f"has BYMONTHDAY={numbers[0]}; a schedule cannot count days from the end of the month")
        return RecurEvery(Unit.MONTH, count, days=tuple(numbers))
    if len(days) == 1:
        nth = _nth_of(*days[0], numbers, parts.get("BYSETPOS", ""))
        if nth is not None:
            return RecurEvery(Unit.MONTH, count, nth=nth)
    raise ValueError(
        "is more than one weekday of the month; a schedule takes First, Second, Third, Fourth or Last of one weekday,"
        f" moved by at most {MAX_OFFSET} days"
    )


def _nth_of(number: int, weekday: int, days: list[int], position: str) -> NthWeekday | None:
    """A numbered weekday, the one at a position, or the one among seven days in a row."""
    if not days:
        asked = [each for each in (number, _whole(position)) if each]
        return NthWeekday(asked[0], weekday) if len(asked) == 1 and asked[0] in _WORDS else None
    if number or position:
        return None
    offsets = sorted(range(-MAX_OFFSET, MAX_OFFSET + 1), key=abs)
    candidates = (NthWeekday(ordinal, (weekday - offset) % 7, offset) for offset in offsets for ordinal in _WORDS)
    return next((each for each in candidates if list(_seven_days(each)) == days), None)


def _whole(position: str) -> int:
    digits = position.lstrip("+-")
    return int(position) if digits.isascii() and digits.isdigit() else 0
