"""Texts of others: what opens something is taken out, and the rest stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.errors import ArmFailure, read_failure
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.redaction import without_secrets
from tests.processor_time import least_seconds

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
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.SECRET-_x back", "got *** back"),
        ("a token without a signature: eyJhbGciOiJub25lIn0.U0VDUkVU.", "a token without a signature: ***"),
        ("x-functions-key: SECRET_x-y==", "x-functions-key: ***"),
        ('{"X-Functions-Key": "SECRET", "a": 1}', '{"X-Functions-Key": ***, "a": 1}'),
        ("Authorization: Basic U0VDUkVU", "Authorization: Basic ***"),
        ("curl with basic YW5hOlNFQ1JFVA== fails", "curl with basic *** fails"),
        ("https://ana:SECRET@example.org/x", "https://***@example.org/x"),
        ("password=SECRET; retry", "password=***; retry"),
        ("adminPassword='a SECRET one'", "adminPassword=***"),
        (r"{\"password\": \"SECRET\"}", r"{\"password\": ***}"),
        ("client_secret=SECRET&grant_type=x", "client_secret=***&grant_type=x"),
        ("GET /api/runs?code=SECRET-5== and", "GET /api/runs?code=*** and"),
        ("exit code=5, error code=0x80240438", "exit code=5, error code=0x80240438"),
        ("Basic authentication is off in the Basic tier.", "Basic authentication is off in the Basic tier."),
        ("What is wrong? Nothing = all is well.", "What is wrong? Nothing = all is well."),
    ],
)
def test_what_opens_something_is_taken_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


PIECES = (
    *(
        "http://",
        "https://a?",
        "Bearer ",
        "Bearer aaaaaaaa",
        "Basic ",
        "Authorization: Basic ",
        "dTpw",
        "eyJ",
        "eyJabcdefgh",
    ),
    *(".", "-", "a", "password", "secret", "x-functions-key", "code", "sig=", "AccountKey=a;", "=", ":", " ", "'", '"'),
    *('\\"', "***", "\u0130", "@", "/", "?"),
)
"""What the patterns begin or end with."""


@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)))
def test_taking_out_twice_changes_nothing_more(text: str) -> None:
    once = without_secrets(text)
    assert without_secrets(once) == once


@pytest.mark.parametrize("unit", PIECES)
def test_a_long_text_costs_no_more_than_its_length(unit: str) -> None:
    """32 KB of "http://" took a second."""
    text = unit * (65_536 // len(unit))
    assert least_seconds(lambda: without_secrets(text)) < 0.1


def test_errors_of_azure_and_outcomes_hold_none() -> None:
    error = {"code": "Conflict", "message": SIGNED, "details": [{"code": "x", "message": SIGNED}]}
    body = json.dumps({"error": error})
    failure = read_failure(409, body)
    outcome = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.PATCHES_FAILED, message=failure.text)
    crashed = ArmFailure(status=0, code="ServiceRequestError", message=f"Cannot connect to {SIGNED}")
    for document in (failure, outcome, crashed):
        assert "SECRET" not in str(document.to_wire())
