"""The pacers of this process: who wants to ask Azure waits for a turn here, and every answer is heard here.

A request takes from several buckets at once (Compute's and Resource Manager's own); it is sent when each of them lets
it. One that would have to wait for longer than its caller can is not sent and reads as throttled, so that it is asked
again like any other.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from patchwave.azure.clients import PerLoop
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.rate_limit import PACED, Bucket, Pacer, is_of_one_machine, read_levels, read_limits
from patchwave.settings import Settings

_SUBSCRIPTION = re.compile(r"/subscriptions/([^/?]+)", re.IGNORECASE)
_PATIENCE_POLLS = {Bucket.READS: 2 / 5, Bucket.WRITES: 4}
"""How long a request waits for its turn, in poll intervals. A read is tried again, and hundreds that wait would keep
other activities out: at 15 reads a second, 180 wait for twelve. A change that is not made may be the end of its
machine."""
_AHEAD_SHARE = 0.5
"""Of the patience: so much before its turn a request is to come again. What precedes it in its activity takes seconds,
and a turn that passes is lost to everybody."""
_MOST_TURNS = 5_000
_KEPT_SECONDS = 600
"""A turn whose request has not come again by then is of a machine that has ended, or goes on in another worker."""
START_PATIENCE_POLLS = 1 / 15
"""How long a start waits for its turn within the activity; it gets a later one as a wait of its orchestration."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The buckets that a request takes from; ``request`` is what it is known by when it comes again."""

    pacers: Mapping[Bucket, Pacer]
    patience: float
    turns: dict[str, float]
    request: str = ""

    def book(self) -> float:
        """Take the next slot in every bucket; the moment (seconds since 1970) from which on all of them let it pass."""
        now = time.time()
        return max((pacer.book(now) for pacer in self.pacers.values()), default=now)

    async def reach(self, slot: float, patience: float) -> float | None:
        """Wait for a slot; ``None`` when the request may leave, else the moment to come again."""
        moment = slot if slot > time.time() else self._ready_at()
        while (left := moment - time.time()) > 0:
            if left > patience:
                return moment
            await asyncio.sleep(left)
            moment = self._ready_at()
        return None

    async def wait(self) -> float:
        """Wait for a turn; 0 when it has come, else the seconds after which to ask again.

        A request that is told to come again has that turn, however many others ask meanwhile: with a new place in the
        queue each time, one of a thousand would come to it last.
        """
        slot = self.turns.pop(self.request, None)
        later = await self.reach(self.book() if slot is None else slot, self.patience)
        if later is None:
            return 0
        now = time.time()
        if len(self.turns) > _MOST_TURNS:
            for request in [request for request, turn in self.turns.items() if turn < now - _KEPT_SECONDS]:
                del self.turns[request]
        self.turns[self.request] = later
        # More than the patience lies before it, so that this is a wait.
        return later - now - self.patience * _AHEAD_SHARE

    def stop(self, until: float) -> None:
        """Nothing is taken from the narrowest bucket before that moment: another worker was told so."""
        for pacer in list(self.pacers.values())[:1]:
            pacer.stop(until)

    def _ready_at(self) -> float:
        now = time.time()
        return max((pacer.ready_at(now) for pacer in self.pacers.values()), default=now)

    def sent(self) -> None:
        """A request leaves."""
        now = time.time()
        for pacer in self.pacers.values():
            pacer.sent(now)

    def noticed(self, headers: Mapping[str, str]) -> None:
        """Hear what an answer says of the buckets whose request did not wait for a turn."""
        now, levels = time.time(), read_levels(headers)
        for bucket, pacer in self.pacers.items():
            if bucket in levels:
                pacer.noticed(now, levels[bucket])

    def answered(self, status: int, headers: Mapping[str, str], retry_after: float | None) -> None:
        """Hear what an answer says of the buckets; ``status`` 0 and no headers when none came."""
        now, levels = time.time(), read_levels(headers)
        refused = (status == 429 and not is_of_one_machine(headers)) or (status == 503 and retry_after is not None)
        # A refusal is of the buckets that are dry; when Azure does not tell, of the narrowest, which comes first.
        dry = {bucket for bucket in self.pacers if levels.get(bucket) == 0} or set(list(self.pacers)[:1])
        for bucket, pacer in self.pacers.items():
            if refused and bucket in dry:
                pacer.refused(now, retry_after, levels.get(bucket))
            else:
                pacer.answered(now, levels.get(bucket))


class Budgets:
    """All pacers, by bucket and by the subscription, or subscription and region, that has it."""

    def __init__(self, settings: Settings) -> None:
        self._limits = read_limits(settings.limits)
        self._poll_seconds = settings.poll_seconds
        self._pacers: dict[tuple[Bucket, str], Pacer] = {}
        self._asked_at: dict[str, float] = {}
        self._turns: dict[str, float] = {}

    def of_request(self, method: str, url: str) -> Budget:
        """A plain request: Resource Manager counts those that name a subscription."""
        found = _SUBSCRIPTION.search(url)
        bucket = Bucket.READS if method in ("GET", "HEAD") else Bucket.WRITES
        return self._budget({bucket: found[1]} if found else {}, f"{method} {url}")

    def of_writes(self, subscription_id: str, request: str) -> Budget:
        """A change of a machine that is no patch operation; ``request`` says which."""
        return self._budget({Bucket.WRITES: subscription_id}, request)

    def of_patches(self, subscription_id: str, location: str) -> Budget:
        """assessPatches and installPatches."""
        return self._budget(
            {
                Bucket.PATCH_OPERATIONS: f"{subscription_id}~{location.replace(' ', '')}",
                Bucket.WRITES: subscription_id,
            }
        )

    def of_queries(self) -> Budget:
        """A query of Resource Graph on behalf of somebody who waits: it waits as long as its caller does.

        What runs ask goes at once. Callers leave half of the quota to them, whatever the callers ask for, and
        nearly stop when runs take more.
        """
        return Budget({Bucket.QUERIES: self._pacer(Bucket.QUERIES, "")}, float("inf"), self._turns)

    def is_time_to_ask(self, budget: str) -> bool:
        """Whether to look again what other workers were told of that budget; often enough, not for every start."""
        now = time.time()
        if now < self._asked_at.get(budget, 0) + self._poll_seconds * START_PATIENCE_POLLS:
            return False
        self._asked_at[budget] = now
        return True

    def _budget(self, scopes: Mapping[Bucket, str], request: str = "") -> Budget:
        pacers = {bucket: self._pacer(bucket, scope.lower()) for bucket, scope in scopes.items()}
        patience = max((_PATIENCE_POLLS.get(bucket, 0) for bucket in pacers), default=0)
        return Budget(pacers, self._poll_seconds * patience, self._turns, request)

    def _pacer(self, bucket: Bucket, scope: str) -> Pacer:
        pacer = self._pacers.get((bucket, scope))
        if pacer is None:
            pacer = self._pacers[bucket, scope] = Pacer(self._limits[bucket])
        return pacer


_budgets = PerLoop(Budgets)


def open_budgets(settings: Settings | None = None) -> Budgets:
    """The pacers of this process, which all of its clients share."""
    return _budgets.get(settings)


def waits_for_a_turn(seconds: float) -> ArmFailure:
    """What a request reads as that was not sent: throttled, by ourselves."""
    return ArmFailure(
        status=429, code=PACED, message="Patchwave keeps within its share of this limit.", retry_after=seconds
    )
