"""Around a scheduled run, on real records and the simulator: its machines, their power, results, the cancellation."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.machine import preflight_machine
from activities.maintenance_machine import check_machine_power, finalize_machine, record_pre_result
from activities.maintenance_results import import_results
from activities.maintenance_run import (
    cancel_occurrence,
    find_occurrence_machines,
    finish_pre_phase,
    get_shard,
    list_shards,
    load_maintenance_run,
    summarize_maintenance_run,
)
from activities.power import start_machine, stop_machine
from activities.snapshot import take_snapshot
from patchwave.azure.resource_graph import QueryPage, ResourceGraph
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.machine.hooks import HookState
from patchwave.domain.maintenance.occurrence import EventTimeouts, OccurrenceId, ScheduledRun, from_first_event
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.workflow.machine import MachineRef, PowerRequest, PreflightRequest, PreflightResult
from patchwave.domain.workflow.maintenance_run import (
    FinalizeRequest,
    MaintenancePhase,
    MaintenancePhaseRef,
    PowerState,
    PrePhaseEnd,
    PreResult,
    PreSummary,
    ShardRef,
)
from patchwave.domain.workflow.run import MachinesPage, MachinesPageRequest, RunRef
from patchwave.settings import load_settings
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.hook_calls import finish
from tests.support.maintenance_requests import CANCEL_API, PROVIDER, made, put
from tests.support.simulated_azure import azure
from tests.support.simulator import SPEED, SUBSCRIPTION, Simulator

__all__ = ["azure"]

type Json = dict[str, Any]

SINCE = datetime(2026, 11, 21, tzinfo=UTC)

_BYPASS = {"bypassPlatformSafetyChecksOnUserSchedule": True}
_SETTINGS = {"patchMode": "AutomaticByPlatform", "automaticByPlatformSettings": _BYPASS}
_FAR_MINUTES = 8_000
"""Of the simulator: long enough ahead for everything, however busy this machine is."""
_TIMEOUTS = EventTimeouts(
    prepare=timedelta(hours=1), cutoff=timedelta(minutes=10) / SPEED, post=timedelta(hours=1) / SPEED
)


@pytest.fixture
def fired(azure: Simulator) -> Callable[..., Json]:
    """Fire a run of a new configuration over machines of these simulations; what the simulator says of it."""

    def fire(name: str, *simulations: Json, minutes: float = _FAR_MINUTES) -> Json:
        configuration = made(azure, name)
        for simulation in simulations:
            one = azure.take(**({"installMinutes": 1, "pendingPatches": 2, "rebootRequired": False} | simulation))
            half = "linuxConfiguration" if int(one[-3:]) % 2 == 0 else "windowsConfiguration"
            change = {"properties": {"osProfile": {half: {"patchSettings": _SETTINGS}}}}
            reply = azure.http.patch(one, params=CANCEL_API, json=change)
            reply.status_code = 202
            azure.follow(reply)
            assignment = {"location": "westeurope", "properties": {"maintenanceConfigurationId": configuration}}
            assert put(azure, f"{one}{PROVIDER}/configurationAssignments/{name}", assignment).status_code == 200
        fired = {"configuration": configuration, "inMinutes": minutes}
        return azure.http.post("/_sim/maintenance/fire", json=fired).json()

    return fire


async def begin(services: Services, storage: Storage, fired: Json, **policy: Any) -> str:
    """A maintenance run for the scheduled run that was fired; its id."""
    starts_at = datetime.fromisoformat(fired["startsAt"])
    scheduled = ScheduledRun(OccurrenceId.parse(fired["id"]), starts_at, starts_at + timedelta(seconds=6))
    document = {
        "name": "weekly",
        "scope": {"subscriptions": [SUBSCRIPTION]},
        "maintenance": {"configurations": [str(scheduled.id.configuration)]},
        **policy,
    }
    run = Run(
        id=scheduled.id.run_id("weekly").text,
        policy="weekly",
        mode=Mode.MAINTENANCE,
        state=RunState.QUEUED,
        trigger=Trigger(kind=TriggerKind.EVENT_GRID),
        created_at=datetime.now(UTC),
        policy_snapshot=document,
        maintenance=from_first_event(scheduled, _TIMEOUTS, datetime.now(UTC)),
    )
    await storage.runs.create(run)
    status = await load_maintenance_run(services, RunRef(run_id=run.id))
    assert not status.is_ended
    return run.id


async def pages[Listed: MachinesPage](
    services: Services,
    activity: Callable[[Services, MachinesPageRequest], Awaitable[Listed]],
    request: MachinesPageRequest,
) -> Listed:
    while True:
        page = await activity(services, request)
        assert not page.failure, page.failure
        if not page.cursor:
            return page
        request = request.model_copy(update={"cursor": page.cursor})


async def found(services: Services, storage: Storage, run_id: str, count: int) -> list[MachineRecord]:
    """The machines of the run, once Resource Graph shows so many."""
    for _ in range(200):
        page = await pages(services, find_occurrence_machines, MachinesPageRequest(run_id=run_id))
        if page.machines >= count:
            return [machine async for machine in storage.machines.scan(run_id)]
        await asyncio.sleep(0.03)
    raise AssertionError("Resource Graph does not show the machines")


def ref(run_id: str, machine: MachineRecord) -> MachineRef:
    return MachineRef(run_id=run_id, machine_key=machine.key)


async def row(storage: Storage, run_id: str, machine: MachineRecord) -> MachineRecord:
    got = await storage.machines.get(run_id, machine.key)
    assert got is not None
    return got


def power(azure: Simulator, machine: MachineRecord) -> str:
    view = azure.machine(machine.id)["properties"]["instanceView"]["statuses"]
    return next(each["code"] for each in view if each["code"].startswith("PowerState"))


async def preflight(services: Services, run_id: str, machine: MachineRecord) -> PreflightResult:
    request = PreflightRequest(run_id=run_id, machine_key=machine.key, start_stopped=True)
    return await preflight_machine(services, request)


async def prepared(
    services: Services, run_id: str, machine: MachineRecord, problem: str = "", *, start_refused: bool = False
) -> None:
    done = PreResult(run_id=run_id, machine_key=machine.key, pre_tasks_error=problem, start_refused=start_refused)
    await record_pre_result(services, done)


def change(run_id: str, machine: MachineRecord) -> PowerRequest:
    return PowerRequest(run_id=run_id, machine_key=machine.key, since=SINCE)


async def stop(services: Services, run_id: str, machine: MachineRecord) -> None:
    """Until the machine shows it, as the orchestrator does."""
    for _ in range(100):
        if (await stop_machine(services, change(run_id, machine))).accepted:
            return
        await asyncio.sleep(0.03)
    raise AssertionError("the machine does not stop")


async def test_the_machines_of_the_run_that_the_policy_holds_get_a_row(
    services: Services, azure: Simulator, storage: Storage, fired: Callable[..., Json]
) -> None:
    run = fired("found", {}, {}, {})
    one, *others = sorted(run["machines"], key=str.lower)
    run_id = await begin(services, storage, run, scope={"machineIds": others})
    machines = await found(services, storage, run_id, 2)
    assert {machine.id.lower() for machine in machines} == {each.lower() for each in others}
    assert one.lower() not in {machine.id.lower() for machine in machines}
    assert {machine.os_type for machine in machines} <= {"Linux", "Windows"}
    assert {machine.update_manager_status for machine in machines} == {"Pending"}
    shards = await list_shards(services, MaintenancePhaseRef(run_id=run_id, phase=MaintenancePhase.PRE))
    assert shards.cursors == [None]
    await prepared(services, run_id, machines[0])
    before = await get_shard(services, ShardRef(run_id=run_id, phase=MaintenancePhase.PRE))
    after = await get_shard(services, ShardRef(run_id=run_id, phase=MaintenancePhase.POST))
    assert before.keys == [machines[1].key]
    assert sorted(after.keys) == sorted(machine.key for machine in machines)


async def test_rows_about_no_virtual_machine_are_counted_and_named_once(
    services: Services, azure: Simulator, storage: Storage, fired: Callable[..., Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fired("passed", {})
    run_id = await begin(services, storage, run)
    (machine,) = await found(services, storage, run_id, 1)
    arc = machine.id.replace("Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines")
    whole = ResourceGraph.page

    async def page(
        self: ResourceGraph, query: str, subscriptions: Sequence[str] = (), skip_token: str = ""
    ) -> QueryPage:
        read = await whole(self, query, subscriptions, skip_token)
        extra: list[Json] = [{"id": "x", "resourceId": arc, "properties": {}}, {"id": "no-id", "properties": {}}]
        return replace(read, rows=[*read.rows, *extra]) if "applyupdates" in query.lower() else read

    monkeypatch.setattr(ResourceGraph, "page", page)
    for _ in range(2):
        assert [each.key for each in await found(services, storage, run_id, 1)] == [machine.key]
    stored = await storage.runs.get(run_id)
    assert stored is not None
    assert stored.maintenance is not None
    assert stored.maintenance.passed_over == [arc, "no-id"]
    lines = (await storage.audit.list_page(run_id, 50, None)).items
    assert [line["detail"] for line in lines if line["action"] == "machines_passed_over"] == [
        {"machines": 2, "examples": [arc, "no-id"]}
    ]


async def test_power_is_restored_however_often_any_step_is_repeated(
    services: Services, azure: Simulator, storage: Storage, fired: Callable[..., Json]
) -> None:
    run_id = await begin(
        services, storage, fired("powered", {"power": "deallocated"}, {"power": "stopped"}, {}), startStopped=True
    )
    machines = await found(services, storage, run_id, 3)
    before = {machine.key: power(azure, machine) for machine in machines}
    for _ in range(2):
        # A worker that died after any of these does them again.
        for machine in machines:
            if before[machine.key] != "PowerState/running":
                await start_machine(services, change(run_id, machine))
    for machine in machines:
        await prepared(services, run_id, machine)
    assert {(await row(storage, run_id, machine)).powered_on_by_run for machine in machines} == {True, False}
    for _ in range(2):
        for machine in machines:
            await stop(services, run_id, machine)
    after: dict[str, str] = {}
    for _ in range(100):
        after = {machine.key: power(azure, machine) for machine in machines}
        if after == before:
            break
        await asyncio.sleep(0.03)
    assert after == before


async def test_a_machine_that_was_running_is_not_ours_to_stop(
    services: Services, azure: Simulator, storage: Storage, fired: Callable[..., Json]
) -> None:
    run_id = await begin(services, storage, fired("others", {}, {"power": "deallocated"}), startStopped=True)
    running, stopped = sorted(
        await found(services, storage, run_id, 2), key=lambda machine: machine.power_state, reverse=True
    )
    assert power(azure, running) == "PowerState/running"
    assert (await start_machine(services, change(run_id, running))).accepted
    assert not (await row(storage, run_id, running)).powered_on_by_run
    await start_machine(services, change(run_id, stopped))
    await prepared(services, run_id, stopped, "Azure refused.", start_refused=True)
    assert not (await row(storage, run_id, stopped)).powered_on_by_run


async def test_hooks_run_before_it_and_not_once_their_time_is_over(
    services: Services, azure: Simulator, storage: Storage, fired: Callable[..., Json]
) -> None:
    run_id = await begin(services, storage, fired("hooked", {}, {}), hooks={"snapshot": {}})
    first, second = await found(services, storage, run_id, 2)
    assert (await preflight(services, run_id, first)).preflight.outcome is None
    done = await finish(services, take_snapshot, ref(run_id, first))
    assert done.state is HookState.DONE
    await storage.runs.update_occurrence(
        run_id, lambda known: known.model_copy(update={"pre_deadline": datetime.now(UTC) - timedelta(seconds=1)})
    )
    late = await take_snapshot(services, ref(run_id, second))
    assert late.state is HookState.FAILED
    assert late.outcome is not None
    assert late.outcome.reason is Reason.WINDOW_CLOSED


async def test_no_run_of_ours_installs_meanwhile(
    services: Services, azure: Simulator, storage: Storage, fired: Callable[..., Json]
) -> None:
    run_id = await begin(services, storage, fired("locked", {}))
    (machine,) = await found(services, storage, run_id, 1)
    await preflight(services, run_id, machine)
    await prepared(services, run_id, machine)
    at = datetime.now(UTC)
    assert await storage.leases.acquire(machine.key, "another", at, at + timedelta(hours=1)) == run_id
    await finalize_machine(services, FinalizeRequest(run_id=run_id, machine_key=machine.key))
    assert await storage.leases.acquire(machine.key, "another", at, at + timedelta(hours=1)) == "another"


async def test_the_run_is_cancelled_before_its_cutoff_and_only_then(
    services: Services, azure: Simulator, storage: Storage, fired: Callable[..., Json]
) -> None:
    early = fired("early", {})
    run_id = await begin(services, storage, early)
    (machine,) = await found(services, storage, run_id, 1)
    await prepared(services, run_id, machine, "The snapshot failed.")
    end = PrePhaseEnd(run_id=run_id)
    assert await finish_pre_phase(services, end) == PreSummary(machines=1, failed=1)
    request = RunRef(run_id=run_id)
    for _ in range(2):
        assert (await cancel_occurrence(services, request)).canceled
    known = azure.http.get("/_sim/maintenance").json()["occurrences"]
    assert next(each["status"] for each in known if each["id"] == early["id"]) == "Cancelled"
    await finalize_machine(services, FinalizeRequest(run_id=run_id, machine_key=machine.key))
    ended = await row(storage, run_id, machine)
    assert (ended.outcome, ended.reason) == (OutcomeKind.SKIPPED, Reason.HOOK_FAILED.value)

    late_id = await begin(services, storage, fired("late", {}, minutes=1))
    result = await cancel_occurrence(services, RunRef(run_id=late_id))
    assert not result.canceled
    assert not result.wait_seconds
    run = await storage.runs.get(late_id)
    assert run is not None
    assert run.maintenance is not None
    assert run.maintenance.cancel_failure
    actions = {line["action"] for line in (await storage.audit.list_page(late_id, 20, None)).items}
    assert "occurrence_not_canceled" in actions


async def test_a_machine_outside_of_the_boundary_is_left_alone_and_cancels_nothing(
    services: Services, azure: Simulator, storage: Storage, fired: Callable[..., Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHWAVE_SUBSCRIPTIONS", "99999999-2222-4333-8444-555555555555")
    load_settings.cache_clear()
    run_id = await begin(services, storage, fired("beyond", {}))
    (machine,) = await found(services, storage, run_id, 1)
    assert (machine.outcome, machine.reason) == (OutcomeKind.SKIPPED, "outside_boundary")
    assert (await list_shards(services, MaintenancePhaseRef(run_id=run_id, phase=MaintenancePhase.PRE))).cursors == []
    end = PrePhaseEnd(run_id=run_id)
    assert await finish_pre_phase(services, end) == PreSummary(machines=1, failed=0)
    # The schedule is outside as well: were it to be cancelled, nothing would be sent.
    result = await cancel_occurrence(services, RunRef(run_id=run_id))
    assert (result.canceled, result.failure and result.failure.code) == (False, "OutsideBoundary")


async def test_a_run_that_has_begun_is_not_cancelled_whatever_azure_answers(
    services: Services, azure: Simulator, storage: Storage, fired: Callable[..., Json]
) -> None:
    """Azure answers 200 and ``Cancelled``, and the run goes on."""
    begun_id = await begin(services, storage, fired("begun", {}, minutes=0))
    result = await cancel_occurrence(services, RunRef(run_id=begun_id))
    assert (result.canceled, result.wait_seconds) == (False, 0)
    run = await storage.runs.get(begun_id)
    assert run is not None
    assert run.maintenance is not None
    assert run.maintenance.canceled_at is None
    assert "it had begun at" in run.maintenance.cancel_failure


async def test_results_become_ours_with_their_patches_and_contradictions_are_counted(
    services: Services, azure: Simulator, storage: Storage, fired: Callable[..., Json]
) -> None:
    run = fired("results", {}, {"power": "deallocated"}, {"pendingPatches": 1}, minutes=0)
    run_id = await begin(services, storage, run)
    machines = await found(services, storage, run_id, 3)
    for _ in range(300):
        copied = await pages(services, import_results, MachinesPageRequest(run_id=run_id))
        machines = await found(services, storage, run_id, 3)
        if not copied.awaited:
            break
        await asyncio.sleep(0.03)
    else:
        pytest.fail(
            f"results are still awaited: {[(each.update_manager_status, each.installation) for each in machines]}"
        )
    installed = {machine.update_manager_status: machine.installation for machine in machines}
    assert installed.pop("ShutdownOrUnresponsive") is None
    assert set(installed) == {"Succeeded"}
    for machine in machines:
        # The calendar of the simulator goes on: a patch that is released meanwhile is listed too, as not selected.
        states = Counter(patch.state for patch in await storage.results.list_patches(run_id, machine.key))
        assert states["Installed"] == (machine.installation.installed if machine.installation else 0)
        assert set(states) <= {"Installed", "NotSelected"}
        await finalize_machine(
            services, FinalizeRequest(run_id=run_id, machine_key=machine.key, problems=["And so on."])
        )
    kinds = sorted([machine.outcome or "" async for machine in storage.machines.scan(run_id)])
    assert kinds == ["patched", "patched", "skipped"]
    assert "And so on." in (await row(storage, run_id, machines[0])).message
    assert (await summarize_maintenance_run(services, RunRef(run_id=run_id))).status_mismatches == 0


async def test_a_machine_that_was_not_restored_needs_a_person_and_keeps_its_lease(
    services: Services, azure: Simulator, storage: Storage, fired: Callable[..., Json]
) -> None:
    run_id = await begin(services, storage, fired("left", {}))
    (machine,) = await found(services, storage, run_id, 1)
    await preflight(services, run_id, machine)
    await prepared(services, run_id, machine)
    concluding = FinalizeRequest(
        run_id=run_id,
        machine_key=machine.key,
        problems=["The script failed."],
        not_restored="It could not be stopped again: HTTP 409.",
        keep_lease=True,
    )
    await finalize_machine(services, concluding)
    ended = await row(storage, run_id, machine)
    assert ended.outcome is not None
    assert ended.outcome.needs_person
    assert ended.message.endswith("The script failed. It could not be stopped again: HTTP 409.")
    at = datetime.now(UTC)
    assert await storage.leases.acquire(machine.key, "another", at, at + timedelta(hours=1)) == run_id


async def test_a_hibernated_machine_is_skipped_and_not_started(
    services: Services, azure: Simulator, storage: Storage, fired: Callable[..., Json]
) -> None:
    run_id = await begin(services, storage, fired("hibernated", {"power": "hibernated"}), startStopped=True)
    (machine,) = await found(services, storage, run_id, 1)
    seen = (await preflight(services, run_id, machine)).preflight
    assert seen.outcome is not None
    assert seen.outcome.reason.value == "hibernated"
    done = PreResult(run_id=run_id, machine_key=machine.key, is_hibernated=True)
    await record_pre_result(services, done)
    assert (await check_machine_power(services, ref(run_id, machine))).state is PowerState.OFF
    await finalize_machine(services, FinalizeRequest(run_id=run_id, machine_key=machine.key))
    ended = await row(storage, run_id, machine)
    assert (ended.outcome, ended.power_state, ended.powered_on) == (OutcomeKind.SKIPPED, "hibernated", False)
    assert power(azure, machine) == "PowerState/deallocated"


async def test_a_power_check_afterwards_shows_what_can_be_done(
    services: Services, azure: Simulator, storage: Storage, fired: Callable[..., Json]
) -> None:
    run_id = await begin(services, storage, fired("checked", {}, {"power": "deallocated"}))
    machines = await found(services, storage, run_id, 2)
    signs = {
        power(azure, machine): (await check_machine_power(services, ref(run_id, machine))).state for machine in machines
    }
    assert signs == {"PowerState/running": PowerState.READY, "PowerState/deallocated": PowerState.OFF}
    gone = machines[0]
    azure.http.post("/_sim/machines", json={"id": gone.id, "simulation": {"gone": True}})
    assert (await check_machine_power(services, ref(run_id, gone))).state is PowerState.OFF
    assert MachineId.parse(gone.id).key == gone.key
