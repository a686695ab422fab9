"""One Azure table behind a small interface: insert if absent, guarded change, one-partition scan, batch.

Every answer of the service becomes a value or one of ``errors``; the Azure library is imported on first use.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from adapters.tables.columns import Columns
from adapters.tables.errors import RecordTooLarge, StorageError, StorageUnreachable

if TYPE_CHECKING:
    from collections.abc import Generator

    from azure.core import MatchConditions
    from azure.core.exceptions import HttpResponseError
    from azure.data.tables import UpdateMode

BATCH_ROWS = 100
"""Rows in one entity group transaction: the limit of the service."""
BATCH_BYTES = 3_000_000
"""Bytes in one transaction: the service takes less than 4 MiB, and the multipart envelope needs room."""
_ENVELOPE = 700
_SCAN_PAGE = 1_000

# The library does not repeat a POST or PATCH whose answer was lost. Every write here is conditional or says the same
# thing twice, so that a repetition finds what the first attempt did.
_ALL = ["DELETE", "GET", "MERGE", "PATCH", "POST", "PUT"]

_TOO_LARGE = frozenset({"EntityTooLarge", "PropertyValueTooLarge", "RequestBodyTooLarge", "ContentLengthExceeded"})
_GONE = frozenset({"ResourceNotFound", "EntityNotFound"})
_EXISTS = frozenset({"EntityAlreadyExists", "ResourceAlreadyExists"})


class TableMissing(Exception):
    """The table itself does not exist yet."""


class Conflict(Exception):
    """A condition did not hold: the row exists, is gone, or has another ETag. Handled inside these records."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stored row: its key, its columns, and the ETag that guards a change of it."""

    key: str
    columns: Columns
    etag: str


@dataclass(frozen=True, slots=True)
class Change:
    """One change inside a batch. ``merge`` and ``replace`` without an ETag create the row when it is absent."""

    verb: Literal["insert", "merge", "replace", "delete"]
    key: str
    columns: Columns
    etag: str = ""

    @property
    def size(self) -> int:
        """Estimated bytes of this change in a transaction."""
        return len(json.dumps(self.columns, ensure_ascii=False).encode("utf-8", "replace")) + _ENVELOPE


class AzureTable(Protocol):
    """What is used of ``azure.data.tables.aio.TableClient``; its own signatures are only half typed."""

    async def create_table(self) -> object: ...

    async def create_entity(self, entity: Mapping[str, Any], *, retry_on_methods: list[str]) -> object: ...

    async def get_entity(
        self, partition_key: str, row_key: str, *, select: list[str] | None = None
    ) -> Mapping[str, Any]: ...

    def query_entities(
        self, query_filter: str, *, results_per_page: int, select: list[str] | None, parameters: Columns
    ) -> AsyncIterator[Mapping[str, Any]]: ...

    async def update_entity(
        self,
        entity: Mapping[str, Any],
        mode: UpdateMode,
        *,
        etag: str,
        match_condition: MatchConditions,
        retry_on_methods: list[str],
    ) -> object: ...

    async def upsert_entity(
        self, entity: Mapping[str, Any], mode: UpdateMode, *, retry_on_methods: list[str]
    ) -> object: ...

    async def delete_entity(
        self, partition_key: str, row_key: str, *, etag: str, match_condition: MatchConditions
    ) -> None: ...

    async def submit_transaction(
        self, operations: Iterable[tuple[Any, ...]], *, retry_on_methods: list[str]
    ) -> object: ...


class Table:
    """One table. Partition and row keys come from the key classes of this package, never from outside as they are."""

    def __init__(self, client: AzureTable) -> None:
        self._client = client

    async def create(self) -> None:
        """Create the table if it is absent."""
        from azure.core.exceptions import ResourceExistsError

        with _translated():
            try:
                await self._client.create_table()
            except ResourceExistsError as error:
                # A table that was deleted a moment ago keeps its name for a while (TableBeingDeleted).
                if _code(error) != "TableAlreadyExists":
                    raise StorageUnreachable("A table of that name is just being deleted; try again.") from error

    async def insert(self, partition: str, key: str, columns: Columns) -> bool:
        """Insert the row if it is absent; whether this call wrote it."""
        entity = _entity(partition, key, columns)
        try:
            await self._call(lambda: self._client.create_entity(entity, retry_on_methods=_ALL))
        except Conflict:
            return False
        return True

    async def get(self, partition: str, key: str, select: Iterable[str] | None = None) -> Row | None:
        """One row, or ``None``."""

        async def read() -> Row:
            return _row(await self._client.get_entity(partition, key, select=_select(select)))

        try:
            return await self._call(read)
        except Conflict:
            return None

    async def merge(self, partition: str, key: str, columns: Columns, etag: str = "") -> bool:
        """Set some columns. With an ETag only on that very row, else whatever is there; whether it was done.

        Without an ETag an absent row is created.
        """
        return await self._write(partition, key, columns, etag, "merge")

    async def replace(self, partition: str, key: str, columns: Columns, etag: str = "") -> bool:
        """Like ``merge``, and columns that are not given disappear."""
        return await self._write(partition, key, columns, etag, "replace")

    async def delete(self, partition: str, key: str, etag: str) -> bool:
        """Delete exactly that row; ``False`` when it has changed or is gone."""
        from azure.core import MatchConditions

        # The library passes over a missing row in silence, which is as good as deleting it.
        try:
            await self._call(
                lambda: self._client.delete_entity(
                    partition, key, etag=etag, match_condition=MatchConditions.IfNotModified
                )
            )
        except Conflict:
            return False
        return True

    async def scan(
        self,
        partition: str,
        *,
        first: str = "",
        end: str = "",
        after: str = "",
        select: Iterable[str] | None = None,
        where: Mapping[str, str] | None = None,
        page_size: int = _SCAN_PAGE,
    ) -> AsyncGenerator[Row]:
        """Rows of one partition in key order: from ``first``, behind ``after``, before ``end``.

        ``where`` compares columns for equality on the server. Values travel as parameters, so that no text can
        become part of the query.
        """
        terms, values = ["PartitionKey eq @partition"], {"partition": partition}
        for term, name, value in (
            ("RowKey ge @first", "first", first),
            ("RowKey gt @after", "after", after),
            ("RowKey lt @end", "end", end),
        ):
            if value:
                terms.append(term)
                values[name] = value
        for index, (column, value) in enumerate((where or {}).items()):
            terms.append(f"{column} eq @where{index}")
            values[f"where{index}"] = value
        try:
            with _translated():
                entities = self._client.query_entities(
                    " and ".join(terms),
                    parameters=values,
                    select=_select(select),
                    results_per_page=min(page_size, _SCAN_PAGE),
                )
                async for entity in entities:
                    yield _row(entity)
        except TableMissing:
            return

    async def apply(self, partition: str, changes: Sequence[Change]) -> None:
        """All changes or none of them, in one transaction.

        Raises:
            Conflict: the condition of one of them did not hold.
        """
        from azure.core import MatchConditions
        from azure.data.tables import UpdateMode

        operations: list[tuple[Any, ...]] = []
        for change in changes:
            entity = _entity(partition, change.key, change.columns)
            guard: dict[str, Any] = {}
            if change.etag:
                guard = {"etag": change.etag, "match_condition": MatchConditions.IfNotModified}
            if change.verb == "insert":
                operations.append(("create", entity))
            elif change.verb == "delete":
                operations.append(("delete", entity, guard))
            else:
                mode = UpdateMode.MERGE if change.verb == "merge" else UpdateMode.REPLACE
                operations.append(("update" if change.etag else "upsert", entity, {"mode": mode, **guard}))
        await self._call(lambda: self._client.submit_transaction(operations, retry_on_methods=_ALL))

    async def insert_all(self, partition: str, rows: Mapping[str, Columns]) -> int:
        """Insert the rows that are absent, in batches; how many this call wrote.

        A batch in which a row exists falls back to single inserts: that is the second run of an activity whose
        first one wrote a part.
        """
        written = 0
        for batch in batches([Change("insert", key, columns) for key, columns in rows.items()]):
            try:
                await self.apply(partition, batch)
                written += len(batch)
            except Conflict:
                done = await asyncio.gather(*(self.insert(partition, one.key, one.columns) for one in batch))
                written += sum(done)
        return written

    async def _write(
        self, partition: str, key: str, columns: Columns, etag: str, verb: Literal["merge", "replace"]
    ) -> bool:
        from azure.core import MatchConditions
        from azure.data.tables import UpdateMode

        mode: UpdateMode = UpdateMode.MERGE if verb == "merge" else UpdateMode.REPLACE
        entity = _entity(partition, key, columns)
        try:
            if etag:
                await self._call(
                    lambda: self._client.update_entity(
                        entity, mode, etag=etag, match_condition=MatchConditions.IfNotModified, retry_on_methods=_ALL
                    )
                )
            else:
                await self._call(lambda: self._client.upsert_entity(entity, mode, retry_on_methods=_ALL))
        except Conflict:
            return False
        return True

    async def _call[T](self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run an operation; a table that does not exist yet is created and the operation run once more."""
        try:
            with _translated():
                return await operation()
        except TableMissing:
            await self.create()
        try:
            with _translated():
                return await operation()
        except TableMissing as error:
            raise StorageUnreachable("The tables do not exist and could not be created.") from error


def batches(changes: Sequence[Change]) -> list[list[Change]]:
    """Cut changes of one partition into transactions the service takes: 100 rows and less than 4 MiB each."""
    found: list[list[Change]] = []
    size = 0
    for change in changes:
        if not found or len(found[-1]) == BATCH_ROWS or size + change.size > BATCH_BYTES:
            found.append([])
            size = 0
        found[-1].append(change)
        size += change.size
    return found


def _entity(partition: str, key: str, columns: Columns) -> Columns:
    return {"PartitionKey": partition, "RowKey": key, **columns}


def _select(names: Iterable[str] | None) -> list[str] | None:
    # Without Timestamp the library cannot tell the ETag of a row when the service leaves it out of the body.
    return None if names is None else [*dict.fromkeys((*names, "RowKey", "Timestamp"))]


def _row(entity: Mapping[str, Any]) -> Row:
    columns = dict(entity)
    columns.pop("PartitionKey", None)
    key = str(columns.pop("RowKey"))
    # The library's entity class carries the ETag beside the columns.
    metadata = cast("dict[str, Any]", getattr(entity, "metadata", {}))
    return Row(key, columns, str(metadata.get("etag") or ""))


def _code(error: HttpResponseError) -> str:
    """The service's word for what went wrong; decoded errors carry it, raw ones have it in a header."""
    code = getattr(error, "error_code", None)
    if code is None:
        headers = cast("Mapping[str, str]", getattr(error.response, "headers", {}))
        code = headers.get("x-ms-error-code", "")
    return str(getattr(code, "value", code))


@contextmanager
def _translated() -> Generator[None]:
    """Turn what the Azure library raises into ``errors``; texts of the service are not repeated (they hold URLs)."""
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    try:
        yield
    except HttpResponseError as error:
        if isinstance(error, ClientAuthenticationError) and error.status_code is None:
            raise StorageUnreachable("No token for Table storage: the identity is not available.") from error
        raise _meaning(error) from error
    except AzureError as error:
        raise StorageUnreachable(f"Table storage does not answer ({type(error).__name__}).") from error


def _meaning(error: HttpResponseError) -> Exception:
    status, code = error.status_code or 0, _code(error)
    if code in ("TableNotFound", "TableBeingDeleted"):
        return TableMissing(code)
    if status == 412 or code in _EXISTS or code in _GONE or (status in (404, 409) and not code):
        return Conflict(code)
    if status == 413 or code in _TOO_LARGE:
        return RecordTooLarge(f"The record is larger than Table storage takes ({code or status}).")
    if status in (401, 403):
        return StorageUnreachable(f"Table storage refused the app's identity (HTTP {status} {code}).")
    if status == 0 or status in (408, 429) or status >= 500:
        return StorageUnreachable(f"Table storage is not available (HTTP {status or '-'} {code}).")
    if status == 404:
        return TableMissing(code)
    return StorageError(f"Table storage refused a request (HTTP {status} {code}).")
