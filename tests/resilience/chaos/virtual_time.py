"""Virtual time: an event loop in which waiting takes none, and clocks that follow it.

Everything runs on one thread. The same seed therefore gives the same run, and hours of it take seconds.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from unittest.mock import patch

from local.functions_host.durable.timer_queue import Lock

EPOCH = datetime(2026, 11, 10, 8, tzinfo=UTC)
"""When virtual time begins."""
_PACKAGES = (
    "activities.",
    "patchwave.azure.",
    "patchwave.outbound.",
    "patchwave.services.",
    "patchwave.storage.",
    "triggers.",
)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing else is to be done."""

    def __init__(self) -> None:
        self.passed = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.passed

    def now(self) -> datetime:
        """The virtual time of day, in UTC."""
        return EPOCH + timedelta(seconds=self.passed)


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("Nothing will ever happen any more: all tasks wait for each other.")
        self._loop.passed += max(timeout, 0)
        return []


class LoopTimers:
    """The engine's timers on a virtual loop, in the place of `local.functions_host.durable.timer_queue.TimerQueue`."""

    def __init__(self, loop: VirtualLoop, lock: Lock) -> None:
        self._loop = loop
        self._lock = lock

    def now(self) -> datetime:
        """The engine's time."""
        return self._loop.now()

    def at(self, due: datetime, action: Callable[[], None]) -> None:
        """Runs ``action`` once, when ``due`` has come."""

        def act() -> None:
            self._lock.acquire()
            try:
                action()
            finally:
                self._lock.release()

        self._loop.call_at(max((due - EPOCH).total_seconds(), self._loop.passed), act)

    def close(self) -> None:
        """Nothing runs any more once the loop has ended."""


async def _on_this_thread[**Given, Result](
    call: Callable[Given, Result], /, *arguments: Given.args, **named: Given.kwargs
) -> Result:
    """In the place of ``asyncio.to_thread``: virtual time would run away while another thread works."""
    return call(*arguments, **named)


@contextmanager
def virtual_clocks(loop: VirtualLoop) -> Generator[None]:
    """The clocks that the app reads show the time of the loop."""

    class Clock(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime)

    class VirtualDatetime(datetime, metaclass=Clock):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # pyright: ignore[reportIncompatibleMethodOverride] - a moment is no instance of this class
            return loop.now().astimezone(tz)

    theirs = [
        module
        for name, module in list(sys.modules.items())
        if f"{name}.".startswith(_PACKAGES) and getattr(module, "datetime", None) is datetime
    ]
    for module in theirs:
        module.datetime = VirtualDatetime  # pyright: ignore[reportAttributeAccessIssue] - modules have what they import
    try:
        with (
            patch.object(time, "time", lambda: loop.now().timestamp()),
            patch.object(time, "monotonic", loop.time),
            patch.object(asyncio, "to_thread", _on_this_thread),
        ):
            yield
    finally:
        for module in theirs:
            module.datetime = datetime  # pyright: ignore[reportAttributeAccessIssue] - as above


__all__ = ["EPOCH", "LoopTimers", "VirtualLoop", "virtual_clocks"]
