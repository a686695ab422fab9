"""Counts of the simulator: nothing falls out of them, and a call that does not wait for Retry-After is told."""

from __future__ import annotations

import asyncio
import time

import pytest

from local.azure_simulator.clock import Clock
from local.azure_simulator.server.metrics import IN_FLIGHT_SECONDS, Metrics
from local.azure_simulator.server.throttle import Throttle

PATCHES = "VMGuestPatchOperationSubscriptionMaximum"
CHARGES = [(PATCHES, "sub/region")]


class Wall:
    """A wall clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def throttle(speed: float) -> tuple[Throttle, Metrics, Wall]:
    """Three tokens, one more in a simulated minute."""
    wall = Wall()
    clock = Clock(speed, monotonic=wall)
    metrics = Metrics(clock)
    made = Throttle(clock, metrics)
    made.limit(PATCHES, 1, 3)
    return made, metrics, wall


def test_a_request_is_early_only_after_its_client_got_the_429() -> None:
    made, metrics, wall = throttle(speed=10)
    refused = [made.take(CHARGES).refused_by is not None for _ in range(4)]
    assert refused == [False, False, False, True]
    wall.seconds = IN_FLIGHT_SECONDS / 2
    assert made.take(CHARGES).retry_after == 6
    assert metrics.document()["early"] == {}, "it was in flight when the first one was refused"
    wall.seconds = 2
    made.take(CHARGES)
    assert metrics.document()["early"] == {PATCHES: 1}
    wall.seconds = 9
    assert made.take(CHARGES).refused_by is None
    assert metrics.document()["early"] == {PATCHES: 1}
    assert metrics.document()["refused"] == {PATCHES: 3}


@pytest.mark.parametrize(("speed", "peak"), [(2, 17), (10, 3.4)])
def test_the_peak_of_reads_is_that_of_a_simulated_second_or_half_a_real_one(speed: float, peak: float) -> None:
    _, metrics, wall = throttle(speed=speed)
    for number in range(50):
        wall.seconds = number * 0.03
        metrics.count("read", "GET", f"/machines/{number}", 200, is_read=True)
    assert (metrics.document()["reads"], metrics.document()["peakReads"]) == (50, peak)


def test_requests_that_waited_for_a_blocked_process_are_spread_over_that_time() -> None:
    """Twenty reads a real second, one like the other, of which those of 0.4 s are seen at once."""
    _, metrics, wall = throttle(speed=10)
    for number in range(100):
        arrived = number * 0.05
        wall.seconds = max(arrived, 2.4) if arrived > 2 else arrived
        if number == 41:
            metrics.was_held_up(0.4)
        metrics.count("read", "GET", f"/machines/{number}", 200, is_read=True)
    assert metrics.document()["longestDelay"] == 0.4
    assert metrics.document()["peakReads"] <= 2 * 1.2, "and not 1.8 times as many as there are"


async def test_a_blocked_process_is_noticed() -> None:
    metrics = Metrics(Clock())
    watching = asyncio.create_task(metrics.notice_delays())
    await asyncio.sleep(0.02)
    time.sleep(0.1)  # noqa: ASYNC251 - which blocks the whole loop, as it should
    await asyncio.sleep(0.02)
    watching.cancel()
    assert 0.05 < metrics.document()["longestDelay"] < 5


def test_a_call_that_is_refused_twice_is_one_call() -> None:
    _, metrics, _ = throttle(speed=10)
    for machine, status in (("a", 429), ("b", 202), ("a", 429), ("a", 202), ("a", 429)):
        metrics.count("install", "POST", machine, status, is_read=False)
    document = metrics.document()
    assert document["requests"] == {"install": {"429": 3, "202": 2}}
    assert document["refusedCalls"] == 2
    metrics.reset()
    assert metrics.document()["refusedCalls"] == 0
