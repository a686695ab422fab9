"""Runs: created once, changed under their ETag, listed newest first."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from patchwave.domain.core.command import InvalidTransition
from patchwave.domain.core.outcome import Outcome, Reason
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Mode, RunState
from patchwave.storage import InvalidCursor, RecordMissing, RecordTooLarge, Storage
from tests.support.factories import NOW, RUN, command, machine, run, stored_run


async def test_a_run_is_created_once_and_the_first_one_stays(storage: Storage) -> None:
    first, created = await storage.runs.create(run())
    assert created
    assert first.id == RUN
    again, created = await storage.runs.create(run(mode=Mode.ASSESS))
    assert not created
    assert again == first
    assert await storage.runs.get(RUN) == first


async def test_of_many_triggers_at_once_one_creates_the_run(storage: Storage) -> None:
    answers = await asyncio.gather(*(storage.runs.create(run()) for _ in range(8)))
    assert sum(created for _, created in answers) == 1
    assert {stored.id for stored, _ in answers} == {RUN}


async def test_an_unknown_run_is_none(storage: Storage) -> None:
    assert await storage.runs.get(RUN) is None
    assert not await storage.runs.is_canceled(RUN)
    with pytest.raises(RecordMissing):
        await storage.runs.start(RUN, NOW)
    with pytest.raises(RecordMissing):
        await storage.runs.cancel(RUN, command())


async def test_runs_are_listed_newest_first_page_by_page_without_snapshots(storage: Storage) -> None:
    for day in range(7):
        await storage.runs.create(run(NOW + timedelta(days=day)))
    seen: list[str] = []
    cursor = None
    pages = 0
    while pages == 0 or cursor:
        page = await storage.runs.list_page(3, cursor)
        assert all(item.policy_snapshot is None for item in page.items)
        seen += [item.id for item in page.items]
        cursor = page.cursor
        pages += 1
    assert pages == 3
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 7


async def test_the_last_page_is_known_to_be_the_last(storage: Storage) -> None:
    for day in range(3):
        await storage.runs.create(run(NOW + timedelta(days=day)))
    assert (await storage.runs.list_page(3, None)).cursor is None


@pytest.mark.parametrize("cursor", ["", "!", "Zm9v' or 1 eq 1", "ﬀ", "AA", "L2V0Yy9wYXNzd2Q", "x" * 5000])
async def test_a_cursor_that_was_not_handed_out_is_refused(storage: Storage, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        await storage.runs.list_page(3, cursor)
    with pytest.raises(InvalidCursor):
        await storage.machines.list_page(RUN, outcome=None, limit=3, cursor=cursor)


async def test_a_cursor_of_another_list_is_refused(storage: Storage) -> None:
    for day in range(3):
        await storage.runs.create(run(NOW + timedelta(days=day)))
    cursor = (await storage.runs.list_page(1, None)).cursor
    with pytest.raises(InvalidCursor):
        await storage.machines.list_page(RUN, outcome=None, limit=3, cursor=cursor)


async def test_starting_is_idempotent(storage: Storage) -> None:
    await storage.runs.create(run())
    started = await storage.runs.start(RUN, NOW)
    assert started.state is RunState.RUNNING
    assert started.policy_snapshot
    again = await storage.runs.start(RUN, NOW + timedelta(hours=1))
    assert again == started == await storage.runs.get(RUN)


async def test_closing_counts_the_machines_and_happens_once(storage: Storage) -> None:
    await storage.runs.create(run())
    await storage.machines.add(RUN, [machine(number) for number in range(5)])
    keys = [machine(number).key for number in range(5)]
    await storage.results.record_outcomes(RUN, keys[:2], Outcome.canceled(), NOW)
    skipped = Outcome.skipped(Reason.NOT_RUNNING, "Start it.")
    await storage.results.record_outcome(RUN, keys[2], skipped, at=NOW, installation=None, patches=[])
    closed = await storage.runs.close(RUN, RunState.CANCELED, "asked for", NOW)
    assert closed.state is RunState.CANCELED
    assert closed.machines == 5
    assert closed.counts_by_outcome == {"skipped": 1, "canceled": 2}
    assert closed.counts_by_stage == {"waiting": 2, "done": 3}
    again = await storage.runs.close(RUN, RunState.COMPLETED, "", NOW + timedelta(hours=1))
    assert again == closed == await storage.runs.get(RUN)


async def test_the_first_cancel_wins_and_a_final_run_takes_none(storage: Storage) -> None:
    await storage.runs.create(run())
    assert not await storage.runs.is_canceled(RUN)
    first = await storage.runs.cancel(RUN, command())
    second = await storage.runs.cancel(RUN, command(actor="ben", at=NOW + timedelta(minutes=1)))
    assert first == second
    assert first.cancel_requested_at == second.cancel_requested_at == NOW
    assert await storage.runs.is_canceled(RUN)
    other = run(NOW + timedelta(days=1))
    await storage.runs.create(other)
    await storage.runs.close(other.id, RunState.EMPTY, "nothing matched", NOW)
    with pytest.raises(InvalidTransition, match="empty"):
        await storage.runs.cancel(other.id, command())
    assert not await storage.runs.is_canceled(other.id)


async def test_a_cancel_survives_a_start_and_a_close_at_the_same_time(storage: Storage) -> None:
    await storage.runs.create(run())
    await asyncio.gather(
        storage.runs.start(RUN, NOW),
        storage.runs.cancel(RUN, command()),
        storage.runs.set_machine_count(RUN, 1),
    )
    stored = await stored_run(storage, RUN)
    assert stored.state is RunState.RUNNING
    assert stored.cancel_requested_at == NOW
    assert stored.machines == 1


async def test_progress_is_counted_from_the_machines(storage: Storage) -> None:
    await storage.runs.create(run())
    await storage.machines.add(RUN, [machine(number) for number in range(4)])
    await storage.machines.update(RUN, machine(0).key, Stage.INSTALLING)
    await storage.results.record_outcomes(RUN, [machine(1).key], Outcome.canceled(), NOW)
    assert await storage.runs.progress(RUN) == (
        {"canceled": 1},
        {"waiting": 2, "installing": 1, "done": 1},
    )
    assert await storage.runs.progress("20200101T000000Z-none") == ({}, {})


async def test_a_large_policy_snapshot_is_kept_whole(storage: Storage) -> None:
    ids = [f"/subscriptions/{number:08d}/ünïcode-{'x' * 200}" for number in range(900)]
    snapshot = {"scope": {"machines": ids}, "note": "😀" * 20_000}
    await storage.runs.create(run(policy_snapshot=snapshot))
    stored = await stored_run(storage, RUN)
    assert stored.policy_snapshot == snapshot
    assert (await storage.runs.list_page(1, None)).items[0].policy_snapshot is None


async def test_a_snapshot_over_the_limit_of_an_entity_is_refused_and_not_cut(storage: Storage) -> None:
    with pytest.raises(RecordTooLarge, match="policySnapshot"):
        await storage.runs.create(run(policy_snapshot={"note": "x" * 500_000}))
    assert await storage.runs.get(RUN) is None


@pytest.mark.parametrize("run_id", ["", "x", "20261110T190000Z-a/b", "20261110T190000Z-a'", "../runs"])
async def test_a_text_that_is_no_run_id_never_becomes_a_key(storage: Storage, run_id: str) -> None:
    with pytest.raises(ValueError, match="not a run id"):
        await storage.runs.get(run_id)
