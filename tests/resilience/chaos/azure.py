"""Resource Manager in this process: the simulator's own application behind aiohttp, without sockets."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import aiohttp
from azure.core.credentials import AccessToken
from multidict import CIMultiDict
from starlette.requests import Request

from local.azure_simulator.clock import Clock
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.server.app import SimulatorApp
from local.azure_simulator.server.identity import Identity
from local.azure_simulator.state import AzureState
from tests.resilience.chaos.cluster import travel
from tests.resilience.chaos.fault_schedule import FaultSchedule
from tests.resilience.chaos.virtual_time import EPOCH, VirtualLoop

BASE_URL = "https://simulator.test"


class Credential:
    """The managed identity: a token of the simulator's own."""

    def __init__(self, identity: Identity) -> None:
        self._token = identity.issue(BASE_URL)

    @property
    def secret(self) -> str:
        """What must never be written anywhere."""
        return str(self._token["access_token"])

    async def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken(self.secret, int(self._token["expires_on"]))

    async def close(self) -> None:
        """Nothing is open."""


class Azure:
    """The simulated Azure, and the way to it."""

    def __init__(self, loop: VirtualLoop, fault_schedule: FaultSchedule, machines: list[Machine], clock: Clock) -> None:
        self.state = AzureState(machines, clock, BASE_URL, seed=fault_schedule.seed)
        identity = Identity(self.state, lifetime=30 * 86_400)
        self.credential = Credential(identity)
        self._weather = fault_schedule
        self._resets: set[int] = set()
        self._calls = 0
        self._front = SimulatorApp(self.state, identity, lambda client: self._resets.add(client[1]))
        for rule in fault_schedule.faults:
            self.state.faults.add(rule)

    @contextmanager
    def reached(self) -> Generator[None]:
        """Whatever the app sends through aiohttp comes here."""
        azure = self

        async def request(_: object, method: str, url: Any, **options: Any) -> _Answer:
            return await azure.send(method, str(url), options.get("headers") or {}, options.get("data"))

        with patch.object(aiohttp.ClientSession, "_request", request):
            yield

    async def send(self, method: str, url: str, headers: Mapping[str, str], data: Any) -> _Answer:
        """One request: there, done, and back."""
        await travel(self._weather)
        self._calls += 1
        call, parts = self._calls, urlsplit(url)
        body = data if isinstance(data, bytes) else str(data or "").encode()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        scope = {
            "type": "http",
            "method": method,
            "path": parts.path,
            "query_string": parts.query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", call),
            "server": ("127.0.0.1", 443),
        }
        reply = await self._front.handle(Request(scope, receive))
        await travel(self._weather)
        if call in self._resets:
            raise aiohttp.ServerDisconnectedError
        return _Answer(reply.status_code, CIMultiDict(reply.headers.items()), bytes(reply.body))


class _Answer:
    """The part of ``aiohttp.ClientResponse`` that azure-core uses."""

    reason = ""

    def __init__(self, status: int, headers: CIMultiDict[str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    async def read(self) -> bytes:
        return self._body

    def close(self) -> None:
        """Nothing is open."""

    def release(self) -> None:
        """Nothing is open."""


def make_clock(loop: VirtualLoop) -> Clock:
    """The simulator's clock, which is the loop's."""
    return Clock(1, started_at=EPOCH, monotonic=loop.time)


__all__ = ["BASE_URL", "Azure", "make_clock"]
