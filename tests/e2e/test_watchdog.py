"""Runs that lose their orchestration or a part of it, on the whole product: they go on, and install nothing twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.durable_functions.internal.serialization import FunctionsDataConverter
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationQuery, OrchestrationStatus

from patchwave.domain.runs.watchdog import GRACE_PERIOD, HEARTBEAT_TIMEOUT, RecoveryAction
from patchwave.services.watchdog import Watch, supervise_runs
from tests.resilience.faults.invariants import hold_invariants, storage_of
from tests.support.product import POLL_SECONDS, Product, wait_until

type Supervise = Callable[..., Awaitable[list[RecoveryAction]]]

INSTALL_MINUTES = 60
"""Six seconds: long enough to be in progress while the orchestration is ended and the watchdog finds it."""


@asynccontextmanager
async def watching(product: Product, run_id: str) -> AsyncGenerator[tuple[AsyncTaskHubGrpcClient, Supervise]]:
    """The engine, and the watchdog: called at a moment, it says what it did about the run."""
    async with storage_of(product) as storage:
        engine = AsyncTaskHubGrpcClient(host_address=product.stack.engine, data_converter=FunctionsDataConverter())

        async def supervise(at: datetime | None = None) -> list[RecoveryAction]:
            done = await supervise_runs(Watch(storage, engine, at or datetime.now(UTC), POLL_SECONDS, pause=0.2))
            return done.get(run_id, [])

        try:
            yield engine, supervise
        finally:
            await engine.close()


def begin(product: Product, count: int = 4, **policy: Any) -> tuple[str, list[str]]:
    """A run in the middle: one machine is done, two are installed on, and the others wait."""
    first, *others = product.take(count)
    for one in others:
        product.simulate(one, installMinutes=INSTALL_MINUTES)
    run_id = product.start([first, *others], maxConcurrent=2, **policy)
    wait_until(lambda: sum(product.accepted(one).get("install", 0) for one in [first, *others]) >= 2)
    return run_id, [first, *others]


def actions(product: Product, run_id: str) -> list[str]:
    lines: list[dict[str, Any]] = product.api.get(f"/api/runs/{run_id}/audit", params={"limit": 100}).json()["audit"]
    return [line["action"] for line in lines]


def ends_patched(product: Product, run_id: str, ids: list[str]) -> None:
    machines = hold_invariants(product, run_id, ids)
    assert {row["outcome"] for row in machines.values()} == {"patched"}, machines
    assert product.run(run_id)["state"] == "completed"
    assert all(product.accepted(one)["install"] == 1 for one in ids)


async def test_a_run_is_recovered_when_the_host_has_lost_everything(product: Product) -> None:
    run_id, ids = begin(product)
    product.stack.restart_host()
    async with watching(product, run_id) as (_, supervise):
        assert await supervise() == [RecoveryAction.CONTINUE]
        assert await supervise() == []
    ends_patched(product, run_id, ids)
    assert product.run(run_id)["generation"] == 2
    assert actions(product, run_id).count("run_recovered") == 1


@pytest.mark.chaos
async def test_a_run_that_lost_its_phase_is_recovered(product: Product) -> None:
    run_id, ids = begin(product)
    async with watching(product, run_id) as (engine, supervise):
        query = OrchestrationQuery(
            instance_id_prefix=f"{run_id}:", runtime_status=[OrchestrationStatus.RUNNING, OrchestrationStatus.PENDING]
        )
        [phase] = [each for each in await engine.get_all_orchestration_states(query) if each.name == "patch_phase"]
        await engine.terminate_orchestration(phase.instance_id, recursive=False)
        await engine.wait_for_orchestration_completion(run_id, timeout=30)
        done = await supervise()
        # First the machines, then their operations; none is left when the next generation begins.
        assert done[0] is RecoveryAction.END
        assert done[-1] is RecoveryAction.CONTINUE
    ends_patched(product, run_id, ids)


@pytest.mark.chaos
async def test_a_run_that_was_terminated_in_the_engine_starts_nothing_more(product: Product) -> None:
    """What Azure has accepted is followed to its end all the same."""
    run_id, ids = begin(product)
    async with watching(product, run_id) as (engine, supervise):
        await engine.terminate_orchestration(run_id, recursive=False)
        wait_until(lambda: product.run(run_id))
        await engine.wait_for_orchestration_completion(run_id, timeout=30)
        done = await supervise()
        assert done[0] is RecoveryAction.STOP
        assert done[-1] is RecoveryAction.CONTINUE
    before = {one: product.accepted(one).get("install", 0) for one in ids}
    machines = hold_invariants(product, run_id, ids)
    assert product.run(run_id)["state"] == "stopped"
    assert {one: product.accepted(one).get("install", 0) for one in ids} == before
    for one in ids:
        assert machines[one.lower()]["outcome"] == ("patched" if before[one] else "skipped")


async def test_a_silent_run_is_woken_and_then_taken_for_dead(product: Product) -> None:
    """It sleeps until it is approved: the watchdog reads until when, and wakes it only then."""
    (one,) = product.take()
    run_id = product.start([one], rings=[{"name": "all", "approval": {"within": "PT1H"}}])
    wait_until(lambda: product.run(run_id)["state"] == "awaiting_approval")
    wait_until(lambda: product.run(run_id)["heartbeatDeadline"] > product.run(run_id)["createdAt"])
    async with watching(product, run_id) as (_, supervise):
        asleep = datetime.now(UTC) + timedelta(hours=1)
        assert await supervise(asleep - timedelta(minutes=1)) == []
        assert await supervise(asleep + HEARTBEAT_TIMEOUT + timedelta(minutes=1)) == [RecoveryAction.WAKE]
        assert RecoveryAction.END in await supervise(asleep + HEARTBEAT_TIMEOUT + GRACE_PERIOD + timedelta(minutes=2))
    assert product.api.post(f"/api/runs/{run_id}/approve", json={}).status_code == 202
    ends_patched(product, run_id, [one])
    assert product.run(run_id)["generation"] == 2


@pytest.mark.chaos
async def test_a_run_of_an_unsupported_version_is_recovered_in_the_current_one(product: Product) -> None:
    """The app was deployed under it, and its orchestration fails at its next turn."""
    run_id, ids = begin(product, 3)
    async with watching(product, run_id) as (engine, supervise):
        # Its instance is replaced by one that other code has started; its phase and machines are as they were.
        await engine.terminate_orchestration(run_id, recursive=False)
        await engine.wait_for_orchestration_completion(run_id, timeout=30)
        await engine.schedule_new_orchestration("patch_run", input={"runId": run_id}, instance_id=run_id, version="0")
        state = await engine.wait_for_orchestration_completion(run_id, timeout=30)
        assert state is not None
        assert state.runtime_status is OrchestrationStatus.FAILED
        assert "Version 0" in str(state.failure_details)
        assert (await supervise())[-1] is RecoveryAction.CONTINUE
    ends_patched(product, run_id, ids)
    assert product.run(run_id)["generation"] == 2
