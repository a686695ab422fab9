"""One client per process and event loop: connections belong to the loop that opened them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

from settings import Settings, load_settings


class PerLoop[Client]:
    """Clients by the event loop that uses them; ``make`` builds one, without a request."""

    def __init__(self, make: Callable[[Settings], Client]) -> None:
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
        """Forget the client of the running loop, for whoever closes it; ``None`` when there is none."""
        return self._by_loop.pop(asyncio.get_running_loop(), None)
