"""Completes what follows a machine's final row, when a worker died before writing it.

A machine's final row comes first, in the partition of its run. History, the fleet's latest state and the release of the
lease follow, in one transaction of another table. A worker may die between the two.
"""

from __future__ import annotations

from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.storage.engine.entity_codec import unpack
from patchwave.storage.engine.paging import try_read
from patchwave.storage.engine.parallel import in_parallel
from patchwave.storage.engine.rows import BATCH_ROWS, Change, Row
from patchwave.storage.engine.store import Repository, Store
from patchwave.storage.engine.table import throttled_batches
from patchwave.storage.machine_history import (
    ALL_RUNS,
    FINAL_ROW,
    FLEET,
    KEEPS_LEASE,
    LEASE,
    MachineHistoryRepository,
    history_change,
    says_something,
)
from patchwave.storage.run_patches import MACHINES

_PAGE = 500


class FinalizerRepository(Repository):
    """Finds and completes interrupted ends of machines."""

    def __init__(self, store: Store, history: MachineHistoryRepository) -> None:
        super().__init__(store)
        self._history = history

    async def complete(self, run_id: str) -> int:
        """Write missing copies of the final rows of a run; returns how many machines may have lacked some.

        Costs three scans when nothing is missing: machines, leases, and the fleet's latest states. Ends that say
        nothing about the machine have no latest state; their history is written again.
        """
        held = await self._held_by(run_id)
        page: list[Row] = []
        completed = 0
        async for row in self._store.results.scan(run_id, prefix=MACHINES, select=FINAL_ROW):
            if "outcome" in row.columns:
                page.append(row)
            if len(page) == _PAGE:
                completed += await self._complete_page(run_id, page, held)
                page = []
        return completed + await self._complete_page(run_id, page, held)

    async def _complete_page(self, run_id: str, page: list[Row], held: set[str]) -> int:
        """`complete` for a page of machines with an outcome."""
        if not page:
            return 0
        newest_ends = await self._newest_ends(page[0], page[-1])
        histories: list[Change] = []
        again: list[tuple[MachineRecord, bool]] = []
        for row in page:
            machine = try_read(run_id, row, lambda row: unpack(MachineRecord, row.columns))
            if machine is None or machine.ended_at is None:
                continue
            release = machine.key in held and not row.columns.get(KEEPS_LEASE)
            newest = newest_ends.get(machine.key)
            at = str(row.columns["endedAt"])
            if newest == (run_id, at) and not release:
                # History and latest state share a transaction.
                continue
            is_newer = newest is None or newest[1] < at
            if release or (is_newer and says_something(machine)):
                again.append((machine, release))
            else:
                histories.append(history_change(run_id, machine))

        async def publish(end: tuple[MachineRecord, bool]) -> None:
            machine, release = end
            await self._history.publish(run_id, machine, release=release)

        await in_parallel(publish, again, most=BATCH_ROWS)
        async for batch in throttled_batches(histories):
            await self._store.machines.apply(ALL_RUNS, batch)
        return len(again) + len(histories)

    async def _newest_ends(self, first: Row, last: Row) -> dict[str, tuple[str, str]]:
        """The newest ends in the fleet's latest states, for a range of machines: run and time."""
        keys = [FLEET + row.key.removeprefix(MACHINES) for row in (first, last)]
        rows = self._store.machines.scan(ALL_RUNS, first=keys[0], end=keys[1] + " ", select=["runId", "at"])
        return {
            row.key.removeprefix(FLEET): (str(row.columns.get("runId", "")), str(row.columns.get("at", "")))
            async for row in rows
        }

    async def _held_by(self, run_id: str) -> set[str]:
        """The machines whose lease the run holds, expired ones included."""
        rows = self._store.machines.scan(ALL_RUNS, prefix=LEASE, select=["owner"])
        return {row.key.removeprefix(LEASE) async for row in rows if row.columns.get("owner") == run_id}
