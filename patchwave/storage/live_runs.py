"""The index of runs that have not ended: what a timer asks, however many runs the table keeps.

An entry is there before its run and until everything that follows the run's end is done. So a run that was
never closed, and an end that was cut off, are both in the index.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import NamedTuple

from patchwave.domain.core.documents import parse_instant
from patchwave.domain.core.ids import RunId
from patchwave.domain.runs.run import Run
from patchwave.storage.engine.entity_codec import pack
from patchwave.storage.engine.paging import try_read
from patchwave.storage.engine.rows import Row
from patchwave.storage.errors import StorageError
from patchwave.storage.runs import RunRecords
from patchwave.storage.schedule_overrides import ControlRecords

_LIVE = "live"
"""The partition of the entries, in the table of runs; their keys are those of the runs."""
_WATCHDOG = "watchdog"
_NEXT = "next"
_PARALLEL = 50
_LOG = logging.getLogger("patchwave.storage")


class Watched(NamedTuple):
    """An entry of the index: the run, as lists show it, or ``None`` when its row is not there."""

    run_id: str
    since: datetime
    run: Run | None


class LiveRunRecords(RunRecords, ControlRecords):
    """Which runs have not ended."""

    async def create_run(self, run: Run) -> tuple[Run, bool]:
        """Insert the run unless its id exists: the stored run, and whether this call created it.

        Raises:
            RecordTooLarge: the policy snapshot does not fit into a row.
        """
        # First: nothing would ever end a run without an entry. One without a run is removed by the watchdog.
        columns = pack({"runId": run.id, "since": run.created_at})
        is_entered = await self._store.runs.insert(_LIVE, RunId.parse(run.id).row_key, columns)
        stored, is_new = await super().create_run(run)
        if is_entered and stored.state.is_final:
            await self.forget_run(run.id)
        return stored, is_new

    async def list_watched(self) -> list[Watched]:
        """Every entry of the index, that of the newest run first; some of the runs may have ended.

        An entry or a run that cannot be read is in the log, and left as it is.
        """
        gate = asyncio.Semaphore(_PARALLEL)

        async def read(run_id: str, since: datetime) -> Watched | None:
            async with gate:
                try:
                    return Watched(run_id, since, await self.get_listed_run(run_id))
                except StorageError:
                    raise
                except Exception:
                    # No run is not the same: the entry of a run that cannot be read stays.
                    _LOG.exception("The row of the run %s cannot be read.", run_id)
                    return None

        entries = [try_read(_LIVE, row, _entry) async for row in self._store.runs.scan(_LIVE)]
        found = await asyncio.gather(*(read(*entry) for entry in entries if entry is not None))
        return [each for each in found if each is not None]

    async def list_live_runs(self) -> list[Run]:
        """All runs that have not ended, newest first, without their policy snapshots: one request for each of them."""
        found = [each.run for each in await self.list_watched()]
        return [run for run in found if run is not None and not run.state.is_final]

    async def settle_run(self, run: Run) -> None:
        """Do what follows the end of a run, its entry in the index last. Every step may be done again."""
        ended_at = run.ended_at or run.created_at
        await self.end_carry_over(run.policy, run.id, ended_at)
        detail = {"state": run.state.value, "reason": run.reason, "countsByOutcome": run.counts_by_outcome}
        await self.audit(run.id, "run_ended", by="patchwave", at=ended_at, detail=detail)
        await self.forget_run(run.id)

    async def forget_run(self, run_id: str) -> None:
        """Remove the entry of a run from the index, if it has one."""
        key = RunId.parse(run_id).row_key
        row = await self._store.runs.get(_LIVE, key, [])
        if row is not None:
            await self._store.runs.delete(_LIVE, key, row.etag)

    async def watchdog_place(self) -> str:
        """The run with which the watchdog goes on, when its last call had no time for all; else empty."""
        row = await self._store.runs.get(_WATCHDOG, _NEXT)
        return "" if row is None else str(row.columns.get("runId", ""))

    async def keep_watchdog_place(self, run_id: str) -> None:
        """Remember with which run the watchdog goes on; empty when it came to the end."""
        await self._store.runs.replace(_WATCHDOG, _NEXT, pack({"runId": run_id}, exact=["runId"]))


def _entry(row: Row) -> tuple[str, datetime]:
    since = parse_instant(row.columns["since"])
    if since is None:
        raise ValueError("an entry without its time")
    return str(row.columns["runId"]), since
