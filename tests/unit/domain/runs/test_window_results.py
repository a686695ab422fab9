"""Windows in a row in which a machine failed: what counts, what is said, and when a person is needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import InstallationSummary, ReportedError
from patchwave.domain.runs.window_results import (
    Window,
    WindowEnd,
    WindowResult,
    explain,
    following,
    left_out,
    max_failed_windows,
    name_stuck,
    window_end,
)

FIRST = datetime(2026, 9, 8, 18, tzinfo=UTC)
MONTH = timedelta(days=28)
FAILED = (OutcomeKind.FAILED, Reason.PATCHES_FAILED)
OFF = (OutcomeKind.SKIPPED, Reason.NOT_RUNNING)
PATCHED = (OutcomeKind.PATCHED, Reason.OK)


def window(number: int, *, most: int = 3, run: str = "") -> Window:
    return Window(run or f"run-{number}", FIRST + number * MONTH, most)


def installed(count: int, error: str = "") -> InstallationSummary:
    errors = [ReportedError(code=error, message="no space")] if error else []
    return InstallationSummary(status="Failed", installed=count, errors=errors)


def after(*ends: tuple[OutcomeKind, Reason], most: int = 3, patches: int = 0) -> WindowResult | None:
    """The last result after these ends, a window each; a finished one forgets those before it."""
    result: WindowResult | None = None
    for number, (outcome, reason) in enumerate(ends):
        match window_end(outcome, reason):
            case WindowEnd.FINISHED:
                result = None
            case WindowEnd.UNDECIDED:
                pass
            case _:
                result = following(result, outcome, reason, installed(patches), window(number, most=most))
    return result


@pytest.mark.parametrize(
    ("outcome", "reason", "end"),
    [
        (OutcomeKind.FAILED, Reason.PATCHES_FAILED, "failed"),
        (OutcomeKind.FAILED, Reason.OPERATION_FAILED, "failed"),
        (OutcomeKind.FAILED, Reason.UNHEALTHY, "failed"),
        (OutcomeKind.TIMED_OUT, Reason.WINDOW_EXCEEDED, "failed"),
        (OutcomeKind.TIMED_OUT, Reason.DEADLINE, "failed"),
        (OutcomeKind.UNKNOWN, Reason.OPERATION_LOST, "failed"),
        (OutcomeKind.SKIPPED, Reason.HOOK_FAILED, "failed"),
        (OutcomeKind.REBOOT_REQUIRED, Reason.REBOOT_FAILED, "failed"),
        (OutcomeKind.PATCHED_WITH_WARNINGS, Reason.COMPLETED_WITH_WARNINGS, "failed"),
        (OutcomeKind.SKIPPED, Reason.NOT_RUNNING, "not_ready"),
        (OutcomeKind.SKIPPED, Reason.HIBERNATED, "not_ready"),
        (OutcomeKind.SKIPPED, Reason.AGENT_NOT_READY, "not_ready"),
        (OutcomeKind.PATCHED, Reason.OK, "finished"),
        (OutcomeKind.NOTHING_TO_INSTALL, Reason.NO_PENDING_PATCHES, "finished"),
        (OutcomeKind.PATCHED_WITH_WARNINGS, Reason.SUBSCRIPTION_REQUIRED, "finished"),
        (OutcomeKind.REBOOT_REQUIRED, Reason.REBOOT_PENDING, "finished"),
        (OutcomeKind.UNKNOWN, Reason.INTERNAL, "undecided"),
        (OutcomeKind.FAILED, Reason.INTERNAL, "undecided"),
        (OutcomeKind.SKIPPED, Reason.NEEDS_PERSON, "undecided"),
        (OutcomeKind.SKIPPED, Reason.HOLD_TAG, "undecided"),
        (OutcomeKind.SKIPPED, Reason.FROZEN, "undecided"),
        (OutcomeKind.SKIPPED, Reason.WINDOW_CLOSED, "undecided"),
        (OutcomeKind.CANCELED, Reason.CANCELED_BY_USER, "undecided"),
        (OutcomeKind.LEFT_RUNNING, Reason.CANCELED_BY_USER, "undecided"),
        (OutcomeKind.ASSESSED, Reason.PATCHES_PENDING, "undecided"),
    ],
)
def test_what_an_outcome_means_for_the_next_window(outcome: OutcomeKind, reason: Reason, end: str) -> None:
    assert window_end(outcome, reason).value == end


def test_the_third_window_in_a_row_needs_a_person() -> None:
    seen = [after(*[FAILED] * count) for count in (1, 2, 3)]
    assert [(each.failed_windows, each.needs_person, each.is_left_out(3)) for each in seen if each] == [
        (1, False, False),
        (2, False, False),
        (3, True, True),
    ]
    assert {each.since for each in seen if each} == {FIRST}


def test_a_machine_that_goes_on_installing_is_not_left_out() -> None:
    """One patch that never installs must not keep the others away."""
    found = after(FAILED, FAILED, FAILED, FAILED, patches=2)
    assert found is not None
    assert (found.failed_windows, found.needs_person, found.is_left_out(3)) == (4, True, False)
    # Nor after a window in which it was off.
    off = following(found, *OFF, None, window(4))
    assert (off.failed_windows, off.is_left_out(3)) == (4, False)
    assert following(off, *FAILED, installed(0), window(5)).is_left_out(3)


def test_a_good_window_ends_the_row() -> None:
    assert after(FAILED, FAILED, PATCHED) is None
    found = after(FAILED, FAILED, PATCHED, FAILED)
    assert found is not None
    assert (found.failed_windows, found.since) == (1, FIRST + 3 * MONTH)


def test_a_window_in_which_it_was_off_neither_counts_nor_ends_the_row() -> None:
    found = after(FAILED, FAILED, OFF)
    assert found is not None
    assert (found.reason, found.failed_windows, found.needs_person) == ("not_running", 2, False)
    third = after(FAILED, FAILED, OFF, FAILED)
    assert third is not None
    assert (third.failed_windows, third.since, third.needs_person) == (3, FIRST, True)
    assert after(*[OFF] * 20) is not None
    always_off = after(*[OFF] * 20)
    assert always_off is not None
    assert (always_off.failed_windows, always_off.is_left_out(1)) == (0, False)


def test_a_second_run_in_one_window_does_not_count_twice() -> None:
    first = following(None, *FAILED, None, window(0))
    again = following(first, *FAILED, None, window(0, run="catch-up"))
    assert (again.failed_windows, again.run_id) == (1, "catch-up")
    # One that was off at first, and failed when it was caught up.
    off = following(None, *OFF, None, window(0))
    caught_up = following(off, *FAILED, None, window(0, run="catch-up"))
    assert (off.failed_windows, caught_up.failed_windows) == (0, 1)
    twice_and_off = after(FAILED, FAILED, OFF)
    third = following(twice_and_off, *FAILED, None, window(2, run="catch-up"))
    assert (third.failed_windows, third.needs_person) == (3, True)


def test_without_retries_the_first_failure_needs_a_person() -> None:
    assert (max_failed_windows(retries=True), max_failed_windows(retries=False)) == (3, 1)
    found = following(None, *FAILED, None, window(0, most=1))
    assert (found.needs_person, found.is_left_out(1)) == (True, True)


def said(before: WindowResult | None, outcome: Outcome, at: Window, patches: InstallationSummary | None = None) -> str:
    """What is added to the message."""
    return explain(before, outcome, patches, at).message.removeprefix(outcome.message).strip()


def failure(reason: Reason = Reason.PATCHES_FAILED) -> Outcome:
    return Outcome.of(OutcomeKind.FAILED, reason, "1 patch failed.")


DONE = Outcome.of(OutcomeKind.PATCHED, Reason.OK, "3 patches are installed.")


def test_the_message_says_what_has_changed() -> None:
    off = following(None, *OFF, None, window(0))
    assert said(off, DONE, window(1)) == "In the window of 2026-09-08 it was not running; now it runs."
    assert said(off, failure(), window(1)) == "In the window of 2026-09-08 it was not running; now it runs."
    assert said(off, Outcome.skipped(Reason.NOT_RUNNING, "Off."), window(1)) == ""
    failed = following(None, *FAILED, installed(0, "E1"), window(0))
    ended = "In the window of 2026-09-08 it ended with patches_failed"
    assert said(failed, DONE, window(1)) == f"{ended} (E1: no space)."
    assert said(failed, failure(), window(1), installed(0, "E1")) == f"{ended} as well."
    assert (
        said(failed, failure(), window(1), installed(0, "E2")) == f"{ended} as well, by another error (E1: no space)."
    )
    assert said(failed, failure(Reason.UNHEALTHY), window(1)) == f"{ended} (E1: no space)."
    assert said(failed, Outcome.skipped(Reason.NOT_RUNNING, "Off."), window(1)) == f"{ended} (E1: no space)."


def test_a_catch_up_says_that_it_is_the_same_window() -> None:
    off = following(None, OutcomeKind.SKIPPED, Reason.AGENT_NOT_READY, None, window(0))
    expected = "Earlier in this window it had no agent that was ready; now it runs."
    assert said(off, DONE, window(0, run="catch-up")) == expected


def test_nothing_is_said_of_a_first_window_or_of_an_undecided_end() -> None:
    assert said(None, DONE, window(0)) == ""
    assert said(None, failure(), window(0)) == ""
    failed = following(None, *FAILED, None, window(0))
    assert said(failed, Outcome.canceled(), window(1)) == ""
    assert said(failed, Outcome.skipped(Reason.HOLD_TAG, "Held."), window(1)) == ""


def test_the_third_failure_says_that_a_person_is_needed() -> None:
    twice = after(FAILED, FAILED)
    assert said(twice, failure(), window(2)).endswith(
        "It failed in 3 windows in a row and needs a person: later windows leave it out until it is patched by hand, or"
        " reset."
    )
    assert said(twice, failure(), window(2), installed(4)).endswith(
        "It failed in 3 windows in a row and needs a person; later windows go on with it, as patches were installed."
    )
    assert said(None, failure(), window(0, most=1)) == (
        "It failed in 1 window and needs a person: later windows leave it out until it is patched by hand, or reset."
    )
    # The same call again, after its result was stored, says the same.
    thrice = after(FAILED, FAILED, FAILED)
    assert "3 windows" in said(thrice, failure(), window(2))


def test_a_machine_that_is_left_out_says_why() -> None:
    stuck = after(FAILED, FAILED, FAILED)
    assert stuck is not None
    assert left_out(stuck) == Outcome(
        outcome=OutcomeKind.SKIPPED,
        reason=Reason.NEEDS_PERSON,
        message="It failed in 3 windows in a row, the last time with patches_failed, and installed nothing. A person"
        " has to look at it: patch it by hand, or reset it.",
    )


@pytest.mark.parametrize(
    ("names", "line"),
    [([], ""), (["b", "a"], "a, b"), ([f"vm-{n}" for n in range(7)], "vm-0, vm-1, vm-2, vm-3, vm-4 and 2 more")],
)
def test_stuck_machines_are_named_in_one_line(names: list[str], line: str) -> None:
    assert name_stuck(names) == line


ENDS = st.sampled_from(
    [FAILED, OFF, PATCHED, (OutcomeKind.SKIPPED, Reason.HOLD_TAG), (OutcomeKind.TIMED_OUT, Reason.WINDOW_EXCEEDED)]
)


@given(st.lists(ENDS, max_size=12), st.integers(1, 3))
def test_the_count_is_that_of_the_failures_since_the_last_good_window(
    ends: list[tuple[OutcomeKind, Reason]], most: int
) -> None:
    found = after(*ends, most=most)
    since_good = ends[len(ends) - ends[::-1].index(PATCHED) :] if PATCHED in ends else ends
    failures = [each for each in since_good if each[0] in (OutcomeKind.FAILED, OutcomeKind.TIMED_OUT)]
    assert (found.failed_windows if found else 0) == len(failures)
    assert (found.needs_person if found else False) == (len(failures) >= most)
