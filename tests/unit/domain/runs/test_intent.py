"""Which requests an intent keeps, in what form, and what people see of them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.runs.intent import Intent, IntentState, shorten
from tests.support.factories import NOW, RUN, intent

BUSY = ArmFailure(status=409, code="Conflict", message="Another operation is in progress.")
BODY = {"maximumDuration": "PT2H", "rebootSetting": "IfRequired"}


def renewed(known: Intent, minutes: int, **changes: Any) -> Intent:
    """The intent of the request after this one."""
    sent_at = NOW + timedelta(minutes=minutes)
    return intent(RUN, sent_at=sent_at, **changes).following(known)


def test_the_first_request_has_none_before_it() -> None:
    first = intent(RUN, parameters=BODY).following(None)
    (attempt,) = first.attempts
    assert (attempt.operation, attempt.number, attempt.state, attempt.parameters) == (
        OperationKind.INSTALL,
        1,
        IntentState.DECLARED,
        BODY,
    )


def test_each_request_keeps_its_own_parameters_and_answer() -> None:
    refused = intent(RUN, parameters=BODY, answer=BUSY)
    shorter = BODY | {"maximumDuration": "PT1H50M"}
    accepted = renewed(refused, 10, parameters=shorter).model_copy(
        update={"state": IntentState.ACCEPTED, "activity_id": "op", "accepted_at": NOW, "adopted": True}
    )
    first, second = accepted.attempts
    assert (first.number, first.state, first.sent_at, first.parameters) == (1, IntentState.REFUSED, NOW, BODY)
    assert first.answer == "HTTP 409 Conflict: Another operation is in progress."
    assert (second.number, second.state, second.parameters) == (2, IntentState.ACCEPTED, shorter)
    assert (second.answer, second.activity_id, second.adopted) == ("", "op", True)


def test_an_operation_that_failed_after_it_was_accepted_stays_accepted() -> None:
    done: dict[str, Any] = {"state": IntentState.ACCEPTED, "accepted_at": NOW, "activity_id": "first"}
    first = intent(RUN, kind=OperationKind.ASSESS, **done)
    second = intent(RUN, kind=OperationKind.ASSESS, attempt=2).following(first)
    assert [(each.number, each.state, each.activity_id) for each in second.attempts] == [
        (1, IntentState.ACCEPTED, "first"),
        (2, IntentState.DECLARED, ""),
    ]


def test_a_request_that_was_withheld_is_no_attempt() -> None:
    withheld = intent(RUN, state=IntentState.REFUSED, is_withheld=True)
    assert withheld.attempts == []
    sent = renewed(withheld, 5)
    assert [each.number for each in sent.attempts] == [1]


def test_a_withheld_request_leaves_those_before_it() -> None:
    refused = intent(RUN, answer=BUSY)
    withheld = renewed(refused, 5, state=IntentState.REFUSED, is_withheld=True)
    assert [each.number for each in withheld.attempts] == [1]
    assert [each.number for each in renewed(withheld, 10).attempts] == [1, 2]


def test_of_hundreds_of_requests_the_newest_are_kept_with_their_numbers() -> None:
    known = intent(RUN)
    for minute in range(1, 200):
        known = renewed(known, minute, answer=BUSY)
    assert [each.number for each in known.attempts] == [195, 196, 197, 198, 199, 200]
    assert Intent.model_validate(known.to_wire()) == known


@pytest.mark.parametrize(("names", "kept"), [(50, 50), (51, 51)])
def test_long_lists_are_cut_with_a_marker(names: int, kept: int) -> None:
    masks = [f"package{number}=1.0" for number in range(names)]
    body = shorten(BODY | {"linuxParameters": {"packageNameMasksToInclude": masks}})
    shown = body["linuxParameters"]["packageNameMasksToInclude"]
    assert len(shown) == kept
    assert shown[:50] == masks[:50]
    assert shown[50:] == ([] if names == 50 else ["… and 1 more"])


def test_a_long_text_is_cut() -> None:
    body = shorten({"linuxParameters": {"packageNameMasksToInclude": ["x" * 120, "y" * 121]}})
    assert body["linuxParameters"]["packageNameMasksToInclude"] == ["x" * 120, "y" * 119 + "…"]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=80) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=100,
)


@given(st.dictionaries(st.text(max_size=5), _VALUES, max_size=4))
def test_what_is_cut_stays_json_and_is_cut_once(body: dict[str, object]) -> None:
    once = shorten(body)
    assert json.loads(json.dumps(once)) == once
    assert once.keys() == body.keys()
