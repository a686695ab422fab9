"""The timeline of a phase follows the admission: no machine waits unless a rule holds it."""

from __future__ import annotations

from typing import Any

from patchwave.domain.planning.admission import RUN_GROUP, Permit, wave_scope
from patchwave.domain.planning.critical_path import Job
from patchwave.domain.planning.timeline import Slice, draw_timeline

RUN = Permit(RUN_GROUP, 2)


def timeline(jobs: list[Job], waves: dict[str, int] | None = None, **more: Any) -> dict[str, tuple[float, float]]:
    slices = draw_timeline(jobs, waves or dict.fromkeys((job.key for job in jobs), 1), **more)
    return {key: (each.start, each.end) for key, each in slices.items()}


def job(key: str, seconds: float, *permits: Permit, lane: str = "west") -> Job:
    return Job(key, lane, seconds, (*permits, RUN))


def test_the_next_starts_when_its_own_predecessor_ends() -> None:
    node = Permit("cluster", 1)
    jobs = [job("a1", 10, node), job("b", 50), job("a2", 10, node), job("a3", 10, node)]
    assert timeline(jobs, at=100) == {"a1": (100, 110), "b": (100, 150), "a2": (110, 120), "a3": (120, 130)}


def test_it_names_the_group_that_held_a_machine() -> None:
    jobs = [job("a", 10, Permit("c", 1)), job("b", 10), job("c", 10), job("d", 5, Permit("c", 1))]
    slices = draw_timeline(jobs, dict.fromkeys("abcd", 1))
    assert slices == {
        "a": Slice(0, 10, ""),
        "b": Slice(0, 10, ""),
        "c": Slice(10, 20, RUN_GROUP),
        "d": Slice(10, 15, "c"),
    }


def test_waves_hold_only_where_they_are_a_barrier() -> None:
    jobs = [job("a", 10), job("b", 30), job("c", 10), job("d", 10, lane="east")]
    waves = {"a": 1, "b": 1, "c": 2, "d": 1}
    assert timeline(jobs, waves)["c"] == (10, 20)
    assert timeline(jobs, waves, wave_barrier=True) == {"a": (0, 10), "b": (0, 30), "d": (10, 20), "c": (30, 40)}
    assert draw_timeline(jobs, waves, wave_barrier=True)["c"].after == wave_scope("west", 2)


def test_a_lane_bakes_between_its_waves_and_not_after_the_last() -> None:
    jobs = [job("a", 10), job("b", 10, lane="east"), job("c", 10), job("d", 25, lane="east")]
    waves = {"a": 1, "b": 1, "c": 2, "d": 2}
    found = timeline(jobs, waves, wave_barrier=True, bake_seconds=100)
    assert found == {"a": (0, 10), "b": (0, 10), "c": (110, 120), "d": (110, 135)}


def test_a_ramp_counts_machines_that_ended_before() -> None:
    jobs = [Job(f"m{number}", "west", 10, (Permit(RUN_GROUP, 8),)) for number in range(4)]
    assert timeline(jobs, ramp=True) == {"m0": (0, 10), "m1": (10, 20), "m2": (10, 20), "m3": (20, 30)}
    assert {start for start, _ in timeline(jobs, ramp=True, ended=3).values()} == {0}


def test_a_phase_without_machines_takes_no_time() -> None:
    assert draw_timeline([], {}) == {}
