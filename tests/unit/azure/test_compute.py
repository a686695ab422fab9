"""What becomes of a POST, read from its answer alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from patchwave.azure.compute import _read_submission
from patchwave.domain.azure.errors import ErrorClass, classify
from patchwave.domain.azure.operation import PollState
from tests.support.azure_bodies import ASYNC_URL, IN_PROGRESS, LOCATION_URL, OPERATION, ended, failed, refusal


@dataclass
class Answer:
    """A response as azure-core hands it over."""

    status_code: int
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: str = ""
    reason: str = ""

    def text(self) -> str:
        return self.body

    def json(self) -> Any:
        return json.loads(self.body)


def read(status: int, body: str = "", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _read_submission(cast("Any", Answer(status, named, body)))


def test_point_1_and_6_a_202_without_body_type_or_reason_is_accepted() -> None:
    submission = read(202, Azure_AsyncOperation=ASYNC_URL, Location=LOCATION_URL)
    assert submission.accepted
    assert submission.failure is None


def test_point_4_both_urls_are_kept_byte_for_byte() -> None:
    submission = read(202, Azure_AsyncOperation=ASYNC_URL, Location=LOCATION_URL)
    assert (submission.async_url, submission.location_url) == (ASYNC_URL, LOCATION_URL)
    assert ASYNC_URL != LOCATION_URL


@pytest.mark.parametrize("present", [{"Azure_AsyncOperation": ASYNC_URL}, {"Location": LOCATION_URL}, {}])
def test_point_2_either_url_may_be_missing(present: dict[str, str]) -> None:
    submission = read(202, **present)
    assert submission.accepted
    assert submission.async_url == present.get("Azure_AsyncOperation", "")
    assert submission.location_url == present.get("Location", "")


@pytest.mark.parametrize(
    ("remaining", "status", "expected"),
    [
        ("Microsoft.Compute/InstallPatchesVMResource;0,Microsoft.Compute/HighCostSubscription;90", 429, True),
        ("Microsoft.Compute/InstallPatchesVMResource;3,Microsoft.Compute/HighCostSubscription;0", 429, False),
        ("Microsoft.Compute/InstallPatchesVMResource;0", 409, False),
        ("", 429, False),
    ],
)
def test_a_refusal_says_whether_the_limit_is_of_one_machine(remaining: str, status: int, expected: bool) -> None:
    submission = read(status, x_ms_ratelimit_remaining_resource=remaining)
    assert submission.throttles_one_machine is expected


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_point_32_an_outage_may_have_accepted_all_the_same(status: int) -> None:
    submission = read(status, "<html>Service Unavailable</html>", Retry_After="10")
    assert not submission.accepted
    assert submission.is_uncertain
    assert submission.is_open
    assert submission.failure is not None
    assert submission.failure.retry_after == 10


def test_a_409_that_names_the_machines_state_is_certain() -> None:
    submission = read(409, refusal("OperationNotAllowed", "The operation requires the VM to be running."))
    assert not submission.is_open


RESULT = {"status": "Succeeded", "installationActivityId": OPERATION, "installedPatchCount": 2, "patches": []}


@pytest.mark.parametrize("word", ["Succeeded", "succeeded", "CompletedWithWarnings", "Failed"])
def test_a_200_with_the_result_in_its_body_is_a_result(word: str) -> None:
    submission = read(200, json.dumps(RESULT | {"status": word}))
    assert submission.accepted
    assert submission.reading is not None
    assert submission.reading.state is PollState.SUCCEEDED
    assert submission.reading.result == RESULT | {"status": word}


def test_a_200_with_the_operation_in_its_body_is_read_as_one() -> None:
    assert read(200, ended(RESULT)).reading.result == RESULT
    broken = read(200, failed("VMExtensionProvisioningError", "x"))
    assert broken.accepted
    assert broken.reading.state is PollState.FAILED
    assert broken.reading.failure.code == "VMExtensionProvisioningError"


@pytest.mark.parametrize(
    "body",
    ["", "null", "<html></html>", "[]", IN_PROGRESS, '{"status":"InProgress"}', '{"status":"Unknown"}', '{"a":1}'],
)
def test_a_200_without_an_end_is_an_acceptance_to_follow(body: str) -> None:
    submission = read(200, body, Azure_AsyncOperation=ASYNC_URL)
    assert submission.accepted
    assert submission.reading is None
    assert submission.async_url == ASYNC_URL


@pytest.mark.parametrize("status", [201, 202])
def test_only_a_200_has_a_result(status: int) -> None:
    assert read(status, json.dumps(RESULT)).reading is None


@pytest.mark.parametrize(
    ("status", "is_open"),
    [(400, False), (401, False), (403, False), (404, False), (409, True), (412, True), (429, True)],
)
def test_a_refusal_is_certain_unless_it_may_follow_an_acceptance(status: int, is_open: bool) -> None:
    submission = read(status, refusal("SomeCode", "Words."), Retry_After="10")
    assert not submission.accepted
    assert not submission.is_uncertain
    assert submission.is_open is is_open
    assert submission.failure is not None
    assert (submission.failure.status, submission.failure.code) == (status, "SomeCode")


def test_point_30_a_409_with_retry_after_is_left_to_us() -> None:
    failure = read(409, refusal("Conflict", "Another operation."), Retry_After="30").failure
    assert failure is not None
    assert (classify(failure).kind, failure.retry_after) == (ErrorClass.BUSY, 30)
