"""Pages and cursors. A cursor is the last returned key, so it stays valid when rows are added or removed."""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.table import Table
from patchwave.storage.errors import InvalidCursor

_LOG = logging.getLogger("patchwave.storage")
_KEY = re.compile(r"[A-Za-z0-9~._:-]{1,200}")


@dataclass(frozen=True, slots=True)
class Page[T]:
    """Items of a list, and the cursor of the next page; ``None`` on the last one.

    ``unreadable`` has the keys of damaged rows of this page, which are not among the items.
    """

    items: list[T]
    cursor: str | None
    unreadable: list[str] = field(default_factory=list[str])


def write_cursor(row_key: str) -> str:
    """An opaque, URL-safe cursor."""
    return base64.urlsafe_b64encode(row_key.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, prefix: str) -> str:
    """The row key of a cursor; empty without one.

    Raises:
        InvalidCursor: malformed, or from another list.
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
    """The converted row; ``None``, and a log entry with its keys, when it is damaged.

    For scans of many rows, which a damaged one must not end.
    """
    try:
        return convert(row)
    except Exception:
        _LOG.exception("The row %s of the partition %s cannot be read.", row.key, partition)
        return None


async def read_page[T](
    table: Table,
    partition: str,
    convert: Callable[[Row], T],
    *,
    prefix: str = "",
    limit: int,
    cursor: str | None,
    select: list[str] | None = None,
    where: Mapping[str, str | bool] | None = None,
    keep: bool = False,
) -> Page[T]:
    """At most ``limit`` rows of a partition, of those with a prefix, after the cursor, in key order.

    Reads one row more than ``limit``, to recognize the last page. ``keep`` is for `Table.scan`.
    """
    read = 0
    items: list[T] = []
    unreadable: list[str] = []
    last = ""
    rows = table.scan(
        partition,
        prefix=prefix,
        after=read_cursor(cursor, prefix),
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
        found = try_read(partition, row, lambda row: (convert(row),))
        if found is None:
            unreadable.append(row.key)
        else:
            items.extend(found)
    return Page(items, None, unreadable)
