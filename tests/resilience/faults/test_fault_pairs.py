"""Two faults at once, where one could hide what the other does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.resilience.faults.invariants import ends_patched_once, hold_invariants
from tests.resilience.faults.storage_line import Fate, product_on_a_line
from tests.resilience.faults.throttling import PATCH_LIMIT, REFUSAL
from tests.support.product import Product, wait_until

pytestmark = pytest.mark.chaos


def test_pair_f02_f06_a_worker_killed_after_the_post_while_others_are_throttled(product: Product) -> None:
    one, *others = product.take(4, installMinutes=30)
    for other in others:
        product.fault(other, "install", times=3, status=429, headers={"Retry-After": "1"}, body=REFUSAL)
    product.fault(one, "install", delaySeconds=30)
    run_id = product.start([one, *others])
    wait_until(lambda: product.accepted(one).get("install") == 1)
    product.stack.kill_worker()
    rows = hold_invariants(product, run_id, [one, *others])
    assert Counter(row["outcome"] for row in rows.values()) == {"patched": 4}
    assert rows[one.lower()]["installation"]["adopted"] is True


def test_pair_f03_f20_an_answer_lost_just_before_all_workers_are_gone(product: Product) -> None:
    ids = product.take(3, installMinutes=40)
    for one in ids:
        product.fault(one, "install", drop="after")
    run_id = product.start(ids)
    wait_until(lambda: all(product.accepted(one).get("install") == 1 for one in ids))
    product.stack.kill_worker()
    rows = hold_invariants(product, run_id, ids)
    assert {row["outcome"] for row in rows.values()} == {"patched"}
    assert all(len(product.requests(one, "install")) == 1 for one in ids), "no installation is sent twice"


@pytest.fixture
def shrunk(product: Product) -> Iterator[None]:
    before = product.azure.get("/_sim").json()["limits"]["policies"][PATCH_LIMIT]
    small = {"refillPerMinute": 0.5, "burst": 6}
    product.azure.post("/_sim/limits", json={"enabled": True, "policies": {PATCH_LIMIT: small}})
    yield
    product.azure.post("/_sim/limits", json={"policies": {PATCH_LIMIT: before}})


@pytest.mark.usefixtures("shrunk")
def test_pair_f07_f14_being_throttled_uses_no_error_budget_and_failures_still_do(product: Product) -> None:
    good, bad = product.take(6), product.take(10, installFails=2)
    rings = [{"name": "canary", "machineIds": good}, {"name": "broad"}]
    budget = {"run": 2, "onExceeded": "end"}
    run_id = product.start([*good, *bad], rings=rings, maxConcurrent=3, errorBudget=budget)
    rows = hold_invariants(product, run_id, [*good, *bad])
    assert product.run(run_id)["state"] == "stopped"
    assert {rows[one.lower()]["outcome"] for one in good} == {"patched"}
    counts = Counter(rows[one.lower()]["outcome"] for one in bad)
    assert 3 <= counts["failed"] <= 5
    assert counts == {"failed": counts["failed"], "skipped": 10 - counts["failed"]}


def test_pair_f16_f19_two_starts_at_once_over_the_same_machines(product: Product) -> None:
    ids = product.take(3, installMinutes=60)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: product.start(ids), range(2))
    assert first != second
    both = [hold_invariants(product, run_id, ids) for run_id in (first, second)]
    for one in ids:
        ends = {rows[one.lower()]["reason"] for rows in both}
        assert "ok" in ends, "one of the runs has patched it"
        assert ends <= {"ok", "locked_by_run", "no_pending_patches"}
        assert product.accepted(one)["install"] == 1


def test_pair_f21_f22_a_worker_that_dies_while_results_are_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The word of the end is lost twice over: the result is not stored, and who tried to store it is gone."""
    with product_on_a_line(tmp_path_factory.mktemp("pair")) as (product, line):

        def fate(method: str, path: str, body: bytes) -> Fate:
            is_result = method != "GET" and b'"outcome"' in body and b'"endedAt"' in body
            return 503 if is_result and len(line.hits) < 12 else "pass"

        line.fate = fate
        (one,) = product.take()
        run_id = product.start([one])
        wait_until(lambda: line.hits)
        product.stack.kill_worker()
        ends_patched_once(product, one, run_id)
        assert len(line.hits) == 12
