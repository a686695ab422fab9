"""Completions: rows that tell a phase which of its machines have ended their step.

A completion is written in one transaction with the machine's row, so that neither exists without the other. It stays
until the phase has acknowledged it: each poll reads all rows, so that neither clocks nor delayed writes can hide one.
Acknowledged rows are removed in batches of a hundred.
"""

from __future__ import annotations

from patchwave.domain.workflow.machine import MachineEnded
from patchwave.storage.engine.entity_codec import pack, unpack
from patchwave.storage.engine.paging import try_read
from patchwave.storage.engine.rows import BATCH_ROWS, Change, Conflict, Row
from patchwave.storage.engine.store import Repository

_PREFIX = "e~"
"""Row key prefix of a completion: ``e~{phase}~{machineKey}~{attempt}``."""
_MAX_PER_POLL = 400
"""Completions per poll: they travel in one message, and their names in the next ones."""


class CompletionRepository(Repository):
    """Completions of the machines of a phase."""

    async def since(self, run_id: str, phase: str, acknowledged: str) -> tuple[list[MachineEnded], str]:
        """The completions that are not acknowledged, and the ``acknowledged`` of the next call.

        A repeated call returns the same completions until a call acknowledges them. One that is written again after its
        removal is returned again.
        """
        prefix = f"{_PREFIX}{phase}~"
        known = set(acknowledged.split())
        old: list[Row] = []
        new: list[Row] = []
        async for row in self._store.results.scan(run_id, first=prefix, end=f"{prefix}~"):
            (old if row.key.removeprefix(prefix) in known else new).append(row)
            if len(new) == _MAX_PER_POLL:
                # Acknowledged ones that come later in key order still exist.
                break
        else:
            known = {row.key.removeprefix(prefix) for row in old}
        removed = await self._remove(run_id, old)
        left = known - {key.removeprefix(prefix) for key in removed}
        names = sorted(left | {row.key.removeprefix(prefix) for row in new})
        # If the row is damaged, the phase's comparison with its machines finds the completion.
        completions = [try_read(run_id, row, lambda row: unpack(MachineEnded, row.columns)) for row in new]
        return [each for each in completions if each is not None], " ".join(names)

    async def record(self, run_id: str, completion: Change) -> None:
        """Write a completion (`completion_change`) without its machine's row."""
        await self._store.results.apply(run_id, [completion])

    async def _remove(self, run_id: str, acknowledged: list[Row]) -> list[str]:
        """Remove full batches of a hundred; returns the keys of the removed rows."""
        removed: list[str] = []
        for first in range(0, len(acknowledged) - BATCH_ROWS + 1, BATCH_ROWS):
            batch = acknowledged[first : first + BATCH_ROWS]
            try:
                await self._store.results.apply(run_id, [Change("delete", row.key, {}, row.etag) for row in batch])
            except Conflict:
                # A row was written again, or another execution removed it: the next call removes the rest.
                continue
            removed += [row.key for row in batch]
        return removed


def completion_change(phase: str, ended: MachineEnded) -> Change:
    """The completion row; its key is the same for each end of this attempt."""
    return Change("replace", f"{_PREFIX}{phase}~{ended.key}~{ended.attempt}", pack(ended.to_wire()))
