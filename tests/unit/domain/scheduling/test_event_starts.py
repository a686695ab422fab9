"""When the requests of events may start a run: assessments always, installations by the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.domain.calendar.schedule import Occurrence
from patchwave.domain.policy.policy import Policy, parse_policy
from patchwave.domain.scheduling.event_requests import EventRequest, due_at, served_by
from patchwave.domain.scheduling.event_starts import EventVerdict, decide_event_start
from patchwave.domain.scheduling.freeze import DamagedFreeze, Freeze, parse_freeze
from patchwave.domain.scheduling.overrides import Pause, ScheduleOverrides, Skip

NOW = datetime(2026, 11, 1, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
OPENS = datetime(2026, 11, 10, 20, tzinfo=UTC)
WINDOW = Occurrence(OPENS, OPENS + 4 * HOUR)
MONTHLY = {"recurrence": "second Tuesday", "time": "20:00", "timeZone": "UTC", "window": "PT4H"}
FREE = ScheduleOverrides()
PAUSED = FREE.paused(Pause(actor="ann", reason="audit", at=NOW))
SKIPPING = FREE.skipping(Skip(occurrence=OPENS, actor="bob", reason="release", at=NOW), forget_before=NOW)
CARRYING = FREE.carrying("20261013T200000Z-monthly", NOW, forget_before=NOW)


def policy(**changes: Any) -> Policy:
    events = {"newMachine": True, "mode": "patch"} | changes.pop("events", {})
    document = {"scope": {"locations": ["westeurope"]}, "schedule": MONTHLY, "events": events} | changes
    return parse_policy(document, name="monthly")


def freeze(start: datetime, end: datetime) -> Freeze:
    return parse_freeze({"from": start.isoformat(), "to": end.isoformat(), "reason": "books"}, name="closing")


FROZEN = [freeze(NOW, OPENS + HOUR)]


@pytest.mark.parametrize(
    ("controls", "freezes", "at", "expected"),
    [
        (FREE, [], OPENS, EventVerdict(window=WINDOW, own=WINDOW)),
        # The last moment at which an installation of an hour may begin.
        (FREE, [], OPENS + 3 * HOUR, EventVerdict(window=WINDOW, own=WINDOW)),
        (FREE, [], OPENS + 3 * HOUR + MINUTE, EventVerdict(waits="the next window opens at 2026-12-08 20:00 UTC")),
        (FREE, [], NOW, EventVerdict(waits="the next window opens at 2026-11-10 20:00 UTC")),
        (CARRYING, [], OPENS, EventVerdict(window=WINDOW, own=WINDOW)),
        (PAUSED, [], OPENS, EventVerdict(waits="paused by ann: audit")),
        (FREE, FROZEN, OPENS, EventVerdict(waits="frozen until 2026-11-10 21:00 UTC by closing: books")),
        (
            SKIPPING,
            [],
            OPENS,
            EventVerdict(waits="the window that opened at 2026-11-10 20:00 UTC is skipped by bob: release"),
        ),
        # As with the schedule: a freeze at the opening holds the whole window.
        (
            FREE,
            FROZEN,
            OPENS + HOUR,
            EventVerdict(
                waits="the window that opened at 2026-11-10 20:00 UTC is frozen until 2026-11-10 21:00 UTC by closing:"
                " books"
            ),
        ),
    ],
)
def test_installations_keep_to_windows(
    controls: ScheduleOverrides, freezes: list[Freeze], at: datetime, expected: EventVerdict
) -> None:
    assert decide_event_start(policy(), controls, freezes, at) == expected


def test_at_any_time_nothing_but_pause_and_freeze_holds_them() -> None:
    free = policy(events={"onlyInWindow": False})
    assert decide_event_start(free, FREE, [], NOW) == EventVerdict(window=Occurrence(NOW, NOW + 4 * HOUR))
    opened = OPENS + 3 * HOUR + MINUTE
    expected = EventVerdict(window=Occurrence(opened, opened + 4 * HOUR), own=WINDOW)
    assert decide_event_start(free, FREE, [], opened) == expected
    assert decide_event_start(free, SKIPPING, [], OPENS).waits == ""
    assert decide_event_start(free, PAUSED, [], NOW).waits == "paused by ann: audit"
    assert decide_event_start(free, FREE, [DamagedFreeze.of("closing")], NOW).waits.startswith("frozen")
    alone = policy(events={"onlyInWindow": False}, schedule=None)
    assert decide_event_start(alone, FREE, [], NOW) == EventVerdict()


def test_a_schedule_that_is_over_has_nothing_to_wait_for() -> None:
    over = policy(schedule=MONTHLY | {"recurrence": "2026-10-01"})
    assert decide_event_start(over, FREE, [], NOW) == EventVerdict(
        waits="the schedule has no further window", is_over=True
    )


@pytest.mark.parametrize("fields", [{"events": {"mode": "assess"}}, {"mode": "assess"}])
def test_nothing_holds_an_assessment(fields: dict[str, Any]) -> None:
    assert decide_event_start(policy(**fields), PAUSED, FROZEN, NOW) == EventVerdict()


def test_a_request_is_due_after_the_delay_and_no_run_before_serves_it() -> None:
    later = policy(events={"delay": "PT30M"})
    request = EventRequest(policy="monthly", event_id="e", kind="k", key="0" * 64, at=NOW)
    assert due_at(later, request) == NOW + 30 * MINUTE
    assert served_by([request], later, later.to_wire(), NOW + 29 * MINUTE) == []
    assert served_by([request], later, later.to_wire(), NOW + 30 * MINUTE) == [request]
