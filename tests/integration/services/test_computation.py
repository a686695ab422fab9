"""Computations over a large fleet: in a thread, and without the search for reference cycles meanwhile."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from patchwave.services.computation import compute


async def test_the_search_rests_until_the_last_computation_has_ended():
    first, second = threading.Event(), threading.Event()
    found: list[bool] = []

    def work(end: threading.Event) -> None:
        end.wait(5)
        found.append(gc.isenabled())

    both = [asyncio.ensure_future(compute(lambda end=end: work(end))) for end in (first, second)]
    await asyncio.sleep(0.05)
    assert not gc.isenabled()
    first.set()
    await both[0]
    assert not gc.isenabled()
    second.set()
    await both[1]
    assert found == [False, False]
    assert gc.isenabled()


async def test_it_goes_on_after_a_failure():
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await compute(fail)
    assert gc.isenabled()


async def test_a_search_that_was_off_stays_off():
    gc.disable()
    try:
        assert await compute(lambda: threading.current_thread() is not threading.main_thread())
        assert not gc.isenabled()
    finally:
        gc.enable()
