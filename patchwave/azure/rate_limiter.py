"""Client-side rate limiting: requests reserve a time here, and every response is recorded here.

A request takes a token from several buckets at once (Compute's and Resource Manager's) and is sent when all of them
allow it. A request that would wait longer than its caller allows is not sent: it counts as throttled, and is retried
(docs/adr/0016-adaptive-rate-limiting.md).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from patchwave.azure.clients import PerLoop
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.rate_limit import (
    LOCALLY_THROTTLED,
    Bucket,
    RateLimiter,
    is_of_one_machine,
    read_levels,
    read_limits,
)
from patchwave.settings import Settings, load_settings

_SUBSCRIPTION = re.compile(r"/subscriptions/([^/?]+)", re.IGNORECASE)
_ARC = "/providers/microsoft.hybridcompute/"
_ADDRESS = 500
"""Characters of a URL that hold its address; signatures follow."""
_MAX_WAIT_POLLS = {Bucket.READS: 2 / 5, Bucket.WRITES: 4}
"""Max wait for a reservation, in poll intervals. Reads are short, because waiting ones block other activities. Changes
wait longer, because a failed one may fail its machine."""
_AHEAD_SHARE = 0.5
"""How long before its reservation a request is retried, as a share of the max wait. Earlier steps of its activity take
seconds, and an unused reservation is lost."""
_MAX_RESERVATIONS = 5_000
_RESERVATION_TTL = 600
"""Seconds after which an unused reservation is dropped: its machine has ended, or moved to another worker."""
START_MAX_WAIT_POLLS = 1 / 15
"""Max wait of a start within its activity, in poll intervals; for a later reservation its orchestration sleeps."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The limiters of one request; ``request`` identifies it when it is retried."""

    limiters: Mapping[Bucket, RateLimiter]
    max_wait: float
    reservations: dict[str, float]
    request: str = ""

    def reserve(self) -> float:
        """Reserve in every bucket; returns the time (Unix seconds) from which all of them allow the request."""
        now = time.time()
        return max((limiter.reserve(now) for limiter in self.limiters.values()), default=now)

    async def wait_until(self, reserved_at: float, max_wait: float) -> float | None:
        """Wait for a reservation; ``None`` when the request may be sent, else the time at which to retry."""
        moment = reserved_at if reserved_at > time.time() else self._ready_at()
        while (left := moment - time.time()) > 0:
            if left > max_wait:
                return moment
            await asyncio.sleep(left)
            moment = self._ready_at()
        return None

    async def wait(self) -> float:
        """Wait until the request may be sent; 0 when it may, else the seconds until its retry.

        The retry keeps the reservation, whatever others reserve meanwhile: with a new one each time it would starve.
        """
        reserved_at = self.reservations.pop(self.request, None)
        later = await self.wait_until(self.reserve() if reserved_at is None else reserved_at, self.max_wait)
        if later is None:
            return 0
        now = time.time()
        if len(self.reservations) > _MAX_RESERVATIONS:
            for request in [each for each, at in self.reservations.items() if at < now - _RESERVATION_TTL]:
                del self.reservations[request]
        self.reservations[self.request] = later
        # Positive, because the remaining time exceeds the longest wait.
        return later - now - self.max_wait * _AHEAD_SHARE

    def throttle_until(self, until: float) -> None:
        """Send nothing to the narrowest bucket before ``until``: Azure has throttled another worker."""
        for limiter in list(self.limiters.values())[:1]:
            limiter.throttle_until(until)

    def _ready_at(self) -> float:
        now = time.time()
        return max((limiter.ready_at(now) for limiter in self.limiters.values()), default=now)

    def sent(self) -> None:
        """Record that a request is sent."""
        now = time.time()
        for limiter in self.limiters.values():
            limiter.sent(now)

    def noticed(self, headers: Mapping[str, str]) -> None:
        """Record the levels in a response to a request without a reservation."""
        now, levels = time.time(), read_levels(headers)
        for bucket, limiter in self.limiters.items():
            if bucket in levels:
                limiter.noticed(now, levels[bucket])

    def answered(self, status: int, headers: Mapping[str, str], retry_after: float | None) -> None:
        """Record a response; ``status`` 0 and no headers without one."""
        now, levels = time.time(), read_levels(headers)
        refused = (status == 429 and not is_of_one_machine(headers)) or (status == 503 and retry_after is not None)
        # A refusal counts for empty buckets. When Azure does not name them, for the narrowest one, which comes first.
        dry = {bucket for bucket in self.limiters if levels.get(bucket) == 0} or set(list(self.limiters)[:1])
        for bucket, limiter in self.limiters.items():
            if refused and bucket in dry:
                limiter.refused(now, retry_after, levels.get(bucket))
            else:
                limiter.answered(now, levels.get(bucket))


class RateLimits:
    """All limiters, by bucket and by its subscription, or subscription and region."""

    def __init__(self, settings: Settings) -> None:
        self._limits = read_limits(settings.limits)
        self._poll_seconds = settings.poll_seconds
        self._limiters: dict[tuple[Bucket, str], RateLimiter] = {}
        self._asked_at: dict[str, float] = {}
        self._reservations: dict[str, float] = {}

    def of_request(self, method: str, url: str) -> RateLimit:
        """A plain request: Resource Manager limits those that name a subscription."""
        found = _SUBSCRIPTION.search(url)
        bucket = Bucket.READS if method in ("GET", "HEAD") else Bucket.WRITES
        scopes: dict[Bucket, str] = {bucket: found[1]} if found else {}
        if found and _ARC in url[:_ADDRESS].lower():
            scopes = {Bucket.ARC_REQUESTS: found[1]} | scopes
        return self._request_limit(scopes, f"{method} {url}")

    def of_writes(self, subscription_id: str, request: str) -> RateLimit:
        """Another change of a machine than a patch operation; ``request`` identifies it."""
        return self._request_limit({Bucket.WRITES: subscription_id}, request)

    def of_patches(self, subscription_id: str, location: str) -> RateLimit:
        """assessPatches and installPatches of virtual machines."""
        return self._request_limit(
            {
                Bucket.PATCH_OPERATIONS: f"{subscription_id}~{location.replace(' ', '')}",
                Bucket.WRITES: subscription_id,
            }
        )

    def of_arc_patches(self, subscription_id: str) -> RateLimit:
        """assessPatches and installPatches of Arc machines, which no region limits."""
        return self._request_limit({Bucket.ARC_REQUESTS: subscription_id, Bucket.WRITES: subscription_id})

    def of_queries(self) -> RateLimit:
        """A query of Resource Graph for an HTTP caller, without a limit of its wait.

        Queries of runs are sent at once. Those of callers leave half of the quota to runs, and nearly stop when runs
        need more.
        """
        return RateLimit({Bucket.QUERIES: self._limiter(Bucket.QUERIES, "")}, float("inf"), self._reservations)

    def is_time_to_ask(self, bucket_key: str) -> bool:
        """Whether to read the bucket's stored throttling again: once per interval, not for every start."""
        now = time.time()
        if now < self._asked_at.get(bucket_key, 0) + self._poll_seconds * START_MAX_WAIT_POLLS:
            return False
        self._asked_at[bucket_key] = now
        return True

    def _request_limit(self, scopes: Mapping[Bucket, str], request: str = "") -> RateLimit:
        limiters = {bucket: self._limiter(bucket, scope.lower()) for bucket, scope in scopes.items()}
        polls = max((_MAX_WAIT_POLLS.get(bucket, 0) for bucket in limiters), default=0)
        return RateLimit(limiters, self._poll_seconds * polls, self._reservations, request)

    def _limiter(self, bucket: Bucket, scope: str) -> RateLimiter:
        limiter = self._limiters.get((bucket, scope))
        if limiter is None:
            limiter = self._limiters[bucket, scope] = RateLimiter(self._limits[bucket])
        return limiter


_rate_limits = PerLoop(lambda settings: RateLimits(settings or load_settings()))


def open_rate_limits(settings: Settings | None = None) -> RateLimits:
    """The limiters of this process, shared by all clients."""
    return _rate_limits.get(settings)


def locally_throttled(seconds: float) -> ArmFailure:
    """The failure of a request that was not sent, because the client throttled it."""
    return ArmFailure(
        status=429,
        code=LOCALLY_THROTTLED,
        message="Patchwave keeps within its share of this limit.",
        retry_after=seconds,
    )
