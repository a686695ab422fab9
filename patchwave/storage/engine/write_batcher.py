"""Write batching: concurrent writes to one partition share a transaction.

    writes = WriteBatcher(commit, batch_delay=3)
    etags = await writes.write("20261110T190000Z-monthly", [Change("merge", "m~1a2b", {"stage": "ready"}, etag)])

Each caller gets the result of its own changes once they are stored: all of them or none, as if sent alone. With
batching enabled (``batching.py``) a partition gets one transaction per ``batch_delay`` seconds: at once after a pause,
and earlier when a batch is full. A non-batched write flushes the partition's pending batch and is sent with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from patchwave.storage.engine.batching import batching_enabled
from patchwave.storage.engine.parallel import in_parallel
from patchwave.storage.engine.rows import BATCH_BYTES, BATCH_ROWS, Change, Conflict
from patchwave.storage.errors import StorageUnreachable

_LOG = logging.getLogger("patchwave.storage")
_ROUNDS = 3
"""Attempts to commit a group, each without the requests that failed; then each request is sent alone."""
_PARALLEL = 16
_MAX_IDLE = 200
"""Partitions whose last transaction time is kept."""

type Commit = Callable[[str, Sequence[Change]], Awaitable[list[str]]]
"""Applies changes of a partition in one transaction, and returns ETags. Raises ``Conflict`` or ``StorageError``."""


@dataclass(eq=False, slots=True)
class _Request:
    """The changes of one caller, applied as a whole or not at all."""

    changes: Sequence[Change]
    response: asyncio.Future[list[str]]
    keys: frozenset[str]
    size: int
    waits: bool

    @classmethod
    def of(cls, changes: Sequence[Change]) -> _Request:
        response: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        keys = frozenset(one.key for one in changes)
        return cls(changes, response, keys, sum(one.size for one in changes), batching_enabled())

    @property
    def is_validation(self) -> bool:
        return all(change.is_validation for change in self.changes)

    def succeed(self, etags: list[str]) -> None:
        # A cancelled caller has no open future any more.
        if not self.response.done():
            self.response.set_result(etags)

    def fail(self, error: Exception) -> None:
        if not self.response.done():
            self.response.set_exception(error)


@dataclass(eq=False, slots=True)
class _Queue:
    """The pending requests of a partition, and the rows that are being written."""

    name: str
    sent_at: float
    waiting: list[_Request] = field(default_factory=list[_Request])
    busy: set[str] = field(default_factory=set[str])
    timer: asyncio.TimerHandle | None = None

    @property
    def is_ready(self) -> bool:
        """Whether a transaction is full, or a request is not batched."""
        rows = sum(len(request.changes) for request in self.waiting)
        is_full = rows >= BATCH_ROWS or sum(request.size for request in self.waiting) >= BATCH_BYTES
        return is_full or not all(request.waits for request in self.waiting)

    def take(self) -> list[_Request]:
        """The requests of the next transaction, first come first served, with each row at most once.

        Two writes of one row stay in their order: the later one waits for the response to the earlier one.
        """
        group: list[_Request] = []
        left: list[_Request] = []
        taken = set(self.busy)
        rows = size = 0
        for request in self.waiting:
            if request.response.done():
                continue
            fits = rows + len(request.changes) <= BATCH_ROWS and size + request.size <= BATCH_BYTES
            if taken.isdisjoint(request.keys) and (fits or not group):
                group.append(request)
                rows += len(request.changes)
                size += request.size
            else:
                left.append(request)
            taken |= request.keys
        self.waiting = left
        return group


class WriteBatcher:
    """The writes of one table, for one event loop."""

    def __init__(self, commit: Commit, batch_delay: float = 0) -> None:
        self._commit = commit
        self._batch_delay = batch_delay
        self._queues: dict[str, _Queue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, partition: str, changes: Sequence[Change]) -> list[str]:
        """Apply all of the changes or none; returns the ETags in the same order.

        Args:
            changes: of different rows, within the limits of one transaction (``rows.batches``).

        Raises:
            Conflict: the condition of a change did not hold.
            StorageError: the storage refused them, or is unreachable.
        """
        queue = self._queue(partition)
        request = _Request.of(changes)
        queue.waiting.append(request)
        self._schedule(queue)
        return await request.response

    async def drain(self) -> None:
        """Flush pending requests, and wait for their responses."""
        while True:
            for queue in self._queues.values():
                if queue.timer is not None:
                    queue.timer.cancel()
                self._send(queue)
            if not self._tasks:
                return
            await asyncio.wait(self._tasks)

    def _queue(self, name: str) -> _Queue:
        now = asyncio.get_running_loop().time()
        if len(self._queues) > _MAX_IDLE:
            self._queues = {
                key: queue
                for key, queue in self._queues.items()
                if queue.waiting or queue.busy or queue.sent_at + self._batch_delay > now
            }
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(name, sent_at=now - self._batch_delay)
        return queue

    def _schedule(self, queue: _Queue) -> None:
        """Schedule the next transaction, at the earliest in the next iteration of the loop, so that others can join."""
        if not queue.waiting:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() if queue.is_ready else queue.sent_at + self._batch_delay
        if queue.timer is not None:
            if queue.timer.when() <= due:
                return
            queue.timer.cancel()
        queue.timer = loop.call_at(due, self._send, queue)

    def _send(self, queue: _Queue) -> None:
        queue.timer = None
        group = queue.take()
        if not group:
            # None is pending, or all wait for rows that are being written: that write schedules them when it ends.
            return
        loop = asyncio.get_running_loop()
        queue.sent_at = loop.time()
        for request in group:
            queue.busy |= request.keys
        task = loop.create_task(self._write(queue, group))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._schedule(queue)

    async def _write(self, queue: _Queue, group: list[_Request]) -> None:
        try:
            await self._settle(queue.name, group, _ROUNDS)
        finally:
            for request in group:
                queue.busy -= request.keys
                # If the loop ends during the write, no caller may wait for ever.
                request.response.cancel()
            self._schedule(queue)

    async def _settle(self, partition: str, group: list[_Request], rounds: int) -> None:
        """Give each request of the group its own result."""
        if len(group) == 1:
            await self._settle_alone(partition, group[0])
            return
        if not rounds:
            await self._settle_each(partition, group)
            return
        try:
            etags = iter(await self._commit(partition, [change for request in group for change in request.changes]))
        except Conflict as conflict:
            # Nothing was written. The service names the first change when it cannot tell, so the blamed request is sent
            # alone; the others share the next transaction.
            blamed = _owner(group, conflict.index)
            rest = [request for request in group if request is not blamed and not request.is_validation]
            for request in group:
                if request.is_validation:
                    # A validation may fail without harm: its caller reads the row, and the writes are not delayed.
                    request.fail(Conflict(str(conflict), is_of_others=request is not blamed))
            again = [self._settle(partition, rest, rounds - 1)] if rest else []
            await asyncio.gather(self._settle_alone(partition, blamed), *again)
        except StorageUnreachable as error:
            for request in group:
                request.fail(StorageUnreachable(*error.args))
        except Exception:
            _LOG.info("A transaction of %d requests is sent again, each request alone.", len(group), exc_info=True)
            # One of them is too large or invalid: sent alone, only that one fails.
            await self._settle_each(partition, group)
        else:
            for request in group:
                request.succeed([next(etags) for _ in request.changes])

    async def _settle_each(self, partition: str, group: Iterable[_Request]) -> None:
        await in_parallel(partial(self._settle_alone, partition), group, most=_PARALLEL)

    async def _settle_alone(self, partition: str, request: _Request) -> None:
        if request.response.done():
            return
        try:
            request.succeed(await self._commit(partition, request.changes))
        except Exception as error:
            request.fail(error)


def _owner(group: Sequence[_Request], index: int) -> _Request:
    """The request whose change has that index in the transaction."""
    for request in group:
        if index < len(request.changes):
            return request
        index -= len(request.changes)
    return group[0]
