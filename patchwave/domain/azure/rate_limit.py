"""Adaptive rate limiting: a level controller per token bucket, fed by the levels that Azure announces.

A bucket is filled at a steady rate up to its burst, and every request takes one token. Several workers share it, and
so do people and tools outside of this app. They need no coordination: the level, which every response carries, is what
all of them see. A limiter sends the faster the more there is above the *floor*, a quarter of the burst, which others
may always take at once:

- above the floor a quarter of the refill, and what is above it within an eighteenth of the time that an empty bucket
  takes to fill. A limiter alone settles just above the floor and sends exactly as fast as the bucket fills;
  of the burst a quarter stays unspent, of the refill nothing is lost.
- below the floor a quarter of the refill, so that no worker starves beside one that takes everything;
- below a third of the floor less and less, down to nothing at an empty bucket.

Sources: throttling limits of Compute (2024), token buckets of Resource Manager (2024), both per subscription.
Moments are seconds of one clock, given by the caller.
"""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

FLOOR_SHARE = 0.25
"""Of the burst: left to others."""
TRICKLE_SHARE = 0.25
"""Of the refill: what is sent however low the level is, down to a third of the floor."""
_DRAINS_PER_FILL = 18
_BISECTIONS = 24


class Bucket(StrEnum):
    """The buckets that can run dry; the values are the names in the setting ``PATCHWAVE_LIMITS``.

    Compute's own limits for reads and operations (8,000 and 5,000 a minute) cannot: Resource Manager's 1,500 reads
    come first.
    """

    PATCH_OPERATIONS = "patchOperations"
    """assessPatches and installPatches of virtual machines, per subscription and region."""
    ARC_REQUESTS = "arcRequests"
    """Every request about Arc machines, per subscription; those for patches have no limit of their own."""
    READS = "reads"
    """Every GET, per subscription."""
    WRITES = "writes"
    """Every other request, per subscription."""
    QUERIES = "queries"
    """Queries of Resource Graph, per identity."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket: ``refill`` tokens a second up to ``burst``; never faster than ``fastest`` a second.

    ``floor_share`` of the burst is left to others, and below it at most ``trickle_share`` of the refill is sent.
    """

    refill: float
    burst: float
    fastest: float = float("inf")
    floor_share: float = FLOOR_SHARE
    trickle_share: float = TRICKLE_SHARE

    @property
    def floor(self) -> float:
        """The level below which only a trickle is sent."""
        return self.burst * self.floor_share

    @property
    def trickle(self) -> float:
        """Requests a second that are sent however low the level is, down to a third of the floor."""
        return self.refill * self.trickle_share

    @property
    def drain_seconds(self) -> float:
        """How long what is above the floor lasts at the pace that it allows."""
        return self.burst / self.refill / _DRAINS_PER_FILL

    def pace(self, level: float) -> float:
        """Requests a second at that level: never falling with the level, 0 only when nothing is left."""
        if level < self.floor:
            return min(self.trickle * min(1.0, max(0.0, level) / (self.floor / 3)), self.fastest)
        return min(self.trickle + (level - self.floor) / self.drain_seconds, self.fastest)

    def gap(self, level: float) -> float:
        """Seconds between a request that left the level there and the next one; the refill meanwhile counts."""
        low, high = 0.0, max(0.0, self.floor - level) / self.refill + 1 / self.trickle
        if high * self.fastest < 1:
            return 1 / self.fastest
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if middle * self.pace(min(self.burst, level + middle * self.refill)) < 1:
                low = middle
            else:
                high = middle
        return high


LOCALLY_THROTTLED = "LocallyThrottled"
"""Error code of a call that was not sent because its reservation was too far away; it does not count as an attempt."""
_STEADY_SHARE = 0.6
"""Share of the reads' refill. A quarter is left to others, and the rest of the margin covers bursts: two workers and
requests that overtake each other bunch an even rate. A smaller share is too slow: two hundred machines that start and
end in a minute need four and a quarter reads each, fourteen a second."""
_CALLERS_FLOOR = 0.5
"""Of the queries: left to runs, which ask a few at once and then nothing for minutes."""
_CALLERS_TRICKLE = 0.05
_CATCH_UP_SECONDS = 0.05
"""How far behind its rate a process may be and catch up at once. A busy process reads its clock late; without this, the
missed reservations would be lost, and the busier the process, the less it would send."""
_DOCUMENTED = {
    Bucket.PATCH_OPERATIONS: (200.0, 600.0),
    # No figure is published; recorded answers count down from about a thousand.
    Bucket.ARC_REQUESTS: (1_000.0, 1_000.0),
    Bucket.READS: (25.0 * 60, 250.0),
    Bucket.WRITES: (10.0 * 60, 200.0),
    # 15 in five seconds, as a window that begins anew; the level that each answer tells makes up for the difference.
    Bucket.QUERIES: (15.0 * 12, 15.0),
}
_SETTING = re.compile(r"\s*(?P<name>\w+)\s*=\s*(?P<refill>[0-9]+(\.[0-9]+)?)\s*/\s*(?P<burst>[0-9]+(\.[0-9]+)?)\s*")


def read_limits(text: str = "") -> dict[Bucket, Limit]:
    """The limits that hold: documented ones, replaced by what the setting names.

    Args:
        text: ``bucket=refill a minute/burst``, separated by commas, as in ``patchOperations=400/1200``.

    Raises:
        ValueError: the text has another form, or names an unknown bucket.
    """
    figures = dict(_DOCUMENTED)
    for part in filter(str.strip, text.split(",")):
        found = _SETTING.fullmatch(part)
        if found is None or found["name"] not in list(Bucket):
            raise ValueError(f"{part.strip()[:100]!r} is not of the form bucket=refill/burst with {', '.join(Bucket)}")
        refill, burst = float(found["refill"]), float(found["burst"])
        if refill <= 0 or burst < 1:
            raise ValueError(f"{part.strip()[:100]!r}: the refill must be over 0 and the burst at least 1")
        figures[Bucket(found["name"])] = refill, burst
    limits = {bucket: Limit(refill / 60, burst) for bucket, (refill, burst) in figures.items()}
    reads = limits[Bucket.READS]
    # Polls do not use the burst, which is reserved for people and their tools.
    limits[Bucket.READS] = Limit(reads.refill, reads.burst, reads.refill * _STEADY_SHARE)
    queries = limits[Bucket.QUERIES]
    # Callers who look at the fleet stand behind runs. The bucket is small: several workers that burst would empty it
    # before the first answer tells.
    limits[Bucket.QUERIES] = Limit(queries.refill, queries.burst, queries.refill, _CALLERS_FLOOR, _CALLERS_TRICKLE)
    return limits


class RateLimiter:
    """Hands out the moments at which requests may take a token from one bucket.

    A *reservation* is such a moment, taken ahead: later requests get later ones. When it has come, the caller checks
    with `ready_at`, since others may have used the bucket meanwhile, and reports `sent` when the request leaves.
    """

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._level = limit.burst
        self._at = 0.0
        self._waiting: deque[float] = deque()
        self._last_reserved = 0.0
        self._last_sent = 0.0
        self._last_late = 0.0
        self._unanswered = 0
        self.throttled_until = 0.0
        """The moment before which nothing may be sent, as Azure has asked."""
        self._refusals = 0

    def level(self, now: float) -> float:
        if now > self._at:
            self._level = min(max(self._level, self.limit.burst), self._level + (now - self._at) * self.limit.refill)
            self._at = now
        return self._level

    def next_reservation(self, now: float) -> float:
        """The reservation that `reserve` would give."""
        self._drop_unused(now)
        level = self.level(now) - len(self._waiting) + max(0.0, self._last_reserved - now) * self.limit.refill
        gap = self.limit.gap(min(level, self.limit.burst))
        return max(now, self.throttled_until, self._last_reserved + gap)

    def reserve(self, now: float) -> float:
        """Take the next reservation, which may be now."""
        reserved_at = self.next_reservation(now)
        self._last_reserved = reserved_at
        self._waiting.append(reserved_at)
        return reserved_at

    def ready_at(self, now: float) -> float:
        """Once a reservation has come: now, or when to check again, as the level is lower than expected."""
        if now < self.throttled_until:
            return self.throttled_until + self.limit.gap(self.level(now))
        # With a steady rate, requests that arrive together after a stall are still spaced out.
        gap = 1 / self.limit.fastest if self._has_enough(now) else self.limit.gap(self.level(now))
        if now >= self._last_sent + gap:
            return now
        # Spaced out: hundreds that check again at the same moment would all be sent away again.
        self._last_late = max(self._last_sent + gap, self._last_late + min(gap, 1 / self.limit.refill))
        return self._last_late

    def sent(self, now: float) -> None:
        """A request that had a reservation leaves."""
        left_at = now
        if self._is_steady(now):
            # When it would have left without a stall.
            left_at = min(now, max(self._last_sent + 1 / self.limit.fastest, now - _CATCH_UP_SECONDS))
        self._last_sent = max(self._last_sent, left_at)
        self._level = self.level(now) - 1
        self._unanswered += 1
        if self._waiting:
            self._waiting.popleft()

    def answered(self, now: float, level: float | None = None) -> None:
        """A response has come, with the level in it. It may not include requests that are still unanswered."""
        self._unanswered = max(0, self._unanswered - 1)
        self._refusals = 0
        self._set_level(now, level)

    def refused(self, now: float, retry_after: float | None = None, level: float | None = None) -> None:
        """The bucket is dry: nothing is sent for ``retry_after`` seconds, which grow when Azure does not name them."""
        self._unanswered = max(0, self._unanswered - 1)
        self._set_level(now, 0 if level is None else level)
        pause = self.limit.drain_seconds * 2.0 ** min(self._refusals, 5) if retry_after is None else retry_after
        self._refusals += retry_after is None
        self.throttle_until(now + pause)

    def noticed(self, now: float, level: float) -> None:
        """A response to a request without a reservation here has announced the level."""
        self._set_level(now, level)

    def throttle_until(self, until: float) -> None:
        """Nothing may be sent before; a later end that is known stays."""
        self.throttled_until = max(self.throttled_until, until)

    def _has_enough(self, now: float) -> bool:
        """Whether the level is high enough for a request whose reservation has come."""
        return self.level(now) >= self.limit.floor + 1

    def _is_steady(self, now: float) -> bool:
        """Whether requests leave at the fixed fastest rate, and not at the one that the level allows."""
        return self.limit.fastest < float("inf") and self._has_enough(now)

    def _set_level(self, now: float, level: float | None) -> None:
        if level is not None:
            self.level(now)
            self._level = level - self._unanswered

    def _drop_unused(self, now: float) -> None:
        """Drop reservations not used in time: of a machine that has ended, or used by another worker."""
        while self._waiting and self._waiting[0] < now - 2 * self.limit.drain_seconds:
            self._waiting.popleft()


_POLICIES = {"vmguestpatchoperationsubscriptionmaximum": Bucket.PATCH_OPERATIONS}
_HEADERS = {
    "x-ms-ratelimit-remaining-subscription-resource-requests": Bucket.ARC_REQUESTS,
    "x-ms-ratelimit-remaining-subscription-reads": Bucket.READS,
    "x-ms-ratelimit-remaining-subscription-writes": Bucket.WRITES,
    "x-ms-user-quota-remaining": Bucket.QUERIES,
}
_REMAINING = re.compile(r"Microsoft\.Compute/(\w+);([0-9]{1,9})", re.IGNORECASE)


def read_levels(headers: Mapping[str, str]) -> dict[Bucket, int]:
    """What an answer tells of the buckets; a header that cannot be read tells nothing."""
    folded = {name.casefold(): value for name, value in headers.items()}
    levels = {
        bucket: int(folded[name])
        for name, bucket in _HEADERS.items()
        if re.fullmatch(r"[0-9]{1,9}", folded.get(name, ""))
    }
    for policy, left in _REMAINING.findall(folded.get("x-ms-ratelimit-remaining-resource", "")):
        bucket = _POLICIES.get(policy.casefold())
        if bucket is not None:
            levels[bucket] = int(left)
    return levels


def is_of_one_machine(headers: Mapping[str, str]) -> bool:
    """Whether a refusal is of a limit per machine: no reason to let the others wait."""
    folded = {name.casefold(): value for name, value in headers.items()}
    left = {
        policy.casefold(): int(number)
        for policy, number in _REMAINING.findall(folded.get("x-ms-ratelimit-remaining-resource", ""))
    }
    dry = [policy for policy, number in left.items() if number == 0]
    return bool(dry) and all(policy.endswith("resource") for policy in dry)
