"""The same kind of schedules on the whole product: two worker processes that get SIGKILL, Azurite, real sockets."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from tests.conftest import HEALTH_KEY, WEBHOOK_SECRET
from tests.resilience.chaos.fault_schedule import FaultSchedule
from tests.resilience.faults.invariants import hold_invariants
from tests.support.product import Product

_SCHEDULES = 10
_MACHINES = 30
_SECONDS = 15.0
"""Real seconds within which workers are killed."""


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    product = Product.open(
        tmp_path_factory.mktemp("two") / "stack",
        workers=2,
        PATCHWAVE_WEBHOOK_SECRET=WEBHOOK_SECRET,
        PATCHWAVE_HEALTH_KEY=HEALTH_KEY,
    )
    try:
        yield product
    finally:
        product.close()


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(1001, 1001 + _SCHEDULES), ids=lambda seed: f"seed-{seed}")
def test_schedule_on_the_whole_product(two_workers: Product, seed: int) -> None:
    product, source = two_workers, random.Random(f"full stack:{seed}")
    ids = product.take(_MACHINES, installMinutes=source.randint(10, 60))
    for rule in FaultSchedule.of(seed, ids, _SECONDS).faults:
        # Real seconds here, where a schedule in virtual time has minutes.
        effect = rule["effect"] | ({"delaySeconds": 2} if "delaySeconds" in rule["effect"] else {})
        effect["headers"] = dict.fromkeys(effect.get("headers", {}))
        product.add_rule(rule | {"effect": effect})
    run_id = product.start(ids)
    for _ in range(source.randint(1, 4)):
        time.sleep(source.uniform(0.2, _SECONDS / 4))
        # Without waiting until it is replaced: the other one may be next.
        for worker in product.stack.workers[:1]:
            os.kill(worker, signal.SIGKILL)
    hold_invariants(product, run_id, ids, timeout=400)
    product.clear_faults()
