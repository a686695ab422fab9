"""Principals as App Service hands them on, and everything else that may stand in that header."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.core.principal import MAX_HEADER, InvalidPrincipal, Principal, Role, read_principal

TENANT = "77777777-2222-4333-8444-555555555555"
ANA = "aaaaaaaa-2222-4333-8444-555555555555"
LONG = "http://schemas.microsoft.com/identity/claims/"
LONG_ROLE = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"


def encode(document: object) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()


def claims(*more: tuple[str, str]) -> list[dict[str, str]]:
    return [{"typ": kind, "val": value} for kind, value in (("tid", TENANT), ("oid", ANA), *more)]


def header(*more: tuple[str, str], **changes: Any) -> str:
    return encode({"auth_typ": "aad", "name_typ": "name", "role_typ": "roles", "claims": claims(*more)} | changes)


def test_a_principal_with_the_claims_of_a_token() -> None:
    found = read_principal(header(("roles", "operator"), ("roles", "approver"), ("name", "Ana")), TENANT)
    assert found == Principal(id=ANA, roles=frozenset({Role.OPERATOR, Role.APPROVER}))


def test_a_principal_with_the_names_that_the_platform_gives_to_claims() -> None:
    named = [
        {"typ": LONG + "tenantid", "val": TENANT.upper()},
        {"typ": LONG + "objectidentifier", "val": ANA.upper()},
        {"typ": LONG_ROLE, "val": "reader"},
    ]
    assert read_principal(header(claims=named), TENANT.upper()) == Principal(id=ANA, roles=frozenset({Role.READER}))


@pytest.mark.parametrize(
    "other",
    [("roles", "Operator"), ("roles", "operator "), ("roles", "reader,operator"), ("role", "operator"),
     ("groups", "operator"), ("wids", "operator"), ("scp", "operator"), ("name", "operator")],
)  # fmt: skip
def test_what_is_no_role_gives_none(other: tuple[str, str]) -> None:
    assert read_principal(header(other), TENANT).roles == frozenset()


def test_the_header_does_not_choose_which_claim_holds_roles() -> None:
    assert read_principal(header(("groups", "operator"), role_typ="groups"), TENANT).roles == frozenset()


def test_every_role_implies_reader_and_author_implies_operator() -> None:
    allowed = {role: {each for each in Role if Principal(id=ANA, roles=frozenset({role})).may(each)} for role in Role}
    assert allowed == {
        Role.READER: {Role.READER},
        Role.OPERATOR: {Role.OPERATOR, Role.READER},
        Role.AUTHOR: {Role.AUTHOR, Role.OPERATOR, Role.READER},
        Role.APPROVER: {Role.APPROVER, Role.READER},
    }
    assert not any(Principal(id=ANA, roles=frozenset()).may(role) for role in Role)


OTHER = "99999999-2222-4333-8444-555555555555"
GARBLED = {
    "empty": "",
    "no base64": "{}",
    "cut off": header()[:-3],
    "not the alphabet": header() + "\n",
    "letters beyond ASCII": "ä" + header(),
    "no text": base64.b64encode(b"\xff\xfe").decode(),
    "no JSON": base64.b64encode(b"{").decode(),
    "a list": encode([]),
    "null": encode(None),
    "very deep": base64.b64encode(b"[" * 20_000).decode(),
    "oversized": header(("x", "y" * MAX_HEADER)),
    "no provider": header(auth_typ=None),
    "another provider": header(auth_typ="google"),
    "the provider in other letters": header(auth_typ="AAD"),
    "no claims": header(claims=None),
    "claims that are no list": header(claims={"oid": ANA, "tid": TENANT}),
    "a claim that is no object": header(claims=[*claims(), "roles=operator"]),
    "a claim without a value": header(claims=[*claims(), {"typ": "roles"}]),
    "a claim whose value is a list": header(claims=[*claims(), {"typ": "roles", "val": ["operator"]}]),
    "no object id": header(claims=claims()[:1]),
    "two object ids": header(("oid", OTHER)),
    "two object ids under two names": header((LONG + "objectidentifier", OTHER)),
    "an object id that is none": header(claims=[claims()[0], {"typ": "oid", "val": "ana"}]),
    "no tenant": header(claims=claims()[1:]),
    "another tenant": header(claims=[{"typ": "tid", "val": OTHER}, claims()[1]]),
    "two tenants": header(("tid", OTHER)),
}


@pytest.mark.parametrize("encoded", GARBLED.values(), ids=GARBLED)
def test_what_the_platform_does_not_write_is_refused(encoded: str) -> None:
    with pytest.raises(InvalidPrincipal) as caught:
        read_principal(encoded, TENANT)
    assert len(str(caught.value)) < 80, "the reason repeats nothing of the header"


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda raw: base64.b64encode(raw).decode())))
def test_any_text_is_refused_without_any_other_error(encoded: str) -> None:
    with pytest.raises(InvalidPrincipal):
        read_principal(encoded, TENANT)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_claims_of_any_form_are_refused_or_give_no_role(value: Any) -> None:
    for document in ({"claims": value}, {"claims": [*claims(), value]}):
        try:
            found = read_principal(encode({"auth_typ": "aad"} | document), TENANT)
        except InvalidPrincipal:
            continue
        assert found.roles == frozenset()
