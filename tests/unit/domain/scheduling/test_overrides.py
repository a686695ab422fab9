"""Orders of people about one policy: saying one twice changes nothing, and old ones are forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from patchwave.domain.scheduling.overrides import Pause, ScheduleOverrides, Skip, WindowReservation

NOW = datetime(2026, 11, 10, 19, tzinfo=UTC)
DAY = timedelta(days=1)
RUN, OTHER = "20261110T190000Z-monthly", "20261111T190000Z-monthly-1a2b3c4d"


def pause(actor: str, reason: str = "bank holiday") -> Pause:
    return Pause(actor=actor, reason=reason, at=NOW)


def skip(opening: datetime, actor: str = "ann") -> Skip:
    return Skip(occurrence=opening, actor=actor, reason="release night", at=NOW)


def test_a_policy_without_orders_is_free() -> None:
    free = ScheduleOverrides()
    assert (free.pause, free.skips, free.window_reservations, free.requested_run) == (None, [], [], "")
    assert ScheduleOverrides.model_validate(free.to_wire()) == free


def test_the_first_pause_counts() -> None:
    paused = ScheduleOverrides().paused(pause("ann"))
    assert paused.paused(pause("bob")) is paused
    assert paused.pause == pause("ann")
    assert paused.resumed() == ScheduleOverrides()
    assert ScheduleOverrides().resumed() == ScheduleOverrides()


def test_an_occurrence_is_skipped_once_and_by_its_very_moment() -> None:
    skipping = ScheduleOverrides().skipping(skip(NOW), forget_before=NOW - DAY)
    assert skipping.skipping(skip(NOW, "bob"), forget_before=NOW - DAY) is skipping
    assert skipping.skip_of(NOW) == skip(NOW)
    assert skipping.skip_of(NOW + timedelta(seconds=1)) is None
    assert skipping.unskipping(NOW) == ScheduleOverrides()
    assert skipping.unskipping(NOW + DAY) == skipping


def test_old_commands_are_removed_with_the_next_one() -> None:
    old = ScheduleOverrides().skipping(skip(NOW), forget_before=NOW)
    assert old.skipping(skip(NOW + 9 * DAY), forget_before=NOW).skips == [skip(NOW), skip(NOW + 9 * DAY)]
    assert old.skipping(skip(NOW + 9 * DAY), forget_before=NOW + DAY).skips == [skip(NOW + 9 * DAY)]


@pytest.mark.parametrize(
    ("opening", "ended_at", "holds"),
    [
        (NOW - DAY, None, False),
        (NOW, None, False),
        (NOW + DAY, None, True),
        (NOW + DAY, NOW + 2 * DAY, True),
        (NOW + 2 * DAY, NOW + 2 * DAY, False),
        (NOW + 3 * DAY, NOW + 2 * DAY, False),
    ],
)
def test_windows_between_the_mark_and_the_end_belong_to_the_run(
    opening: datetime, ended_at: datetime | None, holds: bool
) -> None:
    assert WindowReservation(run_id=RUN, since=NOW, ended_at=ended_at).holds(opening) is holds


def test_a_carry_over_counts_from_its_first_request() -> None:
    carrying = ScheduleOverrides().carrying(RUN, NOW, forget_before=NOW - DAY)
    assert carrying.carrying(RUN, NOW + DAY, forget_before=NOW) is carrying
    assert carrying.window_reservation_of(RUN) == WindowReservation(run_id=RUN, since=NOW)


def test_two_continued_runs_do_not_take_windows_from_each_other() -> None:
    both = ScheduleOverrides().carrying(RUN, NOW, forget_before=NOW).carrying(OTHER, NOW + DAY, forget_before=NOW)
    assert both.carrying(RUN, NOW + 2 * DAY, forget_before=NOW) is both
    first_ended = both.carried(RUN, NOW + 3 * DAY)
    assert first_ended.window_reservation_of(RUN) is None
    still = first_ended.window_reservation_in(NOW + 9 * DAY)
    assert still is not None
    assert still.run_id == OTHER
    used = first_ended.window_reservation_in(NOW + DAY)
    assert used is not None
    assert used.run_id == RUN


def test_the_end_of_a_run_without_carry_over_changes_nothing() -> None:
    carrying = ScheduleOverrides().carrying(RUN, NOW, forget_before=NOW)
    assert carrying.carried(OTHER, NOW) is carrying
    ended = carrying.carried(RUN, NOW + DAY)
    assert ended.carried(RUN, NOW + 2 * DAY) is ended


def test_runs_that_ended_long_ago_are_removed() -> None:
    ended = ScheduleOverrides().carrying(RUN, NOW, forget_before=NOW).carried(RUN, NOW + DAY)
    assert len(ended.carrying(OTHER, NOW + 2 * DAY, forget_before=NOW).window_reservations) == 2
    assert [
        each.run_id for each in ended.carrying(OTHER, NOW + 9 * DAY, forget_before=NOW + 2 * DAY).window_reservations
    ] == [OTHER]


def test_of_two_orders_at_once_one_counts() -> None:
    first = ScheduleOverrides().requesting(RUN, instead_of="")
    assert first.requesting(OTHER, instead_of="") is first
    assert first.requesting(OTHER, instead_of=RUN).requested_run == OTHER
