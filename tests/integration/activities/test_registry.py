"""How activities are registered: which of them batch their writes."""

from __future__ import annotations

import pytest

from activities import registry
from patchwave.domain.workflow.contracts import Activity
from patchwave.storage.engine.batching import batching_enabled
from patchwave.wiring import Services


async def _reports_batching(services: Services, number: int) -> list[int]:
    return [number, batching_enabled()]


@pytest.mark.parametrize("batches", [True, False])
async def test_only_activities_of_machines_batch_their_writes(monkeypatch: pytest.MonkeyPatch, batches: bool) -> None:
    monkeypatch.setattr(registry, "bp", registry.df.Blueprint())
    contract = Activity("reports_batching", int, list[int])
    step = registry.register(contract, _reports_batching, batches=batches)
    assert await step(7) == [7, batches]
