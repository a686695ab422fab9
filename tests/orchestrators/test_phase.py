"""patch_phase: it loses no machine, starts none twice, keeps the constraints, and stops on command."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus
from durabletask.history import TimerCreatedEvent

from local.functions_host.durable.workbench import Workbench
from orchestrators import phase_reconciler, phase_starter
from orchestrators.phase import patch_phase
from orchestrators.phase_reconciler import MAX_ATTEMPTS
from patchwave.domain.planning.admission import Permit
from patchwave.domain.policy.gates import ErrorBudget, OnExceeded
from patchwave.domain.runs.run import Mode, Step
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.machine import MachineEnded
from patchwave.domain.workflow.phase import Phase
from patchwave.domain.workflow.run import MachineOptions
from tests.support.phase_children import Floor, Steps, keys, phase
from tests.support.scripted_fleet import RUN_ID, Broken, Fleet, Ring


def two_lanes(count: int) -> Fleet:
    """Machines of two regions, alternating."""
    machines = keys(count)
    return Fleet(machines, rings=[Ring("broad", [{"eastus": machines[::2], "westus": machines[1::2]}])])


# --- the window ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "cap"), [(1, 5), (7, 1), (30, 4), (12, 50)])
def test_every_machine_once_and_never_more_than_the_cap(count: int, cap: int) -> None:
    floor = Floor(Fleet(keys(count), cap=cap))
    with floor.bench() as bench:
        ended = bench.run("patch_phase", phase(floor.fleet))
    assert (ended.output["started"], ended.output["ended"], ended.output["hasRemaining"]) == (count, count, False)
    assert sorted(floor.started) == keys(count)
    assert floor.most <= cap


def test_a_phase_without_machines_ends_at_once() -> None:
    floor = Floor(Fleet([]))
    with floor.bench() as bench:
        assert bench.run("patch_phase", phase(floor.fleet)).output["started"] == 0


def test_the_assess_step_has_no_rule_but_its_own_limit() -> None:
    fleet = Fleet(keys(20), cap=1)
    floor = Floor(fleet)
    assess = Phase(
        run_id=RUN_ID, name="assess", step=Step.ASSESS, options=MachineOptions(mode=Mode.PATCH), max_concurrent=7
    )
    with floor.bench() as bench:
        bench.run("patch_phase", assess.to_wire())
    assert sorted(floor.started) == keys(20)
    assert floor.most == 7


@pytest.mark.parametrize("seed", [1, 2])
def test_executions_lose_no_machine_and_keep_the_history_small(seed: int) -> None:
    floor = Floor(Fleet(keys(90), cap=25), seed=seed)
    with floor.bench() as bench:
        ended = bench.run("patch_phase", phase(floor.fleet), timeout=60)
    assert ended.status is OrchestrationStatus.COMPLETED
    assert ended.output["started"] == 90
    assert sorted(floor.started) == keys(90)
    assert floor.most <= 25
    assert len(ended.history) < 20, "one tick, however long the phase was"


@pytest.mark.parametrize("lanes", [1, 2])
def test_starts_per_tick_are_limited(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = 15
    monkeypatch.setattr(phase_starter, "STARTS_IN_A_LANE", starts)
    count = 2 * starts * lanes + 10
    fleet = two_lanes(count) if lanes == 2 else Fleet(keys(count))
    fleet.cap = count
    floor = Floor(fleet, seconds=lambda _: 600)
    with floor.bench() as bench:
        ended = bench.run("patch_phase", phase(fleet), timeout=120)
    assert ended.output["started"] == count
    first = min(floor.began.values())
    ticks = Counter(round((at - first).total_seconds() / 10) for at in floor.began.values())
    assert [ticks[tick] for tick in range(3)] == [starts * lanes, starts * lanes, 10]


def test_all_pages_of_a_tick_share_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phase_starter, "PAGE", 4)
    monkeypatch.setattr(phase_starter, "STARTS_IN_A_LANE", 6)
    floor = Floor(Fleet(keys(12), cap=12), seconds=lambda _: 600)
    with floor.bench() as bench:
        bench.run("patch_phase", phase(floor.fleet))
    first = min(floor.began.values())
    ticks = Counter(round((at - first).total_seconds() / 10) for at in floor.began.values())
    assert ticks == {0: 6, 1: 6}


def test_a_limit_of_one_start_per_tick_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phase_starter, "STARTS_IN_A_LANE", 1)
    floor = Floor(Fleet(keys(4), cap=4), seconds=lambda _: 600)
    with floor.bench() as bench:
        bench.run("patch_phase", phase(floor.fleet))
        fetched = len(bench.calls_of(contracts.LIST_PENDING_MACHINES.name))
    assert sorted(floor.started) == keys(4)
    assert len(set(floor.began.values())) == 4
    assert fetched <= 5


def test_a_completion_that_is_read_twice_counts_once() -> None:
    floor = Floor(Fleet(keys(20), cap=3), repeats=2)
    with floor.bench() as bench:
        assert bench.run("patch_phase", phase(floor.fleet)).output["ended"] == 20
    assert floor.most <= 3
    assert sorted(floor.started) == keys(20)


def test_the_end_of_an_earlier_start_is_not_taken_for_that_of_a_later_one() -> None:
    """Completions of the last minute are read again, also when the machine was started anew meanwhile."""
    requeued, *others = keys(3)
    floor = Floor(Fleet(keys(3), cap=3), left_once=[requeued], repeats=3, seconds=lambda _: 60)
    with floor.bench() as bench:
        bench.run("patch_phase", phase(floor.fleet))
    assert Counter(floor.started) == Counter([requeued, requeued, *others])


def test_a_lost_completion_is_found_in_the_records() -> None:
    floor = Floor(Fleet(keys(10), cap=2), silent=keys(10)[2:4])
    with floor.bench() as bench:
        assert bench.run("patch_phase", phase(floor.fleet)).output["started"] == 10
        assert bench.calls_of(contracts.RECONCILE_MACHINES.name)
    assert sorted(floor.started) == keys(10)


def test_running_machines_are_reconciled_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phase_reconciler, "RECONCILE_BATCH", 30)
    count = 30 + 15
    floor = Floor(Fleet(keys(count), cap=count), silent=keys(count), seconds=lambda _: 60)
    with floor.bench() as bench:
        bench.run("patch_phase", phase(floor.fleet), timeout=60)
        slices = [len(call["keys"]) for call in bench.calls_of(contracts.RECONCILE_MACHINES.name)]
    assert slices == [30, 15]
    assert len(floor.started) == count


def test_a_hundred_machines_are_reconciled_at_once() -> None:
    floor = Floor(Fleet(keys(110), cap=110), silent=keys(110), seconds=lambda _: 60)
    with floor.bench() as bench:
        bench.run("patch_phase", phase(floor.fleet), timeout=60)
        slices = [len(call["keys"]) for call in bench.calls_of(contracts.RECONCILE_MACHINES.name)]
    assert slices == [100, 10]


def test_a_phase_leaves_no_timer_behind() -> None:
    """A timer that is no longer awaited keeps an instance of Durable Functions running until it fires."""
    with Floor(Fleet([])).bench() as bench:
        ended = bench.run("patch_phase", phase(Fleet([])))
    assert not [event for event in ended.history if isinstance(event, TimerCreatedEvent)]


def test_a_phase_polls_often_while_something_happens_and_seldom_when_nothing_does() -> None:
    fleet = Fleet(keys(2), cap=1)
    floor = Floor(fleet, seconds=lambda _: 1_800)
    with floor.bench() as bench:
        bench.run("patch_phase", phase(fleet))
        polls = len(bench.calls_of(contracts.POLL_PHASE.name))
    assert 2 * 60 <= polls <= 2 * 65, "one in each poll interval"
    assert floor.began[keys(2)[1]] - floor.left[keys(2)[0]] < timedelta(seconds=31)


def test_a_paused_phase_sleeps_long() -> None:
    fleet = Fleet(keys(1))
    fleet.controls = fleet.controls.model_copy(update={"is_paused": True})
    with Floor(fleet).bench() as bench:
        bench.run("patch_phase", phase(fleet, closes_at=datetime.now(UTC) + timedelta(hours=10)))
        assert len(bench.calls_of(contracts.POLL_PHASE.name)) <= 10 * 6 + 10, "a command wakes it"


def test_a_machine_without_an_orchestration_is_started_again() -> None:
    """The completion that requeued it got lost, or its orchestration was ended: no record shows either."""
    gone, *others = keys(4)
    fleet = Fleet(keys(4), cap=2)
    floor = Floor(fleet, silent=[gone], left_once=[gone], seconds=lambda _: 60)

    def still_open(data: Any) -> Any:
        answer = fleet.activities()[contracts.RECONCILE_MACHINES.name](data)
        return answer | {"unlocked": [key for key in answer["keys"] if key not in floor.running]}

    with floor.bench(reconcile_machines=still_open) as bench:
        bench.run("patch_phase", phase(fleet))
    assert Counter(floor.started) == Counter([gone, gone, *others])
    assert timedelta(minutes=30) <= floor.began[gone] - floor.left[others[-1]] < timedelta(minutes=60)


def test_a_machine_that_is_locked_for_long_is_not_started_again() -> None:
    floor = Floor(Fleet(keys(2), cap=2), seconds=lambda _: 2 * 3_600)
    with floor.bench() as bench:
        bench.run("patch_phase", phase(floor.fleet))
    assert sorted(floor.started) == keys(2)


@pytest.mark.parametrize(
    "activity", [contracts.POLL_PHASE.name, contracts.LIST_PENDING_MACHINES.name, contracts.RECONCILE_MACHINES.name]
)
def test_a_phase_outlives_an_outage_of_the_records(activity: str) -> None:
    """Its machines go on meanwhile; without the phase the others would not start, and these would not complete."""
    fleet = Fleet(keys(4), cap=2)
    floor = Floor(fleet, seconds=lambda _: 1_000)
    failures = 0

    def away(data: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures <= 8:
            raise Broken("the storage is away")
        return fleet.activities()[activity](data)

    with floor.bench(**{activity: away}) as bench:
        ended = bench.run("patch_phase", phase(fleet))
    assert ended.status is OrchestrationStatus.COMPLETED
    assert sorted(floor.started) == keys(4)


def test_a_requeued_machine_is_started_a_second_time() -> None:
    floor = Floor(Fleet(keys(6), cap=2), left_once=keys(6)[1:3])
    with floor.bench() as bench:
        bench.run("patch_phase", phase(floor.fleet))
    assert Counter(floor.started) == Counter(keys(6)) + Counter(keys(6)[1:3])
    assert set(floor.fleet.recorded) == set(keys(6))


def test_a_later_pass_uses_no_instance_of_an_earlier_one() -> None:
    machines = keys(6)
    floor = Floor(Fleet(machines, cap=2), left_once=machines[1:3])
    with floor.bench() as bench:
        # Behind a pass in which some machine was at its third attempt.
        end = bench.run("patch_phase", phase(floor.fleet, first_attempt=4, last_attempt=4)).output
    numbered = {(key, attempt) for key in machines for attempt in ((4, 5) if key in machines[1:3] else (4,))}
    wanted = {instance_ids.machine(RUN_ID, Step.PATCH, key, attempt) for key, attempt in numbered}
    assert Counter(floor.instances) == Counter(wanted)
    assert end["lastAttempt"] == 5


def test_a_machine_that_is_requeued_again_and_again_is_left_to_the_next_pass() -> None:
    floor = Floor(Fleet(keys(3), cap=2), always_left=keys(3)[:1], seconds=lambda _: 60)
    with floor.bench() as bench:
        end = bench.run("patch_phase", phase(floor.fleet, first_attempt=3, last_attempt=3)).output
    assert Counter(floor.started)[keys(3)[0]] == MAX_ATTEMPTS
    assert end["hasRemaining"]
    assert set(floor.fleet.recorded) == set(keys(3)[1:])


# --- rules --------------------------------------------------------------------------------------------------


def test_machines_of_one_group_never_run_together_and_others_do_not_wait_for_them() -> None:
    fleet = Fleet(keys(24), cap=24)
    cluster = keys(24)[:6]
    fleet.permits = {key: [Permit("tag:cluster=a", 1)] for key in cluster}
    floor = Floor(fleet, seconds=lambda _: 60)
    with floor.bench() as bench:
        bench.run("patch_phase", phase(fleet))
    assert not any(pair <= set(cluster) for pair in floor.together)
    others = [floor.began[key] for key in keys(24)[6:]]
    assert max(others) - min(others) < timedelta(seconds=60), "they all start at once"


def test_zones_share_a_slot_and_never_mix() -> None:
    fleet = Fleet(keys(30), cap=30)
    zone = {key: str(number % 3 + 1) for number, key in enumerate(keys(30))}
    fleet.permits = {key: [Permit("zones:westeurope", 1, zone[key])] for key in keys(30)}
    floor = Floor(fleet)
    with floor.bench() as bench:
        bench.run("patch_phase", phase(fleet))
    assert all(len({zone[key] for key in pair}) == 1 for pair in floor.together)
    assert floor.most == 10


def test_a_free_machine_is_found_behind_waiting_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of machines that one rule keeps back does not keep back the free machine behind them."""
    monkeypatch.setattr(phase_starter, "MAX_FREE_WAITING", 40)
    machines = keys(40)
    fleet = Fleet(machines, cap=10)
    fleet.permits = {key: [Permit("tag:cluster=a", 1)] for key in machines[:-1]}
    floor = Floor(fleet, seconds=lambda _: 1)
    with floor.bench() as bench:
        bench.run("patch_phase", phase(fleet), timeout=60)
    assert floor.started.index(machines[-1]) <= 1
    assert floor.most == 2


@pytest.mark.parametrize("rule", ["the run", "a cluster"])
def test_no_further_page_is_read_while_enough_machines_wait_for_a_rule(rule: str) -> None:
    machines = keys(600)
    fleet = Fleet(machines, cap=2 if rule == "the run" else 100)
    if rule == "a cluster":
        fleet.permits = {key: [Permit("tag:cluster=a", 1)] for key in machines}
    floor = Floor(fleet, seconds=lambda _: 3_600)
    with floor.bench() as bench:
        end = bench.run("patch_phase", phase(fleet, closes_at=datetime.now(UTC) + timedelta(minutes=8))).output
        pages = bench.calls_of(contracts.LIST_PENDING_MACHINES.name)
    # Machines of one tick begin in any order.
    assert sorted(floor.started) == machines[: 2 if rule == "the run" else 1]
    assert [(page["cursor"], page["limit"], page["step"], page["firstAttempt"]) for page in pages] == [
        (None, 250, "patch", 1)
    ]
    assert (end["started"], end["hasRemaining"]) == (len(floor.started), True)


def test_machines_that_a_gate_holds_hide_no_free_machine_behind_them() -> None:
    machines = keys(310)
    east, west = machines[:300], machines[300:]
    fleet = Fleet(machines, rings=[Ring("broad", [{"eastus": east, "westus": west}])], cap=310)
    fleet.controls = fleet.controls.model_copy(update={"blocked_scopes": ["lane:broad/eastus"]})
    floor = Floor(fleet, seconds=lambda _: 60)
    with floor.bench() as bench:
        end = bench.run("patch_phase", phase(fleet, closes_at=datetime.now(UTC) + timedelta(minutes=8))).output
    assert sorted(floor.started) == west
    assert end["hasRemaining"] is True


def test_a_ramp_doubles() -> None:
    floor = Floor(Fleet(keys(40), cap=8), seconds=lambda _: 600)
    with floor.bench() as bench:
        bench.run("patch_phase", phase(floor.fleet, ramp=True))
    first = min(floor.began.values())
    after = Counter(round((at - first).total_seconds() / 600) for at in floor.began.values())
    assert [after[step] for step in range(4)] == [1, 2, 4, 8]
    assert floor.most == 8


def test_a_requeued_machine_is_no_step_of_a_ramp() -> None:
    floor = Floor(Fleet(keys(8), cap=8), always_left=keys(8)[:1], seconds=lambda _: 60)
    with floor.bench() as bench:
        end = bench.run("patch_phase", phase(floor.fleet, ramp=True)).output
    assert end["ended"] == 7
    assert floor.most == 4, "1, 2, 4 by machines that were patched"


def test_a_wave_waits_for_the_one_before_it_and_for_its_bake_time() -> None:
    fleet = two_lanes(12)
    fleet.cap = 12
    fleet.waves = {key: 1 if number < 6 else 2 for number, key in enumerate(keys(12))}
    floor = Floor(fleet, seconds=lambda key: 100 if key in keys(12)[::2] else 300)
    with floor.bench() as bench:
        bench.run("patch_phase", phase(fleet, wave_bake_seconds=1_000.0))
    for lane in (keys(12)[::2], keys(12)[1::2]):
        over = max(floor.left[key] for key in lane if fleet.waves[key] == 1)
        second = min(floor.began[key] for key in lane if fleet.waves[key] == 2)
        assert timedelta(seconds=1_000) <= second - over < timedelta(seconds=1_030)


# --- gates --------------------------------------------------------------------------------------------------


def test_a_budget_of_a_lane_holds_that_lane_alone_until_it_is_resumed() -> None:
    fleet = two_lanes(40)
    fleet.cap = 4
    east = keys(40)[::2]
    floor = Floor(fleet, failing=east[:3], seconds=lambda _: 60)
    held_at: list[int] = []

    def polled() -> None:
        if fleet.controls.blocked_scopes and len(fleet.recorded) == len(floor.started) and not held_at:
            held_at.append(sum(key in floor.started for key in east))
            fleet.controls = fleet.controls.model_copy(update={"blocked_scopes": [], "resume_count": 1})

    fleet.on_poll = polled
    with floor.bench() as bench:
        end = bench.run("patch_phase", phase(fleet, error_budget=ErrorBudget(lane=2))).output
        gates = bench.calls_of(contracts.TRIP_ERROR_BUDGET.name)
    assert [(gate["scope"], gate["failures"], gate["limit"]) for gate in gates] == [("lane:broad/eastus", 3, 2)]
    assert held_at
    assert held_at[0] < 10, "the lane stopped soon after its third failure"
    assert sorted(floor.started) == keys(40), "resumed, it went on to its end"
    assert end["failures"]["lane:broad/eastus"] == end["forgiven"]["lane:broad/eastus"] == 3


def test_each_gate_that_closes_is_announced_once_also_after_a_resumption() -> None:
    fleet = two_lanes(40)
    fleet.cap = 4
    east, west = keys(40)[::2], keys(40)[1::2]
    floor = Floor(fleet, failing=[*east[:2], *west[:2], *east[-2:]], seconds=lambda _: 60)

    def polled() -> None:
        if len(fleet.controls.blocked_scopes) == 2 and len(fleet.recorded) == len(floor.started):
            fleet.controls = fleet.controls.model_copy(update={"blocked_scopes": [], "resume_count": 1})

    fleet.on_poll = polled
    with floor.bench() as bench:
        bench.run("patch_phase", phase(fleet, error_budget=ErrorBudget(lane=1), announces=True))
    assert {instance.rpartition(":")[2] for instance in floor.notices} == {"1", "2", "1001"}
    assert {instance.rpartition(":")[0] for instance in floor.notices} == {f"{RUN_ID}:notify:gate_closed"}
    facts = {notice["number"]: notice["facts"] for notice in floor.notices.values()}
    assert {facts[number]["scope"] for number in (1, 2)} == {"lane:broad/eastus", "lane:broad/westus"}
    assert facts[1001] == {
        "event": "gate_closed",
        "scope": "lane:broad/eastus",
        "failures": 3,
        "limit": 1,
        "onExceeded": "hold",
        "reason": "",
    }


def test_a_budget_that_ends_the_run_starts_nothing_more_anywhere() -> None:
    fleet = two_lanes(40)
    fleet.cap = 4
    floor = Floor(fleet, failing=keys(40)[::2][:2], seconds=lambda _: 60)
    budget = ErrorBudget(run="4%", on_exceeded=OnExceeded.END)
    with floor.bench() as bench:
        end = bench.run("patch_phase", phase(fleet, error_budget=budget)).output
    assert end["stopReason"] == "The error budget of run is used up."
    assert len(floor.started) < 4 + 4, "the first four end together, and the last of them at the latest stops the rest"
    assert not floor.running


@pytest.mark.parametrize("failures", [0, 2])
def test_a_budget_that_is_not_used_up_stops_nothing(failures: int) -> None:
    fleet = Fleet(keys(20), cap=4)
    floor = Floor(fleet, failing=keys(20)[:failures])
    budget = ErrorBudget(wave=2, lane=2, ring=2, run=2, on_exceeded=OnExceeded.END)
    with floor.bench() as bench:
        end = bench.run("patch_phase", phase(fleet, error_budget=budget)).output
    assert end["started"] == 20
    assert end["failures"].get("run", 0) == failures
    assert not bench.calls_of(contracts.TRIP_ERROR_BUDGET.name)


def test_failures_of_a_wave_count_in_the_next_window_too() -> None:
    machines = keys(6)
    fleet = Fleet(machines, cap=1)
    floor = Floor(fleet, failing=[machines[0], machines[4]], seconds=lambda _: 600)
    budget = ErrorBudget(wave=1, on_exceeded=OnExceeded.END)
    with floor.bench() as bench:
        closes_at = datetime.now(UTC) + timedelta(minutes=25)
        first = bench.run("patch_phase", phase(fleet, error_budget=budget, closes_at=closes_at)).output
        assert (first["hasRemaining"], first["stopReason"], set(floor.started)) == (True, "", set(machines[:3]))
        later = phase(fleet, error_budget=budget, failures=first["failures"], first_attempt=2, last_attempt=2)
        second = bench.run("patch_phase", later).output
    assert second["stopReason"]
    assert set(floor.started) == set(machines[:5])


def test_failures_of_earlier_phases_count_too() -> None:
    fleet = Fleet(keys(20), cap=2)
    floor = Floor(fleet, failing=keys(20)[:1])
    budget = ErrorBudget(run=2, on_exceeded=OnExceeded.END)
    with floor.bench() as bench:
        end = bench.run("patch_phase", phase(fleet, error_budget=budget, failures={"run": 2})).output
    assert end["stopReason"]
    assert len(floor.started) < 20


def test_a_budget_of_a_wave_holds_the_waves_behind_it_and_no_other_lane() -> None:
    fleet = two_lanes(12)
    fleet.cap = 12
    fleet.waves = {key: 1 if number < 6 else 2 for number, key in enumerate(keys(12))}
    east = [key for key in keys(12)[::2] if fleet.waves[key] == 1]
    floor = Floor(fleet, failing=east[-1:], seconds=lambda key: 300 if key == east[-1] else 60)
    held: list[str] = []

    def polled() -> None:
        if fleet.controls.blocked_scopes and len(fleet.recorded) == len(floor.started):
            held.extend(key for key in keys(12) if key not in floor.started)
            fleet.controls = fleet.controls.model_copy(update={"blocked_scopes": [], "resume_count": 1})

    fleet.on_poll = polled
    with floor.bench() as bench:
        bench.run("patch_phase", phase(fleet, error_budget=ErrorBudget(wave=0)))
        gates = bench.calls_of(contracts.TRIP_ERROR_BUDGET.name)
    assert [gate["scope"] for gate in gates] == ["wave:broad/eastus/1"]
    assert held == [key for key in keys(12)[::2] if fleet.waves[key] == 2]
    assert sorted(floor.started) == keys(12), "resumed, it went on to its end"


@pytest.mark.parametrize("scope", ["run", "ring:canary", "ring:all", "lane:all/uksouth", "wave:canary/westeurope/1"])
def test_what_an_earlier_phase_left_held_is_held_here_as_well(scope: str) -> None:
    fleet = Fleet(keys(4))
    fleet.controls = fleet.controls.model_copy(update={"blocked_scopes": [scope]})
    started_at_polls: list[int] = []

    def polled() -> None:
        started_at_polls.append(len(floor.started))
        if len(started_at_polls) == 3:
            fleet.controls = fleet.controls.model_copy(update={"blocked_scopes": [], "resume_count": 1})

    floor = Floor(fleet)
    fleet.on_poll = polled
    with floor.bench() as bench:
        bench.run("patch_phase", phase(fleet))
    assert started_at_polls[:3] == [0, 0, 0]
    assert sorted(floor.started) == keys(4)


# --- stops --------------------------------------------------------------------------------------------------


def test_a_cancel_starts_nothing_more_and_waits_for_what_runs() -> None:
    canceled_at: list[int] = []

    def cancel(key: str) -> None:
        if not canceled_at:
            # From inside the run, so that virtual time cannot pass between the cancel and its delivery.
            floor.fleet.controls = floor.fleet.controls.model_copy(update={"is_canceled": True})
            bench.client.raise_orchestration_event("phase", Signal.CANCEL)
            time.sleep(0.3)
            canceled_at.append(len(floor.started))

    floor = Floor(Fleet(keys(60), cap=4), on_leave=cancel)
    with floor.bench() as bench:
        ended = bench.run("patch_phase", phase(floor.fleet), instance_id="phase")
    assert canceled_at == [4]
    assert len(floor.started) == 4
    assert (ended.output["started"], ended.output["hasRemaining"]) == (4, True)
    assert not floor.running


def test_a_phase_that_is_woken_cancels_its_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    was_open: list[bool] = []
    cancel_timer = task.TimerTask.cancel

    def note(timer: task.TimerTask) -> bool:
        was_open.append(cancel_timer(timer))
        return was_open[-1]

    def wake(_: str) -> None:
        bench.client.raise_orchestration_event("phase", Signal.CONTROL)
        time.sleep(0.3)

    monkeypatch.setattr(task.TimerTask, "cancel", note)
    floor = Floor(Fleet(keys(1)), on_leave=wake)
    with floor.bench() as bench:
        bench.run("patch_phase", phase(floor.fleet), instance_id="phase")
    assert any(was_open)


def test_a_cancel_is_passed_on_to_every_running_machine_some_on_each_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine may wait an hour for its health to settle; the wait ends with the cancel."""
    monkeypatch.setattr(phase_starter, "MAX_CANCELS_PER_TICK", 2)
    fleet = Fleet(keys(7), cap=7)
    began: list[str] = []
    canceled_after: dict[str, timedelta] = {}

    def patch_machine(context: task.OrchestrationContext, data: Any) -> Steps:
        cancel = context.wait_for_external_event(Signal.CANCEL)
        begun_at = context.current_utc_datetime
        yield context.call_activity("begin", input=data["machineKey"])
        timer = context.create_timer(timedelta(hours=10))
        yield task.when_any([timer, cancel])
        if cancel.is_complete:
            timer.cancel()
        ended = MachineEnded(key=data["machineKey"], attempt=data["attempt"])
        took = (context.current_utc_datetime - begun_at).total_seconds()
        yield context.call_activity("end", input=[data["phase"], ended.to_wire(), took])

    def begin(key: str) -> None:
        began.append(key)
        if len(began) == 7:
            fleet.controls = fleet.controls.model_copy(update={"is_canceled": True})
            bench.client.raise_orchestration_event("phase", Signal.CANCEL)
            time.sleep(0.3)

    def end(data: list[Any]) -> None:
        fleet.tell(data[0], MachineEnded.model_validate(data[1]))
        canceled_after[data[1]["key"]] = timedelta(seconds=data[2])

    orchestrators = {"patch_phase": patch_phase, "patch_machine": patch_machine}
    with Workbench(orchestrators, fleet.activities() | {"begin": begin, "end": end}) as bench:
        bench.run("patch_phase", phase(fleet), instance_id="phase")
    assert sorted(canceled_after) == keys(7)
    assert max(canceled_after.values()) < timedelta(minutes=5)


def test_a_pause_starts_nothing_until_it_is_resumed() -> None:
    fleet = Fleet(keys(12), cap=2)
    paused_at: list[int] = []

    def control(**controls: Any) -> None:
        fleet.controls = fleet.controls.model_copy(update=controls)
        bench.client.raise_orchestration_event("phase", Signal.CONTROL)
        time.sleep(0.3)

    def pause(key: str) -> None:
        if not paused_at:
            paused_at.append(len(floor.started))
            control(is_paused=True)

    started_while_paused: list[int] = []

    def polled() -> None:
        if not fleet.controls.is_paused:
            return
        started_while_paused.append(len(floor.started))
        if len(started_while_paused) >= 3 and not floor.running:
            fleet.controls = fleet.controls.model_copy(update={"is_paused": False, "resume_count": 1})

    floor = Floor(fleet, on_leave=pause)
    fleet.on_poll = polled
    with floor.bench() as bench:
        bench.run("patch_phase", phase(fleet), instance_id="phase")
    assert len(started_while_paused) >= 3
    assert set(started_while_paused) == set(paused_at)
    assert sorted(floor.started) == keys(12)


def test_a_requeued_machine_reveals_a_pause_whose_event_was_lost() -> None:
    fleet = Fleet(keys(4), cap=1)
    floor = Floor(fleet, left_once=keys(4)[:1])
    starts_while_paused: list[int] = []

    def leave(data: Any) -> bool:
        is_left = floor.leave(data)
        if is_left:
            fleet.controls = fleet.controls.model_copy(update={"is_paused": True})
        return is_left

    def polled() -> None:
        if fleet.controls.is_paused:
            starts_while_paused.append(len(floor.started))
        if len(starts_while_paused) == 3:
            fleet.controls = fleet.controls.model_copy(update={"is_paused": False, "resume_count": 1})

    fleet.on_poll = polled
    with floor.bench(leave=leave) as bench:
        bench.run("patch_phase", phase(fleet))
    assert starts_while_paused == [1, 1, 1]
    assert Counter(floor.started) == Counter(keys(4)) + Counter(keys(4)[:1])


def test_nothing_starts_after_the_cutoff_and_the_rest_is_left() -> None:
    fleet = Fleet(keys(30), cap=2)
    floor = Floor(fleet, seconds=lambda _: 600)
    with floor.bench() as bench:
        closes_at = datetime.now(UTC) + timedelta(minutes=35)
        ended = bench.run("patch_phase", phase(fleet, closes_at=closes_at))
    assert ended.output["hasRemaining"] is True
    assert 4 <= len(floor.started) <= 8
    assert max(floor.began.values()).replace(tzinfo=UTC) <= closes_at
    assert not floor.running


def test_a_window_that_closes_without_machines_leaves_none() -> None:
    """Such as before the restarts of a ring in which no machine needs one: no further window is waited for."""
    fleet = Fleet(keys(3))
    fleet.recorded = {key: [{}] for key in keys(3)}
    with Floor(fleet).bench() as bench:
        ended = bench.run("patch_phase", phase(fleet, closes_at=datetime.now(UTC) - timedelta(hours=1)))
    assert (ended.output["started"], ended.output["hasRemaining"]) == (0, False)


def test_a_paused_phase_ends_with_its_window() -> None:
    fleet = Fleet(keys(3))
    fleet.controls = fleet.controls.model_copy(update={"is_paused": True})
    floor = Floor(fleet)
    with floor.bench() as bench:
        closes_at = datetime.now(UTC) + timedelta(hours=3)
        ended = bench.run("patch_phase", phase(fleet, closes_at=closes_at))
    assert (ended.output["started"], ended.output["hasRemaining"]) == (0, True)
