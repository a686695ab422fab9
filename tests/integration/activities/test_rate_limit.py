"""Rate-limited starts and polls of operations, on real records and the Resource Manager simulator."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from activities import poll_operation as module
from activities.poll_operation import poll_operation
from activities.submit_operation import submit
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.workflow.operation import (
    OperationRef,
    OperationReport,
    OperationState,
    StartOperation,
    StartResult,
    StartState,
)
from patchwave.settings import load_settings
from patchwave.storage import Storage, bucket_key
from patchwave.wiring import Services
from tests.support.simulated_azure import azure
from tests.support.simulated_run import RUN_ID, create_run
from tests.support.simulator import SUBSCRIPTION, Simulator

__all__ = ["azure"]


async def start(
    services: Services, key: str, kind: OperationKind = OperationKind.INSTALL, reserved_at: datetime | None = None
) -> StartResult:
    request = StartOperation(run_id=RUN_ID, machine_key=key, kind=kind, reserved_at=reserved_at)
    return await submit(services, request)


async def poll(services: Services, key: str) -> OperationReport:
    request = OperationRef(run_id=RUN_ID, machine_key=key, kind=OperationKind.INSTALL)
    return await poll_operation(services, request)


def sent(azure: Simulator, one: str, operation: str) -> int:
    found = azure.http.get("/_sim/requests", params={"operation": operation}).json()["requests"]
    return sum(str(request["machine"]).lower() == one.lower() for request in found)


async def test_a_start_with_a_distant_reservation_writes_nothing(
    services: Services, storage: Storage, azure: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHWAVE_LIMITS", "patchOperations=1/2")
    load_settings.cache_clear()
    ids = [azure.take() for _ in range(4)]
    keys = await create_run(storage, *ids)
    results = [await start(services, key, OperationKind.ASSESS) for key in keys]
    assert results[0].state is StartState.ACCEPTED
    waiting = [(key, result) for key, result in zip(keys, results, strict=True) if result.state is StartState.WAIT]
    assert waiting
    slots = [result.reserved_at for _, result in waiting if result.reserved_at]
    assert len(slots) == len(waiting)
    assert slots == sorted(slots)
    for key, result in waiting:
        assert not result.counts_as_attempt
        assert 0 < result.wait_seconds < 600
        assert await storage.intents.get(RUN_ID, key, OperationKind.ASSESS) is None


async def test_a_reserved_time_that_has_come_is_used(services: Services, storage: Storage, azure: Simulator) -> None:
    (key,) = await create_run(storage, azure.take())
    assert (
        await start(services, key, reserved_at=datetime.now(UTC) - timedelta(seconds=1))
    ).state is StartState.ACCEPTED


async def test_a_reserved_time_in_the_future_is_kept(services: Services, storage: Storage, azure: Simulator) -> None:
    (key,) = await create_run(storage, azure.take())
    slot = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=50)
    early = await start(services, key, reserved_at=slot)
    assert (early.state, early.reserved_at) == (StartState.WAIT, slot)


async def test_throttling_of_another_worker_stops_starts_here(
    services: Services, storage: Storage, azure: Simulator
) -> None:
    (key,) = await create_run(storage, azure.take())
    until = datetime.now(UTC) + timedelta(seconds=40)
    await storage.throttling.throttle(bucket_key(SUBSCRIPTION, "westeurope"), until)
    stopped = await start(services, key)
    assert stopped.state is StartState.WAIT
    assert stopped.reserved_at is not None
    assert stopped.reserved_at >= until - timedelta(milliseconds=1)


async def test_the_first_poll_follows_the_duration_of_the_last_installation(
    services: Services, storage: Storage, azure: Simulator
) -> None:
    one = azure.take(installMinutes=60)
    (key,) = await create_run(storage, one, expected_seconds=0.6)
    started = await start(services, key)
    assert 0.05 <= started.wait_seconds <= 0.54
    # Found again later, by an execution that lost its answer.
    await asyncio.sleep(0.3)
    assert (await start(services, key)).wait_seconds <= started.wait_seconds


async def test_with_very_many_in_flight_a_sweep_finds_running_machines(
    services: Services, storage: Storage, azure: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEPT_ABOVE", -1)
    one, other = azure.take(installMinutes=200), azure.take(installMinutes=200)
    keys = await create_run(storage, one, other, expected_seconds=10.0)
    for key in keys:
        assert (await start(services, key)).state is StartState.ACCEPTED
    await asyncio.sleep(0.4)
    for key in keys:
        assert (await poll(services, key)).state is OperationState.RUNNING
    assert (sent(azure, one, "poll"), sent(azure, other, "poll")) == (0, 0)


async def test_an_operation_that_no_sweep_shows_is_polled(
    services: Services, storage: Storage, azure: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEPT_ABOVE", -1)
    one = azure.take(installMinutes=1)
    (key,) = await create_run(storage, one, expected_seconds=10.0)
    await start(services, key)
    for _ in range(100):
        if (await poll(services, key)).state is OperationState.ENDED:
            break
        await asyncio.sleep(0.1)
    assert sent(azure, one, "poll") >= 1
