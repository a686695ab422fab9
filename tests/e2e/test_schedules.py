"""The calendar of a running service: what people order over the API is what happens to machines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from local.functions_host.http.sign_in import NAME
from tests.support.product import Json, Product

WHY = {"reason": "tested", "actor": "ann"}
DATES = {
    "recurrence": "2099-01-05, 2099-02-05",
    "time": "20:00",
    "timeZone": "W. Europe Standard Time",
    "window": "PT4H",
}


def order(product: Product, method: str, path: str, status: int, **request: Any) -> Json:
    reply = product.api.request(method, f"/api/{path}", **request)
    assert reply.status_code == status, reply.text
    return reply.json() if reply.content else {}


def upcoming(product: Product, name: str) -> list[tuple[str, str]]:
    calendar = order(product, "GET", f"policies/{name}/occurrences", 200, params={"count": 5})
    return [(each["at"][:16], each["decision"]) for each in calendar["occurrences"]]


def freeze(product: Product, name: str, policy: str, **more: Any) -> None:
    now = datetime.now(UTC)
    bounds = {"from": (now - timedelta(days=1)).isoformat(), "to": (now + timedelta(days=1)).isoformat()}
    document = bounds | {"reason": "closing", "policies": [policy]} | more
    order(product, "PUT", f"freezes/{name}", 201, json=document, params={"actor": "ann"})


def test_overrides_are_shown_among_the_upcoming_windows(product: Product) -> None:
    name = "calendar-orders"
    policy = {"scope": {"machineIds": product.take()}, "schedule": DATES}
    order(product, "PUT", f"policies/{name}", 201, json=policy)
    january, february = "2099-01-05T19:00", "2099-02-05T19:00"
    assert upcoming(product, name) == [(january, "run"), (february, "run")]
    order(product, "POST", f"policies/{name}/skip-next", 200, json=WHY)
    assert upcoming(product, name) == [(january, "skipped"), (february, "run")]
    order(product, "POST", f"policies/{name}/pause", 200, json=WHY)
    assert upcoming(product, name) == [(january, "paused"), (february, "paused")]
    order(product, "POST", f"policies/{name}/resume", 200, json=WHY)
    order(product, "DELETE", f"policies/{name}/skip-next", 200, params=WHY)
    assert upcoming(product, name) == [(january, "run"), (february, "run")]
    lines = order(product, "GET", f"policies/{name}/audit", 200)["audit"]
    assert [line["action"] for line in lines] == [
        "policy_written",
        "occurrence_skipped",
        "policy_paused",
        "policy_resumed",
        "occurrence_skip_removed",
    ]
    assert {line["actor"] for line in lines[1:]} == {NAME}


def test_frozen_machines_are_left_alone_and_the_rest_is_patched(product: Product) -> None:
    name = "calendar-freeze"
    frozen, free = product.take(2)
    policy = {"scope": {"machineIds": [frozen, free]}, "schedule": DATES}
    order(product, "PUT", f"policies/{name}", 201, json=policy)
    number = str(int(frozen[-3:]))
    freeze(product, "some", name, tags={"values": {"Number": [number]}})
    run = order(product, "POST", f"policies/{name}/run-now", 202, json=WHY)
    product.wait(run["id"])
    machines = product.machines(run["id"])
    assert (machines[free.lower()]["outcome"], machines[free.lower()]["reason"]) == ("patched", "ok")
    held = machines[frozen.lower()]
    assert (held["outcome"], held["reason"]) == ("skipped", "frozen")
    assert held["message"].endswith("by some: closing")
    assert product.accepted(frozen).get("install", 0) == 0
    # The window of run-now is as long as the schedule's.
    opened, closes = (datetime.fromisoformat(run[key]) for key in ("occurrence", "windowEnd"))
    assert closes - opened == timedelta(hours=4)


def test_nothing_of_a_frozen_policy_is_run_now(product: Product) -> None:
    name = "calendar-frozen"
    [one] = product.take()
    order(product, "PUT", f"policies/{name}", 201, json={"scope": {"machineIds": [one]}})
    freeze(product, "all", name)
    refused = order(product, "POST", f"policies/{name}/run-now", 409, json=WHY)
    assert refused["detail"].endswith("by all: closing")
    order(product, "DELETE", "freezes/all", 204, params=WHY)
    run = order(product, "POST", f"policies/{name}/run-now", 202, json=WHY)
    assert product.wait(run["id"])["countsByOutcome"] == {"patched": 1}
