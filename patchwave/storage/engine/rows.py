"""Rows, changes of rows, and the limits of a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from patchwave.storage.engine.entity_codec import Columns, units

BATCH_ROWS = 100
"""Rows in one entity group transaction: the service's limit."""
BATCH_BYTES = 3_000_000
"""Bytes in one transaction: the service allows 4 MiB, of which the multipart envelope takes a part."""
_ENVELOPE = 700
_COLUMN = 40


class Conflict(Exception):
    """A condition did not hold: a row exists, is gone, or has another ETag. Handled inside this package.

    Attributes:
        index: of the failed change; 0 when the service cannot tell.
        is_gone: the row does not exist.
        is_of_others: another request of the same transaction failed, as far as is known.
    """

    def __init__(self, code: str, index: int = 0, *, is_gone: bool = False, is_of_others: bool = False) -> None:
        super().__init__(code)
        self.index = index
        self.is_gone = is_gone
        self.is_of_others = is_of_others


@dataclass(frozen=True, slots=True)
class Row:
    """A stored row: key, columns, and ETag."""

    key: str
    columns: Columns
    etag: str


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a row. ``merge`` and ``replace`` without an ETag create an absent row.

    An empty merge with an ETag validates a cached row (conditional no-op write).
    """

    verb: Literal["insert", "merge", "replace", "delete"]
    key: str
    columns: Columns
    etag: str = ""

    @property
    def is_validation(self) -> bool:
        """Whether it only validates the row's ETag."""
        return self.verb == "merge" and not self.columns

    @property
    def size(self) -> int:
        """Upper bound of the change's bytes in a transaction."""
        return _ENVELOPE + sum(_COLUMN + len(name) + _bytes(value) for name, value in self.columns.items())


def first_behind(prefix: str) -> str:
    """The first key after those with a prefix; empty, for the end of the partition, without one."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ""


def batches(changes: Sequence[Change]) -> list[list[Change]]:
    """Split changes of one partition into transactions within the service's limits."""
    found: list[list[Change]] = []
    size = 0
    for change in changes:
        own = change.size
        if not found or len(found[-1]) == BATCH_ROWS or size + own > BATCH_BYTES:
            found.append([])
            size = 0
        found[-1].append(change)
        size += own
    return found


def _bytes(value: object) -> int:
    """Bytes of a value as JSON: quotes are escaped, and non-ASCII characters become ``\\uXXXX``."""
    if not isinstance(value, str):
        return 24
    if value.isascii():
        return len(value) + value.count('"') + value.count("\\") + value.count("\n")
    return 6 * units(value)
