"""The tables of one storage account, and the connections to them."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, cast

from patchwave.azure.transport import transport_options
from patchwave.settings import Settings
from patchwave.storage.engine.client import AzureTable
from patchwave.storage.engine.table import Table
from patchwave.storage.errors import StorageUnreachable

if TYPE_CHECKING:
    from azure.data.tables.aio import TableServiceClient

# The library's defaults wait 5 minutes and retry 10 times. An HTTP caller would be gone by then, and the engine retries
# activities anyway.
_RETRY_POLICY: dict[str, Any] = {
    "retry_total": 4,
    "retry_connect": 2,
    "retry_backoff_factor": 0.4,
    "retry_backoff_max": 8,
    "connection_timeout": 5,
    "read_timeout": 30,
}
_MACHINES_KEPT = 10_000
"""Machines whose rows are cached, some 8 KB each: enough for a large run to read no row twice."""
_ROWS_OF_A_MACHINE = 2
"""Its own, and the intent of the current operation."""
_ATTEMPTS_OF_A_CHANGE = 8
"""Rounds of read, decide, write-if-unchanged before conflicts count as an outage."""


class Store:
    """One attribute per table; ``docs/reference/storage.md`` describes the keys.

    ``batch_delay``: seconds that a read or write may wait for others that share its request.
    """

    def __init__(self, client: TableServiceClient, prefix: str, batch_delay: float = 0) -> None:
        self._client = client

        def table(name: str, rows_kept: int = 0) -> Table:
            client = cast("AzureTable", self._client.get_table_client(prefix + name))
            return Table(client, batch_delay=batch_delay, rows_kept=rows_kept)

        self.runs = table("runs")
        self.results = table("results", _MACHINES_KEPT * _ROWS_OF_A_MACHINE)
        self.machines = table("machines", _MACHINES_KEPT)
        self.policies = table("policies")
        self.audit = table("audit")
        self.claims = table("claims")
        self.seen = table("seen")
        self._tables = (self.runs, self.results, self.machines, self.policies, self.audit, self.claims, self.seen)

    @classmethod
    def open(cls, settings: Settings) -> Store:
        """Connect by connection string, else with the app's identity. No request is sent yet."""
        from azure.data.tables.aio import TableServiceClient

        options = _RETRY_POLICY | transport_options()
        connection = settings.tables_connection.get_secret_value()
        if connection:
            client = TableServiceClient.from_connection_string(connection, **options)
        else:
            from patchwave.azure.credentials import open_credential

            client = TableServiceClient(settings.tables_endpoint, credential=open_credential(settings), **options)
        return cls(client, settings.table_prefix, settings.storage_batch_delay_seconds)

    async def prepare(self) -> None:
        """Create missing tables."""
        await asyncio.gather(*(table.create() for table in self._tables))

    async def close(self) -> None:
        """Wait for pending writes, and close the connections."""
        await asyncio.gather(*(table.drain() for table in self._tables))
        await self._client.close()


class Repository:
    """Base class of the repositories, which share one ``Store``."""

    def __init__(self, store: Store) -> None:
        self._store = store


class OptimisticRetry:
    """Bounded rounds of "read, decide, write if unchanged": iterate, and leave the loop on success.

    Raises:
        StorageUnreachable: the row changed in every round.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._round = 0

    def __aiter__(self) -> OptimisticRetry:
        return self

    async def __anext__(self) -> int:
        if self._round == _ATTEMPTS_OF_A_CHANGE:
            raise StorageUnreachable(f"{self._what} was changed by others {self._round} times in a row.")
        if self._round:
            # Random: two writers that collide once would otherwise collide again.
            await asyncio.sleep(0.01 * 2**self._round * random.uniform(0.5, 1.5))
        self._round += 1
        return self._round
