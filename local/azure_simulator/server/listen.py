"""Two listening sockets on loopback: HTTPS for Resource Manager, plain HTTP for the identity endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http import h11_impl

HOST = "127.0.0.1"


class Connections:
    """Open connections by client address, so that one can be reset during a request."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], asyncio.Transport] = {}

    def opened(self, client: tuple[str, int], transport: asyncio.Transport) -> None:
        self._open[client] = transport

    def closed(self, client: tuple[str, int]) -> None:
        self._open.pop(client, None)

    def reset(self, client: tuple[str, int]) -> None:
        """Reset the connection instead of closing it, as in a network failure."""
        transport = self._open.pop(client, None)
        if transport is None:
            return
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def _protocol(connections: Connections) -> type[h11_impl.H11Protocol]:
    class Tracked(h11_impl.H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too
            super().connection_made(transport)
            if self.client is not None:
                connections.opened(self.client, transport)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.client is not None:
                connections.closed(self.client)
            super().connection_lost(exc)

    return Tracked


class _Server(uvicorn.Server):
    """A server without signal handlers: two of them run in one loop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def listen(port: int) -> socket.socket:
    """A bound loopback socket; port 0 takes a free one."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((HOST, port))
    return made


def _config(app: Starlette, protocol: type[asyncio.Protocol], certificate: Path | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol,
        ssl_certfile=certificate,
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=1,
    )


async def serve(
    app: tuple[Starlette, socket.socket],
    identity: tuple[Starlette, socket.socket],
    certificate: Path,
    connections: Connections,
    on_ready: Callable[[], None],
    background: Coroutine[Any, Any, None],
) -> None:
    """Run both servers and the background work until SIGTERM or SIGINT."""
    # Azure sends an empty reason phrase; clients must use the code alone.
    for code in h11_impl.STATUS_PHRASES:
        h11_impl.STATUS_PHRASES[code] = b""
    servers = [
        _Server(_config(app[0], _protocol(connections), certificate)),
        _Server(_config(identity[0], h11_impl.H11Protocol, None)),
    ]

    def stop(number: int = 0, frame: FrameType | None = None) -> None:
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    announcer = asyncio.create_task(_announce(servers, on_ready))
    meanwhile = asyncio.create_task(background)
    # Background work does not end; when it fails, the servers stop.
    meanwhile.add_done_callback(lambda _: stop())
    await asyncio.gather(servers[0].serve(sockets=[app[1]]), servers[1].serve(sockets=[identity[1]]))
    announcer.cancel()
    meanwhile.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await meanwhile


async def _announce(servers: list[_Server], on_ready: Callable[[], None]) -> None:
    while not all(server.started for server in servers):  # noqa: ASYNC110  uvicorn offers a flag, not an event
        await asyncio.sleep(0.01)
    on_ready()
