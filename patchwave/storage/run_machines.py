"""The machines of a run: one row each in the run's partition, changed under its ETag, and final once it has an outcome.

Leaving a machine out of a run and sending its operation both change that row: the one after it has found no intent that
may have been accepted, the other after it has declared one. So of the two the first wins.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.command import Order
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.runs import commands
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.storage.engine.entity_codec import Columns, get_json, pack, put_mapping, unpack, wire_names
from patchwave.storage.engine.paging import KeyRange, Page, read_page, try_read
from patchwave.storage.engine.rows import Change, Conflict, Row
from patchwave.storage.engine.store import OptimisticRetry, Repository, Store
from patchwave.storage.engine.table import Table
from patchwave.storage.errors import RecordMissing
from patchwave.storage.intents import IntentRepository
from patchwave.storage.run_patches import MACHINES
from patchwave.storage.runs import clean_order

_LISTED = wire_names(MachineRecord, without=["tags"])
_SKIP = "skipCommand"
_PARALLEL = 100
"""Reads that are sent side by side: those about cached rows share a transaction."""


class MachineProgress(NamedTuple):
    """How far a machine is, and how it ended if it did."""

    stage: Stage
    outcome: OutcomeKind | None = None
    reason: str = ""


class MachineRepository(Repository):
    """What is kept of each machine in a run."""

    def __init__(self, store: Store, intents: IntentRepository) -> None:
        super().__init__(store)
        self._intents = intents

    async def add(self, run_id: str, machines: Sequence[MachineRecord]) -> None:
        """Insert the machines that have no row yet.

        A row is never overwritten, so that a second execution keeps what has happened since.
        """
        rows = {MACHINES + machine.key: _columns(machine) for machine in machines}
        await self._store.results.insert_all(run_id, rows)

    async def get(self, run_id: str, machine_key: str) -> MachineRecord | None:
        """One machine of the run, or ``None``."""
        row = await self._store.results.get(run_id, MACHINES + machine_key)
        return None if row is None else _machine(row)

    async def get_validated(self, run_id: str, machine_key: str) -> MachineRecord | None:
        """The same, for the activities of a machine, which ask again and again: a row that is known costs no read."""
        row = await self._store.results.get_validated(run_id, MACHINES + machine_key)
        return None if row is None else _machine(row)

    async def list_page(
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

    async def get_stages(self, run_id: str, keys: Sequence[str]) -> dict[str, Stage]:
        """The stage of each of the machines that the run has; ``done`` exactly for those with an outcome."""
        return dict(
            [_stage_by_key(row) async for row in scan_keys(self._store.results, run_id, keys, ["stage", "outcome"])]
        )

    async def get_progress(self, run_id: str, keys: Sequence[str]) -> dict[str, MachineProgress]:
        """How far each of the machines is that the run has.

        One question each, side by side: the keys of a page of the plan are spread over the whole partition, and a
        scan from the lowest to the highest would read a large run once for every page.
        """
        gate = asyncio.Semaphore(_PARALLEL)

        async def read(key: str) -> tuple[str, Row | None]:
            async with gate:
                return key, await self._store.results.get_validated(run_id, MACHINES + key)

        found = await asyncio.gather(*map(read, keys))
        return {key: _progress(row) for key, row in found if row is not None}

    async def scan(self, run_id: str) -> AsyncGenerator[MachineRecord]:
        """All machines of the run with everything that is known of them, in key order, a page at a time.

        A row that cannot be read is in the log, and its machine has its end when the run closes.
        """
        span = KeyRange(run_id, MACHINES)
        async for row in self._store.results.scan(run_id, first=span.first, end=span.end, keep=True):
            machine = try_read(run_id, row, _machine)
            if machine is not None:
                yield machine

    async def update(
        self, run_id: str, machine_key: str, stage: Stage, *, completion: Change | None = None, **columns: object
    ) -> None:
        """Move a machine to a stage and set fields of its record; its row stays as it is once it has an outcome.

        ``completion`` (`completion_change`) is written for its phase, whatever became of the row.

        Raises:
            RecordMissing: the run has no such machine.
            TypeError: a keyword is not a field of ``MachineRecord``.
        """
        changes = pack({"stage": stage, **_wire(columns)})
        completions = [] if completion is None else [completion]
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await open_row(self._store.results, run_id, machine_key)
            own = [] if "outcome" in row.columns else [Change("merge", row.key, changes, row.etag)]
            if not (own or completions) or await apply_if_unchanged(self._store.results, run_id, [*completions, *own]):
                return

    async def skip(self, run_id: str, machine_key: str, order: Order, kind: OperationKind) -> MachineRecord:
        """Leave the machine out of its run. ``kind`` is the operation that the run does to its machines.

        Raises:
            RecordMissing: the run has no such machine.
            InvalidTransition: it has ended, or its operation has begun.
        """
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await open_row(self._store.results, run_id, machine_key)
            machine = unpack(MachineRecord, row.columns)
            # Read after the machine: whoever declares an intent changes the machine next, and this write then fails.
            intent = await self._intents.get(run_id, machine_key, kind)
            wanted = commands.skip(machine, intent, clean_order(order))
            if wanted == machine:
                return machine
            if await self._store.results.merge(run_id, row.key, pack({_SKIP: wanted.skip_command}), row.etag):
                return wanted
        raise RecordMissing(f"run {run_id} has no machine {machine_key}")

    async def begin_operation(self, run_id: str, machine_key: str, stage: Stage, at: datetime) -> Order | None:
        """Move a machine to a stage right before its operation is sent, once the intent is declared.

        Returns the order to skip the machine when there is one: it then stays as it is, and nothing may be sent.
        Nothing happens either once it has an outcome.
        """
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await open_row(self._store.results, run_id, machine_key)
            if _SKIP in row.columns:
                return Order.from_wire(get_json(row.columns, _SKIP))
            started = {} if "startedAt" in row.columns else {"startedAt": at}
            changes = pack({"stage": stage, **started})
            if "outcome" in row.columns or await self._store.results.merge(run_id, row.key, changes, row.etag):
                break
        return None


async def open_row(results: Table, run_id: str, machine_key: str) -> Row:
    """The row as it was last seen. It may be stale: a change needs its ETag, but an outcome in it is final."""
    row = await results.get_cached_for_update(run_id, MACHINES + machine_key)
    if row is None:
        raise RecordMissing(f"run {run_id} has no machine {machine_key}")
    return row


async def apply_if_unchanged(results: Table, run_id: str, changes: Sequence[Change]) -> bool:
    """Apply them in one transaction; ``False``: the machine changed meanwhile."""
    try:
        await results.apply(run_id, changes)
    except Conflict:
        return False
    return True


async def scan_keys(results: Table, run_id: str, keys: Sequence[str], select: list[str] | None) -> AsyncGenerator[Row]:
    """The rows of the keys that exist: one scan from the lowest to the highest of them."""
    if not keys:
        return
    wanted = {MACHINES + key for key in keys}
    # The key right behind the highest one: no key holds a character below the space.
    rows = results.scan(run_id, first=min(wanted), end=max(wanted) + " ", select=select)
    async for row in rows:
        if row.key in wanted:
            yield row


def is_open(row: Row) -> bool:
    return "outcome" not in row.columns


def _stage_by_key(row: Row) -> tuple[str, Stage]:
    return row.key.removeprefix(MACHINES), _stage(row)


def _stage(row: Row) -> Stage:
    """The stage; of a damaged one, that of a machine on which nothing may be started, as Azure may work on it."""
    try:
        return Stage(row.columns["stage"])
    except (KeyError, ValueError):
        return Stage.INSTALLING if is_open(row) else Stage.DONE


def _kind(word: object) -> OutcomeKind:
    try:
        return OutcomeKind(str(word))
    except ValueError:
        return OutcomeKind.UNKNOWN


def _progress(row: Row) -> MachineProgress:
    outcome = row.columns.get("outcome")
    return MachineProgress(
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
