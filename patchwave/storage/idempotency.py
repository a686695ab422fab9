"""Idempotency keys: each is bound to a value once, which makes a request happen once."""

from __future__ import annotations

import hashlib
from datetime import datetime

from patchwave.storage.engine.entity_codec import pack
from patchwave.storage.engine.store import Repository
from patchwave.storage.errors import RecordMissing

KINDS = ("idempotency-key", "delivery", "signature", "event", "new_machine", "retry")
"""Kinds of keys, a partition each. Retention only purges these."""


class IdempotencyRepository(Repository):
    """Keys and their values, such as the id of the run that a request started."""

    async def reserve(self, kind: str, key: str, value: str, at: datetime) -> tuple[str, bool]:
        """Bind a key to a value, once; returns the bound value, and whether this call bound it.

        Only a digest of the key is stored, so a key may be a secret, of any length and with any characters.

        Raises:
            ValueError: unknown kind.
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
        """The value of a key, or ``None``."""
        row = await self._store.claims.get(kind, _digest(key))
        return None if row is None else str(row.columns["value"])


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
