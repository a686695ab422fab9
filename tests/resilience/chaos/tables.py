"""Table storage in memory, in place of `patchwave.storage.engine.client`: conditions, transactions, lost answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from patchwave.storage.engine.entity_codec import Columns
from patchwave.storage.engine.rows import Change, Conflict, Row
from patchwave.storage.errors import StorageUnreachable
from tests.resilience.chaos.cluster import travel
from tests.resilience.chaos.fault_schedule import FaultSchedule
from tests.resilience.chaos.virtual_time import VirtualLoop

_PAUSES = (0.4, 0.8, 1.6, 3.2)
"""Seconds between the attempts of one request: the product's settings of the tables library."""


class MemoryTables:
    """One storage account; requests take time, get lost, and fail during outages, as the schedule says."""

    def __init__(self, loop: VirtualLoop, fault_schedule: FaultSchedule) -> None:
        self.rows: dict[str, dict[tuple[str, str], Row]] = {}
        self.requests = 0
        self.impossible: list[str] = []
        """Transactions that no table service takes, for the judge: raised here, they would be tried again."""
        self.fault_schedule = fault_schedule
        self._loop = loop
        self._versions = count(1)

    def get_table_client(self, name: str) -> MemoryTable:
        """One table."""
        return MemoryTable(self, self.rows.setdefault(name, {}))

    async def close(self) -> None:
        """Nothing is open."""

    async def carry_out[Answer](self, what: Callable[[], Answer]) -> Answer:
        """One request, sent again as the library does: after a lost answer it meets what it has done itself."""
        for pause in _PAUSES:
            with suppress(StorageUnreachable):
                return await self._send(what)
            await asyncio.sleep(pause)
        return await self._send(what)

    def next_etag(self) -> str:
        """The ETag of a row that is written now."""
        return f'W/"{next(self._versions)}"'

    async def _send[Answer](self, what: Callable[[], Answer]) -> Answer:
        fault_schedule, source = self.fault_schedule, self.fault_schedule.source
        self.requests += 1
        await travel(fault_schedule)
        now = self._loop.time()
        if any(begin <= now < begin + seconds for begin, seconds in fault_schedule.outages):
            raise StorageUnreachable("an outage")
        if source.random() < fault_schedule.lost_requests:
            raise StorageUnreachable("the request was lost")
        answer = what()
        await travel(fault_schedule)
        if source.random() < fault_schedule.lost_answers:
            raise StorageUnreachable("the answer was lost")
        return answer


class MemoryTable:
    """What one table is asked, as `patchwave.storage.engine.client.TableRequests` has it."""

    def __init__(self, account: MemoryTables, rows: dict[tuple[str, str], Row]) -> None:
        self._account = account
        self._rows = rows

    async def create(self) -> None:
        """Tables are always there."""

    async def get(self, partition: str, key: str, select: Iterable[str] | None) -> Row | None:
        """One row, or ``None``."""
        found = await self._account.carry_out(lambda: self._rows.get((partition, key)))
        return None if found is None else _selected(found, select)

    async def scan(
        self, terms: Sequence[str], values: Columns, select: Iterable[str] | None, page_size: int
    ) -> AsyncGenerator[Row]:
        """The rows of one partition for which all terms are true, in key order, a request for each page."""
        conditions = [(column, word, values[name[1:]]) for column, word, name in (term.split() for term in terms)]
        wanted = None if select is None else list(select)
        after = ""
        while True:
            page = await self._account.carry_out(lambda behind=after: self._page(conditions, behind, page_size))
            for row in page:
                yield _selected(row, wanted)
            if len(page) < page_size:
                return
            after = page[-1].key

    async def commit(self, partition: str, changes: Sequence[Change]) -> list[str]:
        """All changes or none of them, in one transaction; the ETags of the rows, empty for those that were deleted.

        Raises:
            Conflict: the condition of one of them did not hold.
        """
        if not 0 < len(changes) <= 100 or len({change.key for change in changes}) < len(changes):
            self._account.impossible.append(f"a transaction of {[change.key for change in changes]}")
        return await self._account.carry_out(lambda: self._commit(partition, changes))

    def _page(self, conditions: list[tuple[str, str, Any]], after: str, size: int) -> list[Row]:
        partition = next(value for column, _, value in conditions if column == "PartitionKey")
        rows = [row for (owner, key), row in self._rows.items() if owner == partition and key > after]
        others = [condition for condition in conditions if condition[0] != "PartitionKey"]
        chosen = [row for row in rows if all(_holds(row, *condition) for condition in others)]
        return sorted(chosen, key=lambda row: row.key)[:size]

    def _commit(self, partition: str, changes: Sequence[Change]) -> list[str]:
        made = [
            self._changed(self._rows.get((partition, change.key)), change, index)
            for index, change in enumerate(changes)
        ]
        for change, row in zip(changes, made, strict=True):
            if row is None:
                del self._rows[partition, change.key]
            else:
                self._rows[partition, change.key] = row
        return ["" if row is None else row.etag for row in made]

    def _changed(self, present: Row | None, change: Change, index: int) -> Row | None:
        if change.verb == "insert":
            if present is not None:
                raise Conflict("EntityAlreadyExists", index)
            return Row(change.key, dict(change.columns), self._account.next_etag())
        if present is None and (change.etag or change.verb == "delete"):
            raise Conflict("ResourceNotFound", index, is_gone=True)
        if present is not None and change.etag not in ("", present.etag):
            raise Conflict("UpdateConditionNotSatisfied", index)
        if change.verb == "delete":
            return None
        before = present.columns if present is not None and change.verb == "merge" else {}
        return Row(change.key, {**before, **change.columns}, self._account.next_etag())


def _selected(row: Row, select: Iterable[str] | None) -> Row:
    columns = row.columns if select is None else {name: row.columns[name] for name in select if name in row.columns}
    return Row(row.key, dict(columns), row.etag)


def _holds(row: Row, column: str, word: str, value: Any) -> bool:
    found = row.key if column == "RowKey" else row.columns.get(column)
    if found is None:
        return False
    match word:
        case "eq":
            return found == value
        case "ge":
            return found >= value
        case "gt":
            return found > value
        case "lt":
            return found < value
        case _:
            raise ValueError(f"no word of OData that is used here: {word}")


__all__ = ["MemoryTables"]
