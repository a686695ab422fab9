"""Whatever single thing goes wrong, a machine gets one installation, and its result is not lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from tests.product import Product, wait_until


def _ends_patched_once(product: Product, one: str, run_id: str) -> None:
    run = product.wait(run_id)
    row = product.machines(run_id)[one.lower()]
    assert run["state"] == "completed"
    assert (row["outcome"], row["reason"]) == ("patched", "ok"), row["message"]
    assert product.accepted(one)["install"] == 1


# --- the worker dies (SIGKILL)


def test_worker_killed_before_the_post_is_accepted(product: Product) -> None:
    (one,) = product.take()
    rule = product.fault(one, "install", drop="before", delaySeconds=2)
    run_id = product.start([one])
    product.wait_for_hit(rule)
    product.stack.kill_worker()
    _ends_patched_once(product, one, run_id)


def test_worker_killed_after_the_post_was_accepted(product: Product) -> None:
    (one,) = product.take(installMinutes=20)
    product.fault(one, "install", delaySeconds=20)
    run_id = product.start([one])
    wait_until(lambda: product.accepted(one).get("install") == 1)
    product.stack.kill_worker()
    _ends_patched_once(product, one, run_id)
    # The books hold no request whose caller went away before the answer; a second one would be there.
    assert len(product.requests(one, "install")) == 0, "the running operation is adopted, not posted again"
    row = product.machines(run_id)[one.lower()]
    assert row["installation"]["adopted"] is True
    assert row["installation"]["installed"] >= 1


def test_worker_killed_during_a_poll(product: Product) -> None:
    (one,) = product.take(installMinutes=30)
    run_id = product.start([one])
    wait_until(lambda: product.accepted(one).get("install") == 1)
    product.wait_for_hit(product.fault(one, "poll", delaySeconds=2))
    product.stack.kill_worker()
    _ends_patched_once(product, one, run_id)


def test_worker_killed_before_the_record(product: Product) -> None:
    (one,) = product.take(installMinutes=30)
    run_id = product.start([one])
    wait_until(lambda: product.machines(run_id).get(one.lower(), {}).get("stage") == "installing")
    # The next read of the machine is the verification, behind which only the record stands.
    product.wait_for_hit(product.fault(one, "read", delaySeconds=2))
    product.stack.kill_worker()
    _ends_patched_once(product, one, run_id)


# --- the answer to the POST is lost or misleading


def test_answer_lost_but_accepted(product: Product) -> None:
    (one,) = product.take(installMinutes=20)
    product.fault(one, "install", drop="after")
    _ends_patched_once(product, one, product.start([one]))
    assert len(product.requests(one, "install")) == 1


def test_answer_lost_and_not_accepted(product: Product) -> None:
    (one,) = product.take()
    product.fault(one, "install", drop="before")
    _ends_patched_once(product, one, product.start([one]))
    assert len(product.requests(one, "install")) == 2


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("status", [500, 503])
def test_server_error_with_or_without_acceptance(product: Product, status: int, accepted: bool) -> None:
    (one,) = product.take(installMinutes=20)
    product.fault(one, "install", status=status, accept=accepted, body={"error": {"code": "ServerBusy"}})
    _ends_patched_once(product, one, product.start([one]))
    assert len(product.requests(one, "install")) == (1 if accepted else 2)


def test_accepted_operation_that_ended_before_anybody_asked(product: Product) -> None:
    (one,) = product.take(installMinutes=1)
    product.fault(one, "install", drop="after", delaySeconds=1)
    _ends_patched_once(product, one, product.start([one]))
    assert len(product.requests(one, "install")) == 1


def test_throttled_posts_wait_as_long_as_azure_asks(product: Product) -> None:
    (one,) = product.take()
    refusal = {"code": "OperationNotAllowed", "details": [{"code": "TooManyRequests", "target": "HighCostGet"}]}
    product.fault(one, "install", times=2, status=429, headers={"Retry-After": "1"}, body=refusal)
    _ends_patched_once(product, one, product.start([one]))
    times = [datetime.fromisoformat(request["at"]) for request in product.requests(one, "install")]
    assert len(times) == 3
    assert all(later - earlier >= timedelta(seconds=1) for earlier, later in pairwise(times)), times


@pytest.mark.parametrize("retry_after", ["abc", "-1", None])
def test_senseless_retry_after_does_no_harm(product: Product, retry_after: str | None) -> None:
    (one,) = product.take()
    product.fault(one, "install", status=429, headers={"Retry-After": retry_after}, body={"code": "TooManyRequests"})
    _ends_patched_once(product, one, product.start([one]))


def test_busy_for_a_while(product: Product) -> None:
    (one,) = product.take()
    busy = {"error": {"code": "Conflict", "message": "The request failed due to conflict with a concurrent request."}}
    product.fault(one, "install", times=2, status=409, body=busy)
    _ends_patched_once(product, one, product.start([one]))


# --- polls


def test_operation_record_lost(product: Product) -> None:
    (one,) = product.take(installMinutes=10)
    product.fault(one, "install", loseOperation=True)
    _ends_patched_once(product, one, product.start([one]))


def test_polls_forbidden(product: Product) -> None:
    (one,) = product.take(forbiddenPolls=True)
    _ends_patched_once(product, one, product.start([one]))


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 200, "body": "<html>proxy</html>", "contentType": "text/html"},
        {"status": 200, "body": ""},
        {"status": 200, "body": '{"status":"Succ'},
        {"status": 502, "body": "Bad gateway"},
        {"status": 401, "body": {"error": {"code": "ExpiredAuthenticationToken"}}},
        {"status": 429, "body": {"code": "TooManyRequests"}, "headers": {"Retry-After": "1"}},
        {"operationStatus": "Reticulating"},
        {"drop": "before"},
    ],
    ids=["html", "empty", "truncated", "502", "401", "429", "unknown-word", "dropped"],
)
def test_polls_that_say_nothing_useful(product: Product, answer: dict[str, object]) -> None:
    (one,) = product.take(installMinutes=5)
    product.fault(one, "poll", times=4, after=2, **answer)
    _ends_patched_once(product, one, product.start([one]))


# --- two runs, one machine


def test_two_runs_never_install_on_one_machine_at_a_time(product: Product) -> None:
    (one,) = product.take(installMinutes=110)
    first = product.start([one])
    wait_until(lambda: product.accepted(one).get("install") == 1)
    second = product.start([one])
    product.wait(second)
    row = product.machines(second)[one.lower()]
    assert (row["outcome"], row["reason"]) == ("skipped", "locked_by_run")
    assert first in row["message"]
    _ends_patched_once(product, one, first)


def test_a_stop_starts_nothing_more(product: Product) -> None:
    ids = product.take(8, installMinutes=600)
    run_id = product.start(ids, maxConcurrent=3)
    wait_until(lambda: sum(product.accepted(one).get("install", 0) for one in ids) == 3)
    assert product.api.post(f"/api/runs/{run_id}/cancel").status_code in (200, 202)
    asked = datetime.now(UTC)
    run = product.wait(run_id)
    assert run["state"] == "canceled"
    assert run["countsByOutcome"] == {"canceled": 5, "left_running": 3}
    assert sum(product.accepted(one).get("install", 0) for one in ids) == 3
    posts = [request for one in ids for request in product.requests(one, "install")]
    assert all(datetime.fromisoformat(request["at"]) <= asked for request in posts)


def test_a_failed_attempt_is_not_taken_for_the_next_one(product: Product) -> None:
    failing = {"code": "VMGuestPatchInternalError", "kind": "assess", "times": 1}
    (one,) = product.take(operationFails=failing)
    product.fault(one, "assess", after=1, drop="before")
    _ends_patched_once(product, one, product.start([one]))
    assert product.accepted(one)["assess"] == 2
