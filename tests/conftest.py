"""Fixtures that several folders share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.product import Product

# How long an example takes says more of the machine, which may be busy, than of the code.
settings.register_profile("patchwave", deadline=None)
settings.load_profile("patchwave")

# Writes are batched all the same: within an iteration of the event loop, and while other writes are in flight.
os.environ.setdefault("PATCHWAVE_STORAGE_BATCH_DELAY_SECONDS", "0.002")

WEBHOOK_SECRET = "a-secret-for-tests-only-and-no-other"
HEALTH_KEY = "a-health-key-for-tests-and-no-other"
CHANNELS = json.dumps(
    [{"name": "hub", "kind": "webhook", "url": "https://127.0.0.1:9/in", "secret": "for tests only, and long enough!"}]
)
"""On this machine, which is never called."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="run this random schedule of tests/resilience/chaos alone")


@pytest.fixture(scope="session")
def stack_product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """One stack for the whole session: starting it takes longer than most tests."""
    product = Product.open(
        tmp_path_factory.mktemp("stack"),
        # Scripts need roles: every test is the developer of this machine.
        signs_in=True,
        PATCHWAVE_WEBHOOK_SECRET=WEBHOOK_SECRET,
        PATCHWAVE_HEALTH_KEY=HEALTH_KEY,
        PATCHWAVE_CHANNELS=CHANNELS,
        PATCHWAVE_SCRIPTS="true",
    )
    try:
        yield product
    finally:
        product.close()


@pytest.fixture
def product(stack_product: Product) -> Iterator[Product]:
    """The stack, without the faults of other tests."""
    yield stack_product
    stack_product.clear_faults()
