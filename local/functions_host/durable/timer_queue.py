"""All timers of one engine in one heap, served by one thread."""

import heapq
import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Lock(Protocol):
    """The part of ``threading.RLock`` that a condition needs (the concrete type is not public)."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...


# A condition cannot wait for longer than threading.TIMEOUT_MAX, and a change of the clock should be noticed soon.
_MAX_WAIT_SECONDS = 60.0


class TimerQueue:
    """Calls actions at given UTC times, and owns the engine's clock.

    ``lock`` is the lock of the engine: actions run while it is held, so that other threads see the removal of a timer
    and its action as one step. A test skips time (``skip_to_next``) to run hours of durable timers in milliseconds.
    """

    def __init__(self, lock: Lock) -> None:
        self._condition = threading.Condition(lock)  # pyright: ignore[reportArgumentType] - RLock has no public type
        self._heap: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._skipped = timedelta(0)
        self._thread: threading.Thread | None = None
        self._closed = False

    def __len__(self) -> int:
        with self._condition:
            return len(self._heap)

    def now(self) -> datetime:
        """The engine's time: UTC, plus skipped time."""
        return datetime.now(UTC) + self._skipped

    def at(self, due: datetime, action: Callable[[], None]) -> None:
        """Runs ``action`` once, at ``due`` (aware) or as soon as possible after it."""
        with self._condition:
            heapq.heappush(self._heap, (due, next(self._order), action))
            if self._thread is None:
                self._closed = False
                self._thread = threading.Thread(target=self._serve, name="engine-timers", daemon=True)
                self._thread.start()
            elif self._heap[0][0] == due:
                self._condition.notify_all()

    def skip_to_next(self) -> bool:
        """Advances the clock to the earliest timer and runs it; False when there is none."""
        with self._condition:
            if not self._heap:
                return False
            due, _, action = heapq.heappop(self._heap)
            self._skipped += max(due - self.now(), timedelta(0))
            action()
            return True

    def clear(self) -> None:
        with self._condition:
            self._heap.clear()

    def close(self) -> None:
        """Removes every timer and ends the thread; a later ``at`` starts it again."""
        with self._condition:
            self._closed = True
            self._heap.clear()
            self._thread = None
            self._condition.notify_all()

    def _serve(self) -> None:
        with self._condition:
            while not self._closed and self._thread is threading.current_thread():
                now = self.now()
                if self._heap and self._heap[0][0] <= now:
                    heapq.heappop(self._heap)[2]()
                    continue
                wait = _MAX_WAIT_SECONDS
                if self._heap:
                    wait = min(wait, (self._heap[0][0] - now).total_seconds())
                self._condition.wait(wait)
