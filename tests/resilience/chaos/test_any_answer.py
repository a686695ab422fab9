"""At most one accepted installation, also when an answer lies: any answer or none, at any call, accepted or not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchwave.domain.runs.run import Mode
from tests.resilience.chaos.single import Ended, play

type Json = dict[str, Any]

pytestmark = [pytest.mark.filterwarnings("ignore::ResourceWarning"), pytest.mark.timeout(900)]

CONFLICT = {"error": {"code": "Conflict", "message": "The request failed due to conflict with a concurrent request."}}
STOPPED = {"error": {"code": "OperationNotAllowed", "message": "The operation requires the VM to be running."}}
THROTTLED = {"code": "OperationNotAllowed", "message": "Too many requests.", "details": [{"code": "TooManyRequests"}]}
ANSWERS: list[Json] = [
    {"status": 200},
    {"status": 202},
    {"status": 202, "headers": {"Azure-AsyncOperation": None, "Location": None}},
    {"status": 307},
    {"status": 408},
    {"status": 409, "body": CONFLICT},
    {"status": 409, "body": ""},
    {"status": 412, "body": {"error": {"code": "PreconditionFailed", "message": "x"}}},
    {"status": 422, "body": "<html>proxy</html>"},
    {"status": 429, "body": THROTTLED},
    {"status": 429, "body": THROTTLED, "headers": {"Retry-After": "3"}},
    {"status": 429, "headers": {"Retry-After": "600"}},
    {"status": 500, "body": {"error": {"code": "InternalServerError"}}},
    {"status": 502, "body": "Bad gateway"},
    {"status": 503, "headers": {"Retry-After": "40"}},
    {"status": 599},
]
"""What may stand before the caller whether Azure has accepted the call or not."""
TRUE_REFUSALS: list[Json] = [
    {"status": 400, "body": {"error": {"code": "InvalidParameter", "message": "x"}}},
    {"status": 401},
    {"status": 403, "body": {"error": {"code": "AuthorizationFailed", "message": "x"}}},
    {"status": 409, "body": STOPPED},
]
"""What cannot have come after an acceptance."""

_lies = st.one_of(
    st.sampled_from([answer | {"accept": True} for answer in ANSWERS]),
    st.sampled_from([answer for answer in ANSWERS if answer["status"] >= 300] + TRUE_REFUSALS),
    st.sampled_from([{"drop": "before"}, {"drop": "after"}, {"loseOperation": True}, {"delaySeconds": 100}]),
)
_reads = st.sampled_from(
    [
        {"status": 429, "headers": {"Retry-After": "3"}},
        {"status": 503},
        {"drop": "before"},
        {"status": 404, "body": {"error": {"code": "NotFound", "message": "x"}}},
        {"status": 200, "body": "<html>proxy</html>"},
    ]
)


def _rules(operation: str, effects: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.builds(
        lambda effect, times, after: {
            "match": {"operation": operation},
            "effect": effect,
            "times": times,
            "after": after,
        },
        effects,
        st.integers(1, 7),
        st.integers(0, 2),
    )


def _weather(kind: str) -> st.SearchStrategy[list[Json]]:
    posts = st.lists(_rules(kind, _lies), min_size=1, max_size=4)
    others = st.lists(_rules("read", _reads) | _rules("poll", _reads), max_size=2)
    return st.builds(lambda one, other: [*one, *other], posts, others)


def tells_the_truth(ended: Ended, kind: str) -> None:
    """The outcome says what the log of the simulator says."""
    outcome, told = ended.row["outcome"], (ended.row["outcome"], ended.row["reason"], ended.row["message"])
    good = ("patched", "patched_with_warnings") if kind == "install" else ("assessed",)
    assert ended.accepted[kind] <= 1, told
    if outcome in good:
        assert ended.accepted[kind] == 1, told
    elif outcome == "unknown":
        assert ended.is_locked, told
    elif ended.row["reason"] == "not_found" and ended.accepted[kind]:
        # Azure said again and again that the machine does not exist.
        assert "it was deleted after" in ended.row["message"], told
    else:
        assert not ended.accepted[kind], f"something was done all the same: {told}"
    if ended.runs:
        assert ended.is_locked, f"something runs on a machine without a lock: {told}"


_FEW = settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
_MANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(_weather("install"))
@_FEW
def test_an_installation_is_accepted_once_and_reported_as_it_was(faults: list[Json]) -> None:
    tells_the_truth(play(faults), "install")


@given(_weather("assess"))
@_FEW
def test_an_assessment_is_accepted_once_and_reported_as_it_was(faults: list[Json]) -> None:
    tells_the_truth(play(faults, mode=Mode.ASSESS), "assess")


@pytest.mark.chaos
@given(_weather("install"))
@_MANY
def test_an_installation_is_accepted_once_in_any_weather(faults: list[Json]) -> None:
    tells_the_truth(play(faults), "install")


@pytest.mark.chaos
@given(_weather("assess"))
@_MANY
def test_an_assessment_is_accepted_once_in_any_weather(faults: list[Json]) -> None:
    tells_the_truth(play(faults, mode=Mode.ASSESS), "assess")
