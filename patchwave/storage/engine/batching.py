"""Write batching: activities that run for hundreds of machines wait a moment and share requests.

    with batching():
        await records.save_intent(intent)

Outside of the block, reads and writes are sent at once, together with pending ones of the same partition.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_ENABLED = ContextVar("batching_enabled", default=False)


@contextmanager
def batching() -> Generator[None]:
    """Enable batching for the calls in this block, and in tasks that it starts."""
    token = _ENABLED.set(True)
    try:
        yield
    finally:
        _ENABLED.reset(token)


def batching_enabled() -> bool:
    """Whether the caller may wait for a batch."""
    return _ENABLED.get()
