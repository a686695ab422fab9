"""Client-side rate limiting: a request waits for its reservation here, and every response is reported here.

A request takes a token from several buckets at once (Compute's and Resource Manager's own); it is sent when each of
them lets it. One that would have to wait longer than its caller can is not sent: it reads as throttled, and is repeated
like any other.
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
from patchwave.settings import Settings

_SUBSCRIPTION = re.compile(r"/subscriptions/([^/?]+)", re.IGNORECASE)
_PATIENCE_POLLS = {Bucket.READS: 2 / 5, Bucket.WRITES: 4}
"""How long a request waits for its reservation, in poll intervals. A read is repeated later, and hundreds that wait
would keep other activities out. A change that is not made may fail its machine, so that it waits longer."""
_AHEAD_SHARE = 0.5
"""Of the patience: how long before its reservation a request is to be repeated. What precedes it in its activity takes
seconds, and a reservation that passes unused is lost."""
_MAX_RESERVATIONS = 5_000
_RESERVATION_TTL = 600
"""A reservation unused for so long is of a machine that has ended, or goes on in another worker."""
START_PATIENCE_POLLS = 1 / 15
"""How long a start waits within the activity; for a later reservation its orchestration waits."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The limiters that one request has to pass; ``request`` identifies it when it is repeated."""

    limiters: Mapping[Bucket, RateLimiter]
    patience: float
    reservations: dict[str, float]
    request: str = ""

    def reserve(self) -> float:
        """Reserve in every bucket; the moment (seconds since 1970) from which on all of them let the request pass."""
        now = time.time()
        return max((limiter.reserve(now) for limiter in self.limiters.values()), default=now)

    async def wait_until(self, reserved_at: float, patience: float) -> float | None:
        """Wait for a reservation; ``None`` when the request may leave, else the moment at which to repeat it."""
        moment = reserved_at if reserved_at > time.time() else self._ready_at()
        while (left := moment - time.time()) > 0:
            if left > patience:
                return moment
            await asyncio.sleep(left)
            moment = self._ready_at()
        return None

    async def wait(self) -> float:
        """Wait until the request may leave; 0 when it may, else the seconds after which to repeat it.

        A request that has to be repeated keeps its reservation, however many others reserve meanwhile: with a new place
        in the queue each time it would starve.
        """
        reserved_at = self.reservations.pop(self.request, None)
        later = await self.wait_until(self.reserve() if reserved_at is None else reserved_at, self.patience)
        if later is None:
            return 0
        now = time.time()
        if len(self.reservations) > _MAX_RESERVATIONS:
            for request in [each for each, at in self.reservations.items() if at < now - _RESERVATION_TTL]:
                del self.reservations[request]
        self.reservations[self.request] = later
        # More than the patience lies before it, so that this is a wait.
        return later - now - self.patience * _AHEAD_SHARE

    def throttle_until(self, until: float) -> None:
        """Send nothing to the narrowest bucket before that moment: Azure has told another worker so."""
        for limiter in list(self.limiters.values())[:1]:
            limiter.throttle_until(until)

    def _ready_at(self) -> float:
        now = time.time()
        return max((limiter.ready_at(now) for limiter in self.limiters.values()), default=now)

    def sent(self) -> None:
        """A request leaves."""
        now = time.time()
        for limiter in self.limiters.values():
            limiter.sent(now)

    def noticed(self, headers: Mapping[str, str]) -> None:
        """Record the levels in a response to a request that had no reservation."""
        now, levels = time.time(), read_levels(headers)
        for bucket, limiter in self.limiters.items():
            if bucket in levels:
                limiter.noticed(now, levels[bucket])

    def answered(self, status: int, headers: Mapping[str, str], retry_after: float | None) -> None:
        """Record what a response says of the buckets; ``status`` 0 and no headers when none came."""
        now, levels = time.time(), read_levels(headers)
        refused = (status == 429 and not is_of_one_machine(headers)) or (status == 503 and retry_after is not None)
        # A refusal is of the buckets that are dry; when Azure does not tell, of the narrowest, which comes first.
        dry = {bucket for bucket in self.limiters if levels.get(bucket) == 0} or set(list(self.limiters)[:1])
        for bucket, limiter in self.limiters.items():
            if refused and bucket in dry:
                limiter.refused(now, retry_after, levels.get(bucket))
            else:
                limiter.answered(now, levels.get(bucket))


class RateLimits:
    """All limiters, by bucket and by the subscription, or subscription and region, that has it."""

    def __init__(self, settings: Settings) -> None:
        self._limits = read_limits(settings.limits)
        self._poll_seconds = settings.poll_seconds
        self._limiters: dict[tuple[Bucket, str], RateLimiter] = {}
        self._asked_at: dict[str, float] = {}
        self._reservations: dict[str, float] = {}

    def of_request(self, method: str, url: str) -> RateLimit:
        """A plain request: Resource Manager counts those that name a subscription."""
        found = _SUBSCRIPTION.search(url)
        bucket = Bucket.READS if method in ("GET", "HEAD") else Bucket.WRITES
        return self._request_limit({bucket: found[1]} if found else {}, f"{method} {url}")

    def of_writes(self, subscription_id: str, request: str) -> RateLimit:
        """A change of a machine that is no patch operation; ``request`` says which."""
        return self._request_limit({Bucket.WRITES: subscription_id}, request)

    def of_patches(self, subscription_id: str, location: str) -> RateLimit:
        """assessPatches and installPatches."""
        return self._request_limit(
            {
                Bucket.PATCH_OPERATIONS: f"{subscription_id}~{location.replace(' ', '')}",
                Bucket.WRITES: subscription_id,
            }
        )

    def of_queries(self) -> RateLimit:
        """A query of Resource Graph for an HTTP caller: it waits as long as its caller does.

        Queries of runs are sent at once. Those of callers leave half of the quota to runs, and nearly stop when runs
        take more.
        """
        return RateLimit({Bucket.QUERIES: self._limiter(Bucket.QUERIES, "")}, float("inf"), self._reservations)

    def is_time_to_ask(self, bucket_key: str) -> bool:
        """Whether to read again what Azure has told other workers of that bucket: now and then, not for every start."""
        now = time.time()
        if now < self._asked_at.get(bucket_key, 0) + self._poll_seconds * START_PATIENCE_POLLS:
            return False
        self._asked_at[bucket_key] = now
        return True

    def _request_limit(self, scopes: Mapping[Bucket, str], request: str = "") -> RateLimit:
        limiters = {bucket: self._limiter(bucket, scope.lower()) for bucket, scope in scopes.items()}
        patience = max((_PATIENCE_POLLS.get(bucket, 0) for bucket in limiters), default=0)
        return RateLimit(limiters, self._poll_seconds * patience, self._reservations, request)

    def _limiter(self, bucket: Bucket, scope: str) -> RateLimiter:
        limiter = self._limiters.get((bucket, scope))
        if limiter is None:
            limiter = self._limiters[bucket, scope] = RateLimiter(self._limits[bucket])
        return limiter


_rate_limits = PerLoop(RateLimits)


def open_rate_limits(settings: Settings | None = None) -> RateLimits:
    """The limiters of this process, which all of its clients share."""
    return _rate_limits.get(settings)


def locally_throttled(seconds: float) -> ArmFailure:
    """The failure of a request that was not sent: throttled, by this client itself."""
    return ArmFailure(
        status=429,
        code=LOCALLY_THROTTLED,
        message="Patchwave keeps within its share of this limit.",
        retry_after=seconds,
    )
