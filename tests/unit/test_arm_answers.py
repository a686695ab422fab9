"""What becomes of a POST, read from its answer alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from adapters.compute import _read_submission
from domain.arm_error import ErrorClass, classify
from tests.unit.wire_samples import ASYNC_URL, LOCATION_URL, refusal


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


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_point_32_an_outage_may_have_accepted_all_the_same(status: int) -> None:
    submission = read(status, "<html>Service Unavailable</html>", Retry_After="10")
    assert not submission.accepted
    assert submission.is_uncertain
    assert submission.failure is not None
    assert submission.failure.retry_after == 10


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429])
def test_a_refusal_is_certain(status: int) -> None:
    submission = read(status, refusal("SomeCode", "Words."), Retry_After="10")
    assert not submission.accepted
    assert not submission.is_uncertain
    assert submission.failure is not None
    assert (submission.failure.status, submission.failure.code) == (status, "SomeCode")


def test_point_30_a_409_with_retry_after_is_left_to_us() -> None:
    failure = read(409, refusal("Conflict", "Another operation."), Retry_After="30").failure
    assert failure is not None
    assert (classify(failure).kind, failure.retry_after) == (ErrorClass.BUSY, 30)
