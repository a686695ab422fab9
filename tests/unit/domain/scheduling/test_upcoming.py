"""What becomes of an occurrence, what is listed as coming, and where a run goes on that its window left unfinished."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.calendar.schedule import Occurrence, due_occurrence, occurrences
from patchwave.domain.policy.policy import Policy, parse_policy
from patchwave.domain.scheduling.freeze import DamagedFreeze, Freeze, parse_freeze
from patchwave.domain.scheduling.overrides import Pause, ScheduleOverrides, Skip
from patchwave.domain.scheduling.upcoming import (
    ScheduleDecision,
    WindowWait,
    decide,
    forgettable_before,
    list_upcoming,
    next_run_window,
    occurrence_to_skip,
    pending_skip,
)

NOW = datetime(2026, 11, 1, tzinfo=UTC)
HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
FIRST = datetime(2026, 11, 10, 19, tzinfo=UTC)
SECOND = datetime(2026, 12, 8, 19, tzinfo=UTC)
THIRD = datetime(2027, 1, 12, 19, tzinfo=UTC)
RUN = "20261110T190000Z-monthly"
PAUSE = Pause(actor="ann", reason="audit", at=NOW)


def policy(schedule: dict[str, Any] | None = None, **fields: Any) -> Policy:
    monthly = {"recurrence": "second Tuesday", "time": "20:00", "timeZone": "Europe/Berlin", "window": "PT4H"}
    document = {"scope": {"locations": ["westeurope"]}, "schedule": monthly | (schedule or {})} | fields
    return parse_policy(document, name="monthly")


def freeze(start: datetime, end: datetime, name: str = "closing", **fields: Any) -> Freeze:
    bounds = {"from": start.isoformat(), "to": end.isoformat(), "reason": "the books close"}
    return parse_freeze(bounds | fields, name=name)


def skip(opening: datetime) -> Skip:
    return Skip(occurrence=opening, actor="bob", reason="release", at=NOW)


def occurrence(opening: datetime) -> Occurrence:
    return Occurrence(opening, opening + 4 * HOUR)


FREE = ScheduleOverrides()
PAUSED = FREE.paused(PAUSE)
SKIPPING = FREE.skipping(skip(FIRST), forget_before=NOW)
CARRYING = FREE.carrying(RUN, FIRST + 3 * HOUR, forget_before=NOW)
FROZEN = [freeze(FIRST - HOUR, FIRST + HOUR)]


class TestDecide:
    @pytest.mark.parametrize(
        ("controls", "freezes", "opening", "decision", "why"),
        [
            (FREE, [], FIRST, ScheduleDecision.RUN, ""),
            (PAUSED, [], FIRST, ScheduleDecision.PAUSED, "paused by ann: audit"),
            (SKIPPING, [], FIRST, ScheduleDecision.SKIPPED, "skipped by bob: release"),
            (SKIPPING, [], SECOND, ScheduleDecision.RUN, ""),
            (
                FREE,
                FROZEN,
                FIRST,
                ScheduleDecision.FROZEN,
                "frozen until 2026-11-10 20:00 UTC by closing: the books close",
            ),
            (FREE, FROZEN, SECOND, ScheduleDecision.RUN, ""),
            (CARRYING, [], FIRST, ScheduleDecision.RUN, ""),
            (CARRYING, [], SECOND, ScheduleDecision.CONTINUE, f"the run {RUN} goes on in this window"),
            (CARRYING.paused(PAUSE), FROZEN, SECOND, ScheduleDecision.PAUSED, "paused by ann: audit"),
        ],
    )  # fmt: skip
    def test_each_reason_in_its_own_words(
        self,
        controls: ScheduleOverrides,
        freezes: list[Freeze],
        opening: datetime,
        decision: ScheduleDecision,
        why: str,
    ) -> None:
        verdict = decide(policy(), controls, freezes, occurrence(opening))
        assert (verdict.decision, verdict.reason) == (decision, why)
        assert verdict.will_run is (decision in (ScheduleDecision.RUN, ScheduleDecision.CONTINUE))

    def test_a_disabled_policy(self) -> None:
        verdict = decide(policy(enabled=False), PAUSED, FROZEN, occurrence(FIRST))
        assert (verdict.decision, verdict.reason) == (ScheduleDecision.DISABLED, "the policy is disabled")

    def test_a_freeze_that_began_since_holds_a_late_start(self) -> None:
        later = [freeze(FIRST + MINUTE, FIRST + HOUR)]
        assert decide(policy(), FREE, later, occurrence(FIRST)).will_run
        assert decide(policy(), FREE, later, occurrence(FIRST), now=FIRST).will_run
        assert not decide(policy(), FREE, later, occurrence(FIRST), now=FIRST + MINUTE).will_run

    def test_a_freeze_that_ended_inside_the_window_has_cost_it(self) -> None:
        assert not decide(policy(), FREE, FROZEN, occurrence(FIRST), now=FIRST + 2 * HOUR).will_run

    def test_frozen_machines_are_noted_and_hold_no_other(self) -> None:
        some = [freeze(FIRST, FIRST + HOUR, name, tags={"values": {"app": ["shop"]}}) for name in ("shop", "bar")]
        verdict = decide(policy(), FREE, some, occurrence(FIRST))
        assert (verdict.decision, verdict.reason) == (
            ScheduleDecision.RUN,
            "without the machines that are frozen by bar, shop",
        )

    def test_freezes_of_other_policies(self) -> None:
        assert decide(policy(), FREE, [freeze(FIRST, SECOND, policies=["weekly"])], occurrence(FIRST)).will_run


class TestListUpcoming:
    def test_what_will_not_run_is_listed_with_its_reason(self) -> None:
        planned = list_upcoming(policy(), SKIPPING, [freeze(SECOND, SECOND + HOUR)], NOW, 3)
        assert [(each.at, each.will_run, each.decision) for each in planned] == [
            (FIRST, False, ScheduleDecision.SKIPPED),
            (SECOND, False, ScheduleDecision.FROZEN),
            (THIRD, True, ScheduleDecision.RUN),
        ]
        assert [bool(each.reason) for each in planned] == [True, True, False]

    def test_people_read_their_own_clock(self) -> None:
        summer = list_upcoming(policy(), FREE, [], datetime(2027, 3, 1, tzinfo=UTC), 2)
        assert [each.local_time for each in summer] == ["2027-03-09T20:00:00+01:00", "2027-04-13T20:00:00+02:00"]
        assert [each.run_id for each in summer] == ["20270309T190000Z-monthly", "20270413T180000Z-monthly"]
        assert all(each.window_end - each.at == 4 * HOUR for each in summer)

    def test_a_continued_run_takes_the_next_window_and_no_further_one(self) -> None:
        planned = list_upcoming(policy(), CARRYING, [], FIRST + 4 * HOUR, 2)
        assert [(each.run_id, each.decision) for each in planned] == [
            (RUN, ScheduleDecision.CONTINUE),
            ("20270112T190000Z-monthly", ScheduleDecision.RUN),
        ]

    def test_a_continued_run_does_not_take_a_frozen_window(self) -> None:
        planned = list_upcoming(policy(), CARRYING, [freeze(SECOND, SECOND + HOUR)], FIRST + 4 * HOUR, 3)
        assert [each.decision for each in planned] == [
            ScheduleDecision.FROZEN,
            ScheduleDecision.CONTINUE,
            ScheduleDecision.RUN,
        ]

    def test_fewer_when_the_schedule_ends_and_none_without_one(self) -> None:
        dates = {"recurrence": "2026-11-10, 2026-12-08"}
        assert len(list_upcoming(policy(dates), FREE, [], NOW, 12)) == 2
        assert list_upcoming(parse_policy({"scope": {"locations": ["westeurope"]}}, name="x"), FREE, [], NOW, 12) == []

    @given(st.integers(0, 400), st.integers(1, 6))
    def test_the_list_agrees_with_the_timer(self, days: int, count: int) -> None:
        after = NOW + days * DAY
        freezes = [freeze(SECOND, SECOND + 40 * DAY)]
        schedule = policy().schedule
        assert schedule is not None
        for planned in list_upcoming(policy(), SKIPPING, freezes, after, count):
            due = due_occurrence(schedule, planned.at + MINUTE)
            assert due is not None
            assert decide(policy(), SKIPPING, freezes, due, now=planned.at + MINUTE).will_run is planned.will_run


class TestNextRunWindow:
    AFTER_FIRST = WindowWait(since=FIRST + 3 * HOUR, behind=FIRST + 4 * HOUR)

    def opening(
        self, now: datetime, controls: ScheduleOverrides = CARRYING, *freezes: Freeze, **fields: Any
    ) -> datetime | None:
        found = next_run_window(policy(**fields), controls, freezes, self.AFTER_FIRST, now)
        return found.at_utc if found else None

    def test_the_next_one(self) -> None:
        assert self.opening(FIRST + 3 * HOUR) == SECOND

    @pytest.mark.parametrize("late", [timedelta(0), 3 * HOUR])
    def test_the_one_that_is_open_now(self, late: timedelta) -> None:
        assert self.opening(SECOND + late) == SECOND

    def test_an_unreadable_freeze_is_for_now_alone(self) -> None:
        damaged = [DamagedFreeze.of("closing")]
        found = next_run_window(policy(), CARRYING, damaged, self.AFTER_FIRST, FIRST + HOUR)
        assert found == occurrence(SECOND)
        found = next_run_window(policy(), CARRYING, damaged, self.AFTER_FIRST, SECOND + HOUR)
        assert found == occurrence(THIRD)

    def test_no_window_in_which_nothing_can_start_any_more(self) -> None:
        assert self.opening(SECOND + 3 * HOUR + MINUTE) == THIRD

    def test_a_window_that_was_used_is_not_used_again(self) -> None:
        used = WindowWait(since=FIRST + 3 * HOUR, behind=SECOND + 4 * HOUR)
        found = next_run_window(policy(), CARRYING, [], used, SECOND + HOUR)
        assert found is not None
        assert found.at_utc == THIRD

    def test_no_window_that_a_run_of_its_own_has_begun_in(self) -> None:
        """Windows of two days overlap; the one that was open already when the run stopped belongs to another run."""
        daily = policy({"recurrence": "RRULE:FREQ=DAILY", "window": "PT48H"})
        stopped = FIRST + 47 * HOUR
        found = next_run_window(daily, FREE, [], WindowWait(since=stopped, behind=FIRST + 48 * HOUR), stopped)
        assert found is not None
        assert found.at_utc == FIRST + 48 * HOUR

    def test_frozen_and_skipped_ones_are_passed_over(self) -> None:
        assert self.opening(FIRST + 4 * HOUR, CARRYING, freeze(SECOND, SECOND + HOUR)) == THIRD
        assert self.opening(FIRST + 4 * HOUR, CARRYING.skipping(skip(SECOND), forget_before=NOW)) == THIRD
        assert self.opening(SECOND + HOUR, CARRYING, freeze(SECOND + MINUTE, SECOND + DAY)) == THIRD

    def test_a_pause_is_for_now_alone(self) -> None:
        paused = CARRYING.paused(PAUSE)
        assert self.opening(FIRST + 4 * HOUR, paused) == SECOND
        assert self.opening(SECOND, paused) == THIRD
        assert self.opening(SECOND + HOUR, paused.resumed()) == SECOND

    def test_other_continued_runs_do_not_matter(self) -> None:
        others = CARRYING.carrying("20261111T080000Z-monthly-1a2b3c4d", FIRST + DAY, forget_before=NOW)
        assert self.opening(FIRST + 4 * HOUR, others) == SECOND

    def test_none_when_the_schedule_ends_or_the_policy_is_off(self) -> None:
        assert self.opening(FIRST + 4 * HOUR, schedule={"recurrence": "2026-11-10"}) is None
        assert self.opening(FIRST + 4 * HOUR, enabled=False) is None
        nothing = parse_policy({"scope": {"locations": ["westeurope"]}}, name="x")
        assert next_run_window(nothing, FREE, [], self.AFTER_FIRST, FIRST) is None


DAILY = {"recurrence": "RRULE:FREQ=DAILY", "window": "PT30H"}
DAYS = st.integers(0, 20)


@given(
    st.lists(st.tuples(DAYS, st.integers(1, 70)), max_size=4),
    st.lists(DAYS, max_size=6, unique=True),
    st.booleans(),
    st.integers(0, 20 * 24 * 60),
)
def test_a_continued_run_and_the_timer_agree_on_the_owner_of_a_window(
    frozen: list[tuple[int, int]], skipped: list[int], is_paused: bool, minutes: int
) -> None:
    """Whatever people ordered: the run only takes a window that may be used, and the timer starts nothing in it."""
    daily = policy(DAILY)
    schedule = daily.schedule
    assert schedule is not None
    since = FIRST + 29 * HOUR
    now = since + minutes * MINUTE
    freezes = [
        freeze(FIRST + day * DAY - HOUR, FIRST + day * DAY - HOUR + hours * HOUR, f"f{index}")
        for index, (day, hours) in enumerate(frozen)
    ]
    controls = ScheduleOverrides().carrying(RUN, since, forget_before=NOW)
    for day in skipped:
        controls = controls.skipping(skip(FIRST + day * DAY), forget_before=NOW)
    if is_paused:
        controls = controls.paused(PAUSE)
    run = WindowWait(since=since, behind=FIRST + 30 * HOUR)
    window = next_run_window(daily, controls, freezes, run, now)
    assert window is not None
    assert window.at_utc > since
    assert window.window_end_utc - HOUR >= now
    assert decide(daily, controls.resumed(), freezes, window).decision is ScheduleDecision.CONTINUE
    if window.at_utc <= now:
        assert not is_paused
        assert not any(each.starts_at <= now < each.ends_at for each in freezes)
    # And it takes the first of them.
    for other in occurrences(schedule, since, 60):
        if other.at_utc >= window.at_utc:
            break
        is_over = other.window_end_utc - HOUR < now or other.window_end_utc <= run.behind
        if other.at_utc <= now:
            assert is_over or not decide(daily, controls, freezes, other, now=now).will_run
        else:
            assert not decide(daily, controls.resumed(), freezes, other).will_run


class TestSkipping:
    def test_the_next_occurrence_is_skipped_unless_it_is_frozen_anyway(self) -> None:
        assert occurrence_to_skip(policy(), [], NOW) == occurrence(FIRST)
        assert occurrence_to_skip(policy(), FROZEN, NOW) == occurrence(SECOND)
        assert occurrence_to_skip(policy({"recurrence": "2026-10-01"}), [], NOW) is None

    def test_an_order_counts_until_its_occurrence_has_begun(self) -> None:
        assert pending_skip(policy(), SKIPPING, NOW) == skip(FIRST)
        assert pending_skip(policy(), SKIPPING, FIRST) is None
        assert pending_skip(policy(), FREE, NOW) is None

    def test_an_order_about_a_time_that_the_schedule_no_longer_has(self) -> None:
        assert pending_skip(policy({"time": "21:00"}), SKIPPING, NOW) is None

    def test_orders_are_kept_while_a_window_may_be_open(self) -> None:
        schedule = policy({"window": "PT168H"}).schedule
        assert schedule is not None
        [first] = occurrences(schedule, NOW, 1)
        assert forgettable_before(first.window_end_utc - MINUTE) < first.at_utc


# --- machines that read their own clocks ----------------------------------------------------------------------

NIGHTLY = {"recurrence": "second Tuesday", "time": "offPeak", "timeZone": "machine"}
EARTH_OPENS, EARTH_LAST = datetime(2026, 12, 8, 8, tzinfo=UTC), datetime(2026, 12, 9, 10, tzinfo=UTC)
"""When the first window of an occurrence opens, and the last one."""


def local_policy(*locations: str) -> Policy:
    scope = {"locations": list(locations)} if locations else {"osTypes": ["Linux"]}
    return parse_policy({"name": "monthly", "scope": scope, "schedule": NIGHTLY})


def test_the_hours_of_each_zone_are_told() -> None:
    [planned] = list_upcoming(
        local_policy("westeurope", "northeurope", "francecentral"), FREE, [], EARTH_OPENS - HOUR, 1
    )
    assert (planned.at, planned.local_time) == (EARTH_OPENS, "2026-12-08T22:00:00")
    assert planned.window_end == datetime(2026, 12, 9, 18, tzinfo=UTC)
    assert [(each.time_zones, each.opens_at, each.closes_at) for each in planned.zone_hours] == [
        (
            ["Europe/Amsterdam", "Europe/Paris"],
            datetime(2026, 12, 8, 21, tzinfo=UTC),
            datetime(2026, 12, 9, 5, tzinfo=UTC),
        ),
        (["Europe/Dublin"], datetime(2026, 12, 8, 22, tzinfo=UTC), datetime(2026, 12, 9, 6, tzinfo=UTC)),
    ]


def test_without_regions_the_hours_of_all_of_them_are_told() -> None:
    [planned] = list_upcoming(local_policy(), FREE, [], EARTH_OPENS - HOUR, 1)
    hours = [each.opens_at for each in planned.zone_hours]
    assert hours == sorted(hours)
    assert hours[0] == datetime(2026, 12, 8, 9, tzinfo=UTC)
    assert hours[-1] == datetime(2026, 12, 9, 6, tzinfo=UTC)
    assert list_upcoming(policy(), FREE, [], NOW, 1)[0].zone_hours == []


@pytest.mark.parametrize(
    ("begin", "end", "decision"),
    [
        (EARTH_OPENS, EARTH_LAST + MINUTE, ScheduleDecision.FROZEN),
        (EARTH_OPENS, EARTH_LAST, ScheduleDecision.RUN),  # the last zone's window opens when it is over
        (EARTH_OPENS, EARTH_OPENS + HOUR, ScheduleDecision.RUN),
        (EARTH_OPENS + HOUR, EARTH_LAST + DAY, ScheduleDecision.RUN),
    ],
)
def test_a_freeze_holds_the_occurrence_only_if_it_lasts_for_every_zone(
    begin: datetime, end: datetime, decision: ScheduleDecision
) -> None:
    plan = local_policy()
    assert plan.schedule is not None
    [found] = occurrences(plan.schedule, EARTH_OPENS - HOUR, 1)
    assert decide(plan, FREE, [freeze(begin, end)], found).decision is decision


def test_a_run_is_not_started_while_a_freeze_lasts_and_is_started_behind_it() -> None:
    plan = local_policy()
    assert plan.schedule is not None
    [found] = occurrences(plan.schedule, EARTH_OPENS - HOUR, 1)
    frozen = [freeze(EARTH_OPENS - HOUR, EARTH_OPENS + HOUR)]
    assert decide(plan, FREE, frozen, found, now=EARTH_OPENS).decision is ScheduleDecision.FROZEN
    assert decide(plan, FREE, frozen, found, now=EARTH_OPENS + HOUR).decision is ScheduleDecision.RUN
