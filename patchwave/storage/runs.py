"""Runs: one partition, newest first; each row is created once by run id and changed under its ETag."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from patchwave.domain.calendar.local_window import LocalWindow
from patchwave.domain.core.command import Command
from patchwave.domain.core.ids import RunId
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.maintenance.occurrence import MaintenanceOccurrence
from patchwave.domain.runs import commands
from patchwave.domain.runs.error_budget import ErrorBudgetExceeded
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Mode, Run, RunState
from patchwave.storage.audit_log import AuditRepository
from patchwave.storage.engine.entity_codec import Columns, clean, pack, unpack, wire_names
from patchwave.storage.engine.paging import Page, read_page
from patchwave.storage.engine.parallel import in_parallel
from patchwave.storage.engine.store import OptimisticRetry, Repository, Store
from patchwave.storage.errors import RecordMissing, StorageError
from patchwave.storage.live_runs import LiveRunRepository
from patchwave.storage.run_patches import MACHINES
from patchwave.storage.schedule_overrides import ScheduleOverrideRepository

_LOG = logging.getLogger("patchwave.storage")
_PARTITION = "runs"
_PARALLEL = 50
_SNAPSHOT = "policySnapshot"
_RUNS_KEPT = 50
_STAGES, _OUTCOMES = frozenset(Stage), frozenset(OutcomeKind)
_COUNTED_A_SECOND = 500
"""Rows read per second to count the machines of a live run. Smaller runs are counted on every read."""
LISTED = wire_names(Run, without=[_SNAPSHOT])
"""The columns of a run in lists."""


class LiveRun(NamedTuple):
    """An entry of the index of live runs, and its run without the snapshot; ``None`` if it has no row."""

    run_id: str
    since: datetime
    run: Run | None


class RunRepository(Repository):
    """Runs as a whole."""

    def __init__(
        self, store: Store, live_runs: LiveRunRepository, overrides: ScheduleOverrideRepository, audit: AuditRepository
    ) -> None:
        super().__init__(store)
        self._live_runs = live_runs
        self._overrides = overrides
        self._audit = audit
        self._parsed: dict[str, tuple[str, Run]] = {}
        """The parsed run by id and ETag: each machine of a run reads it several times."""
        self._counting: dict[str, asyncio.Task[tuple[dict[str, int], dict[str, int]]]] = {}

    async def create(self, run: Run) -> tuple[Run, bool]:
        """Insert the run unless its id exists; returns the stored run, and whether this call created it.

        Raises:
            RecordTooLarge: the policy snapshot does not fit into a row.
        """
        # Index first: no timer would find a run without an entry. The watchdog removes entries without a run.
        is_entered = await self._live_runs.add(run.id, run.created_at)
        if await self._store.runs.insert(_PARTITION, RunId.parse(run.id).row_key, pack(run.to_wire())):
            return run, True
        stored = await self.get(run.id)
        if stored is None:
            raise RecordMissing(f"run {run.id} was removed while it was read")
        if is_entered and stored.state.is_final:
            await self._live_runs.remove(run.id)
        return stored, False

    async def get(self, run_id: str) -> Run | None:
        """The run with its policy snapshot, or ``None``."""
        row = await self._store.runs.get_coalesced(_PARTITION, RunId.parse(run_id).row_key)
        if row is None:
            return None
        etag, run = self._parsed.get(run_id, ("", None))
        if run is None or etag != row.etag:
            run = _run(row.columns)
            self._parsed[run_id] = (row.etag, run)
            if len(self._parsed) > _RUNS_KEPT:
                del self._parsed[next(iter(self._parsed))]
        return run

    async def list_page(self, limit: int, cursor: str | None, mode: Mode | None = None) -> Page[Run]:
        """Runs, newest first, without their policy snapshots; optionally of one ``mode``."""
        return await read_page(
            self._store.runs,
            _PARTITION,
            lambda row: _run(row.columns),
            limit=limit,
            cursor=cursor,
            select=LISTED,
            where=None if mode is None else {"mode": mode.value},
        )

    async def list_watched(self) -> list[LiveRun]:
        """Every entry of the index of live runs, newest run first; some of the runs may have ended.

        An unreadable entry or run is logged, and left as it is.
        """

        async def read(entry: tuple[str, datetime]) -> LiveRun | None:
            run_id, since = entry
            try:
                return LiveRun(run_id, since, await self.get_listed(run_id))
            except StorageError:
                raise
            except Exception:
                # Unreadable is not missing: its entry stays.
                _LOG.exception("The row of the run %s cannot be read.", run_id)
                return None

        found = await in_parallel(read, await self._live_runs.list_all(), most=_PARALLEL)
        return [each for each in found if each is not None]

    async def list_live(self) -> list[Run]:
        """All live runs, newest first, without their policy snapshots. One request per run."""
        found = [each.run for each in await self.list_watched()]
        return [run for run in found if run is not None and not run.state.is_final]

    async def start(self, run_id: str, at: datetime) -> Run:
        """Move a queued run to running; any other state stays. Returns the run with its snapshot."""
        return await self._change(run_id, lambda run: commands.start(run, at))

    async def close(self, run_id: str, state: RunState, reason: str, at: datetime) -> Run:
        """Set the final state, and totals counted from the machines. A final run stays as it is."""
        run = await self.get(run_id)
        if run is None:
            raise RecordMissing(f"no run {run_id}")
        if run.state.is_final:
            return run
        outcomes, stages = await self.progress(run_id)

        def close(run: Run) -> Run:
            if run.state.is_final:
                return run
            return commands.close(run, state, clean(reason), at).model_copy(
                update={"machines": sum(stages.values()), "counts_by_outcome": outcomes, "counts_by_stage": stages}
            )

        return await self._change(run_id, close)

    async def settle(self, run: Run) -> None:
        """Complete what follows the end of a run; removes its index entry last. Idempotent."""
        ended_at = run.ended_at or run.created_at
        await self._overrides.end_window_reservation(run.policy, run.id, ended_at)
        detail = {"state": run.state.value, "reason": run.reason, "countsByOutcome": run.counts_by_outcome}
        await self._audit.add(run.id, "run_ended", actor="patchwave", at=ended_at, detail=detail)
        await self._live_runs.remove(run.id)

    async def get_listed(self, run_id: str) -> Run | None:
        """The run without its policy snapshot, or ``None``."""
        row = await self._store.runs.get(_PARTITION, RunId.parse(run_id).row_key, LISTED)
        return None if row is None else _run(row.columns)

    async def extend_heartbeat(self, run_id: str, until: datetime) -> None:
        """Extend the heartbeat deadline, by a merge into the run's row."""
        await self._store.runs.merge(_PARTITION, RunId.parse(run_id).row_key, pack({"heartbeatDeadline": until}))

    async def begin_generation(self, run_id: str, after: int, version: str, until: datetime) -> Run:
        """Begin the generation after ``after``, unless another caller did or the run has ended; returns the run."""

        def begin(run: Run) -> Run:
            if run.state.is_final or run.generation != after:
                return run
            return run.model_copy(update={"generation": after + 1, "version": version, "heartbeat_deadline": until})

        return await self._change(run_id, begin)

    # --- commands: idempotent; the first of two counts

    async def cancel(self, run_id: str, command: Command) -> Run:
        """Cancel the run.

        Raises (all of these):
            RecordMissing: the run does not exist.
            InvalidTransition: the command is too late, or contradicts an earlier one.
        """
        return await self._change(run_id, lambda run: commands.cancel(run, clean_command(command)))

    async def pause(self, run_id: str, command: Command) -> Run:
        """Pause the run: it starts nothing more."""
        return await self._change(run_id, lambda run: commands.pause(run, clean_command(command)))

    async def resume(self, run_id: str, command: Command) -> Run:
        """Resume the run after a pause, or after gates that block."""
        return await self._change(run_id, lambda run: commands.resume(run, clean_command(command)))

    async def decide_ring(self, run_id: str, ring: str, command: Command, *, approved: bool) -> Run:
        """Approve or reject a ring."""
        return await self._change(
            run_id, lambda run: commands.decide(run, ring, clean_command(command), approved=approved)
        )

    async def set_state(self, run_id: str, state: RunState, waiting_for: str = "") -> Run:
        """Show the run's state; pauses and blocked gates take precedence."""
        return await self._change(run_id, lambda run: commands.show(run, state, waiting_for))

    async def enter_window(self, run_id: str, ends_at: datetime, local: LocalWindow | None = None) -> Run:
        """Continue the run in a window that ends then. A final run stays as it is."""
        return await self._change(run_id, lambda run: commands.enter_window(run, ends_at, local))

    async def ask_approval(self, run_id: str, ring: str, at: datetime) -> Run:
        """Wait for the approval of a ring; the first time is kept."""
        return await self._change(run_id, lambda run: commands.ask_approval(run, ring, at))

    async def trip_error_budget(self, gate: ErrorBudgetExceeded, at: datetime) -> Run:
        """An error budget is exceeded: block its scope, or end the run."""
        return await self._change(gate.run_id, lambda run: commands.trip_error_budget(run, gate, at))

    async def stop(self, run_id: str, reason: str, at: datetime, *, unless_approved: str = "") -> Run:
        """A gate ends the run, unless that ring was approved."""
        return await self._change(
            run_id, lambda run: commands.stop(run, clean(reason), at, unless_approved=unless_approved)
        )

    async def update_occurrence(
        self, run_id: str, change: Callable[[MaintenanceOccurrence], MaintenanceOccurrence]
    ) -> Run:
        """Update what is known of the maintenance run's scheduled run; returns the run."""

        def note(run: Run) -> Run:
            if run.maintenance is None:
                return run
            return run.model_copy(update={"maintenance": change(run.maintenance)})

        return await self._change(run_id, note)

    async def is_canceled(self, run_id: str) -> bool:
        """Whether the run was cancelled."""
        run = await self.get(run_id)
        return run is not None and run.cancel_requested_at is not None

    async def count_machines(self, run_id: str) -> int:
        """Count the run's machines by a scan of their keys, and store the number for lists."""
        total = 0
        async for _ in self._store.results.scan(run_id, prefix=MACHINES, select=[]):
            total += 1
        await self.set_machine_count(run_id, total)
        return total

    async def set_machine_count(self, run_id: str, machines: int) -> None:
        """Store the number of machines for lists, by a merge into the run's row."""
        await self._store.runs.merge(_PARTITION, RunId.parse(run_id).row_key, {"machines": machines})

    async def get_counted(self, run_id: str, now: datetime) -> Run | None:
        """The run with counts of its machines, or ``None``. A run that has ended has them in its row.

        Counts of a large live run are refreshed once in ``machines / 500`` seconds for all callers, and stored in its
        row with ``counted_at``. So any number of readers causes at most 500 row reads a second.
        """
        row = await self._store.runs.get_coalesced(_PARTITION, RunId.parse(run_id).row_key)
        if row is None:
            return None
        run = _run(row.columns)
        if run.state.is_final or _is_fresh(run, now):
            return run
        counting = self._counting.get(run_id)
        if counting is None:
            counting = self._counting[run_id] = asyncio.create_task(self.progress(run_id))
            counting.add_done_callback(lambda _: self._counting.pop(run_id, None))
        outcomes, stages = await asyncio.shield(counting)
        counts = {
            "machines": sum(stages.values()),
            "counts_by_outcome": outcomes,
            "counts_by_stage": stages,
            "counted_at": now,
        }
        counted = run.model_copy(update=counts)
        if counted.machines > _COUNTED_A_SECOND:
            names = ("machines", "countsByOutcome", "countsByStage", "countedAt")
            columns = pack({name: counted.to_wire()[name] for name in names})
            # Only into the row version that was read: it may have its final counts meanwhile.
            await self._store.runs.merge(_PARTITION, row.key, columns, row.etag)
        return counted

    async def progress(self, run_id: str) -> tuple[dict[str, int], dict[str, int]]:
        """Counts of machines by outcome and by stage, without zeros. One scan of two columns."""
        outcomes: Counter[str] = Counter()
        stages: Counter[str] = Counter()
        rows = self._store.results.scan(run_id, prefix=MACHINES, select=["outcome", "stage"])
        async for row in rows:
            stage, outcome = row.columns.get("stage", Stage.WAITING), row.columns.get("outcome")
            # Unknown values of damaged rows count as unknown outcome, and as in progress.
            stages[stage if stage in _STAGES else Stage.DONE if outcome else Stage.INSTALLING] += 1
            if outcome:
                outcomes[outcome if outcome in _OUTCOMES else OutcomeKind.UNKNOWN] += 1
        return (
            {kind.value: outcomes[kind] for kind in OutcomeKind if outcomes[kind]},
            {stage.value: stages[stage] for stage in Stage if stages[stage]},
        )

    async def _change(self, run_id: str, decide: Callable[[Run], Run]) -> Run:
        key = RunId.parse(run_id).row_key
        async for _ in OptimisticRetry(f"run {run_id}"):
            row = await self._store.runs.get(_PARTITION, key)
            if row is None:
                break
            stored = _run(row.columns)
            wanted = decide(stored)
            if wanted == stored:
                return stored
            # The whole row: a merge could not remove columns that are empty again.
            if await self._store.runs.replace(_PARTITION, key, pack(wanted.to_wire()), row.etag):
                return wanted
        raise RecordMissing(f"no run {run_id}")


def clean_command(command: Command) -> Command:
    """The command with a reason that may be stored: users paste addresses and headers."""
    return command.model_copy(update={"actor": clean(command.actor), "reason": clean(command.reason)})


def _is_fresh(run: Run, now: datetime) -> bool:
    """Whether the stored counts are recent enough: those of a large run may be older."""
    return run.counted_at is not None and now - run.counted_at < timedelta(seconds=run.machines / _COUNTED_A_SECOND)


def _run(columns: Columns) -> Run:
    return unpack(Run, columns)
