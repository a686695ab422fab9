"""The simulator's clock: durations run faster, time stamps do not.

Clients and the server share one wall clock, so every time stamp on the wire is the real time of its event. Only
durations are divided by the speed: at speed 60 an operation of three simulated minutes starts at 12:00:00 and ends at
12:00:03. Internally, all times are simulated seconds since the start.

Only schedules use dates. Their calendar begins at the wall-clock time of the start and runs at the speed of durations:
at speed 60 a run twenty minutes ahead starts after twenty seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

NEVER = math.inf


class Clock:
    """Simulated seconds since the start, and their wall-clock stamps."""

    def __init__(
        self, speed: float = 1.0, *, started_at: datetime | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        if not 0 < speed <= 100_000:
            raise ValueError("speed must be over 0 and at most 100000 simulated seconds per second")
        self.speed = speed
        self.started_at = started_at or datetime.now(UTC)
        self._monotonic = monotonic
        self._origin = monotonic()

    def now(self) -> float:
        """Simulated seconds since the start."""
        return (self._monotonic() - self._origin) * self.speed

    def real_seconds(self, simulated_seconds: float) -> float:
        """Real seconds of a simulated duration."""
        return simulated_seconds / self.speed

    def instant(self, moment: float | None = None) -> datetime:
        """The wall-clock time (UTC) of a simulated time, by default now."""
        at = self.now() if moment is None else moment
        return self.started_at + timedelta(seconds=at / self.speed)

    def calendar(self, moment: float | None = None) -> datetime:
        """The calendar's date (UTC) at a simulated time, by default now."""
        return self.started_at + timedelta(seconds=self.now() if moment is None else moment)

    def moment(self, date: datetime) -> float:
        """The simulated time of a calendar date."""
        return (date - self.started_at).total_seconds()

    def stamp(self, moment: float | None = None) -> str:
        """Azure's usual format: seven fractional digits and ``+00:00``."""
        at = self.instant(moment)
        return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06d}1+00:00"

    def stamp_in_seconds(self, moment: float | None = None) -> str:
        """The format of patch items: whole seconds and ``+00:00``."""
        return f"{self.instant(moment):%Y-%m-%dT%H:%M:%S}+00:00"
