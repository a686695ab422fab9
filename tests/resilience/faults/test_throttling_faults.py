"""F6 to F8: Azure limits requests. No machine fails for being throttled, and no request is sent too early."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest

from orchestrators.operation import MAX_REFUSALS
from patchwave.domain.workflow.operation import StartState
from patchwave.storage import Storage, bucket_key
from patchwave.wiring import Services
from tests.resilience.faults.activities import fault, install, prepare, sent
from tests.resilience.faults.invariants import ends_patched_once, hold_invariants
from tests.resilience.faults.throttling import PATCH_LIMIT, REFUSAL
from tests.support.product import Product
from tests.support.simulator import SUBSCRIPTION, Simulator

# --- F6: 429 with Retry-After


def test_f06_throttled_posts_wait_for_retry_after(product: Product) -> None:
    (one,) = product.take()
    product.fault(one, "install", times=3, status=429, headers={"Retry-After": "2"}, body=REFUSAL)
    ends_patched_once(product, one, product.start([one]))
    times = [datetime.fromisoformat(request["at"]) for request in product.requests(one, "install")]
    assert len(times) == 4
    assert all(later - earlier >= timedelta(seconds=2) for earlier, later in pairwise(times)), times


async def test_f06_no_request_of_the_bucket_is_sent_early_and_other_regions_do_not_wait(
    services: Services, storage: Storage, azure: Simulator
) -> None:
    throttled, neighbour, abroad = azure.take(), azure.take(), azure.take()
    fault(azure, throttled, "install", times=1, status=429, headers={"Retry-After": "30"}, body=REFUSAL)
    keys = [await prepare(storage, one) for one in (throttled, neighbour)]
    began = datetime.now(UTC)
    results = [await install(services, key) for key in (*keys, *keys)]
    assert [result.state for result in results] == [StartState.WAIT] * 4
    assert not any(result.counts_as_attempt for result in results), "attempts are not used up by being throttled"
    assert results[0].wait_seconds >= 30
    assert (sent(azure, throttled), sent(azure, neighbour)) == (1, 0), "nothing is sent to this budget meanwhile"
    until = await storage.throttling.until(bucket_key(SUBSCRIPTION, "westeurope"))
    assert until
    assert until >= began + timedelta(seconds=30)
    elsewhere = await prepare(storage, abroad, location="northeurope")
    assert (await install(services, elsewhere)).state is StartState.ACCEPTED


@pytest.mark.chaos
def test_f06_throttling_beyond_the_number_of_attempts_fails_no_machine(product: Product) -> None:
    (one,) = product.take()
    times = MAX_REFUSALS + 3
    product.fault(one, "install", times=times, status=429, headers={"Retry-After": None}, body=REFUSAL)
    ends_patched_once(product, one, product.start([one]))
    assert len(product.requests(one, "install")) == times + 1


# --- F7: the bucket shrinks


@pytest.fixture
def shrunk(product: Product) -> Iterator[None]:
    """One simulated minute is a tenth of a second: the region gives five operations a second, eight at once."""
    before = product.azure.get("/_sim").json()["limits"]["policies"][PATCH_LIMIT]
    small = {"refillPerMinute": 0.5, "burst": 8}
    reply = product.azure.post("/_sim/limits", json={"enabled": True, "policies": {PATCH_LIMIT: small}})
    assert reply.status_code == 200, reply.text
    yield
    product.azure.post("/_sim/limits", json={"policies": {PATCH_LIMIT: before}})


@pytest.mark.chaos
@pytest.mark.usefixtures("shrunk")
def test_f07_a_storm_of_429_slows_the_run_and_fails_no_machine(product: Product) -> None:
    ids = product.take(24)
    run_id = product.start(ids)
    rows = hold_invariants(product, run_id, ids)
    assert Counter(row["outcome"] for row in rows.values()) == {"patched": 24}
    posts = [post for one in ids for kind in ("assess", "install") for post in product.requests(one, kind)]
    refused = sum(post["status"] == 429 for post in posts)
    assert refused, "the bucket was too small for this run"
    assert len(posts) - 2 * len(ids) <= 1.2 * refused, "a refusal is answered with one more call, not with several"


# --- F8: Retry-After is missing or senseless


@pytest.mark.parametrize(
    "retry_after",
    ["abc", pytest.param("-1", marks=pytest.mark.chaos), pytest.param(None, marks=pytest.mark.chaos)],
)
def test_f08_a_senseless_retry_after_does_no_harm(product: Product, retry_after: str | None) -> None:
    (one,) = product.take()
    product.fault(one, "install", status=429, headers={"Retry-After": retry_after}, body={"code": "TooManyRequests"})
    ends_patched_once(product, one, product.start([one]))
    assert len(product.requests(one, "install")) == 2


@pytest.mark.chaos
def test_f08_a_date_is_waited_for(product: Product) -> None:
    (one,) = product.take()
    moment = (datetime.now(UTC) + timedelta(seconds=6)).replace(microsecond=0)
    headers = {"Retry-After": format_datetime(moment, usegmt=True)}
    product.fault(one, "install", status=429, headers=headers, body=REFUSAL)
    ends_patched_once(product, one, product.start([one]))
    assert datetime.fromisoformat(product.requests(one, "install")[-1]["at"]) >= moment


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("retry_after", ["1000000000", "1e300", "Fri, 31 Dec 9999 23:59:59 GMT", "NaN"])
async def test_f08_waits_are_bounded(
    services: Services, storage: Storage, azure: Simulator, status: int, retry_after: str
) -> None:
    one = azure.take()
    fault(azure, one, "install", times=1, status=status, headers={"Retry-After": retry_after}, body=REFUSAL)
    result = await install(services, await prepare(storage, one))
    assert result.state is StartState.WAIT
    assert 0 <= result.wait_seconds <= 1.1 * 3_600 + 1
    until = await storage.throttling.until(bucket_key(SUBSCRIPTION, "westeurope"))
    assert until is None or until <= datetime.now(UTC) + timedelta(hours=1)
