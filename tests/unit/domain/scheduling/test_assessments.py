"""The schedule of assessments beside a policy's own, and policies that only assess: what runs, what holds them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.calendar.schedule import Occurrence
from patchwave.domain.core.ids import RunId, is_run_id
from patchwave.domain.policy.policy import Policy, parse_policy
from patchwave.domain.scheduling.assessments import assessment_run_id, decide_assessment, list_assessments
from patchwave.domain.scheduling.freeze import DamagedFreeze, Freeze, parse_freeze
from patchwave.domain.scheduling.overrides import Pause, ScheduleOverrides, Skip
from patchwave.domain.scheduling.upcoming import (
    ScheduleDecision,
    WindowWait,
    decide,
    list_upcoming,
    next_run_window,
    occurrence_to_skip,
)

NOW = datetime(2026, 11, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
OPENS = datetime(2026, 11, 10, 19, tzinfo=UTC)
MONTHLY = {"recurrence": "second Tuesday", "time": "20:00", "timeZone": "Europe/Berlin", "window": "PT24H"}
NIGHTLY = {"recurrence": "RRULE:FREQ=DAILY", "time": "04:00", "timeZone": "UTC", "window": "PT2H"}
FREE = ScheduleOverrides()
PAUSED = FREE.paused(Pause(actor="ann", reason="audit", at=NOW))
SKIPPING = FREE.skipping(Skip(occurrence=OPENS, actor="bob", reason="release", at=NOW), forget_before=NOW)


def policy(**fields: Any) -> Policy:
    document = {"scope": {"locations": ["westeurope"]}, "schedule": MONTHLY, "assess": NIGHTLY} | fields
    return parse_policy(document, name="monthly")


def freeze(start: datetime, end: datetime) -> Freeze:
    bounds = {"from": start.isoformat(), "to": end.isoformat(), "reason": "the books close"}
    return parse_freeze(bounds, name="closing")


def night(day: int) -> Occurrence:
    at = datetime(2026, 11, day, 4, tzinfo=UTC)
    return Occurrence(at, at + 2 * HOUR)


FROZEN = [freeze(NOW, NOW + 60 * DAY)]
DAMAGED = [DamagedFreeze.of("closing")]


@pytest.mark.parametrize(
    ("fields", "controls", "freezes", "day", "decision", "why"),
    [
        ({}, FREE, [], 9, ScheduleDecision.RUN, ""),
        ({"enabled": False}, FREE, [], 9, ScheduleDecision.DISABLED, "the policy is disabled"),
        ({}, PAUSED, [], 9, ScheduleDecision.PAUSED, "paused by ann: audit"),
        ({}, FREE, FROZEN, 9, ScheduleDecision.RUN, ""),
        ({}, FREE, DAMAGED, 9, ScheduleDecision.RUN, ""),
        (
            {},
            FREE,
            [],
            11,
            ScheduleDecision.COVERED,
            "the run of the window that opens at 2026-11-10 19:00 UTC assesses the machines",
        ),
        # Its run does not take place, so that nothing else would assess.
        ({}, FREE, FROZEN, 11, ScheduleDecision.RUN, ""),
        ({}, SKIPPING, [], 11, ScheduleDecision.RUN, ""),
        ({"schedule": None}, FREE, [], 11, ScheduleDecision.RUN, ""),
    ],
)
def test_what_becomes_of_an_assessment(
    fields: dict[str, Any],
    controls: ScheduleOverrides,
    freezes: list[Freeze],
    day: int,
    decision: ScheduleDecision,
    why: str,
) -> None:
    verdict = decide_assessment(policy(**fields), controls, freezes, night(day))
    assert (verdict.decision, verdict.reason) == (decision, why)
    assert verdict.will_run is (decision is ScheduleDecision.RUN)


def test_a_long_window_covers_its_first_twelve_hours_only() -> None:
    long = policy(schedule=MONTHLY | {"window": "PT168H"})
    decisions = [decide_assessment(long, FREE, [], night(day)).decision.value for day in (10, 11, 12, 13)]
    assert decisions == ["run", "covered", "run", "run"]


def test_a_skip_is_of_the_policys_own_schedule() -> None:
    """Also where both open at the same moment."""
    same = policy(assess=MONTHLY, schedule=None)
    assert decide_assessment(same, SKIPPING, [], Occurrence(OPENS, OPENS + DAY)).will_run


def test_assessments_are_listed_with_their_own_run_ids() -> None:
    planned = list_assessments(policy(), PAUSED, [], NOW + 9 * DAY, 2)
    assert [(each.mode.value, each.at.day, each.decision.value) for each in planned] == [
        ("assess", 10, "paused"),
        ("assess", 11, "paused"),
    ]
    assert re.fullmatch(r"20261110T040000Z-monthly-[0-9a-f]{8}", planned[0].run_id)
    assert (planned[0].local_time, planned[0].window_end) == ("2026-11-10T04:00:00+00:00", night(10).window_end_utc)
    assert list_assessments(policy(assess=None), FREE, [], NOW, 5) == []


@given(
    st.integers(0, 40 * 365 * 24 * 60).map(lambda minutes: NOW + timedelta(minutes=minutes)),
    st.from_regex(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True),
)
def test_an_assessment_never_has_the_run_of_an_own_occurrence(at: datetime, name: str) -> None:
    made = assessment_run_id(at, name)
    assert is_run_id(made.text)
    assert made.text != RunId.of(at, name).text
    assert made == assessment_run_id(at + timedelta(microseconds=1), name)
    assert made.text != assessment_run_id(at + timedelta(minutes=1), name).text


class TestPoliciesThatOnlyAssess:
    ASSESS = policy(mode="assess", assess=None)
    FIRST = Occurrence(OPENS, OPENS + DAY)

    @pytest.mark.parametrize("freezes", [FROZEN, DAMAGED])
    def test_no_freeze_holds_them(self, freezes: list[Freeze]) -> None:
        assert decide(self.ASSESS, FREE, freezes, self.FIRST, now=OPENS + HOUR).decision is ScheduleDecision.RUN
        assert occurrence_to_skip(self.ASSESS, freezes, NOW) == self.FIRST

    def test_pause_and_skip_do(self) -> None:
        assert decide(self.ASSESS, PAUSED, [], self.FIRST).decision is ScheduleDecision.PAUSED
        assert decide(self.ASSESS, SKIPPING, [], self.FIRST).decision is ScheduleDecision.SKIPPED

    def test_no_run_goes_on_in_their_windows(self) -> None:
        """A run that installs waits for a window, and meanwhile an author has set the policy to assess only."""
        waiting = FREE.carrying("20261013T180000Z-monthly", NOW, forget_before=NOW)
        wait = WindowWait(since=NOW, behind=NOW)
        assert next_run_window(policy(), waiting, [], wait, NOW) is not None
        assert next_run_window(self.ASSESS, waiting, [], wait, NOW) is None
        assert decide(self.ASSESS, waiting, [], self.FIRST).decision is ScheduleDecision.RUN

    def test_they_are_listed_as_such(self) -> None:
        assert {each.mode.value for each in list_upcoming(self.ASSESS, FREE, FROZEN, NOW, 3)} == {"assess"}
        assert {each.mode.value for each in list_upcoming(policy(), FREE, [], NOW, 3)} == {"patch"}


def test_assessments_by_the_clocks_of_machines_begin_with_the_first_one() -> None:
    nightly = {"recurrence": "RRULE:FREQ=DAILY", "time": "offPeak", "timeZone": "machine"}
    plan = parse_policy({"scope": {"locations": ["westeurope"]}, "assess": nightly}, name="monthly")
    [planned] = list_assessments(plan, ScheduleOverrides(), [], datetime(2026, 12, 8, 7, tzinfo=UTC), 1)
    assert (planned.at, planned.local_time) == (datetime(2026, 12, 8, 8, tzinfo=UTC), "2026-12-08T22:00:00")
