"""Requests to configured targets, only to permitted addresses.

The address is checked when its socket is created, after the only name resolution. DNS rebinding between a check and the
call is therefore not possible.

>>> async with EgressGuard(private_allowed=False).send("GET", url, seconds=5) as response: ...
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from patchwave.domain.core.egress import canonical, refusal

if TYPE_CHECKING:
    import ssl

    from aiohttp import ClientResponse

_SECRET_ENDPOINTS = ("IDENTITY_ENDPOINT", "MSI_ENDPOINT", "IMDS_ENDPOINT", "AZURE_POD_IDENTITY_AUTHORITY_HOST")
"""Variables with the platform's token endpoints, which are at a private address on some hosts."""

type Target = tuple[int, int, int, str, tuple[Any, ...]]
"""Family, kind, protocol, canonical name and socket address, as returned by ``getaddrinfo``."""


class EgressGuard:
    """Sends one request, and keeps the reason for a refusal.

    Args:
        private_allowed: whether private networks are permitted.
        loopback_allowed: for tests with local servers.
    """

    def __init__(self, *, private_allowed: bool, loopback_allowed: bool = False) -> None:
        self._private_allowed = private_allowed
        self._loopback_allowed = loopback_allowed
        self._has_opened = False
        self._refusal = ""

    @property
    def refusal(self) -> str:
        """Why no connection was tried; empty when one was, or without an address."""
        return "" if self._has_opened else self._refusal

    def open(self, target: Target) -> socket.socket:
        """A socket for a permitted address.

        Raises:
            PermissionError: the address is not permitted.
        """
        family, kind, protocol, _, address = target
        why = refusal(str(address[0]), private_allowed=self._private_allowed, loopback_allowed=self._loopback_allowed)
        if canonical(str(address[0])) in _hosts_of_secrets():
            why = "is where this app gets its tokens"
        if why:
            self._refusal = why
            raise PermissionError(why)
        self._has_opened = True
        return socket.socket(family, kind, protocol)

    @asynccontextmanager
    async def send(
        self,
        method: str,
        url: str,
        *,
        seconds: float,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncGenerator[ClientResponse]:
        """The response to one request: no retry, no redirect, and only from a permitted address.

        The URL is sent byte for byte: it may be signed, and its values are encoded already.

        Raises:
            aiohttp.ClientError: there is no response; see `refusal`.
            OSError: as above.
            TimeoutError: it took longer than ``seconds``.
            ValueError: the URL cannot be used. The error's text contains it.
        """
        # Imported here: it costs a quarter of a second of start-up, which most workers need not pay.
        import aiohttp
        from yarl import URL

        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=self.open, ssl=tls or True),
                timeout=aiohttp.ClientTimeout(total=seconds),
                auto_decompress=False,
            ) as session,
            session.request(
                method,
                URL(url, encoded=True),
                data=body,
                headers={"User-Agent": "patchwave", "Accept-Encoding": "identity", **(headers or {})},
                allow_redirects=False,
            ) as response,
        ):
            yield response


def _hosts_of_secrets() -> set[str]:
    hosts = {urlsplit(os.environ.get(name, "")).hostname or "" for name in _SECRET_ENDPOINTS} - {""}
    return {canonical(host) for host in hosts}
