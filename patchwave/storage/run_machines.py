"""The machines of a run: one row each in the run's partition, changed under its ETag, and final with an outcome.

A skip command and the start of an operation both change that row: the skip after reading that no intent may have been
accepted, the start after declaring an intent. The first of the two therefore wins.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.command import Command
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.runs import commands
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.window_results import WindowResult
from patchwave.storage.engine.entity_codec import Columns, get_json, pack, put_mapping, unpack, wire_names
from patchwave.storage.engine.paging import Page, read_page, try_read
from patchwave.storage.engine.parallel import in_parallel
from patchwave.storage.engine.rows import BATCH_ROWS, Change, Conflict, Row
from patchwave.storage.engine.store import OptimisticRetry, Repository, Store
from patchwave.storage.engine.table import Table
from patchwave.storage.errors import RecordMissing
from patchwave.storage.intents import IntentRepository
from patchwave.storage.run_patches import MACHINES
from patchwave.storage.runs import clean_command

_LISTED = wire_names(MachineRecord, without=["tags"])
_SKIP = "skipCommand"


class MachineProgress(NamedTuple):
    """A machine's stage and, if it has ended, its outcome."""

    stage: Stage
    outcome: OutcomeKind | None = None
    reason: str = ""


class MachineRepository(Repository):
    """Machines of runs."""

    def __init__(self, store: Store, intents: IntentRepository) -> None:
        super().__init__(store)
        self._intents = intents

    async def add(self, run_id: str, machines: Sequence[MachineRecord]) -> None:
        """Insert machines that have no row yet.

        Never overwrites a row, so that a repeated call keeps later changes.
        """
        rows = {MACHINES + machine.key: _columns(machine) for machine in machines}
        await self._store.results.insert_all(run_id, rows)

    async def set_last_windows(self, run_id: str, results: Mapping[str, WindowResult]) -> list[str]:
        """Store the last window of each machine that the run has, by key; returns the keys of those without outcome."""
        rows = scan_keys(self._store.results, run_id, list(results), ["outcome"])
        found = [row async for row in rows if is_open(row)]
        keys = [row.key.removeprefix(MACHINES) for row in found]
        changes = [Change("merge", MACHINES + key, pack({"lastWindow": results[key]})) for key in keys]
        await self._store.results.merge_all(run_id, changes)
        return keys

    async def get(self, run_id: str, machine_key: str) -> MachineRecord | None:
        """A machine of the run, or ``None``."""
        row = await self._store.results.get(run_id, MACHINES + machine_key)
        return None if row is None else _machine(row)

    async def get_validated(self, run_id: str, machine_key: str) -> MachineRecord | None:
        """`get` for activities, which read the same row often: a cached row is validated instead of read."""
        row = await self._store.results.get_validated(run_id, MACHINES + machine_key)
        return None if row is None else _machine(row)

    async def list_page(
        self, run_id: str, *, outcome: OutcomeKind | None, limit: int, cursor: str | None
    ) -> Page[MachineRecord]:
        """Machines in key order, without tags; with ``outcome`` only those with it."""
        return await read_page(
            self._store.results,
            run_id,
            _machine,
            prefix=MACHINES,
            limit=limit,
            cursor=cursor,
            select=_LISTED,
            where=None if outcome is None else {"outcome": outcome.value},
        )

    async def list_stages(self, run_id: str, *, limit: int, cursor: str | None) -> Page[tuple[str, Stage]]:
        """Each machine's key and stage, in key order; ``done`` exactly for those with an outcome.

        Reads and caches whole rows, which the caller's next steps need.
        """
        return await read_page(
            self._store.results, run_id, _stage_by_key, prefix=MACHINES, limit=limit, cursor=cursor, keep=True
        )

    async def get_stages(self, run_id: str, keys: Sequence[str]) -> dict[str, Stage]:
        """The stages of the machines that exist; ``done`` exactly for those with an outcome."""
        return dict(
            [_stage_by_key(row) async for row in scan_keys(self._store.results, run_id, keys, ["stage", "outcome"])]
        )

    async def get_progress(self, run_id: str, keys: Sequence[str]) -> dict[str, MachineProgress]:
        """The progress of the machines that exist.

        Parallel single reads: the keys of a plan page are spread over the partition, so one scan from the lowest to the
        highest would read a large run once per page.
        """

        async def read(key: str) -> Row | None:
            return await self._store.results.get_validated(run_id, MACHINES + key)

        rows = await in_parallel(read, keys, most=BATCH_ROWS)
        return {key: _progress(row) for key, row in zip(keys, rows, strict=True) if row is not None}

    async def scan(self, run_id: str) -> AsyncGenerator[MachineRecord]:
        """All machines of the run in key order, page by page.

        An unreadable row is logged; its machine ends when the run closes.
        """
        async for row in self._store.results.scan(run_id, prefix=MACHINES, keep=True):
            machine = try_read(run_id, row, _machine)
            if machine is not None:
                yield machine

    async def update(
        self, run_id: str, machine_key: str, stage: Stage, *, completion: Change | None = None, **columns: object
    ) -> None:
        """Set a machine's stage and fields. Its row does not change any more once it has an outcome.

        ``completion`` (`completion_change`) is written for the phase in any case.

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

    async def skip(self, run_id: str, machine_key: str, command: Command, kind: OperationKind) -> MachineRecord:
        """Skip the machine in its run. ``kind`` is the run's operation.

        Raises:
            RecordMissing: the run has no such machine.
            InvalidTransition: it has ended, or its operation has begun.
        """
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await open_row(self._store.results, run_id, machine_key)
            machine = unpack(MachineRecord, row.columns)
            # Read after the machine: a later intent also changes the machine, and this write then fails.
            intent = await self._intents.get(run_id, machine_key, kind)
            wanted = commands.skip(machine, intent, clean_command(command))
            if wanted == machine:
                return machine
            if await self._store.results.merge(run_id, row.key, pack({_SKIP: wanted.skip_command}), row.etag):
                return wanted
        raise RecordMissing(f"run {run_id} has no machine {machine_key}")

    async def begin_operation(self, run_id: str, machine_key: str, stage: Stage, at: datetime) -> Command | None:
        """Set the stage right before an operation is sent, after its intent is declared.

        Returns the skip command if there is one: the row then stays as it is, and nothing may be sent. Nor does it
        change once it has an outcome.
        """
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await open_row(self._store.results, run_id, machine_key)
            if _SKIP in row.columns:
                return Command.model_validate(get_json(row.columns, _SKIP))
            started = {} if "startedAt" in row.columns else {"startedAt": at}
            changes = pack({"stage": stage, **started})
            if "outcome" in row.columns or await self._store.results.merge(run_id, row.key, changes, row.etag):
                break
        return None


async def open_row(results: Table, run_id: str, machine_key: str) -> Row:
    """The cached row, else the stored one. It may be stale: change it under its ETag. An outcome in it is final."""
    row = await results.get_cached_for_update(run_id, MACHINES + machine_key)
    if row is None:
        raise RecordMissing(f"run {run_id} has no machine {machine_key}")
    return row


async def apply_if_unchanged(results: Table, run_id: str, changes: Sequence[Change]) -> bool:
    """Apply the changes in one transaction; ``False`` when the machine changed meanwhile."""
    try:
        await results.apply(run_id, changes)
    except Conflict:
        return False
    return True


async def scan_keys(results: Table, run_id: str, keys: Sequence[str], select: list[str] | None) -> AsyncGenerator[Row]:
    """The rows of the keys that exist, by one scan from the lowest to the highest key."""
    if not keys:
        return
    wanted = {MACHINES + key for key in keys}
    # The first key after the highest one: no key has a character below the space.
    rows = results.scan(run_id, first=min(wanted), end=max(wanted) + " ", select=select)
    async for row in rows:
        if row.key in wanted:
            yield row


def is_open(row: Row) -> bool:
    return "outcome" not in row.columns


def _stage_by_key(row: Row) -> tuple[str, Stage]:
    return row.key.removeprefix(MACHINES), _stage(row)


def _stage(row: Row) -> Stage:
    """The stage; for a damaged one, a stage in which nothing is started, as Azure may be working on the machine."""
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
