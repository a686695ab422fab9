"""Orders about policies, and freezes: changed under their ETag, and each change told once in the audit log."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from patchwave.domain.scheduling.freeze import Freeze, parse_freeze
from patchwave.domain.scheduling.overrides import Pause, ScheduleOverrides, Skip, WindowReservation
from patchwave.storage import Storage, audit_subject
from tests.support.factories import NOW

RUN, OTHER = "20261110T190000Z-monthly", "20261111T190000Z-monthly-1a2b3c4d"
DAY = timedelta(days=1)


async def lines(storage: Storage, subject: str = "monthly") -> list[tuple[str, str, Any]]:
    found = (await storage.audit.list_page(subject, 100, None)).items
    return [(line["action"], line["actor"], line["detail"]) for line in found]


def pause(actor: str) -> Pause:
    return Pause(actor=actor, reason="audit", at=NOW)


def skip(days: int, actor: str = "ann") -> Skip:
    return Skip(occurrence=NOW + days * DAY, actor=actor, reason="release", at=NOW)


def freeze(**fields: Any) -> Freeze:
    bounds = {"from": "2026-12-20", "to": "2027-01-03", "timeZone": "Europe/Berlin", "reason": "closing"}
    return parse_freeze(bounds | fields, name="year-end")


async def test_a_policy_without_orders(storage: Storage) -> None:
    assert await storage.overrides.get("monthly") == ScheduleOverrides()
    assert await storage.overrides.resume("monthly", actor="ann", reason="", at=NOW) == ScheduleOverrides()
    assert await storage.overrides.end_window_reservation("monthly", RUN, NOW) == ScheduleOverrides()
    assert await storage.overrides.unskip("monthly", NOW, actor="ann", reason="", at=NOW) == ScheduleOverrides()
    assert await lines(storage) == []


async def test_a_pause_lives(storage: Storage) -> None:
    await storage.overrides.pause("monthly", pause("ann"))
    again = await storage.overrides.pause("monthly", pause("bob"))
    assert again.pause == pause("ann")
    assert await storage.overrides.get("monthly") == again
    assert await storage.overrides.get("weekly") == ScheduleOverrides()
    resumed = await storage.overrides.resume("monthly", actor="bob", reason="done", at=NOW + DAY)
    assert resumed == await storage.overrides.get("monthly") == ScheduleOverrides()
    assert await lines(storage) == [
        ("policy_paused", "ann", {"reason": "audit"}),
        ("policy_resumed", "bob", {"reason": "done"}),
    ]


async def test_a_line_that_was_lost_is_written_by_the_same_order(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*args: object, **fields: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as worker:
        # It dies behind the first of two writes.
        worker.setattr(storage.audit, "add", die)
        for order in (
            storage.overrides.pause("monthly", pause("ann")),
            storage.freezes.put(freeze(), actor="ann", at=NOW),
        ):
            await asyncio.gather(order, return_exceptions=True)
    await storage.overrides.pause("monthly", pause("bob"))
    await storage.freezes.put(freeze(), actor="bob", at=NOW + DAY)
    assert await lines(storage) == [("policy_paused", "ann", {"reason": "audit"})]
    assert [line[:2] for line in await lines(storage, audit_subject("year-end"))] == [("freeze_written", "ann")]


async def test_skips_live(storage: Storage) -> None:
    await storage.overrides.skip("monthly", skip(1))
    both = await storage.overrides.skip("monthly", skip(2, "bob"))
    assert both.skips == [skip(1), skip(2, "bob")]
    assert await storage.overrides.skip("monthly", skip(1, "bob")) == both
    left = await storage.overrides.unskip("monthly", NOW + DAY, actor="bob", reason="mistake", at=NOW)
    assert left.skips == [skip(2, "bob")]
    # Lines of one moment come in no order of their own.
    assert sorted(line[:2] for line in await lines(storage)) == [
        ("occurrence_skip_removed", "bob"),
        ("occurrence_skipped", "ann"),
        ("occurrence_skipped", "bob"),
    ]


async def test_orders_at_once_are_all_kept(storage: Storage) -> None:
    await asyncio.gather(
        storage.overrides.pause("monthly", pause("ann")),
        storage.overrides.reserve_window("monthly", RUN, NOW),
        *(storage.overrides.skip("monthly", skip(day)) for day in range(1, 4)),
    )
    stored = await storage.overrides.get("monthly")
    assert stored.pause == pause("ann")
    assert {each.occurrence for each in stored.skips} == {NOW + day * DAY for day in range(1, 4)}
    assert stored.window_reservation_of(RUN) == WindowReservation(run_id=RUN, since=NOW)


async def test_of_two_runs_ordered_at_once_one_counts(storage: Storage) -> None:
    order = [
        storage.overrides.request_run("monthly", run, instead_of="", actor="a", reason="b", at=NOW)
        for run in (RUN, OTHER)
    ]
    first, second = await asyncio.gather(*order)
    assert first.requested_run == second.requested_run in (RUN, OTHER)
    assert [line[0] for line in await lines(storage)] == ["run_requested"]


async def test_a_run_goes_on_and_ends(storage: Storage) -> None:
    await storage.overrides.reserve_window("monthly", RUN, NOW)
    assert (await storage.overrides.reserve_window("monthly", RUN, NOW + DAY)).window_reservation_of(
        RUN
    ) == WindowReservation(run_id=RUN, since=NOW)
    await storage.overrides.end_window_reservation("monthly", RUN, NOW + DAY)
    await storage.overrides.end_window_reservation("monthly", RUN, NOW + 2 * DAY)
    stored = await storage.overrides.get("monthly")
    assert stored.window_reservations == [WindowReservation(run_id=RUN, since=NOW, ended_at=NOW + DAY)]
    assert [line[0] for line in await lines(storage)] == ["run_deferred_to_next_window", "window_reservation_ended"]


async def test_orders_stay_when_the_policy_goes(storage: Storage) -> None:
    await storage.policies.put("monthly", {"name": "monthly"}, if_match=None, if_none_match=True, at=NOW)
    await storage.overrides.pause("monthly", pause("ann"))
    await storage.freezes.put(freeze(), actor="ann", at=NOW)
    assert [each.name for each in await storage.policies.list_all()] == ["monthly"]
    assert await storage.policies.delete("monthly", if_match=None)
    assert (await storage.overrides.get("monthly")).pause == pause("ann")


async def test_a_freeze_lives(storage: Storage) -> None:
    assert await storage.freezes.list_all() == []
    assert await storage.freezes.put(freeze(), actor="ann", at=NOW)
    assert not await storage.freezes.put(freeze(), actor="bob", at=NOW + DAY)
    changed = freeze(tags={"values": {"app": ["shop"]}})
    assert not await storage.freezes.put(changed, actor="bob", at=NOW + DAY)
    assert await storage.freezes.list_all() == [changed]
    assert await storage.freezes.get("year-end") == changed
    assert await storage.freezes.delete("year-end", actor="ann", reason="over", at=NOW + 2 * DAY)
    assert not await storage.freezes.delete("year-end", actor="ann", reason="over", at=NOW + 2 * DAY)
    assert await storage.freezes.get("year-end") is None
    subject = audit_subject("year-end")
    assert await lines(storage, subject) == [
        ("freeze_written", "ann", freeze().to_wire()),
        ("freeze_written", "bob", changed.to_wire()),
        ("freeze_deleted", "ann", {"reason": "over"}),
    ]
