"""The limiter: rules for any sequence, and whole days of several workers on one bucket, in simulated time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.azure.rate_limit import Bucket, Limit, RateLimiter, is_of_one_machine, read_levels, read_limits

PATCHES = read_limits()[Bucket.PATCH_OPERATIONS]
READS = read_limits()[Bucket.READS]
QUERIES = read_limits()[Bucket.QUERIES]
limits = st.builds(Limit, st.floats(0.05, 500), st.integers(10, 20_000).map(float))


@dataclass
class Azure:
    """The bucket itself, and who has taken from it when."""

    refill: float
    burst: float
    tokens: float = -1
    at: float = 0
    taken: list[float] = field(default_factory=list[float])
    refused: list[float] = field(default_factory=list[float])
    lowest: float = math.inf

    def take(self, now: float, *, ours: bool) -> bool:
        if self.tokens < 0:
            self.tokens = self.burst
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.refill)
        self.at = now
        accepted = self.tokens >= 1
        self.tokens -= accepted
        self.lowest = min(self.lowest, self.tokens)
        if ours:
            (self.taken if accepted else self.refused).append(now)
        return accepted

    @property
    def retry_after(self) -> float:
        return max(1.0, math.ceil((1 - self.tokens) / self.refill))


def work(
    azure: Azure,
    limiters: list[RateLimiter],
    starts: int,
    *,
    others: Iterable[float] = (),
    latency: float = 0.5,
    shows_level: bool = True,
    change: Callable[[Azure, float], None] = lambda _azure, _now: None,
    until: float = math.inf,
) -> None:
    """So many requests, shared by the limiters, beside what others take at those moments."""
    events: list[tuple[float, int, str, int]] = []
    number = 0

    def at(moment: float, kind: str, who: int) -> None:
        nonlocal number
        number += 1
        heappush(events, (moment, number, kind, who))

    for moment in others:
        at(moment, "other", 0)
    for index in range(starts):
        at(0.0, "book", index % len(limiters))
    answers: dict[int, tuple[bool, int, float]] = {}
    left = starts
    while events and left:
        now, key, kind, who = heappop(events)
        if now > until:
            return
        change(azure, now)
        limiter = limiters[who]
        if kind == "other":
            azure.take(now, ours=False)
        elif kind == "book":
            at(limiter.reserve(now), "due", who)
        elif kind == "due":
            moment = limiter.ready_at(now)
            if moment > now:
                at(moment, "due", who)
                continue
            limiter.sent(now)
            accepted = azure.take(now, ours=True)
            left -= accepted
            at(now + latency, "answer", who)
            answers[number] = (accepted, int(azure.tokens), azure.retry_after)
        else:
            accepted, level, retry_after = answers.pop(key)
            if accepted:
                limiter.answered(now, level if shows_level else None)
            else:
                limiter.refused(now, retry_after, level if shows_level else None)
                at(now, "book", who)


def in_window(moments: list[float], seconds: float) -> int:
    """The most within any so many seconds."""
    most, start = 0, 0
    for end, moment in enumerate(moments):
        while moments[start] <= moment - seconds:
            start += 1
        most = max(most, end - start + 1)
    return most


# --- the curve


@given(limits, st.floats(-1_000, 30_000), st.floats(0, 1_000))
def test_never_slower_at_a_higher_level(limit: Limit, level: float, more: float) -> None:
    assert 0 <= limit.pace(level) <= limit.pace(level + more)


@given(limits, st.floats(-1_000, 30_000))
def test_after_a_gap_one_request_is_due(limit: Limit, level: float) -> None:
    gap = limit.gap(min(level, limit.burst))
    assert 0 < gap < math.inf
    assert gap * limit.pace(min(limit.burst, level + gap * limit.refill)) >= 1 - 1e-6


def test_the_documented_buckets_settle_above_the_floor() -> None:
    """There a limiter sends as fast as the bucket fills, and a quarter of the burst stays unspent."""
    rest = next(level for level in range(600) if PATCHES.pace(level) >= PATCHES.refill)
    assert 150 < rest < 190
    assert PATCHES.pace(50) == pytest.approx(PATCHES.refill / 4)
    assert PATCHES.pace(0) == 0


# --- the setting


def test_limits_are_documented_ones_unless_set() -> None:
    assert Limit(200 / 60, 600) == PATCHES
    changed = read_limits(" patchOperations = 400/1200 , writes=60/20")
    assert changed[Bucket.PATCH_OPERATIONS] == Limit(400 / 60, 1_200)
    assert changed[Bucket.WRITES] == Limit(1, 20)
    assert changed[Bucket.READS] == READS
    assert READS.fastest <= 0.75 * 25


@pytest.mark.parametrize("text", ["reads", "reads=5", "deletes=5/5", "reads=0/5", "reads=5/0", "reads=-5/5", "a=b/c"])
def test_a_setting_that_cannot_be_used_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="refill"):
        read_limits(text)


# --- the headers


def test_levels_are_read_from_the_headers_of_an_answer() -> None:
    headers = {
        "X-Ms-RateLimit-Remaining-Resource": "Microsoft.Compute/VMGuestPatchOperationSubscriptionMaximum;599,"
        "Microsoft.Compute/VMGuestPatchOperationResource;5",
        "x-ms-ratelimit-remaining-subscription-writes": "199",
        "x-ms-ratelimit-remaining-subscription-global-writes": "2999",
    }
    assert read_levels(headers) == {Bucket.PATCH_OPERATIONS: 599, Bucket.WRITES: 199}
    assert read_levels({"x-ms-user-quota-remaining": "14"}) == {Bucket.QUERIES: 14}
    assert not is_of_one_machine(headers)


header_names = st.sampled_from(["x-ms-ratelimit-remaining-resource", "x-ms-ratelimit-remaining-subscription-reads"])


@given(st.dictionaries(header_names, st.text()))
def test_headers_that_cannot_be_read_say_nothing(headers: dict[str, str]) -> None:
    assert all(level >= 0 for level in read_levels(headers).values())
    is_of_one_machine(headers)


def test_a_limit_of_one_machine_stops_no_other_request() -> None:
    name = "x-ms-ratelimit-remaining-resource"
    total, own = "Microsoft.Compute/LowCostGetSubscriptionMaximum;", "Microsoft.Compute/LowCostGetResource;"
    assert is_of_one_machine({name: f"{own}0,{total}120"})
    assert not is_of_one_machine({name: f"{own}4,{total}0"})
    assert not is_of_one_machine({})


# --- one worker


def test_alone_it_uses_the_whole_refill_and_leaves_the_floor() -> None:
    azure = Azure(PATCHES.refill, PATCHES.burst)
    work(azure, [RateLimiter(PATCHES)], 2_000)
    assert not azure.refused
    assert azure.lowest >= PATCHES.floor - 2
    bound = (2_000 - 600) / PATCHES.refill
    assert azure.taken[-1] <= 1.15 * bound
    late = [moment for moment in azure.taken if moment > 200]
    assert (len(late) - 1) / (late[-1] - late[0]) == pytest.approx(PATCHES.refill, rel=0.02)


def test_reads_are_never_bunched() -> None:
    azure = Azure(READS.refill, READS.burst)
    work(azure, [RateLimiter(READS)], 1_000)
    assert in_window(azure.taken, 1.0) <= 0.75 * 25
    assert not azure.refused


def test_occasional_requests_do_not_wait() -> None:
    limiter = RateLimiter(READS)
    for second in range(100, 200):
        assert limiter.reserve(second) == second
        assert limiter.ready_at(second) == second
        limiter.sent(second)
        limiter.answered(second + 0.1, 249)


def test_without_a_header_it_keeps_to_its_own_count() -> None:
    azure = Azure(PATCHES.refill, PATCHES.burst)
    work(azure, [RateLimiter(PATCHES)], 1_500, shows_level=False)
    assert not azure.refused
    assert azure.taken[-1] <= 1.15 * (1_500 - 450) / PATCHES.refill


# --- several workers, and others


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_share_a_bucket_without_a_word_to_each_other(workers: int) -> None:
    azure = Azure(PATCHES.refill, PATCHES.burst)
    work(azure, [RateLimiter(PATCHES) for _ in range(workers)], 2_000)
    assert not azure.refused
    assert azure.lowest >= PATCHES.floor / 3
    assert azure.taken[-1] <= 1.15 * (2_000 - 600) / PATCHES.refill


@pytest.mark.parametrize("workers", [1, 2])
def test_views_of_the_fleet_leave_a_part_of_the_queries_to_runs(workers: int) -> None:
    """300 pages for callers, and a query of a run every second: no query is refused, and none of a run waits."""
    assert (QUERIES.refill, QUERIES.burst, QUERIES.floor) == (3, 15, 7.5)
    azure = Azure(QUERIES.refill, QUERIES.burst)
    of_runs = [float(second) for second in range(400)]
    work(azure, [RateLimiter(QUERIES) for _ in range(workers)], 300, others=of_runs)
    assert not azure.refused
    assert azure.lowest >= 1
    assert azure.taken[-1] <= 1.3 * (300 - 15) / (QUERIES.refill - 1)


def test_others_take_half_the_refill_and_are_never_refused() -> None:
    azure = Azure(PATCHES.refill, PATCHES.burst)
    theirs = [second / (PATCHES.refill / 2) for second in range(4_000)]
    work(azure, [RateLimiter(PATCHES)], 1_500, others=theirs)
    assert not azure.refused
    assert azure.lowest >= PATCHES.floor - 5
    late = [moment for moment in azure.taken if moment > 300]
    assert (len(late) - 1) / (late[-1] - late[0]) == pytest.approx(PATCHES.refill / 2, rel=0.05)


def test_it_does_not_starve_beside_a_client_that_takes_everything() -> None:
    azure = Azure(PATCHES.refill, PATCHES.burst)
    theirs = [second / (PATCHES.refill * 1.5) for second in range(40_000)]
    work(azure, [RateLimiter(PATCHES)], 1_000, others=theirs, until=6_000)
    assert len(azure.taken) > 600
    assert in_window(azure.refused, 1.0) <= 1, "nothing is sent before Retry-After"


@pytest.mark.parametrize(("burst", "shows_level"), [(600, True), (150, True), (50, True), (600, False)])
def test_a_bucket_that_shrinks_for_ten_minutes(burst: int, shows_level: bool) -> None:
    """F7: the pace follows; few are refused, and none waits much longer than the bucket takes."""
    azure = Azure(PATCHES.refill, PATCHES.burst)

    def change(bucket: Azure, now: float) -> None:
        shrunk = 60 <= now < 660
        bucket.refill = 50 / 60 if shrunk else PATCHES.refill
        bucket.burst = burst if shrunk else PATCHES.burst

    work(azure, [RateLimiter(PATCHES)], 2_000, change=change, shows_level=shows_level)
    assert len(azure.refused) <= 0.01 * len(azure.taken) or not shows_level
    assert len(azure.refused) <= 0.05 * len(azure.taken)
    # 600 + 60 s and then ten minutes at 50, the rest at 200.
    bound = 660 + (2_000 - 600 - 200 - 500) / PATCHES.refill
    assert azure.taken[-1] <= 1.3 * bound


# --- refusals


step_names = st.sampled_from(["book", "sent", "answered", "refused", "silent"])


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 30), step_names, st.integers(0, 700))))
def test_nothing_is_sent_before_retry_after_and_never_faster_than_the_bucket_fills(
    steps: list[tuple[float, str, int]],
) -> None:
    limiter, now, stop, sent = RateLimiter(PATCHES), 0.0, 0.0, 0
    for passed, step, number in steps:
        now += passed
        match step:
            case "book":
                assert limiter.reserve(now) >= max(now, stop)
            case "sent":
                moment = limiter.ready_at(now)
                assert moment >= stop
                if moment == now:
                    limiter.sent(now)
                    sent += 1
            case "answered":
                limiter.answered(now)
            case "refused":
                limiter.refused(now, float(number))
                stop = max(stop, now + number)
            case _:
                limiter.refused(now)
                stop = max(stop, limiter.throttled_until)
                assert limiter.throttled_until <= max(stop, now + 32 * PATCHES.drain_seconds)
    assert sent <= PATCHES.burst - PATCHES.floor + now * PATCHES.refill + 1


@given(st.integers(1, 400))
def test_slots_are_handed_out_in_order(asked: int) -> None:
    limiter = RateLimiter(PATCHES)
    slots = [limiter.reserve(10.0) for _ in range(asked)]
    assert all(before <= after for before, after in pairwise(slots))
    assert slots[-1] - 10 <= max(0, asked - 440) / PATCHES.refill + 60


def test_slots_of_machines_that_ended_are_given_to_others() -> None:
    limiter = RateLimiter(PATCHES)
    for _ in range(800):
        limiter.reserve(0.0)
    assert limiter.next_reservation(0) > 90
    # None was used.
    assert limiter.next_reservation(1_000) == 1_000


def test_a_stall_makes_no_clump_of_a_steady_pace() -> None:
    """All slots of a second are due at once when the worker wakes up: they are spaced anew."""
    limiter = RateLimiter(READS)
    for _ in range(17):
        limiter.reserve(100.0)
    waiting, sent = [102.0] * 17, list[float]()
    while waiting:
        now = min(waiting)
        waiting.remove(now)
        moment = limiter.ready_at(now)
        if moment > now:
            waiting.append(moment)
            continue
        limiter.sent(now)
        sent.append(now)
    assert in_window(sent, 1.0) <= 0.75 * 25
    for window in (0.1, 0.25, 0.5, 1.0):
        assert in_window(sent, window) <= 1 + (window + 0.05) * READS.fastest, "a moment's worth is made up for at once"


def test_a_busy_process_keeps_its_pace() -> None:
    """It reads its clock thirty times a second, when several reserved times have passed."""
    fast = Limit(READS.refill * 10, READS.burst, READS.fastest * 10)
    limiter, left = RateLimiter(fast), 0
    for check in range(150):
        now = 100 + check / 30
        while limiter.ready_at(now) <= now:
            limiter.sent(now)
            left += 1
    assert left >= 0.95 * fast.fastest * 5
    assert left <= fast.fastest * (5 + 0.1)
