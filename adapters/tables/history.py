"""What happened to a machine over all runs, and what is known of the whole fleet now.

Both are copies of final rows, kept for the questions that a run's partition cannot answer in one scan.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import datetime
from typing import Any

from adapters.tables.columns import Columns, get_json, pack
from adapters.tables.operations import ALL_RUNS, LeaseRecords
from adapters.tables.paging import Page, Span, read_page
from adapters.tables.rows import Row
from adapters.tables.store import ChangeRounds
from domain.base import as_object, format_instant, parse_instant
from domain.outcome import OutcomeKind
from domain.run import MachineRecord

HISTORY = "h~"
"""Row key prefix of an end: ``h~{machineKey}~{inverted milliseconds}~{runId}``."""
_FLEET = "f~"
"""Row key prefix of what is known of a machine now: ``f~{machineKey}``."""
LAST_MILLISECOND = 9_999_999_999_999
_JSON = ("assessment", "installation")
_INSTALLED = frozenset({OutcomeKind.PATCHED, OutcomeKind.PATCHED_WITH_WARNINGS, OutcomeKind.REBOOT_REQUIRED})


class HistoryRecords(LeaseRecords):
    """A machine's history, and the latest state of every machine."""

    async def machine_history(self, machine_key: str, limit: int, cursor: str | None) -> Page[dict[str, Any]]:
        """The ends of a machine's runs, newest first: ``runId``, ``at``, ``outcome``, ``reason``, counts.

        Raises:
            InvalidCursor: the cursor is not one of this list.
        """
        span = Span(ALL_RUNS, f"{HISTORY}{machine_key}~")
        return await read_page(self._store.machines, span, _document, limit=limit, cursor=cursor)

    async def fleet(self, limit: int, cursor: str | None) -> Page[dict[str, Any]]:
        """The latest state of every machine that any run has ended, in key order.

        Raises:
            InvalidCursor: the cursor is not one of this list.
        """
        return await read_page(self._store.machines, Span(ALL_RUNS, _FLEET), _document, limit=limit, cursor=cursor)

    async def install_seconds(self) -> dict[str, float]:
        """How long the last installation of each machine of the fleet took that brought it to its end, by key.

        From the start of the installation to the end of the machine's run: its restart is part of it. One scan.
        """
        found: dict[str, float] = {}
        span = Span(ALL_RUNS, _FLEET)
        columns = ["installation", "patchedAt"]
        async for row in self._store.machines.scan(ALL_RUNS, first=span.first, end=span.end, select=columns):
            installation = as_object(get_json(row.columns, "installation")) or {}
            began = parse_instant(installation.get("startedAt"))
            ended = parse_instant(row.columns.get("patchedAt"))
            # A later installation that failed has taken the place of the one that ended then.
            if began is not None and ended is not None and began < ended:
                found[row.key.removeprefix(_FLEET)] = (ended - began).total_seconds()
        return found

    async def last_assessments(self) -> dict[str, datetime]:
        """When a run last assessed each machine of the fleet, by key. One scan."""
        found: dict[str, datetime] = {}
        span = Span(ALL_RUNS, _FLEET)
        async for row in self._store.machines.scan(ALL_RUNS, first=span.first, end=span.end, select=["assessment"]):
            assessment = as_object(get_json(row.columns, "assessment")) or {}
            at = parse_instant(assessment.get("at"))
            if at is not None:
                found[row.key.removeprefix(_FLEET)] = at
        return found

    async def _publish(self, run_id: str, machine: MachineRecord, *, latest: bool, is_newest: bool = False) -> None:
        """Copy a machine's end to its history and, with ``latest``, to the fleet; the same rows every time.

        ``is_newest``: the fleet cannot have a later end, and need not be asked.
        """
        if machine.ended_at is None or machine.outcome is None:
            raise ValueError(f"machine {machine.key} has no outcome to publish")
        at = format_instant(machine.ended_at)
        end = pack(
            {
                "runId": run_id,
                "at": at,
                "id": machine.id,
                "name": machine.name,
                "outcome": machine.outcome,
                "reason": machine.reason,
                "message": machine.message,
                "assessment": machine.assessment,
                "installation": machine.installation,
            }
        )
        inverted = LAST_MILLISECOND - int(machine.ended_at.timestamp() * 1000)
        key = f"{HISTORY}{machine.key}~{inverted:013d}~{run_id}"
        writes: list[Awaitable[object]] = [self._store.machines.replace(ALL_RUNS, key, end)]
        if latest:
            place = {
                "key": machine.key,
                "subscriptionId": machine.subscription_id,
                "resourceGroup": machine.resource_group,
                "location": machine.location,
                "osType": machine.os_type,
            }
            patched = {"patchedAt": at, "patchedBy": run_id} if machine.outcome in _INSTALLED else {}
            columns = end | place | patched
            if is_newest:
                writes.append(self._store.machines.merge(ALL_RUNS, _FLEET + machine.key, columns))
            else:
                writes.append(self._set_latest(machine.key, at, columns))
        await asyncio.gather(*writes)

    async def _set_latest(self, machine_key: str, at: str, columns: Columns) -> None:
        """Merge, so that a run which learned nothing about patches keeps the last assessment; newer rows stay."""
        fleet, key = self._store.machines, _FLEET + machine_key
        async for _ in ChangeRounds(f"the fleet row of {machine_key}"):
            row = await fleet.get(ALL_RUNS, key, ["at"])
            if row is None:
                if await fleet.insert(ALL_RUNS, key, columns):
                    return
            elif str(row.columns["at"]) > at or await fleet.merge(ALL_RUNS, key, columns, row.etag):
                return


def _document(row: Row) -> dict[str, Any]:
    document = {name: value for name, value in row.columns.items() if name not in _JSON}
    return document | {name: get_json(row.columns, name) for name in _JSON if name in row.columns}
