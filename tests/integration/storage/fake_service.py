"""One partition of a table service in memory: transactions as the service takes them, with conflicts and outages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from patchwave.storage import StorageUnreachable
from patchwave.storage.engine.entity_codec import Columns
from patchwave.storage.engine.rows import Change, Conflict


@dataclass
class FakeService:
    """Rows by key with their ETags.

    Attributes:
        transactions: the changes of each transaction that was tried.
        fate: by the number of the transaction: whether its answer is lost after it was stored.
        blames_first: name the first change in every conflict, as a service does that cannot tell.
    """

    rows: dict[str, tuple[str, Columns]] = field(default_factory=dict[str, tuple[str, Columns]])
    transactions: list[list[Change]] = field(default_factory=list[list[Change]])
    is_lost: Callable[[int], bool] = lambda number: False
    blames_first: bool = False
    _etags: int = 0

    async def commit(self, partition: str, changes: Sequence[Change]) -> list[str]:
        """What ``TableRequests.commit`` does."""
        number = len(self.transactions)
        self.transactions.append(list(changes))
        await asyncio.sleep(0)
        for index, change in enumerate(changes):
            known = self.rows.get(change.key)
            is_refused = known is not None if change.verb == "insert" else bool(change.etag)
            if is_refused and (change.verb == "insert" or known is None or known[0] != change.etag):
                raise Conflict("refused", 0 if self.blames_first else index, is_gone=known is None)
        etags = [self._store(change) for change in changes]
        if self.is_lost(number):
            raise StorageUnreachable("lost")
        return etags

    def _store(self, change: Change) -> str:
        if change.verb == "delete":
            self.rows.pop(change.key, None)
            return ""
        self._etags += 1
        before = self.rows[change.key][1] if change.key in self.rows and change.verb == "merge" else {}
        self.rows[change.key] = (f"e{self._etags}", {**before, **change.columns})
        return self.rows[change.key][0]
