"""Leases: the rows that keep a machine from being worked on by two runs (safety rule 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from itertools import compress

from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.ids import RunId
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import RunState
from patchwave.storage.engine.entity_codec import pack, unpack
from patchwave.storage.engine.paging import try_read
from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.store import OptimisticRetry, Repository, Store
from patchwave.storage.machine_history import ALL_RUNS, FINAL_ROW, KEEPS_LEASE, LEASE, MachineHistoryRepository
from patchwave.storage.run_patches import MACHINES

_PARALLEL = 100


class LeaseRepository(Repository):
    """Leases: at most one live run works on a machine."""

    def __init__(self, store: Store, history: MachineHistoryRepository) -> None:
        super().__init__(store)
        self._history = history

    async def acquire(
        self, machine_key: str, owner: str, now: datetime, until: datetime, *, lasting: datetime | None = None
    ) -> str:
        """Take or extend the lease of a machine; the owner that holds it afterwards.

        A lease is taken over when it has run out, or when its holder is done with the machine. The holder's rows are
        read only when the lease is another's.

        Args:
            machine_key: of the machine.
            owner: the id of the run.
            now: this moment.
            until: the end of the lease.
            lasting: when the cached lease of the owner lasts until then, it is left as it is, without a request: no
                other owner takes a lease that has not run out.
        """
        async for _ in OptimisticRetry(f"the lease of {machine_key}"):
            holder = await self._acquire(machine_key, owner, now, until, lasting=lasting)
            if holder in (owner, "") or not await self._let_go(machine_key, holder):
                return holder
        return ""

    async def _acquire(
        self, machine_key: str, owner: str, now: datetime, until: datetime, *, lasting: datetime | None = None
    ) -> str:
        """As `acquire`, without asking what the holder does."""
        table, key = self._store.machines, LEASE + machine_key
        columns = pack({"owner": owner, "since": now, "until": until})
        row = table.peek_cache(ALL_RUNS, key)
        if row is not None and row.columns["owner"] != owner:
            # The cached holder may have given it back.
            row = None
        if row is not None and lasting is not None and str(row.columns["until"]) >= format_instant(lasting):
            return owner
        async for _ in OptimisticRetry(f"the lease of {machine_key}"):
            if row is None:
                if await table.insert(ALL_RUNS, key, columns):
                    return owner
                row = await table.get(ALL_RUNS, key)
                if row is None:
                    continue
            holder = str(row.columns["owner"])
            if holder != owner and str(row.columns["until"]) > format_instant(now):
                return holder
            if holder == owner:
                # A repeated step must not shorten what its first execution was granted.
                kept = max(str(row.columns["until"]), columns["until"])
                columns = {**columns, "since": row.columns["since"], "until": kept}
            if await table.replace(ALL_RUNS, key, columns, row.etag):
                return owner
            row = None
        return ""

    async def held(self, keys: Iterable[str], owner: str, now: datetime) -> set[str]:
        """The keys of those machines whose lease the owner holds at that moment."""
        gate = asyncio.Semaphore(_PARALLEL)

        async def is_held(key: str) -> bool:
            async with gate:
                row = await self._store.machines.get_validated(ALL_RUNS, LEASE + key)
            return row is not None and _is_held(row, owner, now)

        wanted = list(keys)
        return set(compress(wanted, await asyncio.gather(*map(is_held, wanted))))

    async def release(self, machine_key: str, owner: str) -> None:
        """Give the lease back; nothing happens when another owner holds it."""
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
        """Whether this process has seen the owner take the lease, and it lasts; no request is sent."""
        row = self._store.machines.peek_cache(ALL_RUNS, LEASE + machine_key)
        return row is not None and _is_held(row, owner, now)

    async def _let_go(self, machine_key: str, holder: str) -> bool:
        """Whether the holder of a lease is done with the machine; then what it left undone is completed."""
        try:
            run_key = RunId.parse(holder).row_key
        except ValueError:
            return False
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
        if run is None or not RunState(run.columns["state"]).is_final:
            return False
        await self.release(machine_key, holder)
        return True


def _is_held(row: Row, owner: str, now: datetime) -> bool:
    return row.columns["owner"] == owner and str(row.columns["until"]) > format_instant(now)
