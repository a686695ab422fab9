"""Token buckets of Compute and Resource Manager.

Buckets refill on the simulated clock. ``Retry-After`` is in real seconds, rounded up so that a client that waits for it
is accepted. A refused request takes no token.
Source: Azure's compute throttling limits (2024) and the request limits of Resource Manager; both match recordings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from local.azure_simulator.clock import Clock
from local.azure_simulator.server.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Policy:
    """One limit: tokens per simulated minute, and burst."""

    name: str
    refill_per_minute: float
    burst: int


_COMPUTE = [
    Policy("VMGuestPatchOperationResource", 2, 6),
    Policy("VMGuestPatchOperationSubscriptionMaximum", 200, 600),
    Policy("GetOperationResource", 15, 45),
    Policy("GetOperationSubscriptionMaximum", 5_000, 15_000),
    Policy("LowCostGetResource", 12, 36),
    Policy("LowCostGetSubscriptionMaximum", 8_000, 24_000),
    Policy("HighCostGetSubscriptionMaximum", 300, 900),
    Policy("UpdateVMResource", 4, 12),
    Policy("UpdateVMSubscriptionMaximum", 500, 1_500),
    Policy("DeleteVMResource", 4, 12),
    Policy("DeleteVMSubscriptionMaximum", 500, 1_500),
]
_MANAGER = [
    Policy("subscription-reads", 25 * 60, 250),
    Policy("subscription-writes", 10 * 60, 200),
    Policy("subscription-global-reads", 25 * 60 * 15, 3_750),
    Policy("subscription-global-writes", 10 * 60 * 15, 3_000),
]
_HYBRID_COMPUTE = [Policy("subscription-resource-requests", 1_000, 1_000)]
"""Per subscription and region. The burst is recorded as what a first request leaves; the refill is an assumption."""
_GRAPH = [Policy("graph-queries", 15 * 12, 15)]


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


@dataclass(frozen=True, slots=True)
class Charge:
    """Tokens left per policy after a request, or the policy that refused it."""

    remaining: dict[str, int]
    refused_by: Policy | None = None
    retry_after: int = 0
    """Whole real seconds, at least 1, when refused."""


@dataclass
class Throttle:
    """All buckets of the simulator."""

    clock: Clock
    metrics: Metrics
    enabled: bool = True
    policies: dict[str, Policy] = field(
        default_factory=lambda: {policy.name: policy for policy in [*_COMPUTE, *_MANAGER, *_HYBRID_COMPUTE, *_GRAPH]}
    )
    _buckets: dict[tuple[str, str], _Bucket] = field(default_factory=dict[tuple[str, str], _Bucket])

    def limit(self, name: str, refill_per_minute: float, burst: int) -> None:
        """Change one policy from now on; its buckets start again full.

        Raises:
            ValueError: there is no such policy, or a number is not positive.
        """
        if name not in self.policies:
            raise ValueError(f"no policy {name!r}; there are: {', '.join(sorted(self.policies))}")
        if refill_per_minute <= 0 or burst < 1:
            raise ValueError("refillPerMinute must be over 0 and burst at least 1")
        self.policies[name] = Policy(name, refill_per_minute, burst)
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if key[0] != name}

    def take(self, charges: list[tuple[str, str]]) -> Charge:
        """Take one token from each (policy, key), or none at all when one of them is empty."""
        now = self.clock.now()
        self.metrics.charge(charges)
        buckets = [self._refilled(policy, key, now) for policy, key in charges]
        if self.enabled:
            for (name, key), bucket in zip(charges, buckets, strict=True):
                if bucket.tokens < 1:
                    policy = self.policies[name]
                    simulated = (1 - bucket.tokens) / policy.refill_per_minute * 60
                    wait = max(1, math.ceil(self.clock.real_seconds(simulated)))
                    self.metrics.refuse(name, key, wait)
                    left = [max(0, math.floor(each.tokens)) for each in buckets]
                    return Charge({p: n for (p, _), n in zip(charges, left, strict=True)}, policy, wait)
        remaining: dict[str, int] = {}
        for (name, _), bucket in zip(charges, buckets, strict=True):
            bucket.tokens = max(0.0, bucket.tokens - 1)
            remaining[name] = math.floor(bucket.tokens)
        return Charge(remaining)

    def _refilled(self, name: str, key: str, now: float) -> _Bucket:
        policy = self.policies[name]
        bucket = self._buckets.get((name, key))
        if bucket is None:
            bucket = self._buckets[name, key] = _Bucket(float(policy.burst), now)
            return bucket
        bucket.tokens = min(policy.burst, bucket.tokens + (now - bucket.at) / 60 * policy.refill_per_minute)
        bucket.at = now
        return bucket
