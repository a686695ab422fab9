"""Idempotency keys, which make a request happen once: a key is bound to a value for good."""

from __future__ import annotations

import hashlib
from datetime import datetime

from patchwave.storage.engine.entity_codec import pack
from patchwave.storage.engine.store import Repository
from patchwave.storage.errors import RecordMissing

KINDS = ("idempotency-key", "delivery", "signature", "event", "new_machine", "retry")
"""The kinds of keys, each a partition: keys of another kind would never be purged."""


class IdempotencyRepository(Repository):
    """Keys and the values that they are bound to, such as the id of the run that a request has started."""

    async def reserve(self, kind: str, key: str, value: str, at: datetime) -> tuple[str, bool]:
        """Bind a key to a value, once and for all: the value that is bound, and whether this call bound it.

        Only a digest of the key is stored, so that a key may be a secret, have any length and any characters.

        Raises:
            ValueError: no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"{kind} is no kind of idempotency key")
        columns = pack({"value": value, "at": at}, exact=["value"])
        if await self._store.claims.insert(kind, _digest(key), columns):
            return value, True
        row = await self._store.claims.get(kind, _digest(key))
        if row is None:
            raise RecordMissing("an idempotency key was removed while it was read")
        return str(row.columns["value"]), False

    async def get(self, kind: str, key: str) -> str | None:
        """What a key is bound to; ``None`` while it is not."""
        row = await self._store.claims.get(kind, _digest(key))
        return None if row is None else str(row.columns["value"])


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
