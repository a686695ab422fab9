"""Machines that read their own clocks: a phase starts each in its own window, and sleeps between them."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.domain.planning.plan_windows import window_permit
from patchwave.domain.runs.run import Mode
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.operation import StartResult, StartState
from patchwave.domain.workflow.run import Cutoff, MachineOptions, NextWindow, RunRef, StartHours
from tests.support import scripted_fleet
from tests.support.phase_children import Floor, keys, phase
from tests.support.scripted_fleet import RUN_ID, Fleet, Ring

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
BERLIN, TOKYO = "Europe/Berlin", "Asia/Tokyo"
INPUT = RunRef(run_id=RUN_ID).to_wire()


def hours(opens_at: datetime, length: timedelta = 8 * HOUR) -> StartHours:
    return StartHours(opens_at=opens_at, closes_at=opens_at + length)


def zoned(count: int, zones: list[str], **fields: Any) -> Fleet:
    """Machines that are in these zones in turn, and in the order of the zones."""
    machines = keys(count)
    share = count // len(zones)
    fleet = Fleet(machines, rings=[Ring("all", [{"anywhere": machines}])], **fields)
    fleet.permits = {key: [window_permit(zones[min(at // share, len(zones) - 1)])] for at, key in enumerate(machines)}
    return fleet


def zoned_phase(fleet: Fleet, windows: dict[str, StartHours], **fields: Any) -> dict[str, Any]:
    closes_at = max(each.closes_at for each in windows.values())
    return phase(fleet, windows=windows, closes_at=closes_at, **fields)


def test_each_machine_starts_inside_its_own_window() -> None:
    fleet = zoned(12, [TOKYO, BERLIN], cap=2)
    floor = Floor(fleet)
    with floor.bench() as bench:
        now = bench.now()
        windows = {TOKYO: hours(now - HOUR, 4 * HOUR), BERLIN: hours(now + 9 * HOUR)}
        ended = bench.run("patch_phase", zoned_phase(fleet, windows))
    assert (ended.output["ended"], ended.output["hasRemaining"]) == (12, False)
    for number, key in enumerate(keys(12)):
        window = windows[TOKYO if number < 6 else BERLIN]
        assert window.opens_at <= floor.began[key].replace(tzinfo=UTC) <= window.closes_at
    first = min(floor.began[key] for key in keys(12)[6:]).replace(tzinfo=UTC)
    assert first - windows[BERLIN].opens_at < MINUTE, "the window is used from its first minute on"
    assert floor.most == 2


def test_the_wait_for_a_window_is_one_sleep_that_is_shown() -> None:
    fleet = zoned(4, [TOKYO, BERLIN])
    floor = Floor(fleet)
    with floor.bench() as bench:
        opens_at = bench.now() + 9 * HOUR
        bench.run("patch_phase", zoned_phase(fleet, {TOKYO: hours(bench.now()), BERLIN: hours(opens_at)}))
    shown = [(call["state"], call["waitingFor"]) for call in fleet.calls_of(contracts.SET_RUN_STATE.name)]
    assert shown == [
        ("awaiting_window", f"the window of Europe/Berlin, which opens at {opens_at:%Y-%m-%d %H:%M} UTC"),
        ("running", ""),
    ]
    [heartbeat] = fleet.calls_of(contracts.EXTEND_HEARTBEAT.name)
    assert datetime.fromisoformat(heartbeat["until"]) >= opens_at - MINUTE
    polls = len(fleet.calls_of(contracts.POLL_PHASE.name))
    assert polls < 60, "nine hours are no reason to poll"


def test_a_wait_of_more_than_a_day_looks_once_a_day() -> None:
    fleet = zoned(2, [BERLIN])
    floor = Floor(fleet)
    with floor.bench() as bench:
        opens_at = bench.now() + 50 * HOUR
        bench.run("patch_phase", zoned_phase(fleet, {BERLIN: hours(opens_at)}))
    assert len(fleet.calls_of(contracts.EXTEND_HEARTBEAT.name)) == 3
    assert min(floor.began.values()).replace(tzinfo=UTC) >= opens_at


def test_a_cancel_ends_the_wait_for_a_window_at_once() -> None:
    fleet = zoned(4, [BERLIN])
    floor = Floor(fleet)

    def cancel(_: Any) -> dict[str, Any]:
        # From inside the run, so that virtual time cannot pass between the cancel and its delivery.
        fleet.controls = fleet.controls.model_copy(update={"is_canceled": True})
        bench.client.raise_orchestration_event("phase", Signal.CANCEL)
        time.sleep(0.3)
        return {}

    with floor.bench(**{contracts.EXTEND_HEARTBEAT.name: cancel}) as bench:
        opens_at = bench.now() + 9 * HOUR
        ended = bench.run("patch_phase", zoned_phase(fleet, {BERLIN: hours(opens_at)}), instance_id="phase")
        assert bench.now() < opens_at - 8 * HOUR
    assert (ended.output["started"], ended.output["hasRemaining"]) == (0, True)


def test_machines_whose_window_closes_are_left_and_keep_no_others_waiting() -> None:
    fleet = zoned(12, [TOKYO, BERLIN], cap=1)
    floor = Floor(fleet, seconds=lambda _: 1_200)
    with floor.bench() as bench:
        now = bench.now()
        windows = {TOKYO: hours(now, HOUR), BERLIN: hours(now + 3 * HOUR)}
        ended = bench.run("patch_phase", zoned_phase(fleet, windows))
    assert ended.output["hasRemaining"] is True
    started = Counter("tokyo" if key in keys(12)[:6] else "berlin" for key in floor.started)
    assert started["berlin"] == 6
    assert 2 <= started["tokyo"] <= 4
    assert max(floor.began[key] for key in floor.started if key in keys(12)[:6]).replace(tzinfo=UTC) <= now + HOUR


def test_more_late_machines_than_wait_at_a_time_hide_no_zone_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrators.phase_starter.PAGE", 5)
    monkeypatch.setattr("orchestrators.phase_starter.MAX_WAITING", 5)
    monkeypatch.setattr("orchestrators.phase_starter.MAX_FREE_WAITING", 5)
    fleet = zoned(40, [TOKYO, BERLIN])
    floor = Floor(fleet)
    with floor.bench() as bench:
        now = bench.now()
        windows = {TOKYO: hours(now - 9 * HOUR, HOUR), BERLIN: hours(now)}
        ended = bench.run("patch_phase", zoned_phase(fleet, windows))
    assert sorted(floor.started) == keys(40)[20:]
    assert ended.output["hasRemaining"] is True


def test_a_phase_whose_windows_are_all_over_ends_at_once() -> None:
    fleet = zoned(6, [TOKYO])
    floor = Floor(fleet)
    with floor.bench() as bench:
        before = bench.now()
        windows = {TOKYO: hours(before - 9 * HOUR, HOUR), BERLIN: hours(before + HOUR)}
        ended = bench.run("patch_phase", zoned_phase(fleet, windows))
        assert bench.now() - before < MINUTE, "no machine of the phase is in the zone that opens later"
    assert (ended.output["started"], ended.output["hasRemaining"]) == (0, True)


def test_a_machine_that_is_requeued_behind_its_window_is_left_to_a_later_pass() -> None:
    fleet = zoned(2, [TOKYO])
    floor = Floor(fleet, always_left=keys(1), seconds=lambda _: 1_200)
    with floor.bench() as bench:
        windows = {TOKYO: hours(bench.now(), HOUR), BERLIN: hours(bench.now() + 20 * HOUR)}
        ended = bench.run("patch_phase", zoned_phase(fleet, windows))
    assert ended.output["hasRemaining"] is True
    assert floor.started.count(keys(1)[0]) <= 4


def test_twenty_four_zones_cost_no_more_calls_per_machine_than_one() -> None:
    """Each call is a bounded number of storage transactions: what a zone adds is one wait, and nothing per machine."""
    machines = 240

    def calls(zones: int) -> Counter[str]:
        names = [f"Etc/GMT-{number}" for number in range(1, zones + 1)]
        fleet = zoned(machines, names, cap=50)
        floor = Floor(fleet, seconds=lambda _: 600)
        with floor.bench() as bench:
            now = bench.now()
            windows = {name: hours(now + number * HOUR) for number, name in enumerate(names)}
            ended = bench.run("patch_phase", zoned_phase(fleet, windows))
        assert (ended.output["ended"], ended.output["hasRemaining"]) == (machines, False)
        return Counter(fleet.order)

    one, many = calls(1), calls(24)
    waits = (contracts.SET_RUN_STATE.name, contracts.EXTEND_HEARTBEAT.name)
    assert many[contracts.LIST_PENDING_MACHINES.name] == one[contracts.LIST_PENDING_MACHINES.name]
    assert sum(many[name] for name in waits) == 3 * 23
    # Machines of a zone take ten minutes, of twenty polls at most; a busy phase polls as often.
    assert many[contracts.POLL_PHASE.name] <= 24 * 45
    assert set(many) - set(one) <= {*waits}


# --- the run ---------------------------------------------------------------------------------------------------


def local_run(fleet: Fleet, cutoff: Any, **replaced: Any) -> dict[str, Any]:
    with fleet.bench(**{contracts.GET_START_CUTOFF.name: cutoff}, **replaced) as bench:
        bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    assert set(fleet.recorded) == set(fleet.keys)
    return fleet.closed[0]


def local_options(**fields: Any) -> MachineOptions:
    return MachineOptions(mode=Mode.PATCH, is_local=True, **fields)


def test_a_run_assesses_when_the_first_window_opens() -> None:
    fleet = zoned(4, [TOKYO, BERLIN], options=local_options())
    assessed: list[datetime] = []
    start = datetime.now(UTC)
    tokyo, berlin = hours(start + 5 * HOUR), hours(start + 13 * HOUR)
    fleet.first_openings = [NextWindow(opens_at=tokyo.opens_at, ends_at=berlin.closes_at)]
    assess = fleet.activities()[contracts.ASSESS_MACHINE.name]
    install = fleet.activities()[contracts.INSTALL_PATCHES.name]
    installed: dict[str, datetime] = {}

    def note_assess(data: Any) -> Any:
        assessed.append(bench.now())
        return assess(data)

    def note_install(data: Any) -> Any:
        installed[data["machineKey"]] = bench.now()
        return install(data)

    def cutoff(data: Any) -> Any:
        return Cutoff(at=berlin.closes_at, windows={TOKYO: tokyo, BERLIN: berlin}).to_wire()

    replaced = {
        contracts.ASSESS_MACHINE.name: note_assess,
        contracts.INSTALL_PATCHES.name: note_install,
        contracts.GET_START_CUTOFF.name: cutoff,
    }
    with fleet.bench(**replaced) as bench:
        bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    assert fleet.closed[0]["state"] == "completed"
    assert set(fleet.outcomes.values()) == {("patched", "ok")}
    assert min(assessed) >= tokyo.opens_at
    assert max(assessed) < tokyo.opens_at + HOUR
    assert all(installed[key] >= berlin.opens_at for key in keys(4)[2:])
    assert all(installed[key] < berlin.opens_at for key in keys(4)[:2])


def test_an_assess_run_takes_every_machine_when_the_first_window_opens() -> None:
    fleet = zoned(2, [TOKYO, BERLIN], options=MachineOptions(mode=Mode.ASSESS, is_local=True))
    opens_at = datetime.now(UTC) + 5 * HOUR
    fleet.first_openings = [NextWindow(opens_at=opens_at)]
    assess, at = fleet.activities()[contracts.ASSESS_MACHINE.name], list[datetime]()

    def note(data: Any) -> Any:
        at.append(bench.now())
        return assess(data)

    with fleet.bench(**{contracts.ASSESS_MACHINE.name: note}) as bench:
        bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    assert set(fleet.outcomes.values()) == {("assessed", "patches_pending")}
    assert opens_at <= min(at) <= max(at) < opens_at + HOUR


def test_the_next_ring_goes_on_without_the_machines_whose_window_has_closed() -> None:
    machines = keys(6)
    rings = [Ring("canary", [{"anywhere": machines[:3]}]), Ring("rest", [{"anywhere": machines[3:]}])]
    fleet = Fleet(machines, rings=rings, options=local_options())
    fleet.permits = {key: [window_permit(TOKYO if key in machines[:1] else BERLIN)] for key in machines}
    now = datetime.now(UTC)
    windows = {TOKYO: hours(now - 9 * HOUR, HOUR), BERLIN: hours(now - HOUR, 90 * HOUR)}
    closed = local_run(fleet, lambda _: Cutoff(at=windows[BERLIN].closes_at, windows=windows).to_wire())
    assert (closed["state"], closed["reason"]) == (
        "completed",
        "The windows of some time zones closed before every machine was started.",
    )
    outcomes = fleet.outcomes
    assert outcomes.pop(machines[0]) == ("skipped", "window_closed")
    assert set(outcomes.values()) == {("patched", "ok")}


def test_a_run_that_continues_patches_them_in_their_next_window() -> None:
    fleet = zoned(6, [TOKYO, BERLIN], options=local_options(continues=True))
    now = datetime.now(UTC)
    first = {TOKYO: hours(now - 9 * HOUR, HOUR), BERLIN: hours(now - HOUR, 90 * HOUR)}
    week = timedelta(days=7)
    second = {TOKYO: hours(now + week), BERLIN: hours(now + week + 8 * HOUR)}
    fleet.next_windows = [NextWindow(opens_at=now + week - HOUR, ends_at=now + week + 40 * HOUR)]

    def cutoff(_: Any) -> Any:
        windows = second if contracts.ENTER_WINDOW.name in fleet.order else first
        return Cutoff(at=max(each.closes_at for each in windows.values()), windows=windows).to_wire()

    assert local_run(fleet, cutoff)["state"] == "completed"
    assert set(fleet.outcomes.values()) == {("patched", "ok")}
    assert set(fleet.installed[:3]) == set(keys(6)[3:])
    assert fleet.order.index(contracts.ENTER_WINDOW.name) > fleet.order.index(contracts.INSTALL_PATCHES.name)


@pytest.mark.parametrize("is_local", [True, False])
def test_a_machine_that_the_run_of_the_day_before_works_on_is_assessed_in_its_own_window(is_local: bool) -> None:
    fleet = zoned(2, [BERLIN], options=MachineOptions(mode=Mode.PATCH, is_local=is_local))
    locked = fleet.scripts[keys(1)[0]]
    locked.preflights = [scripted_fleet.LOCKED] * 6 + [scripted_fleet.READY]
    now = datetime.now(UTC)
    windows = {BERLIN: hours(now + 9 * HOUR)}
    local_run(fleet, lambda _: Cutoff(at=windows[BERLIN].closes_at, windows=windows).to_wire())
    expected = ("patched", "ok") if is_local else ("skipped", "locked_by_run")
    assert fleet.outcomes[keys(1)[0]] == expected


def test_an_installation_that_is_asked_for_too_early_is_requeued_and_not_lost() -> None:
    fleet = zoned(1, [BERLIN], options=local_options())
    fleet.scripts[keys(1)[0]].install_starts = [
        StartResult(state=StartState.REQUEUED),
        StartResult(state=StartState.ACCEPTED),
    ]
    windows = {BERLIN: hours(datetime.now(UTC) + HOUR)}
    local_run(fleet, lambda _: Cutoff(at=windows[BERLIN].closes_at, windows=windows).to_wire())
    assert set(fleet.outcomes.values()) == {("patched", "ok")}
