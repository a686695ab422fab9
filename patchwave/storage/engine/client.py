"""Requests to one Azure table, with the errors of this package.

Only this module imports the Azure library, on first use. Every write is a transaction, even of one row: ``batch_codec``
encodes it, and the library's pipeline sends it, with tokens, keys, retries and proxies.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

from patchwave.storage.engine.batch_codec import BatchError, read_transaction, write_transaction
from patchwave.storage.engine.entity_codec import Columns
from patchwave.storage.engine.rows import Change, Conflict, Row
from patchwave.storage.errors import RecordTooLarge, StorageError, StorageUnreachable

if TYPE_CHECKING:
    from collections.abc import Generator

    from azure.core.exceptions import HttpResponseError
    from azure.core.rest import AsyncHttpResponse, HttpRequest

SCAN_PAGE = 1_000
"""Rows that the service returns in one response."""

# The library does not retry a POST whose response was lost. Every write here is conditional or idempotent, so that a
# retry finds what the first attempt did.
_ALL = ["GET", "POST"]

_VERSION = "2019-02-02"
"""The service version that the library uses."""

_TOO_LARGE = frozenset({"EntityTooLarge", "PropertyValueTooLarge", "RequestBodyTooLarge", "ContentLengthExceeded"})
_GONE = frozenset({"ResourceNotFound", "EntityNotFound"})
_EXISTS = frozenset({"EntityAlreadyExists", "ResourceAlreadyExists"})


class TableMissing(Exception):
    """The table does not exist yet."""


class Pipeline(Protocol):
    """The library's pipeline, which sends requests."""

    async def send_request(
        self, request: HttpRequest, *, stream: bool, retry_on_methods: list[str]
    ) -> AsyncHttpResponse: ...


class AzureTable(Protocol):
    """The used methods of ``azure.data.tables.aio.TableClient``, whose own signatures are only partly typed."""

    async def create_table(self) -> object: ...

    async def get_entity(
        self, partition_key: str, row_key: str, *, select: list[str] | None = None
    ) -> Mapping[str, Any]: ...

    def query_entities(
        self, query_filter: str, *, results_per_page: int, select: list[str] | None, parameters: Columns
    ) -> AsyncIterator[Mapping[str, Any]]: ...

    @property
    def url(self) -> str: ...

    @property
    def table_name(self) -> str: ...

    _client: Pipeline


class TableRequests:
    """Requests to one table. They raise ``StorageError``, and never an Azure error."""

    def __init__(self, client: AzureTable) -> None:
        self._client = client
        # Private: the library has no public access to its pipeline. Its version is therefore pinned exactly in
        # pyproject.toml.
        self._pipeline = client._client  # pyright: ignore[reportPrivateUsage]
        self._endpoint = client.url.partition("?")[0]

    async def create(self) -> None:
        """Create the table if it is absent."""
        from azure.core.exceptions import ResourceExistsError

        with _translated():
            try:
                await self._client.create_table()
            except ResourceExistsError as error:
                # The name of a deleted table stays reserved for a while (TableBeingDeleted).
                if _code(error) != "TableAlreadyExists":
                    raise StorageUnreachable("A table of that name is just being deleted; try again.") from error

    async def get(self, partition: str, key: str, select: Iterable[str] | None) -> Row | None:
        """One row, or ``None``."""

        async def read() -> Row:
            return _row(await self._client.get_entity(partition, key, select=_select(select)))

        try:
            return await self._call(read)
        except Conflict:
            return None

    async def scan(
        self, terms: Sequence[str], values: Columns, select: Iterable[str] | None, page_size: int
    ) -> AsyncGenerator[Row]:
        """Rows that match all terms, in key order; the terms name the values as ``@name``."""
        try:
            with _translated():
                entities = self._client.query_entities(
                    " and ".join(terms),
                    parameters=values,
                    select=_select(select),
                    results_per_page=min(page_size, SCAN_PAGE),
                )
                async for entity in entities:
                    yield _row(entity)
        except TableMissing:
            return

    async def scan_partitions(
        self, terms: Sequence[str], values: Columns, select: Iterable[str] | None
    ) -> AsyncGenerator[tuple[str, Row]]:
        """Rows of several partitions that match all terms, each with its partition."""
        names = None if select is None else [*select, "PartitionKey"]
        try:
            with _translated():
                found = self._client.query_entities(
                    " and ".join(terms), parameters=values, select=_select(names), results_per_page=SCAN_PAGE
                )
                async for entity in found:
                    yield str(entity["PartitionKey"]), _row(entity)
        except TableMissing:
            return

    async def commit(self, partition: str, changes: Sequence[Change]) -> list[str]:
        """All changes or none, in one transaction; returns the ETags, empty for deleted rows.

        Raises:
            Conflict: the condition of a change did not hold.
        """
        from azure.core.rest import HttpRequest

        content_type, body = write_transaction(self._endpoint, self._client.table_name, partition, changes)
        headers = {
            "Content-Type": content_type,
            "Accept": "application/json",
            "DataServiceVersion": "3.0",
            "MaxDataServiceVersion": "3.0;NetFx",
            "x-ms-version": _VERSION,
        }

        async def send() -> list[str]:
            request = HttpRequest("POST", f"{self._endpoint}/$batch", content=body, headers=headers)
            # Streamed: otherwise the library would try to decode the response.
            response = await self._pipeline.send_request(request, stream=True, retry_on_methods=_ALL)
            answer = await response.read()
            if response.status_code != 202:
                raise _meaning(response.status_code, response.headers.get("x-ms-error-code", ""))
            etags = read_transaction(answer)
            if isinstance(etags, BatchError):
                raise _meaning(etags.status, etags.code, etags.index)
            if len(etags) != len(changes):
                raise StorageUnreachable("Table storage gave half a response.")
            return etags

        return await self._call(send)

    async def _call[T](self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run an operation; if the table is missing, create it and run the operation once more."""
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


def _select(names: Iterable[str] | None) -> list[str] | None:
    # Timestamp is selected because the library reads the ETag from it when the body has none.
    return None if names is None else [*dict.fromkeys((*names, "RowKey", "Timestamp"))]


def _row(entity: Mapping[str, Any]) -> Row:
    columns = dict(entity)
    columns.pop("PartitionKey", None)
    key = str(columns.pop("RowKey"))
    # The library's entity class carries the ETag beside the columns.
    metadata = cast("dict[str, Any]", getattr(entity, "metadata", {}))
    return Row(key, columns, str(metadata.get("etag") or ""))


def _code(error: HttpResponseError) -> str:
    """The service's error code: in decoded errors an attribute, in raw ones a header."""
    code = getattr(error, "error_code", None)
    if code is None:
        headers = cast("Mapping[str, str]", getattr(error.response, "headers", {}))
        code = headers.get("x-ms-error-code", "")
    return str(getattr(code, "value", code))


@contextmanager
def _translated() -> Generator[None]:
    """Translate errors of the Azure library into ``errors``, without the service's texts, which may hold URLs."""
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    try:
        yield
    except HttpResponseError as error:
        if isinstance(error, ClientAuthenticationError) and error.status_code is None:
            raise StorageUnreachable("No token for Table storage: the identity is not available.") from error
        raise _meaning(error.status_code or 0, _code(error)) from error
    except AzureError as error:
        raise StorageUnreachable(f"Table storage does not answer ({type(error).__name__}).") from error


def _meaning(status: int, code: str, index: int = 0) -> Exception:
    if code in ("TableNotFound", "TableBeingDeleted"):
        return TableMissing(code)
    if status == 412 or code in _EXISTS or code in _GONE or (status in (404, 409) and not code):
        return Conflict(code, index, is_gone=code in _GONE)
    if status == 413 or code in _TOO_LARGE:
        return RecordTooLarge(f"The record is larger than Table storage takes ({code or status}).")
    if status in (401, 403):
        return StorageUnreachable(f"Table storage refused the app's identity (HTTP {status} {code}).")
    if status == 0 or status in (408, 429) or status >= 500:
        return StorageUnreachable(f"Table storage is not available (HTTP {status or '-'} {code}).")
    if status == 404:
        return TableMissing(code)
    return StorageError(f"Table storage refused a request (HTTP {status} {code}).")
