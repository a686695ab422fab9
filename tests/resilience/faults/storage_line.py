"""The whole product on a storage that misbehaves: a line to Azurite on which each request can be given its fate."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import aiohttp
from aiohttp import web
from yarl import URL

from local import azurite
from tests.support.product import Product

type Fate = Literal["pass", "lose"] | int
"""Pass it on, pass it on and lose the answer, or refuse it with a status."""


def _pass(method: str, path: str, body: bytes) -> Fate:
    return "pass"


@dataclass
class StorageLine:
    """``fate`` decides about each request by method, path and body; it is called on the thread of the line."""

    url: str = ""
    target: str = ""
    fate: Callable[[str, str, bytes], Fate] = _pass
    hits: list[str] = field(default_factory=list[str])
    """What did not just pass."""

    def heal(self) -> None:
        """Everything passes from here on."""
        self.fate = _pass
        self.hits.clear()

    @property
    def connection(self) -> str:
        """The connection string of the tables behind this line."""
        account, key = azurite._ACCOUNT, azurite._KEY
        return (
            f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};TableEndpoint={self.url}/{account};"
        )


@contextmanager
def storage_line() -> Generator[StorageLine]:
    """A line on a thread of its own; its ``target`` is set once that is known."""
    line = StorageLine()
    loop = asyncio.new_event_loop()
    started, ended = threading.Event(), asyncio.Event()

    async def serve() -> None:
        application = web.Application(client_max_size=16 * 1024**2)
        async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=["Content-Type"]) as client:

            async def handle(request: web.Request) -> web.StreamResponse:
                return await _relay(line, client, request)

            application.router.add_route("*", "/{tail:.*}", handle)
            runner = web.AppRunner(application)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            line.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            started.set()
            await ended.wait()
            await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="storage-line")
    thread.start()
    try:
        assert started.wait(10)
        yield line
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


@contextmanager
def product_on_a_line(folder: Path) -> Generator[tuple[Product, StorageLine]]:
    """A stack of its own, whose app reaches its tables over a line."""
    with storage_line() as line:
        product = Product.open(folder, PATCHWAVE_TABLES_CONNECTION=line.connection)
        try:
            found = re.search(r"TableEndpoint=(http://[^/]+)", product.stack.storage)
            assert found
            line.target = found[1]
            yield product, line
        finally:
            product.close()


async def _relay(line: StorageLine, client: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
    body = await request.read()
    fate = line.fate(request.method, request.path, body)
    if fate != "pass":
        line.hits.append(f"{request.method} {request.path}")
    if isinstance(fate, int):
        return web.Response(status=fate, headers={"x-ms-error-code": "Injected"})
    url = URL(line.target + request.raw_path, encoded=True)
    async with client.request(request.method, url, headers=request.headers, data=body) as answer:
        headers = {
            name: value
            for name, value in answer.headers.items()
            if name.lower() not in ("transfer-encoding", "content-length")
        }
        reply = web.Response(status=answer.status, headers=headers, body=await answer.read())
    if fate == "lose":
        assert request.transport
        request.transport.abort()
    return reply
