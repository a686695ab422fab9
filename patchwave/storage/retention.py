"""Removes expired records, a bounded number of rows per call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime

from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.ids import RunId
from patchwave.domain.fleet.patch_mode_change import ModeChange
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.run import Run
from patchwave.storage.engine.entity_codec import unpack
from patchwave.storage.engine.paging import try_read
from patchwave.storage.engine.rows import Change, Row
from patchwave.storage.engine.store import Repository
from patchwave.storage.engine.table import Table
from patchwave.storage.idempotency import KINDS
from patchwave.storage.machine_history import ALL_RUNS, CATCH_UP, FLEET, HISTORY, LAST_MILLISECOND, LEASE
from patchwave.storage.patch_mode_changes import CHANGES
from patchwave.storage.patch_pins import seen_partition
from patchwave.storage.runs import LISTED
from patchwave.storage.throttling import THROTTLED_BUCKETS

_RUNS = "runs"
_POLICIES = ("policies", "controls")
_FIRST_ID, _BEHIND_IDS = "2", "3"
"""Ids of runs and changes begin with their year; so may policy names, but no other audit subject."""


class RetentionRepository(Repository):
    """Removal of expired records."""

    async def list_runs_before(self, cutoff: datetime) -> AsyncGenerator[Run]:
        """Runs with an id from before ``cutoff``, newest first; without unreadable ones."""
        first = RunId.of(cutoff, "").row_key
        async for row in self._store.runs.scan(_RUNS, first=first, select=LISTED):
            run = try_read(_RUNS, row, lambda row: unpack(Run, row.columns))
            if run is not None:
                yield run

    async def list_mode_changes_before(self, cutoff: datetime) -> AsyncGenerator[ModeChange]:
        """Changes of patch modes with an id from before ``cutoff``, newest first; without unreadable ones."""
        async for row in self._store.runs.scan(CHANGES, first=RunId.of(cutoff, "").row_key):
            change = try_read(CHANGES, row, lambda row: unpack(ModeChange, row.columns))
            if change is not None:
                yield change

    async def purge_mode_change(self, change_id: str, most: int) -> int | None:
        """Remove a change of patch modes, as `purge_run` does with a run."""
        return await self._purge(CHANGES, change_id, most)

    async def purge_run(self, run_id: str, most: int) -> int | None:
        """Remove the rows of a run, its own row last; returns how many, or ``None`` when some are left.

        The next call completes an interrupted one, as long as the run's row exists.
        """
        return await self._purge(_RUNS, run_id, most)

    async def _purge(self, heads: str, run_id: str, most: int) -> int | None:
        removed = 0
        for table in (self._store.results, self._store.audit):
            removed += await _remove(table, run_id, [row async for row in _first(table, run_id, most - removed)])
            if removed == most:
                return None
        await self._store.runs.remove(heads, RunId.parse(run_id).row_key)
        return removed + 1

    async def purge_machines(self, slice_number: int, cutoff: datetime) -> int:
        """Remove old machine data over all runs, for one in 256 machines; returns how many rows.

        That is history, latest states of machines without a later outcome, and expired leases.

        Args:
            slice_number: the first two hexadecimal digits of the machines' keys.
            cutoff: older rows are removed.
        """
        machines, before = self._store.machines, format_instant(cutoff)
        oldest_kept = LAST_MILLISECOND - int(cutoff.timestamp() * 1000)
        histories = self._slice(machines, ALL_RUNS, f"{HISTORY}{slice_number:02x}", [])
        gone = [row async for row in histories if int(row.key.split("~")[2]) > oldest_kept]
        for prefix, column in ((FLEET, "at"), (LEASE, "until"), (CATCH_UP, "at")):
            rows = self._slice(machines, ALL_RUNS, f"{prefix}{slice_number:02x}", [column])
            gone += [row async for row in rows if str(row.columns.get(column, before)) < before]
        return await _remove(machines, ALL_RUNS, gone)

    async def purge_idempotency_keys(self, slice_number: int, cutoff: datetime) -> int:
        """Remove one in 256 of the idempotency keys from before ``cutoff``; returns how many."""
        removed = 0
        for kind in KINDS:
            removed += await self._purge_older(self._store.claims, kind, f"{slice_number:02x}", "at", cutoff)
        return removed

    async def purge_seen(self, slice_number: int, cutoff: datetime) -> int:
        """Remove one in 256 of the packages first seen before ``cutoff``; returns how many.

        A removed package that is still offered counts as new once more; no approval delay is that long.
        """
        removed = 0
        for os_type in OsType:
            partition = seen_partition(os_type)
            removed += await self._purge_older(self._store.seen, partition, f"{slice_number:02x}", "at", cutoff)
        return removed

    async def purge_throttling(self, cutoff: datetime) -> int:
        """Remove buckets whose throttling ended before ``cutoff``; returns how many."""
        return await self._purge_older(self._store.claims, THROTTLED_BUCKETS, "", "until", cutoff)

    async def purge_audit(self, cutoff: datetime) -> int:
        """Remove old entries of policies, freezes, configurations and refused calls; returns how many.

        Entries of runs and of changes of patch modes are removed with those.
        """
        before = format_instant(cutoff)
        audit = self._store.audit
        found = await audit.keys_before(before, end=_FIRST_ID) | await audit.keys_before(before, first=_BEHIND_IDS)
        for kept in _POLICIES:
            async for policy in self._store.policies.scan(kept, first=_FIRST_ID, end=_BEHIND_IDS, select=[]):
                found[policy.key] = [row async for row in audit.scan(policy.key, end=before, select=[])]
        return sum([await _remove(audit, partition, rows) for partition, rows in found.items()])

    async def _purge_older(self, table: Table, partition: str, prefix: str, column: str, cutoff: datetime) -> int:
        before = format_instant(cutoff)
        rows = self._slice(table, partition, prefix, [column])
        return await _remove(
            table, partition, [row async for row in rows if str(row.columns.get(column, before)) < before]
        )

    def _slice(self, table: Table, partition: str, prefix: str, select: list[str]) -> AsyncGenerator[Row]:
        end = f"{prefix}~" if prefix else ""
        return table.scan(partition, first=prefix, end=end, select=select)


async def _first(table: Table, partition: str, most: int) -> AsyncGenerator[Row]:
    found = 0
    async for row in table.scan(partition, select=[]):
        yield row
        found += 1
        if found == most:
            return


async def _remove(table: Table, partition: str, rows: list[Row]) -> int:
    await table.apply_all(partition, [Change("delete", row.key, {}, row.etag) for row in rows])
    return len(rows)
