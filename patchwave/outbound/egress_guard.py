"""Sockets for requests whose target was chosen outside of the code: made only for addresses that may be called.

The address is judged at the moment its socket is made, after the one time that the name is resolved: a name that
changes its address between a check and the call gains nothing, as there is no earlier check.

>>> gate = EgressGuard(private_allowed=False)
>>> connector = aiohttp.TCPConnector(socket_factory=gate.open)
"""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import urlsplit

from patchwave.domain.core.egress import canonical, refusal

_SECRET_ENDPOINTS = ("IDENTITY_ENDPOINT", "MSI_ENDPOINT", "IMDS_ENDPOINT", "AZURE_POD_IDENTITY_AUTHORITY_HOST")
"""Variables in which the platform says where this process gets its tokens: on some hosts at a private address."""

type Target = tuple[int, int, int, str, tuple[Any, ...]]
"""Family, kind, protocol, canonical name and socket address, as ``getaddrinfo`` has them."""


class EgressGuard:
    """Makes the sockets of one request, and remembers why it made none.

    Args:
        private_allowed: whether private networks are a fair target.
        loopback_allowed: for tests, whose servers are on this machine.
    """

    def __init__(self, *, private_allowed: bool, loopback_allowed: bool = False) -> None:
        self._private_allowed = private_allowed
        self._loopback_allowed = loopback_allowed
        self._has_opened = False
        self._refusal = ""

    @property
    def refusal(self) -> str:
        """Why no connection was tried; empty when one was, or when there was no address to try."""
        return "" if self._has_opened else self._refusal

    def open(self, target: Target) -> socket.socket:
        """A socket for an address that may be called.

        Raises:
            PermissionError: it must not be called.
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


def _hosts_of_secrets() -> set[str]:
    hosts = {urlsplit(os.environ.get(name, "")).hostname or "" for name in _SECRET_ENDPOINTS} - {""}
    return {canonical(host) for host in hosts}
