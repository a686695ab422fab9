"""Request counters, independent of the log, which forgets old requests."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Any

from local.azure_simulator.clock import Clock

PEAK_SECONDS = 0.5
"""Min window of the peak of reads, in real seconds. Shorter ones would measure the scheduling of processes on this
machine instead of the clients."""
_PULSE_SECONDS = 0.01
_DELAY_SECONDS = 0.02
"""Real seconds of delay from which the process counts as blocked."""
IN_FLIGHT_SECONDS = 0.25
"""Real seconds for which a request may have been sent before a 429: its client could not know of it."""


class Metrics:
    """Requests by operation and status, the peak rate of reads, and the effects of 429."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._window = max(1.0, PEAK_SECONDS * clock.speed)
        self.reset()

    def reset(self) -> None:
        """Reset all counters."""
        self._requests: dict[str, Counter[int]] = {}
        self._reads = 0
        self._recent_reads: deque[float] = deque()
        self._peak_reads = 0.0
        self._delays: deque[tuple[float, float]] = deque()
        self._longest_delay = 0.0
        self._refused: Counter[str] = Counter()
        self._early: Counter[str] = Counter()
        self._closed_until: dict[tuple[str, str], tuple[float, float]] = {}
        self._being_refused: set[tuple[str, str]] = set()
        self._refused_calls = 0

    def count(self, operation: str, method: str, path: str, status: int, *, is_read: bool) -> None:
        """Count a request and its response. A read is one that counts against a subscription's reads."""
        self._requests.setdefault(operation, Counter())[status] += 1
        if is_read:
            self._read()
        call = (method, path)
        if status == 429 and call not in self._being_refused:
            self._being_refused.add(call)
            self._refused_calls += 1
        elif status != 429:
            self._being_refused.discard(call)

    async def notice_delays(self) -> None:
        """Run beside the server, to detect when this process is blocked."""
        real = asyncio.get_running_loop().time
        while True:
            asleep_at = real()
            await asyncio.sleep(_PULSE_SECONDS)
            late = real() - asleep_at - _PULSE_SECONDS
            if late > _DELAY_SECONDS:
                self.was_held_up(late)

    def was_held_up(self, seconds: float) -> None:
        """The process was blocked for this long: the next requests have come during that time."""
        now = self._clock.now()
        self._delays.append((now - seconds * self._clock.speed, now))
        self._longest_delay = max(self._longest_delay, seconds)

    def charge(self, charges: list[tuple[str, str]]) -> None:
        """A request is about to take these tokens, (policy, key) each. Counts it when it comes before Retry-After."""
        if not self._closed_until:
            return
        now = self._clock.now()
        for policy, key in charges:
            known_at, until = self._closed_until.get((policy, key), (0.0, 0.0))
            if known_at <= now < until:
                self._early[policy] += 1
                return

    def refuse(self, policy: str, key: str, retry_after: int) -> None:
        """A bucket was empty, with this Retry-After in real seconds."""
        speed, now = self._clock.speed, self._clock.now()
        self._refused[policy] += 1
        known_at, until = self._closed_until.get((policy, key), (0.0, 0.0))
        if now >= until:
            known_at = now + IN_FLIGHT_SECONDS * speed
        self._closed_until[policy, key] = (known_at, max(until, now + retry_after * speed))

    def document(self) -> dict[str, Any]:
        """``requests`` by operation and status; ``reads``, and ``peakReads``, the peak per second; ``longestDelay``,
        the longest blocked time in real seconds; ``refused`` and ``early`` (before Retry-After) by policy;
        ``refusedCalls``: calls with at least one 429 before success.
        """
        return {
            "requests": {
                operation: {str(status): count for status, count in counts.items()}
                for operation, counts in self._requests.items()
            },
            "reads": self._reads,
            "peakReads": round(self._peak_reads, 2),
            "longestDelay": round(self._longest_delay, 3),
            "refused": dict(self._refused),
            "early": dict(self._early),
            "refusedCalls": self._refused_calls,
        }

    def _read(self) -> None:
        now = self._clock.now()
        self._reads += 1
        self._recent_reads.append(now)
        since = now - self._window
        while self._recent_reads[0] <= since:
            self._recent_reads.popleft()
        while self._delays and self._delays[0][1] <= since:
            self._delays.popleft()
        if self._delays:
            since = min(since, self._delays[0][0])
        self._peak_reads = max(self._peak_reads, len(self._recent_reads) / (now - since))
