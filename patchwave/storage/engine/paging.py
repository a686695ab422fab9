"""Pages and their cursors: a cursor is the last key handed out, so it stays good while rows come and go."""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.table import Table
from patchwave.storage.errors import InvalidCursor

_LOG = logging.getLogger("patchwave.storage")
_KEY = re.compile(r"[A-Za-z0-9~._:-]{1,200}")


@dataclass(frozen=True, slots=True)
class Page[T]:
    """Some items of a list, and the cursor of the next page; ``None`` on the last one.

    ``unreadable`` has the keys of the rows of this page that are damaged: they are in no list, and hide no other.
    """

    items: list[T]
    cursor: str | None
    unreadable: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class KeyRange:
    """A stretch of row keys in one partition: those that start with ``prefix``, all of them when it is empty."""

    partition: str
    prefix: str = ""

    @property
    def first(self) -> str:
        """The lowest key of the stretch."""
        return self.prefix

    @property
    def end(self) -> str:
        """The first key after the stretch; empty when it reaches to the end of the partition."""
        return self.prefix[:-1] + chr(ord(self.prefix[-1]) + 1) if self.prefix else ""


def write_cursor(row_key: str) -> str:
    """An opaque cursor that is safe in a URL."""
    return base64.urlsafe_b64encode(row_key.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, prefix: str) -> str:
    """The row key in a cursor; empty when there is none.

    Raises:
        InvalidCursor: it is not a cursor, or one of another list.
    """
    if cursor is None:
        return ""
    try:
        key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise InvalidCursor("not a cursor of this list") from error
    if not _KEY.fullmatch(key) or not key.startswith(prefix):
        raise InvalidCursor("not a cursor of this list")
    return key


def try_read[T](partition: str, row: Row, convert: Callable[[Row], T]) -> T | None:
    """What the row says; ``None``, and a line in the log with its keys, when it cannot be read.

    For whatever goes through many rows: one that is damaged must not keep the others from their turn.
    """
    try:
        return convert(row)
    except Exception:
        _LOG.exception("The row %s of the partition %s cannot be read.", row.key, partition)
        return None


async def read_page[T](
    table: Table,
    span: KeyRange,
    convert: Callable[[Row], T],
    *,
    limit: int,
    cursor: str | None,
    select: list[str] | None = None,
    where: dict[str, str] | None = None,
    keep: bool = False,
) -> Page[T]:
    """At most ``limit`` rows after the cursor, in key order.

    One row more than asked for is read, so that the last page is known to be the last. ``keep`` is for `Table.scan`.
    """
    read = 0
    items: list[T] = []
    unreadable: list[str] = []
    last = ""
    rows = table.scan(
        span.partition,
        first=span.first,
        end=span.end,
        after=read_cursor(cursor, span.prefix),
        select=select,
        where=where,
        page_size=limit + 1,
        keep=keep,
    )
    async for row in rows:
        if read == limit:
            return Page(items, write_cursor(last), unreadable)
        read += 1
        last = row.key
        found = try_read(span.partition, row, lambda row: (convert(row),))
        if found is None:
            unreadable.append(row.key)
        else:
            items.extend(found)
    return Page(items, None, unreadable)
