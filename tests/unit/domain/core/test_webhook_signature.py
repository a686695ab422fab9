"""The secret of a policy and the signature of a call: pinned values, and what each byte of them decides."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from patchwave.domain.core.webhook_signature import Call, SignatureRefused, policy_secret, signature_of, verify

MASTER = "an-app-secret-of-forty-characters-123456"
CALL = Call("monthly", "build-4711", b'{"mode": "assess"}')
NOW = 1_796_000_000


def test_the_secret_of_a_policy_is_derived_from_name_and_number() -> None:
    wanted = hmac.new(MASTER.encode(), b"patchwave webhook\nmonthly\n1", hashlib.sha256).hexdigest()
    assert policy_secret(MASTER, "monthly") == wanted
    others = {policy_secret(MASTER, "monthly", 2), policy_secret(MASTER, "weekly"), policy_secret("x", "monthly")}
    assert len({wanted, *others}) == 4


def test_a_signature_is_over_time_method_path_delivery_and_body() -> None:
    """As docs/reference/api.md writes it, and senders in any language build it."""
    text = b'1796000000\nPOST\n/api/webhooks/monthly\nbuild-4711\n{"mode": "assess"}'
    assert signature_of(CALL, "s", NOW) == f"t=1796000000,v2={hmac.new(b's', text, hashlib.sha256).hexdigest()}"


@pytest.mark.parametrize(
    "change",
    [
        {"policy": "weekly"},
        {"delivery": "build-4712"},
        {"delivery": ""},
        {"method": "PUT"},
        {"body": b'{"mode": "patch"}'},
        {"body": CALL.body + b" "},
    ],
)
def test_nothing_that_is_signed_may_change(change: dict[str, Any]) -> None:
    header = signature_of(CALL, "s", NOW)
    assert verify(header, CALL, ["other", "s"], NOW)
    with pytest.raises(SignatureRefused, match="fits no secret"):
        verify(header, replace(CALL, **change), ["s"], NOW)


@pytest.mark.parametrize("late", [0, 300, -300])
def test_a_signature_holds_for_five_minutes(late: int) -> None:
    assert verify(signature_of(CALL, "s", NOW), CALL, ["s"], NOW + late)


@pytest.mark.parametrize("late", [301, -301])
def test_a_signature_holds_no_longer(late: int) -> None:
    with pytest.raises(SignatureRefused, match="off by more than 300 s"):
        verify(signature_of(CALL, "s", NOW), CALL, ["s"], NOW + late)


@pytest.mark.parametrize(
    ("header", "why"), [("", "has no signature"), ("t=1", "malformed"), ("v2=" + "0" * 64, "malfo")]
)
def test_a_malformed_signature_differs_from_a_wrong_one(header: str, why: str) -> None:
    with pytest.raises(SignatureRefused, match=why):
        verify(header, CALL, ["s"], NOW)


def test_no_secret_opens_nothing() -> None:
    with pytest.raises(SignatureRefused):
        verify(signature_of(CALL, "", NOW), CALL, [], NOW)


# A policy in an address has no line break, and a delivery has passed as a header.
_LINE = st.text(st.characters(exclude_categories=("C", "Z")), max_size=20)


@given(_LINE, _LINE, st.binary(max_size=40), _LINE, _LINE, st.binary(max_size=40))
def test_no_two_calls_share_a_signature(
    policy: str, delivery: str, body: bytes, policy2: str, delivery2: str, body2: bytes
) -> None:
    one, other = Call(policy, delivery, body), Call(policy2, delivery2, body2)
    assume(one != other)
    with pytest.raises(SignatureRefused):
        verify(signature_of(one, "s", NOW), other, ["s"], NOW)
