"""What is known of a run as one list, and its removal, a bounded number of rows at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

from patchwave.domain.core.documents import Document, Json, format_instant
from patchwave.domain.core.ids import RunId
from patchwave.domain.core.patches import PatchRecord
from patchwave.domain.fleet.patch_mode_change import ModeChange
from patchwave.domain.machine.at_most_once import Guard
from patchwave.domain.planning.plan import ExcludedMachine, PlannedMachine
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.intent import Intent
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Run
from patchwave.storage.audit_log import CLAIMS
from patchwave.storage.engine.entity_codec import get_json, pack, unpack
from patchwave.storage.engine.paging import KeyRange, Page, read_page, try_read
from patchwave.storage.engine.rows import Change, Row
from patchwave.storage.engine.store import Repository
from patchwave.storage.engine.table import Table
from patchwave.storage.errors import InvalidCursor
from patchwave.storage.intents import ALL_RUNS, LEASE
from patchwave.storage.machine_history import FLEET, HISTORY, LAST_MILLISECOND
from patchwave.storage.patch_mode_changes import CHANGES
from patchwave.storage.patch_pins import seen_partition
from patchwave.storage.runs import LISTED
from patchwave.storage.throttling import THROTTLED_BUCKETS

_RUNS = "runs"
_POLICIES = ("policies", "controls")
_FIRST_ID, _BEHIND_IDS = "2", "3"
"""Ids of runs and of changes begin with their year; so may the name of a policy, and no other subject of the log."""
_DOCUMENTS: dict[str, tuple[str, type[Document]]] = {
    "g~": ("guard", Guard),
    "i~": ("intent", Intent),
    "m~": ("machine", MachineRecord),
    "o~": ("placement", PlannedMachine),
    "p~": ("patch", PatchRecord),
    "x~": ("excluded", ExcludedMachine),
}
_ENDING = "e~"
_SIGNED = ("asyncUrl", "locationUrl", "token")
"""Of intents and guards: whoever has such a URL may read the operation, so that no copy leaves the row."""
_ROWS, _AUDIT = "r", "a"


class RetentionRecords(Repository):
    """Evidence, and forgetting."""

    async def evidence(self, run: Run, limit: int, cursor: str | None) -> Page[Json]:
        """Everything that is kept of a run, with what it is in ``record``: the run, its rows by key, its audit log.

        Signed URLs are left out, and the endings, which say nothing that machines do not.

        Raises:
            InvalidCursor: the cursor is not one of this list.
        """
        part, behind = (cursor[0], cursor[1:] or None) if cursor else (_ROWS, None)
        if part not in (_ROWS, _AUDIT):
            raise InvalidCursor("not a cursor of this list")
        table, convert = (self._store.results, _evidence) if part == _ROWS else (self._store.audit, _audited)
        page = await read_page(table, KeyRange(run.id), convert, limit=limit, cursor=behind)
        found = [record for record in page.items if record is not None]
        if cursor is None:
            found.insert(0, {"record": "run", **run.to_wire()})
        if page.cursor is not None:
            return Page(found, part + page.cursor, page.unreadable)
        return Page(found, _AUDIT if part == _ROWS else None, page.unreadable)

    async def count_evidence(self, run_id: str) -> int:
        """How many records `evidence` has of a run, those included that cannot be read; from the keys alone."""
        results = self._store.results.scan(run_id, select=[])
        count = 1 + len([row.key async for row in results if not row.key.startswith(_ENDING)])
        return count + len([row.key async for row in self._store.audit.scan(run_id, select=[])])

    async def mark_exported(self, run_id: str, at: datetime) -> None:
        """Somebody has all of the evidence of a run: a merge into its row."""
        await self._store.runs.merge(_RUNS, RunId.parse(run_id).row_key, pack({"exportedAt": at}))

    async def runs_before(self, cutoff: datetime) -> AsyncGenerator[Run]:
        """Runs whose id bears an earlier time, the newest of them first; without those that cannot be read."""
        first = RunId.of(cutoff, "").row_key
        async for row in self._store.runs.scan(_RUNS, first=first, select=LISTED):
            run = try_read(_RUNS, row, lambda row: unpack(Run, row.columns))
            if run is not None:
                yield run

    async def mode_changes_before(self, cutoff: datetime) -> AsyncGenerator[ModeChange]:
        """Changes of patch modes whose id bears an earlier time, the newest first; but for unreadable ones."""
        async for row in self._store.runs.scan(CHANGES, first=RunId.of(cutoff, "").row_key):
            change = try_read(CHANGES, row, lambda row: unpack(ModeChange, row.columns))
            if change is not None:
                yield change

    async def purge_mode_change(self, change_id: str, most: int) -> int | None:
        """Remove what is kept of a change of patch modes, as `purge_run` does with a run."""
        return await self._purge(CHANGES, change_id, most)

    async def purge_run(self, run_id: str, most: int) -> int | None:
        """Remove what is kept of a run, its own row last; how many rows that were, ``None`` when some are left.

        A call that was cut off is completed by the next one, as long as the run's row is there.
        """
        return await self._purge(_RUNS, run_id, most)

    async def _purge(self, heads: str, run_id: str, most: int) -> int | None:
        removed = 0
        for table in (self._store.results, self._store.audit):
            removed += await _remove(table, run_id, [row async for row in _first(table, run_id, most - removed)])
            if removed == most:
                return None
        key = RunId.parse(run_id).row_key
        row = await self._store.runs.get(heads, key, [])
        if row is not None:
            await self._store.runs.delete(heads, key, row.etag)
        return removed + 1

    async def purge_machines(self, slice_number: int, cutoff: datetime) -> int:
        """Remove what is kept over all runs of one in 256 machines, and is older than that moment; how many rows.

        Ends in their histories, the latest state of machines that no run has ended since, and leases that ran out.

        Args:
            slice_number: the first two hexadecimal digits of the keys of those machines.
            cutoff: what is older goes.
        """
        machines, before = self._store.machines, format_instant(cutoff)
        oldest_kept = LAST_MILLISECOND - int(cutoff.timestamp() * 1000)
        histories = self._slice(machines, ALL_RUNS, f"{HISTORY}{slice_number:02x}", [])
        gone = [row async for row in histories if int(row.key.split("~")[2]) > oldest_kept]
        for prefix, column in ((FLEET, "at"), (LEASE, "until")):
            rows = self._slice(machines, ALL_RUNS, f"{prefix}{slice_number:02x}", [column])
            gone += [row async for row in rows if str(row.columns.get(column, before)) < before]
        return await _remove(machines, ALL_RUNS, gone)

    async def purge_claims(self, slice_number: int, cutoff: datetime) -> int:
        """Remove one in 256 of the claims that are older than that moment; how many."""
        removed = 0
        for kind in CLAIMS:
            removed += await self._purge_older(self._store.claims, kind, f"{slice_number:02x}", "at", cutoff)
        return removed

    async def purge_seen(self, slice_number: int, cutoff: datetime) -> int:
        """Remove one in 256 of the packages that were first seen before that moment; how many.

        One that is still offered to a machine counts as new once: no approval delay is that long.
        """
        removed = 0
        for os_type in OsType:
            partition = seen_partition(os_type)
            removed += await self._purge_older(self._store.seen, partition, f"{slice_number:02x}", "at", cutoff)
        return removed

    async def purge_throttling(self, cutoff: datetime) -> int:
        """Remove the rows of buckets that were throttled until then; how many."""
        return await self._purge_older(self._store.claims, THROTTLED_BUCKETS, "", "until", cutoff)

    async def purge_audit(self, cutoff: datetime) -> int:
        """Remove the lines of policies, freezes, configurations and refused calls that are older; how many.

        Lines of runs and of changes of patch modes, whose ids begin with the year, go with those.
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


def _evidence(row: Row) -> Json | None:
    if row.key.startswith(_ENDING):
        return None
    prefix, _, rest = row.key.partition("~")
    known = _DOCUMENTS.get(f"{prefix}~")
    if known is None:
        kind = {"k": "pin", "r": "groups"}.get(prefix, prefix)
        return {"record": kind, **{name: _plain(row, name) for name in row.columns if name[-1] not in "0123456789"}}
    kind, document = known
    read = try_read("evidence", row, lambda row: unpack(document, row.columns).to_wire())
    # What is damaged is evidence too, as it is stored.
    found = {name: value for name, value in (read or dict(row.columns)).items() if name not in _SIGNED}
    return {"record": kind, **({"machineKey": rest.partition("~")[0]} if kind == "patch" else {}), **found}


def _plain(row: Row, name: str) -> Any:
    """A column as it is, or the JSON that it holds, which may go on in further columns."""
    value = row.columns[name]
    return get_json(row.columns, name) if isinstance(value, str) and value[:1] in ("{", "[") else value


def _audited(row: Row) -> Json | None:
    return {"record": "audit", **{name: _plain(row, name) for name in row.columns}}
