"""Single flight: equal reads at about the same time share one request.

A response only serves callers that came before its request was sent, so that a read never misses an earlier write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any

from patchwave.storage.engine.batching import batching_enabled

_MAX_IDLE = 200
"""Reads whose last request time is kept."""


@dataclass(slots=True)
class _Pending[T]:
    """A read that is not sent yet; equal reads join it."""

    response: asyncio.Future[T]
    timer: asyncio.TimerHandle


class SingleFlight:
    """Reads of one table, for one event loop.

    With batching enabled, equal reads are sent at most once in ``batch_delay`` seconds, and at once after a pause;
    without it, always at once.
    """

    def __init__(self, batch_delay: float = 0) -> None:
        self._batch_delay = batch_delay
        self._sent_at: dict[Hashable, float] = {}
        self._pending: dict[Hashable, _Pending[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def read[T](self, key: Hashable, send: Callable[[], Awaitable[T]]) -> T:
        """The response of a ``send`` that starts after this call; equal reads have the same ``key``."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        if batching_enabled():
            due = max(due, self._sent_at.get(key, due - self._batch_delay) + self._batch_delay)
        pending: _Pending[T] | None = self._pending.get(key)
        response: asyncio.Future[T] = loop.create_future() if pending is None else pending.response
        if pending is None or pending.timer.when() > due:
            if pending is not None:
                pending.timer.cancel()
            self._pending[key] = _Pending(response, loop.call_at(due, self._start, key, response, send))
        # A cancelled caller must not cancel the read of the others.
        return await asyncio.shield(response)

    def _start[T](self, key: Hashable, response: asyncio.Future[T], send: Callable[[], Awaitable[T]]) -> None:
        loop = asyncio.get_running_loop()
        del self._pending[key]
        if len(self._sent_at) > _MAX_IDLE:
            self._sent_at = {key: at for key, at in self._sent_at.items() if at + self._batch_delay > loop.time()}
        self._sent_at[key] = loop.time()
        task = loop.create_task(_send_once(response, send))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _send_once[T](response: asyncio.Future[T], send: Callable[[], Awaitable[T]]) -> None:
    try:
        response.set_result(await send())
    except BaseException as error:
        response.set_exception(error)
        # Retrieve it once: asyncio warns of exceptions that are never retrieved.
        response.exception()
        if not isinstance(error, Exception):
            raise
