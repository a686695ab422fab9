"""The index of live runs: what timers read, whatever the number of stored runs.

A run gets its entry before its row, and loses it after all steps that follow its end. The index therefore has runs that
were never closed, and runs whose end was interrupted.
"""

from __future__ import annotations

from datetime import datetime

from patchwave.domain.core.documents import parse_instant
from patchwave.domain.core.ids import RunId
from patchwave.storage.engine.entity_codec import pack
from patchwave.storage.engine.paging import try_read
from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.store import Repository

_LIVE = "live"
"""Partition of the entries in the table of runs; their keys are those of the runs."""
_WATCHDOG = "watchdog"
_NEXT = "next"


class LiveRunRepository(Repository):
    """The entries of the index, and the watchdog's cursor."""

    async def add(self, run_id: str, since: datetime) -> bool:
        """Add a run; ``False`` when it has an entry already."""
        columns = pack({"runId": run_id, "since": since})
        return await self._store.runs.insert(_LIVE, RunId.parse(run_id).row_key, columns)

    async def list_all(self) -> list[tuple[str, datetime]]:
        """Run id and time of every entry, newest run first. An unreadable one is logged."""
        entries = [try_read(_LIVE, row, _entry) async for row in self._store.runs.scan(_LIVE)]
        return [entry for entry in entries if entry is not None]

    async def remove(self, run_id: str) -> None:
        """Remove the entry of a run from the index, if it has one."""
        await self._store.runs.remove(_LIVE, RunId.parse(run_id).row_key)

    async def get_cursor(self) -> str:
        """The run with which the watchdog continues when its last call did not reach all; else empty."""
        row = await self._store.runs.get(_WATCHDOG, _NEXT)
        return "" if row is None else str(row.columns.get("runId", ""))

    async def set_cursor(self, run_id: str) -> None:
        """Store the run with which the watchdog continues; empty when it reached all."""
        await self._store.runs.replace(_WATCHDOG, _NEXT, pack({"runId": run_id}, exact=["runId"]))


def _entry(row: Row) -> tuple[str, datetime]:
    since = parse_instant(row.columns["since"])
    if since is None:
        raise ValueError("an entry without its time")
    return str(row.columns["runId"]), since
