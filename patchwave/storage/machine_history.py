"""History of each machine over all runs, and the latest state of the fleet.

Both are copies of final rows, for queries that a run's partition cannot answer in one scan.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from patchwave.domain.core.documents import format_instant, object_or_none, parse_instant
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.window_results import WindowEnd, WindowResult, following, window_end
from patchwave.storage.engine.entity_codec import Columns, get_json, pack, wire_names
from patchwave.storage.engine.paging import Page, read_page, try_read
from patchwave.storage.engine.rows import Change, Conflict, Row
from patchwave.storage.engine.store import OptimisticRetry, Repository

ALL_RUNS = "machines"
"""The partition of machine data over all runs, whose rows can therefore share transactions."""
LEASE = "l~"
"""Row key prefix of a lease: ``l~{machineKey}``."""
HISTORY = "h~"
"""Row key prefix of a history entry: ``h~{machineKey}~{inverted milliseconds}~{runId}``."""
FLEET = "f~"
"""Row key prefix of a machine's latest state: ``f~{machineKey}``."""
CATCH_UP = "c~"
"""Row key prefix of a machine that may come back while its window is open: ``c~{machineKey}``."""
KEEPS_LEASE = "keepsLease"
"""Column of a final row: an operation may still run in the guest, so the lease stays until it expires."""
FINAL_ROW = [*wire_names(MachineRecord, without=["tags"]), KEEPS_LEASE]
"""The columns of a machine's final row that are copied."""
LAST_MILLISECOND = 9_999_999_999_999
WINDOW_RESULT, _IS_UNFINISHED, _NEEDS_PERSON = "windowResult", "isUnfinished", "needsPerson"
"""Columns of the fleet's row: the last window in which the machine failed or was not ready, and two to find it by."""
_JSON = ("assessment", "installation", WINDOW_RESULT)
_INSTALLED = frozenset({OutcomeKind.PATCHED, OutcomeKind.PATCHED_WITH_WARNINGS, OutcomeKind.REBOOT_REQUIRED})


class MachineHistoryRepository(Repository):
    """History and latest state of machines."""

    async def list_page(self, machine_key: str, limit: int, cursor: str | None) -> Page[dict[str, Any]]:
        """A machine's history, newest first: ``runId``, ``at``, ``outcome``, ``reason``, counts."""
        prefix = f"{HISTORY}{machine_key}~"
        return await read_page(self._store.machines, ALL_RUNS, _document, prefix=prefix, limit=limit, cursor=cursor)

    async def list_fleet(self, limit: int, cursor: str | None) -> Page[dict[str, Any]]:
        """The latest state of every machine with an outcome, in key order."""
        return await read_page(self._store.machines, ALL_RUNS, _document, prefix=FLEET, limit=limit, cursor=cursor)

    async def install_seconds(self) -> dict[str, float]:
        """Seconds that the last installation of each machine took, by key. One scan.

        From the start of the installation to the end of the machine's run, including its restart.
        """
        found: dict[str, float] = {}
        columns = ["installation", "patchedAt"]
        async for row in self._store.machines.scan(ALL_RUNS, prefix=FLEET, select=columns):
            stored = try_read(ALL_RUNS, row, lambda row: get_json(row.columns, "installation"))
            installation = object_or_none(stored) or {}
            began = parse_instant(installation.get("startedAt"))
            ended = parse_instant(row.columns.get("patchedAt"))
            # A later failed installation has replaced the one that ended then.
            if began is not None and ended is not None and began < ended:
                found[row.key.removeprefix(FLEET)] = (ended - began).total_seconds()
        return found

    async def last_assessments(self) -> dict[str, datetime]:
        """When a run last assessed each machine of the fleet, by key. One scan."""
        found: dict[str, datetime] = {}
        async for row in self._store.machines.scan(ALL_RUNS, prefix=FLEET, select=["assessment"]):
            stored = try_read(ALL_RUNS, row, lambda row: get_json(row.columns, "assessment"))
            assessment = object_or_none(stored) or {}
            at = parse_instant(assessment.get("at"))
            if at is not None:
                found[row.key.removeprefix(FLEET)] = at
        return found

    async def list_unfinished(self) -> dict[str, WindowResult]:
        """The last window of each machine that failed or was not ready in it, by key. One scan."""
        columns = [WINDOW_RESULT]
        rows = self._store.machines.scan(ALL_RUNS, prefix=FLEET, select=columns, where={_IS_UNFINISHED: True})
        found = {row.key.removeprefix(FLEET): try_read(ALL_RUNS, row, _window_result) async for row in rows}
        return {key: result for key, result in found.items() if result is not None}

    async def list_needing_person(self, limit: int, cursor: str | None) -> Page[dict[str, Any]]:
        """The latest state of each machine that failed in too many windows in a row, in key order."""
        return await read_page(
            self._store.machines,
            ALL_RUNS,
            _document,
            prefix=FLEET,
            limit=limit,
            cursor=cursor,
            where={_NEEDS_PERSON: True},
        )

    async def names_needing_person(self, run_id: str) -> list[str]:
        """Names of the machines that need a person after this run, their newest one. One scan."""
        columns = ["name", "runId"]
        rows = self._store.machines.scan(ALL_RUNS, prefix=FLEET, select=columns, where={_NEEDS_PERSON: True})
        return [str(row.columns.get("name", "")) async for row in rows if row.columns.get("runId") == run_id]

    async def reset_windows(self, machine_key: str) -> WindowResult | None:
        """Forget the windows in which the machine failed; returns what was known, ``None`` when nothing was."""
        table = self._store.machines
        async for _ in OptimisticRetry(f"the windows of {machine_key}"):
            row = await table.get(ALL_RUNS, FLEET + machine_key, [WINDOW_RESULT])
            result = try_read(ALL_RUNS, row, _window_result) if row is not None else None
            if row is None or result is None or await table.merge(ALL_RUNS, row.key, _FORGOTTEN, row.etag):
                return result
        return None

    async def publish(
        self, run_id: str, machine: MachineRecord, *, is_newest: bool = False, release: bool = False
    ) -> None:
        """Copy a machine's outcome to its history and to the fleet, in one transaction. Idempotent.

        The fleet's row changes only when the outcome says something about the machine (`says_something`), and only to
        newer facts: a run that learned nothing about patches keeps the last assessment.

        Args:
            run_id: the run of the outcome.
            machine: its record, with an outcome.
            is_newest: whether the fleet cannot have a later outcome, which saves a read.
            release: release the run's lease in the same transaction. A lease of a machine with an outcome
                therefore shows that copies may be missing.

        A window in which the machine failed or was not ready is counted, which takes a read of the fleet's row. One
        that is not ready also waits for its return (`CATCH_UP`), in the same transaction.
        """
        history = history_change(run_id, machine)
        latest = history.columns | _latest(run_id, machine)
        fleet, lease = FLEET + machine.key, LEASE + machine.key
        table = self._store.machines
        held = table.peek_cache(ALL_RUNS, lease) if release else None
        end = window_end(machine.outcome, machine.reason) if machine.outcome is not None else WindowEnd.UNDECIDED
        is_counted = machine.occurrence is not None and end in (WindowEnd.FAILED, WindowEnd.NOT_READY)
        if end is WindowEnd.FINISHED:
            latest |= _FORGOTTEN
        async for number in OptimisticRetry(f"the end of {machine.key}"):
            changes = [history]
            if says_something(machine):
                is_blind = is_newest and number == 1 and not is_counted
                row = None if is_blind else await table.get(ALL_RUNS, fleet, ["at", "runId", WINDOW_RESULT])
                if is_counted and not _is_published(row, latest):
                    latest |= _counted(run_id, machine, row)
                    if end is WindowEnd.NOT_READY and machine.max_failed_windows > 1:
                        changes.append(_catch_up(run_id, machine))
                if row is not None and str(row.columns["at"]) <= str(latest["at"]):
                    changes.append(Change("merge", fleet, latest, row.etag))
                elif row is None:
                    changes.append(Change("merge" if is_newest else "insert", fleet, latest))
            if release:
                if held is None or held.columns["owner"] != run_id:
                    held = await table.get(ALL_RUNS, lease)
                if held is not None and held.columns["owner"] == run_id:
                    changes.append(Change("delete", lease, {}, held.etag))
            try:
                await table.apply(ALL_RUNS, changes)
            except Conflict:
                held = None
            else:
                return


def history_change(run_id: str, machine: MachineRecord) -> Change:
    """The history row; its key contains the stored end time, so a repeated write is the same row."""
    ended_at = _ended_at(machine)
    inverted = LAST_MILLISECOND - int(ended_at.timestamp() * 1000)
    columns = pack(
        {
            "runId": run_id,
            "at": ended_at,
            "id": machine.id,
            "name": machine.name,
            "outcome": machine.outcome,
            "reason": machine.reason,
            "message": machine.message,
            "assessment": machine.assessment,
            "installation": machine.installation,
        }
    )
    return Change("replace", f"{HISTORY}{machine.key}~{inverted:013d}~{run_id}", columns)


def _latest(run_id: str, machine: MachineRecord) -> Columns:
    """The fleet's columns beside the newest outcome."""
    place = {
        "key": machine.key,
        "subscriptionId": machine.subscription_id,
        "resourceGroup": machine.resource_group,
        "location": machine.location,
        "osType": machine.os_type,
    }
    patched = {"patchedAt": format_instant(_ended_at(machine)), "patchedBy": run_id}
    return place | patched if machine.outcome in _INSTALLED else place


def _is_published(row: Row | None, latest: Columns) -> bool:
    """Whether the fleet's row has this outcome, or a newer one."""
    if row is None:
        return False
    is_same = (row.columns.get("runId"), row.columns["at"]) == (latest["runId"], latest["at"])
    return is_same or str(row.columns["at"]) > str(latest["at"])


def _counted(run_id: str, machine: MachineRecord, row: Row | None) -> Columns:
    """The columns about a window in which the machine failed or was not ready."""
    window = machine.window(run_id)
    if window is None or machine.outcome is None:
        return {}
    before = try_read(ALL_RUNS, row, _window_result) if row is not None else None
    result = following(before, machine.outcome, machine.reason, machine.installation, window)
    return pack({WINDOW_RESULT: result, _IS_UNFINISHED: True, _NEEDS_PERSON: result.needs_person})


def _catch_up(run_id: str, machine: MachineRecord) -> Change:
    columns = pack({"runId": run_id, "id": machine.id, "reason": machine.reason, "at": _ended_at(machine)})
    return Change("replace", CATCH_UP + machine.key, columns)


def _window_result(row: Row) -> WindowResult | None:
    stored = get_json(row.columns, WINDOW_RESULT)
    return None if stored is None else WindowResult.model_validate(stored)


_FORGOTTEN: Columns = {WINDOW_RESULT: "null", _IS_UNFINISHED: False, _NEEDS_PERSON: False}


def _ended_at(machine: MachineRecord) -> datetime:
    if machine.ended_at is None or machine.outcome is None:
        raise ValueError(f"machine {machine.key} has no outcome to publish")
    return machine.ended_at


def says_something(machine: MachineRecord) -> bool:
    """Whether an outcome is about the machine. Not after a cancelled run, or a window that closed first."""
    return machine.outcome is not OutcomeKind.CANCELED and machine.reason != Reason.WINDOW_CLOSED


def _document(row: Row) -> dict[str, Any]:
    document = {name: value for name, value in row.columns.items() if name not in _JSON}
    return document | {name: get_json(row.columns, name) for name in _JSON if name in row.columns}
