"""F9 to F11: polls that find nothing, say nothing, or never see an end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from activities.poll_operation import MAX_UNCLEAR_POLLS
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.runs.intent import IntentState
from patchwave.domain.scheduling.window import REBOOT_RESERVE
from patchwave.domain.workflow.operation import OperationState
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.resilience.faults.activities import accepted_installation, fault, outcome_of, poll_to_the_end
from tests.resilience.faults.invariants import ends_patched_once, hold_invariants, locks_of, storage_of
from tests.support.product import Product, wait_until
from tests.support.simulated_run import RUN_ID
from tests.support.simulator import Simulator

# --- F9: the record of the operation is gone


def test_f09_a_lost_operation_record_is_made_good_by_the_machines_own_status(product: Product) -> None:
    (one,) = product.take(installMinutes=10)
    product.fault(one, "install", loseOperation=True)
    row = ends_patched_once(product, one, product.start([one]))
    assert row["installation"]["installed"] == 3
    assert product.requests(one, "poll")[-1]["status"] == 404


@pytest.mark.chaos
def test_f09_forbidden_polls_are_made_good_in_the_same_way(product: Product) -> None:
    (one,) = product.take(forbiddenPolls=True)
    ends_patched_once(product, one, product.start([one]))


@pytest.mark.chaos
def test_f09_a_failed_installation_stays_failed_without_its_record(product: Product) -> None:
    (one,) = product.take(installMinutes=5, installFails=2)
    product.fault(one, "install", loseOperation=True)
    row = hold_invariants(product, product.start([one]), [one])[one.lower()]
    assert (row["outcome"], row["reason"]) == ("failed", "patches_failed")


async def test_f09_without_any_word_of_it_the_end_is_unknown_and_never_success(
    services: Services, storage: Storage, azure: Simulator
) -> None:
    one = azure.take()
    fault(azure, one, "install", times=1, loseOperation=True)
    key = await accepted_installation(services, storage, one)
    view = {"id": one, "name": "vm", "location": "westeurope", "properties": {"instanceView": {"statuses": []}}}
    fault(azure, one, "read", status=200, body=view)
    report, polls = await poll_to_the_end(services, key)
    assert report.state is OperationState.LOST
    assert polls >= MAX_UNCLEAR_POLLS, "those that were throttled do not count"
    outcome = outcome_of(report)
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.UNKNOWN, Reason.OPERATION_LOST)


# --- F10: answers that say nothing


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"status": 200, "body": "<html>proxy</html>", "contentType": "text/html"}, id="html"),
        pytest.param({"status": 200, "body": ""}, id="empty", marks=pytest.mark.chaos),
        pytest.param({"status": 200, "body": '{"status":"Succ'}, id="truncated", marks=pytest.mark.chaos),
        pytest.param({"status": 502, "body": "Bad gateway"}, id="502", marks=pytest.mark.chaos),
        pytest.param(
            {"status": 429, "body": {"code": "TooManyRequests"}, "headers": {"Retry-After": "1"}},
            id="429",
            marks=pytest.mark.chaos,
        ),
        pytest.param({"operationStatus": "Reticulating"}, id="unknown-word"),
        pytest.param({"drop": "before"}, id="dropped", marks=pytest.mark.chaos),
    ],
)
def test_f10_polls_that_say_nothing_useful_are_repeated(product: Product, answer: dict[str, object]) -> None:
    (one,) = product.take(installMinutes=5)
    product.fault(one, "poll", times=4, after=2, **answer)
    ends_patched_once(product, one, product.start([one]))


async def test_f10_polls_that_never_say_anything_end_as_unknown_with_the_text_cut_and_without_marks(
    services: Services, storage: Storage, azure: Simulator
) -> None:
    one = azure.take()
    key = await accepted_installation(services, storage, one)
    page = "<script>alert(1)</script>" + "<p>no answer</p>" * 100_000
    fault(azure, one, "poll", status=200, body=page, contentType="text/html")
    report, polls = await poll_to_the_end(services, key)
    assert report.state is OperationState.LOST
    assert polls >= MAX_UNCLEAR_POLLS, "those that were throttled do not count"
    outcome = outcome_of(report)
    assert outcome.outcome is OutcomeKind.UNKNOWN
    assert "no answer" in outcome.message
    assert len(outcome.message) <= 4_000
    assert "[cut" in outcome.message
    assert "<" not in outcome.message


# --- F11: the operation never ends


async def test_f11_the_deadline_is_the_time_given_and_the_reserve_for_a_reboot(
    services: Services, storage: Storage, azure: Simulator
) -> None:
    key = await accepted_installation(services, storage, azure.take(neverEnds="install"))
    intent = await storage.intents.get(RUN_ID, key, OperationKind.INSTALL)
    assert intent
    assert timedelta(minutes=15 + 40) == REBOOT_RESERVE
    given = intent.deadline_at - intent.sent_at - REBOOT_RESERVE
    # What the policy gives at most, without a window.
    assert abs(given - timedelta(hours=4)) < timedelta(hours=3)


async def test_f11_an_operation_that_never_ends_times_out_keeps_its_lock_and_delays_no_other(product: Product) -> None:
    stuck, *others = product.take(1, neverEnds="install") + product.take(2)
    run_id = product.start([stuck, *others], maxConcurrent=1)
    wait_until(lambda: product.accepted(stuck).get("install") == 1)
    key = product.machines(run_id)[stuck.lower()]["key"]
    async with storage_of(product) as storage:
        # Hours pass: the deadline is moved to here instead.
        for _ in range(50):
            intent = await storage.intents.get(run_id, key, OperationKind.INSTALL)
            assert intent
            if intent.state is IntentState.ACCEPTED:
                await storage.intents.save(intent.model_copy(update={"deadline_at": intent.sent_at}))
                break
        rows = hold_invariants(product, run_id, [stuck, *others])
        assert (rows[stuck.lower()]["outcome"], rows[stuck.lower()]["reason"]) == ("timed_out", "deadline")
        assert {rows[one.lower()]["outcome"] for one in others} == {"patched"}, "the wave goes on"
        assert key in locks_of(product, run_id), "something may still run in the guest"
