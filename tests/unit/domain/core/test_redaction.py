"""Texts of others: what opens something is taken out, and the rest stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.errors import ArmFailure, read_failure
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.redaction import redact
from tests.support.processor_time import least_seconds

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
        ("Basic Basic YW5hOlNFQ1JFVA==", "Basic Basic ***"),
        ("https://ana:SECRET@example.org/x", "https://***@example.org/x"),
        ("password=SECRET; retry", "password=***; retry"),
        ("adminPassword='a SECRET one'", "adminPassword=***"),
        (r"{\"password\": \"SECRET\"}", r"{\"password\": ***}"),
        ("client_secret=SECRET&grant_type=x", "client_secret=***&grant_type=x"),
        ("GET /api/runs?code=SECRET-5== and", "GET /api/runs?code=*** and"),
        ("postgres://ana:SECRET@db/x and ftp://ana:SECRET@h", "postgres://***@db/x and ftp://***@h"),
        ("mongodb+srv://ana:SECRET@SECRET@db/x?a=SECRET", "mongodb+srv://***@db/x?***"),
        ("https://proxy.example.org/https://ana:SECRET@h/x", "https://proxy.example.org/https://***@h/x"),
        ("to=https%3A%2F%2Fana%3ASECRET%40example.org%2Fx", "to=https%3A%2F%2F***%40example.org%2Fx"),
        ("api_key=SECRET access_key: SECRET", "api_key=*** access_key: ***"),
        ("token=SECRET, pass=SECRET, dbPass=SECRET", "token=***, pass=***, dbPass=***"),
        ("{\"token\": \"SECRET\", 'pass': 'SECRET'}", "{\"token\": ***, 'pass': ***}"),
        ("token: 5ECRET-5ECRET", "token: ***"),
        ("Authorization: Token SECRET", "Authorization: Token ***"),
        ("Authorization: Sesame 5ECRET-5ECRET", "Authorization: Sesame ***"),
        ("Authorization: 5ECRET-5ECRET", "Authorization: ***"),
        ("Authorization=Basic%20U0VDUkVU", "Authorization=Basic ***"),
        ("Authorization%3A%20Basic%20U0VDUkVUOlNFQ1JFVA%3D%3D", "Authorization%3A***"),
        ("Cookie: AppServiceAuthSession=SECRET/+==; a=SECRET failed", "Cookie: *** failed"),
        ("{'Set-Cookie': 'a=SECRET; Path=/; HttpOnly'}", "{'Set-Cookie': '***'}"),
        ("AppServiceAuthSession=SECRET", "AppServiceAuthSession=***"),
        ("code%3DSECRET and sig%3DSECRET", "code%3D*** and sig%3D***"),
        ("%3Fcode%253DSECRET", "%3Fcode%253D***"),
        ("password => SECRET", "password => ***"),
        ("password\u00a0=\u00a0SECRET, secret\u200b=\u2009SECRET", "password\u00a0=\u00a0***, secret\u200b=\u2009***"),
        ("{'password': b'SECRET'}", "{'password': ***}"),
        ("az vm create --admin-password SECRET -n x", "az vm create --admin-password *** -n x"),
        ("x --password 'a SECRET one' --token SECRET", "x --password *** --token ***"),
        ("code: 5ECRET_5ECRET-5ECRET==", "code: ***"),
        ('{"code" : "5ECRET_5ECRET-5ECRET=="}', '{"code" : ***}'),
    ],
)
def test_what_opens_something_is_taken_out(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "exit code=5, error code=0x80240438",
        "exit code: 1, error code: 0x80070643 (-2147023293)",
        "Basic authentication is off in the Basic tier.",
        "What is wrong? Nothing = all is well.",
        "(OperationNotAllowed) Quota exceeded.\nCode: OperationNotAllowed\nMessage: Quota exceeded.",
        'autorest/azure: Service returned an error. Status=409 Code="AllocationFailed" Message="Allocation failed."',
        "error code: AllocationFailed; code = NetworkSecurityGroupCannotBeAttachedToGatewaySubnet",
        '{"error": {"code": "VMExtensionProvisioningError", "message": "VM has reported a failure."}}',
        "Code: ComponentStatus/StdErr/succeeded",
        "HTTP status code: 503 Service Unavailable",
        "Authorization: failed for the client with object id 5.",
        "AuthorizationFailed: The client 'ana' does not have authorization to do 'x/read' over scope '/a1'.",
        "InvalidAuthenticationToken: The access token is expired. Token: expired",
        "12 passed; pass: 12, fail: 0, bypass=true, compass: north",
        "Set a password that meets the rules. Use --admin-password to set it; --password is required.",
        "The passwords and tokens: a cookie: was not set.",
        "Mail ana@example.org about sku://none, or see https://aka.ms/vm@2 for more.",
        "The zip code 98052 and a code of conduct: yes.",
        "The encoded value at /subscriptions/a/b%3D has barcode=7 and tokens=5.",
    ],
)
def test_text_of_users_and_azure_is_unchanged(text: str) -> None:
    assert redact(text) == text


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
    *("postgres://", "%3A%2F%2F", "%40", "@@", "Authorization: ", "Authorization%3D", "Cookie:", "cookie: a=b;", "; a"),
    *(
        "token",
        "pass",
        "api_key",
        "--",
        "--password ",
        "--a-",
        "code: ",
        "code:a",
        "code%3D",
        "%25",
        "=>",
        "b'",
        "A",
        "Ab",
    ),
    *("A", "Ab", "\u00a0", "\u200b", "5", "5ecret5ecret5ecret5", "AppServiceAuthSession="),
    *('\\"', "***", "\u0130", "@", "/", "?"),
)
"""What the patterns begin or end with."""


@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)))
def test_taking_out_twice_changes_nothing_more(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize("unit", PIECES)
def test_a_long_text_costs_no_more_than_its_length(unit: str) -> None:
    """32 KB of "http://" took a second."""
    text = unit * (65_536 // len(unit))
    assert least_seconds(lambda: redact(text)) < 0.1


def test_errors_of_azure_and_outcomes_hold_none() -> None:
    error = {"code": "Conflict", "message": SIGNED, "details": [{"code": "x", "message": SIGNED}]}
    body = json.dumps({"error": error})
    failure = read_failure(409, body)
    outcome = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.PATCHES_FAILED, message=failure.text)
    crashed = ArmFailure(status=0, code="ServiceRequestError", message=f"Cannot connect to {SIGNED}")
    for document in (failure, outcome, crashed):
        assert "SECRET" not in str(document.to_wire())
