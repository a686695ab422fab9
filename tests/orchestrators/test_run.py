"""patch_run: assess, plan, ring by ring; closed in every case, with one outcome per machine."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus

from local.functions_host.durable.workbench import Workbench, WorkflowResult
from orchestrators.machine import patch_machine
from orchestrators.operation import await_operation
from orchestrators.phase import patch_phase
from orchestrators.run import close_orphaned_run, patch_run
from patchwave.domain.policy.gates import ErrorBudget, OnExceeded
from patchwave.domain.runs.run import Mode
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.operation import StartResult
from patchwave.domain.workflow.run import Cutoff, DiscoveryPage, GroupsReserved, MachineOptions, NextWindow, RunRef
from tests.support import scripted_fleet
from tests.support.scripted_fleet import RUN_ID, Fleet, Ring, Script

INPUT = RunRef(run_id=RUN_ID).to_wire()


def keys(count: int) -> list[str]:
    return [f"{number:024x}" for number in range(count)]


def run(fleet: Fleet, **replaced: Callable[[Any], Any]) -> dict[str, Any]:
    with fleet.bench(**replaced) as bench:
        ended = bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    assert ended.status is OrchestrationStatus.COMPLETED, ended.failure
    assert fleet.order.index(contracts.CLOSE_OPEN_MACHINES.name) < fleet.order.index(contracts.CLOSE_RUN.name)
    assert len(fleet.closed) == 1
    assert set(fleet.recorded) == set(fleet.keys)
    return fleet.closed[0]


def test_a_fleet_is_assessed_and_then_patched() -> None:
    fleet = Fleet(keys(12), {keys(12)[3]: Script(assess_polls=[scripted_fleet.CLEAN])})
    assert run(fleet)["state"] == "completed"
    outcomes = fleet.outcomes
    assert outcomes.pop(keys(12)[3]) == ("nothing_to_install", "no_pending_patches")
    assert set(outcomes.values()) == {("patched", "ok")}
    assert all(fleet.accepted[key, "assess"] == 1 for key in fleet.keys)
    assert sum(fleet.accepted[key, "install"] for key in fleet.keys) == 11
    assert fleet.order.index(contracts.INSTALL_PATCHES.name) > max(
        index for index, name in enumerate(fleet.order) if name == contracts.ASSESS_MACHINE.name
    ), "every machine is assessed before the first installation"


def test_an_assess_run_installs_nothing() -> None:
    fleet = Fleet(keys(5), mode=Mode.ASSESS)
    run(fleet)
    assert set(fleet.outcomes.values()) == {("assessed", "patches_pending")}
    assert contracts.INSTALL_PATCHES.name not in fleet.order


def test_discovery_reads_page_by_page_and_waits_for_retry_after() -> None:
    fleet = Fleet(keys(3))
    fleet.discoveries = [
        DiscoveryPage(machines=1, cursor="2"),
        DiscoveryPage(machines=1, wait_seconds=5, failure="throttled"),
        DiscoveryPage(machines=2, cursor="3", wait_seconds=5),
        DiscoveryPage(machines=3),
    ]
    with fleet.bench() as bench:
        bench.run("patch_run", INPUT, timeout=60)
        asked = bench.calls_of(contracts.DISCOVER_MACHINES.name)
    assert [(call["cursor"], call["attempt"]) for call in asked] == [("", 0), ("2", 0), ("2", 1), ("3", 0)]
    assert len(fleet.outcomes) == 3


@pytest.mark.parametrize(("wait", "asked"), [(5.0, 6), (0.0, 1)])
def test_a_discovery_that_fails_ends_the_run_with_the_reason(wait: float, asked: int) -> None:
    fleet = Fleet([])
    fleet.discoveries = [DiscoveryPage(wait_seconds=wait, failure="The machines could not be listed.")]
    closed = run(fleet)
    assert (closed["state"], closed["reason"]) == ("failed", "The machines could not be listed.")
    assert fleet.order.count(contracts.DISCOVER_MACHINES.name) == asked


THROTTLED = DiscoveryPage(
    wait_seconds=240, failure="The machines could not be listed. Azure throttles.", counts_as_attempt=False
)


def test_being_throttled_is_no_failure_of_the_discovery() -> None:
    fleet = Fleet(keys(2))
    fleet.discoveries = [*[THROTTLED] * 20, DiscoveryPage(machines=2)]
    asked_at: list[datetime] = []

    def discover(_: Any) -> Any:
        asked_at.append(bench.now())
        return (fleet.discoveries.pop(0) if len(fleet.discoveries) > 1 else fleet.discoveries[0]).to_wire()

    with fleet.bench(**{contracts.DISCOVER_MACHINES.name: discover}) as bench:
        bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
        asked = [call["attempt"] for call in bench.calls_of(contracts.DISCOVER_MACHINES.name)]
    assert fleet.closed[0]["state"] == "completed"
    assert asked == list(range(21)), "so that the pauses grow"
    pauses = [(later - at).total_seconds() for at, later in itertools.pairwise(asked_at)]
    assert all(240 <= pause < 250 for pause in pauses)
    shown = [(call["state"], call["waitingFor"]) for call in fleet.calls_of(contracts.SET_RUN_STATE.name)]
    assert shown == [
        ("running", "the list of machines. The machines could not be listed. Azure throttles."),
        ("running", ""),
    ]
    assert set(fleet.outcomes.values()) == {("patched", "ok")}


def test_failures_count_beside_throttling_and_a_page_resets_them() -> None:
    fleet = Fleet([])
    failing = DiscoveryPage(wait_seconds=5, failure="The machines could not be listed.")
    page = DiscoveryPage(machines=0, cursor="2")
    fleet.discoveries = [*[failing, THROTTLED] * 5, page, *[failing] * 6]
    closed = run(fleet)
    assert (closed["state"], closed["reason"]) == ("failed", "The machines could not be listed.")
    assert fleet.order.count(contracts.DISCOVER_MACHINES.name) == 10 + 1 + 6


@pytest.mark.parametrize("hours", [3, None], ids=["a window", "no window"])
def test_throttling_lasts_as_long_as_the_window_or_a_day(hours: int | None) -> None:
    fleet = Fleet([])
    fleet.discoveries = [THROTTLED.model_copy(update={"wait_seconds": 1_500})]
    if hours:
        fleet.cutoffs = [Cutoff(at=datetime.now(UTC) + timedelta(hours=hours))]
    with fleet.bench() as bench:
        ended = bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    assert (
        timedelta(hours=(hours or 24)) - timedelta(minutes=26) < took(ended) <= timedelta(hours=hours or 24, minutes=1)
    )
    assert fleet.closed[0]["state"] == "failed"
    assert fleet.closed[0]["reason"] == (
        "The machines could not be listed. Azure throttles. Azure accepts no request before the run's time is over."
    )


@pytest.mark.parametrize("page", [THROTTLED, DiscoveryPage(machines=1, cursor="2", wait_seconds=240)])
def test_a_cancel_ends_a_wait_of_the_discovery_at_once(page: DiscoveryPage) -> None:
    fleet = Fleet(keys(2))
    page = page.model_copy(update={"wait_seconds": 3_000})
    awaited = contracts.SET_RUN_STATE.name if page.failure else contracts.DISCOVER_MACHINES.name

    def cancel(_: Any) -> Any:
        bench.client.raise_orchestration_event(RUN_ID, Signal.CANCEL)
        time.sleep(0.3)
        return {} if page.failure else page.to_wire()

    fleet.discoveries = [page]
    with fleet.bench(**{awaited: cancel}) as bench:
        ended = bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    assert fleet.closed[0]["state"] == "canceled"
    assert took(ended) < timedelta(minutes=5)


def test_a_scope_without_machines_is_empty() -> None:
    fleet = Fleet([])
    closed = run(fleet)
    assert closed["state"] == "empty"
    assert "tags env=prod" in closed["reason"]


def test_a_cancel_before_the_phases_ends_every_machine_as_canceled() -> None:
    fleet = Fleet(keys(4))
    fleet.discoveries = [DiscoveryPage(machines=2, cursor="2", wait_seconds=3600), DiscoveryPage(machines=4)]
    with fleet.bench() as bench:
        instance = bench.start("patch_run", INPUT, instance_id=RUN_ID)
        bench.client.raise_orchestration_event(RUN_ID, Signal.CANCEL)
        assert bench.wait(instance).output["state"] == "canceled"
    assert set(fleet.outcomes.values()) == {("canceled", "canceled_by_user")}
    assert not fleet.accepted


def test_a_run_that_has_ended_already_is_left_alone() -> None:
    fleet = Fleet([])
    fleet.opened = fleet.opened.model_copy(update={"is_final": True})
    run(fleet)
    assert contracts.DISCOVER_MACHINES.name not in fleet.order


def test_a_run_whose_own_activity_fails_is_closed_as_failed() -> None:
    fleet = Fleet(keys(2))

    def broken(_: Any) -> Any:
        raise scripted_fleet.Broken("the storage is away")

    closed = run(fleet, **{contracts.PLAN_RUN.name: broken})
    assert closed["state"] == "failed"
    assert set(fleet.outcomes.values()) == {("unknown", "internal")}


def test_a_run_that_lost_a_phase_is_left_to_the_watchdog() -> None:
    """The machines of the phase may still be in progress: the run must not be closed meanwhile."""
    fleet = Fleet(keys(2))

    def broken(_: Any) -> Any:
        raise scripted_fleet.Broken("the storage is away")

    with fleet.bench(**{contracts.LIST_PENDING_MACHINES.name: broken}) as bench:
        ended = bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    assert ended.status is OrchestrationStatus.FAILED
    assert not fleet.closed
    assert not fleet.outcomes


@pytest.mark.parametrize("seed", range(3))
def test_random_fleets_end_with_one_outcome_each_and_one_installation_at_most(seed: int) -> None:
    source = random.Random(seed)
    scripts = {key: _random_script(source) for key in keys(24)}
    fleet = Fleet(keys(24), scripts)
    assert run(fleet)["state"] == "completed"
    assert len(fleet.outcomes) == 24, f"seed {seed}"
    assert all(fleet.accepted[key, "install"] <= 1 for key in fleet.keys), f"seed {seed}"


def _random_script(source: random.Random) -> Script:
    return Script(
        preflights=[
            *source.choices([scripted_fleet.READY, scripted_fleet.LOCKED, scripted_fleet.STOPPED], [8, 1, 1], k=2),
            scripted_fleet.READY,
        ],
        assess_starts=_random_starts(source),
        install_starts=_random_starts(source),
        assess_polls=[
            *source.choices([scripted_fleet.RUNNING, scripted_fleet.ASSESSED, scripted_fleet.PASSING], k=3),
            scripted_fleet.ASSESSED,
        ],
        install_polls=[
            *source.choices(
                [scripted_fleet.RUNNING, scripted_fleet.INSTALLED, scripted_fleet.PASSING, scripted_fleet.LOST], k=3
            ),
            scripted_fleet.INSTALLED,
        ],
        breaks=source.choice([""] * 8 + [contracts.POLL_OPERATION.name, contracts.INSTALL_PATCHES.name]),
    )


def _random_starts(source: random.Random) -> list[StartResult]:
    """Throttling passes in the end: tests/orchestrators/test_retries.py has days of it."""
    some = source.choices([scripted_fleet.ACCEPTED, scripted_fleet.THROTTLED, scripted_fleet.BUSY], [6, 1, 1], k=3)
    return [*some, source.choice([scripted_fleet.ACCEPTED, scripted_fleet.BUSY])]


# --- rings


def two_rings(count: int, **fields: Any) -> tuple[Fleet, list[str], list[str]]:
    """A fleet with a canary ring of three machines and a broad ring of two phases."""
    machines = keys(count)
    canary, broad = machines[:3], machines[3:]
    half = len(broad) // 2
    rings = [
        Ring("canary", [{"eastus": canary}]),
        Ring("broad", [{"eastus": broad[:half]}, {"westus": broad[half:]}]),
    ]
    return Fleet(machines, rings=rings, **fields), canary, broad


def took(ended: WorkflowResult) -> timedelta:
    """Virtual time from the first to the last event."""
    return ended.history[-1].timestamp - ended.history[0].timestamp


def at_reads_of_controls(fleet: Fleet, when: Callable[[int], bool], then: Callable[[], None]) -> Callable[[Any], Any]:
    """`get_run_controls` that changes the controls before some of its calls, counted from 1."""
    calls = 0

    def controls(_: Any) -> Any:
        nonlocal calls
        calls += 1
        if when(calls):
            then()
        return fleet.controls.to_wire()

    return controls


def test_rings_and_phases_go_one_after_the_other() -> None:
    fleet, canary, broad = two_rings(13)
    assert run(fleet)["state"] == "completed"
    order = [fleet.installed.index(key) for key in (*canary, *broad)]
    assert max(order[:3]) < min(order[3:])
    assert max(order[3:8]) < min(order[8:])
    assert set(fleet.outcomes.values()) == {("patched", "ok")}


def test_a_ring_waits_for_its_approval_and_shows_it() -> None:
    fleet, canary, _ = two_rings(9)
    fleet.rings[1].approval_seconds = 3 * 86_400.0

    before: list[set[str]] = []

    def approve() -> None:
        if fleet.controls.decided:
            return
        before.append(set(fleet.installed))
        fleet.controls = fleet.controls.model_copy(update={"decided": {"broad": True}})

    shown = "awaiting_approval"
    waiting = at_reads_of_controls(
        fleet, lambda _: any(call["state"] == shown for call in fleet.calls_of(contracts.SET_RUN_STATE.name)), approve
    )
    assert run(fleet, **{contracts.GET_RUN_CONTROLS.name: waiting})["state"] == "completed"
    states = [(call["state"], call["waitingFor"]) for call in fleet.calls_of(contracts.SET_RUN_STATE.name)]
    assert states == [(shown, "broad"), ("running", "")]
    assert before == [set(canary)], "no machine behind the gate was started"
    assert set(fleet.outcomes.values()) == {("patched", "ok")}


@pytest.mark.parametrize("is_rejected", [True, False], ids=["rejected", "no answer"])
def test_a_run_without_approval_is_stopped(is_rejected: bool) -> None:
    fleet, canary, broad = two_rings(9)
    fleet.rings[1].approval_seconds = 3_600.0
    if is_rejected:
        fleet.controls = fleet.controls.model_copy(update={"decided": {"broad": False}})
    closed = run(fleet)
    assert closed["state"] == "stopped"
    assert ("was rejected" if is_rejected else "was not approved in time") in closed["reason"]
    assert fleet.calls_of(contracts.STOP_RUN.name)[0]["reason"] == closed["reason"]
    assert {fleet.outcomes[key] for key in canary} == {("patched", "ok")}
    assert {fleet.outcomes[key] for key in broad} == {("skipped", "not_approved")}


def test_an_approval_at_the_deadline_counts() -> None:
    fleet, _, _ = two_rings(5)
    fleet.rings[1].approval_seconds = 3_600.0

    def approved_first(_: Any) -> Any:
        fleet.controls = fleet.controls.model_copy(update={"decided": {"broad": True}})
        return fleet.controls.to_wire()

    assert run(fleet, **{contracts.STOP_RUN.name: approved_first})["state"] == "completed"
    assert set(fleet.outcomes.values()) == {("patched", "ok")}


def test_a_ring_bakes_before_the_next_one() -> None:
    fleet, canary, broad = two_rings(9)
    fleet.rings[0].bake_seconds = 26 * 3_600.0
    with fleet.bench() as bench:
        ended = bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    assert timedelta(hours=26) < took(ended) < timedelta(hours=30)
    assert set(fleet.installed) == {*canary, *broad}
    shown = fleet.calls_of(contracts.SET_RUN_STATE.name)
    assert [call["state"] for call in shown] == ["running", "running"]
    assert shown[0]["waitingFor"].startswith("the bake time of the ring canary, until 20")
    assert shown[1]["waitingFor"] == ""


@pytest.mark.parametrize(
    "budget", [ErrorBudget(wave=0), ErrorBudget(lane=0), ErrorBudget(ring=0), ErrorBudget(run=0)], ids=str
)
def test_a_gate_in_a_ring_holds_the_rings_behind_it_although_it_has_nothing_left_to_start(budget: ErrorBudget) -> None:
    fleet, canary, broad = two_rings(9, error_budget=budget)
    fleet.scripts[canary[-1]].install_polls = [scripted_fleet.BROKEN]
    started_while_held: list[set[str]] = []

    def controls(_: Any) -> Any:
        if fleet.controls.blocked_scopes:
            started_while_held.append(set(fleet.installed) & set(broad))
            if len(started_while_held) == 3:
                fleet.controls = fleet.controls.model_copy(update={"blocked_scopes": [], "resume_count": 1})
        return fleet.controls.to_wire()

    assert run(fleet, **{contracts.GET_RUN_CONTROLS.name: controls})["state"] == "completed"
    assert started_while_held == [set(), set(), set()]
    assert set(fleet.installed) == {*canary, *broad}


def test_a_budget_that_ends_the_run_leaves_the_rings_behind_it_alone() -> None:
    budget = ErrorBudget(ring=0, on_exceeded=OnExceeded.END)
    fleet, canary, broad = two_rings(9, error_budget=budget)
    fleet.scripts[canary[0]].install_polls = [scripted_fleet.BROKEN]
    closed = run(fleet)
    assert (closed["state"], closed["reason"]) == ("stopped", "The error budget of ring:canary is used up.")
    assert {fleet.outcomes[key] for key in broad} == {("skipped", "error_budget")}
    assert sum(fleet.accepted[key, "install"] for key in broad) == 0


def test_failures_are_counted_over_the_rings_of_a_run() -> None:
    fleet, canary, broad = two_rings(23, error_budget=ErrorBudget(run=1, on_exceeded=OnExceeded.END), cap=2)
    for key in (canary[0], broad[0]):
        fleet.scripts[key].install_polls = [scripted_fleet.BROKEN]
    assert run(fleet)["state"] == "stopped"
    assert len(set(fleet.installed) & set(broad)) <= 4


def test_an_empty_ring_is_passed_over() -> None:
    fleet, canary, _ = two_rings(3)
    assert run(fleet)["state"] == "completed"
    assert set(fleet.installed) == set(canary)


def test_a_plan_without_machines_completes() -> None:
    fleet = Fleet(keys(3), {key: Script(assess_polls=[scripted_fleet.CLEAN]) for key in keys(3)}, rings=[])
    assert run(fleet)["state"] == "completed"
    assert set(fleet.outcomes.values()) == {("nothing_to_install", "no_pending_patches")}


def test_later_rings_are_pinned_to_the_first() -> None:
    fleet, canary, broad = two_rings(9, pin_rings=True)
    run(fleet)
    assert [call["ring"] for call in fleet.calls_of(contracts.PIN_RING.name)] == ["canary"]
    pinned_at = fleet.order.index(contracts.PIN_RING.name)
    installs = [at for at, name in enumerate(fleet.order) if name == contracts.INSTALL_PATCHES.name]
    assert sum(at < pinned_at for at in installs) == len(canary)
    assert sum(at > pinned_at for at in installs) == len(broad)


def test_restarts_of_a_ring_come_after_its_installations_and_before_the_next_ring() -> None:
    fleet, canary, broad = two_rings(9)
    fleet.opened = fleet.opened.model_copy(update={"options": MachineOptions(mode=Mode.PATCH, reboot_apart=True)})
    for key in (*canary, *broad[:2]):
        fleet.scripts[key] = Script(
            install_polls=[scripted_fleet.NEEDS_REBOOT],
            verifications=[scripted_fleet.REBOOT_PENDING, scripted_fleet.READY_AGAIN],
        )
    run(fleet)
    assert set(fleet.outcomes.values()) == {("patched", "ok")}
    assert sorted(fleet.power) == sorted(("restart", key) for key in (*canary, *broad[:2]))
    steps = [
        (name, data["machineKey"] in canary)
        for name, data in fleet.calls
        if name in (contracts.INSTALL_PATCHES.name, contracts.RESTART_MACHINE.name)
    ]
    assert steps == [
        *[(contracts.INSTALL_PATCHES.name, True)] * 3,
        *[(contracts.RESTART_MACHINE.name, True)] * 3,
        *[(contracts.INSTALL_PATCHES.name, False)] * 6,
        *[(contracts.RESTART_MACHINE.name, False)] * 2,
    ]


# --- windows


def test_what_the_window_leaves_is_skipped() -> None:
    fleet, _, _ = two_rings(30, cap=1)
    fleet.cutoffs = [Cutoff(at=datetime.now(UTC) + timedelta(minutes=8))]
    closed = run(fleet)
    assert closed["state"] == "completed"
    left = [key for key, outcome in fleet.outcomes.items() if outcome == ("skipped", "window_closed")]
    assert len(left) + len(set(fleet.installed)) == 30
    assert left


def test_machines_that_a_window_leaves_are_patched_in_the_next_one() -> None:
    fleet, canary, broad = two_rings(12, cap=1)
    fleet.opened = fleet.opened.model_copy(update={"options": MachineOptions(mode=Mode.PATCH, continues=True)})
    now = datetime.now(UTC)
    fleet.next_windows = [NextWindow(opens_at=now + timedelta(days=30), ends_at=now + timedelta(days=30, hours=3))]

    def cutoff(_: Any) -> Any:
        is_second = bool(fleet.calls_of(contracts.ENTER_WINDOW.name))
        return Cutoff(at=now + (timedelta(days=60) if is_second else timedelta(minutes=6))).to_wire()

    assert run(fleet, **{contracts.GET_START_CUTOFF.name: cutoff})["state"] == "completed"
    assert set(fleet.outcomes.values()) == {("patched", "ok")}
    assert len(fleet.calls_of(contracts.ENTER_WINDOW.name)) == 1
    assert [fleet.accepted[key, "install"] for key in (*canary, *broad)] == [1] * 12
    assert fleet.order.index(contracts.ENTER_WINDOW.name) > fleet.order.index(contracts.INSTALL_PATCHES.name)


def test_a_policy_without_a_further_window_leaves_the_rest() -> None:
    fleet, _, _ = two_rings(12, cap=1)
    fleet.opened = fleet.opened.model_copy(update={"options": MachineOptions(mode=Mode.PATCH, continues=True)})
    fleet.cutoffs = [Cutoff(at=datetime.now(UTC) + timedelta(minutes=6))]
    closed = run(fleet)
    assert (closed["state"], closed["reason"]) == (
        "completed",
        "The policy has no further window for the remaining machines.",
    )
    assert ("skipped", "window_closed") in fleet.outcomes.values()


# --- other runs


WAITS = GroupsReserved(waits_for="the run other: both work on the availability set av", wait_seconds=30)


def test_a_phase_waits_for_another_run_and_then_starts() -> None:
    fleet, _, _ = two_rings(9)
    fleet.reservations = [GroupsReserved(), WAITS, WAITS, WAITS, GroupsReserved()]
    taken_at: list[datetime] = []
    installed: list[int] = []

    def take(data: Any) -> Any:
        taken_at.append(bench.now())
        installed.append(len(fleet.installed))
        return fleet.reservations.pop(0).to_wire() if len(fleet.reservations) > 1 else fleet.reservations[0].to_wire()

    with fleet.bench(**{contracts.RESERVE_GROUPS.name: take}) as bench:
        bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
        asked = bench.calls_of(contracts.RESERVE_GROUPS.name)
        given = bench.calls_of(contracts.RELEASE_GROUPS.name)
    assert fleet.closed[0]["state"] == "completed"
    assert [(call["ringNumber"], call["phaseNumber"], call["sequence"]) for call in asked] == [
        (0, 0, 1), (1, 0, 2), (1, 0, 2), (1, 0, 2), (1, 0, 2), (1, 1, 3)
    ]  # fmt: skip
    assert installed == [0, 3, 3, 3, 3, 6], "nothing of the phase starts before it has its permits"
    pauses = [(later - at).total_seconds() for at, later in itertools.pairwise(taken_at)][1:4]
    assert [least <= pause < least + 10 for least, pause in zip([30, 60, 120], pauses, strict=True)] == [True] * 3
    assert [call["sequence"] for call in given] == [1, 3], "behind each ring"
    assert [call["runId"] for call in given] == [RUN_ID, RUN_ID]
    assert [(call["state"], call["waitingFor"]) for call in fleet.calls_of(contracts.SET_RUN_STATE.name)] == [
        ("running", "")
    ]


@pytest.mark.parametrize("between_phases", [False, True])
def test_a_waiting_run_is_woken_when_permits_are_released(between_phases: bool) -> None:
    """It would poll again in minutes; the run before it wakes it."""
    fleet = Fleet(keys(2))
    if between_phases:
        fleet.reservations = [GroupsReserved(freed=["other-run"])]
    else:
        fleet.waiting = ["other-run"]
    events: list[str] = []

    def other(context: task.OrchestrationContext, _: Any) -> Any:
        yield context.wait_for_external_event(Signal.CONTROL)
        events.append("control")

    orchestrators = {
        "patch_run": patch_run, "patch_phase": patch_phase, "patch_machine": patch_machine,
        "await_operation": await_operation, "other": other,
    }  # fmt: skip
    with Workbench(orchestrators, fleet.activities()) as bench:
        waiting = bench.start("other", None, instance_id="other-run")
        bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
        bench.wait(waiting)
    assert events


def test_a_command_ends_the_wait_for_another_run_and_permits_are_requested_again() -> None:
    fleet = Fleet(keys(2))
    long = WAITS.model_copy(update={"wait_seconds": 600})
    taken_at: list[datetime] = []

    def take(_: Any) -> Any:
        taken_at.append(bench.now())
        if len(taken_at) == 1:
            bench.client.raise_orchestration_event(RUN_ID, Signal.CONTROL)
            time.sleep(0.3)
            return long.to_wire()
        return GroupsReserved().to_wire()

    with fleet.bench(**{contracts.RESERVE_GROUPS.name: take}) as bench:
        bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    assert (taken_at[1] - taken_at[0]).total_seconds() < 10
    assert fleet.closed[0]["state"] == "completed"


@pytest.mark.parametrize("continues", [False, True])
def test_a_run_that_never_gets_its_permits_ends_with_its_window_and_names_the_run_in_its_way(continues: bool) -> None:
    fleet = Fleet(keys(4))
    fleet.opened = fleet.opened.model_copy(update={"options": MachineOptions(mode=Mode.PATCH, continues=continues)})
    fleet.reservations = [WAITS.model_copy(update={"wait_seconds": 1_000})]
    closes_at = datetime.now(UTC) + timedelta(hours=3)
    fleet.cutoffs = [Cutoff(at=closes_at)]
    taken_at: list[datetime] = []

    def take(_: Any) -> Any:
        taken_at.append(bench.now())
        return fleet.reservations[0].to_wire()

    with fleet.bench(**{contracts.RESERVE_GROUPS.name: take}) as bench:
        bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
        given = bench.calls_of(contracts.RELEASE_GROUPS.name)
    why = (
        "The policy has no further window for the remaining machines."
        if continues
        else "The window closed while the run waited for the run other: both work on the availability set av."
    )
    assert (fleet.closed[0]["state"], fleet.closed[0]["reason"]) == ("completed", why)
    assert set(fleet.outcomes.values()) == {("skipped", "window_closed")}
    assert not fleet.installed
    assert len(given) == 1
    pauses = [round((later - at).total_seconds()) for at, later in itertools.pairwise(taken_at)]
    assert all(900 <= pause <= 910 for pause in pauses[:-1]), "a quarter of an hour at most"
    assert timedelta(seconds=0) < taken_at[-1].replace(tzinfo=UTC) - closes_at < timedelta(seconds=5)


def test_a_cancel_ends_the_wait_for_another_run() -> None:
    fleet = Fleet(keys(2))
    fleet.reservations = [WAITS.model_copy(update={"wait_seconds": 600})]

    def canceled(data: Any) -> Any:
        bench.client.raise_orchestration_event(RUN_ID, Signal.CANCEL)
        time.sleep(0.3)
        return fleet.reservations[0].to_wire()

    with fleet.bench(**{contracts.RESERVE_GROUPS.name: canceled}) as bench:
        ended = bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    assert fleet.closed[0]["state"] == "canceled"
    assert took(ended) < timedelta(minutes=6)
    assert not fleet.installed


def test_a_run_that_cannot_give_back_is_closed_all_the_same() -> None:
    def broken(_: Any) -> Any:
        raise scripted_fleet.Broken("the storage is away")

    fleet = Fleet(keys(2), rings=[Ring("all", [{"westeurope": keys(2)}])])
    fleet.cutoffs = [Cutoff(at=datetime.now(UTC) - timedelta(hours=1))]
    closed = run(fleet, **{contracts.RELEASE_GROUPS.name: broken})
    assert closed["reason"] == "The window closed before every machine was started."


def test_an_assessment_waits_for_no_run() -> None:
    fleet = Fleet(keys(2), mode=Mode.ASSESS)
    run(fleet)
    assert not {contracts.RESERVE_GROUPS.name, contracts.RELEASE_GROUPS.name} & set(fleet.order)


# --- a cancel at every wait


@pytest.mark.parametrize(
    ("waits_for", "asked_before"),
    [
        ("approval", contracts.SET_RUN_STATE.name),
        ("bake", contracts.GET_RUN_CONTROLS.name),
        ("window", contracts.FIND_NEXT_WINDOW.name),
    ],
)
def test_a_cancel_ends_every_wait(waits_for: str, asked_before: str) -> None:
    fleet, canary, _ = two_rings(9, cap=1)
    far = datetime.now(UTC) + timedelta(days=20)
    match waits_for:
        case "approval":
            fleet.rings[1].approval_seconds = 20 * 86_400.0
        case "bake":
            fleet.rings[0].bake_seconds = 20 * 86_400.0
        case _:
            fleet.opened = fleet.opened.model_copy(update={"options": MachineOptions(mode=Mode.PATCH, continues=True)})
            fleet.cutoffs = [Cutoff(at=datetime.now(UTC) + timedelta(minutes=3))]
            fleet.next_windows = [NextWindow(opens_at=far, ends_at=far + timedelta(hours=3))]
    answer = fleet.activities()[asked_before]

    def cancel_first(data: Any) -> Any:
        if set(canary) <= set(fleet.recorded) or waits_for == "window":
            # From inside the run, so that virtual time cannot pass between the cancel and its delivery.
            bench.client.raise_orchestration_event(RUN_ID, Signal.CANCEL)
            time.sleep(0.3)
        return answer(data)

    with fleet.bench(**{asked_before: cancel_first}) as bench:
        ended = bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    assert ended.output["state"] == "canceled"
    assert took(ended) < timedelta(days=19)
    assert {outcome for outcome, _ in fleet.outcomes.values()} == {"patched", "canceled"}
    assert set(fleet.installed) <= set(canary)


@pytest.mark.parametrize("waits_for", ["approval", "bake", "gate", "window"])
def test_a_cancel_with_a_lost_event_ends_every_wait_within_a_day(waits_for: str) -> None:
    """The answer to a cancel is 202 whether or not the event reaches the engine: the row has to be enough."""
    budget = ErrorBudget(ring=0) if waits_for == "gate" else ErrorBudget()
    fleet, canary, _ = two_rings(9, cap=1, error_budget=budget)
    far = datetime.now(UTC) + timedelta(days=20)
    match waits_for:
        case "approval":
            fleet.rings[1].approval_seconds = 20 * 86_400.0
        case "bake":
            fleet.rings[0].bake_seconds = 20 * 86_400.0
        case "gate":
            fleet.scripts[canary[-1]].install_polls = [scripted_fleet.BROKEN]
        case _:
            fleet.opened = fleet.opened.model_copy(update={"options": MachineOptions(mode=Mode.PATCH, continues=True)})
            fleet.cutoffs = [Cutoff(at=datetime.now(UTC) + timedelta(minutes=12))]
            fleet.next_windows = [NextWindow(opens_at=far, ends_at=far + timedelta(hours=3))]
    controls = fleet.activities()[contracts.GET_RUN_CONTROLS.name]

    def canceled(data: Any) -> Any:
        if set(canary) <= set(fleet.recorded) or waits_for == "window":
            fleet.controls = fleet.controls.model_copy(update={"is_canceled": bool(fleet.installed)})
        return controls(data)

    with fleet.bench(**{contracts.GET_RUN_CONTROLS.name: canceled}) as bench:
        ended = bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    assert ended.output["state"] == "canceled"
    assert took(ended) < timedelta(days=2)
    assert {outcome for outcome, _ in fleet.outcomes.values()} <= {"patched", "failed", "canceled"}


@pytest.mark.parametrize("continues", [True, False])
def test_a_machine_that_was_requeued_too_often_is_not_waited_for(continues: bool) -> None:
    fleet, canary, broad = two_rings(9)
    fleet.opened = fleet.opened.model_copy(update={"options": MachineOptions(mode=Mode.PATCH, continues=continues)})
    fleet.scripts[canary[0]].install_starts = [scripted_fleet.REQUEUED]
    assert run(fleet)["state"] == "completed"
    assert fleet.outcomes.pop(canary[0]) == ("unknown", "internal")
    assert {fleet.outcomes[key] for key in (*canary[1:], *broad)} == {("patched", "ok")}


# --- whatever happens, the run is closed


@pytest.mark.parametrize("activity", [contracts.CLOSE_OPEN_MACHINES.name, contracts.CLOSE_RUN.name])
def test_a_run_is_closed_once_that_works_again(activity: str) -> None:
    fleet = Fleet(keys(2))
    close = fleet.activities()[activity]
    failures = 0

    def away(data: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures <= 30:
            raise scripted_fleet.Broken("the storage is away")
        return close(data)

    assert run(fleet, **{activity: away})["state"] == "completed"


def test_an_unreadable_result_of_an_activity_closes_the_run() -> None:
    fleet = Fleet(keys(2))
    closed = run(fleet, **{contracts.PLAN_RUN.name: lambda _: {"rings": "none"}})
    assert closed["state"] == "failed"
    assert set(fleet.outcomes.values()) == {("unknown", "internal")}


def test_a_ramp_continues_over_phases_and_windows() -> None:
    fleet = Fleet(keys(20), ramp=True, cap=1)
    fleet.rings = [Ring("all", [{"eastus": fleet.keys[:10]}, {"westus": fleet.keys[10:]}])]
    fleet.opened = fleet.opened.model_copy(update={"options": MachineOptions(mode=Mode.PATCH, continues=True)})
    now = datetime.now(UTC)
    fleet.next_windows = [NextWindow(opens_at=now + timedelta(days=30), ends_at=now + timedelta(days=31))]

    def cutoff(_: Any) -> Any:
        is_second = bool(fleet.calls_of(contracts.ENTER_WINDOW.name))
        return Cutoff(at=now + (timedelta(days=60) if is_second else timedelta(minutes=8))).to_wire()

    begun: dict[str, int] = {}

    def begin(context: Any, data: Any) -> Any:
        if data["step"] == "patch":
            begun.setdefault(context.instance_id, data["ended"])
        return (yield from patch_phase(context, data))

    orchestrators = {"patch_run": patch_run, "patch_phase": begin, "patch_machine": patch_machine}
    activities = fleet.activities() | {contracts.GET_START_CUTOFF.name: cutoff}
    with Workbench(orchestrators | {"await_operation": await_operation}, activities) as bench:
        bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    first, second, third = begun.values()
    assert 0 == first < second < third == 10


def test_a_run_whose_orchestration_was_ended_is_closed() -> None:
    fleet = Fleet(keys(2))
    with Workbench([close_orphaned_run], fleet.activities()) as bench:
        assert bench.run("close_orphaned_run", INPUT).output["state"] == "failed"
    assert len(fleet.closed) == 1
    assert set(fleet.outcomes.values()) == {("unknown", "internal")}
