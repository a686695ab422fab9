"""Endings: how a phase hears that a machine has ended its step.

A row is written in one transaction with the machine's own row, so that neither is there without the other. It stays
until the phase has acknowledged it: each look reads all rows that are there, so that no clock and no delay of a write
can hide one. Acknowledged rows are removed by the hundred, which keeps a look short.
"""

from __future__ import annotations

from patchwave.domain.workflow.messages import MachineEnded
from patchwave.storage.engine.entity_codec import pack, unpack
from patchwave.storage.engine.paging import try_read
from patchwave.storage.engine.rows import BATCH_ROWS, Change, Conflict, Row
from patchwave.storage.engine.store import Repository

_ENDINGS = "e~"
"""Row key prefix of an ending: ``e~{phase}~{machineKey}~{attempt}``."""
_MAX_TOLD = 400
"""Endings told at a time: they travel in one message, and their names in the next ones."""


class CompletionRepository(Repository):
    """Who has ended since a phase looked last."""

    async def since(self, run_id: str, phase: str, heard: str) -> tuple[list[MachineEnded], str]:
        """The endings that a phase has not acknowledged, and the ``heard`` of the next call, which acknowledges them.

        An ending is returned until a call acknowledges it in ``heard``: the same call again returns the same ones. One
        that is written again after its row was removed is returned again.
        """
        prefix = f"{_ENDINGS}{phase}~"
        known = set(heard.split())
        old: list[Row] = []
        new: list[Row] = []
        async for row in self._store.results.scan(run_id, first=prefix, end=f"{prefix}~"):
            (old if row.key.removeprefix(prefix) in known else new).append(row)
            if len(new) == _MAX_TOLD:
                # Acknowledged ones that lie further behind are still there.
                break
        else:
            known = {row.key.removeprefix(prefix) for row in old}
        removed = await self._remove(run_id, old)
        left = known - {key.removeprefix(prefix) for key in removed}
        names = sorted(left | {row.key.removeprefix(prefix) for row in new})
        # The comparison of the phase with its machines finds an end whose row cannot be read.
        told = [try_read(run_id, row, lambda row: unpack(MachineEnded, row.columns)) for row in new]
        return [each for each in told if each is not None], " ".join(names)

    async def record(self, run_id: str, ending: Change) -> None:
        """Write an ending (`completion_change`) alone: its machine's row has nothing to say about it."""
        await self._store.results.apply(run_id, [ending])

    async def _remove(self, run_id: str, acknowledged: list[Row]) -> list[str]:
        """Remove as many as fill transactions: one request for each hundred machines. The keys of those removed."""
        removed: list[str] = []
        for first in range(0, len(acknowledged) - BATCH_ROWS + 1, BATCH_ROWS):
            batch = acknowledged[first : first + BATCH_ROWS]
            try:
                await self._store.results.apply(run_id, [Change("delete", row.key, {}, row.etag) for row in batch])
            except Conflict:
                # One of them was written again, or another execution was faster: they can wait.
                continue
            removed += [row.key for row in batch]
        return removed


def completion_change(phase: str, ended: MachineEnded) -> Change:
    """The row that tells the phase; the same one every time that this start of the machine ends."""
    return Change("replace", f"{_ENDINGS}{phase}~{ended.key}~{ended.attempt}", pack(ended.to_wire()))
