"""Breaks the worker process that imports it at an exact external effect (``python -m local.functions_host --preload``).

Requests are caught in aiohttp, below the Azure libraries, so that their own handling of broken connections is tested
with ours.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.resilience.chaos.effects import FOLDER, Order, Way

_CHANGING = frozenset({"DELETE", "MERGE", "PATCH", "POST", "PUT"})
_QUERIES = ("/Microsoft.ResourceGraph/resources",)
"""A POST that changes nothing."""


class _Breaker:
    """Counts the effects of this process together with those of the others, and spoils the one that was ordered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def request(self, send: Callable[[], Awaitable[Any]], method: str, url: str) -> Any:
        """One request of the worker; ``send`` sends it and returns when the head of the answer is there."""
        order = self._counts(method, url)
        if order is None or not self._is_ordered(order, f"{method} {url.partition('?')[0]}"):
            return await send()
        if order.way is Way.RESET_BEFORE:
            raise aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset by peer")
        if order.way is Way.KILL_BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await send()
        if order.way is Way.KILL_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)
        answer.close()
        raise aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset by peer")

    def _counts(self, method: str, url: str) -> Order | None:
        if method not in _CHANGING or url.partition("?")[0].endswith(_QUERIES):
            return None
        try:
            return Order.read(self._folder)
        except FileNotFoundError:
            return None

    def _is_ordered(self, order: Order, effect: str) -> bool:
        with order.effects(self._folder).open("a+") as lines:
            # Two workers must never have the same number.
            fcntl.flock(lines, fcntl.LOCK_EX)
            lines.seek(0)
            number = sum(1 for _ in lines) + 1
            lines.write(f"{effect}\n")
            lines.flush()
        if number != order.number:
            return False
        order.spoilt(self._folder).write_text(json.dumps({"effect": effect}))
        return True


def _install(folder: Path) -> None:
    breaker = _Breaker(folder)
    session: Any = aiohttp.ClientSession
    send = session._request

    async def request(self: Any, method: str, url: Any, **options: Any) -> Any:
        return await breaker.request(lambda: send(self, method, url, **options), method, str(url))

    session._request = request


_install(Path(os.environ[FOLDER]))
