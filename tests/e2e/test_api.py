"""The API as other systems use it: starting and controlling runs, reading, and refusals of bad input."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.domain.core.webhook_signature import policy_secret
from tests.conftest import HEALTH_KEY, WEBHOOK_SECRET
from tests.e2e.test_maintenance_run import fire, prepare
from tests.support.product import Product, machine_id, wait_until

type Json = dict[str, Any]


def policy_of(ids: list[str], **fields: object) -> Json:
    return {"scope": {"machineIds": ids}, **fields}


# --- starting and reading


def test_start_answers_with_the_place_of_the_run(product: Product) -> None:
    ids = product.take(2)
    reply = product.api.post("/api/runs", json={"policy": policy_of(ids)})
    assert reply.status_code == 202
    run_id = reply.json()["id"]
    assert reply.headers["Location"] == f"/api/runs/{run_id}"
    assert int(reply.headers["Retry-After"]) > 0
    assert "policySnapshot" not in reply.json()
    run = product.wait(run_id)
    assert run["policySnapshot"]["scope"]["machineIds"] == ids
    assert run["trigger"]["kind"] == "http"
    assert run["startedAt"] <= run["endedAt"]
    newest = product.api.get("/api/runs", params={"limit": 1}).json()["runs"][0]
    assert newest["id"] == run_id


def test_every_patch_of_a_machine_is_kept(product: Product) -> None:
    (one,) = product.take()
    run_id = product.start([one])
    product.wait(run_id)
    row = product.machines(run_id)[one.lower()]
    whole = product.api.get(f"/api/runs/{run_id}/machines/{row['key']}").json()
    assert sorted(patch["name"] for patch in whole["patches"]) == ["patch-0", "patch-1", "patch-2"]
    assert {patch["state"] for patch in whole["patches"]} == {"Installed"}
    assert whole["id"].lower() == one.lower()


def test_machines_are_listed_in_pages_and_by_outcome(product: Product) -> None:
    ids = product.take(3) + product.take(2, power="stopped")
    run_id = product.start(ids)
    product.wait(run_id)
    seen: list[str] = []
    cursor = None
    pages = 0
    while True:
        parameters = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = product.api.get(f"/api/runs/{run_id}/machines", params=parameters).json()
        seen += [row["id"].lower() for row in page["machines"]]
        cursor, pages = page["cursor"], pages + 1
        if cursor is None:
            break
    assert pages == 3
    assert sorted(seen) == sorted(one.lower() for one in ids)
    skipped = product.api.get(f"/api/runs/{run_id}/machines", params={"outcome": "skipped"}).json()["machines"]
    assert len(skipped) == 2


def test_a_repeated_idempotency_key_gives_the_first_run(product: Product) -> None:
    body = {"policy": policy_of(product.take(1))}
    headers = {"Idempotency-Key": "order-66"}
    first = product.api.post("/api/runs", json=body, headers=headers)
    second = product.api.post("/api/runs", json=body, headers=headers)
    assert first.status_code == second.status_code == 202
    assert first.json()["id"] == second.json()["id"]
    product.wait(first.json()["id"])
    assert product.api.post("/api/runs", json=body, headers=headers).json()["id"] == first.json()["id"]


def test_never_more_machines_at_a_time_than_the_policy_allows(product: Product) -> None:
    ids = product.take(9, installMinutes=10)
    run_id = product.start(ids, maxConcurrent=2)
    most = 0
    while product.run(run_id)["state"] in ("queued", "running"):
        stages = [row["stage"] for row in product.machines(run_id).values()]
        most = max(most, sum(stage in ("installing", "verifying") for stage in stages))
    product.wait(run_id)
    assert most == 2
    assert all(product.accepted(one)["install"] == 1 for one in ids)


# --- bad input


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"not json", 400, "not JSON"),
        (b"[1]", 400, "must be an object"),
        (b"{}", 400, "policy"),
        (b'{"policy": "no-such-policy"}', 404, "policy"),
        (b'{"policy": "../etc"}', 404, "policy"),
        (b'{"policy": {"scope": {}}}', 400, "selects nothing"),
        (b'{"policy": {"scop": {}}}', 400, "scope"),
        (b'{"policy": {"scope": {"osTypes": ["Linux"]}, "maxConcurrent": 0}}', 400, "maxConcurrent"),
        (b'{"policy": {"scope": {"osTypes": ["Linux"]}}, "mode": "destroy"}', 400, "mode"),
        (b'{"policy": {"scope": {"osTypes": ["Linux"]}}, "whatever": 1}', 400, "whatever"),
        (b"[" * 100_000, 400, "not JSON"),
        (b" " * (256 * 1024 + 1), 413, "256 KB"),
    ],
)
def test_bad_starts_are_refused_with_the_reason(product: Product, body: bytes, status: int, says: str) -> None:
    reply = product.api.post("/api/runs", content=body)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"].startswith("application/problem+json")
    problem = reply.json()
    assert problem["status"] == status
    assert says in json.dumps(problem)


def test_every_error_of_a_policy_is_listed_at_once(product: Product) -> None:
    install = {"linux": {"classificationsToInclude": ["Other", "Critical"]}, "maximumDuration": "PT5M"}
    windows = {"kbNumbersToInclude": ["KB12"], "patchNameMasksToInclude": [" "]}
    policy = policy_of([machine_id(0)], install={**install, "windows": windows}, maxConcurrent=-1)
    problem = product.api.post("/api/runs", json={"policy": policy}).json()
    paths = {error["path"] for error in problem["errors"]}
    assert {"policy.maxConcurrent", "maxConcurrent"} & paths
    assert any("linux" in path for path in paths)
    assert any("kbNumbersToInclude" in path for path in paths)
    assert any("maximumDuration" in path for path in paths)


@pytest.mark.parametrize("evil", ["'", '"', "\n", "../x", "' or 1==1 //", "vm|take 1", "vm%00"])
def test_ids_that_are_no_ids_are_refused_at_the_door(product: Product, evil: str) -> None:
    reply = product.api.post("/api/runs", json={"policy": policy_of([machine_id(0) + evil])})
    assert reply.status_code == 400
    assert any("machineIds" in error["path"] for error in reply.json()["errors"])


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/20200101T000000Z-nothing",
        "/api/runs/nonsense",
        "/api/runs/20200101T000000Z-nothing/machines",
        "/api/runs/20200101T000000Z-nothing/machines/abc",
        "/api/policies/nothing",
    ],
)
def test_what_does_not_exist_is_404(product: Product, path: str) -> None:
    reply = product.api.get(path)
    assert reply.status_code == 404
    assert reply.headers["content-type"].startswith("application/problem+json")


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "x"}, {"limit": "100000"}, {"cursor": "!!"}])
def test_bad_paging_is_400(product: Product, query: dict[str, str]) -> None:
    assert product.api.get("/api/runs", params=query).status_code == 400


def test_two_spellings_of_one_id_are_one_machine_and_unknown_ids_are_listed(product: Product) -> None:
    (one,) = product.take()
    ghost = machine_id(0).replace("vm-000", "ghost")
    run_id = product.start([one, one.upper().replace("/SUBSCRIPTIONS", "/subscriptions"), ghost])
    run = product.wait(run_id)
    assert run["machines"] == 2
    machines = product.machines(run_id)
    assert machines[one.lower()]["outcome"] == "patched"
    assert (machines[ghost.lower()]["outcome"], machines[ghost.lower()]["reason"]) == ("skipped", "not_found")


def test_a_scope_that_matches_nothing_ends_as_empty(product: Product) -> None:
    scope = {"tags": {"values": {"env": ["nowhere"]}}}
    reply = product.api.post("/api/runs", json={"policy": {"scope": scope}})
    run = product.wait(reply.json()["id"])
    assert run["state"] == "empty"
    assert run["machines"] == 0
    assert "env=nowhere" in run["reason"]


def test_unreachable_azure_ends_the_run_with_the_reason(product: Product) -> None:
    ids = product.take(1)
    product.add_rule({"match": {"operation": "graph"}, "effect": {"drop": "before"}})
    run_id = product.start(ids)
    run = product.wait(run_id)
    assert run["state"] == "failed"
    assert "could not be listed" in run["reason"]
    product.clear_faults()
    assert product.patch_one(ids[0])["outcome"] == "patched"


# --- policies, schedule, webhook, events


def put_policy(product: Product, name: str, policy: Json) -> str:
    reply = product.api.put(f"/api/policies/{name}", json=policy)
    assert reply.status_code in (200, 201), reply.text
    return reply.headers["ETag"]


def test_policies_are_kept_under_their_etag(product: Product) -> None:
    policy = policy_of([machine_id(0)])
    first = product.api.put("/api/policies/etags", json=policy, headers={"If-None-Match": "*"})
    assert first.status_code == 201
    again = product.api.put("/api/policies/etags", json=policy, headers={"If-None-Match": "*"})
    assert again.status_code == 412
    etag = first.headers["ETag"]
    changed = product.api.put("/api/policies/etags", json=policy | {"maxConcurrent": 3}, headers={"If-Match": etag})
    assert changed.status_code == 200
    stale = product.api.put("/api/policies/etags", json=policy, headers={"If-Match": etag})
    assert stale.status_code == 412
    read = product.api.get("/api/policies/etags")
    assert read.json()["maxConcurrent"] == 3
    assert read.headers["ETag"] == changed.headers["ETag"]
    assert product.api.delete("/api/policies/etags", headers={"If-Match": etag}).status_code == 412
    assert product.api.delete("/api/policies/etags", headers={"If-Match": read.headers["ETag"]}).status_code == 204
    assert product.api.get("/api/policies/etags").status_code == 404


def test_the_schema_of_policies_is_published(product: Product) -> None:
    schema = product.api.get("/api/policies/schema").json()
    assert schema["$schema"].endswith("2020-12/schema")
    assert "scope" in schema["properties"]


def test_a_stored_policy_runs_with_overrides(product: Product) -> None:
    ids = product.take(2)
    put_policy(product, "stored", policy_of(ids))
    body = {"policy": "stored", "overrides": {"scope": {"machineIds": ids[:1]}}, "mode": "assess"}
    run_id = product.api.post("/api/runs", json=body).json()["id"]
    run = product.wait(run_id)
    assert run["policy"] == "stored"
    assert run["machines"] == 1
    assert run["countsByOutcome"] == {"assessed": 1}


def test_the_timer_starts_each_due_occurrence_once(product: Product) -> None:
    ids = product.take(1)
    began = (datetime.now(UTC) - timedelta(minutes=2)).replace(second=0, microsecond=0)
    schedule = {"recurrence": "RRULE:FREQ=DAILY", "time": f"{began:%H:%M}", "timeZone": "UTC", "window": "PT2H"}
    etag = put_policy(product, "nightly", policy_of(ids, schedule=schedule))
    for _ in range(2):
        reply = product.api.post("/admin/functions/start_scheduled_runs", json={"input": ""})
        assert reply.status_code == 202
    run_id = f"{began:%Y%m%dT%H%M%SZ}-nightly"
    wait_until(lambda: product.api.get(f"/api/runs/{run_id}").status_code == 200)
    run = product.wait(run_id)
    assert run["trigger"]["kind"] == "timer"
    assert datetime.fromisoformat(run["occurrence"]) == began
    assert datetime.fromisoformat(run["windowEnd"]) == began + timedelta(hours=2)
    assert product.accepted(ids[0])["install"] == 1
    product.api.delete("/api/policies/nightly", headers={"If-Match": etag})


def test_an_occurrence_with_too_little_window_left_installs_nothing(product: Product) -> None:
    ids = product.take(1)
    began = (datetime.now(UTC) - timedelta(minutes=10)).replace(second=0, microsecond=0)
    schedule = {"recurrence": "RRULE:FREQ=DAILY", "time": f"{began:%H:%M}", "timeZone": "UTC", "window": "PT30M"}
    put_policy(product, "too-late", policy_of(ids, schedule=schedule, install={"minimumDuration": "PT30M"}))
    product.api.post("/admin/functions/start_scheduled_runs", json={"input": ""})
    run_id = f"{began:%Y%m%dT%H%M%SZ}-too-late"
    wait_until(lambda: product.api.get(f"/api/runs/{run_id}").status_code == 200)
    product.wait(run_id)
    row = product.machines(run_id)[ids[0].lower()]
    assert (row["outcome"], row["reason"]) == ("skipped", "window_closed")
    assert product.accepted(ids[0])["install"] == 0
    product.api.delete("/api/policies/too-late")


def signed(
    policy: str, body: bytes, *, at: float | None = None, delivery: str = "", secret: str = WEBHOOK_SECRET
) -> dict[str, str]:
    """As a sender builds it that knows docs/reference/api.md, and the secret of its policy."""
    stamp = str(int(time.time() if at is None else at))
    text = f"{stamp}\nPOST\n/api/webhooks/{policy}\n{delivery}\n".encode() + body
    digest = hmac.new(policy_secret(secret, policy).encode(), text, hashlib.sha256).hexdigest()
    given = {"X-Patchwave-Delivery": delivery} if delivery else {}
    return {"X-Patchwave-Signature": f"t={stamp},v2={digest}"} | given


def test_a_webhook_starts_a_run_once_per_delivery(product: Product) -> None:
    ids = product.take(1)
    put_policy(product, "hooked", policy_of(ids))
    body = json.dumps({"mode": "assess", "from": "a ticket system"}).encode()
    now = time.time()
    headers = signed("hooked", body, at=now, delivery="delivery-1")
    first = product.api.post("/api/webhooks/hooked", content=body, headers=headers)
    assert first.status_code == 202, first.text
    again = product.api.post("/api/webhooks/hooked", content=body, headers=headers)
    assert again.json()["id"] == first.json()["id"]
    another = product.api.post("/api/webhooks/hooked", content=body, headers=signed("hooked", body, at=now - 1))
    assert another.status_code == 202
    assert another.json()["id"] != first.json()["id"]
    assert product.wait(first.json()["id"])["trigger"]["kind"] == "webhook"


def test_a_webhook_without_a_good_signature_is_refused(product: Product) -> None:
    put_policy(product, "guarded", policy_of([machine_id(0)]))
    body = b"{}"
    for headers in (
        {},
        {"X-Patchwave-Signature": "t=1,v1=zz"},
        signed("guarded", body, secret="another"),
        signed("guarded", body, at=time.time() - 3600),
        signed("guarded", body, at=time.time() + 3600),
        signed("guarded", b'{"mode": "patch"}'),
        signed("hooked", body),
        signed("guarded", body, delivery="d-1") | {"X-Patchwave-Delivery": "d-2"},
    ):
        assert product.api.post("/api/webhooks/guarded", content=body, headers=headers).status_code == 401
    product.api.delete("/api/policies/guarded")


def test_a_signature_is_good_for_one_run(product: Product) -> None:
    put_policy(product, "replayed", policy_of(product.take(1)))
    headers = signed("replayed", b"{}")
    first, again = (product.api.post("/api/webhooks/replayed", content=b"{}", headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == first.json()["id"]
    assert len(runs_of(product, "replayed")) == 1
    product.api.delete("/api/policies/replayed")


def deliver(product: Product, *events: Json) -> None:
    reply = product.api.post(
        "/runtime/webhooks/EventGrid",
        params={"functionName": "maintenance_event"},
        json=list(events),
        headers={"aeg-event-type": "Notification"},
    )
    assert reply.status_code in (200, 202), reply.text


def deliver_until(product: Product, is_there: Callable[[], object], event: Json) -> None:
    """Deliver as Event Grid does, again and again until it is taken: Resource Graph is late."""

    def is_taken() -> bool:
        product.api.post(
            "/runtime/webhooks/EventGrid",
            params={"functionName": "maintenance_event"},
            json=[event],
            headers={"aeg-event-type": "Notification"},
        )
        return bool(is_there())

    wait_until(is_taken)


def runs_of(product: Product, policy: str) -> list[Json]:
    return [run for run in product.api.get("/api/runs").json()["runs"] if run["policy"] == policy]


def test_a_new_machine_is_assessed_once(product: Product) -> None:
    (one,) = product.take()
    put_policy(product, "newcomers", {"scope": {"tags": {"values": {"env": ["test"]}}}, "events": {"newMachine": True}})
    event = {
        "id": "event-1",
        "topic": "/".join(one.split("/")[:3]),
        "subject": one.replace("resourceGroups", "resourcegroups"),
        "eventType": "Microsoft.Resources.ResourceWriteSuccess",
        "eventTime": "2026-11-21T00:00:00Z",
        "dataVersion": "2",
        "metadataVersion": "1",
        "data": {"operationName": "Microsoft.Compute/virtualMachines/write"},
    }
    deliver(product, event, event)
    deliver(product, event | {"id": "event-2"})
    (run,) = wait_until(lambda: runs_of(product, "newcomers"))
    run = product.wait(run["id"])
    assert run["mode"] == "assess"
    assert run["countsByOutcome"] == {"assessed": 1}
    assert list(product.machines(run["id"])) == [one.lower()]
    assert len(runs_of(product, "newcomers")) == 1
    product.api.delete("/api/policies/newcomers")


def test_maintenance_events_of_both_schemas_start_an_assessment_once(product: Product) -> None:
    """The simulator shows the run, and is told to send no events of its own."""
    ids = product.take(1)
    asking: Json = {"scope": {"machineIds": ids}, "maintenance": None, "events": {"beforeMaintenance": True}}
    configuration = prepare(product, "announced", ids, **asking)
    fired = fire(product, configuration, sendPre=False, sendPost=False)
    put_policy(product, "behind", policy_of(ids, events={"afterMaintenance": True}))
    shared = fired["id"]
    before = {
        "id": shared,
        "eventType": "Microsoft.Maintenance.PreMaintenanceEvent",
        "subject": "announced",
        "topic": configuration,
        "eventTime": "2026-11-21T00:00:00Z",
        "dataVersion": "1.0",
        "data": {"CorrelationId": shared, "StartDateTime": fired["startsAt"]},
    }
    after = {
        "Id": shared,
        "Source": configuration.lower(),
        "SpecVersion": "1.0",
        "Type": "Microsoft.Maintenance.PostMaintenanceEvent",
        "Time": "2026-11-21T01:00:00Z",
        "Data": {"correlationId": shared, "startDateTime": fired["startsAt"], "status": "Succeeded"},
    }
    deliver_until(product, lambda: runs_of(product, "announced"), before)
    deliver(product, before, after)
    for policy in ("announced", "behind"):
        (run,) = wait_until(lambda policy=policy: runs_of(product, policy))
        assert product.wait(run["id"])["mode"] == "assess"
        assert len(runs_of(product, policy)) == 1
        product.api.delete(f"/api/policies/{policy}")


def test_event_grid_validation_handshake(product: Product) -> None:
    event = {
        "id": "1",
        "topic": "t",
        "subject": "",
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "eventTime": "2026-11-21T00:00:00Z",
        "dataVersion": "1",
        "data": {"validationCode": "abc-123"},
    }
    reply = product.api.post(
        "/runtime/webhooks/EventGrid",
        params={"functionName": "maintenance_event"},
        json=[event],
        headers={"aeg-event-type": "SubscriptionValidation"},
    )
    assert reply.json() == {"validationResponse": "abc-123"}


# --- health and secrets


def test_health_is_shallow_without_the_key_and_deep_with_it(product: Product) -> None:
    assert product.api.get("/api/health").json() == {"status": "healthy"}
    assert product.api.get("/api/health?deep=1").status_code == 401
    reply = product.api.get("/api/health?deep=1", headers={"X-Health-Key": HEALTH_KEY})
    assert reply.status_code == 200
    parts = ("storage", "identity", "resourceManager", "channels")
    assert reply.json() == {"status": "healthy"} | dict.fromkeys(parts, "ok")


def test_nothing_secret_in_logs_answers_or_rows(product: Product) -> None:
    (one,) = product.take()
    run_id = product.start([one])
    product.wait(run_id)
    row = product.machines(run_id)[one.lower()]
    answers = [
        product.api.get(path).text
        for path in (
            "/api/runs",
            f"/api/runs/{run_id}",
            f"/api/runs/{run_id}/machines",
            f"/api/runs/{run_id}/machines/{row['key']}",
        )
    ]
    host_log = (product.stack.logs / "host.log").read_text(errors="replace")
    assert "patch_machine" in host_log or "functions at" in host_log
    for text in (*answers, host_log):
        assert "/operations/" not in text
        assert "Bearer " not in text
        assert WEBHOOK_SECRET not in text
        assert "AccountKey=" not in text
        assert "durabletask" not in text or text is host_log
