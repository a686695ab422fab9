"""The calendar of a running service: what people order over the API is what happens to machines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from local.functions_host.http.sign_in import NAME
from tests.support.product import Json, Product, wait_until

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


def test_a_machine_that_was_off_is_caught_up_in_its_window(product: Product) -> None:
    """The scheduled run finds it deallocated; the tick after its start takes it, in a run of its own."""
    name = "calendar-catch-up"
    (on,) = product.take()
    (off,) = product.take(power="deallocated")
    began = (datetime.now(UTC) - timedelta(minutes=2)).replace(second=0, microsecond=0)
    schedule = {"recurrence": "RRULE:FREQ=DAILY", "time": f"{began:%H:%M}", "timeZone": "UTC", "window": "PT4H"}
    order(product, "PUT", f"policies/{name}", 201, json={"scope": {"machineIds": [on, off]}, "schedule": schedule})
    tick(product)
    run_id = f"{began:%Y%m%dT%H%M%SZ}-{name}"
    wait_until(lambda: product.api.get(f"/api/runs/{run_id}").status_code == 200)
    assert product.wait(run_id)["countsByOutcome"] == {"patched": 1, "skipped": 1}
    skipped = product.machines(run_id)[off.lower()]
    assert (skipped["reason"], skipped["occurrence"][:16]) == ("not_running", f"{began:%Y-%m-%dT%H:%M}")
    tick(product)
    product.simulate(off, power="running")

    def caught_up() -> Json | None:
        tick(product)
        runs = product.api.get("/api/runs").json()["runs"]
        return next((run for run in runs if run["trigger"]["retryOf"] == run_id), None)

    run = product.wait(wait_until(caught_up, pause=0.5)["id"])
    assert run["windowEnd"] == product.run(run_id)["windowEnd"]
    assert run["countsByOutcome"] == {"patched": 1}
    machine = product.machines(run["id"])[off.lower()]
    assert machine["message"].endswith("Earlier in this window it was not running; now it runs.")
    assert (product.accepted(off)["install"], product.accepted(on)["install"]) == (1, 1)
    tick(product)
    order(product, "DELETE", f"policies/{name}", 204, params=WHY)
    assert {each["id"] for each in runs_of(product, name)} == {run["id"], run_id}


def tick(product: Product) -> None:
    """Let the timer of the schedules run once."""
    assert product.api.post("/admin/functions/start_scheduled_runs", json={"input": ""}).status_code == 202


def runs_of(product: Product, policy: str) -> list[Json]:
    return [run for run in product.api.get("/api/runs").json()["runs"] if run["policy"] == policy]
