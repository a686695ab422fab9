"""Retry limits of an orchestration: a number of attempts, and a day of throttling."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from orchestrators.runtime import Context, utc_now
from patchwave.domain.core.attempt import Attempt

MAX_THROTTLING = timedelta(days=1)
"""How long throttling is waited out where no window ends it earlier."""
MAX_PAUSE = timedelta(minutes=15)
_SHORT_PAUSES = 10
"""Consecutive waits of exactly the requested length, to meet reservations. Later waits grow, so that a day of
throttling fits into a history."""
_GROWTH = 0.1
"""Growth of the waits, as a share of the time so far."""


class RetryBudget:
    """Counts attempts. Waits that do not count, such as throttling, are bounded by time instead.

    ``most``: attempts that count, the first one included. ``longest``: time from the first wait that does not count.
    """

    def __init__(self, context: Context, most: float = math.inf, *, longest: timedelta = MAX_THROTTLING) -> None:
        self._context = context
        self._most = most
        self._longest = longest
        self._tries = 0
        self._in_a_row = 0
        self._since: datetime | None = None
        self._until: datetime | None = None

    def pause(self, attempt: Attempt) -> float | None:
        """Seconds until the next attempt, at least ``wait_seconds``; ``None`` when the limit is reached."""
        now, seconds = utc_now(self._context), attempt.wait_seconds
        if attempt.counts_as_attempt:
            self._tries += 1
            self._in_a_row = 0
            return seconds if self._tries < self._most else None
        if not self._in_a_row:
            self._since = now
        self._in_a_row += 1
        if self._until is None:
            self._until = now + self._longest
        if self._in_a_row > _SHORT_PAUSES and self._since is not None:
            grown = min((now - self._since) * _GROWTH, MAX_PAUSE)
            seconds = max(seconds, grown.total_seconds())
        return seconds if now + timedelta(seconds=seconds) <= self._until else None
