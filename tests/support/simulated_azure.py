"""The simulator in the place of Azure, for the real clients in this process."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import aiohttp.connector
import pytest

from local.stack import limits_at
from patchwave.azure.clients import close_clients
from patchwave.settings import load_settings
from patchwave.storage import Storage
from tests.support.http_calls import TENANT
from tests.support.simulator import SPEED, Simulator


@pytest.fixture
async def azure(storage: Storage, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Simulator]:
    """Settings and trust that lead to the simulator, and a poll interval that costs no time."""
    del storage  # which has made the other settings
    # aiohttp reads the environment once per process, and another test may have been first.
    trust = ssl.create_default_context(cafile=simulator.ready["ca"])
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trust)
    for name, value in simulator.ready["environment"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATCHWAVE_POLL_SECONDS", "0.05")
    monkeypatch.setenv("PATCHWAVE_LIMITS", limits_at(SPEED))
    monkeypatch.setenv("PATCHWAVE_SCRIPTS", "true")
    monkeypatch.setenv("PATCHWAVE_AUTHORIZATION", "roles")
    monkeypatch.setenv("PATCHWAVE_TENANT_ID", TENANT)
    load_settings.cache_clear()
    yield simulator
    await close_clients()
    simulator.http.delete("/_sim/faults")


__all__ = ["azure"]
