"""Write batching: the same rows and the same answers as one by one, in fewer transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.storage import Storage, StorageUnreachable
from patchwave.storage.engine.batching import batching
from patchwave.storage.engine.rows import BATCH_ROWS, Change, Conflict
from patchwave.storage.engine.write_batcher import WriteBatcher
from patchwave.storage.errors import RecordTooLarge
from tests.integration.storage.fake_service import FakeService

_KEYS = [f"row-{number}" for number in range(6)]

type Answer = str


def _insert(key: str, value: int = 0) -> Change:
    return Change("insert", key, {"value": value})


@st.composite
def _requests(draw: st.DrawFn) -> list[list[Change]]:
    """Requests of one to three rows; their ETags are those of rows as they were in the beginning, or of none."""
    found: list[list[Change]] = []
    for number in range(draw(st.integers(1, 25))):
        keys = draw(st.lists(st.sampled_from(_KEYS), min_size=1, max_size=3, unique=True))
        found.append(
            [
                Change(
                    draw(st.sampled_from(["insert", "merge", "replace"])),
                    key,
                    {"value": number, f"by{number}": True},
                    draw(st.sampled_from(["", f"first-{key}", "stale"])),
                )
                for key in keys
            ]
        )
    return [[change if change.verb != "insert" else _insert(change.key, 1) for change in one] for one in found]


def _service(present: Sequence[str], *, blames_first: bool = False) -> FakeService:
    return FakeService(rows={key: (f"first-{key}", {"value": -1}) for key in present}, blames_first=blames_first)


async def _answer(writes: WriteBatcher, request: list[Change]) -> Answer:
    try:
        etags = await writes.write("partition", request)
    except Conflict:
        return "conflict"
    return f"done {len(etags)}"


async def _grouped(service: FakeService, requests: list[list[Change]]) -> list[Answer]:
    """The answers; no transaction has over 100 changes, or two changes of one row."""
    writes = WriteBatcher(service.commit)
    answers = await asyncio.gather(*(_answer(writes, request) for request in requests))
    assert max(map(len, service.transactions), default=0) <= 100
    assert all(len({change.key for change in changes}) == len(changes) for changes in service.transactions)
    return answers


async def _one_by_one(service: FakeService, requests: list[list[Change]]) -> list[Answer]:
    writes = WriteBatcher(service.commit)
    return [await _answer(writes, request) for request in requests]


def _columns(service: FakeService) -> dict[str, object]:
    return {key: columns for key, (_, columns) in service.rows.items()}


@given(_requests(), st.sets(st.sampled_from(_KEYS)), st.booleans())
def test_rows_and_answers_are_those_of_one_by_one(
    requests: list[list[Change]], present: set[str], blames_first: bool
) -> None:
    """Of different rows, so that no order between callers matters: then everything is the same."""
    taken: set[str] = set()
    apart = [one for one in requests if taken.isdisjoint(change.key for change in one) and not _note(taken, one)]
    together = _service(sorted(present), blames_first=blames_first)
    alone = _service(sorted(present))
    assert asyncio.run(_grouped(together, apart)) == asyncio.run(_one_by_one(alone, apart))
    assert _columns(together) == _columns(alone)


def _note(taken: set[str], request: list[Change]) -> bool:
    taken.update(change.key for change in request)
    return False


@given(_requests(), st.sets(st.sampled_from(_KEYS)))
def test_writes_of_the_same_rows_are_those_of_some_order(requests: list[list[Change]], present: set[str]) -> None:
    """Each row is as the last caller who was told that it is stored has left it, and no caller is told half."""
    service = _service(sorted(present))
    answers = asyncio.run(_grouped(service, requests))
    stored = [request for request, answer in zip(requests, answers, strict=True) if answer != "conflict"]
    for key in _KEYS:
        written = [change for request in stored for change in request if change.key == key]
        assert (key in service.rows) == (bool(written) or key in present)
        if written:
            # Two writes of one row go in the order in which they were asked for.
            assert service.rows[key][1]["value"] == written[-1].columns["value"]
    for request in stored:
        conditions = [change.etag for change in request if change.etag and change.verb != "insert"]
        assert "stale" not in conditions


async def test_concurrent_writes_share_transactions() -> None:
    service = FakeService()
    writes = WriteBatcher(service.commit)
    await asyncio.gather(*(writes.write("p", [_insert(f"r{number}")]) for number in range(250)))
    assert [len(one) for one in service.transactions] == [100, 100, 50]


async def test_writes_within_the_delay_share_a_transaction_and_the_first_is_sent_at_once() -> None:
    service = FakeService()
    writes = WriteBatcher(service.commit, batch_delay=0.2)
    with batching():
        await writes.write("p", [_insert("first")])
        assert [len(one) for one in service.transactions] == [1]
        later = [asyncio.create_task(writes.write("p", [_insert(f"r{number}")])) for number in range(3)]
        await asyncio.sleep(0.02)
        assert len(service.transactions) == 1
        await asyncio.gather(*later, writes.write("p", [_insert("last")]), writes.write("q", [_insert("elsewhere")]))
    assert sorted(len(one) for one in service.transactions) == [1, 1, 4]


async def test_a_full_transaction_is_sent_at_once() -> None:
    service = FakeService()
    writes = WriteBatcher(service.commit, batch_delay=60)
    with batching():
        await writes.write("p", [_insert("first")])
        await asyncio.gather(*(writes.write("p", [_insert(f"r{number}")]) for number in range(BATCH_ROWS)))
    assert [len(one) for one in service.transactions] == [1, 100]


async def test_a_write_without_batching_takes_waiting_ones_along() -> None:
    service = FakeService()
    writes = WriteBatcher(service.commit, batch_delay=60)
    with batching():
        await writes.write("p", [_insert("first")])
        waiting = [asyncio.create_task(writes.write("p", [_insert(f"r{number}")])) for number in range(3)]
    await asyncio.sleep(0.01)
    await writes.write("p", [_insert("person")])
    await asyncio.gather(*waiting)
    assert [len(one) for one in service.transactions] == [1, 4]


async def test_a_write_without_batching_is_sent_as_soon_as_the_row_is_free() -> None:
    """A row that is being written holds up the next write of it, and nothing else does."""
    service = FakeService()
    writes = WriteBatcher(service.commit, batch_delay=60)
    with batching():
        first = asyncio.create_task(writes.write("p", [_insert("row")]))
    await asyncio.sleep(0)
    await asyncio.gather(first, writes.write("p", [Change("merge", "row", {"value": 2})]))
    assert service.rows["row"][1]["value"] == 2


async def test_rows_of_one_write_are_in_one_transaction() -> None:
    service = FakeService()
    writes = WriteBatcher(service.commit)
    await asyncio.gather(*(writes.write("p", [_insert(f"{n}-{k}") for k in range(30)]) for n in range(7)))
    assert [len(one) for one in service.transactions] == [90, 90, 30]


async def test_a_conflict_of_one_fails_one() -> None:
    service = _service(["row-3"])
    writes = WriteBatcher(service.commit)
    answers = await asyncio.gather(*(_answer(writes, [_insert(key)]) for key in _KEYS))
    assert answers == ["conflict" if key == "row-3" else "done 1" for key in _KEYS]
    assert [len(one) for one in service.transactions] == [6, 1, 5]


async def test_reads_do_not_hold_up_writes() -> None:
    service = _service(_KEYS)
    writes = WriteBatcher(service.commit)
    stale = [[Change("merge", key, {}, "stale")] for key in _KEYS]
    answers = await asyncio.gather(*(_answer(writes, one) for one in stale), _answer(writes, [_insert("new")]))
    assert answers == ["conflict"] * 6 + ["done 1"]
    assert [len(one) for one in service.transactions] == [7, 1]


async def test_a_row_that_is_too_large_fails_alone() -> None:
    service = FakeService()

    async def commit(partition: str, changes: Sequence[Change]) -> list[str]:
        if any(change.key == "large" for change in changes):
            raise RecordTooLarge("too large")
        return await service.commit(partition, changes)

    writes = WriteBatcher(commit)
    found = await asyncio.gather(
        *(writes.write("p", [_insert(key)]) for key in ("a", "large", "b")), return_exceptions=True
    )
    assert [type(one) for one in found] == [list, RecordTooLarge, list]


@pytest.mark.parametrize("is_stored", [True, False])
async def test_an_outage_fails_all_writes(is_stored: bool) -> None:
    service = FakeService(is_lost=lambda number: True)
    if not is_stored:

        async def commit(partition: str, changes: Sequence[Change]) -> list[str]:
            raise StorageUnreachable("down")

        writes = WriteBatcher(commit)
    else:
        writes = WriteBatcher(service.commit)
    found = await asyncio.gather(*(writes.write("p", [_insert(key)]) for key in _KEYS), return_exceptions=True)
    assert [type(one) for one in found] == [StorageUnreachable] * 6


async def test_a_cancelled_caller_cancels_no_other() -> None:
    service = FakeService()
    writes = WriteBatcher(service.commit, batch_delay=0.05)
    with batching():
        await writes.write("p", [_insert("first")])
        tasks = [asyncio.create_task(writes.write("p", [_insert(key)])) for key in _KEYS]
    await asyncio.sleep(0)
    tasks[2].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [list, list, asyncio.CancelledError, list, list, list]
    # Its write had not been sent yet, and is not any more.
    assert "row-2" not in service.rows


async def test_whatever_waits_is_stored_before_the_end() -> None:
    service = FakeService()
    writes = WriteBatcher(service.commit, batch_delay=60)
    with batching():
        tasks = [asyncio.create_task(writes.write("p", [_insert(key)])) for key in ("a", "a-too")]
        await asyncio.sleep(0.01)
        tasks.append(asyncio.create_task(writes.write("p", [_insert("late")])))
    await asyncio.sleep(0)
    await writes.drain()
    await asyncio.gather(*tasks)
    assert set(service.rows) == {"a", "a-too", "late"}


async def test_the_service_agrees(storage: Storage) -> None:
    """Inserts that meet, on the real thing: each key is created by exactly one of those who asked."""
    table = storage._store.results  # pyright: ignore[reportPrivateUsage]: what is tested is below the storage
    answers = await asyncio.gather(*(table.insert("p", f"r{number % 40}", {"by": number}) for number in range(120)))
    assert sum(answers) == 40
    rows = {row.key: row.columns["by"] async for row in table.scan("p")}
    assert all(answers[by] and key == f"r{by % 40}" for key, by in rows.items())
