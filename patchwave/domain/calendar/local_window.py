"""The hours of one occurrence by the clock of a zone, and of one that every machine reads from its own clock.

`OFF_PEAK` is from 22:00 to 06:00 by the wall clock: with the hour that daylight saving skips it lasts seven hours, with
the one that it repeats nine.
"""

from datetime import date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from patchwave.domain.calendar.wall_clock import from_wall_clock
from patchwave.domain.core.documents import Document, format_minute
from patchwave.domain.core.duration import Duration

OFF_PEAK = "offPeak"
"""In the place of a time of day: the hours in which Azure's own guest patching installs."""
OFF_PEAK_WINDOW = timedelta(hours=8)
_OFF_PEAK_OPENS, _OFF_PEAK_CLOSES = time(22), time(6)

EARLIEST_ZONE, LATEST_ZONE = ZoneInfo("Etc/GMT-14"), ZoneInfo("Etc/GMT+12")
"""Where a date begins first, UTC+14, and where it ends last, UTC-12: every other clock is between these two."""
ACROSS_ZONES = timedelta(hours=26)
"""From a time of day in the first zone to the same time in the last one."""


class Hours(NamedTuple):
    """When a window opens and when it closes, in UTC. The end is not part of the window."""

    opens_at: datetime
    closes_at: datetime


def opening_time(clock: str) -> time:
    """The time of day of a schedule, ``HH:MM`` or `OFF_PEAK`."""
    return _OFF_PEAK_OPENS if clock == OFF_PEAK else time.fromisoformat(clock)


def opening_in_words(zone: str, opens_at: datetime) -> str:
    """What machines wait for whose own window has not opened yet."""
    return f"the window of {zone}, which opens at {format_minute(opens_at)}"


def hours_of(day: date, clock: str, window: timedelta, zone: ZoneInfo) -> Hours:
    """The hours of an occurrence on a date, by the clock of a zone."""
    opens_at = from_wall_clock(datetime.combine(day, opening_time(clock)), zone)
    if clock != OFF_PEAK:
        return Hours(opens_at, opens_at + window)
    closes_at = from_wall_clock(datetime.combine(day + timedelta(days=1), _OFF_PEAK_CLOSES), zone)
    return Hours(opens_at, closes_at if window >= OFF_PEAK_WINDOW else min(opens_at + window, closes_at))


class LocalWindow(Document):
    """One occurrence by the clocks of its machines: the same date and time of day, one window per time zone."""

    day: date
    time: str
    window: Duration

    def hours(self, zone: str) -> Hours:
        """The hours of the window in an IANA zone."""
        return hours_of(self.day, self.time, self.window, ZoneInfo(zone))

    @property
    def whole(self) -> Hours:
        """From the opening of the first window on earth to the close of the last one."""
        opens_at, _ = hours_of(self.day, self.time, self.window, EARLIEST_ZONE)
        _, closes_at = hours_of(self.day, self.time, self.window, LATEST_ZONE)
        return Hours(opens_at, closes_at)
