"""F14 and F15: a threshold is crossed, or the run is cancelled, while many machines are in progress."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import grpc
import pytest
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal import orchestrator_service_pb2_grpc as stubs

from tests.resilience.faults.invariants import hold_invariants, locks_of
from tests.support.product import Product, wait_until


def installs(product: Product, ids: list[str]) -> int:
    """How many of the machines Azure was asked to patch."""
    wanted = {one.lower() for one in ids}
    return sum(each["machine"].lower() in wanted for each in product.intervals())


# --- F14: the failure threshold is crossed in a later wave


def test_f14_a_crossed_threshold_starts_nothing_more_and_lets_running_machines_end(product: Product) -> None:
    good, bad = product.take(4), product.take(16, installFails=2)
    run_id = product.start(
        [*good, *bad],
        rings=[{"name": "canary", "machineIds": good}, {"name": "broad"}],
        maxConcurrent=4,
        errorBudget={"run": "10%", "onExceeded": "end"},
    )
    rows = hold_invariants(product, run_id, [*good, *bad])
    run = product.run(run_id)
    assert run["state"] == "stopped"
    assert "error budget of the run is used up" in run["reason"]
    counts = Counter((row["outcome"], row["reason"]) for row in rows.values())
    failed = counts["failed", "patches_failed"]
    # Two of twenty may fail. The third stops the run, while up to three others are in progress.
    assert 3 <= failed <= 6
    assert counts == {
        ("patched", "ok"): 4,
        ("failed", "patches_failed"): failed,
        ("skipped", "error_budget"): 16 - failed,
    }
    assert installs(product, bad) == failed, "no machine was started in vain"


# --- F15: cancel while many are in flight


def test_f15_a_cancel_keeps_running_machines_apart_from_those_that_never_began(product: Product) -> None:
    ids = product.take(8, installMinutes=600)
    run_id = product.start(ids, maxConcurrent=3)
    wait_until(lambda: installs(product, ids) == 3, what=lambda: str(product.run(run_id)))
    assert product.api.post(f"/api/runs/{run_id}/cancel").status_code in (200, 202)
    asked = datetime.now(UTC)
    rows = hold_invariants(product, run_id, ids)
    run = product.run(run_id)
    assert run["state"] == "canceled"
    assert run["countsByOutcome"] == {"canceled": 5, "left_running": 3}
    posts = [request for one in ids for request in product.requests(one, "install")]
    assert len(posts) == 3
    assert all(datetime.fromisoformat(request["at"]) <= asked for request in posts)
    assert set(locks_of(product, run_id)) == {row["key"] for row in rows.values() if row["outcome"] == "left_running"}


@pytest.mark.chaos
def test_f15_a_cancel_with_many_in_flight_starts_nothing_more(product: Product) -> None:
    ids = product.take(48, installMinutes=600)
    run_id = product.start(ids, maxConcurrent=24)
    wait_until(lambda: installs(product, ids) >= 16, what=lambda: str(product.run(run_id)))
    assert product.api.post(f"/api/runs/{run_id}/cancel").status_code in (200, 202)
    at_answer = installs(product, ids)
    rows = hold_invariants(product, run_id, ids)
    # A call that was on its way to Azure at that moment arrives; there are never more of them than may run.
    assert installs(product, ids) <= min(24, at_answer + 8)
    counts = Counter(row["outcome"] for row in rows.values())
    assert counts == {"left_running": installs(product, ids), "canceled": 48 - installs(product, ids)}


def test_f15_a_run_with_a_terminated_orchestration_can_still_be_ended(product: Product) -> None:
    """Termination in the engine does not reach children everywhere: the row of the run does."""
    ids = product.take(6, installMinutes=60)
    run_id = product.start(ids, maxConcurrent=2)
    wait_until(lambda: installs(product, ids) >= 2, what=lambda: str(product.run(run_id)))
    with grpc.insecure_channel(product.stack.engine) as channel:
        stubs.TaskHubSidecarServiceStub(channel).TerminateInstance(
            pb.TerminateRequest(instanceId=run_id, recursive=False)
        )
    assert product.api.post(f"/api/runs/{run_id}/cancel").status_code in (200, 202)

    def ended() -> object:
        # The watchdog runs every five minutes.
        product.api.post("/admin/functions/supervise_runs", json={"input": ""})
        return product.run(run_id)["endedAt"]

    wait_until(ended, timeout=100, what=lambda: str(product.run(run_id)))
    rows = hold_invariants(product, run_id, ids)
    assert product.run(run_id)["state"] in ("canceled", "failed", "stopped")
    assert installs(product, ids) < len(ids), "the machines behind it were not started any more"
    begun = {one.lower() for one in ids if product.accepted(one)["install"]}
    assert all(row["outcome"] in ("canceled", "skipped", "unknown") for one, row in rows.items() if one not in begun)
