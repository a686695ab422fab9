"""HTTP servers on this machine, for clients that are tested over real sockets."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import trustme
from aiohttp import web

AUTHORITY = trustme.CA()
"""Issues the certificates of the servers."""


@asynccontextmanager
async def serving(
    handle: Callable[[web.Request], Awaitable[web.StreamResponse]], host: str = "localhost", *, tls: bool = True
) -> AsyncGenerator[str]:
    """A server that hands every request to ``handle``; its URL."""
    application = web.Application(client_max_size=16 * 1024**2)
    application.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if tls else None
    if context is not None:
        AUTHORITY.issue_cert(host).configure_cert(context)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"{'https' if tls else 'http'}://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
