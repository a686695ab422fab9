"""The phases of a ring in time: the orders that are tried, and what regions need at least."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.planning.admission import RUN_GROUP, Permit
from patchwave.domain.planning.critical_path import Job, critical_path_first
from patchwave.domain.planning.ring_schedule import RingDrawing
from patchwave.domain.planning.timeline import draw_timeline

RUN = Permit(RUN_GROUP, 2)


def job(key: str, seconds: float, *permits: Permit, lane: str = "west") -> Job:
    return Job(key, lane, seconds, (*permits, RUN))


def drawing(jobs: Sequence[Job], *, barrier: bool = False, bake: float = 0.0, ramp: bool = False) -> RingDrawing:
    lanes: dict[str, list[Job]] = {}
    for each in jobs:
        lanes.setdefault(each.lane, []).append(each)
    return RingDrawing(lanes, RUN.capacity, ramp=ramp, wave_barrier=barrier, bake_seconds=bake)


TWO_AT_A_TIME = [job("a", 300), job("b", 300), job("c", 200), job("d", 200), job("e", 200)]


def test_a_short_order_is_found_where_the_longest_first_is_a_sixth_too_long() -> None:
    """Two at a time: 3 and 3, then 2, 2, 2 takes 7; 3 and 3 one after the other, beside 2, 2, 2, takes 6."""
    made = drawing(TWO_AT_A_TIME)
    assert made.predicted(["west"], 0) == 700.0
    drawn = made.draw(["west"], 0)
    assert drawn.seconds == made.bound(["west"], 0) == 600.0
    assert sorted(drawn.jobs) == TWO_AT_A_TIME
    assert max(each.end for each in drawn.slices.values()) == 600.0


def test_what_gains_less_than_two_per_cent_changes_no_order() -> None:
    jobs = [job("a", 300), job("b", 300), job("c", 200), job("d", 200), job("e", 200), job("f", 6000), job("g", 5500)]
    made = drawing(jobs)
    assert made.draw(["west"], 0).seconds == made.predicted(["west"], 0)
    assert made.draw(["west"], 0).jobs == critical_path_first(jobs)


def test_what_gains_two_per_cent_changes_the_order() -> None:
    made = drawing([*TWO_AT_A_TIME, job("f", 4300), job("g", 4300)])
    assert made.predicted(["west"], 0) == 5000.0
    assert made.draw(["west"], 0).seconds == 4900.0


def test_a_large_phase_is_drawn_once() -> None:
    jobs = [job(f"m{number:03}", 300.0 if number % 5 < 2 else 200.0) for number in range(405)]
    assert drawing(jobs).draw(["west"], 0).jobs == critical_path_first(jobs)


def test_the_order_that_is_found_does_not_depend_on_that_of_the_machines() -> None:
    shuffled = list(TWO_AT_A_TIME)
    Random(1).shuffle(shuffled)
    assert drawing(shuffled).draw(["west"], 0) == drawing(TWO_AT_A_TIME).draw(["west"], 0)


def test_zones_stay_in_their_order_whatever_is_tried() -> None:
    random = Random(5)
    for _ in range(40):
        jobs = [
            job(f"m{n}", float(random.randint(1, 9)), *([Permit("zones", 1, str(random.randint(1, 3)))] * (n % 3 > 0)))
            for n in range(7)
        ]
        drawn = drawing(jobs).draw(["west"], 0)
        zones = [place.slot for each in drawn.jobs for place in each.permits if place.slot]
        assert zones == sorted(zones)
        starts = sorted((drawn.slices[each.key].start, each.permits[0].slot) for each in jobs if each.permits[0].slot)
        assert [zone for _, zone in starts] == sorted(zones)


def test_zones_stay_in_their_order_even_where_another_is_shorter() -> None:
    """A ramp begins with one machine: that of zone 2 is over after a second, and then the others fit side by side."""
    jobs = [job("a", 100, Permit("zones", 1, "1")), job("b", 1, Permit("zones", 1, "2")), job("c", 100)]
    drawn = drawing(jobs, ramp=True).draw(["west"], 0)
    assert drawn.seconds == 200.0
    assert drawn.slices["a"].end <= drawn.slices["b"].start


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**9), size=st.integers(1, 9))
def test_the_run_repeats_a_drawing_from_the_order_of_its_starts(seed: int, size: int) -> None:
    """The plan stores machines by their predicted start; the run looks at them in that order."""
    random = Random(seed)
    jobs = [
        job(
            f"m{number}",
            float(random.randint(1, 9)),
            *([Permit("cluster", 1)] if random.random() < 0.3 else []),
            *([Permit("zones", 1, random.choice("12"))] if random.random() < 0.5 else []),
        )
        for number in range(size)
    ]
    drawn = drawing(jobs).draw(["west"], 0)
    stored = sorted(drawn.jobs, key=lambda each: (drawn.slices[each.key].start, each.key))
    again = draw_timeline(stored, drawn.waves)
    assert {key: each[:2] for key, each in again.items()} == {key: each[:2] for key, each in drawn.slices.items()}


def test_what_regions_need() -> None:
    far = [job("x", 500, Permit("tag", 2), lane="east"), job("y", 100, Permit("cluster", 1), lane="east")]
    loads = drawing([job("a", 300, Permit("tag", 2)), job("b", 200), *far]).loads()
    assert (loads["west"].machines, loads["west"].seconds) == (2, 300.0)
    assert (loads["east"].machines, loads["east"].seconds) == (2, 500.0)
    assert loads["west"].shares == {"tag": 150.0, "run": 250.0}
    assert loads["east"].shares == {"tag": 250.0, "run": 300.0}


def test_a_region_needs_no_more_for_a_ramp_that_is_over() -> None:
    jobs = [job(f"m{number}", 10.0) for number in range(8)]
    made = drawing(jobs, ramp=True)
    assert made.loads()["west"].seconds == 40.0
    assert made.bound(["west"], 0) == 45.0
    assert made.bound(["west"], 1) == 40.0
    assert made.predicted(["west"], 0) == 50.0
    assert made.predicted(["west"], 1) == 40.0


@pytest.mark.parametrize(
    ("jobs", "bake", "seconds"),
    [
        ([job("a", 5)], 60.0, 5.0),
        # Two at a time: three machines need two waves, and the second has at least the shortest of them.
        ([job("a", 30), job("b", 20), job("c", 10)], 60.0, 30.0 + 60.0 + 10.0),
        ([job(key, 10, Permit("zones", 1, key)) for key in "123"], 60.0, 150.0),
        ([job(key, 10, Permit("zones", 1, "1")) for key in "abc"] + [job("d", 9, Permit("zones", 1, "2"))], 0.0, 29.0),
        ([job(key, 10, Permit("cluster", 1)) for key in "abc"], 7.0, 44.0),
    ],
)
def test_waves_that_wait_need_their_time(jobs: list[Job], bake: float, seconds: float) -> None:
    made = drawing(jobs, barrier=True, bake=bake)
    assert made.bound(["west"], 0) == made.draw(["west"], 0).seconds == seconds
