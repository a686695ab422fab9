"""One client of each kind per process and event loop: connections belong to the loop that opened them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from patchwave.settings import Settings, load_settings

_kinds: WeakSet[PerLoop[Any]] = WeakSet()


class PerLoop[Client]:
    """Clients by the event loop that uses them; ``make`` builds one, without a request."""

    def __init__(self, make: Callable[[Settings], Client]) -> None:
        _kinds.add(self)
        self._make = make
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Client] = WeakKeyDictionary()

    def get(self, settings: Settings | None = None) -> Client:
        """The client of the running loop; ``settings`` count for the first call only."""
        loop = asyncio.get_running_loop()
        found = self._by_loop.get(loop)
        if found is None:
            found = self._by_loop[loop] = self._make(settings or load_settings())
        return found

    def pop(self) -> Client | None:
        """Forget the client of the running loop, so that the caller closes it; ``None`` when there is none."""
        return self._by_loop.pop(asyncio.get_running_loop(), None)


async def close_clients() -> None:
    """Give back the connections of the running loop, of all kinds of clients. Each is opened anew when it is asked for.

    A worker process ends with its connections; code that ends a loop before, as tests do, calls this.
    """
    for client in [kind.pop() for kind in list(_kinds)]:
        if (close := getattr(client, "close", None)) is not None:
            await close()
