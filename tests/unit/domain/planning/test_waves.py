"""Waves: the first in which every group of a machine has room."""

from __future__ import annotations

from patchwave.domain.planning.admission import RUN_GROUP, UNLIMITED, Permit
from patchwave.domain.planning.critical_path import Job
from patchwave.domain.planning.waves import number_waves

RUN = Permit(RUN_GROUP, 3)


def waves(*machines: tuple[Permit, ...], run: Permit = RUN) -> list[int]:
    jobs = [Job(f"m{number}", "west", 1.0, (*permits, run)) for number, permits in enumerate(machines)]
    return list(number_waves(jobs).values())


def zone(name: str) -> Permit:
    return Permit("zones", 1, name)


def test_a_wave_is_as_large_as_the_run_takes() -> None:
    assert waves(*[()] * 7) == [1, 1, 1, 2, 2, 2, 3]
    assert waves(*[()] * 4, run=Permit(RUN_GROUP, UNLIMITED)) == [1, 1, 1, 1]


def test_a_new_zone_begins_a_new_wave_and_others_fill_the_earlier_ones() -> None:
    one, two = (zone("1"),), (zone("2"),)
    assert waves(one, one, two, (), ()) == [1, 1, 2, 1, 2]
    assert waves(one, one, one, one, two, two, two) == [1, 1, 1, 2, 3, 3, 3]


def test_the_nodes_of_a_cluster_take_one_wave_each() -> None:
    node, other = (Permit("c", 1),), (Permit("d", 1),)
    assert waves(node, node, node, other, other) == [1, 2, 3, 1, 2]
    assert waves((*node, *other), node, other, (*node, *other)) == [1, 2, 2, 3]


def test_a_machine_waits_for_the_last_of_its_groups() -> None:
    full = (Permit("set", 2),)
    assert waves(full, full, full, (*full, zone("1")), (*full, zone("2"))) == [1, 1, 2, 2, 3]


def test_many_full_waves_are_passed_over_at_once() -> None:
    found = waves(*[()] * 30_000)
    assert found[-1] == 10_000
