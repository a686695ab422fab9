"""How activities are registered: which of them wait for company."""

from __future__ import annotations

import pytest

from activities import registry
from patchwave.domain.workflow.contracts import Activity
from patchwave.storage.engine.batching import batching_enabled


async def _says_whether_it_waits(number: int) -> list[int]:
    return [number, batching_enabled()]


@pytest.mark.parametrize("batches", [True, False])
async def test_the_steps_of_machines_wait_for_company_and_nobody_else_does(
    monkeypatch: pytest.MonkeyPatch, batches: bool
) -> None:
    monkeypatch.setattr(registry, "bp", registry.df.Blueprint())
    contract = Activity("says_whether_it_waits", int, list[int])
    step = registry.register(contract, _says_whether_it_waits, batches=batches)
    assert await step(7) == [7, batches]
