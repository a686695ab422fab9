"""The index of runs that have not ended, and the counts of a run that goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from patchwave.domain.core.ids import RunId
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import RunState
from patchwave.storage import LiveRun, Storage
from patchwave.storage.engine.client import TableRequests
from patchwave.storage.engine.rows import Row
from patchwave.storage.runs import RunRepository
from tests.support.factories import NOW, RUN, machine, run, stored_run

DAY = timedelta(days=1)


async def entries(storage: Storage) -> list[str]:
    return [each.run_id for each in await storage.runs.list_watched()]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the service; a scan is one for each thousand rows."""
    found: list[str] = []
    get, scan = TableRequests.get, TableRequests.scan

    async def counted_get(table: TableRequests, partition: str, key: str, select: Sequence[str] | None) -> Row | None:
        found.append(f"get {partition}")
        return await get(table, partition, key, select)

    async def counted_scan(
        table: TableRequests, terms: Sequence[str], values: dict[str, Any], select: Sequence[str] | None, page: int
    ) -> AsyncIterator[Row]:
        rows = 0
        async for row in scan(table, terms, values, select, page):
            if rows % 1000 == 0:
                found.append(f"scan {values['partition']}")
            rows += 1
            yield row

    monkeypatch.setattr(TableRequests, "get", counted_get)
    monkeypatch.setattr(TableRequests, "scan", counted_scan)
    return found


async def test_a_run_is_in_the_index_from_its_creation_until_its_end_is_settled(storage: Storage) -> None:
    made, _ = await storage.runs.create(run())
    assert await storage.runs.list_watched() == [LiveRun(RUN, NOW, made.model_copy(update={"policy_snapshot": None}))]
    assert [each.id for each in await storage.runs.list_live()] == [RUN]
    ended = await storage.runs.close(RUN, RunState.COMPLETED, "done", NOW + DAY)
    assert await storage.runs.list_live() == []
    assert await entries(storage) == [RUN], "what follows the end is not done yet"
    await storage.overrides.reserve_window("monthly", RUN, NOW)
    for _ in range(2):
        await storage.runs.settle(ended)
    assert await entries(storage) == []
    lines = [line for line in (await storage.audit.list_page(RUN, 10, None)).items if line["action"] == "run_ended"]
    assert [(line["at"], line["actor"], line["detail"]) for line in lines] == [
        ("2026-11-11T19:00:00.000Z", "patchwave", {"state": "completed", "reason": "done", "countsByOutcome": {}})
    ]
    [carried] = (await storage.overrides.get("monthly")).window_reservations
    assert carried.ended_at == NOW + DAY


async def test_a_repeated_start_of_a_run_that_has_ended_leaves_no_entry(storage: Storage) -> None:
    await storage.runs.create(run())
    await storage.runs.settle(await storage.runs.close(RUN, RunState.COMPLETED, "", NOW))
    stored, is_new = await storage.runs.create(run())
    assert (stored.state, is_new) == (RunState.COMPLETED, False)
    assert await entries(storage) == []


async def test_a_repeated_start_of_an_unfinished_run_keeps_its_entry(storage: Storage) -> None:
    await storage.runs.create(run())
    await storage.runs.create(run())
    assert await entries(storage) == [RUN]


async def test_an_entry_without_a_run_is_listed(storage: Storage) -> None:
    await storage._store.runs.insert(
        "live", RunId.parse(RUN).row_key, {"runId": RUN, "since": "2026-11-10T19:00:00.000Z"}
    )
    assert await storage.runs.list_watched() == [LiveRun(RUN, NOW, None)]
    assert await storage.runs.list_live() == []
    await storage.live_runs.remove(RUN)
    await storage.live_runs.remove(RUN)
    assert await entries(storage) == []


async def test_live_runs_are_listed_newest_first(storage: Storage) -> None:
    ids = [RunId.of(NOW + number * DAY, "monthly").text for number in range(3)]
    for run_id in ids:
        await storage.runs.create(run(id=run_id))
    assert [each.id for each in await storage.runs.list_live()] == ids[::-1]


async def test_runs_that_have_ended_cost_no_request(storage: Storage, requests: list[str]) -> None:
    """400 days of runs in the table, and two that go on."""
    await asyncio.gather(
        *(
            storage._store.runs.insert("runs", RunId.of(NOW - day * DAY, "old").row_key, {"state": "completed"})
            for day in range(1, 401)
        )
    )
    for name in ("one", "two"):
        await storage.runs.create(run(id=RunId.of(NOW, name).text, policy=name))
    requests.clear()
    assert len(await storage.runs.list_live()) == 2
    assert sorted(requests) == ["get runs", "get runs", "scan live"]


async def test_the_place_of_the_watchdog_is_kept(storage: Storage) -> None:
    assert await storage.live_runs.get_cursor() == ""
    await storage.live_runs.set_cursor(RUN)
    assert await storage.live_runs.get_cursor() == RUN
    await storage.live_runs.set_cursor("")
    assert await storage.live_runs.get_cursor() == ""


async def test_a_small_run_is_counted_whenever_it_is_shown(storage: Storage) -> None:
    await storage.runs.create(run())
    await storage.machines.add(RUN, [machine(number) for number in range(3)])
    first = await storage.runs.get_counted(RUN, NOW)
    assert first is not None
    assert (first.machines, first.counts_by_stage, first.counted_at) == (3, {"waiting": 3}, NOW)
    await storage.machines.update(RUN, machine(1).key, Stage.INSTALLING)
    second = await storage.runs.get_counted(RUN, NOW)
    assert second is not None
    assert second.counts_by_stage == {"waiting": 2, "installing": 1}
    stored = await stored_run(storage, RUN)
    assert stored.counted_at is None


async def test_a_large_run_is_counted_once_in_its_time_by_all_workers(storage: Storage, requests: list[str]) -> None:
    """1,100 machines: for 2.2 seconds, also by another worker."""
    await storage.runs.create(run())
    await storage.machines.add(RUN, [machine(number) for number in range(1_100)])
    requests.clear()
    several = await asyncio.gather(*(storage.runs.get_counted(RUN, NOW) for _ in range(5)))
    assert {each.machines for each in several if each is not None} == {1_100}
    assert requests.count(f"scan {RUN}") == 2
    await storage.results.record_outcomes(RUN, [machine(1).key], Outcome.canceled(), NOW)
    requests.clear()
    soon = await storage.runs.get_counted(RUN, NOW + timedelta(seconds=2))
    assert soon is not None
    assert (soon.machines, soon.counts_by_outcome, soon.counted_at) == (1_100, {}, NOW)
    assert requests == ["get runs"]
    late = await storage.runs.get_counted(RUN, NOW + timedelta(seconds=3))
    assert late is not None
    assert late.counts_by_outcome == {"canceled": 1}
    assert late.counted_at == NOW + timedelta(seconds=3)


async def test_counts_never_take_the_place_of_the_final_ones(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    await storage.runs.create(run())
    await storage.machines.add(RUN, [machine(number) for number in range(501)])
    count = RunRepository.progress

    async def closed_meanwhile(self: RunRepository, run_id: str) -> tuple[dict[str, int], dict[str, int]]:
        counts = await count(self, run_id)
        monkeypatch.setattr(RunRepository, "progress", count)
        keys = [machine(number).key for number in range(501)]
        await storage.results.record_outcomes(RUN, keys, Outcome.canceled(), NOW)
        await self.close(RUN, RunState.CANCELED, "", NOW)
        return counts

    monkeypatch.setattr(RunRepository, "progress", closed_meanwhile)
    shown = await storage.runs.get_counted(RUN, NOW)
    assert shown is not None
    assert shown.counts_by_stage == {"waiting": 501}
    final = await storage.runs.get_counted(RUN, NOW)
    assert final is not None
    assert (final.state, final.counts_by_outcome, final.counted_at) == (RunState.CANCELED, {"canceled": 501}, None)


async def test_no_run_has_no_counts(storage: Storage) -> None:
    assert await storage.runs.get_counted(RUN, NOW) is None
