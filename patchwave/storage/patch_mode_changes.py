"""Changes of patch modes: one row per change in the table of runs, and one per machine in a partition of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from patchwave.domain.core.command import Command
from patchwave.domain.core.ids import RunId
from patchwave.domain.fleet import patch_mode_change
from patchwave.domain.fleet.patch_mode_change import ChangeEnd, MachineChange, ModeChange
from patchwave.storage.engine.entity_codec import Columns, pack, unpack
from patchwave.storage.engine.paging import Page, read_page
from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.store import OptimisticRetry, Repository
from patchwave.storage.errors import RecordMissing
from patchwave.storage.runs import clean_command

CHANGES = "mode-changes"
"""Partition of the changes, in the table of runs."""
_MACHINES = "c~"


class PatchModeChangeRepository(Repository):
    """Changes of patch modes, and their machines."""

    async def create(self, change: ModeChange, machines: Sequence[MachineChange]) -> None:
        """Store a plan: the machines first, so that a visible change has all of them."""

        def packed() -> dict[str, Columns]:
            return {_MACHINES + machine.key: pack(machine.to_wire()) for machine in machines}

        # Ten thousand machines take a second: a thread leaves the loop to other requests.
        rows = await asyncio.to_thread(packed)
        await self._store.results.insert_all(change.id, rows)
        cleaned = change.model_copy(update={"planned": clean_command(change.planned)})
        await self._store.runs.insert(CHANGES, RunId.parse(change.id).row_key, pack(cleaned.to_wire()))

    async def get(self, change_id: str) -> ModeChange | None:
        """The change, or ``None``; an active one has no counts of its machines (see `list_pending`)."""
        row = await self._store.runs.get_coalesced(CHANGES, RunId.parse(change_id).row_key)
        return None if row is None else unpack(ModeChange, row.columns)

    async def list_page(self, limit: int, cursor: str | None) -> Page[ModeChange]:
        """Changes, newest first."""
        return await read_page(
            self._store.runs, CHANGES, lambda row: unpack(ModeChange, row.columns), limit=limit, cursor=cursor
        )

    async def list_machines(
        self, change_id: str, *, end: ChangeEnd | None, limit: int, cursor: str | None
    ) -> Page[MachineChange]:
        """Machines of a change in key order; with ``end`` only those with that end."""
        where = None if end is None else {"end": end.value}
        return await read_page(
            self._store.results, change_id, _machine, prefix=_MACHINES, limit=limit, cursor=cursor, where=where
        )

    async def list_pending(self, change_id: str, most: int) -> tuple[list[str], dict[str, int]]:
        """The keys of the next ``most`` machines without an end, and the counts of the others by end."""
        ends: Counter[str] = Counter()
        keys: list[str] = []
        rows = self._store.results.scan(change_id, prefix=_MACHINES, select=["end"])
        async for row in rows:
            if found := row.columns.get("end"):
                ends[found] += 1
            elif len(keys) < most:
                keys.append(row.key.removeprefix(_MACHINES))
        return keys, patch_mode_change.count_ends(ends)

    async def get_machine(self, change_id: str, machine_key: str) -> MachineChange | None:
        """One machine of a change, or ``None``."""
        row = await self._store.results.get(change_id, _MACHINES + machine_key)
        return None if row is None else _machine(row)

    async def update_machine(self, change_id: str, machine_key: str, **columns: object) -> bool:
        """Set fields of a machine without an end; whether it had none.

        Raises:
            RecordMissing: the change has no such machine.
        """
        values = {MachineChange.model_fields[name].alias or name: value for name, value in columns.items()}
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await self._store.results.get(change_id, _MACHINES + machine_key)
            if row is None:
                raise RecordMissing(f"change {change_id} has no machine {machine_key}")
            if "end" in row.columns:
                return False
            if await self._store.results.merge(change_id, row.key, pack(values), row.etag):
                return True
        return False

    async def start(self, change_id: str, command: Command) -> ModeChange:
        """Start a plan.

        Raises:
            RecordMissing: there is no such change.
            InvalidTransition: it was stopped, or the plan is too old.
        """
        return await self._change_head(
            change_id, lambda change: patch_mode_change.start(change, clean_command(command))
        )

    async def stop(self, change_id: str, command: Command) -> ModeChange:
        """Stop a change: nothing more is sent.

        Raises:
            RecordMissing: there is no such change.
            InvalidTransition: it has ended.
        """
        return await self._change_head(change_id, lambda change: patch_mode_change.stop(change, clean_command(command)))

    async def close(self, change_id: str, close: Callable[[ModeChange], ModeChange]) -> ModeChange:
        """End a change; one that has ended stays as it is.

        Raises:
            RecordMissing: there is no such change.
        """
        return await self._change_head(change_id, lambda change: change if change.state.is_final else close(change))

    async def _change_head(self, change_id: str, decide: Callable[[ModeChange], ModeChange]) -> ModeChange:
        key = RunId.parse(change_id).row_key
        async for _ in OptimisticRetry(f"change {change_id}"):
            row = await self._store.runs.get(CHANGES, key)
            if row is None:
                break
            stored = unpack(ModeChange, row.columns)
            wanted = decide(stored)
            if wanted == stored or await self._store.runs.replace(CHANGES, key, pack(wanted.to_wire()), row.etag):
                return wanted
        raise RecordMissing(f"no change {change_id}")


def _machine(row: Row) -> MachineChange:
    return unpack(MachineChange, row.columns)
