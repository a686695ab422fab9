"""F12 and F13: rights that end in the middle of a run, and machines that go away between discovery and POST."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from orchestrators.operation import MAX_REFUSALS
from tests.resilience.faults.invariants import ends_patched_once, hold_invariants
from tests.support.product import Product, wait_until

type Json = dict[str, Any]

FORBIDDEN = {"error": {"code": "AuthorizationFailed", "message": "The client does not have authorization."}}
EXPIRED = {"error": {"code": "ExpiredAuthenticationToken", "message": "The access token has expired."}}
GONE = {"error": {"code": "ResourceNotFound", "message": "The Resource was not found."}}
STOPPED = {"error": {"code": "OperationNotAllowed", "message": "This operation requires the VM to be running."}}


def waiting_run(product: Product, ids: list[str], **policy: Any) -> str:
    """A run that has found and assessed its machines and installs nothing until it is approved."""
    run_id = product.start(ids, rings=[{"name": "all", "approval": {"within": "PT1H"}}], **policy)
    wait_until(lambda: product.run(run_id)["state"] == "awaiting_approval", what=lambda: str(product.run(run_id)))
    return run_id


def approve(product: Product, run_id: str) -> None:
    reply = product.api.post(f"/api/runs/{run_id}/approve", json={})
    assert reply.status_code == 202, reply.text


# --- F12: 401 and 403


def test_f12_a_role_that_was_taken_away_costs_its_machines_and_no_others(product: Product) -> None:
    closed, open_ = product.take(2), product.take(2)
    run_id = waiting_run(product, [*closed, *open_])
    for one in closed:
        product.simulate(one, forbidden=True)
    approve(product, run_id)
    rows = hold_invariants(product, run_id, [*closed, *open_])
    for one in closed:
        assert (rows[one.lower()]["outcome"], rows[one.lower()]["reason"]) == ("skipped", "forbidden")
        assert "role" in rows[one.lower()]["message"]
        assert len(product.requests(one, "install")) == 0
    assert {rows[one.lower()]["outcome"] for one in open_} == {"patched"}


def test_f12_a_403_to_the_post_is_final_at_once(product: Product) -> None:
    closed, open_ = product.take(2)
    product.fault(closed, "install", times=None, status=403, body=FORBIDDEN)
    rows = hold_invariants(product, product.start([closed, open_]), [closed, open_])
    assert (rows[closed.lower()]["outcome"], rows[closed.lower()]["reason"]) == ("skipped", "forbidden")
    assert len(product.requests(closed, "install")) == 1, "no second try"
    assert rows[open_.lower()]["outcome"] == "patched"


def test_f12_a_401_is_tried_again_with_a_new_token(product: Product) -> None:
    (one,) = product.take()
    needs = base64.b64encode(json.dumps({"access_token": {"nbf": {"essential": True, "value": "1"}}}).encode()).decode()
    challenge = f'Bearer authorization_uri="https://login.invalid/", error="insufficient_claims", claims="{needs}"'
    tokens = product.add_rule({"match": {"operation": "token"}, "effect": {"delaySeconds": 0.01}})
    product.fault(one, "install", status=401, headers={"WWW-Authenticate": challenge}, body=EXPIRED)
    before = asked(product, tokens)
    ends_patched_once(product, one, product.start([one]))
    assert [post["status"] for post in product.requests(one, "install")] == [401, 202]
    assert asked(product, tokens) > before, "the token is asked for anew"


@pytest.mark.chaos
@pytest.mark.parametrize("operation", ["install", "poll", "read"])
def test_f12_a_401_without_a_challenge_is_tried_again(product: Product, operation: str) -> None:
    (one,) = product.take()
    product.fault(one, operation, times=2, status=401, body=EXPIRED)
    ends_patched_once(product, one, product.start([one]))


@pytest.mark.chaos
def test_f12_a_401_for_good_ends_after_a_bounded_number_of_posts(product: Product) -> None:
    refused, other = product.take(2)
    product.fault(refused, "install", times=None, status=401, body=EXPIRED)
    rows = hold_invariants(product, product.start([refused, other]), [refused, other])
    assert (rows[refused.lower()]["outcome"], rows[refused.lower()]["reason"]) == ("failed", "forbidden")
    assert len(product.requests(refused, "install")) <= MAX_REFUSALS
    assert rows[other.lower()]["outcome"] == "patched"


def asked(product: Product, rule: str) -> int:
    """How often a rule has matched."""
    rules: list[Json] = product.azure.get("/_sim/faults").json()["faults"]
    return next(int(each["matched"]) for each in rules if each["id"] == rule)


# --- F13: deleted, deallocated or moved between discovery and POST


def test_f13_machines_that_were_deleted_since_discovery_are_skipped_and_fail_nothing(product: Product) -> None:
    deleted, deallocated, fine = product.take(3)
    ids = [deleted, deallocated, fine]
    # A single failure would end the run.
    run_id = waiting_run(product, ids, errorBudget={"run": 0, "onExceeded": "end"})
    product.simulate(deleted, gone=True)
    product.simulate(deallocated, power="deallocated")
    approve(product, run_id)
    rows = hold_invariants(product, run_id, ids)
    assert product.run(run_id)["state"] == "completed"
    ends = [(rows[one.lower()]["outcome"], rows[one.lower()]["reason"]) for one in ids]
    assert ends == [("skipped", "not_found"), ("skipped", "not_running"), ("patched", "ok")]
    assert not product.requests(deleted, "install")
    assert not product.requests(deallocated, "install")


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [(404, GONE, "not_found"), pytest.param(409, STOPPED, "not_running", marks=pytest.mark.chaos)],
)
def test_f13_a_machine_that_is_deleted_right_before_the_post_gets_one_request(
    product: Product, status: int, body: Json, reason: str
) -> None:
    """Moved to another group or subscription, a machine is no more under its old id: 404 as well."""
    (one,) = product.take()
    product.fault(one, "install", times=None, status=status, body=body)
    run_id = product.start([one], errorBudget={"run": 0, "onExceeded": "end"})
    row = hold_invariants(product, run_id, [one])[one.lower()]
    assert (row["outcome"], row["reason"]) == ("skipped", reason)
    assert product.run(run_id)["state"] == "completed"
    assert len(product.requests(one, "install")) == 1
