"""Counts of what clients asked for, kept as they come: the log forgets old requests, these do not."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Any

from local.azure_simulator.clock import Clock

PEAK_SECONDS = 0.5
"""Real seconds in which reads are counted for their peak, where a simulated second is shorter: a tenth of a real one
tells how this machine takes turns between processes, and not how its clients do. What is late by a twentieth of a
second on the way is a tenth of these."""
_PULSE_SECONDS = 0.01
_DELAY_SECONDS = 0.02
"""Real seconds that the process has to be late before it counts as held up."""
IN_FLIGHT_SECONDS = 0.25
"""Real seconds for which a request may have been under way already when a 429 was answered: its client could not
know."""


class Metrics:
    """Requests by operation and status, the most reads a second, and what 429 led to."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._window = max(1.0, PEAK_SECONDS * clock.speed)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
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
        """One request and its answer. A read is one that counts against the reads of a subscription."""
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
        """Run beside the server, to see when this process was held up, by the machine or by work of its own."""
        real = asyncio.get_running_loop().time
        while True:
            asleep_at = real()
            await asyncio.sleep(_PULSE_SECONDS)
            late = real() - asleep_at - _PULSE_SECONDS
            if late > _DELAY_SECONDS:
                self.was_held_up(late)

    def was_held_up(self, seconds: float) -> None:
        """For so many real seconds until now nothing was read: what is read next has come in all of that time."""
        now = self._clock.now()
        self._delays.append((now - seconds * self._clock.speed, now))
        self._longest_delay = max(self._longest_delay, seconds)

    def charge(self, charges: list[tuple[str, str]]) -> None:
        """A request is about to take these tokens, (policy, key) each: is it earlier than Retry-After said?"""
        if not self._closed_until:
            return
        now = self._clock.now()
        for policy, key in charges:
            known_at, until = self._closed_until.get((policy, key), (0.0, 0.0))
            if known_at <= now < until:
                self._early[policy] += 1
                return

    def refuse(self, policy: str, key: str, retry_after: int) -> None:
        """A bucket was empty, and its clients were told to wait so many real seconds."""
        speed, now = self._clock.speed, self._clock.now()
        self._refused[policy] += 1
        known_at, until = self._closed_until.get((policy, key), (0.0, 0.0))
        if now >= until:
            known_at = now + IN_FLIGHT_SECONDS * speed
        self._closed_until[policy, key] = (known_at, max(until, now + retry_after * speed))

    def document(self) -> dict[str, Any]:
        """``requests`` by operation and status; ``reads``, and ``peakReads``, the most a second; ``longestDelay``, the
        real seconds for which this process was held up at most; ``refused`` and ``early`` (before Retry-After) by
        policy; ``refusedCalls``: calls that met a 429 before they went through.
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
