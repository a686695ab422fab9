"""The outcomes a machine can have."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason


def test_the_words_are_those_of_the_vocabulary() -> None:
    assert {kind.value for kind in OutcomeKind} == {
        "patched",
        "patched_with_warnings",
        "nothing_to_install",
        "assessed",
        "reboot_required",
        "failed",
        "timed_out",
        "skipped",
        "canceled",
        "left_running",
        "unknown",
    }
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", reason.value) for reason in Reason)


def test_outcomes_that_need_a_person() -> None:
    quiet = {kind.value for kind in OutcomeKind if not kind.needs_person}
    assert quiet == {"patched", "nothing_to_install", "assessed", "canceled"}


def test_outcomes_without_a_known_word_are_refused() -> None:
    assert Outcome.canceled().outcome is OutcomeKind.CANCELED
    assert Outcome.skipped(Reason.HOLD_TAG, "x").outcome is OutcomeKind.SKIPPED
    for bad in ({"outcome": "fine"}, {"reason": "because"}, {"message": None}, {"extra": 1}):
        with pytest.raises(ValidationError):
            Outcome.model_validate(Outcome.canceled().to_wire() | bad)
