"""Leases whose holder is done with the machine, and ends that were cut off behind the final row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from patchwave.domain.core.ids import RunId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import RunState
from patchwave.storage import Storage
from patchwave.storage.engine.client import TableRequests
from patchwave.storage.engine.rows import Change, Row
from patchwave.storage.engine.table import Table
from tests.support.factories import NOW, RUN, machine, run

OTHER = "20261111T190000Z-weekly"
KEY = machine(1).key
HOUR = timedelta(hours=1)
PATCHED = Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="3 patches installed.")
LEFT_RUNNING = Outcome(outcome=OutcomeKind.LEFT_RUNNING, reason=Reason.CANCELED_BY_USER, message="It goes on.")
LOST = Outcome(outcome=OutcomeKind.UNKNOWN, reason=Reason.INTERNAL, message="Look at it.")


async def started(storage: Storage, run_id: str = RUN) -> None:
    await storage.runs.create(run(id=run_id))
    await storage.runs.start(run_id, NOW)
    await storage.machines.add(run_id, [machine(1)])
    assert await storage.leases.acquire(KEY, run_id, NOW, NOW + 5 * HOUR) == run_id


async def taken_by_other(storage: Storage, at: timedelta = HOUR) -> str:
    return await storage.leases.acquire(KEY, OTHER, NOW + at, NOW + at + HOUR)


async def test_a_live_run_that_works_on_the_machine_keeps_its_lease(storage: Storage) -> None:
    await started(storage)
    await storage.machines.update(RUN, KEY, Stage.INSTALLING)
    assert await taken_by_other(storage) == RUN


async def test_a_lease_of_a_run_that_has_ended_is_none(storage: Storage) -> None:
    await started(storage)
    await storage.runs.close(RUN, RunState.FAILED, "It failed itself.", NOW)
    assert await taken_by_other(storage) == OTHER
    assert await storage.leases.held([KEY], OTHER, NOW + HOUR) == {KEY}


async def test_a_lease_of_a_machine_that_its_live_run_has_ended_is_none(storage: Storage) -> None:
    await started(storage)
    await storage._store.results.merge(
        RUN,
        f"m~{KEY}",
        {
            "stage": "done",
            "outcome": "patched",
            "reason": "ok",
            "message": "done",
            "endedAt": "2026-11-10T19:30:00.000Z",
        },
    )
    assert await taken_by_other(storage) == OTHER
    [told] = (await storage.history.list_page(KEY, 10, None)).items
    assert (told["runId"], told["outcome"], told["at"]) == (RUN, "patched", "2026-11-10T19:30:00.000Z")


@pytest.mark.parametrize("is_over", [False, True])
async def test_the_lease_of_a_machine_in_which_something_may_still_run_stays_until_it_runs_out(
    storage: Storage, *, is_over: bool
) -> None:
    await started(storage)
    await storage.results.record_outcome(RUN, KEY, LEFT_RUNNING, at=NOW, installation=None, patches=[], release=False)
    if is_over:
        await storage.runs.close(RUN, RunState.CANCELED, "Cancelled on request.", NOW)
    await storage.finalizers.complete(RUN)
    assert await taken_by_other(storage) == RUN
    assert await taken_by_other(storage, 5 * HOUR) == OTHER


async def test_a_run_that_was_closed_over_an_installation_keeps_its_lease(storage: Storage) -> None:
    await started(storage)
    await storage.machines.update(RUN, KEY, Stage.INSTALLING)
    await storage.results.record_outcomes(RUN, [KEY], LOST, NOW)
    await storage.runs.close(RUN, RunState.FAILED, "It failed itself.", NOW)
    await storage.finalizers.complete(RUN)
    assert await taken_by_other(storage) == RUN


@pytest.mark.parametrize("outcome", [Outcome.canceled(), Outcome.skipped(Reason.ERROR_BUDGET, "Not started.")])
async def test_a_machine_that_nothing_was_sent_to_is_free_when_its_run_is_closed(
    storage: Storage, outcome: Outcome
) -> None:
    await started(storage)
    await storage.results.record_outcomes(RUN, [KEY], outcome, NOW)
    await storage.finalizers.complete(RUN)
    assert await storage.leases.held([KEY], RUN, NOW) == set()
    assert await taken_by_other(storage) == OTHER


async def test_a_lease_of_an_unknown_holder_is_respected(storage: Storage) -> None:
    assert await storage.leases.holder(KEY, NOW) == ""
    assert await storage.leases.acquire(KEY, "run-a", NOW, NOW + 5 * HOUR) == "run-a"
    assert [await storage.leases.holder(KEY, NOW + hours * HOUR) for hours in (0, 4, 5)] == ["run-a", "run-a", ""]
    assert await taken_by_other(storage) == "run-a"
    assert await storage.leases.acquire(machine(2).key, RUN, NOW, NOW + 5 * HOUR) == RUN
    assert await storage.leases.acquire(machine(2).key, OTHER, NOW, NOW + HOUR) == RUN, "a run without a row"


async def test_only_a_collision_reads_the_holder(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    await started(storage)
    reads: list[str] = []
    get = TableRequests.get

    async def counted(table: TableRequests, partition: str, key: str, select: list[str] | None) -> Row | None:
        reads.append(partition)
        return await get(table, partition, key, select)

    monkeypatch.setattr(TableRequests, "get", counted)
    assert await storage.leases.acquire(machine(2).key, OTHER, NOW, NOW + HOUR) == OTHER
    assert await storage.leases.acquire(KEY, RUN, NOW, NOW + 6 * HOUR) == RUN
    assert reads == []
    assert await taken_by_other(storage) == RUN
    assert reads == ["machines", RUN, "runs"]


async def test_an_end_that_is_complete_is_not_written_again(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    await started(storage)
    await storage.machines.add(RUN, [machine(number) for number in range(2, 6)])
    for number in range(1, 6):
        key = machine(number).key
        await storage.results.record_outcome(RUN, key, PATCHED, at=NOW, installation=None, patches=[], release=True)
    written: list[Change] = []
    apply = Table.apply

    async def counted(table: Table, partition: str, changes: Sequence[Change]) -> list[str]:
        written.extend(changes)
        return await apply(table, partition, changes)

    monkeypatch.setattr(Table, "apply", counted)
    assert await storage.finalizers.complete(RUN) == 0
    assert written == []
    await storage._store.machines.delete("machines", f"f~{KEY}", (await row_of(storage, f"f~{KEY}")).etag)
    written.clear()
    assert await storage.finalizers.complete(RUN) == 1
    assert [change.key[:2] for change in written] == ["h~", "f~"]


async def row_of(storage: Storage, key: str) -> Row:
    row = await storage._store.machines.get("machines", key)
    assert row is not None
    return row


async def test_more_ends_than_a_page_are_completed(storage: Storage) -> None:
    machines = [machine(number) for number in range(620)]
    await storage.machines.add(RUN, machines)
    columns = {"stage": "done", "outcome": "canceled", "reason": "canceled_by_user", "message": "", "endedAt": AT}
    for one in machines:
        await storage._store.results.merge(RUN, f"m~{one.key}", columns)
    assert await storage.finalizers.complete(RUN) == 620
    for number in (0, 300, 619):
        assert len((await storage.history.list_page(machine(number).key, 10, None)).items) == 1


AT = "2026-11-10T19:30:00.000Z"


async def test_a_newer_end_of_another_run_stays_the_latest_state(storage: Storage) -> None:
    await started(storage)
    row = {"stage": "done", "outcome": "failed", "reason": "internal", "message": "late", "endedAt": AT}
    await storage._store.results.merge(RUN, f"m~{KEY}", row)
    newer = RunId.of(NOW + 24 * HOUR, "monthly").text
    await storage.machines.add(newer, [machine(1)])
    await storage.results.record_outcome(
        newer, KEY, PATCHED, at=NOW + 24 * HOUR, installation=None, patches=[], release=True
    )
    assert await storage.finalizers.complete(RUN) == 1
    assert [each["outcome"] for each in (await storage.history.list_fleet(10, None)).items] == ["patched"]
    told = (await storage.history.list_page(KEY, 10, None)).items
    assert [each["outcome"] for each in told] == ["patched", "failed"]
