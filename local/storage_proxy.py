"""Counts the transactions of a table client: a transparent proxy in front of Azurite that reads requests.

A batch is one transaction with several rows.
"""

import asyncio
import re
import threading
import time
from collections import Counter, deque
from typing import Any, Self, override

_REQUEST = re.compile(rb"(GET|POST|PUT|PATCH|MERGE|DELETE) (/|https?://)(\S*) HTTP/1\.1\r\n")
_TABLE = re.compile(r"(?:\$batch|Tables|[A-Za-z][A-Za-z0-9]+)(?=[(?]|$)")
_MAX_LINE = 8 * 1024
_START_SECONDS = 10.0


class StorageProxy:
    """A proxy on a free loopback port; use it in a ``with`` statement.

    Args:
        port: of the table endpoint.
        window: real seconds over which the peak of rows is measured.
    """

    def __init__(self, port: int, *, window: float = 1.0) -> None:
        self._behind = port
        self._window = window
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="storage-proxy", daemon=True)
        self.port = 0
        self.reset()

    def __enter__(self) -> Self:
        self._thread.start()
        made = self._loop.create_server(lambda: _Client(self, self._behind), "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(made, self._loop).result(_START_SECONDS)
        self.port = int(server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def reset(self) -> None:
        with self._lock:
            self._transactions: Counter[str] = Counter()
            self._batches = 0
            self._batched_rows = 0
            self._rows: deque[float] = deque()
            self._peak_rows = 0

    def document(self) -> dict[str, Any]:
        """Transactions in all and by method and table; ``peakRows``: rows written, or read by key, in one window."""
        with self._lock:
            return {
                "transactions": sum(self._transactions.values()),
                "kinds": dict(self._transactions.most_common()),
                "batches": self._batches,
                "batchedRows": self._batched_rows,
                "peakRows": self._peak_rows,
            }

    def _see(self, method: str, is_outer: bool, path: str) -> None:
        table = (_TABLE.findall(path.partition("?")[0].rpartition("/")[2]) or ["?"])[0]
        is_batch = table == "$batch"
        with self._lock:
            if is_outer:
                self._transactions[f"{method} {table}"] += 1
                self._batches += is_batch
            else:
                self._batched_rows += 1
            if not is_batch and (method != "GET" or "PartitionKey=" in path.partition("?")[0]):
                self._count_row()

    def _count_row(self) -> None:
        at = time.monotonic()
        self._rows.append(at)
        while self._rows[0] <= at - self._window:
            self._rows.popleft()
        self._peak_rows = max(self._peak_rows, len(self._rows))

    def read(self, data: bytes) -> bytes:
        """Count the requests in a client's data; returns the last, incomplete line."""
        for found in _REQUEST.finditer(data):
            self._see(found[1].decode(), found[2] == b"/", found[3].decode("latin-1"))
        return data[data.rfind(b"\n") + 1 :][-_MAX_LINE:]


class _Client(asyncio.Protocol):
    """A connection of a client, with its connection to the storage."""

    def __init__(self, proxy: StorageProxy, behind: int) -> None:
        self._proxy = proxy
        self._behind = behind
        self._line = b""
        self._early: list[bytes] = []
        self._server: asyncio.Transport | None = None
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._opening = asyncio.get_running_loop().create_task(self._open(transport))

    async def _open(self, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        try:
            server, _ = await loop.create_connection(lambda: _Server(transport), "127.0.0.1", self._behind)
        except OSError:
            transport.close()
            return
        self._server = server
        for data in self._early:
            server.write(data)
        self._early.clear()

    @override
    def data_received(self, data: bytes) -> None:
        self._line = self._proxy.read(self._line + data)
        if self._server is None:
            self._early.append(data)
        else:
            self._server.write(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._server is not None:
            self._server.close()


class _Server(asyncio.Protocol):
    """The connection to the storage, whose data goes to the client unchanged."""

    def __init__(self, client: asyncio.Transport) -> None:
        self._client = client

    @override
    def data_received(self, data: bytes) -> None:
        self._client.write(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._client.close()
