"""Notifications of a whole run: beside its work, in its audit log, and without a way to hold it up."""

from __future__ import annotations

from typing import Any

from tests.product import Product, wait_until

type Json = dict[str, Any]


def notices(product: Product, run_id: str) -> dict[str, Json]:
    """The lines of the audit log that tell what became of a notice, by event."""
    lines: list[Json] = product.api.get(f"/api/runs/{run_id}/audit", params={"limit": 100}).json()["audit"]
    told = [line for line in lines if line["action"] in ("notified", "notification_failed")]
    assert len({line["detail"]["event"] for line in told}) == len(told), told
    return {line["detail"]["event"]: line for line in told}


def test_a_run_whose_channels_cannot_be_told_ends_as_any_other(product: Product) -> None:
    """The channel is on this machine, which is never called: the whole way, up to the socket."""
    run_id = product.start(product.take(2), notifications={"channels": ["hub", "missing"]})
    run = product.wait(run_id)
    assert (run["state"], run["countsByOutcome"]) == ("completed", {"patched": 2})
    wait_until(
        lambda: {"started", "ended"} <= notices(product, run_id).keys(), what=lambda: str(notices(product, run_id))
    )
    for line in notices(product, run_id).values():
        assert (line["action"], line["by"]) == ("notification_failed", "patchwave")
        assert line["detail"]["sent"] == []
        assert line["detail"]["failed"] == {
            "hub": "The address must not be called: it is this machine itself. Given up after 1 attempt.",
            "missing": "PATCHWAVE_CHANNELS has no such channel.",
        }


def test_a_policy_without_channels_costs_nothing(product: Product) -> None:
    run_id = product.start(product.take(1))
    product.wait(run_id)
    assert notices(product, run_id) == {}
