"""Wall-clock times as moments in UTC, right where daylight saving skips an hour and where it repeats one."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo


def from_wall_clock(wall: datetime, zone: ZoneInfo) -> datetime:
    """The UTC moment of a wall-clock time: the first of two, or the first minute after a gap."""
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _wall(first, zone) == wall:
        return first
    # In a gap fold=0 reads the clock with the offset before it and so lands after the gap; fold=1 lands before.
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    low, high = 0, int((first - before).total_seconds() // 60)
    while high - low > 1:
        middle = (low + high) // 2
        if _wall(before + timedelta(minutes=middle), zone) < wall:
            low = middle
        else:
            high = middle
    return before + timedelta(minutes=high)


def is_on_the_clock(wall: datetime, zone: ZoneInfo) -> bool:
    """Whether the wall clock of the zone shows this time at all; it skips an hour when daylight saving begins."""
    return _wall(from_wall_clock(wall, zone), zone) == wall


def _wall(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None)
