"""One Azure table behind a small interface: conditional writes, scans of one partition, and batches.

Concurrent writes of a partition share a transaction (``write_batcher``), equal reads share a request
(``singleflight``), and cached rows need no read (``row_cache``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import replace

from patchwave.storage.engine.client import SCAN_PAGE, AzureTable, TableRequests
from patchwave.storage.engine.entity_codec import Columns
from patchwave.storage.engine.row_cache import RowCache
from patchwave.storage.engine.rows import Change, Conflict, Row, batches, first_behind
from patchwave.storage.engine.singleflight import SingleFlight
from patchwave.storage.engine.write_batcher import WriteBatcher

BULK_ROWS_A_SECOND = 800
"""A partition allows 2,000; the rest is for other runs and other partitions of its server."""


async def throttled_batches(changes: Sequence[Change]) -> AsyncGenerator[Sequence[Change]]:
    """Batches of changes of one partition, throttled to ``BULK_ROWS_A_SECOND``."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for batch in batches(changes):
        await asyncio.sleep(due - loop.time())
        due = max(due, loop.time()) + len(batch) / BULK_ROWS_A_SECOND
        yield batch


class Table:
    """One table. Keys come from the key classes of this package, never unchecked from outside.

    Args:
        client: the library's client of the table.
        batch_delay: seconds per transaction of a partition, and per equal read.
        rows_kept: cached rows.
    """

    def __init__(self, client: AzureTable, *, batch_delay: float = 0, rows_kept: int = 0) -> None:
        self._requests = TableRequests(client)
        self._writes = WriteBatcher(self._requests.commit, batch_delay)
        self._reads = SingleFlight(batch_delay)
        self._cache = RowCache(rows_kept)

    async def create(self) -> None:
        """Create the table if it is absent."""
        await self._requests.create()

    async def drain(self) -> None:
        """Wait until all writes are stored."""
        await self._writes.drain()

    # --- reads

    async def get(self, partition: str, key: str, select: Iterable[str] | None = None) -> Row | None:
        """The current row, or ``None``."""
        row = await self._requests.get(partition, key, select)
        if row is None:
            self._cache.drop(partition, key)
        elif select is None:
            self._cache.put(partition, row)
        return row

    async def get_coalesced(self, partition: str, key: str) -> Row | None:
        """The current row. Equal reads that come before the request is sent share its response."""
        return await self._reads.read((partition, key), lambda: self.get(partition, key))

    async def scan_coalesced(self, partition: str) -> list[Row]:
        """All rows of a small partition. Equal reads share a request."""

        async def read() -> list[Row]:
            return [row async for row in self.scan(partition)]

        return await self._reads.read(partition, read)

    async def get_validated(self, partition: str, key: str) -> Row | None:
        """The current row, or ``None``; a cached row is validated by its ETag instead of being read.

        The validation is a conditional no-op write, which shares a transaction with other writes.
        """
        known = self._cache.get(partition, key)
        if known is not None:
            etag = await self._try(partition, Change("merge", key, {}, known.etag))
            if etag is not None:
                return Row(key, known.columns, etag)
        return await self.get(partition, key)

    async def get_cached_for_update(self, partition: str, key: str) -> Row | None:
        """The cached row, else the current one: only for a change under its ETag."""
        return self._cache.get(partition, key) or await self.get(partition, key)

    def peek_cache(self, partition: str, key: str) -> Row | None:
        """The cached row, or ``None``; sends no request."""
        return self._cache.get(partition, key)

    async def scan(
        self,
        partition: str,
        *,
        prefix: str = "",
        first: str = "",
        end: str = "",
        after: str = "",
        select: Iterable[str] | None = None,
        where: Mapping[str, str | bool] | None = None,
        page_size: int = SCAN_PAGE,
        keep: bool = False,
    ) -> AsyncGenerator[Row]:
        """Rows of one partition in key order: with ``prefix``, or from ``first`` to before ``end``; after ``after``.

        ``where`` compares columns for equality on the server. Values travel as parameters, which prevents injection.
        ``keep`` caches the rows for ``get_cached_for_update`` and ``get_validated``.
        """
        terms: list[str] = ["PartitionKey eq @partition"]
        values: Columns = {"partition": partition}
        for term, name, value in (
            ("RowKey ge @first", "first", prefix or first),
            ("RowKey gt @after", "after", after),
            ("RowKey lt @end", "end", first_behind(prefix) or end),
        ):
            if value:
                terms.append(term)
                values[name] = value
        for index, (column, value) in enumerate((where or {}).items()):
            terms.append(f"{column} eq @where{index}")
            values[f"where{index}"] = value
        async for row in self._requests.scan(terms, values, select, page_size):
            if keep and select is None:
                self._cache.put(partition, row)
            yield row

    async def keys_before(self, before: str, *, first: str = "", end: str = "") -> dict[str, list[Row]]:
        """Keys lower than ``before`` in partitions from ``first`` to before ``end``, by partition.

        The service scans all of these partitions: only for retention.
        """
        terms, values = ["RowKey lt @before"], {"before": before}
        for term, name, value in (("PartitionKey ge @first", "first", first), ("PartitionKey lt @end", "end", end)):
            if value:
                terms.append(term)
                values[name] = value
        found: dict[str, list[Row]] = {}
        async for partition, row in self._requests.scan_partitions(terms, values, []):
            found.setdefault(partition, []).append(row)
        return found

    # --- writes

    async def insert(self, partition: str, key: str, columns: Columns) -> bool:
        """Insert the row if it is absent; whether this call did."""
        return await self._try(partition, Change("insert", key, columns)) is not None

    async def put(self, partition: str, key: str, columns: Columns, known: Row | None) -> bool:
        """Insert the row if none was known, else replace the known version; whether this call did."""
        if known is None:
            return await self.insert(partition, key, columns)
        return await self.replace(partition, key, columns, known.etag)

    async def merge(self, partition: str, key: str, columns: Columns, etag: str = "") -> bool:
        """Set some columns; with an ETag only if the row still has it. Whether it was done.

        Without an ETag an absent row is created.
        """
        return await self._try(partition, Change("merge", key, columns, etag)) is not None

    async def replace(self, partition: str, key: str, columns: Columns, etag: str = "") -> bool:
        """Like ``merge``, but removes all other columns."""
        return await self._try(partition, Change("replace", key, columns, etag)) is not None

    async def delete(self, partition: str, key: str, etag: str) -> bool:
        """Delete the row if it still has the ETag; ``False`` when it has changed."""
        try:
            await self.apply(partition, [Change("delete", key, {}, etag)])
        except Conflict as conflict:
            # Absent counts as deleted: the response to a first attempt may have been lost.
            return conflict.is_gone
        return True

    async def remove(self, partition: str, key: str) -> None:
        """Delete the row if there is one, in the version that is read first."""
        row = await self.get(partition, key, [])
        if row is not None:
            await self.delete(partition, key, row.etag)

    async def apply(self, partition: str, changes: Sequence[Change]) -> list[str]:
        """All changes or none, in one transaction that others may share; returns the ETags.

        Raises:
            Conflict: the condition of a change did not hold.
        """
        try:
            etags = await self._writes.write(partition, changes)
        except Conflict as conflict:
            for change in changes:
                if conflict.is_of_others:
                    # Dropped to be safe. It does not show that another process changes these rows.
                    self._cache.drop(partition, change.key)
                else:
                    self._cache.refused(partition, change)
            raise
        except BaseException:
            # It may have been stored all the same.
            for change in changes:
                self._cache.drop(partition, change.key)
            raise
        for change, etag in zip(changes, etags, strict=True):
            self._cache.wrote(partition, change, etag, keep=len(changes) == 1)
        return etags

    async def apply_all(self, partition: str, changes: Sequence[Change]) -> None:
        """All changes in batches, each of them atomic.

        Raises:
            Conflict: the condition of a change did not hold; earlier batches are stored.
        """
        async for batch in throttled_batches(changes):
            await self.apply(partition, batch)

    async def merge_all(self, partition: str, changes: Sequence[Change]) -> None:
        """Merge columns into rows unconditionally, in batches. Cached rows stay cached."""
        async for batch in throttled_batches(changes):
            known = [(change, self._cache.get(partition, change.key)) for change in batch]
            guarded = [replace(change, etag=row.etag) if row is not None else change for change, row in known]
            try:
                await self.apply(partition, guarded)
            except Conflict:
                await self.apply(partition, batch)

    async def insert_all(self, partition: str, rows: Mapping[str, Columns]) -> int:
        """Insert absent rows, in batches; returns how many this call inserted.

        If a row of a batch exists, existing rows are left out and the others are inserted one by one. That happens when
        an activity is repeated after a crash.
        """
        written = 0
        async for batch in throttled_batches([Change("insert", key, columns) for key, columns in rows.items()]):
            try:
                await self.apply(partition, batch)
                written += len(batch)
            except Conflict:
                keys = [change.key for change in batch]
                # The first key after the highest one: no key has a character below the space.
                found = self.scan(partition, first=min(keys), end=max(keys) + " ", select=[])
                present = {row.key async for row in found}
                absent = [change for change in batch if change.key not in present]
                written += sum(await asyncio.gather(*(self.insert(partition, one.key, one.columns) for one in absent)))
        return written

    async def _try(self, partition: str, change: Change) -> str | None:
        """Make one change; returns the new ETag, or ``None`` when its condition did not hold."""
        try:
            return (await self.apply(partition, [change]))[0]
        except Conflict:
            return None
