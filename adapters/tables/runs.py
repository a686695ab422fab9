"""Run rows: one partition, newest first, created once by run id and changed under their ETag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from adapters.tables.columns import Columns, clean, pack, unpack, wire_names
from adapters.tables.errors import RecordMissing
from adapters.tables.machines import MACHINES
from adapters.tables.paging import Page, Span, read_page
from adapters.tables.store import ChangeRounds, StoreBacked
from domain.identity import RunId
from domain.outcome import OutcomeKind
from domain.run import Run, RunState, Stage

_PARTITION = "runs"
_SNAPSHOT = "policySnapshot"
_LISTED = wire_names(Run, without=[_SNAPSHOT])


class RunRecords(StoreBacked):
    """What is kept of a run as a whole."""

    async def create_run(self, run: Run) -> tuple[Run, bool]:
        """Insert the run unless its id exists: the stored run, and whether this call created it.

        Raises:
            RecordTooLarge: the policy snapshot does not fit into a row.
        """
        key = RunId.parse(run.id).row_key
        if await self._store.runs.insert(_PARTITION, key, pack(run.to_wire())):
            return run, True
        stored = await self.get_run(run.id)
        if stored is None:
            raise RecordMissing(f"run {run.id} was removed while it was read")
        return stored, False

    async def get_run(self, run_id: str) -> Run | None:
        """The run with its policy snapshot, or ``None``."""
        row = await self._store.runs.get(_PARTITION, RunId.parse(run_id).row_key)
        return None if row is None else _run(row.columns)

    async def list_runs(self, limit: int, cursor: str | None) -> Page[Run]:
        """Runs, newest first, without their policy snapshots.

        Raises:
            InvalidCursor: the cursor is not one of this list.
        """
        return await read_page(
            self._store.runs,
            Span(_PARTITION),
            lambda row: _run(row.columns),
            limit=limit,
            cursor=cursor,
            select=_LISTED,
        )

    async def start_run(self, run_id: str, at: datetime) -> Run:
        """Move a queued run to running; any other state is left alone. The run with its snapshot."""

        def start(run: Run) -> Run:
            if run.state is not RunState.QUEUED:
                return run
            return run.model_copy(update={"state": RunState.RUNNING, "started_at": at})

        return await self._change(run_id, start)

    async def close_run(self, run_id: str, state: RunState, reason: str, at: datetime) -> Run:
        """Give the run its final state and totals, counted from its machines. A final run stays as it is."""
        run = await self.get_run(run_id)
        if run is None:
            raise RecordMissing(f"no run {run_id}")
        if run.state.is_final:
            return run
        outcomes, stages = await self.run_progress(run_id)

        def close(run: Run) -> Run:
            if run.state.is_final:
                return run
            return run.model_copy(
                update={
                    "state": state,
                    "reason": clean(reason),
                    "ended_at": at,
                    "machines": sum(stages.values()),
                    "counts_by_outcome": outcomes,
                    "counts_by_stage": stages,
                }
            )

        return await self._change(run_id, close)

    async def request_cancel(self, run_id: str, at: datetime) -> Run | None:
        """Ask the run to stop; the first request wins and a final run is left alone. ``None``: no such run."""

        def cancel(run: Run) -> Run:
            if run.state.is_final or run.cancel_requested_at is not None:
                return run
            return run.model_copy(update={"cancel_requested_at": at})

        try:
            return await self._change(run_id, cancel)
        except RecordMissing:
            return None

    async def is_canceled(self, run_id: str) -> bool:
        """Whether somebody asked the run to stop: one point read of one column."""
        row = await self._store.runs.get(_PARTITION, RunId.parse(run_id).row_key, ["cancelRequestedAt"])
        return row is not None and "cancelRequestedAt" in row.columns

    async def run_progress(self, run_id: str) -> tuple[dict[str, int], dict[str, int]]:
        """Counts of machines by outcome and by stage, without zeros: one scan of two columns."""
        outcomes: Counter[str] = Counter()
        stages: Counter[str] = Counter()
        span = Span(run_id, MACHINES)
        rows = self._store.results.scan(run_id, first=span.first, end=span.end, select=["outcome", "stage"])
        async for row in rows:
            stages[row.columns.get("stage", Stage.WAITING)] += 1
            if outcome := row.columns.get("outcome"):
                outcomes[outcome] += 1
        return (
            {kind.value: outcomes[kind] for kind in OutcomeKind if outcomes[kind]},
            {stage.value: stages[stage] for stage in Stage if stages[stage]},
        )

    async def _change(self, run_id: str, decide: Callable[[Run], Run]) -> Run:
        key = RunId.parse(run_id).row_key
        async for _ in ChangeRounds(f"run {run_id}"):
            row = await self._store.runs.get(_PARTITION, key)
            if row is None:
                break
            stored = _run(row.columns)
            wanted = decide(stored)
            if wanted == stored:
                return stored
            if await self._store.runs.merge(_PARTITION, key, _differences(stored, wanted), row.etag):
                return wanted
        raise RecordMissing(f"no run {run_id}")


def _run(columns: Columns) -> Run:
    return unpack(Run, columns)


def _differences(stored: Run, wanted: Run) -> Columns:
    before, after = stored.to_wire(), wanted.to_wire()
    changed: dict[str, Any] = {name: value for name, value in after.items() if before[name] != value}
    return pack(changed)
