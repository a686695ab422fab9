"""Rows, changes of rows, and what one transaction takes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from patchwave.storage.engine.entity_codec import Columns, units

BATCH_ROWS = 100
"""Rows in one entity group transaction: the limit of the service."""
BATCH_BYTES = 3_000_000
"""Bytes in one transaction: the service takes less than 4 MiB, and the multipart envelope needs room."""
_ENVELOPE = 700
_COLUMN = 40


class Conflict(Exception):
    """A condition did not hold: a row exists, is gone, or has another ETag. Handled inside this package.

    Attributes:
        index: of the change that the service named; it names the first one when it cannot tell.
        is_gone: there is no such row.
        is_of_others: another request of the same transaction failed, as far as is known.
    """

    def __init__(self, code: str, index: int = 0, *, is_gone: bool = False, is_of_others: bool = False) -> None:
        super().__init__(code)
        self.index = index
        self.is_gone = is_gone
        self.is_of_others = is_of_others


@dataclass(frozen=True, slots=True)
class Row:
    """A stored row: its key, its columns, and the ETag that guards a change of it."""

    key: str
    columns: Columns
    etag: str


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a row. ``merge`` and ``replace`` without an ETag create the row when it is absent.

    An empty merge with an ETag validates a cached row (conditional no-op write).
    """

    verb: Literal["insert", "merge", "replace", "delete"]
    key: str
    columns: Columns
    etag: str = ""

    @property
    def is_validation(self) -> bool:
        """Whether it only checks that the row has that ETag."""
        return self.verb == "merge" and not self.columns

    @property
    def size(self) -> int:
        """Bytes of this change in a transaction, at most."""
        return _ENVELOPE + sum(_COLUMN + len(name) + _bytes(value) for name, value in self.columns.items())


def batches(changes: Sequence[Change]) -> list[list[Change]]:
    """Cut changes of one partition into transactions the service takes: 100 rows and less than 4 MiB each."""
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
    """How long a value becomes in JSON: quotes are escaped, and whatever is not ASCII is written as ``\\uXXXX``."""
    if not isinstance(value, str):
        return 24
    if value.isascii():
        return len(value) + value.count('"') + value.count("\\") + value.count("\n")
    return 6 * units(value)
