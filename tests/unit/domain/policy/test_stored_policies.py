"""Stored policies are validated once for each version, and no version is taken for another."""

from __future__ import annotations

from typing import Any

import pytest

from patchwave.domain.policy.policy import PolicyError
from patchwave.domain.policy.stored_policies import MAX_KEPT, parse_stored_policy

SCOPE = {"subscriptions": ["11111111-2222-4333-8444-555555555555"]}


def document(**more: Any) -> dict[str, Any]:
    return {"scope": SCOPE} | more


def test_the_same_document_is_read_once() -> None:
    first = parse_stored_policy(document(maxConcurrent=3), name="read-once")
    assert parse_stored_policy(document(maxConcurrent=3), name="read-once") is first


def test_another_document_or_name_is_another_policy() -> None:
    assert parse_stored_policy(document(maxConcurrent=3), name="one").max_concurrent == 3
    assert parse_stored_policy(document(maxConcurrent=4), name="one").max_concurrent == 4
    assert parse_stored_policy(document(maxConcurrent=3), name="one").max_concurrent == 3
    assert parse_stored_policy(document(maxConcurrent=3), name="two").name == "two"


def test_a_document_that_is_none_is_refused_each_time() -> None:
    with pytest.raises(PolicyError, match="maxConcurrent") as first:
        parse_stored_policy(document(maxConcurrent=0), name="wrong")
    with pytest.raises(PolicyError, match="maxConcurrent") as second:
        parse_stored_policy(document(maxConcurrent=0), name="wrong")
    assert first.value is not second.value
    assert parse_stored_policy(document(maxConcurrent=1), name="wrong").max_concurrent == 1


def test_of_many_policies_the_last_used_are_cached() -> None:
    kept = parse_stored_policy(document(), name="kept")
    left = parse_stored_policy(document(), name="left")
    for number in range(MAX_KEPT - 1):
        parse_stored_policy(document(), name=f"other-{number}")
        assert parse_stored_policy(document(), name="kept") is kept
    assert parse_stored_policy(document(), name="left") is not left
