"""One client of each kind per process and event loop, because connections belong to the loop that opened them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from patchwave.settings import Settings

_kinds: WeakSet[PerLoop[Any]] = WeakSet()


class PerLoop[Client]:
    """Clients by event loop; ``make`` creates one, without a request."""

    def __init__(self, make: Callable[[Settings | None], Client]) -> None:
        _kinds.add(self)
        self._make = make
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Client] = WeakKeyDictionary()

    def get(self, settings: Settings | None = None) -> Client:
        """The client of the running loop; only the first call uses ``settings``, by default those of the process."""
        loop = asyncio.get_running_loop()
        found = self._by_loop.get(loop)
        if found is None:
            found = self._by_loop[loop] = self._make(settings)
        return found

    def pop(self) -> Client | None:
        """Remove and return the client of the running loop, for the caller to close; ``None`` without one."""
        return self._by_loop.pop(asyncio.get_running_loop(), None)


async def close_clients() -> None:
    """Close the clients of the running loop, of all kinds. The next use opens new ones.

    A worker process need not call it; code that ends a loop earlier, such as a test, does.
    """
    for client in [kind.pop() for kind in list(_kinds)]:
        if (close := getattr(client, "close", None)) is not None:
            await close()
