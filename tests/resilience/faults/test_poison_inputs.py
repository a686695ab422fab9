"""F24: inputs made to break something: refused at the door with a reason, or the trouble of one machine alone."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import httpx
import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus

from local.functions_host.durable.workbench import Workbench
from tests.resilience.faults.invariants import hold_invariants
from tests.support.phase_children import Floor, keys, phase
from tests.support.product import Product, machine_id
from tests.support.scripted_fleet import Fleet

type Json = dict[str, Any]


# --- how many


def test_f24_no_machines_at_all_end_as_empty(product: Product) -> None:
    scope = {"tags": {"values": {"env": ["nowhere"]}}}
    reply = product.api.post("/api/runs", json={"policy": {"scope": scope}})
    run_id = reply.json()["id"]
    assert hold_invariants(product, run_id, []) == {}
    run = product.run(run_id)
    assert (run["state"], run["machines"]) == ("empty", 0)
    assert "env=nowhere" in run["reason"]


def test_f24_ten_thousand_and_one_ids_are_refused_with_the_reason(product: Product) -> None:
    ids = [machine_id(0).replace("vm-000", f"vm-{number:05d}") for number in range(10_001)]
    reply = product.api.post("/api/runs", json={"policy": {"scope": {"machineIds": ids}}})
    assert reply.status_code in (400, 413), reply.text[:500]
    assert reply.headers["content-type"].startswith("application/problem+json")
    assert reply.json()["detail"]


def test_f24_a_phase_has_more_machines_than_a_history_may_have_events() -> None:
    floor = Floor(Fleet(keys(120), cap=40))
    with floor.bench() as bench:
        bench.engine._history_limit = 100
        ended = bench.run("patch_phase", phase(floor.fleet), timeout=100)
    assert ended.status is OrchestrationStatus.COMPLETED
    assert sorted(floor.started) == keys(120)


# --- what they are called


def test_f24_ids_that_differ_by_case_are_one_machine(product: Product) -> None:
    (one,) = product.take()
    spellings = [one, one.lower(), one.upper().replace("/SUBSCRIPTIONS", "/subscriptions")]
    rows = hold_invariants(product, product.start(spellings), spellings)
    assert [row["outcome"] for row in rows.values()] == ["patched"]
    assert product.accepted(one)["install"] == 1


@pytest.mark.parametrize(
    "evil",
    [
        "/../../x",
        "'",
        '"',
        "\n",
        "\x00",
        "' or 1==1 //",
        " | project tags",
        "=cmd|' /C calc'!A0",
        "<script>",
        "%2e%2e",
        "\u202e",
        "x" * 100,
    ],
)
def test_f24_an_id_that_is_none_is_refused_at_the_door(product: Product, evil: str) -> None:
    reply = product.api.post("/api/runs", json={"policy": {"scope": {"machineIds": [machine_id(0) + evil]}}})
    assert reply.status_code == 400, reply.text
    assert any("machineIds" in error["path"] for error in reply.json()["errors"])


def test_f24_kql_in_a_selector_is_a_text_and_selects_nothing(product: Product) -> None:
    values = ["' or 1==1 //", "x' | union Resources | where '' == '", "\\'); drop table", "=cmd()"]
    scope = {"tags": {"values": {"env": values}}}
    reply = product.api.post("/api/runs", json={"policy": {"scope": scope}})
    assert reply.status_code == 202, reply.text
    assert hold_invariants(product, reply.json()["id"], []) == {}
    assert product.run(reply.json()["id"])["state"] == "empty"


# --- what machines bring with them


def test_f24_tags_of_a_megabyte_and_hostile_texts_disturb_no_machine(product: Product) -> None:
    """Nothing of it is executed, escaped twice, or lost: the machine beside it is patched as well."""
    evil = "=cmd|' /C calc'!A0 <script>alert(1)</script> {{ 7*7 }} ' | take 1"
    heavy, rude, fine = (
        product.take(1) + product.take(1, operationFails={"message": evil, "kind": "install"}) + (product.take(1))
    )
    for one, tags in ((heavy, {"notes": "x" * 1_000_000}), (rude, {"formula": evil})):
        reply = product.azure.patch(f"{one}?api-version=2025-04-01", json={"tags": tags}, headers=token(product))
        assert reply.status_code == 200, reply.text[:500]
    rows = hold_invariants(product, product.start([heavy, rude, fine]), [heavy, rude, fine])
    assert rows[heavy.lower()]["outcome"] == "patched"
    assert len(json.dumps(rows[heavy.lower()])) < 64_000
    assert rows[rude.lower()]["outcome"] == "failed"
    assert evil in rows[rude.lower()]["message"]
    assert rows[fine.lower()]["outcome"] == "patched"


def token(product: Product) -> dict[str, str]:
    environment = product.stack.simulator["environment"]
    reply = httpx.get(
        environment["IDENTITY_ENDPOINT"],
        params={"resource": product.stack.arm, "api-version": "2019-08-01"},
        headers={"X-IDENTITY-HEADER": environment["IDENTITY_HEADER"]},
    )
    return {"Authorization": f"Bearer {reply.json()['access_token']}"}


# --- exceptions without a text


@pytest.mark.parametrize("error", [TimeoutError(), ValueError(""), AssertionError()])
def test_f24_an_exception_without_a_text_is_a_failure_all_the_same(error: Exception) -> None:
    def breaks(_: object) -> object:
        raise error

    def careful(context: task.OrchestrationContext, _: object) -> Generator[task.Task[Any], Any, str]:
        try:
            yield context.call_activity("breaks")
        except task.TaskFailedError:
            return "it failed"
        return "it worked"

    with Workbench({"careful": careful}, {"breaks": breaks}) as bench:
        assert bench.run("careful").output == "it failed"
