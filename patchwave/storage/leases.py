"""Leases: rows that keep two runs from working on the same machine (safety rule 6)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import compress

from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.ids import RunId
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import RunState
from patchwave.storage.engine.entity_codec import pack, unpack
from patchwave.storage.engine.paging import try_read
from patchwave.storage.engine.parallel import in_parallel
from patchwave.storage.engine.rows import BATCH_ROWS, Row
from patchwave.storage.engine.store import OptimisticRetry, Repository, Store
from patchwave.storage.machine_history import ALL_RUNS, FINAL_ROW, KEEPS_LEASE, LEASE, MachineHistoryRepository
from patchwave.storage.run_patches import MACHINES


class LeaseRepository(Repository):
    """Leases: at most one live run works on a machine."""

    def __init__(self, store: Store, history: MachineHistoryRepository) -> None:
        super().__init__(store)
        self._history = history

    async def acquire(
        self, machine_key: str, owner: str, now: datetime, until: datetime, *, lasting: datetime | None = None
    ) -> str:
        """Acquire or extend the lease of a machine; returns its owner afterwards.

        A lease is taken over when it has expired, or when its holder is done with the machine. The holder's rows are
        only read when another owner has the lease.

        Args:
            machine_key: of the machine.
            owner: the id of the run.
            now: the current time.
            until: the end of the lease.
            lasting: a cached lease of the owner that lasts until then is left as it is, without a request. No
                other owner takes over a lease that has not expired.
        """
        async for _ in OptimisticRetry(f"the lease of {machine_key}"):
            # A live holder keeps the lease. After its release, the next round tries again.
            holder = await self._acquire(machine_key, owner, now, until, lasting=lasting)
            if holder in (owner, "") or not await self._let_go(machine_key, holder):
                return holder
        return ""

    async def _acquire(
        self, machine_key: str, owner: str, now: datetime, until: datetime, *, lasting: datetime | None = None
    ) -> str:
        """`acquire` without the check of the holder's rows."""
        table, key = self._store.machines, LEASE + machine_key
        columns = pack({"owner": owner, "since": now, "until": until})
        row = table.peek_cache(ALL_RUNS, key)
        if row is not None and row.columns["owner"] != owner:
            # The cached holder may have released it.
            row = None
        if row is not None and lasting is not None and str(row.columns["until"]) >= format_instant(lasting):
            return owner
        async for _ in OptimisticRetry(f"the lease of {machine_key}"):
            if row is None:
                # Free: insert. Otherwise decide by the stored row, and replace it under its ETag.
                if await table.insert(ALL_RUNS, key, columns):
                    return owner
                row = await table.get(ALL_RUNS, key)
                if row is None:
                    continue
            holder = str(row.columns["owner"])
            if holder != owner and str(row.columns["until"]) > format_instant(now):
                return holder
            if holder == owner:
                # Never shorten: a repeated step must keep what its first execution was granted.
                kept = max(str(row.columns["until"]), columns["until"])
                columns = {**columns, "since": row.columns["since"], "until": kept}
            if await table.replace(ALL_RUNS, key, columns, row.etag):
                return owner
            row = None
        return ""

    async def held(self, keys: Iterable[str], owner: str, now: datetime) -> set[str]:
        """The keys of machines whose lease the owner holds at ``now``."""

        async def is_held(key: str) -> bool:
            row = await self._store.machines.get_validated(ALL_RUNS, LEASE + key)
            return row is not None and _is_held(row, owner, now)

        wanted = list(keys)
        return set(compress(wanted, await in_parallel(is_held, wanted, most=BATCH_ROWS)))

    async def holder(self, machine_key: str, now: datetime) -> str:
        """The owner of the machine's lease at ``now``; empty without one. The owner may have ended."""
        row = await self._store.machines.get_validated(ALL_RUNS, LEASE + machine_key)
        return str(row.columns["owner"]) if row is not None and _is_unexpired(row, now) else ""

    async def release(self, machine_key: str, owner: str) -> None:
        """Release the lease; no effect when another owner holds it."""
        table, key = self._store.machines, LEASE + machine_key
        row = table.peek_cache(ALL_RUNS, key)
        async for _ in OptimisticRetry(f"the lease of {machine_key}"):
            if row is None or row.columns["owner"] != owner:
                row = await table.get(ALL_RUNS, key)
            if row is None or row.columns["owner"] != owner:
                return
            if await table.delete(ALL_RUNS, key, row.etag):
                return
            row = None

    def is_cached_holder(self, machine_key: str, owner: str, now: datetime) -> bool:
        """Whether the cache shows an unexpired lease of the owner; sends no request."""
        row = self._store.machines.peek_cache(ALL_RUNS, LEASE + machine_key)
        return row is not None and _is_held(row, owner, now)

    async def _let_go(self, machine_key: str, holder: str) -> bool:
        """Release the lease of a holder that is done with the machine; whether it was. Completes an interrupted end."""
        try:
            run_key = RunId.parse(holder).row_key
        except ValueError:
            return False
        # Done with the machine: its final row has an outcome. An operation may still run, which keeps the lease.
        row = await self._store.results.get(holder, MACHINES + machine_key, FINAL_ROW)
        if row is not None and "outcome" in row.columns:
            if row.columns.get(KEEPS_LEASE):
                return False
            machine = try_read(holder, row, lambda row: unpack(MachineRecord, row.columns))
            if machine is None:
                await self.release(machine_key, holder)
            else:
                await self._history.publish(holder, machine, release=True)
            return True
        run = await self._store.runs.get("runs", run_key, ["state"])
        # Done as a whole: the run has ended.
        if run is None or not RunState(run.columns["state"]).is_final:
            return False
        await self.release(machine_key, holder)
        return True


def _is_held(row: Row, owner: str, now: datetime) -> bool:
    return row.columns["owner"] == owner and _is_unexpired(row, now)


def _is_unexpired(row: Row, now: datetime) -> bool:
    return str(row.columns["until"]) > format_instant(now)
