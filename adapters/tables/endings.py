"""Endings: how a phase hears that a machine has ended its step.

A row is written in one transaction with the machine's own row, so that neither is there without the other. Its key
begins with the phase and the moment: a phase reads what is new since its last look in one short scan.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from adapters.tables.columns import pack, unpack
from adapters.tables.rows import Change
from adapters.tables.store import StoreBacked
from domain.work import MachineEnded

_ENDINGS = "e~"
"""Row key prefix of an ending: ``e~{phase}~{milliseconds}~{machineKey}~{attempt}``."""
_DIGITS = 13


class EndingRecords(StoreBacked):
    """Who has ended since a phase looked last."""

    async def endings_since(
        self, run_id: str, phase: str, heard: str, overlap: timedelta
    ) -> tuple[list[MachineEnded], str]:
        """The endings of a phase that are new, by time, and what the next call is to be given for ``heard``.

        A row may become readable after one with a later stamp: clocks differ, and writes wait for company. Those that
        were written up to ``overlap`` before the newest one that is known are therefore told again. Whatever comes
        even later is found when the phase compares itself with the records.
        """
        prefix = f"{_ENDINGS}{phase}~"
        known = int(heard or 0)
        since = max(0, known - int(overlap.total_seconds() * 1000))
        rows = self._store.results.scan(run_id, first=f"{prefix}{since:0{_DIGITS}d}", end=f"{prefix}~")
        found: list[MachineEnded] = []
        async for row in rows:
            known = max(known, int(row.key[len(prefix) : len(prefix) + _DIGITS]))
            found.append(unpack(MachineEnded, row.columns))
        return found, str(known) if known else ""

    async def tell_phase(self, run_id: str, ending: Change) -> None:
        """Write an ending (`ending_change`) alone: nobody is there any more who could write it with a machine's row."""
        await self._store.results.apply(run_id, [ending])


def ending_change(phase: str, ended: MachineEnded, at: datetime) -> Change:
    """The row that tells the phase; the same one every time it is written for the same moment."""
    key = f"{_ENDINGS}{phase}~{int(at.timestamp() * 1000):0{_DIGITS}d}~{ended.key}~{ended.attempt}"
    return Change("replace", key, pack(ended.to_wire()))
