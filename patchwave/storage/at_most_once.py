"""Guards: the rows that keep a script from being run twice, and say that a restart was asked for."""

from __future__ import annotations

from patchwave.domain.machine.at_most_once import AtMostOnceRecord, GuardedCall
from patchwave.storage.engine.entity_codec import pack, unpack
from patchwave.storage.engine.store import Repository
from patchwave.storage.errors import RecordMissing

_URLS = ("asyncUrl", "locationUrl")


class AtMostOnceRepository(Repository):
    """Guards, one per run, machine and call; ``g~{machineKey}~{call}`` in the run's partition.

    They hold operation URLs, which are signed; no list of machines reads their rows.
    """

    async def declare(self, guard: AtMostOnceRecord) -> AtMostOnceRecord:
        """Insert the guard unless there is one: the stored one. It carries the caller's token exactly when it is his.

        A token, because the answer to the insert may be lost and the repetition then finds the caller's own row.
        """
        if await self._store.results.insert(guard.run_id, _key(guard), pack(guard.to_wire(), exact=_URLS)):
            return guard
        stored = await self.get(guard.run_id, guard.machine_key, guard.call)
        if stored is None:
            raise RecordMissing("a guard was removed while it was read")
        return stored

    async def get(self, run_id: str, machine_key: str, call: GuardedCall) -> AtMostOnceRecord | None:
        """The guard of a call on a machine, or ``None`` when it was never declared."""
        row = await self._store.results.get(run_id, f"g~{machine_key}~{call.value}")
        return None if row is None else unpack(AtMostOnceRecord, row.columns)

    async def save(self, guard: AtMostOnceRecord) -> None:
        """Replace the guard. Operation URLs are kept byte for byte: their signature covers every character."""
        await self._store.results.replace(guard.run_id, _key(guard), pack(guard.to_wire(), exact=_URLS))

    async def redeclare(self, known: AtMostOnceRecord, declared: AtMostOnceRecord) -> bool:
        """Declare a refused call anew, if nobody else has since it was read; whether this call did."""
        row = await self._store.results.get(known.run_id, _key(known))
        if row is None or unpack(AtMostOnceRecord, row.columns) != known:
            return False
        return await self._store.results.replace(
            declared.run_id, _key(declared), pack(declared.to_wire(), exact=_URLS), row.etag
        )


def _key(guard: AtMostOnceRecord) -> str:
    return f"g~{guard.machine_key}~{guard.call.value}"
