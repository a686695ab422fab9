"""Intents: rows that keep an operation from being sent twice (safety rule 1)."""

from __future__ import annotations

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.runs.intent import Intent
from patchwave.domain.runs.machine_record import Stage
from patchwave.storage.engine.entity_codec import pack, unpack
from patchwave.storage.engine.paging import try_read
from patchwave.storage.engine.store import Repository
from patchwave.storage.errors import RecordMissing
from patchwave.storage.run_patches import MACHINES

_URLS = ("asyncUrl", "locationUrl")
_STAGE_BEFORE = {OperationKind.ASSESS: Stage.WAITING, OperationKind.INSTALL: Stage.ASSESSED}
"""The stage of a machine before an operation of that kind."""


class IntentRepository(Repository):
    """Intents, written before a POST. They hold operation URLs; lists of machines do not read them."""

    async def declare(self, intent: Intent) -> tuple[Intent, bool]:
        """Insert the intent unless there is one; returns the stored one, and whether this call created it.

        If the response to the insert was lost, the caller's own intent comes back as not created. That is safe: the
        caller then reads the machine before it sends.
        """
        if await self._store.results.insert(intent.run_id, _key(intent), pack(intent.to_wire(), exact=_URLS)):
            return intent, True
        stored = await self.get(intent.run_id, intent.machine_key, intent.kind)
        if stored is None:
            raise RecordMissing("an intent was removed while it was read")
        return stored, False

    async def get(self, run_id: str, machine_key: str, kind: OperationKind) -> Intent | None:
        """The intent of an operation on a machine, or ``None``."""
        row = await self._store.results.get_validated(run_id, _intent_key(machine_key, kind))
        return None if row is None else unpack(Intent, row.columns)

    async def list_of_machine(self, run_id: str, machine_key: str) -> list[Intent]:
        """The intents of a machine in a run: at most one of each kind, assess first. One scan."""
        rows = self._store.results.scan(run_id, prefix=f"i~{machine_key}~")
        found = [try_read(run_id, row, lambda row: unpack(Intent, row.columns)) async for row in rows]
        return [intent for intent in found if intent is not None]

    def is_cached(self, run_id: str, machine_key: str, kind: OperationKind) -> bool:
        """Whether this process has the intent in its cache; sends no request."""
        return self._store.results.peek_cache(run_id, _intent_key(machine_key, kind)) is not None

    async def redeclare(self, known: Intent, declared: Intent) -> bool:
        """Replace an intent that was not accepted, if it is unchanged since the read; whether this call did."""
        row = await self._store.results.get_cached_for_update(known.run_id, _key(known))
        if row is None or unpack(Intent, row.columns) != known:
            return False
        columns = pack(declared.to_wire(), exact=_URLS)
        return await self._store.results.replace(declared.run_id, _key(declared), columns, row.etag)

    async def save(self, intent: Intent) -> None:
        """Replace the intent. Operation URLs stay byte for byte: their signature covers every character."""
        await self._store.results.replace(intent.run_id, _key(intent), pack(intent.to_wire(), exact=_URLS))

    async def find(self, run_id: str, machine_key: str, kind: OperationKind) -> Intent | None:
        """The intent of an operation, for a caller that declares one otherwise.

        ``None`` is a guess when the machine's row shows no operation: a worker may have declared an intent and died
        before it changed the row. `declare` detects that, and caches the intent for the next call.
        """
        row = self._store.results.peek_cache(run_id, MACHINES + machine_key)
        is_untouched = row is not None and row.columns.get("stage") == _STAGE_BEFORE[kind].value
        if is_untouched and not self.is_cached(run_id, machine_key, kind):
            return None
        return await self.get(run_id, machine_key, kind)


def _key(intent: Intent) -> str:
    return _intent_key(intent.machine_key, intent.kind)


def _intent_key(machine_key: str, kind: OperationKind) -> str:
    return f"i~{machine_key}~{kind.value}"
