"""Freezes: bounds as dates and as times, whom they hold, and what a wrong one is told."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.scheduling.freeze import DamagedFreeze, Freeze, FreezeError, active_freeze, parse_freeze

TIMES = {"from": "2026-12-20T18:00:00Z", "to": "2027-01-04T06:00:00Z", "reason": "Year-end closing"}
DATES = {"from": "2026-12-20", "to": "2027-01-03", "timeZone": "Europe/Berlin", "reason": "Year-end closing"}
SECOND = timedelta(seconds=1)


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def freeze(name: str = "year-end", **fields: Any) -> Freeze:
    return parse_freeze(TIMES | fields, name=name)


def problems(document: object, name: str = "year-end") -> dict[str, str]:
    with pytest.raises(FreezeError) as refused:
        parse_freeze(document, name=name)
    return {problem.path: problem.message for problem in refused.value.errors}


def test_times_are_taken_as_they_are() -> None:
    found = freeze()
    assert (found.starts_at, found.ends_at) == (utc(2026, 12, 20, 18), utc(2027, 1, 4, 6))
    assert Freeze.model_validate(found.to_wire()) == found
    assert found.to_wire()["from"] == TIMES["from"]


def test_dates_are_whole_days_of_the_zone() -> None:
    found = parse_freeze(DATES, name="year-end")
    assert (found.starts_at, found.ends_at) == (utc(2026, 12, 19, 23), utc(2027, 1, 3, 23))
    one_day = parse_freeze(DATES | {"to": DATES["from"]}, name="one-day")
    assert one_day.ends_at - one_day.starts_at == timedelta(days=1)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_day_on_which_the_clocks_change_is_frozen_whole(day: str, hours: int) -> None:
    found = parse_freeze(DATES | {"from": day, "to": day}, name="dst")
    assert found.ends_at - found.starts_at == timedelta(hours=hours)


def test_a_day_that_begins_in_a_gap_begins_after_it() -> None:
    """In Chile clocks change at midnight: the first minute of that day is 01:00."""
    found = parse_freeze(DATES | {"from": "2026-09-06", "to": "2026-09-06", "timeZone": "America/Santiago"}, name="x")
    assert (found.starts_at, found.ends_at) == (utc(2026, 9, 6, 4), utc(2026, 9, 7, 3))


def test_a_reader_of_yaml_may_have_made_dates_of_dates() -> None:
    given = DATES | {"from": date(2026, 12, 20), "to": date(2027, 1, 3)}
    assert parse_freeze(given, name="year-end") == parse_freeze(DATES, name="year-end")


def test_it_holds_from_its_first_moment_to_before_its_end() -> None:
    found = [freeze()]
    assert active_freeze(found, "monthly", {}, utc(2026, 12, 20, 18) - SECOND) is None
    assert active_freeze(found, "monthly", {}, utc(2026, 12, 20, 18)) is found[0]
    assert active_freeze(found, "monthly", {}, utc(2027, 1, 4, 6) - SECOND) is found[0]
    assert active_freeze(found, "monthly", {}, utc(2027, 1, 4, 6)) is None


def test_only_the_policies_that_it_names() -> None:
    found = [freeze(policies=["monthly", "weekly", "monthly"])]
    assert found[0].policies == ("monthly", "weekly")
    assert active_freeze(found, "monthly", {}, utc(2026, 12, 24)) is found[0]
    assert active_freeze(found, "web", {}, utc(2026, 12, 24)) is None


def test_with_tags_it_holds_machines_and_no_policy() -> None:
    found = [freeze(tags={"values": {"App": ["Shop", "till"]}})]
    at = utc(2026, 12, 24)
    assert active_freeze(found, "monthly", {}, at) is None
    assert active_freeze(found, "monthly", {"app": "SHOP", "x": "y"}, at) is found[0]
    assert active_freeze(found, "monthly", {"app": "mail"}, at) is None


def test_a_freeze_of_whole_policies_holds_every_machine() -> None:
    assert active_freeze([freeze()], "monthly", {"app": "mail"}, utc(2026, 12, 24)) is not None


def test_of_several_the_one_that_ends_last_is_named() -> None:
    short, long = freeze("short", to="2026-12-27T00:00:00Z"), freeze("long")
    assert active_freeze([short, long], "monthly", {}, utc(2026, 12, 24)) is long
    assert active_freeze([long, short], "monthly", {}, utc(2026, 12, 24)) is long
    assert long.sentence == "frozen until 2027-01-04 06:00 UTC by long: Year-end closing"


@given(st.integers(0, 60 * 86_400))
def test_no_moment_is_both(seconds: int) -> None:
    at = utc(2026, 12, 1) + seconds * SECOND
    found = parse_freeze(DATES, name="year-end")
    local = at + timedelta(hours=1)  # Berlin in winter
    inside = date(2026, 12, 20) <= local.date() <= date(2027, 1, 3)
    assert (active_freeze([found], "monthly", {}, at) is not None) is inside


@pytest.mark.parametrize(
    ("change", "path", "hint"),
    [
        ({"from": "2026-12-20"}, "from", "give timeZone"),
        ({"from": "2026-12-20T18:00:00"}, "from", "time with its zone"),
        ({"from": "20 December"}, "from", "must be a date such as"),
        ({"from": "2026-02-30", "timeZone": "UTC"}, "from", "not a date of the calendar"),
        ({"from": "9999-01-01", "to": "9999-01-02", "timeZone": "UTC"}, "from", "too far away"),
        ({"from": "0001-01-01", "timeZone": "Asia/Tokyo"}, "from", "too far away"),
        ({"from": 20261220}, "from", "must be text"),
        ({"to": "2026-12-20T18:00:00Z"}, "to", "must be later than from"),
        ({"to": "2026-12-19", "timeZone": "Europe/Berlin"}, "to", "must be later than from"),
        ({"timeZone": "Europe/Berlln"}, "timeZone", "did you mean Europe/Berlin"),
        ({"reason": "  "}, "reason", "say why"),
        ({"reason": "x" * 501}, "reason", "at most 500"),
        ({"policies": ["Monthly"]}, "policies", "not the name of a policy"),
        ({"policies": "monthly"}, "policies", "must be a list"),
        ({"tags": {"values": {}}}, "tags.values", "at least one"),
        ({"until": "2027-01-04"}, "until", "not known"),
        ({"name": "other"}, "name", "the name in the address"),
    ],
)
def test_errors_of_a_freeze_say_what_to_write(change: dict[str, Any], path: str, hint: str) -> None:
    assert hint in problems(TIMES | change)[path]


def test_every_error_is_listed_at_once() -> None:
    assert set(problems({"name": "other", "from": "?", "colour": "red"})) == {"name", "from", "to", "reason", "colour"}
    assert set(problems([])) == {"$"}
    assert set(problems(TIMES, name="Year End")) == {"name"}


@pytest.mark.parametrize("tags", [{}, {"app": "shop"}])
@pytest.mark.parametrize("at", [datetime(2026, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)])
def test_a_freeze_that_cannot_be_read_holds_every_machine_at_any_time(tags: dict[str, str], at: datetime) -> None:
    found = active_freeze([DamagedFreeze.of("closing")], "monthly", tags, at)
    assert found is not None
    assert found.sentence == (
        "frozen: the stored freeze closing cannot be read, so nothing starts until it is replaced or deleted"
    )


def test_a_freeze_of_adhoc_holds_every_inline_policy() -> None:
    frozen = parse_freeze(DATES | {"policies": ["adhoc"]}, name="year-end")
    at = frozen.starts_at
    assert [name for name in ("adhoc", "adhoc-1a2b3c4d", "adhocs", "monthly") if frozen.concerns(name, at)] == [
        "adhoc",
        "adhoc-1a2b3c4d",
    ]
