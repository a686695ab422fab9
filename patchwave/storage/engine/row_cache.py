"""A cache of rows that this process has read or written, with their ETags.

Another process may have changed such a row since. A cached row may therefore only lead to a write under its ETag, which
fails then, and never to a response by itself. Where other processes keep changing the same rows, the cache pauses.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from patchwave.storage.engine.rows import Change, Row

_DOUBTS = 5
_DOUBTFUL_SECONDS = 60.0


class RowCache:
    """An LRU cache of at most ``size`` rows."""

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._rows: OrderedDict[tuple[str, str], Row] = OrderedDict()
        self._doubts: deque[float] = deque(maxlen=_DOUBTS)

    def get(self, partition: str, key: str) -> Row | None:
        """The cached row; ``None`` without one, or while the cache pauses."""
        if len(self._doubts) == _DOUBTS and self._clock() - self._doubts[0] < _DOUBTFUL_SECONDS:
            return None
        found = self._rows.get((partition, key))
        if found is not None:
            self._rows.move_to_end((partition, key))
        return found

    def put(self, partition: str, row: Row) -> None:
        """The row was read, or written as a whole."""
        if not self._size or not row.etag:
            return
        self._rows[partition, row.key] = row
        self._rows.move_to_end((partition, row.key))
        if len(self._rows) > self._size:
            self._rows.popitem(last=False)

    def drop(self, partition: str, key: str) -> None:
        """Forget the row: its state is unknown."""
        self._rows.pop((partition, key), None)

    def wrote(self, partition: str, change: Change, etag: str, *, keep: bool) -> None:
        """A change was stored, with this new ETag. ``keep``: cache the row even if it was not cached."""
        known = self._rows.get((partition, change.key))
        match change.verb:
            case "insert" | "replace" if keep or known is not None:
                self.put(partition, Row(change.key, change.columns, etag))
            case "merge" if known is not None and known.etag == change.etag:
                self.put(partition, Row(change.key, {**known.columns, **change.columns}, etag))
            case _:
                self.drop(partition, change.key)

    def refused(self, partition: str, change: Change) -> None:
        """The condition of a change did not hold."""
        known = self._rows.pop((partition, change.key), None)
        if known is not None and change.etag == known.etag:
            self._doubts.append(self._clock())
