"""What an end leaves behind outside its run: completed by whatever reads it next, when a worker died in between.

A machine's final row is written first, in the partition of its run. Its history, the fleet's latest state and the end
of its lease follow, in one transaction of another table. Between the two a worker may die.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from patchwave.domain.core.ids import RunId
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import RunState
from patchwave.storage.engine.entity_codec import Columns, unpack, wire_names
from patchwave.storage.engine.paging import KeyRange, try_read
from patchwave.storage.engine.rows import Change, Row
from patchwave.storage.engine.store import OptimisticRetry
from patchwave.storage.engine.table import throttled_batches
from patchwave.storage.intents import ALL_RUNS, LEASE
from patchwave.storage.machine_history import FLEET, HistoryRecords, history_change, says_something
from patchwave.storage.run_patches import MACHINES

KEEPS_LOCK = "keepsLock"
"""Column of a final row: something may still run in the guest, so that the lease stays until it runs out."""
_STILL_RUNNING = frozenset({OutcomeKind.UNKNOWN, OutcomeKind.TIMED_OUT, OutcomeKind.LEFT_RUNNING})
_READ = [*wire_names(MachineRecord, without=["tags"]), KEEPS_LOCK]
_PAGE = 500
_PARALLEL = 100


class EndRecords(HistoryRecords):
    """Ends that were cut off behind the final row."""

    async def acquire_lease(
        self, machine_key: str, owner: str, now: datetime, until: datetime, *, lasting: datetime | None = None
    ) -> str:
        """As `LeaseRecords.acquire_lease`, and a lease that its holder has done with is none.

        The holder is asked only when the lease is another's: its row of the machine, and its own row.
        """
        async for _ in OptimisticRetry(f"the lease of {machine_key}"):
            holder = await super().acquire_lease(machine_key, owner, now, until, lasting=lasting)
            if holder in (owner, "") or not await self._let_go(machine_key, holder):
                return holder
        return ""

    async def complete_ends(self, run_id: str) -> int:
        """Write what the ends of the run's machines lack outside of it; for how many something may have been missing.

        Three scans, and nothing more when nothing is missing: the run's machines, the leases, and the fleet's latest
        states. Ends that say nothing about the machine have no latest state; their history is written again.
        """
        held = await self._held_by(run_id)
        span = KeyRange(run_id, MACHINES)
        page: list[Row] = []
        completed = 0
        async for row in self._store.results.scan(run_id, first=span.first, end=span.end, select=_READ):
            if "outcome" in row.columns:
                page.append(row)
            if len(page) == _PAGE:
                completed += await self._complete(run_id, page, held)
                page = []
        return completed + await self._complete(run_id, page, held)

    async def _complete(self, run_id: str, page: list[Row], held: set[str]) -> int:
        """The same for some of its machines, which have ended."""
        if not page:
            return 0
        told = await self._told(page[0], page[-1])
        histories: list[Change] = []
        again: list[tuple[MachineRecord, bool]] = []
        for row in page:
            machine = try_read(run_id, row, lambda row: unpack(MachineRecord, row.columns))
            if machine is None or machine.ended_at is None:
                continue
            release = machine.key in held and not row.columns.get(KEEPS_LOCK)
            newest = told.get(machine.key)
            at = str(row.columns["endedAt"])
            if newest == (run_id, at) and not release:
                # History and latest state are one transaction.
                continue
            is_newer = newest is None or newest[1] < at
            if release or (is_newer and says_something(machine)):
                again.append((machine, release))
            else:
                histories.append(history_change(run_id, machine))
        gate = asyncio.Semaphore(_PARALLEL)

        async def publish(machine: MachineRecord, release: bool) -> None:
            async with gate:
                await self._publish(run_id, machine, release=release)

        await asyncio.gather(*(publish(machine, release) for machine, release in again))
        async for batch in throttled_batches(histories):
            await self._store.machines.apply(ALL_RUNS, batch)
        return len(again) + len(histories)

    async def _told(self, first: Row, last: Row) -> dict[str, tuple[str, str]]:
        """The newest end that the fleet knows of each machine between two of them: run and time."""
        keys = [FLEET + row.key.removeprefix(MACHINES) for row in (first, last)]
        rows = self._store.machines.scan(ALL_RUNS, first=keys[0], end=keys[1] + " ", select=["runId", "at"])
        return {
            row.key.removeprefix(FLEET): (str(row.columns.get("runId", "")), str(row.columns.get("at", "")))
            async for row in rows
        }

    async def _held_by(self, run_id: str) -> set[str]:
        """The machines whose lease the run has, also one that has run out."""
        span = KeyRange(ALL_RUNS, LEASE)
        rows = self._store.machines.scan(ALL_RUNS, first=span.first, end=span.end, select=["owner"])
        return {row.key.removeprefix(LEASE) async for row in rows if row.columns.get("owner") == run_id}

    async def _let_go(self, machine_key: str, holder: str) -> bool:
        """Whether the holder of a lease is done with the machine; what it left out is completed then."""
        try:
            run_key = RunId.parse(holder).row_key
        except ValueError:
            return False
        row = await self._store.results.get(holder, MACHINES + machine_key, _READ)
        if row is not None and "outcome" in row.columns:
            if row.columns.get(KEEPS_LOCK):
                return False
            machine = try_read(holder, row, lambda row: unpack(MachineRecord, row.columns))
            if machine is None:
                await self.release_lease(machine_key, holder)
            else:
                await self._publish(holder, machine, release=True)
            return True
        run = await self._store.runs.get("runs", run_key, ["state"])
        if run is None or not RunState(run.columns["state"]).is_final:
            return False
        await self.release_lease(machine_key, holder)
        return True


def lock_column(*, is_kept: bool) -> Columns:
    """What a final row says of the machine's lease."""
    return {KEEPS_LOCK: True} if is_kept else {}


def may_still_run(outcome: OutcomeKind) -> bool:
    """Whether a machine that ended so may still be worked on by Azure."""
    return outcome in _STILL_RUNNING
