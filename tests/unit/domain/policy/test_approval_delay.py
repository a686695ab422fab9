"""When an approval delay cannot work on Linux, as far as a policy alone tells."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from patchwave.domain.policy.approval_delay import delay_notes
from patchwave.domain.policy.policy import parse_policy

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
MONTHLY = {"recurrence": "second Tuesday", "time": "20:00", "timeZone": "UTC", "window": "PT4H"}
NIGHTLY = {"recurrence": "RRULE:FREQ=DAILY", "time": "04:00", "timeZone": "UTC", "window": "PT2H"}


def notes(days: int = 7, **fields: Any) -> list[str]:
    document = {"scope": {"locations": ["westeurope"]}, "install": {"approvalDelayDays": days}, "schedule": MONTHLY}
    return delay_notes(parse_policy(document | fields, name="monthly"), NOW)


def test_a_delay_without_an_assess_schedule_is_noted() -> None:
    [note] = notes()
    assert note.startswith("install.approvalDelayDays: on Linux the 7 days count from when a version was first seen.")
    assert "the first installs nothing on Linux" in note
    assert "Give assess" in note


@pytest.mark.parametrize(
    "fields",
    [
        {"days": 0},
        {"scope": {"osTypes": ["Windows"]}},
        {"mode": "assess"},
        {"assess": NIGHTLY},
        {"assess": NIGHTLY, "schedule": None},
        # To the minute: the first assessment is 3 November at 04:00, the run 10 November at 20:00.
        {"assess": NIGHTLY | {"time": "20:00"}},
    ],
)
def test_nothing_is_noted_where_the_delay_works_or_is_none(fields: dict[str, Any]) -> None:
    assert notes(**fields) == []


def test_an_assessment_that_comes_too_late_for_the_next_run() -> None:
    [note] = notes(8, assess=NIGHTLY)
    assert "The next assessment, 2026-11-03 04:00 UTC, comes less than that before the next run, 2026-11-10" in note
    assert "what was seen before 2026-11-02 20:00 UTC" in note
    assert "the run of 2026-12-08 20:00 UTC is the first" in note
    [note] = notes(8, assess=NIGHTLY, schedule=MONTHLY | {"recurrence": "2026-11-10"})
    assert "no later run is known" in note


def test_an_assess_schedule_that_is_over() -> None:
    [note] = notes(assess=NIGHTLY | {"recurrence": "2026-10-01"})
    assert "The assess schedule has ended" in note
