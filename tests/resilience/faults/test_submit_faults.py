"""F1 to F5: the worker dies around the POST, its answer is lost or misleading, the machine is busy.

Whatever happens, a machine gets one installation, and its result is not lost.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.resilience.faults.invariants import ends_patched_once, hold_invariants
from tests.support.product import Product, wait_until

BUSY = {"error": {"code": "Conflict", "message": "The request failed due to conflict with a concurrent request."}}


# --- F1: the worker is killed before the POST


def test_f01_a_worker_killed_before_the_post_is_accepted_posts_once(product: Product) -> None:
    (one,) = product.take()
    rule = product.fault(one, "install", drop="before", delaySeconds=2)
    run_id = product.start([one])
    product.wait_for_hit(rule)
    product.stack.kill_worker()
    ends_patched_once(product, one, run_id)


# --- F2: the worker is killed after the POST was accepted


def test_f02_a_worker_killed_after_the_post_adopts_the_running_operation(product: Product) -> None:
    (one,) = product.take(installMinutes=20)
    product.fault(one, "install", delaySeconds=20)
    run_id = product.start([one])
    wait_until(lambda: product.accepted(one).get("install") == 1)
    product.stack.kill_worker()
    row = ends_patched_once(product, one, run_id)
    # The log holds no request whose caller went away before the answer; a second one would be there.
    assert len(product.requests(one, "install")) == 0, "the running operation is adopted, not posted again"
    assert row["installation"]["adopted"] is True
    assert row["installation"]["installed"] >= 1


@pytest.mark.chaos
def test_f02_polling_continues_after_a_worker_was_killed(product: Product) -> None:
    (one,) = product.take(installMinutes=30)
    run_id = product.start([one])
    wait_until(lambda: product.accepted(one).get("install") == 1)
    product.wait_for_hit(product.fault(one, "poll", delaySeconds=2))
    product.stack.kill_worker()
    ends_patched_once(product, one, run_id)


def test_f02_a_worker_killed_before_the_record_loses_no_result(product: Product) -> None:
    (one,) = product.take(installMinutes=30)
    run_id = product.start([one])
    wait_until(lambda: product.machines(run_id).get(one.lower(), {}).get("stage") == "installing")
    # The next read of the machine is the verification, behind which only the record stands.
    product.wait_for_hit(product.fault(one, "read", delaySeconds=2))
    product.stack.kill_worker()
    ends_patched_once(product, one, run_id)


# --- F3: the answer to the POST is lost, and Azure has accepted


def test_f03_an_accepted_post_with_a_lost_answer_is_adopted(product: Product) -> None:
    (one,) = product.take(installMinutes=20)
    product.fault(one, "install", drop="after")
    row = ends_patched_once(product, one, product.start([one]))
    assert len(product.requests(one, "install")) == 1
    assert row["installation"]["adopted"] is True


@pytest.mark.chaos
@pytest.mark.parametrize("status", [500, 503])
def test_f03_a_server_error_behind_which_azure_accepted_is_adopted(product: Product, status: int) -> None:
    (one,) = product.take(installMinutes=20)
    product.fault(one, "install", status=status, accept=True, body={"error": {"code": "ServerBusy"}})
    row = ends_patched_once(product, one, product.start([one]))
    assert len(product.requests(one, "install")) == 1
    assert row["installation"]["adopted"] is True


@pytest.mark.chaos
def test_f03_an_operation_that_ended_before_the_first_poll_is_adopted(product: Product) -> None:
    (one,) = product.take(installMinutes=1)
    product.fault(one, "install", drop="after", delaySeconds=1)
    ends_patched_once(product, one, product.start([one]))
    assert len(product.requests(one, "install")) == 1


# --- F4: the answer is lost, and Azure has not accepted


def test_f04_a_post_that_azure_never_got_is_sent_again_after_a_read(product: Product) -> None:
    (one,) = product.take()
    rule = product.fault(one, "install", drop="before")
    run_id = product.start([one])
    product.wait_for_hit(rule)
    ends_patched_once(product, one, run_id)
    first, second = (request["at"] for request in product.requests(one, "install"))
    between = [read for read in product.requests(one, "read") if first < read["at"] < second]
    assert between, "the machine is asked before anything is sent again"


@pytest.mark.chaos
@pytest.mark.parametrize("status", [500, 503])
def test_f04_a_server_error_without_acceptance_is_sent_again_once(product: Product, status: int) -> None:
    (one,) = product.take()
    product.fault(one, "install", status=status, body={"error": {"code": "ServerBusy"}})
    ends_patched_once(product, one, product.start([one]))
    assert len(product.requests(one, "install")) == 2


# --- F5: 409, the machine is busy


def test_f05_a_conflict_with_our_own_operation_is_adopted(product: Product) -> None:
    """The first answer is lost. The machine does not show the operation in time, so the POST is sent again; the 409 to
    it is the first sign of what was accepted."""
    (one,) = product.take(installMinutes=110)
    product.fault(one, "install", drop="after")
    run_id = product.start([one])
    wait_until(lambda: product.accepted(one).get("install") == 1)
    # Until the second POST the status of the machine says nothing of an installation.
    view = {"id": one, "name": "vm", "location": "westeurope", "properties": {"instanceView": {"statuses": []}}}
    hidden = product.fault(one, "read", times=None, status=200, body=view)
    wait_until(lambda: len(product.requests(one, "install")) == 2, timeout=90)
    product.azure.delete(f"/_sim/faults/{hidden}")
    row = ends_patched_once(product, one, run_id)
    assert product.requests(one, "install")[1]["status"] == 409
    assert row["installation"]["adopted"] is True


ANSWERS = [
    pytest.param({"status": 409, "body": BUSY}, id="409"),
    pytest.param({"status": 429, "headers": {"Retry-After": "3"}}, id="429", marks=pytest.mark.chaos),
    pytest.param({"status": 422, "body": "<html>proxy</html>"}, id="422", marks=pytest.mark.chaos),
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_f05_an_accepted_post_that_was_answered_otherwise_is_adopted(product: Product, answer: dict[str, Any]) -> None:
    (one,) = product.take(installMinutes=5)
    product.fault(one, "install", times=1, accept=True, **answer)
    row = ends_patched_once(product, one, product.start([one]))
    assert len(product.requests(one, "install")) == 1
    assert row["installation"]["adopted"] is True
    assert row["installation"]["installed"] >= 1


def test_f05_a_lock_is_final_at_once_and_named(product: Product) -> None:
    (one,) = product.take()
    scope = one.partition("/providers/")[0]
    message = (
        f"The scope '{one}' cannot perform write operation because following scope(s) are locked: '{scope}'. "
        "Please remove the lock and try again."
    )
    product.fault(one, "assess", status=409, body={"error": {"code": "ScopeLocked", "message": message}})
    row = hold_invariants(product, product.start([one]), [one])[one.lower()]
    assert (row["outcome"], row["reason"]) == ("skipped", "scope_locked")
    assert f"A lock on {scope} keeps the machine from being changed" in row["message"]
    assert len(product.requests(one, "assess")) == 1


def test_f05_a_machine_that_is_busy_for_a_while_waits(product: Product) -> None:
    (one,) = product.take()
    product.fault(one, "install", times=2, status=409, body=BUSY)
    ends_patched_once(product, one, product.start([one]))
    assert len(product.requests(one, "install")) == 3


def test_f05_a_machine_that_stays_busy_is_skipped_after_a_bounded_number_of_posts(product: Product) -> None:
    (one,) = product.take()
    product.fault(one, "install", times=None, status=409, body=BUSY)
    row = hold_invariants(product, product.start([one]), [one])[one.lower()]
    assert (row["outcome"], row["reason"]) == ("skipped", "operation_conflict")
    assert "conflict with a concurrent request" in row["message"]
    assert len(product.requests(one, "install")) <= 6
    assert product.accepted(one)["install"] == 0


@pytest.mark.chaos
def test_f05_a_foreign_installation_is_never_adopted(product: Product) -> None:
    (one,) = product.take()
    run_id = product.start([one], rings=[{"name": "all", "approval": {"within": "PT1H"}}])
    wait_until(lambda: product.run(run_id)["state"] == "awaiting_approval")
    product.simulate(one, busy=True, busyWith="install")
    assert product.api.post(f"/api/runs/{run_id}/approve", json={}).status_code == 202
    row = hold_invariants(product, run_id, [one])[one.lower()]
    assert (row["outcome"], row["reason"]) == ("skipped", "operation_conflict")
    assert product.accepted(one)["install"] == 0
