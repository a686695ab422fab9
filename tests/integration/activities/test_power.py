"""restart_machine on real records and the simulator: one restart, followed to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from activities import power
from activities.machine import preflight_machine
from activities.power import restart_machine, start_machine, stop_machine
from patchwave.domain.core.command import Command
from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.outcome import Outcome, Reason
from patchwave.domain.machine.at_most_once import AtMostOnceRecord, GuardedCall
from patchwave.domain.machine.power import not_started, not_stopped
from patchwave.domain.runs.intent import IntentState
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.scheduling.freeze import parse_freeze
from patchwave.domain.workflow.machine import MachineRef, PowerRequest, PowerResult, PreflightRequest
from patchwave.settings import load_settings
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.hook_calls import REFUSALS, Json, fault, prepare, row, sent
from tests.support.simulated_azure import azure
from tests.support.simulated_run import RUN_ID
from tests.support.simulator import Simulator

__all__ = ["azure"]


def request(key: str) -> MachineRef:
    return MachineRef(run_id=RUN_ID, machine_key=key)


def change(key: str, turn: int = 0) -> PowerRequest:
    """One start or stop; those of another ``turn`` are another."""
    since = datetime(2026, 11, 21, turn, tzinfo=UTC)
    return PowerRequest(run_id=RUN_ID, machine_key=key, since=since)


async def start(services: Services, key: str, turn: int = 0) -> PowerResult:
    return await start_machine(services, change(key, turn))


async def until_given_up(services: Services, key: str) -> PowerResult:
    for _ in range(200):
        result = await start(services, key)
        if not result.wait_seconds:
            return result
        await asyncio.sleep(0.05)
    raise AssertionError("the start is not given up")


async def stop(services: Services, key: str, turn: int = 0) -> PowerResult:
    return await stop_machine(services, change(key, turn))


async def until_it_runs(azure: Simulator, one: str) -> None:
    await until(azure, one, "running")


async def until(azure: Simulator, one: str, power: str) -> None:
    for _ in range(200):
        if shown(azure, one) == power:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{one} is not {power}")


def shown(azure: Simulator, one: str) -> str:
    return str(azure.http.get("/_sim/state", params={"id": one}).json()["machines"][0]["power"])


async def ask(services: Services, key: str) -> PowerResult:
    return await restart_machine(services, request(key))


async def finish(
    services: Services, key: str, activity: Callable[[Services, PowerRequest], Awaitable[PowerResult]] = restart_machine
) -> PowerResult:
    """Call until it is done or has failed, as the orchestrator does."""
    body = change(key)
    for _ in range(200):
        result = await activity(services, body)
        if result.accepted or not result.wait_seconds:
            return result
        await asyncio.sleep(0.05)
    raise AssertionError(f"{activity.__name__} does not end")


async def test_a_restart_is_done_when_the_machine_has_restarted(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take(rebootPending=True)
    key = await prepare(storage, one, {})
    first = await ask(services, key)
    assert not first.accepted, "Azure has taken the call; the machine has not restarted yet"
    assert first.wait_seconds
    assert (await row(storage, key)).stage is Stage.RESTARTING
    assert (await finish(services, key)).accepted
    assert azure.http.get("/_sim/state", params={"id": one}).json()["machines"][0]["rebootPending"] is False
    assert (await finish(services, key)).accepted
    assert len(sent(azure, "power", "POST", one)) == 1


async def test_nothing_is_sent_while_the_run_is_paused(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take(rebootPending=True)
    key = await prepare(storage, one, {})
    await storage.runs.pause(RUN_ID, Command(actor="ana", at=datetime.now(UTC)))
    assert (await ask(services, key)).requeued
    assert sent(azure, "power", "POST", one) == []
    await storage.runs.resume(RUN_ID, Command(actor="ana", at=datetime.now(UTC)))
    assert (await finish(services, key)).accepted


async def test_nothing_is_sent_once_the_window_leaves_no_time_for_it(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    """Azure may have throttled the restart since the preflight."""
    one = azure.take(rebootPending=True)
    key = await prepare(storage, one, {}, window_end=datetime.now(UTC) + timedelta(minutes=9))
    assert (await ask(services, key)).requeued
    assert sent(azure, "power", "POST", one) == []


async def test_nothing_is_sent_to_a_machine_that_was_frozen_meanwhile(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take(rebootPending=True)
    key = await prepare(storage, one, {})
    at = datetime.now(UTC)
    bounds = {"from": at - timedelta(hours=1), "to": at + timedelta(hours=1)}
    frozen = {name: f"{moment:%Y-%m-%dT%H:%M:%SZ}" for name, moment in bounds.items()} | {"reason": "year end"}
    await storage.freezes.put(parse_freeze(frozen, name="year-end"), actor="ana", at=at)
    assert (await ask(services, key)).requeued
    assert sent(azure, "power", "POST", one) == []


async def test_a_requeued_machine_gets_all_its_time_in_its_next_attempt(
    services: Services, azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = azure.take()
    key = await prepare(storage, one, {})
    fault(azure, {"match": {"machine": one, "operation": "power"}, "effect": {"status": 429}})
    assert (await ask(services, key)).wait_seconds
    await storage.machines.update(RUN_ID, key, Stage.INSTALLED)
    monkeypatch.setattr(power, "now", lambda: datetime.now(UTC) + timedelta(days=30))
    assert (await ask(services, key)).wait_seconds, "the half hour of the attempt before is long over"


async def test_a_final_refusal_has_the_reason(services: Services, azure: Simulator, storage: Storage) -> None:
    key = await prepare(storage, azure.take(forbidden=True), {})
    result = await ask(services, key)
    assert (result.accepted, result.wait_seconds) == (False, 0)
    assert result.failure is not None
    assert result.failure.code == "AuthorizationFailed"


@pytest.mark.parametrize("effect", [{"status": 429}, {"status": 503}, {"drop": "before"}])
async def test_a_restart_that_was_not_accepted_is_sent_again(
    services: Services, azure: Simulator, storage: Storage, effect: Json
) -> None:
    one = azure.take(rebootPending=True)
    key = await prepare(storage, one, {})
    fault(azure, {"match": {"machine": one, "operation": "power"}, "times": 1, "effect": effect})
    first = await ask(services, key)
    assert not first.accepted
    assert first.wait_seconds
    assert (await finish(services, key)).accepted
    assert azure.http.get("/_sim/state", params={"id": one}).json()["machines"][0]["rebootPending"] is False


async def test_a_restart_that_is_refused_for_too_long_is_given_up(
    services: Services, azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = azure.take()
    key = await prepare(storage, one, {})
    fault(azure, {"match": {"machine": one, "operation": "power"}, "effect": {"status": 409}})
    assert (await ask(services, key)).wait_seconds
    monkeypatch.setattr(power, "now", lambda: datetime.now(UTC) + timedelta(hours=1))
    result = await ask(services, key)
    assert (result.accepted, result.wait_seconds) == (False, 0)


async def test_an_operation_that_cannot_be_read_gets_its_time(
    services: Services, azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = azure.take()
    key = await prepare(storage, one, {})
    await ask(services, key)
    fault(azure, {"match": {"machine": one, "operation": "poll"}, "effect": {"status": 403}})
    assert not (await ask(services, key)).accepted
    monkeypatch.setattr(power, "now", lambda: datetime.now(UTC) + timedelta(minutes=6))
    assert (await ask(services, key)).accepted, "it was accepted; how the machine is now says the rest"


async def test_a_restart_that_does_not_end_is_given_up(
    services: Services, azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = azure.take()
    key = await prepare(storage, one, {})
    await ask(services, key)
    running = {"startTime": "2026-11-21T00:00:00+00:00", "status": "InProgress", "name": "x"}
    fault(azure, {"match": {"machine": one, "operation": "poll"}, "effect": {"status": 200, "body": running}})
    monkeypatch.setattr(power, "now", lambda: datetime.now(UTC) + timedelta(minutes=20))
    waiting = await ask(services, key)
    assert waiting.wait_seconds >= 120, "the longer it takes, the longer the waits"
    monkeypatch.setattr(power, "now", lambda: datetime.now(UTC) + timedelta(hours=1))
    result = await ask(services, key)
    assert (result.accepted, result.wait_seconds) == (False, 0)
    assert "half an hour" in (result.failure.text if result.failure else "")


async def test_signed_urls_stay_in_the_guard(services: Services, azure: Simulator, storage: Storage) -> None:
    key = await prepare(storage, azure.take(), {})
    assert "http" not in repr(await restart_machine(services, request(key)))
    guard = await storage.at_most_once.get(RUN_ID, key, GuardedCall.RESTART)
    assert guard is not None
    assert guard.state is IntentState.ACCEPTED
    assert guard.async_url


HIBERNATED = {
    "properties": {
        "provisioningState": "Succeeded",
        "storageProfile": {"osDisk": {"osType": "Linux"}},
        "instanceView": {
            "hyperVGeneration": "V2",
            "statuses": [
                {
                    "code": "ProvisioningState/succeeded",
                    "level": "Info",
                    "displayStatus": "Provisioning succeeded",
                    "time": "2026-11-30T06:00:09.1192081+00:00",
                },
                {"code": "HibernationState/Hibernated", "level": "Info", "displayStatus": "VM hibernated"},
                {"code": "PowerState/deallocated", "level": "Info", "displayStatus": "VM deallocated"},
            ],
        },
        "additionalCapabilities": {"hibernationEnabled": True},
    }
}


async def test_a_hibernated_machine_is_not_started(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(storage, one, {})
    rule = {"match": {"machine": one, "operation": "read"}, "effect": {"status": 200, "body": HIBERNATED}}
    fault(azure, rule)
    request = PreflightRequest(run_id=RUN_ID, machine_key=key, start_stopped=True)
    found = (await preflight_machine(services, request)).preflight
    assert found.outcome is not None
    assert (found.outcome.outcome.value, found.outcome.reason.value) == ("skipped", "hibernated")
    started = await start(services, key)
    assert (started.accepted, started.wait_seconds) == (False, 0)
    assert sent(azure, "power", "POST", one) == []
    assert not (await row(storage, key)).powered_on_by_run


async def is_ours_to_stop(services: Services, key: str) -> bool:
    request = PreflightRequest(run_id=RUN_ID, machine_key=key, start_stopped=True)
    return (await preflight_machine(services, request)).powered_on_by_run


async def test_a_machine_that_was_started_is_ours_until_it_shows_that_it_is_off(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(storage, one, {})
    assert not await is_ours_to_stop(services, key)
    assert (await start(services, key)).accepted
    await until_it_runs(azure, one)
    first = await stop(services, key)
    assert (first.accepted, first.is_open) == (False, True), "Azure has taken it; the machine is not off yet"
    assert first.wait_seconds
    assert await is_ours_to_stop(services, key)
    assert (await finish(services, key, stop_machine)).accepted
    assert shown(azure, one) == "deallocated"
    assert not (await row(storage, key)).powered_on_by_run
    assert (await stop(services, key)).accepted
    assert len(sent(azure, "power", "POST", f"{one}/deallocate")) == 1
    assert len(sent(azure, "power", "POST", f"{one}/start")) == 1


async def test_the_power_state_right_before_the_start_is_restored(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    """It was deallocated when the run looked at it first, and has been stopped in another way since."""
    one = azure.take(power="deallocated")
    key = await prepare(storage, one, {})
    assert not await is_ours_to_stop(services, key)
    azure.http.post("/_sim/machines", json={"id": one, "simulation": {"power": "stopped"}})
    assert shown(azure, one) == "stopped"
    assert (await start(services, key)).accepted
    assert (await row(storage, key)).power_state == "stopped"


async def test_a_machine_that_was_only_stopped_is_only_stopped_again(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take(power="stopped")
    key = await prepare(storage, one, {})
    assert (await start(services, key)).accepted
    await until_it_runs(azure, one)
    assert (await finish(services, key, stop_machine)).accepted
    assert shown(azure, one) == "stopped"
    assert sent(azure, "power", "POST", f"{one}/deallocate") == []


async def test_a_machine_that_was_never_started_after_all_is_not_stopped(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(storage, one, {})
    fault(azure, {"match": {"machine": one, "operation": "power"}, "effect": {"status": 403}})
    refused = await start(services, key)
    assert (refused.accepted, refused.wait_seconds, refused.is_open) == (False, 0, False)
    assert (await stop(services, key)).accepted
    assert not (await row(storage, key)).powered_on_by_run
    assert len(sent(azure, "power", "POST", one)) == 1


_ANSWERS = [
    {"status": 202},
    {"status": 200},
    {"status": 409, "body": {"error": {"code": "Conflict", "message": "Another operation is in progress."}}},
    {"status": 429, "headers": {"Retry-After": "0"}},
    {"status": 500},
    {"status": 503},
]


@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "not taken"])
@pytest.mark.parametrize("answer", [*_ANSWERS, None], ids=lambda each: str(each["status"]) if each else "none")
@pytest.mark.parametrize("verb", ["start", "deallocate"])
async def test_the_machine_is_read_before_anything_is_sent_again(
    services: Services, azure: Simulator, storage: Storage, verb: str, answer: Json | None, is_taken: bool
) -> None:
    """One wrong answer to the first call: what Azure took is sent once, what it did not take is sent again."""
    one = azure.take(power="deallocated")
    key = await prepare(storage, one, {})
    effect = {"drop": "after" if is_taken else "before"} if answer is None else answer | {"accept": is_taken}
    rule = {"match": {"machine": one, "operation": "power", "path": f"*/{verb}"}, "times": 1, "effect": effect}
    fault(azure, rule)
    for _ in range(200):
        if shown(azure, one) == "running":
            break
        await start(services, key)
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("the machine does not start")
    assert (await finish(services, key, stop_machine)).accepted
    assert shown(azure, one) == "deallocated"
    calls = sent(azure, "power", "POST", f"{one}/{verb}")
    assert len(calls) == (1 if is_taken else 2)


@pytest.mark.parametrize("status", [202, 409, 429, 500, 503])
async def test_a_stop_that_is_never_carried_out_fails_in_bounded_time(
    services: Services, azure: Simulator, storage: Storage, status: int
) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(storage, one, {})
    assert (await start(services, key)).accepted
    await until_it_runs(azure, one)
    rule = {"match": {"machine": one, "operation": "power"}, "effect": {"status": status, "headers": {}}}
    fault(azure, rule)
    began = datetime.now(UTC)
    if status in (429, 503):
        assert (await stop(services, key)).wait_seconds
        for _ in range(40):
            assert (await stop(services, key)).wait_seconds, "being kept back uses up no time of the machine"
            await asyncio.sleep(0.02)
        return
    result = await finish(services, key, stop_machine)
    assert datetime.now(UTC) - began < timedelta(seconds=15)
    assert (result.accepted, result.is_open) == (False, True)
    assert result.failure is not None
    assert "the machine is still running" in result.failure.text
    assert result.failure.text.startswith("Azure took the call") == (status == 202)
    assert shown(azure, one) == "running"
    assert 2 <= len(sent(azure, "power", "POST", f"{one}/deallocate")) <= 9
    assert await is_ours_to_stop(services, key)
    # The next turn has all its time again.
    azure.http.delete("/_sim/faults")
    for _ in range(100):
        if (await stop(services, key, 1)).accepted:
            break
        await asyncio.sleep(0.05)
    assert shown(azure, one) == "deallocated"


async def test_a_start_that_is_never_carried_out_fails_in_bounded_time(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(storage, one, {})
    fault(azure, {"match": {"machine": one, "operation": "power"}, "effect": {"status": 202}})
    first = await start(services, key)
    assert first.accepted, "it may start any moment"
    result = await until_given_up(services, key)
    assert not result.accepted
    assert result.failure is not None
    assert result.failure.text == "Azure took the call, and the machine is still deallocated"
    assert 2 <= len(sent(azure, "power", "POST", f"{one}/start")) <= 9


async def test_the_reason_of_a_failed_start_is_kept(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take(power="deallocated", startFails=True)
    key = await prepare(storage, one, {})
    result = await until_given_up(services, key)
    assert result.failure is not None
    assert "AllocationFailed" in result.failure.text
    assert "sufficient capacity" in result.failure.text


async def test_a_machine_that_a_person_stopped_after_its_start_is_not_started_again(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    """The operation of the start has ended well, so the machine did run."""
    one = azure.take(power="deallocated")
    key = await prepare(storage, one, {})
    assert (await start(services, key)).accepted
    await until_it_runs(azure, one)
    azure.post(one, "deallocate")
    await until(azure, one, "deallocated")
    await asyncio.sleep(0.25)
    result = await start(services, key)
    assert (result.accepted, result.wait_seconds) == (False, 0)
    assert result.failure is not None
    assert result.failure.text == "Azure reports that it was done, and since then the machine is deallocated"
    assert len(sent(azure, "power", "POST", f"{one}/start")) == 1


@pytest.mark.parametrize(("effect", "named"), REFUSALS, ids=["lock", "policy"])
async def test_a_refusal_for_good_is_named_and_nothing_is_repeated(
    services: Services, azure: Simulator, storage: Storage, effect: Json, named: str
) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(storage, one, {})
    rule = {"match": {"machine": one, "path": "*/start"}, "effect": effect, "times": 1}
    fault(azure, rule)
    refused = await start(services, key)
    assert (refused.accepted, refused.wait_seconds, refused.is_open) == (False, 0, False)
    told = not_started(Outcome.skipped(Reason.NOT_RUNNING, "It is deallocated."), refused.failure)
    assert told.reason.value in ("scope_locked", "disallowed_by_policy")
    assert named in told.message.partition(" (HTTP ")[0]
    assert (await start(services, key, 1)).accepted
    await until_it_runs(azure, one)
    fault(azure, {"match": {"machine": one, "path": "*/deallocate"}, "effect": effect})
    result = await stop(services, key)
    assert (result.accepted, result.wait_seconds, result.is_open) == (False, 0, False)
    assert named in not_stopped(result.failure, is_open=False).sentence.partition(" (HTTP ")[0]
    assert len(sent(azure, "power", "POST", f"{one}/deallocate")) == 1


@pytest.mark.parametrize(("effect", "named"), REFUSALS, ids=["lock", "policy"])
async def test_a_restart_that_is_refused_for_good_is_not_sent_again(
    services: Services, azure: Simulator, storage: Storage, effect: Json, named: str
) -> None:
    one = azure.take()
    key = await prepare(storage, one, {})
    fault(azure, {"match": {"machine": one, "path": "*/restart"}, "effect": effect})
    result = await ask(services, key)
    assert (result.accepted, result.wait_seconds, result.is_open) == (False, 0, False)
    assert result.failure is not None
    assert named in result.failure.text
    guard = await storage.at_most_once.get(RUN_ID, key, GuardedCall.RESTART)
    assert guard is not None
    assert guard.state is IntentState.REFUSED


async def test_a_machine_that_is_gone_needs_no_stop(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(storage, one, {})
    assert (await start(services, key)).accepted
    azure.http.post("/_sim/machines", json={"id": one, "simulation": {"gone": True}})
    assert (await stop(services, key)).accepted
    assert sent(azure, "power", "POST", f"{one}/deallocate") == []


@pytest.mark.parametrize("operation", ["power", "read"])
async def test_a_throttled_start_is_to_be_retried(
    services: Services, azure: Simulator, storage: Storage, operation: str
) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(storage, one, {})
    rule = {"match": {"machine": one, "operation": operation}, "times": 1}
    fault(azure, rule | {"effect": {"status": 429, "headers": {"Retry-After": "0"}}})
    first = await start(services, key)
    assert first.wait_seconds
    for _ in range(100):
        if shown(azure, one) == "running":
            return
        await asyncio.sleep(0.05)
        await start(services, key)
    raise AssertionError("it does not start")


# --- a restart whose answer says nothing for certain


@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "not taken"])
@pytest.mark.parametrize("answer", [*_ANSWERS[2:], None], ids=lambda each: str(each["status"]) if each else "none")
async def test_a_restart_is_carried_out_once_whatever_azure_answers(
    services: Services, azure: Simulator, storage: Storage, answer: Json | None, is_taken: bool
) -> None:
    one = azure.take(rebootPending=True)
    key = await prepare(storage, one, {})
    effect = {"drop": "after" if is_taken else "before"} if answer is None else answer | {"accept": is_taken}
    fault(azure, {"match": {"machine": one, "operation": "power"}, "times": 1, "effect": effect})
    monkey = datetime.now(UTC)
    assert not (await ask(services, key)).accepted
    for _ in range(40):
        if len(sent(azure, "power", "POST", one)) == 2:
            break
        await ask(services, key)
        await asyncio.sleep(0.03)
    assert datetime.now(UTC) - monkey < timedelta(seconds=30)
    assert len(sent(azure, "power", "POST", one)) == (1 if is_taken else 2)
    guard = await storage.at_most_once.get(RUN_ID, key, GuardedCall.RESTART)
    assert guard is not None
    assert guard.state is IntentState.ACCEPTED
    assert azure.http.get("/_sim/state", params={"id": one}).json()["machines"][0]["rebootPending"] is False


async def test_a_restart_of_an_execution_that_died_is_found(
    services: Services, azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = azure.take(rebootPending=True)
    key = await prepare(storage, one, {})
    at = datetime.now(UTC)
    await storage.machines.update(RUN_ID, key, Stage.RESTARTING)
    await storage.at_most_once.declare(
        AtMostOnceRecord(
            run_id=RUN_ID,
            machine_key=key,
            call=GuardedCall.RESTART,
            token="of-the-dead",
            created_at=at,
            deadline_at=at + timedelta(minutes=30),
        )
    )
    monkeypatch.setattr(power, "now", lambda: at + timedelta(seconds=0.19))
    first = await ask(services, key)
    assert (first.accepted, first.is_open) == (False, True)
    assert sent(azure, "power", "POST", one) == []
    monkeypatch.setattr(power, "now", lambda: at + timedelta(seconds=0.2))
    assert not (await ask(services, key)).accepted
    assert len(sent(azure, "power", "POST", one)) == 1


async def test_a_start_of_a_worker_that_died_is_sent_again_however_long_the_app_was_away(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(storage, one, {})
    await storage.machines.update(RUN_ID, key, Stage.WAITING, powered_on_by_run=True, power_state="deallocated")
    at = datetime.now(UTC) - timedelta(hours=1)
    await storage.at_most_once.declare(
        AtMostOnceRecord(
            run_id=RUN_ID,
            machine_key=key,
            call=GuardedCall.START,
            token="of-the-dead",
            change_id=format_instant(change(key).since),
            created_at=at,
            deadline_at=at + timedelta(minutes=15),
        )
    )
    assert (await start(services, key)).accepted
    await until_it_runs(azure, one)
    assert len(sent(azure, "power", "POST", one)) == 1


async def test_a_call_has_two_minutes_to_show_and_a_change_a_quarter_of_an_hour(
    services: Services, azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the poll interval of Azure, 30 seconds, and an Azure that takes the stop and does nothing."""
    one = azure.take(power="deallocated")
    key = await prepare(storage, one, {})
    assert (await start(services, key)).accepted
    await until_it_runs(azure, one)
    monkeypatch.setenv("PATCHWAVE_POLL_SECONDS", "30")
    load_settings.cache_clear()
    fault(azure, {"match": {"machine": one, "operation": "power"}, "effect": {"status": 202}})
    began = datetime.now(UTC)

    async def stop_after(seconds: float) -> tuple[PowerResult, int]:
        monkeypatch.setattr(power, "now", lambda: began + timedelta(seconds=seconds))
        result = await stop(services, key)
        return result, len(sent(azure, "power", "POST", f"{one}/deallocate"))

    first, posts = await stop_after(0)
    assert posts == 1
    assert 27 <= first.wait_seconds <= 33
    assert [(await stop_after(seconds))[1] for seconds in (60, 119, 120, 239, 240)] == [1, 1, 2, 2, 3]
    late, posts = await stop_after(899)
    assert (posts, late.wait_seconds > 0) == (4, True)
    assert (await stop_after(899))[0].wait_seconds <= 33
    end, posts = await stop_after(900)
    assert (posts, end.accepted, end.wait_seconds, end.is_open) == (4, False, 0, True)
