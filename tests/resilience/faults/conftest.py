"""For faults that can only be made below the whole product: activities and triggers on the stack's own storage."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.conftest import engine, services, storage
from tests.support.product import Product
from tests.support.simulated_azure import azure
from tests.support.simulator import Simulator, token

__all__ = ["azure", "engine", "services", "storage"]


class _SimulatorOfTheStack(Simulator):
    """Hands out machines that no other test has, of the product's tests either."""

    product: Product

    def take(self, **simulation: object) -> str:
        (one,) = self.product.take(1, **simulation)
        return one


@pytest.fixture(scope="session")
def azurite(stack_product: Product) -> str:
    """The connection string of the stack's storage, where each test has tables of its own."""
    return stack_product.stack.storage


@pytest.fixture(scope="session")
def simulator(stack_product: Product) -> Iterator[Simulator]:
    """The stack's simulator, with a token."""
    ready = stack_product.stack.simulator
    trust = ssl.create_default_context(cafile=ready["ca"])
    with httpx.Client(base_url=ready["arm"], verify=trust, timeout=20, trust_env=False) as http:
        http.headers["Authorization"] = f"Bearer {token(ready)}"
        found = _SimulatorOfTheStack(ready, http)
        found.product = stack_product
        yield found
