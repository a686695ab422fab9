"""Texts of others: what opens something is taken out, and the rest stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.arm_error import ArmFailure, read_failure
from domain.outcome import Outcome, OutcomeKind, Reason
from domain.redaction import without_secrets

SIGNED = "https://management.azure.com/op/1?api-version=1&t=2&c=SECRET&s=SECRET&h=SECRET"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"GET {SIGNED} failed.", "GET https://management.azure.com/op/1?*** failed."),
        (f'<a href="{SIGNED}">', '<a href="https://management.azure.com/op/1?***">'),
        ("Authorization: Bearer eyJhbGciOiJ.SECRET.SECRET!", "Authorization: Bearer ***!"),
        ("AccountName=a;AccountKey=U0VDUkVU==;Table=x", "AccountName=a;AccountKey=***;Table=x"),
        ("endpoint=x;accesskey=SECRET", "endpoint=x;accesskey=***"),
        ("sv=1&sig=SECRET%3D&se=2", "sv=1&sig=***&se=2"),
        ("What is wrong? Nothing = all is well.", "What is wrong? Nothing = all is well."),
    ],
)
def test_what_opens_something_is_taken_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@given(st.text(max_size=200))
def test_taking_out_twice_changes_nothing_more(text: str) -> None:
    once = without_secrets(text)
    assert without_secrets(once) == once


def test_errors_of_azure_and_outcomes_hold_none() -> None:
    error = {"code": "Conflict", "message": SIGNED, "details": [{"code": "x", "message": SIGNED}]}
    body = json.dumps({"error": error})
    failure = read_failure(409, body)
    outcome = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.PATCHES_FAILED, message=failure.text)
    crashed = ArmFailure(status=0, code="ServiceRequestError", message=f"Cannot connect to {SIGNED}")
    for document in (failure, outcome, crashed):
        assert "SECRET" not in str(document.to_wire())
