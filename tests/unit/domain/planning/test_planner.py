"""The planner: no plan breaks a rule, whatever the fleet; and what it says of single machines."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.core.outcome import Reason
from patchwave.domain.planning.critical_path import Job
from patchwave.domain.planning.plan import Plan
from patchwave.domain.planning.planner import PlanResult, expected_seconds, make_plan
from patchwave.domain.planning.timeline import draw_timeline
from patchwave.domain.planning.topology import PlannerMachine, Topology
from patchwave.domain.policy.gates import wave_barrier_enabled
from patchwave.domain.policy.policy import Policy
from tests.support.fleet_strategies import (
    SUBSCRIPTIONS,
    fleets,
    machine_id,
    make_machine,
    make_policy,
    policies,
    set_id,
    topologies,
)
from tests.support.plan_invariants import Interval, broken_rules

# A busy machine is no failure.
MANY = settings(deadline=None)
FEWER = settings(max_examples=40, deadline=None)
PAIRS = Topology.of([("westeurope", "northeurope"), ("northeurope", "westeurope")])


def intervals(result: PlanResult) -> list[Interval]:
    return [Interval(each.key, each.predicted_start, each.predicted_end) for each in result.placements]


def why(machines: list[PlannerMachine], topology: Topology = PAIRS, **policy: Any) -> dict[str, str]:
    """The reasons of a plan by name of the machine."""
    names = {machine.key: machine.name for machine in machines}
    return {names[each.key]: each.reason for each in make_plan(machines, make_policy(**policy), topology).placements}


@MANY
@given(machines=fleets(), policy=policies(), topology=topologies())
def test_no_plan_breaks_a_rule(machines: list[PlannerMachine], policy: Policy, topology: Topology) -> None:
    result = make_plan(machines, policy, topology)
    assert broken_rules(intervals(result), machines, policy, topology) == []


@MANY
@given(machines=fleets(), policy=policies(), topology=topologies(), seed=st.integers(0, 1000))
def test_no_run_of_a_plan_breaks_a_rule_however_long_its_machines_take(
    machines: list[PlannerMachine], policy: Policy, topology: Topology, seed: int
) -> None:
    """The stored order and permits, phase after phase, with other durations than predicted."""
    random = Random(seed)
    at, ended = 0.0, Counter[int]()
    observed: list[Interval] = []
    placements = make_plan(machines, policy, topology).placements
    for (ring, _), members in groupby(placements, key=lambda each: (each.ring, each.phase)):
        phase = list(members)
        slices = draw_timeline(
            [Job(each.key, each.lane, random.choice([1.0, 60.0, 61.5, 9000.0]), each.permits) for each in phase],
            {each.key: each.wave for each in phase},
            at=at,
            ramp=policy.ramp,
            ended=ended[ring],
            wave_barrier=wave_barrier_enabled(policy.error_budget, policy.bake.waves),
        )
        ended[ring] += len(phase)
        observed += [Interval(key, each.start, each.end) for key, each in slices.items()]
        at = max(each.end for each in observed)
    assert len(observed) == len(placements)
    assert broken_rules(observed, machines, policy, topology) == []


@FEWER
@given(machines=fleets(), policy=policies(), topology=topologies())
def test_every_machine_is_placed_or_left_out_once(
    machines: list[PlannerMachine], policy: Policy, topology: Topology
) -> None:
    ended = {machine.key: (Reason.NOT_FOUND, "Gone.") for machine in machines[::5]}
    result = make_plan(machines, policy, topology, ended)
    placed = [each.key for each in result.placements]
    assert Counter([*placed, *result.excluded]) == Counter(machine.key for machine in machines)
    assert ended.keys() <= result.excluded.keys()
    assert all(each.reason and each.detail for each in result.excluded.values())
    ids = {machine.key: machine.id for machine in machines}
    assert [each.id for each in result.plan.machines] == [ids[key] for key in placed]
    assert {each.id for each in result.plan.excluded} == {ids[key] for key in result.excluded}


@FEWER
@given(machines=fleets(), policy=policies(), topology=topologies(), seed=st.integers(0, 1000))
def test_the_order_of_the_machines_does_not_matter(
    machines: list[PlannerMachine], policy: Policy, topology: Topology, seed: int
) -> None:
    shuffled = list(machines)
    Random(seed).shuffle(shuffled)
    assert make_plan(shuffled, policy, topology) == make_plan(machines, policy, topology)


@MANY
@given(machines=fleets(), policy=policies(), topology=topologies())
def test_phases_never_hold_a_pair_and_waves_could_run_at_once(
    machines: list[PlannerMachine], policy: Policy, topology: Topology
) -> None:
    result = make_plan(machines, policy, topology)
    for ring in result.plan.rings:
        for phase in ring.phases:
            assert not any((one, other) in topology.pairs for one in phase for other in phase)
    waves: dict[tuple[int, str], dict[int, list[str]]] = {}
    for each in result.placements:
        assert each.lane in result.plan.rings[each.ring].phases[each.phase - 1]
        waves.setdefault((each.ring, each.lane), {}).setdefault(each.wave, []).append(each.key)
    without_ramp = policy.model_copy(update={"ramp": False})
    for lane in waves.values():
        assert sorted(lane) == list(range(1, len(lane) + 1))
        for keys in lane.values():
            at_once = [(key, 0.0, 1.0) for key in keys]
            assert broken_rules(at_once, machines, without_ramp, topology) == []
    for each in result.placements:
        assert each.wave_size == len(waves[each.ring, each.lane][each.wave])


@FEWER
@given(machines=fleets(), policy=policies(), topology=topologies())
def test_no_plan_is_shorter_than_its_lower_bound(
    machines: list[PlannerMachine], policy: Policy, topology: Topology
) -> None:
    makespan = make_plan(machines, policy, topology).plan.makespan
    assert makespan.predicted_seconds >= makespan.lower_bound_seconds - 1e-6


@FEWER
@given(machines=fleets(), policy=policies(), topology=topologies())
def test_plans_are_documents_in_order_of_time(
    machines: list[PlannerMachine], policy: Policy, topology: Topology
) -> None:
    result = make_plan(machines, policy, topology)
    assert Plan.model_validate(result.plan.to_wire()) == result.plan
    order = [(each.ring, each.phase, each.predicted_start, each.key) for each in result.placements]
    assert order == sorted(order)
    assert result.plan.makespan.predicted_seconds == max((each.predicted_end for each in result.placements), default=0)


def test_an_empty_fleet_has_a_plan() -> None:
    result = make_plan([], make_policy(rings=[{"name": "canary", "percent": 5}, {"name": "rest"}]), PAIRS)
    assert (result.placements, result.excluded) == ([], {})
    assert result.plan.makespan.predicted_seconds == result.plan.makespan.lower_bound_seconds == 0
    assert [(ring.name, ring.machines, ring.phases) for ring in result.plan.rings] == [
        ("canary", 0, []),
        ("rest", 0, []),
    ]
    assert result.plan.notes[0] == "Ring canary has nothing to do: it selects no machine, or all of them are left out."


def test_a_limit_of_a_missing_tag_is_noted() -> None:
    machines = [make_machine(number, tags={"Cluster": "sql", "app": ""}) for number in range(3)]
    limits = {"tags": [{"tag": "app", "maxConcurrent": 1}, {"tag": "tier", "maxConcurrent": 1}]}
    assert make_plan(machines, make_policy(mutuallyExclusiveTag="cluster", limits=limits), PAIRS).plan.notes == [
        "No machine has the tag tier, so its limit has no effect."
    ]
    notes = make_plan(machines, make_policy(mutuallyExclusiveTag="clutser"), PAIRS).plan.notes
    assert notes == ["No machine has the tag clutser, so its limit has no effect."]
    assert make_plan(machines, make_policy(mode="assess"), PAIRS).plan.notes == [
        "The policy only assesses (mode: assess): its runs follow no plan, and install nothing."
    ]
    assert make_plan([], make_policy(mutuallyExclusiveTag="clutser"), PAIRS).plan.notes[1:] == []


@pytest.mark.parametrize(("goes_on", "rest"), [(True, "goes on in the next one"), (False, "is skipped")])
def test_a_plan_longer_than_the_window_has_a_note(goes_on: bool, rest: str) -> None:
    machines = [make_machine(number, predicted_seconds=3_600.0) for number in range(3)]
    schedule = {"recurrence": "last Friday", "time": "22:00", "timeZone": "UTC", "continueInNextWindow": goes_on}
    short, enough = (
        make_plan(machines, make_policy(maxConcurrent=1, schedule=schedule | {"window": window}), PAIRS).plan.notes
        for window in ("PT2H30M", "PT3H")
    )
    assert short == [f"The window of the schedule, PT2H30M, is shorter than the plan: what does not fit {rest}."]
    assert enough == []


def test_each_exclusion_has_its_reason() -> None:
    machines = [
        make_machine(0, pending=0),
        make_machine(1, power_state="PowerState/deallocated"),
        make_machine(2, tags={"Patchwave-Hold": "until Friday"}),
        make_machine(3, tags={"ring": "other"}),
        make_machine(4, tags={"ring": "canary"}),
        make_machine(5, tags={"ring": "canary"}),
    ]
    rings = [{"name": "canary", "tags": {"values": {"ring": ["canary"]}}}]
    ended = {machines[5].key: ("locked_by_run", "Another run works on it.")}
    tagged = [machines[0], machines[1], machines[2]]
    policy = make_policy(rings=rings)
    result = make_plan(machines, policy, PAIRS, ended)
    assert {each.reason for each in result.plan.excluded} == {"no_ring", "hold_tag", "locked_by_run"}
    assert [each.key for each in result.placements] == [machines[4].key]
    reasons = {each.id: each for each in make_plan(tagged, make_policy(), PAIRS).plan.excluded}
    assert reasons[machine_id(0)].reason == "no_pending_patches"
    assert reasons[machine_id(1)].detail.startswith("The machine is deallocated; start it")
    assert reasons[machine_id(2)].detail == "The tag patchwave-hold holds this machine: until Friday"
    started = make_plan(tagged, make_policy(startStopped=True), PAIRS)
    assert [each.key for each in started.placements] == [machines[1].key]


@pytest.mark.parametrize(
    ("state", "left_out"),
    [
        ("PowerState/stopped", "The machine is stopped; start it, or set startStopped in the policy."),
        ("PowerState/Stopping", "The machine is stopping; start it, or set startStopped in the policy."),
        ("deallocated", "The machine is deallocated; start it, or set startStopped in the policy."),
        ("PowerState/deallocating", "The machine is deallocating; start it, or set startStopped in the policy."),
        ("PowerState/running", ""),
        ("PowerState/starting", ""),
        ("PowerState/unknown", ""),
        ("", ""),
    ],
)
def test_a_machine_that_is_off_is_left_out_and_one_that_may_run_is_planned(state: str, left_out: str) -> None:
    result = make_plan([make_machine(0, power_state=state)], make_policy(), PAIRS)
    said = [(each.reason, each.detail) for each in result.excluded.values()]
    assert said == ([("not_running", left_out)] if left_out else [])
    assert len(result.placements) == (0 if left_out else 1)
    started = make_plan([make_machine(0, power_state=state)], make_policy(startStopped=True), PAIRS)
    assert len(started.placements) == 1


def test_one_patch_is_work_and_none_is_not() -> None:
    machines = [make_machine(number, pending=pending) for number, pending in enumerate([None, 0, 1])]
    result = make_plan(machines, make_policy(), PAIRS)
    assert [each.key for each in result.placements] == [machines[0].key, machines[2].key]
    assert result.excluded[machines[1].key].detail == "The latest assessment found no patch to install."


def test_a_plan_has_ring_phase_and_time_of_each_machine() -> None:
    """Every field of a placement, of two rings with a bake time, two phases and two waves."""
    machines = [
        make_machine(0, tags={"ring": "canary"}, predicted_seconds=600.0),
        make_machine(1, predicted_seconds=1200.0),
        make_machine(2, predicted_seconds=900.0),
        make_machine(3, location="northeurope", predicted_seconds=300.0),
    ]
    rings = [{"name": "canary", "tags": {"values": {"ring": ["canary"]}}, "bake": "PT30M"}, {"name": "broad"}]
    result = make_plan(machines, make_policy(rings=rings, maxConcurrent=1), PAIRS)
    names = {machine.key: machine.name for machine in machines}
    placed = [
        (names[e.key], e.ring, e.ring_name, e.phase, e.lane, e.wave, e.wave_size, e.predicted_start, e.predicted_end)
        for e in result.placements
    ]
    assert placed == [
        ("vm0", 0, "canary", 1, "westeurope", 1, 1, 0.0, 600.0),
        ("vm3", 1, "broad", 1, "northeurope", 1, 1, 2400.0, 2700.0),
        ("vm1", 1, "broad", 2, "westeurope", 1, 1, 2700.0, 3900.0),
        ("vm2", 1, "broad", 2, "westeurope", 2, 1, 3900.0, 4800.0),
    ]
    shown = [(e.ring, e.phase, e.lane, e.wave, e.predicted_start, e.predicted_end) for e in result.plan.machines]
    assert shown == [(p[2], p[3], p[4], p[5], p[7], p[8]) for p in placed]
    assert [(ring.name, ring.machines, ring.phases, ring.approval) for ring in result.plan.rings] == [
        ("canary", 1, [["westeurope"]], False),
        ("broad", 3, [["northeurope"], ["westeurope"]], False),
    ]
    assert [each.groups for each in result.plan.machines] == [["run"]] * 4
    assert (result.plan.makespan.predicted_seconds, result.plan.makespan.lower_bound_seconds) == (4800.0, 4800.0)
    assert result.plan.machines[2].placement_reasons[-1] == "phase 2: westeurope is paired with northeurope"


def test_a_ring_that_waits_for_an_approval_is_marked() -> None:
    machines = [make_machine(0, tags={"ring": "canary"}), make_machine(1)]
    rings = [
        {"name": "canary", "tags": {"values": {"ring": ["canary"]}}, "bake": "PT30M"},
        {"name": "broad", "approval": {"within": "PT4H"}, "bake": "PT8H"},
    ]
    plan = make_plan(machines, make_policy(rings=rings), Topology()).plan
    assert [(ring.name, ring.approval) for ring in plan.rings] == [("canary", False), ("broad", True)]
    assert plan.notes == ["Ring broad waits for an approval; the times take it as given at once."]
    assert (plan.makespan.predicted_seconds, plan.makespan.lower_bound_seconds) == (4200.0, 4200.0)
    empty = make_plan(machines[:1], make_policy(rings=rings), Topology()).plan
    assert empty.notes == ["Ring broad has nothing to do: it selects no machine, or all of them are left out."]


def test_zones_and_rings_in_words() -> None:
    machines = [make_machine(0, zones=("1",), tags={"ring": "canary"})]
    machines += [make_machine(number, zones=(str(number),)) for number in (1, 2, 3)]
    rings = [{"name": "canary", "tags": {"values": {"ring": ["canary"]}}}, {"name": "broad"}]
    assert why(machines, rings=rings) == {
        "vm0": "ring canary by tag ring=canary; zone 1",
        "vm1": "ring broad takes the rest; zone 1",
        "vm2": "ring broad takes the rest; zone 2 after zone 1",
        "vm3": "ring broad takes the rest; zone 3 after zone 2",
    }


def test_zones_of_two_subscriptions_are_compared_by_building() -> None:
    machines = [make_machine(number, SUBSCRIPTIONS[number % 2], zones=("1",)) for number in range(4)]
    known = {(SUBSCRIPTIONS[0], "westeurope", "1"): "we-az1", (SUBSCRIPTIONS[1], "westeurope", "1"): "we-az2"}
    starts = {each.predicted_start for each in make_plan(machines, make_policy(), Topology.of(zones=known)).placements}
    assert starts == {0.0, 1200.0}
    assert why(machines, Topology.of(zones=known))["vm1"] == "physical zone we-az2 after physical zone we-az1"
    one_building = dict.fromkeys(known, "we-az1")
    result = make_plan(machines, make_policy(), Topology.of(zones=one_building))
    assert {each.predicted_start for each in result.placements} == {0.0}
    assert why(machines, Topology())["vm1"] == (
        f"zone 1 of subscription {SUBSCRIPTIONS[1]} after zone 1 of subscription {SUBSCRIPTIONS[0]}"
    )
    mixed = make_plan(machines, make_policy(separateZones=False), Topology())
    assert {each.predicted_start for each in mixed.placements} == {0.0}


def test_availability_sets_in_words() -> None:
    large = [
        make_machine(number, availability_set=set_id("av-sql"), update_domain=str(number % 2)) for number in range(10)
    ]
    small = [make_machine(20 + n, availability_set=set_id("av-web"), update_domain=str(n)) for n in range(3)]
    unknown = [make_machine(30 + n, availability_set=set_id("av-old")) for n in range(2)]
    said = why([*large, *small, *unknown])
    assert said["vm0"] == "update domain 0 of av-sql; 20 % of av-sql is 2 at a time"
    assert said["vm1"] == "update domain 1 of av-sql after update domain 0; 20 % of av-sql is 2 at a time"
    assert said["vm22"] == "update domain 2 of av-web after update domain 1; av-web has 3 machines: one at a time"
    assert said["vm30"] == "an update domain of av-old is not known: one at a time"


def test_limits_pairs_and_clusters_in_words() -> None:
    machines = [make_machine(number, tags={"cluster": "SQL1", "app": "web"}) for number in range(3)]
    machines.append(make_machine(9, location="North Europe"))
    said = why(
        machines, mutuallyExclusiveTag="cluster", limits={"region": 2, "tags": [{"tag": "app", "maxConcurrent": 2}]}
    )
    assert said["vm0"] == (
        "phase 2: westeurope is paired with northeurope; cluster=sql1 goes one at a time; app=web: 2 at a time;"
        " westeurope takes 2 at a time"
    )
    assert said["vm9"] == ""
    waiting = why([make_machine(number) for number in range(3)], maxConcurrent=2)
    assert sorted(waiting.values()) == ["", "", "the run takes 2 at a time"]


def test_bake_times_and_barriers_are_part_of_the_timeline() -> None:
    machines = [make_machine(number) for number in range(4)]
    rings = [{"name": "canary", "machineIds": [machine_id(0)]}, {"name": "none", "percent": 1}, {"name": "rest"}]
    policy = make_policy(rings=rings[::2], maxConcurrent=2, bake={"waves": "PT10M", "rings": "PT1H"})
    result = make_plan(machines, policy, PAIRS)
    assert [(each.ring_name, each.wave, each.predicted_start) for each in result.placements] == [
        ("canary", 1, 0.0),
        ("rest", 1, 1200.0 + 3600),
        ("rest", 1, 1200.0 + 3600),
        ("rest", 2, 1200.0 + 3600 + 1200 + 600),
    ]
    assert result.plan.makespan.lower_bound_seconds == result.plan.makespan.predicted_seconds


def test_a_machine_without_history_takes_what_its_system_takes() -> None:
    policy = make_policy(install={"maximumDuration": "PT30M"})
    assert expected_seconds(make_machine(0), policy) == 1200
    assert expected_seconds(make_machine(0, os_type="Windows"), policy) == 1800
    assert expected_seconds(make_machine(0, predicted_seconds=7200.4), policy) == 7200
    long = make_policy(install={"maximumDuration": "PT4H"})
    assert expected_seconds(make_machine(0, os_type="WINDOWS"), long) == 2400
    assert expected_seconds(make_machine(0, os_type="linux"), long) == 1200
    assert expected_seconds(make_machine(0, os_type=""), long) == 2400
    assert expected_seconds(make_machine(0, predicted_seconds=0.2), long) == 1
    assert expected_seconds(make_machine(0, predicted_seconds=20_000.0), policy) == 20_000
    assert expected_seconds(make_machine(0, predicted_seconds=-5.0), policy) == 1200
    assert expected_seconds(make_machine(0, predicted_seconds=0.0), policy) == 1200


@FEWER
@given(seed=st.integers(0, 10**6), size=st.integers(40, 300), percent=st.integers(1, 60))
def test_ring_percentages_are_kept_and_stay_when_a_machine_is_added(seed: int, size: int, percent: int) -> None:
    random = Random(seed)
    machines = [
        make_machine(number, location=random.choice(["westeurope", "eastus"]), image=random.choice("abc"))
        for number in range(size)
    ]
    policy = make_policy(rings=[{"name": "first", "percent": percent}, {"name": "rest"}])

    def first(fleet: list[PlannerMachine]) -> set[str]:
        return {each.key for each in make_plan(fleet, policy, PAIRS).placements if each.ring == 0}

    before = first(machines[1:])
    assert abs(len(before) - (size - 1) * percent / 100) <= 1
    assert len(first(machines) ^ before) <= 3
