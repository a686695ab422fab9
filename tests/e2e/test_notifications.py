"""Notifications of a whole run: beside its work, in its audit log, and without a way to hold it up."""

from __future__ import annotations

from typing import Any

from tests.support.product import Product, wait_until

type Json = dict[str, Any]


def notices(product: Product, run_id: str) -> dict[str, Json]:
    """The lines of the audit log that tell what became of a notice, by event."""
    lines: list[Json] = product.api.get(f"/api/runs/{run_id}/audit", params={"limit": 100}).json()["audit"]
    told = [line for line in lines if line["action"] in ("notified", "notification_failed")]
    assert len({line["detail"]["event"] for line in told}) == len(told), told
    return {line["detail"]["event"]: line for line in told}


def test_a_run_with_unreachable_channels_ends_as_any_other(product: Product) -> None:
    """The channel is on this machine, which is never called: the whole way, up to the socket."""
    run_id = product.start(product.take(2), notifications={"channels": ["hub", "missing"]})
    run = product.wait(run_id)
    assert (run["state"], run["countsByOutcome"]) == ("completed", {"patched": 2})
    wait_until(
        lambda: {"started", "ended"} <= notices(product, run_id).keys(), what=lambda: str(notices(product, run_id))
    )
    for line in notices(product, run_id).values():
        assert (line["action"], line["actor"]) == ("notification_failed", "patchwave")
        assert line["detail"]["sent"] == []
        assert line["detail"]["failed"] == {
            "hub": "The address must not be called: it is this machine itself. Given up after 1 attempt.",
            "missing": "PATCHWAVE_CHANNELS has no such channel.",
        }


def test_an_approval_is_announced_while_the_run_waits_for_it(product: Product) -> None:
    first, *others = product.take(2)
    run_id = product.start(
        [first, *others],
        rings=[{"name": "canary", "machineIds": [first]}, {"name": "broad", "approval": {"within": "PT24H"}}],
        notifications={"channels": ["hub"], "events": ["approval_needed"]},
    )
    wait_until(lambda: notices(product, run_id), what=lambda: str(product.run(run_id)))
    assert product.run(run_id)["state"] == "awaiting_approval"
    reply = product.api.post(f"/api/runs/{run_id}/approve", json={})
    assert reply.status_code == 202, reply.text
    assert product.wait(run_id)["countsByOutcome"] == {"patched": 2}
    # The other events are not what the policy asks for.
    assert set(notices(product, run_id)) == {"approval_needed"}


def test_a_gate_that_closes_is_announced(product: Product) -> None:
    run_id = product.start(
        product.take(3, installFails=2),
        maxConcurrent=1,
        errorBudget={"run": 0, "onExceeded": "end"},
        notifications={"channels": ["hub"]},
    )
    run = product.wait(run_id)
    assert (run["state"], run["countsByOutcome"]) == ("stopped", {"failed": 1, "skipped": 2})
    events = {"started", "gate_closed", "ended"}
    wait_until(lambda: events <= notices(product, run_id).keys(), what=lambda: str(notices(product, run_id)))


def test_a_policy_without_channels_costs_nothing(product: Product) -> None:
    run_id = product.start(product.take(1))
    product.wait(run_id)
    assert notices(product, run_id) == {}
