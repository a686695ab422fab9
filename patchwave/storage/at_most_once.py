"""At-most-once rows: they keep a script from running twice, and record that a restart was requested."""

from __future__ import annotations

from patchwave.domain.machine.at_most_once import AtMostOnceRecord, GuardedCall
from patchwave.storage.engine.entity_codec import pack, unpack
from patchwave.storage.engine.store import Repository
from patchwave.storage.errors import RecordMissing

_URLS = ("asyncUrl", "locationUrl")


class AtMostOnceRepository(Repository):
    """At-most-once rows per run, machine and call: ``g~{machineKey}~{call}`` in the run's partition.

    They hold signed operation URLs; lists of machines do not read them.
    """

    async def declare(self, guard: AtMostOnceRecord) -> AtMostOnceRecord:
        """Insert the row unless there is one; returns the stored row, with the token of its first caller.

        The token is needed because the response to the insert may be lost: the retry then finds the caller's own row.
        """
        if await self._store.results.insert(guard.run_id, _key(guard), pack(guard.to_wire(), exact=_URLS)):
            return guard
        stored = await self.get(guard.run_id, guard.machine_key, guard.call)
        if stored is None:
            raise RecordMissing("a guard was removed while it was read")
        return stored

    async def get(self, run_id: str, machine_key: str, call: GuardedCall) -> AtMostOnceRecord | None:
        """The row of a call on a machine, or ``None``."""
        row = await self._store.results.get(run_id, f"g~{machine_key}~{call.value}")
        return None if row is None else unpack(AtMostOnceRecord, row.columns)

    async def save(self, guard: AtMostOnceRecord) -> None:
        """Replace the row. Operation URLs stay byte for byte: their signature covers every character."""
        await self._store.results.replace(guard.run_id, _key(guard), pack(guard.to_wire(), exact=_URLS))

    async def redeclare(self, known: AtMostOnceRecord, declared: AtMostOnceRecord) -> bool:
        """Declare a refused call anew if the row is unchanged since it was read; whether this call did."""
        row = await self._store.results.get(known.run_id, _key(known))
        if row is None or unpack(AtMostOnceRecord, row.columns) != known:
            return False
        return await self._store.results.replace(
            declared.run_id, _key(declared), pack(declared.to_wire(), exact=_URLS), row.etag
        )


def _key(guard: AtMostOnceRecord) -> str:
    return f"g~{guard.machine_key}~{guard.call.value}"
