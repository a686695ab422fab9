"""Single flight: equal reads that come at about the same time share one request.

A response serves only the callers that asked before its request was sent, so that a read never misses a write that was
done before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any

from patchwave.storage.engine.batching import batching_enabled

_MAX_IDLE = 200
"""Questions that are remembered for the moment of their last request."""


@dataclass(slots=True)
class _Asked[T]:
    """A question that has not been sent yet: whoever asks it meanwhile gets its answer too."""

    answer: asyncio.Future[T]
    timer: asyncio.TimerHandle


class SingleFlight:
    """Reads of one table, for one event loop.

    With batching enabled a read is sent at most once in ``batch_delay`` seconds, and at once after a pause; without it,
    always at once.
    """

    def __init__(self, batch_delay: float = 0) -> None:
        self._batch_delay = batch_delay
        self._sent_at: dict[Hashable, float] = {}
        self._asked: dict[Hashable, _Asked[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def read[T](self, question: Hashable, send: Callable[[], Awaitable[T]]) -> T:
        """The answer of a ``send`` that is called after this; ``question`` says which of them ask for the same."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        if batching_enabled():
            due = max(due, self._sent_at.get(question, due - self._batch_delay) + self._batch_delay)
        asked: _Asked[T] | None = self._asked.get(question)
        answer: asyncio.Future[T] = loop.create_future() if asked is None else asked.answer
        if asked is None or asked.timer.when() > due:
            if asked is not None:
                asked.timer.cancel()
            self._asked[question] = _Asked(answer, loop.call_at(due, self._start, question, answer, send))
        # Whoever is cancelled must not take the answer from the others.
        return await asyncio.shield(answer)

    def _start[T](self, question: Hashable, answer: asyncio.Future[T], send: Callable[[], Awaitable[T]]) -> None:
        loop = asyncio.get_running_loop()
        del self._asked[question]
        if len(self._sent_at) > _MAX_IDLE:
            self._sent_at = {key: at for key, at in self._sent_at.items() if at + self._batch_delay > loop.time()}
        self._sent_at[question] = loop.time()
        task = loop.create_task(_answer(answer, send))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _answer[T](answer: asyncio.Future[T], send: Callable[[], Awaitable[T]]) -> None:
    try:
        answer.set_result(await send())
    except BaseException as error:
        answer.set_exception(error)
        # When all who asked are gone, nobody looks at it.
        answer.exception()
        if not isinstance(error, Exception):
            raise
