"""Control commands to runs in progress: their effect in Azure, and what the run shows."""

from __future__ import annotations

import time
from typing import Any

from local.functions_host.http.sign_in import DEVELOPER, NAME
from tests.support.product import Product, wait_until

type Json = dict[str, Any]

LONG = {"installMinutes": 15}
"""Ten simulated minutes are a second."""


def order(product: Product, run_id: str, what: str, status: int = 202, **body: str) -> Json:
    """Give an order by name; the answer."""
    reply = product.api.post(f"/api/runs/{run_id}/{what}", json={"actor": "ana", **body})
    assert reply.status_code == status, reply.text
    return reply.json()


def installs(product: Product, ids: list[str]) -> int:
    """How many of the machines Azure was asked to patch."""
    wanted = {one.lower() for one in ids}
    return sum(each["machine"].lower() in wanted for each in product.intervals())


def actions(product: Product, run_id: str) -> list[str]:
    return [line["action"] for line in product.api.get(f"/api/runs/{run_id}/audit").json()["audit"]]


def ring_run(product: Product, ids: list[str]) -> str:
    """A run with a canary, that waits for an approval of the others; its id."""
    rings = [{"name": "canary", "machineIds": ids[:1]}, {"name": "broad", "approval": {"within": "PT720H"}}]
    run_id = product.start(ids, rings=rings)
    wait_until(lambda: product.run(run_id)["state"] == "awaiting_approval", what=lambda: str(product.run(run_id)))
    return run_id


def test_a_cancel_stops_all_starts_at_once_while_many_are_in_flight(product: Product) -> None:
    ids = product.take(60, **LONG)
    run_id = product.start(ids, maxConcurrent=12)
    wait_until(lambda: installs(product, ids) >= 12, what=lambda: str(product.run(run_id)))
    order(product, run_id, "cancel", reason="wrong month")
    at_answer = installs(product, ids)
    run = product.wait(run_id)
    assert run["state"] == "canceled"
    # A call that was on its way to Azure at that moment arrives; there are never more of them than may run.
    started = installs(product, ids)
    assert started - at_answer <= 12
    assert started < len(ids)
    assert run["countsByOutcome"]["canceled"] == len(ids) - started
    who = {"actor": NAME, "actorId": DEVELOPER, "proven": True}
    said = {"reason": "wrong month", "at": "", "before": "running", "after": "running"}
    assert run["lastCommands"]["cancel"] | {"at": ""} == who | said


def test_a_paused_run_starts_nothing_until_it_is_resumed(product: Product) -> None:
    ids = product.take(6, **LONG)
    run_id = product.start(ids, maxConcurrent=2)
    wait_until(lambda: installs(product, ids) >= 2, what=lambda: str(product.run(run_id)))
    assert order(product, run_id, "pause", reason="storage is slow")["state"] == "paused"
    wait_until(
        lambda: product.run(run_id)["countsByOutcome"].get("patched") == installs(product, ids),
        what=lambda: str(product.run(run_id)),
    )
    started = installs(product, ids)
    time.sleep(1)
    assert product.run(run_id)["state"] == "paused"
    assert installs(product, ids) == started < len(ids)
    assert order(product, run_id, "resume")["state"] == "running"
    run = product.wait(run_id)
    assert (run["state"], run["countsByOutcome"]) == ("completed", {"patched": 6})
    assert actions(product, run_id) == ["run_started", "planned", "run_paused", "run_resumed", "run_ended"]


def test_a_ring_waits_for_its_approval(product: Product) -> None:
    ids = product.take(3)
    run_id = ring_run(product, ids)
    run = product.run(run_id)
    assert run["waitingFor"] == "broad"
    assert installs(product, ids) == 1
    order(product, run_id, "approve", reason="canary is fine")
    order(product, run_id, "reject", status=409)
    run = product.wait(run_id)
    assert (run["state"], run["countsByOutcome"]) == ("completed", {"patched": 3})
    assert run["decisions"]["broad"]["reason"] == "canary is fine"


def test_a_rejected_ring_ends_the_run(product: Product) -> None:
    ids = product.take(3)
    run_id = ring_run(product, ids)
    order(product, run_id, "reject", ring="broad")
    run = product.wait(run_id)
    assert (run["state"], run["reason"]) == ("stopped", "The ring broad was rejected.")
    assert run["countsByOutcome"] == {"patched": 1, "skipped": 2}
    assert {product.machines(run_id)[one.lower()]["reason"] for one in ids[1:]} == {"not_approved"}
    assert actions(product, run_id) == ["run_started", "planned", "ring_rejected", "run_stopped", "run_ended"]
    order(product, run_id, "pause", status=409)


def test_a_used_up_budget_holds_until_the_run_is_resumed(product: Product) -> None:
    bad, *good = product.take(1, installFails=2) + product.take(2, **LONG)
    rings = [{"name": "canary", "machineIds": [bad]}, {"name": "broad"}]
    run_id = product.start([bad, *good], rings=rings, maxConcurrent=1, errorBudget={"run": 0})
    held = wait_until(
        lambda: (found := product.run(run_id))["state"] == "held" and found, what=lambda: str(product.run(run_id))
    )
    assert held["blockedScopes"] == ["run"]
    assert "1 failed, 0 may" in held["lastCommands"]["hold"]["reason"]
    time.sleep(0.5)
    assert installs(product, good) == 0
    order(product, run_id, "resume", reason="a known bug")
    run = product.wait(run_id)
    assert (run["state"], run["countsByOutcome"]) == ("completed", {"patched": 2, "failed": 1})


def test_a_used_up_budget_may_end_the_run(product: Product) -> None:
    bad, *good = product.take(1, installFails=2) + product.take(2)
    rings = [{"name": "canary", "machineIds": [bad]}, {"name": "broad"}]
    budget = {"run": 0, "onExceeded": "end"}
    run_id = product.start([bad, *good], rings=rings, maxConcurrent=1, errorBudget=budget)
    run = product.wait(run_id)
    assert run["state"] == "stopped"
    assert run["reason"] == "The error budget of the run is used up: 1 failed, 0 may."
    assert run["countsByOutcome"] == {"failed": 1, "skipped": 2}
    assert {product.machines(run_id)[one.lower()]["reason"] for one in good} == {"error_budget"}
    assert installs(product, good) == 0


def test_a_machine_is_skipped_and_then_retried(product: Product) -> None:
    busy, other, last = product.take(1, installMinutes=50) + product.take(2)
    rings = [{"name": "canary", "machineIds": [busy]}, {"name": "broad"}]
    run_id = product.start([busy, other, last], rings=rings)
    wait_until(lambda: installs(product, [busy]) == 1, what=lambda: str(product.run(run_id)))
    rows = product.machines(run_id)
    order(product, run_id, f"machines/{rows[busy.lower()]['key']}/skip", status=409)
    path = f"machines/{rows[last.lower()]['key']}"
    order(product, run_id, f"{path}/retry", status=409)
    assert order(product, run_id, f"{path}/skip", reason="being rebuilt")["skipCommand"]["actor"] == NAME
    run = product.wait(run_id)
    assert run["countsByOutcome"] == {"patched": 2, "skipped": 1}
    row = product.machines(run_id)[last.lower()]
    assert (row["reason"], row["message"]) == ("skipped_by_person", "Skipped by developer@localhost: being rebuilt")
    assert installs(product, [last]) == 0
    first, again = (order(product, run_id, f"{path}/retry")["id"] for _ in range(2))
    assert first == again != run_id
    retried = product.wait(first)
    assert (retried["state"], retried["countsByOutcome"]) == ("completed", {"patched": 1})
    assert installs(product, [last]) == 1
    assert actions(product, run_id)[-1] == "machine_retried"
    assert "machine_retried" in actions(product, first)


def test_the_plan_of_a_run_can_be_read(product: Product) -> None:
    ids = product.take(2)
    run_id = product.start(ids)
    product.wait(run_id)
    plan = product.api.get(f"/api/runs/{run_id}/plan").json()
    assert sorted(machine["id"].lower() for machine in plan["machines"]) == sorted(one.lower() for one in ids)
    assess = product.start(ids, mode="assess")
    product.wait(assess)
    assert product.api.get(f"/api/runs/{assess}/plan").status_code == 404
