"""Changing patch modes on real records and the simulator, step by step as the orchestrator does it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities import patch_mode_change
from activities.patch_mode_change import next_patch_mode_wave, step_patch_mode_change
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.command import Command
from patchwave.domain.core.documents import Json
from patchwave.domain.core.ids import MachineId
from patchwave.domain.fleet.machine import FleetMachine, read_machine
from patchwave.domain.fleet.patch_mode import PatchMode, WantedSettings
from patchwave.domain.fleet.patch_mode_change import (
    ChangeEnd,
    ChangeProgress,
    ChangeRef,
    ChangeState,
    MachineChange,
    MachineChangeRef,
    ModeChange,
    plan_machine,
)
from patchwave.domain.policy.scope import Scope
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.hook_calls import REFUSALS
from tests.support.simulated_azure import azure
from tests.support.simulator import Simulator

__all__ = ["azure"]

NOW = datetime.now(UTC)
CHANGE = "20261121T140000Z-modes-1a2b3c4d"
PLATFORM = WantedSettings(patch_mode=PatchMode.AUTOMATIC_BY_PLATFORM, bypass=True)


def shown(simulator: Simulator, one: str) -> FleetMachine:
    """The machine as Resource Graph shows it."""
    found = simulator.machine(one)
    profile = found["properties"]["osProfile"]
    windows, linux = profile.get("windowsConfiguration") or {}, profile.get("linuxConfiguration") or {}
    machine = read_machine(
        {
            "id": one,
            "location": found["location"],
            "osType": found["properties"]["storageProfile"]["osDisk"]["osType"],
            "windowsPatchSettings": windows.get("patchSettings"),
            "windowsAutomaticUpdates": windows.get("enableAutomaticUpdates"),
            "linuxPatchSettings": linux.get("patchSettings"),
        }
    )
    assert machine is not None
    return machine


async def plan(
    storage: Storage, simulator: Simulator, ids: list[str], wanted: WantedSettings = PLATFORM, **changes: Any
) -> list[str]:
    """A change that was planned and started over these machines; their keys."""
    machines = [plan_machine(shown(simulator, one), wanted, NOW) for one in ids]
    order = Command(actor="ana", at=NOW)
    change = ModeChange(
        id=CHANGE,
        state=ChangeState.RUNNING,
        wanted=wanted,
        scope=Scope.model_validate({"machineIds": ids}),
        max_concurrent=10,
        max_failures=2,
        planned=order,
        started=order,
        machines=len(ids),
    ).model_copy(update=changes)
    await storage.patch_mode_changes.create(change, machines)
    return [MachineId.parse(one).key for one in ids]


async def wave(services: Services) -> list[str]:
    return (await next_patch_mode_wave(services, ChangeRef(change_id=CHANGE))).machine_keys


async def step(services: Services, key: str) -> ChangeProgress:
    return await step_patch_mode_change(services, MachineChangeRef(change_id=CHANGE, machine_key=key))


async def finish(services: Services, storage: Storage, key: str) -> MachineChange:
    """Step until the machine has its end."""
    for _ in range(200):
        if (await step(services, key)).has_ended:
            return await row(storage, key)
        await asyncio.sleep(0.02)
    raise AssertionError("the machine does not end")


async def row(storage: Storage, key: str) -> MachineChange:
    found = await storage.patch_mode_changes.get_machine(CHANGE, key)
    assert found is not None
    return found


def patches(simulator: Simulator, one: str) -> int:
    """How many PATCH requests there were about a machine."""
    found: list[Json] = simulator.http.get("/_sim/requests").json()["requests"]
    return sum(each["method"] == "PATCH" and str(each["path"]).lower() == one.lower() for each in found)


@pytest.mark.parametrize("system", ["Windows", "Linux"])
async def test_a_machine_is_changed_and_shown_so(
    services: Services, azure: Simulator, storage: Storage, system: str
) -> None:
    one = azure.take_system(system)
    [key] = await plan(storage, azure, [one])
    assert await wave(services) == [key]
    ended = await finish(services, storage, key)
    assert (ended.end, ended.message) == (ChangeEnd.CHANGED, "Azure shows the machine as it was wanted.")
    assert ended.before is not None
    assert ended.before.patch_mode is not PatchMode.AUTOMATIC_BY_PLATFORM
    settings = shown(azure, one).settings
    assert settings is not None
    assert PLATFORM.is_met_by(settings)
    assert patches(azure, one) == 1
    assert await wave(services) == []
    change = await storage.patch_mode_changes.get(CHANGE)
    assert change is not None
    assert (change.state, change.counts_by_end) == (ChangeState.COMPLETED, {"changed": 1})


async def test_a_machine_whose_row_cannot_be_read_has_failed_and_the_others_go_on(
    services: Services, azure: Simulator, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = azure.take_system("Linux"), azure.take_system("Linux")
    damaged, whole = await plan(storage, azure, [one, two])
    await storage._store.results.merge(CHANGE, f"c~{damaged}", {"before": "{"})
    assert set(await wave(services)) == {damaged, whole}
    assert (await step(services, damaged)).has_ended
    assert any(damaged in line.getMessage() and line.exc_info for line in caplog.records)
    assert (await finish(services, storage, whole)).end is ChangeEnd.CHANGED
    assert patches(azure, one) == 0
    assert await wave(services) == []
    change = await storage.patch_mode_changes.get(CHANGE)
    assert change is not None
    assert (change.state, change.counts_by_end) == (ChangeState.COMPLETED, {"changed": 1, "failed": 1})
    page = await storage.patch_mode_changes.list_machines(CHANGE, end=None, limit=10, cursor=None)
    assert ([each.key for each in page.items], page.unreadable) == ([whole], [f"c~{damaged}"])


async def test_machines_without_a_change_and_refused_ones_get_no_request(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    so_already, other = azure.take_system("Linux"), azure.take_system("Windows")
    await plan(storage, azure, [so_already, other], WantedSettings(patch_mode=PatchMode.IMAGE_DEFAULT))
    assert await wave(services) == []
    rows = {one: await row(storage, MachineId.parse(one).key) for one in (so_already, other)}
    assert rows[so_already].end is ChangeEnd.UNCHANGED
    assert rows[other].end is ChangeEnd.REFUSED
    assert patches(azure, so_already) == patches(azure, other) == 0


async def test_a_worker_that_died_after_the_request_finds_what_was_done(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take_system("Linux")
    [key] = await plan(storage, azure, [one])
    await step(services, key)
    # As if nothing had been written after the request.
    await storage.patch_mode_changes.update_machine(CHANGE, key, is_accepted=False)
    assert (await finish(services, storage, key)).end is ChangeEnd.CHANGED
    assert patches(azure, one) == 1


async def test_a_change_that_azure_takes_and_does_not_carry_out_has_failed(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take_system("Linux", updateFails=True)
    [key] = await plan(storage, azure, [one])
    ended = await finish(services, storage, key)
    assert (ended.end, ended.message) == (ChangeEnd.FAILED, "Azure took the change and did not carry it out.")


@pytest.mark.parametrize(
    ("simulation", "end", "said"),
    [
        ({"imageUnsupported": True}, ChangeEnd.REFUSED, "not supported"),
        ({"forbidden": True}, ChangeEnd.FAILED, "lacks the right"),
    ],
)
async def test_a_refusal_of_azure_is_the_end(
    services: Services, azure: Simulator, storage: Storage, simulation: Json, end: ChangeEnd, said: str
) -> None:
    one = azure.take_system("Linux")
    [key] = await plan(storage, azure, [one])
    azure.http.post("/_sim/machines", json={"id": one, "simulation": simulation})
    ended = await finish(services, storage, key)
    assert ended.end is end
    assert said in ended.message


async def test_a_busy_machine_is_waited_for_and_given_up_after_half_an_hour(
    services: Services, azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = azure.take_system("Linux", busy=True)
    [key] = await plan(storage, azure, [one])
    progress = await step(services, key)
    assert not progress.has_ended
    assert progress.wait_seconds
    later = datetime.now(UTC) + timedelta(minutes=31)
    monkeypatch.setattr(patch_mode_change, "now", lambda: later)
    ended = await finish(services, storage, key)
    assert ended.end is ChangeEnd.FAILED


async def test_a_stop_keeps_everything_that_was_not_begun(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    begun, waiting = azure.take_system("Linux"), azure.take_system("Linux")
    first, second = await plan(storage, azure, [begun, waiting], max_concurrent=1)
    keys = {first: begun, second: waiting}
    [key] = await wave(services)
    await step(services, key)
    await storage.patch_mode_changes.stop(CHANGE, Command(actor="ben", reason="wrong tag", at=datetime.now(UTC)))
    assert (await finish(services, storage, key)).end is ChangeEnd.CHANGED
    assert await wave(services) == []
    [other] = keys.keys() - {key}
    left = await row(storage, other)
    assert (left.end, left.message) == (ChangeEnd.CANCELED, "Stopped by ben: wrong tag.")
    assert patches(azure, keys[other]) == 0
    change = await storage.patch_mode_changes.get(CHANGE)
    assert change is not None
    assert (change.state, change.counts_by_end) == (ChangeState.STOPPED, {"changed": 1, "canceled": 1})


async def test_after_a_stop_no_further_machine_of_the_wave_is_changed(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take_system("Linux")
    [key] = await plan(storage, azure, [one])
    assert await wave(services) == [key]
    await storage.patch_mode_changes.stop(CHANGE, Command(actor="ben", at=datetime.now(UTC)))
    assert (await finish(services, storage, key)).end is ChangeEnd.CANCELED
    assert patches(azure, one) == 0


async def test_too_many_failures_end_the_change(services: Services, azure: Simulator, storage: Storage) -> None:
    ids = [azure.take_system("Linux", updateFails=True) for _ in range(3)]
    keys = await plan(storage, azure, ids, max_concurrent=2)
    for key in await wave(services):
        assert (await finish(services, storage, key)).end is ChangeEnd.FAILED
    assert await wave(services) == []
    change = await storage.patch_mode_changes.get(CHANGE)
    assert change is not None
    assert change.state is ChangeState.STOPPED
    assert change.message == "2 machines failed, and the change was to end at 2."
    assert change.counts_by_end == {"failed": 2, "canceled": 1}
    assert sum([(await row(storage, key)).end is ChangeEnd.CANCELED for key in keys]) == 1


_CONFLICT = {"status": 409, "body": {"error": {"code": "Conflict", "message": "Another operation is in progress."}}}


@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "not taken"])
@pytest.mark.parametrize(
    "answer", [_CONFLICT, {"status": 429, "headers": {"Retry-After": "0"}}, {"status": 503}, None],
    ids=["409", "429", "503", "none"],
)  # fmt: skip
async def test_an_accepted_change_is_never_sent_again(
    services: Services, azure: Simulator, storage: Storage, answer: Json | None, is_taken: bool
) -> None:
    one = azure.take_system("Linux")
    [key] = await plan(storage, azure, [one])
    effect = {"drop": "after" if is_taken else "before"} if answer is None else answer | {"accept": is_taken}
    rule = {"match": {"method": "PATCH", "path": f"*{one}"}, "times": 1, "effect": effect}
    assert azure.http.post("/_sim/faults", json=rule).status_code == 201
    ended = await finish(services, storage, key)
    assert ended.end is ChangeEnd.CHANGED
    assert patches(azure, one) == (1 if is_taken else 2)


async def test_a_sure_refusal_that_passes_is_followed_by_another_request_at_once(
    services: Services, azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """401: the token was refused, so nothing was taken, and there is nothing to wait for."""
    one = azure.take_system("Linux")
    [key] = await plan(storage, azure, [one])
    rule = {"match": {"method": "PATCH", "path": f"*{one}"}, "times": 1, "effect": {"status": 401}}
    assert azure.http.post("/_sim/faults", json=rule).status_code == 201
    stopped = datetime.now(UTC)
    monkeypatch.setattr(patch_mode_change, "now", lambda: stopped)
    assert not (await step(services, key)).has_ended
    assert (await row(storage, key)).refused_at is not None
    await step(services, key)
    assert patches(azure, one) == 2


async def test_the_actor_of_the_stop_is_in_each_machine(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take_system("Linux")
    [key] = await plan(storage, azure, [one], stopped=Command(actor="ben", at=NOW, reason="wrong fleet"))
    assert await wave(services) == []
    ended = await row(storage, key)
    assert (ended.end, ended.message) == (ChangeEnd.CANCELED, "Stopped by ben: wrong fleet.")
    change = await storage.patch_mode_changes.get(CHANGE)
    assert change is not None
    assert (change.state, change.message) == (ChangeState.STOPPED, "Stopped by ben: wrong fleet.")
    assert change.counts_by_end == {"canceled": 1}
    assert change.ended_at is not None


@pytest.mark.parametrize(("effect", "named"), REFUSALS, ids=["lock", "policy"])
async def test_a_finally_refused_change_has_the_reason(
    services: Services, azure: Simulator, storage: Storage, effect: Json, named: str
) -> None:
    one = azure.take_system("Linux")
    [key] = await plan(storage, azure, [one])
    rule = {"match": {"method": "PATCH", "path": f"*{one}"}, "effect": effect}
    assert azure.http.post("/_sim/faults", json=rule).status_code == 201
    ended = await finish(services, storage, key)
    assert ended.end is ChangeEnd.REFUSED
    assert named in ended.message.partition(" (HTTP ")[0]
    assert patches(azure, one) == 1


THROTTLED = ArmFailure(status=429, code="TooManyRequests", message="too many GETs", retry_after=20)


class Throttled:
    """Azure throttles every read."""

    async def read(self, machine: MachineId) -> ArmFailure:
        return THROTTLED


async def test_a_throttled_machine_keeps_its_time_until_the_change_is_stopped(
    services: Services, azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key,) = await plan(storage, azure, [azure.take()])
    vars(services).update(patch_settings=Throttled())
    begun = await step(services, key)
    assert (begun.has_ended, begun.wait_seconds >= 20) == (False, True)
    for hours in (1, 12):
        monkeypatch.setattr(patch_mode_change, "now", lambda hours=hours: NOW + timedelta(hours=hours))
        assert not (await step(services, key)).has_ended
    assert 60 <= (await row(storage, key)).throttled_seconds <= 70
    await storage.patch_mode_changes.stop(CHANGE, Command(actor="ana", at=NOW))
    assert (await step(services, key)).has_ended
    assert (await row(storage, key)).end is ChangeEnd.CANCELED
