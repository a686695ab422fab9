"""How much of a processor a piece of work takes."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time


def least_seconds(work: Callable[[], object]) -> float:
    """Processor seconds of this thread for the work: the least of three, as a busy machine only ever adds to it."""
    found: list[float] = []
    for _ in range(3):
        began = thread_time()
        work()
        found.append(thread_time() - began)
    return min(found)
