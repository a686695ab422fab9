"""Runs: created once, changed under their ETag, listed newest first."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from patchwave.domain.core.command import NotPossible
from patchwave.domain.core.outcome import Outcome, Reason
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Mode, RunState
from patchwave.storage import InvalidCursor, RecordMissing, Records, RecordTooLarge
from tests.support.factories import NOW, RUN, machine, order, run


async def test_a_run_is_created_once_and_the_first_one_stays(records: Records) -> None:
    first, created = await records.create_run(run())
    assert created
    assert first.id == RUN
    again, created = await records.create_run(run(mode=Mode.ASSESS))
    assert not created
    assert again == first
    assert await records.get_run(RUN) == first


async def test_of_many_triggers_at_once_one_creates_the_run(records: Records) -> None:
    answers = await asyncio.gather(*(records.create_run(run()) for _ in range(8)))
    assert sum(created for _, created in answers) == 1
    assert {stored.id for stored, _ in answers} == {RUN}


async def test_an_unknown_run_is_none(records: Records) -> None:
    assert await records.get_run(RUN) is None
    assert not await records.is_canceled(RUN)
    with pytest.raises(RecordMissing):
        await records.start_run(RUN, NOW)
    with pytest.raises(RecordMissing):
        await records.request_cancel(RUN, order())


async def test_runs_are_listed_newest_first_page_by_page_without_snapshots(records: Records) -> None:
    for day in range(7):
        await records.create_run(run(NOW + timedelta(days=day)))
    seen: list[str] = []
    cursor = None
    pages = 0
    while pages == 0 or cursor:
        page = await records.list_runs(3, cursor)
        assert all(item.policy_snapshot is None for item in page.items)
        seen += [item.id for item in page.items]
        cursor = page.cursor
        pages += 1
    assert pages == 3
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 7


async def test_the_last_page_is_known_to_be_the_last(records: Records) -> None:
    for day in range(3):
        await records.create_run(run(NOW + timedelta(days=day)))
    assert (await records.list_runs(3, None)).cursor is None


@pytest.mark.parametrize("cursor", ["", "!", "Zm9v' or 1 eq 1", "ﬀ", "AA", "L2V0Yy9wYXNzd2Q", "x" * 5000])
async def test_a_cursor_that_was_not_handed_out_is_refused(records: Records, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        await records.list_runs(3, cursor)
    with pytest.raises(InvalidCursor):
        await records.list_machines(RUN, outcome=None, limit=3, cursor=cursor)


async def test_a_cursor_of_another_list_is_refused(records: Records) -> None:
    for day in range(3):
        await records.create_run(run(NOW + timedelta(days=day)))
    cursor = (await records.list_runs(1, None)).cursor
    with pytest.raises(InvalidCursor):
        await records.list_machines(RUN, outcome=None, limit=3, cursor=cursor)


async def test_starting_is_idempotent(records: Records) -> None:
    await records.create_run(run())
    started = await records.start_run(RUN, NOW)
    assert started.state is RunState.RUNNING
    assert started.policy_snapshot
    again = await records.start_run(RUN, NOW + timedelta(hours=1))
    assert again == started == await records.get_run(RUN)


async def test_closing_counts_the_machines_and_happens_once(records: Records) -> None:
    await records.create_run(run())
    await records.add_machines(RUN, [machine(number) for number in range(5)])
    keys = [machine(number).key for number in range(5)]
    await records.record_outcomes(RUN, keys[:2], Outcome.canceled(), NOW)
    skipped = Outcome.skipped(Reason.NOT_RUNNING, "Start it.")
    await records.record_outcome(RUN, keys[2], skipped, at=NOW, installation=None, patches=[])
    closed = await records.close_run(RUN, RunState.CANCELED, "asked for", NOW)
    assert closed.state is RunState.CANCELED
    assert closed.machines == 5
    assert closed.counts_by_outcome == {"skipped": 1, "canceled": 2}
    assert closed.counts_by_stage == {"waiting": 2, "done": 3}
    again = await records.close_run(RUN, RunState.COMPLETED, "", NOW + timedelta(hours=1))
    assert again == closed == await records.get_run(RUN)


async def test_the_first_cancel_wins_and_a_final_run_takes_none(records: Records) -> None:
    await records.create_run(run())
    assert not await records.is_canceled(RUN)
    first = await records.request_cancel(RUN, order())
    second = await records.request_cancel(RUN, order(by="ben", at=NOW + timedelta(minutes=1)))
    assert first == second
    assert first.cancel_requested_at == second.cancel_requested_at == NOW
    assert await records.is_canceled(RUN)
    other = run(NOW + timedelta(days=1))
    await records.create_run(other)
    await records.close_run(other.id, RunState.EMPTY, "nothing matched", NOW)
    with pytest.raises(NotPossible, match="empty"):
        await records.request_cancel(other.id, order())
    assert not await records.is_canceled(other.id)


async def test_a_cancel_survives_a_start_and_a_close_at_the_same_time(records: Records) -> None:
    await records.create_run(run())
    await asyncio.gather(
        records.start_run(RUN, NOW),
        records.request_cancel(RUN, order()),
        records.note_machines(RUN, 1),
    )
    stored = await records.get_run(RUN)
    assert stored
    assert stored.state is RunState.RUNNING
    assert stored.cancel_requested_at == NOW
    assert stored.machines == 1


async def test_progress_is_counted_from_the_machines(records: Records) -> None:
    await records.create_run(run())
    await records.add_machines(RUN, [machine(number) for number in range(4)])
    await records.set_stage(RUN, machine(0).key, Stage.INSTALLING)
    await records.record_outcomes(RUN, [machine(1).key], Outcome.canceled(), NOW)
    assert await records.run_progress(RUN) == (
        {"canceled": 1},
        {"waiting": 2, "installing": 1, "done": 1},
    )
    assert await records.run_progress("20200101T000000Z-none") == ({}, {})


async def test_a_large_policy_snapshot_is_kept_whole(records: Records) -> None:
    ids = [f"/subscriptions/{number:08d}/ünïcode-{'x' * 200}" for number in range(900)]
    snapshot = {"scope": {"machines": ids}, "note": "😀" * 20_000}
    await records.create_run(run(policy_snapshot=snapshot))
    stored = await records.get_run(RUN)
    assert stored
    assert stored.policy_snapshot == snapshot
    assert (await records.list_runs(1, None)).items[0].policy_snapshot is None


async def test_a_snapshot_over_the_limit_of_an_entity_is_refused_and_not_cut(records: Records) -> None:
    with pytest.raises(RecordTooLarge, match="policySnapshot"):
        await records.create_run(run(policy_snapshot={"note": "x" * 500_000}))
    assert await records.get_run(RUN) is None


@pytest.mark.parametrize("run_id", ["", "x", "20261110T190000Z-a/b", "20261110T190000Z-a'", "../runs"])
async def test_a_text_that_is_no_run_id_never_becomes_a_key(records: Records, run_id: str) -> None:
    with pytest.raises(ValueError, match="not a run id"):
        await records.get_run(run_id)
