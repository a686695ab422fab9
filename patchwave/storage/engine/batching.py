"""Who waits for company: the steps of machines, which come by the hundred and share their requests when they wait.

    with in_company():
        await records.save_intent(intent)

Whoever is alone, a person or a timer above all, would wait for nobody: outside of it everything goes at once, and takes
along what waits in its place.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_EXPECTED = ContextVar("company_expected", default=False)


@contextmanager
def in_company() -> Generator[None]:
    """What is asked of the records in here, and in tasks that begin in here, may wait for others."""
    token = _EXPECTED.set(True)
    try:
        yield
    finally:
        _EXPECTED.reset(token)


def company_is_expected() -> bool:
    """Whether the caller waits for others."""
    return _EXPECTED.get()
