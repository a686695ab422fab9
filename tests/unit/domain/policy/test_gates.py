"""Error budgets and approvals: literal bounds, and what uses a budget."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from pydantic import ValidationError

from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.policy.gates import Approval, ErrorBudget, OnExceeded, wave_barrier_enabled
from patchwave.domain.runs.error_budget import BudgetLedger, counts_as_failure

SCOPES = {"wave": "wave:r/a/1", "lane": "lane:r/a", "ring": "ring:r", "run": "run"}


@pytest.mark.parametrize("within", ["PT1M", "PT24H", "PT240H", "PT720H"])
def test_a_deadline_of_a_minute_to_thirty_days(within: str) -> None:
    assert Approval.model_validate({"within": within}).to_wire()["within"] == within


@pytest.mark.parametrize("within", ["PT59S", "PT0S", "PT721H", "PT720H1S"])
def test_a_deadline_that_is_too_short_or_too_long(within: str) -> None:
    with pytest.raises(ValidationError, match="must be from PT1M to PT720H"):
        Approval.model_validate({"within": within})


def test_an_approval_waits_a_day_and_takes_any_approver_by_default() -> None:
    assert Approval.model_validate({}).within == timedelta(hours=24)
    assert Approval.model_validate({}).require_second_person is False
    assert Approval.model_validate({"requireSecondPerson": True}).require_second_person is True
    schema = Approval.model_json_schema()["properties"]["within"]
    assert (schema["default"], schema["examples"]) == ("PT24H", ["PT24H"])


def test_a_budget_holds_and_has_no_limit_by_default() -> None:
    assert ErrorBudget.model_validate({}).to_wire() == {
        "wave": None, "lane": None, "ring": None, "run": None, "onExceeded": "hold"
    }  # fmt: skip
    whole = {"wave": 1, "lane": "5%", "ring": 0, "run": "100%", "onExceeded": "end"}
    assert ErrorBudget.model_validate(whole).to_wire() == whole
    assert ErrorBudget.model_validate(whole).on_exceeded is OnExceeded.END


@pytest.mark.parametrize(
    ("wave", "bake", "barriers"),
    [(None, None, False), (0, None, True), (3, None, True), (None, 0.0, True), (None, timedelta(hours=1), True)],
)
def test_what_makes_a_wave_wait_for_the_one_before(
    wave: int | None, bake: timedelta | float | None, barriers: bool
) -> None:
    assert wave_barrier_enabled(ErrorBudget(wave=wave, lane=1, ring=1, run=1), bake) is barriers


@pytest.mark.parametrize(
    ("outcome", "reason", "uses"),
    [
        (OutcomeKind.FAILED, "patches_failed", True),
        (OutcomeKind.TIMED_OUT, "timed_out", True),
        (OutcomeKind.UNKNOWN, "internal", True),
        (OutcomeKind.SKIPPED, "hook_failed", True),
        (OutcomeKind.REBOOT_REQUIRED, "reboot_failed", True),
        (OutcomeKind.SKIPPED, "not_running", False),
        (OutcomeKind.PATCHED, "ok", False),
        (OutcomeKind.PATCHED_WITH_WARNINGS, "ok", False),
        (OutcomeKind.NOTHING_TO_INSTALL, "no_pending_patches", False),
        (OutcomeKind.REBOOT_REQUIRED, "reboot_pending", False),
        (OutcomeKind.CANCELED, "canceled_by_user", False),
        (OutcomeKind.LEFT_RUNNING, "canceled_by_user", False),
        (OutcomeKind.ASSESSED, "patches_pending", False),
    ],
)
def test_what_uses_a_budget(outcome: OutcomeKind, reason: str, uses: bool) -> None:
    assert counts_as_failure(outcome, reason) is uses


def test_the_failure_behind_the_budget_uses_it_up_and_each_one_after_it() -> None:
    ledger = BudgetLedger(ErrorBudget(ring=1, run=2), {})
    assert [ledger.count(SCOPES) for _ in range(3)] == [{}, {"ring": "ring:r"}, {"ring": "ring:r", "run": "run"}]
    assert ledger.failures == Counter(dict.fromkeys(SCOPES.values(), 3))


def test_accepted_failures_are_forgiven_and_the_next_one_is_not() -> None:
    ledger = BudgetLedger(ErrorBudget(ring=0), {})
    assert ledger.count(SCOPES) == {"ring": "ring:r"}
    ledger.forgive()
    assert ledger.forgiven["ring:r"] == 1
    assert ledger.failures["ring:r"] == 1, "failed machines stay failed"
    assert ledger.count(SCOPES) == {"ring": "ring:r"}


def test_forgiving_gives_no_failure_back() -> None:
    ledger = BudgetLedger(ErrorBudget(ring=3), {})
    ledger.count(SCOPES)
    ledger.forgive()
    assert [ledger.count(SCOPES) for _ in range(3)] == [{}, {}, {"ring": "ring:r"}]


@pytest.mark.parametrize(
    ("share", "sizes", "limit"),
    [
        (None, {}, None),
        (2, {}, 2),
        ("10%", {"ring:r": 50}, 5),
        ("10%", {"ring:r": 9}, 0),
        ("10%", {"ring:r": 19}, 1),
        ("100%", {}, 1),
        ("50%", {"other": 50}, 0),
    ],
)
def test_the_limit_of_a_scope(share: int | str | None, sizes: dict[str, int], limit: int | None) -> None:
    ledger = BudgetLedger(ErrorBudget.model_validate({"ring": share}), sizes)
    assert ledger.limit("ring", "ring:r") == limit
    assert ledger.limit("run", "run") is None
