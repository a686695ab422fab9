"""Orders about policies, and freezes: changed under their ETag, and each change told once in the audit log."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from patchwave.domain.scheduling.freeze import Freeze, parse_freeze
from patchwave.domain.scheduling.overrides import Pause, ScheduleOverrides, Skip, WindowReservation
from patchwave.storage import Records, audit_subject
from tests.support.factories import NOW

RUN, OTHER = "20261110T190000Z-monthly", "20261111T190000Z-monthly-1a2b3c4d"
DAY = timedelta(days=1)


async def lines(records: Records, subject: str = "monthly") -> list[tuple[str, str, Any]]:
    found = (await records.list_audit(subject, 100, None)).items
    return [(line["action"], line["by"], line["detail"]) for line in found]


def pause(by: str) -> Pause:
    return Pause(by=by, reason="audit", at=NOW)


def skip(days: int, by: str = "ann") -> Skip:
    return Skip(occurrence=NOW + days * DAY, by=by, reason="release", at=NOW)


def freeze(**fields: Any) -> Freeze:
    bounds = {"from": "2026-12-20", "to": "2027-01-03", "timeZone": "Europe/Berlin", "reason": "closing"}
    return parse_freeze(bounds | fields, name="year-end")


async def test_a_policy_without_orders(records: Records) -> None:
    assert await records.get_controls("monthly") == ScheduleOverrides()
    assert await records.resume_policy("monthly", by="ann", reason="", at=NOW) == ScheduleOverrides()
    assert await records.end_carry_over("monthly", RUN, NOW) == ScheduleOverrides()
    assert await records.unskip_occurrence("monthly", NOW, by="ann", reason="", at=NOW) == ScheduleOverrides()
    assert await lines(records) == []


async def test_a_pause_lives(records: Records) -> None:
    await records.pause_policy("monthly", pause("ann"))
    again = await records.pause_policy("monthly", pause("bob"))
    assert again.pause == pause("ann")
    assert await records.get_controls("monthly") == again
    assert await records.get_controls("weekly") == ScheduleOverrides()
    resumed = await records.resume_policy("monthly", by="bob", reason="done", at=NOW + DAY)
    assert resumed == await records.get_controls("monthly") == ScheduleOverrides()
    assert await lines(records) == [
        ("policy_paused", "ann", {"reason": "audit"}),
        ("policy_resumed", "bob", {"reason": "done"}),
    ]


async def test_a_line_that_was_lost_is_written_by_the_same_order(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*args: object, **fields: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as worker:
        # It dies behind the first of two writes.
        worker.setattr(records, "audit", die)
        for order in (records.pause_policy("monthly", pause("ann")), records.put_freeze(freeze(), by="ann", at=NOW)):
            await asyncio.gather(order, return_exceptions=True)
    await records.pause_policy("monthly", pause("bob"))
    await records.put_freeze(freeze(), by="bob", at=NOW + DAY)
    assert await lines(records) == [("policy_paused", "ann", {"reason": "audit"})]
    assert [line[:2] for line in await lines(records, audit_subject("year-end"))] == [("freeze_written", "ann")]


async def test_skips_live(records: Records) -> None:
    await records.skip_occurrence("monthly", skip(1))
    both = await records.skip_occurrence("monthly", skip(2, "bob"))
    assert both.skips == [skip(1), skip(2, "bob")]
    assert await records.skip_occurrence("monthly", skip(1, "bob")) == both
    left = await records.unskip_occurrence("monthly", NOW + DAY, by="bob", reason="mistake", at=NOW)
    assert left.skips == [skip(2, "bob")]
    # Lines of one moment come in no order of their own.
    assert sorted(line[:2] for line in await lines(records)) == [
        ("occurrence_skipped", "ann"),
        ("occurrence_skipped", "bob"),
        ("occurrence_skip_removed", "bob"),
    ]


async def test_orders_at_once_are_all_kept(records: Records) -> None:
    await asyncio.gather(
        records.pause_policy("monthly", pause("ann")),
        records.carry_over("monthly", RUN, NOW),
        *(records.skip_occurrence("monthly", skip(day)) for day in range(1, 4)),
    )
    stored = await records.get_controls("monthly")
    assert stored.pause == pause("ann")
    assert {each.occurrence for each in stored.skips} == {NOW + day * DAY for day in range(1, 4)}
    assert stored.carry_over_of(RUN) == WindowReservation(run_id=RUN, since=NOW)


async def test_of_two_runs_ordered_at_once_one_counts(records: Records) -> None:
    order = [records.order_run("monthly", run, instead_of="", by="a", reason="b", at=NOW) for run in (RUN, OTHER)]
    first, second = await asyncio.gather(*order)
    assert first.ordered_run == second.ordered_run in (RUN, OTHER)
    assert [line[0] for line in await lines(records)] == ["run_requested"]


async def test_a_run_goes_on_and_ends(records: Records) -> None:
    await records.carry_over("monthly", RUN, NOW)
    assert (await records.carry_over("monthly", RUN, NOW + DAY)).carry_over_of(RUN) == WindowReservation(
        run_id=RUN, since=NOW
    )
    await records.end_carry_over("monthly", RUN, NOW + DAY)
    await records.end_carry_over("monthly", RUN, NOW + 2 * DAY)
    stored = await records.get_controls("monthly")
    assert stored.carry_overs == [WindowReservation(run_id=RUN, since=NOW, ended_at=NOW + DAY)]
    assert [line[0] for line in await lines(records)] == ["run_deferred_to_next_window", "carry_over_ended"]


async def test_orders_stay_when_the_policy_goes(records: Records) -> None:
    await records.put_policy("monthly", {"name": "monthly"}, if_match=None, if_none_match=True, at=NOW)
    await records.pause_policy("monthly", pause("ann"))
    await records.put_freeze(freeze(), by="ann", at=NOW)
    assert [each.name for each in await records.list_policies()] == ["monthly"]
    assert await records.delete_policy("monthly", if_match=None)
    assert (await records.get_controls("monthly")).pause == pause("ann")


async def test_a_freeze_lives(records: Records) -> None:
    assert await records.list_freezes() == []
    assert await records.put_freeze(freeze(), by="ann", at=NOW)
    assert not await records.put_freeze(freeze(), by="bob", at=NOW + DAY)
    changed = freeze(tags={"values": {"app": ["shop"]}})
    assert not await records.put_freeze(changed, by="bob", at=NOW + DAY)
    assert await records.list_freezes() == [changed]
    assert await records.get_freeze("year-end") == changed
    assert await records.delete_freeze("year-end", by="ann", reason="over", at=NOW + 2 * DAY)
    assert not await records.delete_freeze("year-end", by="ann", reason="over", at=NOW + 2 * DAY)
    assert await records.get_freeze("year-end") is None
    subject = audit_subject("year-end")
    assert await lines(records, subject) == [
        ("freeze_written", "ann", freeze().to_wire()),
        ("freeze_written", "bob", changed.to_wire()),
        ("freeze_deleted", "ann", {"reason": "over"}),
    ]
