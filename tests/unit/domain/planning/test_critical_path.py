"""Critical path first, and the bound below which no order can be."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.planning.admission import RUN_GROUP, Permit
from patchwave.domain.planning.critical_path import Job, critical_path_first, lower_bound, shortest_first
from patchwave.domain.planning.timeline import draw_timeline

RUN = Permit(RUN_GROUP, 2)


def job(key: str, seconds: float, *permits: Permit) -> Job:
    return Job(key, "west", seconds, (*permits, RUN))


def zone(name: str) -> Permit:
    return Permit("zones:west", 1, name)


def draw_jobs(random: Random, size: int) -> list[Job]:
    run = Permit(RUN_GROUP, random.randint(1, 4))
    made: list[Job] = []
    for number in range(size):
        permits = [
            *([Permit("zones", 1, random.choice("123"))] if random.random() < 0.5 else []),
            *([Permit("domains", 1, random.choice("12")), Permit("set", 2)] if random.random() < 0.3 else []),
            *([Permit("cluster", 1)] if random.random() < 0.3 else []),
        ]
        made.append(Job(f"m{number}", "west", float(random.randint(1, 9)), (*permits, run)))
    return made


def length(jobs: list[Job], *, ramp: bool = False, ended: int = 0) -> float:
    slices = draw_timeline(jobs, dict.fromkeys((each.key for each in jobs), 1), ramp=ramp, ended=ended)
    return max((each.end for each in slices.values()), default=0.0)


@settings(deadline=None)
@given(seed=st.integers(0, 10**9), size=st.integers(0, 9), ramp=st.booleans(), ended=st.integers(0, 4))
def test_no_order_is_shorter_than_the_bound(seed: int, size: int, ramp: bool, ended: int) -> None:
    random = Random(seed)
    jobs = draw_jobs(random, size)
    bound = lower_bound(jobs, ramp=ramp, ended=ended)
    for _ in range(10):
        random.shuffle(jobs)
        assert length(jobs, ramp=ramp, ended=ended) >= bound - 1e-9


@settings(deadline=None)
@given(seed=st.integers(0, 10**9), size=st.integers(0, 12))
def test_the_order_is_of_the_jobs_and_not_of_the_list(seed: int, size: int) -> None:
    random = Random(seed)
    jobs = draw_jobs(random, size)
    ordered = critical_path_first(jobs)
    assert sorted(ordered) == sorted(jobs)
    random.shuffle(jobs)
    assert critical_path_first(jobs) == ordered


def test_the_machine_with_most_work_behind_it_goes_first() -> None:
    chain = [job(f"c{number}", 10, Permit("cluster", 1)) for number in range(4)]
    long = job("long", 35)
    short = [job(f"s{number}", 5) for number in range(3)]
    ordered = [each.key for each in critical_path_first([*short, long, *chain])]
    assert ordered[:3] == ["c0", "long", "c1"]
    assert length(critical_path_first([*short, long, *chain])) == lower_bound([*short, long, *chain]) == 45


def test_a_machine_that_shares_a_cluster_with_one_of_the_first_zone_is_behind_it() -> None:
    cluster = Permit("cluster", 1)
    jobs = [job("a", 10, zone("1"), cluster), job("b", 50, cluster), job("c", 45, zone("2"))]
    assert [each.key for each in critical_path_first(jobs)] == ["a", "b", "c"]


def test_a_zone_takes_as_long_as_the_smallest_limit_over_it_allows() -> None:
    """Four machines, two at a time in the run, and then zone 2: 25 seconds, more than the one that is alone."""
    tag = Permit("tag", 4)
    jobs = [job(key, 10, zone("1"), tag) for key in "abcd"] + [job("e", 5, zone("2"), tag), job("f", 22)]
    assert [each.key for each in critical_path_first(jobs)][:2] == ["a", "f"]


def test_zones_go_in_their_order_whatever_their_work() -> None:
    jobs = [job("a", 1, zone("1")), job("b", 50, zone("2")), job("c", 9, zone("10")), job("d", 2, zone("2"))]
    assert [each.key for each in critical_path_first(jobs)] == ["a", "b", "d", "c"]


@pytest.mark.parametrize(
    ("jobs", "seconds"),
    [
        ([], 0),
        ([job("a", 0.5)], 0.5),
        ([job("a", 10), job("b", 10), job("c", 10)], 15),
        ([job("a", 30), job("b", 2)], 30),
        ([job("a", 10, Permit("cluster", 1)), job("b", 10, Permit("cluster", 1))], 20),
        ([job("a", 10, zone("1")), job("b", 4, zone("1")), job("c", 7, zone("2"))], 17),
        ([job(key, 10, zone("1")) for key in "abcd"] + [job("e", 5, zone("2"))], 25),
        ([job("a", 10, zone("1"), Permit("c", 1)), job("b", 9, zone("1"), Permit("c", 1)), job("c", 1, zone("2"))], 20),
    ],
)
def test_the_bound_is_the_critical_path_or_the_work(jobs: list[Job], seconds: float) -> None:
    assert lower_bound(jobs) == seconds


def test_a_ramp_takes_its_time() -> None:
    run = Permit(RUN_GROUP, 4)
    jobs = [Job(f"m{number}", "west", 10, (run,)) for number in range(15)]
    assert lower_bound(jobs) == 37.5
    assert lower_bound(jobs, ramp=True) == 10 + 10 + 12 / 4 * 10
    assert lower_bound(jobs, ramp=True, ended=3) == 37.5
    assert length(jobs, ramp=True) == 50


@pytest.mark.parametrize("capacity", [0, 4, 9])
def test_a_ramp_grows_no_further_than_its_machines(capacity: int) -> None:
    """One, then two, then the four that there are: 1 + 1 + (10 - 3) / 4 seconds."""
    jobs = [
        Job(f"m{number}", "west", seconds, (Permit(RUN_GROUP, capacity),))
        for number, seconds in enumerate([1, 3, 3, 3])
    ]
    assert lower_bound(jobs, ramp=True) == 3.75


def test_a_ramp_begins_with_short_machines_of_the_first_slots() -> None:
    jobs = [job("a", 50, zone("1")), job("b", 40), job("c", 9, zone("1")), job("d", 1, zone("2")), job("e", 8)]
    assert [each.key for each in shortest_first(jobs, 2)] == ["e", "c", "a", "b", "d"]
    assert shortest_first(jobs, 0) == jobs
    assert sorted(shortest_first(jobs, 99)) == sorted(jobs)
