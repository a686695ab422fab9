"""Intents and leases: the two rows that keep a machine from being patched twice (safety rules 1 and 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from itertools import compress

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.documents import format_instant
from patchwave.domain.runs.intent import Intent
from patchwave.storage.engine.entity_codec import pack, unpack
from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.store import OptimisticRetry, Repository
from patchwave.storage.errors import RecordMissing

_URLS = ("asyncUrl", "locationUrl")
ALL_RUNS = "machines"
"""The one partition of what is kept of machines over all runs, so that their rows can share transactions."""
LEASE = "l~"
"""Row key prefix of a lease: ``l~{machineKey}``."""
_PARALLEL = 100


class IntentRecords(Repository):
    """Intents: written before a POST. They alone hold operation URLs, and no list of machines reads their rows."""

    async def declare_intent(self, intent: Intent) -> tuple[Intent, bool]:
        """Insert the intent unless there is one: the stored one, and whether this call created it.

        After a lost answer of the storage the caller's own intent may come back as not created. That is the safe
        side: the caller then asks Azure before it posts.
        """
        if await self._store.results.insert(intent.run_id, _key(intent), pack(intent.to_wire(), exact=_URLS)):
            return intent, True
        stored = await self.get_intent(intent.run_id, intent.machine_key, intent.kind)
        if stored is None:
            raise RecordMissing("an intent was removed while it was read")
        return stored, False

    async def get_intent(self, run_id: str, machine_key: str, kind: OperationKind) -> Intent | None:
        """The intent of an operation on a machine, or ``None``."""
        row = await self._store.results.current(run_id, _intent_key(machine_key, kind))
        return None if row is None else unpack(Intent, row.columns)

    def is_intent_known(self, run_id: str, machine_key: str, kind: OperationKind) -> bool:
        """Whether this process has seen the intent; no request is sent."""
        return self._store.results.remembered(run_id, _intent_key(machine_key, kind)) is not None

    async def declare_again(self, known: Intent, declared: Intent) -> bool:
        """Replace an intent that was not accepted, if nobody else has since it was read; whether this call did."""
        row = await self._store.results.known(known.run_id, _key(known))
        if row is None or unpack(Intent, row.columns) != known:
            return False
        columns = pack(declared.to_wire(), exact=_URLS)
        return await self._store.results.replace(declared.run_id, _key(declared), columns, row.etag)

    async def save_intent(self, intent: Intent) -> None:
        """Replace the intent. Operation URLs are kept byte for byte: their signature covers every character."""
        await self._store.results.replace(intent.run_id, _key(intent), pack(intent.to_wire(), exact=_URLS))


class LeaseRecords(Repository):
    """Leases: at most one run works on a machine."""

    async def acquire_lease(
        self, machine_key: str, owner: str, now: datetime, until: datetime, *, lasting: datetime | None = None
    ) -> str:
        """Take or extend the lease of a machine; the owner that holds it afterwards.

        A lease that has run out is taken over: its owner died, or was given up on.

        Args:
            lasting: a lease of the owner that this process knows, and that lasts until then, is left as it is, without
                a request. Nobody takes a lease that has not run out, and only its owner gives it back.
        """
        table, key = self._store.machines, LEASE + machine_key
        columns = pack({"owner": owner, "since": now, "until": until})
        row = table.remembered(ALL_RUNS, key)
        if row is not None and row.columns["owner"] != owner:
            # Who holds it may have given it back.
            row = None
        if row is not None and lasting is not None and str(row.columns["until"]) >= format_instant(lasting):
            return owner
        async for _ in OptimisticRetry(f"the lease of {machine_key}"):
            if row is None:
                if await table.insert(ALL_RUNS, key, columns):
                    return owner
                row = await table.get(ALL_RUNS, key)
                if row is None:
                    continue
            holder = str(row.columns["owner"])
            if holder != owner and str(row.columns["until"]) > format_instant(now):
                return holder
            if holder == owner:
                # A second execution of the same step must not shorten what the first one was granted.
                kept = max(str(row.columns["until"]), columns["until"])
                columns = {**columns, "since": row.columns["since"], "until": kept}
            if await table.replace(ALL_RUNS, key, columns, row.etag):
                return owner
            row = None
        return ""

    async def leased(self, keys: Iterable[str], owner: str, now: datetime) -> set[str]:
        """Those of the machines whose lease the owner holds at that moment."""
        gate = asyncio.Semaphore(_PARALLEL)

        async def is_held(key: str) -> bool:
            async with gate:
                row = await self._store.machines.current(ALL_RUNS, LEASE + key)
            return row is not None and _is_held(row, owner, now)

        wanted = list(keys)
        return set(compress(wanted, await asyncio.gather(*map(is_held, wanted))))

    async def release_lease(self, machine_key: str, owner: str) -> None:
        """Give the lease back; nothing happens when somebody else holds it."""
        table, key = self._store.machines, LEASE + machine_key
        row = table.remembered(ALL_RUNS, key)
        async for _ in OptimisticRetry(f"the lease of {machine_key}"):
            if row is None or row.columns["owner"] != owner:
                row = await table.get(ALL_RUNS, key)
            if row is None or row.columns["owner"] != owner:
                return
            if await table.delete(ALL_RUNS, key, row.etag):
                return
            row = None

    def _is_known_to_hold(self, machine_key: str, owner: str, now: datetime) -> bool:
        """Whether this process has seen the owner take the lease, and it lasts; no request is sent."""
        row = self._store.machines.remembered(ALL_RUNS, LEASE + machine_key)
        return row is not None and _is_held(row, owner, now)


def _is_held(row: Row, owner: str, now: datetime) -> bool:
    return row.columns["owner"] == owner and str(row.columns["until"]) > format_instant(now)


def _key(intent: Intent) -> str:
    return _intent_key(intent.machine_key, intent.kind)


def _intent_key(machine_key: str, kind: OperationKind) -> str:
    return f"i~{machine_key}~{kind.value}"
