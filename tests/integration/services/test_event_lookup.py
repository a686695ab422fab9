"""Looking up what events name costs few reads of Azure, however many machines are not there."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from patchwave.services import event_lookup
from patchwave.services.event_lookup import NotKnownYet
from patchwave.storage import Storage
from tests.support.azure_events import azure, deliver, machine_id, put, simulator, written
from tests.support.http_calls import Engine

__all__ = ["azure", "simulator"]

pytestmark = pytest.mark.usefixtures("azure")


async def reads_of(azure: httpx.AsyncClient, name: str) -> int:
    """How often Azure was asked for machines of this name."""
    asked = await azure.get("/_sim/requests", params={"method": "GET", "path": f"*/{name}"})
    return len(asked.json()["requests"])


async def test_machines_that_are_not_there_cost_few_reads_and_lose_no_other_event(
    storage: Storage, engine: Engine, azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(storage, "newcomers", events={"newMachine": True})
    begin = event_lookup.monotonic()
    ghosts = [written(f"g-{number}", machine_id().replace("web-01", f"ghost-{number}")) for number in range(100)]
    ends = await asyncio.gather(*(deliver(engine, ghost) for ghost in ghosts), return_exceptions=True)
    asked = await reads_of(azure, "ghost-*")
    assert 5 <= asked < 10
    # Of all others nothing is known yet: Event Grid delivers them again.
    assert ends.count(None) == asked
    assert {type(end) for end in ends} == {type(None), NotKnownYet}
    with pytest.raises(NotKnownYet, match="other machines"):
        await deliver(engine, written("e-behind"))
    monkeypatch.setattr(event_lookup, "monotonic", lambda: begin + 60)
    await deliver(engine, written("e-behind"))
    assert len(engine.instances) == 1


async def test_a_missing_machine_is_looked_up_again_after_minutes(
    storage: Storage, engine: Engine, azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(storage, "newcomers", events={"newMachine": True})
    begin, late = event_lookup.monotonic(), machine_id().replace("web-01", "late")
    await deliver(engine, written("e-1", late))
    for number in range(2, 6):
        with pytest.raises(NotKnownYet, match="late was not there"):
            await deliver(engine, written(f"e-{number}", late))
    assert await reads_of(azure, "late") == 1
    monkeypatch.setattr(event_lookup, "monotonic", lambda: begin + 310)
    await deliver(engine, written("e-2", late))
    assert await reads_of(azure, "late") == 2
    assert not engine.attempts
