"""Results of operations on the machines of a run: assessment, installation, patches, and exactly one outcome.

Machine and patches share the run's partition, so that they change in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from patchwave.domain.core.outcome import Outcome, OutcomeKind
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary, PatchRecord
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.window_results import explain
from patchwave.storage.engine.entity_codec import Columns, pack, unpack
from patchwave.storage.engine.paging import try_read
from patchwave.storage.engine.parallel import in_parallel
from patchwave.storage.engine.rows import BATCH_ROWS, Change, Conflict, Row, batches
from patchwave.storage.engine.store import OptimisticRetry, Repository, Store
from patchwave.storage.engine.table import throttled_batches
from patchwave.storage.errors import RecordMissing
from patchwave.storage.leases import LeaseRepository
from patchwave.storage.machine_history import KEEPS_LEASE, MachineHistoryRepository
from patchwave.storage.run_machines import apply_if_unchanged, is_open, open_row, scan_keys
from patchwave.storage.run_patches import (
    MACHINES,
    PATCH_COUNT,
    PatchMemory,
    merge_patches,
    patch_changes,
    patch_count,
    patch_span,
)

_STILL_RUNNING = frozenset({OutcomeKind.UNKNOWN, OutcomeKind.TIMED_OUT, OutcomeKind.LEFT_RUNNING})


class MachineResultRepository(Repository):
    """Results of the machines of a run."""

    def __init__(self, store: Store, history: MachineHistoryRepository, leases: LeaseRepository) -> None:
        super().__init__(store)
        self._history = history
        self._leases = leases
        self._known_patches = PatchMemory()

    async def record_assessment(
        self, run_id: str, machine_key: str, summary: AssessmentSummary, patches: Sequence[PatchRecord], at: datetime
    ) -> None:
        """Store an assessment's result; the stage is then ``assessed``. No effect once the machine has an outcome.

        After an installation by a scheduled run, its results per patch are kept beside the assessment's.
        """
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await open_row(self._store.results, run_id, machine_key)
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
        """Store an installation's result; the stage is then ``verifying``. No effect once the machine has an outcome.

        Patches are merged with those of the assessment (`merge_patches`).
        """
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await open_row(self._store.results, run_id, machine_key)
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
        completion: Callable[[Outcome], Change] | None = None,
        release: bool = False,
    ) -> Outcome:
        """Write the machine's final row, once; returns the stored outcome, which is the first one.

        ``completion`` makes the row that reports the stored outcome to the phase (`completion_change`). With
        ``release`` the run's lease is released together with the history. Without it an operation may still run in the
        guest, and the lease stays until it expires.

        Patches are merged with those of the assessment. History and the fleet's latest state follow the final row. When
        this call dies in between, a repeated call completes them, or `FinalizerRepository.complete`, or the next run
        that wants the machine.
        """
        is_newest = False
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await open_row(self._store.results, run_id, machine_key)
            if "outcome" in row.columns:
                # It has an outcome already: the phase still needs a completion.
                if completion is not None:
                    await apply_if_unchanged(self._store.results, run_id, [completion(_outcome_of(row))])
                break
            explained = _explained(run_id, row, outcome, installation)
            columns = pack({**_ended(explained, at), "installation": installation}) | _lease_column(is_kept=not release)
            merged: Sequence[PatchRecord] = ()
            if patches:
                merged = merge_patches(await self._patches(run_id, row), patches)
                columns[PATCH_COUNT] = len(merged)
            completions = [] if completion is None else [completion(outcome)]
            if await self._write_with_patches(run_id, row, columns, merged, completions):
                row = Row(row.key, {**row.columns, **columns}, "")
                # No other run can have worked on it since this run acquired its lease.
                is_newest = self._leases.is_cached_holder(machine_key, run_id, at)
                break
        else:
            raise RecordMissing(f"run {run_id} has no machine {machine_key}")
        if (machine := try_read(run_id, row, _machine)) is not None:
            await self._history.publish(run_id, machine, is_newest=is_newest, release=release)
        return _outcome_of(row)

    async def record_outcomes(self, run_id: str, keys: Sequence[str], outcome: Outcome, at: datetime) -> int:
        """Give one outcome to the machines of ``keys`` that have none; returns how many this call ended.

        For machines without a started operation, or in an unknown state. Their history is written; the fleet's latest
        state changes only when the outcome says something about the machine, which a cancelled run and a closed window
        do not.
        """
        columns = pack(_ended(outcome, at)) | _lease_column(is_kept=outcome.outcome in _STILL_RUNNING)
        rows = {row.key: row async for row in scan_keys(self._store.results, run_id, keys, None)}
        changes = [Change("merge", row.key, columns, row.etag) for row in rows.values() if is_open(row)]
        ended: list[str] = []
        async for batch in throttled_batches(changes):
            try:
                await self._store.results.apply(run_id, batch)
                ended.extend(change.key for change in batch)
            except Conflict:
                # One of them changed meanwhile; the others must not wait for it.
                ended.extend([one.key for one in batch if await self._end_one(run_id, one.key, columns)])
        written = [Row(key, {**rows[key].columns, **columns}, "") for key in ended]
        # Rows that an earlier execution ended with this outcome may still lack their history.
        again = [row for row in rows.values() if not is_open(row) and try_read(run_id, row, _outcome_of) == outcome]

        async def publish(row: Row) -> None:
            if (machine := try_read(run_id, row, _machine)) is not None:
                await self._history.publish(run_id, machine)

        await in_parallel(publish, [*written, *again], most=BATCH_ROWS)
        return len(ended)

    async def list_patches(self, run_id: str, machine_key: str) -> list[PatchRecord]:
        """The patches of a machine in this run, in discovery order."""
        row = await self._store.results.get_validated(run_id, MACHINES + machine_key)
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

    async def _write_with_patches(
        self,
        run_id: str,
        row: Row,
        columns: Columns,
        patches: Sequence[PatchRecord],
        completions: Sequence[Change] = (),
    ) -> bool:
        """Write the patches, then the machine row, in one transaction if they fit; ``False``: the row has changed.

        ``completions`` are in the machine row's transaction.
        """
        changes = patch_changes(row, patches)
        last = [*completions, Change("merge", row.key, columns, row.etag)]
        *leading, final = batches([*changes, *last])
        if len(final) < len(last):
            # Without its completion, a machine with an outcome would keep its permits.
            leading, final = batches(changes), last
        for batch in leading:
            await self._store.results.apply(run_id, batch)
        if not await apply_if_unchanged(self._store.results, run_id, final):
            return False
        if changes:
            self._known_patches.put(run_id, Row(row.key, {**row.columns, **columns}, ""), patches)
        return True

    async def _end_one(self, run_id: str, key: str, columns: Columns) -> bool:
        async for _ in OptimisticRetry("a machine row"):
            row = await self._store.results.get(run_id, key, ["outcome"])
            if row is None or not is_open(row):
                return False
            if await self._store.results.merge(run_id, key, columns, row.etag):
                return True
        return False


def _explained(run_id: str, row: Row, outcome: Outcome, installation: InstallationSummary | None) -> Outcome:
    """The outcome with what has changed since the machine's last window, if the run belongs to one."""
    machine = try_read(run_id, row, _machine)
    window = machine.window(run_id) if machine is not None else None
    if machine is None or window is None:
        # A run by hand, or a damaged row.
        return outcome
    return explain(machine.last_window, outcome, installation or machine.installation, window)


def _lease_column(*, is_kept: bool) -> Columns:
    """The final row's column about the machine's lease."""
    return {KEEPS_LEASE: True} if is_kept else {}


def _ended(outcome: Outcome, at: datetime) -> dict[str, object]:
    return {"stage": Stage.DONE, **outcome.to_wire(), "endedAt": at}


def _outcome_of(row: Row) -> Outcome:
    return Outcome.model_validate({name: row.columns[name] for name in ("outcome", "reason", "message")})


def _machine(row: Row) -> MachineRecord:
    return unpack(MachineRecord, row.columns)
