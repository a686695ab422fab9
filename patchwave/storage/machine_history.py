"""What happened to a machine over all runs, and what is known of the whole fleet now.

Both are copies of final rows, kept for the questions that a run's partition cannot answer in one scan.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from patchwave.domain.core.documents import format_instant, object_or_none, parse_instant
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.storage.engine.entity_codec import Columns, get_json, pack, wire_names
from patchwave.storage.engine.paging import KeyRange, Page, read_page, try_read
from patchwave.storage.engine.rows import Change, Conflict, Row
from patchwave.storage.engine.store import OptimisticRetry, Repository

ALL_RUNS = "machines"
"""The one partition of what is kept of machines over all runs, so that their rows can share transactions."""
LEASE = "l~"
"""Row key prefix of a lease: ``l~{machineKey}``."""
HISTORY = "h~"
"""Row key prefix of an end: ``h~{machineKey}~{inverted milliseconds}~{runId}``."""
FLEET = "f~"
"""Row key prefix of what is known of a machine now: ``f~{machineKey}``."""
KEEPS_LEASE = "keepsLease"
"""Column of a final row: something may still run in the guest, so that the lease stays until it runs out."""
FINAL_ROW = [*wire_names(MachineRecord, without=["tags"]), KEEPS_LEASE]
"""The columns of a machine's row that its copies are made of."""
LAST_MILLISECOND = 9_999_999_999_999
_JSON = ("assessment", "installation")
_INSTALLED = frozenset({OutcomeKind.PATCHED, OutcomeKind.PATCHED_WITH_WARNINGS, OutcomeKind.REBOOT_REQUIRED})


class MachineHistoryRepository(Repository):
    """A machine's history, and the latest state of every machine."""

    async def list_page(self, machine_key: str, limit: int, cursor: str | None) -> Page[dict[str, Any]]:
        """The ends of a machine's runs, newest first: ``runId``, ``at``, ``outcome``, ``reason``, counts.

        Raises:
            InvalidCursor: the cursor is not one of this list.
        """
        span = KeyRange(ALL_RUNS, f"{HISTORY}{machine_key}~")
        return await read_page(self._store.machines, span, _document, limit=limit, cursor=cursor)

    async def list_fleet(self, limit: int, cursor: str | None) -> Page[dict[str, Any]]:
        """The latest state of every machine that any run has ended, in key order.

        Raises:
            InvalidCursor: the cursor is not one of this list.
        """
        return await read_page(self._store.machines, KeyRange(ALL_RUNS, FLEET), _document, limit=limit, cursor=cursor)

    async def install_seconds(self) -> dict[str, float]:
        """How long the last installation of each machine of the fleet took that brought it to its end, by key.

        From the start of the installation to the end of the machine's run: its restart is part of it. One scan.
        """
        found: dict[str, float] = {}
        span = KeyRange(ALL_RUNS, FLEET)
        columns = ["installation", "patchedAt"]
        async for row in self._store.machines.scan(ALL_RUNS, first=span.first, end=span.end, select=columns):
            stored = try_read(ALL_RUNS, row, lambda row: get_json(row.columns, "installation"))
            installation = object_or_none(stored) or {}
            began = parse_instant(installation.get("startedAt"))
            ended = parse_instant(row.columns.get("patchedAt"))
            # A later installation that failed has taken the place of the one that ended then.
            if began is not None and ended is not None and began < ended:
                found[row.key.removeprefix(FLEET)] = (ended - began).total_seconds()
        return found

    async def last_assessments(self) -> dict[str, datetime]:
        """When a run last assessed each machine of the fleet, by key. One scan."""
        found: dict[str, datetime] = {}
        span = KeyRange(ALL_RUNS, FLEET)
        async for row in self._store.machines.scan(ALL_RUNS, first=span.first, end=span.end, select=["assessment"]):
            stored = try_read(ALL_RUNS, row, lambda row: get_json(row.columns, "assessment"))
            assessment = object_or_none(stored) or {}
            at = parse_instant(assessment.get("at"))
            if at is not None:
                found[row.key.removeprefix(FLEET)] = at
        return found

    async def publish(
        self, run_id: str, machine: MachineRecord, *, is_newest: bool = False, release: bool = False
    ) -> None:
        """Copy a machine's end to its history and to the fleet, in one transaction; the same rows every time.

        The fleet changes when the end says something about the machine (`says_something`), and only to what is
        newer: a run that learned nothing about patches keeps the last assessment.

        Args:
            run_id: the run that it ended in.
            machine: its record, with an outcome.
            is_newest: the fleet cannot have a later end, and need not be asked.
            release: give the run's lease back in the same transaction, so that a lease of a machine that has ended
                tells that the copies may be missing.
        """
        history = history_change(run_id, machine)
        latest = history.columns | _latest(run_id, machine)
        fleet, lease = FLEET + machine.key, LEASE + machine.key
        table = self._store.machines
        held = table.peek_cache(ALL_RUNS, lease) if release else None
        async for number in OptimisticRetry(f"the end of {machine.key}"):
            changes = [history]
            if says_something(machine):
                row = None if is_newest and number == 1 else await table.get(ALL_RUNS, fleet, ["at"])
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
    """The row of a machine's end in its history; its key is made of the stored end, so that it is there once."""
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
    """What the fleet tells of a machine beside its newest end."""
    place = {
        "key": machine.key,
        "subscriptionId": machine.subscription_id,
        "resourceGroup": machine.resource_group,
        "location": machine.location,
        "osType": machine.os_type,
    }
    patched = {"patchedAt": format_instant(_ended_at(machine)), "patchedBy": run_id}
    return place | patched if machine.outcome in _INSTALLED else place


def _ended_at(machine: MachineRecord) -> datetime:
    if machine.ended_at is None or machine.outcome is None:
        raise ValueError(f"machine {machine.key} has no outcome to publish")
    return machine.ended_at


def says_something(machine: MachineRecord) -> bool:
    """Whether an end is about the machine: a run that was cancelled or whose window closed before says nothing."""
    return machine.outcome is not OutcomeKind.CANCELED and machine.reason != Reason.WINDOW_CLOSED


def _document(row: Row) -> dict[str, Any]:
    document = {name: value for name, value in row.columns.items() if name not in _JSON}
    return document | {name: get_json(row.columns, name) for name in _JSON if name in row.columns}
