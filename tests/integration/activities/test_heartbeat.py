"""Heartbeats, and what a new generation of a run finds in real tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from activities.heartbeat import extend_heartbeat, load_checkpoint, record_heartbeat
from activities.machine import preflight_machine
from activities.run import close_open_machines
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.machine.preflight import Readiness
from patchwave.domain.planning.admission import Permit
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.policy.policy import parse_policy
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.run import Mode, Run, RunState, Step, Trigger, TriggerKind
from patchwave.domain.runs.watchdog import HEARTBEAT_TIMEOUT
from patchwave.domain.workflow.machine import PreflightRequest
from patchwave.domain.workflow.run import Checkpoint, CloseOpenMachines, HeartbeatRequest, RunRef
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.factories import NOW, command, machine
from tests.support.phase_calls import SHORT
from tests.support.plans import in_order, make, planned_machine

RUN = "20261110T190000Z-monthly"
MINUTE = timedelta(minutes=1)
FAILED = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.INTERNAL, message="It failed.")


@pytest.fixture
async def run(storage: Storage) -> Run:
    policy = parse_policy({"name": "monthly", "scope": {"locations": ["westeurope"]}, "bake": {"waves": "PT30M"}})
    wanted = Run(
        id=RUN,
        policy="monthly",
        mode=Mode.PATCH,
        state=RunState.QUEUED,
        trigger=Trigger(kind=TriggerKind.TIMER),
        created_at=NOW,
        policy_snapshot=policy.to_wire(),
    )
    await storage.runs.create(wanted)
    return await storage.runs.start(RUN, NOW)


async def checkpoint(services: Services) -> Checkpoint:
    return await load_checkpoint(services, RunRef(run_id=RUN))


async def plan(storage: Storage) -> list[MachineRecord]:
    """Two canaries and three others, all assessed."""
    machines = [machine(number, stage=Stage.ASSESSED) for number in range(5)]
    await storage.machines.add(RUN, machines)
    whole = make([planned_machine(number, ring="canary" if number < 2 else "broad") for number in range(5)])
    await storage.plans.save(RUN, whole, in_order(whole), SHORT)
    return machines


async def test_nothing_is_planned_before_the_plan(services: Services, storage: Storage, run: Run) -> None:
    assert await checkpoint(services) == Checkpoint(is_planned=False)


async def test_machines_in_progress_have_the_permits_of_the_plan(
    services: Services, storage: Storage, run: Run
) -> None:
    first, second, third, fourth, _ = await plan(storage)
    for one in (first, second):
        await storage.results.record_outcome(RUN, one.key, FAILED, at=NOW, installation=None, patches=[])
    await storage.machines.update(RUN, third.key, Stage.INSTALLING)
    await storage.leases.acquire(fourth.key, RUN, datetime.now(UTC), datetime.now(UTC) + 60 * MINUTE)
    found = await checkpoint(services)
    assert found.is_planned
    assert found.ring == 1
    [part] = found.in_progress
    assert (part.step, part.ring_number, part.phase_number) == (Step.PATCH, 1, 0)
    assert {one.key for one in part.machines} == {third.key, fourth.key}
    assert all(isinstance(one, PlacedMachine) and Permit("run", 20).text in one.permits for one in part.machines)
    assert found.failures == {"run": 2, "ring:canary": 2, "lane:canary/westeurope": 2}
    assert not found.forgiven


@pytest.mark.parametrize("reader", ["the next generation", "the close of the run"])
async def test_what_a_dead_worker_left_out_behind_a_final_row_is_completed(
    services: Services, storage: Storage, run: Run, reader: str
) -> None:
    first, second, *_ = await plan(storage)
    until = datetime.now(UTC) + 60 * MINUTE
    for one in (first, second):
        await storage.leases.acquire(one.key, RUN, datetime.now(UTC), until)
    columns = {
        "stage": "done",
        "outcome": "patched",
        "reason": "ok",
        "message": "",
        "endedAt": "2026-11-10T19:30:00.000Z",
    }
    await storage._store.results.merge(RUN, f"m~{first.key}", columns)
    if reader == "the next generation":
        await checkpoint(services)
    else:
        request = CloseOpenMachines(run_id=RUN, outcome=Outcome.canceled())
        assert (await close_open_machines(services, request)).closed == 4
    [told] = (await storage.history.list_page(first.key, 10, None)).items
    assert (told["runId"], told["outcome"]) == (RUN, "patched")
    locked = await storage.leases.held([first.key, second.key], RUN, datetime.now(UTC))
    assert locked == ({second.key} if reader == "the next generation" else set())


async def test_a_lock_of_another_run_is_ignored(services: Services, storage: Storage, run: Run) -> None:
    first, *_ = await plan(storage)
    other = "20261110T190000Z-weekly"
    await storage.leases.acquire(first.key, other, datetime.now(UTC), datetime.now(UTC) + 60 * MINUTE)
    assert not (await checkpoint(services)).in_progress


async def test_accepted_failures_stay_accepted(services: Services, storage: Storage, run: Run) -> None:
    first, second, *_ = await plan(storage)
    await storage.results.record_outcome(RUN, first.key, FAILED, at=NOW, installation=None, patches=[])
    await storage.runs.pause(RUN, command(at=NOW + MINUTE))
    await storage.runs.resume(RUN, command(at=NOW + 2 * MINUTE))
    await storage.results.record_outcome(RUN, second.key, FAILED, at=NOW + 3 * MINUTE, installation=None, patches=[])
    found = await checkpoint(services)
    assert (found.failures["run"], found.forgiven["run"], found.resume_count) == (2, 1, 1)


async def test_windows_and_bake_times_continue(services: Services, storage: Storage, run: Run) -> None:
    first, second, *_ = await plan(storage)
    for one, minutes in ((first, 0), (second, 7)):
        await storage.results.record_outcome(
            RUN, one.key, FAILED, at=NOW + minutes * MINUTE, installation=None, patches=[]
        )
    await storage.runs.enter_window(RUN, NOW + 600 * MINUTE)
    await storage.runs.enter_window(RUN, NOW + 900 * MINUTE)
    found = await checkpoint(services)
    assert (found.windows, found.ended_at, found.ring) == (2, NOW + 7 * MINUTE, 0)
    assert found.lane_bake_until == {"canary/westeurope": NOW + 37 * MINUTE}


async def test_a_machine_in_the_middle_is_followed_whatever_speaks_against_a_start(
    services: Services, storage: Storage, run: Run
) -> None:
    """The run was cancelled meanwhile; no call to Azure is needed to know that it has to be followed."""
    first, *_ = await plan(storage)
    await storage.machines.update(RUN, first.key, Stage.INSTALLING, powered_on_by_run=True)
    await storage.runs.cancel(RUN, command())
    request = PreflightRequest(run_id=RUN, machine_key=first.key, start_stopped=False)
    result = await preflight_machine(services, request)
    assert result.preflight.readiness is Readiness.READY
    assert result.is_in_progress
    assert result.powered_on_by_run


async def test_a_heartbeat_is_written_once_a_minute(services: Services, storage: Storage, run: Run) -> None:
    await record_heartbeat(services.storage, run)
    first = await storage.runs.get(RUN)
    assert first is not None
    assert first.heartbeat_deadline is not None
    assert abs(first.heartbeat_deadline - datetime.now(UTC) - HEARTBEAT_TIMEOUT) < MINUTE
    await record_heartbeat(services.storage, first)
    again = await storage.runs.get(RUN)
    assert again is not None
    assert again.heartbeat_deadline == first.heartbeat_deadline
    assert again.state is RunState.RUNNING


@pytest.mark.parametrize(("seconds", "is_written"), [(55, False), (65, True), (-65, True)])
async def test_a_heartbeat_is_written_when_it_differs_by_a_minute(
    services: Services, storage: Storage, run: Run, seconds: int, *, is_written: bool
) -> None:
    known = datetime.now(UTC) + 30 * MINUTE - timedelta(seconds=seconds)
    await storage.runs.extend_heartbeat(RUN, known)
    before = await storage.runs.get(RUN)
    assert before is not None
    await record_heartbeat(services.storage, before)
    after = await storage.runs.get(RUN)
    assert after is not None
    assert (after.heartbeat_deadline != before.heartbeat_deadline) is is_written


async def test_five_hundred_are_resumed_at_a_time_and_found_on_every_page_of_the_plan(
    services: Services, storage: Storage, run: Run
) -> None:
    machines = [machine(number, stage=Stage.INSTALLING) for number in range(520)]
    await storage.machines.add(RUN, machines)
    whole = make([planned_machine(number, ring="canary") for number in range(520)])
    await storage.plans.save(RUN, whole, in_order(whole), SHORT)
    [part] = (await checkpoint(services)).in_progress
    assert len(part.machines) == len({one.key for one in part.machines}) == 500


async def test_waves_of_completed_rings_are_not_counted(services: Services, storage: Storage, run: Run) -> None:
    first, _, third, *_ = await plan(storage)
    for one in (first, third):
        await storage.results.record_outcome(RUN, one.key, FAILED, at=NOW, installation=None, patches=[])
    await storage.runs.resume(RUN, command(at=NOW + MINUTE))
    found = await checkpoint(services)
    assert (found.ring, found.ended) == (1, 1)
    assert found.failures == {
        "run": 2,
        "ring:canary": 1,
        "lane:canary/westeurope": 1,
        "ring:broad": 1,
        "lane:broad/westeurope": 1,
        "wave:broad/westeurope/1": 1,
    }
    assert found.ended_at == NOW


async def test_a_sleeping_run_has_a_later_deadline_until_it_is_awake(
    services: Services, storage: Storage, run: Run
) -> None:
    until = NOW + timedelta(days=400)
    await extend_heartbeat(services, HeartbeatRequest(run_id=RUN, until=until))
    asleep = await storage.runs.get(RUN)
    assert asleep is not None
    assert asleep.heartbeat_deadline == until + HEARTBEAT_TIMEOUT
    await record_heartbeat(services.storage, asleep)
    awake = await storage.runs.get(RUN)
    assert awake is not None
    assert awake.heartbeat_deadline is not None
    assert awake.heartbeat_deadline < until
