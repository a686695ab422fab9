"""The machines of a run: one row each, exactly one final outcome, and a row per patch.

All of them share the run's partition, so that a machine and its patches change in one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from patchwave.domain.core.outcome import Outcome, OutcomeKind
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary, PatchRecord
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.storage.engine.entity_codec import Columns, pack, put_mapping, unpack, wire_names
from patchwave.storage.engine.paging import KeyRange, Page, read_page, try_read
from patchwave.storage.engine.rows import Change, Conflict, Row, batches
from patchwave.storage.engine.store import OptimisticRetry, Store
from patchwave.storage.engine.table import throttled_batches
from patchwave.storage.errors import RecordMissing
from patchwave.storage.finalizers import EndRecords, lock_column, may_still_run
from patchwave.storage.run_patches import (
    MACHINES,
    PATCH_COUNT,
    PatchMemory,
    merge_patches,
    patch_changes,
    patch_count,
    patch_span,
)

_LISTED = wire_names(MachineRecord, without=["tags"])
_PARALLEL = 100
"""Questions that are asked side by side: those about remembered rows share a transaction."""


class Standing(NamedTuple):
    """How far a machine is, and how it ended if it did."""

    stage: Stage
    outcome: OutcomeKind | None = None
    reason: str = ""


class MachineRecords(EndRecords):
    """What is kept of each machine in a run."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._known_patches = PatchMemory()

    async def add_machines(self, run_id: str, machines: Sequence[MachineRecord]) -> None:
        """Insert the machines that have no row yet.

        A row is never overwritten, so that a second execution keeps what has happened since.
        """
        rows = {MACHINES + machine.key: _columns(machine) for machine in machines}
        await self._store.results.insert_all(run_id, rows)

    async def get_machine(self, run_id: str, machine_key: str) -> MachineRecord | None:
        """One machine of the run, or ``None``."""
        row = await self._store.results.get(run_id, MACHINES + machine_key)
        return None if row is None else _machine(row)

    async def current_machine(self, run_id: str, machine_key: str) -> MachineRecord | None:
        """The same, for the activities of a machine, which ask again and again: a row that is known costs no read."""
        row = await self._store.results.current(run_id, MACHINES + machine_key)
        return None if row is None else _machine(row)

    async def list_machines(
        self, run_id: str, *, outcome: OutcomeKind | None, limit: int, cursor: str | None
    ) -> Page[MachineRecord]:
        """Machines in key order, without their tags; with ``outcome`` only those that ended so.

        Raises:
            InvalidCursor: the cursor is not one of this list.
        """
        return await read_page(
            self._store.results,
            KeyRange(run_id, MACHINES),
            _machine,
            limit=limit,
            cursor=cursor,
            select=_LISTED,
            where=None if outcome is None else {"outcome": outcome.value},
        )

    async def list_stages(self, run_id: str, *, limit: int, cursor: str | None) -> Page[tuple[str, Stage]]:
        """Each machine's key and stage, in key order; ``done`` exactly for those with an outcome.

        The rows are read as a whole and remembered: whoever asks works on these machines next.
        """
        return await read_page(
            self._store.results, KeyRange(run_id, MACHINES), _stage_by_key, limit=limit, cursor=cursor, keep=True
        )

    async def machine_stages(self, run_id: str, keys: Sequence[str]) -> dict[str, Stage]:
        """The stage of each of the machines that the run has; ``done`` exactly for those with an outcome."""
        return dict([_stage_by_key(row) async for row in self._stretch(run_id, keys, ["stage", "outcome"])])

    async def machine_standings(self, run_id: str, keys: Sequence[str]) -> dict[str, Standing]:
        """How far each of the machines is that the run has.

        One question each, side by side: the keys of a page of the plan are spread over the whole partition, and a
        scan from the lowest to the highest would read a large run once for every page.
        """
        gate = asyncio.Semaphore(_PARALLEL)

        async def read(key: str) -> tuple[str, Row | None]:
            async with gate:
                return key, await self._store.results.current(run_id, MACHINES + key)

        found = await asyncio.gather(*map(read, keys))
        return {key: _standing(row) for key, row in found if row is not None}

    async def each_machine(self, run_id: str) -> AsyncGenerator[MachineRecord]:
        """All machines of the run with everything that is known of them, in key order, a page at a time.

        A row that cannot be read is in the log, and its machine has its end when the run closes.
        """
        span = KeyRange(run_id, MACHINES)
        async for row in self._store.results.scan(run_id, first=span.first, end=span.end, keep=True):
            machine = try_read(run_id, row, _machine)
            if machine is not None:
                yield machine

    async def set_stage(
        self, run_id: str, machine_key: str, stage: Stage, *, ending: Change | None = None, **columns: object
    ) -> None:
        """Move a machine to a stage and set fields of its record; its row stays as it is once it has an outcome.

        ``ending`` tells its phase (`ending_change`), whatever became of the row.

        Raises:
            RecordMissing: the run has no such machine.
            TypeError: a keyword is not a field of ``MachineRecord``.
        """
        changes = pack({"stage": stage, **_wire(columns)})
        endings = [] if ending is None else [ending]
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await self._open_row(run_id, machine_key)
            own = [] if "outcome" in row.columns else [Change("merge", row.key, changes, row.etag)]
            if not (own or endings) or await self._apply(run_id, [*endings, *own]):
                return

    async def record_assessment(
        self,
        run_id: str,
        machine_key: str,
        summary: AssessmentSummary,
        patches: Sequence[PatchRecord],
        at: datetime,
    ) -> None:
        """Keep what an assessment found; the machine is then assessed. Ignored once it has an outcome.

        After an installation, that of a scheduled run, what became of its patches stays beside what was found.
        """
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await self._open_row(run_id, machine_key)
            if "outcome" in row.columns:
                return
            found = summary if summary.at is not None else summary.model_copy(update={"at": at})
            is_after = "installation" in row.columns
            listed = merge_patches(patches, await self._patches(run_id, row)) if is_after else patches
            columns = pack({"stage": Stage.ASSESSED, "assessment": found, PATCH_COUNT: len(listed)})
            if await self._write_with_patches(run_id, row, columns, listed):
                return

    async def record_installation(
        self, run_id: str, machine_key: str, summary: InstallationSummary, patches: Sequence[PatchRecord]
    ) -> None:
        """Keep what an installation did; the machine is then verified. Ignored once it has an outcome.

        Patches are added to those the assessment found, and take their place where they are the same patch.
        """
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await self._open_row(run_id, machine_key)
            if "outcome" in row.columns:
                return
            merged = merge_patches(await self._patches(run_id, row), patches)
            columns = pack({"stage": Stage.VERIFYING, "installation": summary, PATCH_COUNT: len(merged)})
            if await self._write_with_patches(run_id, row, columns, merged):
                return

    async def record_outcome(
        self,
        run_id: str,
        machine_key: str,
        outcome: Outcome,
        *,
        at: datetime,
        installation: InstallationSummary | None,
        patches: Sequence[PatchRecord],
        ending: Callable[[Outcome], Change] | None = None,
        release: bool = False,
    ) -> Outcome:
        """Write the machine's final row once; the outcome that is stored, which is the first one.

        ``ending`` makes the row that tells its phase (`ending_change`) of the stored outcome. ``release``: give the
        run's lease of the machine back, together with the history; without it something may still run in the guest,
        and the lease stays until it runs out.

        Patches are added to those the assessment found, and take their place where they are the same patch.
        History and the fleet's latest state are written after the row, and again when this is called again; when
        it is not, by `complete_ends` and by the next run that wants the machine.
        """
        is_newest = False
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await self._open_row(run_id, machine_key)
            if "outcome" in row.columns:
                # Somebody else ended it, or an earlier execution of this call: its phase waits all the same.
                if ending is not None:
                    await self._apply(run_id, [ending(_outcome_of(row))])
                break
            columns = pack({**_ended(outcome, at), "installation": installation}) | lock_column(is_kept=not release)
            merged: Sequence[PatchRecord] = ()
            if patches:
                merged = merge_patches(await self._patches(run_id, row), patches)
                columns[PATCH_COUNT] = len(merged)
            endings = [] if ending is None else [ending(outcome)]
            if await self._write_with_patches(run_id, row, columns, merged, endings):
                row = Row(row.key, {**row.columns, **columns}, "")
                # No other run can have worked on it since its lease was taken.
                is_newest = self._is_known_to_hold(machine_key, run_id, at)
                break
        else:
            raise RecordMissing(f"run {run_id} has no machine {machine_key}")
        if (machine := try_read(run_id, row, _machine)) is not None:
            await self._publish(run_id, machine, is_newest=is_newest, release=release)
        return _outcome_of(row)

    async def record_outcomes(self, run_id: str, keys: Sequence[str], outcome: Outcome, at: datetime) -> int:
        """Give one outcome to all machines of ``keys`` that have none; how many this call ended.

        For machines on which nothing was started, or of which nothing is known. Their history is kept; the fleet's
        latest state changes only when the outcome says something about the machine, which a cancelled run and a
        closed window do not.
        """
        columns = pack(_ended(outcome, at)) | lock_column(is_kept=may_still_run(outcome.outcome))
        rows = {row.key: row async for row in self._stretch(run_id, keys, None)}
        changes = [Change("merge", row.key, columns, row.etag) for row in rows.values() if _is_open(row)]
        ended: list[str] = []
        async for batch in throttled_batches(changes):
            try:
                await self._store.results.apply(run_id, batch)
                ended.extend(change.key for change in batch)
            except Conflict:
                # One of them moved meanwhile; the others must not wait for it.
                ended.extend([one.key for one in batch if await self._end_one(run_id, one.key, columns)])
        written = [Row(key, {**rows[key].columns, **columns}, "") for key in ended]
        # Rows that an earlier execution ended in the same way may still lack their history.
        again = [row for row in rows.values() if not _is_open(row) and try_read(run_id, row, _outcome_of) == outcome]
        gate = asyncio.Semaphore(_PARALLEL)

        async def publish(row: Row) -> None:
            async with gate:
                if (machine := try_read(run_id, row, _machine)) is not None:
                    await self._publish(run_id, machine)

        await asyncio.gather(*map(publish, [*written, *again]))
        return len(ended)

    async def list_patches(self, run_id: str, machine_key: str) -> list[PatchRecord]:
        """The patches of a machine in this run, in the order in which they were found."""
        row = await self._store.results.current(run_id, MACHINES + machine_key)
        return [] if row is None else await self._patches(run_id, row)

    async def _patches(self, run_id: str, row: Row) -> list[PatchRecord]:
        if not patch_count(row):
            return []
        known = self._known_patches.get(run_id, row)
        if known is None:
            first, end = patch_span(row)
            rows = self._store.results.scan(run_id, first=first, end=end)
            read = [try_read(run_id, one, lambda one: unpack(PatchRecord, one.columns)) async for one in rows]
            known = [patch for patch in read if patch is not None]
        return known

    async def _end_one(self, run_id: str, key: str, columns: Columns) -> bool:
        async for _ in OptimisticRetry("a machine row"):
            row = await self._store.results.get(run_id, key, ["outcome"])
            if row is None or not _is_open(row):
                return False
            if await self._store.results.merge(run_id, key, columns, row.etag):
                return True
        return False

    async def _open_row(self, run_id: str, machine_key: str) -> Row:
        """The row as it was last seen. It may be stale: a change needs its ETag, but an outcome in it is final."""
        row = await self._store.results.known(run_id, MACHINES + machine_key)
        if row is None:
            raise RecordMissing(f"run {run_id} has no machine {machine_key}")
        return row

    async def _write_with_patches(
        self,
        run_id: str,
        row: Row,
        columns: Columns,
        patches: Sequence[PatchRecord],
        endings: Sequence[Change] = (),
    ) -> bool:
        """Write the patches and then the machine row, in one transaction when they fit; ``False``: it changed.

        ``endings`` go along with the machine row.
        """
        changes = patch_changes(row, patches)
        last = [*endings, Change("merge", row.key, columns, row.etag)]
        *leading, final = batches([*changes, *last])
        if len(final) < len(last):
            # A machine that ended and nobody hears of would keep its places.
            leading, final = batches(changes), last
        for batch in leading:
            await self._store.results.apply(run_id, batch)
        if not await self._apply(run_id, final):
            return False
        if changes:
            self._known_patches.put(run_id, Row(row.key, {**row.columns, **columns}, ""), patches)
        return True

    async def _apply(self, run_id: str, changes: Sequence[Change]) -> bool:
        """Apply them in one transaction; ``False``: the machine changed meanwhile."""
        try:
            await self._store.results.apply(run_id, changes)
        except Conflict:
            return False
        return True

    async def _stretch(self, run_id: str, keys: Sequence[str], select: list[str] | None) -> AsyncGenerator[Row]:
        """The rows of the keys that exist: one scan from the lowest to the highest of them."""
        if not keys:
            return
        wanted = {MACHINES + key for key in keys}
        # The key right behind the highest one: no key holds a character below the space.
        rows = self._store.results.scan(run_id, first=min(wanted), end=max(wanted) + " ", select=select)
        async for row in rows:
            if row.key in wanted:
                yield row


def _is_open(row: Row) -> bool:
    return "outcome" not in row.columns


def _ended(outcome: Outcome, at: datetime) -> dict[str, object]:
    return {"stage": Stage.DONE, **outcome.to_wire(), "endedAt": at}


def _outcome_of(row: Row) -> Outcome:
    return Outcome.from_wire({name: row.columns[name] for name in ("outcome", "reason", "message")})


def _stage_by_key(row: Row) -> tuple[str, Stage]:
    return row.key.removeprefix(MACHINES), _stage(row)


def _stage(row: Row) -> Stage:
    """The stage; of a damaged one, that of a machine on which nothing may be started, as Azure may work on it."""
    try:
        return Stage(row.columns["stage"])
    except (KeyError, ValueError):
        return Stage.INSTALLING if _is_open(row) else Stage.DONE


def _kind(word: object) -> OutcomeKind:
    try:
        return OutcomeKind(str(word))
    except ValueError:
        return OutcomeKind.UNKNOWN


def _standing(row: Row) -> Standing:
    outcome = row.columns.get("outcome")
    return Standing(
        stage=_stage(row),
        outcome=None if outcome is None else _kind(outcome),
        reason=str(row.columns.get("reason", "")),
    )


def _columns(machine: MachineRecord) -> Columns:
    values = {name: value for name, value in machine.to_wire().items() if value not in ("", [], {})}
    values.pop("tags", None)
    columns = pack(values)
    if machine.tags:
        put_mapping(columns, "tags", machine.tags)
    return columns


def _machine(row: Row) -> MachineRecord:
    return unpack(MachineRecord, row.columns)


def _wire(columns: Mapping[str, object]) -> dict[str, object]:
    fields = MachineRecord.model_fields
    unknown = [name for name in columns if name not in fields]
    if unknown:
        raise TypeError(f"a machine record has no {', '.join(unknown)}")
    return {fields[name].alias or name: value for name, value in columns.items()}
