"""The rule of who may start next, against a slow and simple reading of the same sentence."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.planning.admission import (
    RUN_GROUP,
    Admission,
    Candidate,
    Permit,
    lane_scope,
    ramp_limit,
    wave_scope,
)


def taken(place: Permit, running: Sequence[Candidate]) -> int:
    """Units and slots of a group that running machines take."""
    theirs = [other for machine in running for other in machine.permits if other.group == place.group]
    return sum(not other.slot for other in theirs) + len({other.slot for other in theirs if other.slot})


def shares(place: Permit, running: Sequence[Candidate]) -> bool:
    return bool(place.slot) and any(
        (other.group, other.slot) == (place.group, place.slot) for machine in running for other in machine.permits
    )


def may_start(machine: Candidate, running: Sequence[Candidate]) -> bool:
    return all(
        shares(place, running) or not place.capacity or taken(place, running) < place.capacity
        for place in machine.permits
    )


def draw_fleet(random: Random, size: int, waves: int) -> list[Candidate]:
    units = {name: random.randint(1, 4) for name in "abcd"}
    zones = random.choice([1, 1, 2])
    total = random.randint(1, 8)
    made: list[Candidate] = []
    for number in range(size):
        permits = [Permit(name, units[name]) for name in units if random.random() < 0.3]
        if random.random() < 0.5:
            permits.append(Permit("zones", zones, random.choice("123")))
        if random.random() < 0.3:
            permits.append(Permit("domains", 1, random.choice("12")))
        permits.append(Permit(RUN_GROUP, total))
        wave = random.randrange(waves) if waves else 0
        made.append(Candidate(f"m{number}", random.choice("xy"), wave, tuple(permits)))
    return sorted(made, key=lambda machine: machine.wave)


@given(seed=st.integers(0, 10**9), size=st.integers(1, 50), waves=st.sampled_from([0, 4]))
def test_no_group_is_overfull_and_no_machine_waits_that_could_start(seed: int, size: int, waves: int) -> None:
    random = Random(seed)
    fleet = draw_fleet(random, size, waves)
    admission = Admission(wave_barrier=bool(waves))
    admission.add(fleet)
    ended: list[str] = []
    while True:
        started = admission.start()
        running, waiting = admission.running, admission.waiting
        assert {machine.key for machine in running} >= {each.key for each in started}
        if not running:
            break
        lowest = {
            lane: min((each.wave for each in (*running, *waiting) if each.lane == lane), default=0) for lane in "xy"
        }
        for machine in running:
            assert all(not place.capacity or taken(place, running) <= place.capacity for place in machine.permits)
            assert not waves or machine.wave == lowest[machine.lane]
        for machine in waiting:
            is_behind = waves and machine.wave > lowest[machine.lane]
            assert is_behind or not may_start(machine, running), f"{machine.key} waits for nothing"
        assert set(admission.held_by()) == {machine.key for machine in waiting}
        key = random.choice(running).key
        assert admission.end(key).was_running
        ended.append(key)
        if waiting and random.random() < 0.1:
            removed = random.choice(waiting).key
            assert admission.remove(removed)
            ended.append(removed)
    assert sorted(ended) == sorted(machine.key for machine in fleet)


@given(seed=st.integers(0, 10**9), size=st.integers(1, 40))
def test_a_resumed_admission_continues_as_before(seed: int, size: int) -> None:
    """What an orchestration carries into its next execution, running and waiting, is all there is to know."""
    random = Random(seed)
    first = Admission()
    first.add(draw_fleet(random, size, 0))
    first.start()
    for machine in first.running[: size // 3]:
        first.end(machine.key)
    second = Admission(ended=first.ended)
    second.resume(first.running)
    second.add(first.waiting)
    assert [each.key for each in second.start()] == [each.key for each in first.start()]


def test_places_survive_their_text() -> None:
    for place in (Permit("run", 20), Permit("zones:westeurope", 1, "az-2"), Permit("tag:a|b=c|d", 3)):
        assert Permit.parse(place.text) == place


def test_a_slot_is_shared_and_the_next_one_waits_for_it() -> None:
    admission = Admission()
    admission.add(
        Candidate(f"m{zone}{number}", permits=(Permit("zones", 1, zone),)) for zone in "12" for number in "ab"
    )
    assert [each.key for each in admission.start()] == ["m1a", "m1b"]
    admission.end("m1a")
    assert admission.start() == []
    admission.end("m1b")
    assert admission.start() == [("m2a", "zones"), ("m2b", "zones")]


def test_the_ramp_doubles_when_a_step_has_ended() -> None:
    assert [ramp_limit(ended) for ended in range(9)] == [1, 2, 2, 4, 4, 4, 4, 8, 8]
    admission = Admission(ramp=True)
    admission.add(Candidate(f"m{number}", permits=(Permit(RUN_GROUP, 3),)) for number in range(9))
    sizes: list[int] = []
    while started := admission.start():
        sizes.append(len(started))
        for machine in admission.running:
            admission.end(machine.key)
    assert sizes == [1, 2, 3, 3]


@pytest.mark.parametrize("scope", [lane_scope("west"), wave_scope("west", 1), RUN_GROUP, "tag"])
def test_a_scope_that_is_held_starts_nothing_until_it_is_released(scope: str) -> None:
    admission = Admission()
    admission.add([Candidate(key, "west", 1, (Permit("tag", 2),)) for key in "abc"])
    admission.hold(scope, "an error budget")
    assert admission.start() == []
    assert admission.held_by() == dict.fromkeys("abc", scope)
    assert admission.holds == {scope: "an error budget"}
    admission.release(scope)
    assert [each.key for each in admission.start()] == ["a", "b"]
    assert not admission.holds


def test_a_held_lane_does_not_hold_the_others() -> None:
    admission = Admission()
    admission.add([Candidate("a", "west"), Candidate("b", "east")])
    admission.hold(lane_scope("west"), "baking")
    assert [each.key for each in admission.start()] == ["b"]


def test_the_last_of_a_wave_completes_it() -> None:
    admission = Admission(wave_barrier=True)
    admission.add([Candidate("a", "west", 1), Candidate("b", "west", 1), Candidate("c", "west", 2)])
    assert [each.key for each in admission.start()] == ["a", "b"]
    assert admission.end("a").wave_is_over is False
    assert admission.end("b").wave_is_over is True
    assert [each.key for each in admission.start()] == ["c"]
    assert admission.end("b").was_running is False


def test_a_machine_that_does_not_run_ends_nothing() -> None:
    """A completion may be read twice, the second time after the wave has gone on."""
    assert Admission().end("m1") == (False, False)
