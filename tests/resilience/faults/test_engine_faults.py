"""F19 to F21: two runs on one machine, all workers gone at once, changed code, and orchestrations that went silent."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from azure.durable_functions.internal.serialization import FunctionsDataConverter
from durabletask import task
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationStatus
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal import orchestrator_service_pb2_grpc as stubs

from local.functions_host.durable.workbench import Workbench
from patchwave.domain.core.ids import MachineId
from patchwave.services.watchdog import Watch, supervise_runs
from tests.resilience.faults.invariants import ends_patched_once, histories, hold_invariants, storage_of
from tests.support.product import POLL_SECONDS, Product, wait_until

# --- F19: two runs, one machine


def test_f19_two_runs_never_install_on_one_machine_at_a_time(product: Product) -> None:
    (one,) = product.take(installMinutes=110)
    first = product.start([one])
    wait_until(lambda: product.accepted(one).get("install") == 1)
    second = product.start([one])
    row = hold_invariants(product, second, [one])[one.lower()]
    assert (row["outcome"], row["reason"]) == ("skipped", "locked_by_run")
    assert first in row["message"]
    ends_patched_once(product, one, first)


def test_f19_patches_of_another_run_are_not_installed_again(product: Product) -> None:
    """The second run found patches that the first one installs: it assesses again, and finds nothing to do."""
    (one,) = product.take()
    waiting = product.start([one], rings=[{"name": "all", "approval": {"within": "PT8H"}}])
    wait_until(lambda: product.run(waiting)["state"] == "awaiting_approval", what=lambda: str(product.run(waiting)))
    ends_patched_once(product, one, product.start([one]))
    assert product.api.post(f"/api/runs/{waiting}/approve", json={}).status_code == 202
    row = hold_invariants(product, waiting, [one])[one.lower()]
    assert (row["outcome"], row["reason"]) == ("nothing_to_install", "no_pending_patches")
    assert product.accepted(one) == {"assess": 3, "install": 1}


@pytest.mark.chaos
async def test_f19_the_lock_of_a_run_that_crashed_runs_out_and_lets_the_next_one_in(product: Product) -> None:
    let_in, kept_out = product.take(2)
    dead = "20200101T000000Z-crashed"
    now = datetime.now(UTC)
    async with storage_of(product) as storage:
        for one, until in ((let_in, timedelta(seconds=2)), (kept_out, timedelta(hours=3))):
            assert await storage.leases.acquire(MachineId.parse(one).key, dead, now, now + until) == dead
        rows = hold_invariants(product, product.start([let_in, kept_out]), [let_in, kept_out])
        await storage.leases.release(MachineId.parse(kept_out).key, dead)
    assert rows[let_in.lower()]["outcome"] == "patched"
    assert (rows[kept_out.lower()]["outcome"], rows[kept_out.lower()]["reason"]) == ("skipped", "locked_by_run")
    assert dead in rows[kept_out.lower()]["message"]
    assert not product.requests(kept_out, "install")


# --- F20: all workers are restarted in the middle of a wave, with the same or with changed code


def test_f20_a_wave_completes_although_all_workers_were_lost(product: Product) -> None:
    ids = product.take(8, installMinutes=20)
    run_id = product.start(ids, maxConcurrent=4)
    for begun in (2, 5):
        wait_until(lambda begun=begun: sum(product.accepted(one).get("install", 0) for one in ids) >= begun)
        # The host has one worker: it is all of them.
        product.stack.kill_worker()
    rows = hold_invariants(product, run_id, ids)
    assert Counter(row["outcome"] for row in rows.values()) == {"patched": 8}
    assert all(product.accepted(one)["install"] == 1 for one in ids)


def test_f20_code_that_cannot_replay_a_history_fails_loudly_and_lets_it_not_grow() -> None:
    """What the app does about it, versions and all is in
    ``tests/orchestrators/replay_compatibility`` and ``tests/integration/services/test_watchdog.py``.
    """
    turns = 0

    def before(context: task.OrchestrationContext, _: object) -> Generator[task.Task[Any], Any, str]:
        yield context.call_activity("first")
        yield context.wait_for_external_event("deploy")
        return "old"

    def after(context: task.OrchestrationContext, _: object) -> Generator[task.Task[Any], Any, str]:
        nonlocal turns
        turns += 1
        yield context.create_timer(timedelta(seconds=1))
        return "new"

    code: list[Callable[..., Any]] = [before]

    def deployed(context: task.OrchestrationContext, data: object) -> Generator[task.Task[Any], Any, Any]:
        return (yield from code[-1](context, data))

    with Workbench({"deployed": deployed}, {"first": lambda _: "done"}) as bench:
        instance = bench.start("deployed")
        wait_until(lambda: bench.calls_of("first"))
        code.append(after)
        bench.client.raise_orchestration_event(instance, "deploy")
        ended = bench.wait(instance)
    assert ended.status is OrchestrationStatus.FAILED
    assert ended.failure
    assert "NonDeterminism" in ended.failure.error_type
    assert turns == 1
    assert len(ended.history) < 20


# --- F21: a timer is lost, a child is stuck


@pytest.fixture
async def watchdog(product: Product) -> Any:
    """Calls the watchdog at a moment, on the records and the engine of the product."""
    async with storage_of(product) as storage:
        engine = AsyncTaskHubGrpcClient(host_address=product.stack.engine, data_converter=FunctionsDataConverter())

        async def supervise(at: datetime) -> object:
            return await supervise_runs(Watch(storage, engine, at, POLL_SECONDS, pause=0.1))

        yield supervise
        await engine.close()


@pytest.mark.chaos
async def test_f21_a_silent_run_is_recovered_from_the_state_of_azure(product: Product, watchdog: Any) -> None:
    """Hours pass for the watchdog, in which a timer should have fired: it ends what is left and begins anew."""
    (one,) = product.take(installMinutes=110)
    run_id = product.start([one])
    wait_until(lambda: product.accepted(one).get("install") == 1)
    await watchdog(datetime.now(UTC) + timedelta(hours=3))
    wait_until(lambda: "run_recovered" in actions(product, run_id), what=lambda: str(product.run(run_id)))
    ends_patched_once(product, one, run_id)


async def test_f21_a_child_that_died_is_started_again(product: Product, watchdog: Any) -> None:
    (one,) = product.take(installMinutes=100)
    run_id = product.start([one])
    wait_until(lambda: product.accepted(one).get("install") == 1)
    key = product.machines(run_id)[one.lower()]["key"]
    with grpc.insecure_channel(product.stack.engine) as channel:
        for instance in histories(product, f"{run_id}:"):
            if instance.endswith(f":{key}"):
                stubs.TaskHubSidecarServiceStub(channel).TerminateInstance(pb.TerminateRequest(instanceId=instance))
    # The engine takes its time to end an instance, and until then there is nothing to mend.
    for _ in range(100):
        await watchdog(datetime.now(UTC))
        if "machine_requeued" in actions(product, run_id):
            break
        await asyncio.sleep(0.1)
    assert "machine_requeued" in actions(product, run_id)
    ends_patched_once(product, one, run_id)


def actions(product: Product, run_id: str) -> list[str]:
    lines: list[dict[str, Any]] = product.api.get(f"/api/runs/{run_id}/audit", params={"limit": 100}).json()["audit"]
    return [line["action"] for line in lines]
