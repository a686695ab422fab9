"""Rate limits of requests: which buckets a request takes from, and what a response means to them."""

from __future__ import annotations

import asyncio
import time

import pytest
from pydantic import SecretStr

from patchwave.azure.rate_limiter import RateLimits
from patchwave.domain.azure.rate_limit import Bucket
from patchwave.settings import Settings

ONE, OTHER = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
MACHINE = f"https://management.azure.com/subscriptions/{ONE}/resourceGroups/g/providers/x/y/z"
DRY = {"x-ms-ratelimit-remaining-resource": "Microsoft.Compute/VMGuestPatchOperationSubscriptionMaximum;0"}


def make(limits: str = "", poll_seconds: float = 30) -> RateLimits:
    connection = SecretStr("UseDevelopmentStorage=true")
    return RateLimits(Settings(tables_connection=connection, limits=limits, poll_seconds=poll_seconds))


def test_requests_take_from_the_buckets_of_their_subscription() -> None:
    limits = make()
    read = limits.of_request("GET", MACHINE)
    assert list(read.limiters) == [Bucket.READS]
    assert limits.of_request("GET", MACHINE.upper()).limiters[Bucket.READS] is read.limiters[Bucket.READS]
    assert (
        limits.of_request("GET", MACHINE.replace(ONE, OTHER)).limiters[Bucket.READS] is not read.limiters[Bucket.READS]
    )
    assert list(limits.of_request("PUT", MACHINE).limiters) == [Bucket.WRITES]
    assert limits.of_request("POST", "https://management.azure.com/providers/Microsoft.ResourceGraph").limiters == {}


def test_patch_operations_have_a_bucket_in_every_region() -> None:
    limits = make()
    west = limits.of_patches(ONE, "westeurope").limiters
    assert limits.of_patches(ONE.upper(), "West Europe").limiters == west
    north = limits.of_patches(ONE, "northeurope").limiters
    assert north[Bucket.PATCH_OPERATIONS] is not west[Bucket.PATCH_OPERATIONS]
    assert north[Bucket.WRITES] is limits.of_writes(ONE, "start").limiters[Bucket.WRITES]


def test_requests_about_arc_machines_have_a_bucket_beside_those_of_resource_manager() -> None:
    limits = make()
    machine = MACHINE.replace("providers/x/y", "providers/Microsoft.HybridCompute/machines")
    read, patches = limits.of_request("GET", machine), limits.of_arc_patches(ONE.upper())
    assert list(read.limiters) == [Bucket.ARC_REQUESTS, Bucket.READS]
    assert list(limits.of_request("PUT", machine).limiters) == [Bucket.ARC_REQUESTS, Bucket.WRITES]
    assert list(patches.limiters) == [Bucket.ARC_REQUESTS, Bucket.WRITES]
    assert patches.limiters[Bucket.ARC_REQUESTS] is read.limiters[Bucket.ARC_REQUESTS]
    assert read.limiters[Bucket.READS] is limits.of_request("GET", MACHINE).limiters[Bucket.READS]
    operation = f"https://management.azure.com/subscriptions/{ONE}/providers/Microsoft.HybridCompute/locations/we/x?s=1"
    assert Bucket.ARC_REQUESTS in limits.of_request("GET", operation).limiters
    assert Bucket.ARC_REQUESTS not in limits.of_patches(ONE, "westeurope").limiters


async def test_the_level_of_arc_requests_is_the_one_that_azure_tells() -> None:
    limits = make()
    patches = limits.of_arc_patches(ONE)
    patches.sent()
    patches.answered(202, {"x-ms-ratelimit-remaining-subscription-resource-requests": "7"}, None)
    assert patches.limiters[Bucket.ARC_REQUESTS].level(time.time()) < 8
    patches.answered(429, {}, 30)
    later = await patches.wait_until(patches.reserve(), 1)
    assert later is not None
    assert later - time.time() > 29


@pytest.mark.parametrize("headers", [DRY, {}], ids=["told", "not told"])
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_stops_the_bucket_and_no_other_region(status: int, headers: dict[str, str]) -> None:
    limits = make()
    west, north = limits.of_patches(ONE, "westeurope"), limits.of_patches(ONE, "northeurope")
    west.sent()
    west.answered(status, headers, 30)
    later = await west.wait_until(west.reserve(), 1)
    assert later is not None
    assert later - time.time() > 29
    assert await north.wait_until(north.reserve(), 1) is None


async def test_a_busy_machine_stops_no_other_request() -> None:
    limits = make()
    read = limits.of_request("GET", MACHINE)
    read.sent()
    own = "Microsoft.Compute/LowCostGetResource;0,Microsoft.Compute/LowCostGetSubscriptionMaximum;7000"
    read.answered(429, {"x-ms-ratelimit-remaining-resource": own}, 30)
    assert await read.wait() == 0


async def test_throttling_of_another_worker_holds_here() -> None:
    rate_limit = make().of_patches(ONE, "westeurope")
    rate_limit.throttle_until(time.time() + 40)
    later = await rate_limit.wait_until(rate_limit.reserve(), 1)
    assert later is not None
    assert later - time.time() > 39


async def test_a_long_queue_is_not_waited_for_and_keeps_the_reservation() -> None:
    limits = make("reads=0.6/1")
    first, second, third = (limits.of_request("GET", f"{MACHINE}{number}") for number in range(3))
    assert await first.wait() == 0
    first.sent()
    first.answered(200, {"x-ms-ratelimit-remaining-subscription-reads": "0"}, None)
    reserved = await second.wait()
    assert 20 < reserved < await third.wait()
    again = await limits.of_request("GET", f"{MACHINE}1").wait()
    assert again == pytest.approx(reserved, abs=1), "later requests are behind it"


async def test_a_throttled_request_returns_shortly_before_its_reserved_time() -> None:
    """What precedes the request in its activity takes time: without the margin it would always be late."""
    # A read each 0.8 s, and a longest wait of 0.4 s.
    limits = make("reads=125/100", poll_seconds=1)
    first, second = (limits.of_request("GET", f"{MACHINE}{number}") for number in range(2))
    begun = time.time()
    assert await first.wait() == 0
    first.sent()
    wait = await second.wait()
    assert 0.4 < wait < 0.61
    await asyncio.sleep(wait + 0.1)
    assert await second.wait() == 0
    assert time.time() - begun == pytest.approx(0.8, abs=0.1)


async def test_unused_reservations_are_removed() -> None:
    limits = make("reads=600000/1")
    waiting = limits.of_request("GET", MACHINE)
    waiting.throttle_until(time.time() + 40)
    limits.of_request("GET", MACHINE).reservations.update({f"old {number}": 1.0 for number in range(5_001)})
    assert await waiting.wait() > 33
    assert list(waiting.reservations) == [waiting.request]


def test_throttling_of_other_workers_is_read_now_and_then() -> None:
    limits = make()
    assert limits.is_time_to_ask("one")
    assert not limits.is_time_to_ask("one")
    assert limits.is_time_to_ask("other")
