"""restart_machine on real records and the simulator: one restart, followed to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from activities import power
from activities.machine import preflight_machine
from activities.power import restart_machine, start_machine, stop_machine
from adapters.tables import Records
from domain.freeze import parse_freeze
from domain.guard import GuardedCall
from domain.run import IntentState, Order, Stage
from domain.work import MachineRef, PowerResult, PreflightRequest, PreflightResult
from tests.activities.azure import azure
from tests.activities.test_hooks import RUN_ID, Json, fault, prepare, row, sent
from tests.simulator.conftest import Simulator

__all__ = ["azure"]


def request(key: str) -> Json:
    return MachineRef(run_id=RUN_ID, machine_key=key).to_wire()


async def ask(key: str) -> PowerResult:
    return PowerResult.from_wire(await restart_machine(request(key)))


async def finish(key: str, change: Callable[[Json], Awaitable[Json]] = restart_machine) -> PowerResult:
    """Call until it is done or has failed, as the orchestrator does."""
    for _ in range(100):
        result = PowerResult.from_wire(await change(request(key)))
        if result.accepted or not result.wait_seconds:
            return result
        await asyncio.sleep(0.05)
    raise AssertionError(f"{change.__name__} does not end")


async def test_a_restart_is_done_when_the_machine_has_restarted(azure: Simulator, records: Records) -> None:
    one = azure.take(rebootPending=True)
    key = await prepare(records, one, {})
    first = await ask(key)
    assert not first.accepted, "Azure has taken the call; the machine has not restarted yet"
    assert first.wait_seconds
    assert (await row(records, key)).stage is Stage.RESTARTING
    assert (await finish(key)).accepted
    assert azure.http.get("/_sim/state", params={"id": one}).json()["machines"][0]["rebootPending"] is False
    assert (await finish(key)).accepted
    assert len(sent(azure, "power", "POST", one)) == 1


async def test_nothing_is_sent_while_somebody_pauses_the_run(azure: Simulator, records: Records) -> None:
    one = azure.take(rebootPending=True)
    key = await prepare(records, one, {})
    await records.pause_run(RUN_ID, Order(by="ana", at=datetime.now(UTC)))
    assert (await ask(key)).left
    assert sent(azure, "power", "POST", one) == []
    await records.resume_run(RUN_ID, Order(by="ana", at=datetime.now(UTC)))
    assert (await finish(key)).accepted


async def test_nothing_is_sent_once_the_window_leaves_no_time_for_it(azure: Simulator, records: Records) -> None:
    """Azure may have throttled the restart since the machine was looked at."""
    one = azure.take(rebootPending=True)
    key = await prepare(records, one, {}, window_end=datetime.now(UTC) + timedelta(minutes=9))
    assert (await ask(key)).left
    assert sent(azure, "power", "POST", one) == []


async def test_nothing_is_sent_to_a_machine_that_was_frozen_meanwhile(azure: Simulator, records: Records) -> None:
    one = azure.take(rebootPending=True)
    key = await prepare(records, one, {})
    at = datetime.now(UTC)
    bounds = {"from": at - timedelta(hours=1), "to": at + timedelta(hours=1)}
    frozen = {name: f"{moment:%Y-%m-%dT%H:%M:%SZ}" for name, moment in bounds.items()} | {"reason": "year end"}
    await records.put_freeze(parse_freeze(frozen, name="year-end"), by="ana", at=at)
    assert (await ask(key)).left
    assert sent(azure, "power", "POST", one) == []


async def test_a_machine_that_was_put_back_gets_all_its_time_in_its_next_turn(
    azure: Simulator, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = azure.take()
    key = await prepare(records, one, {})
    fault(azure, {"match": {"machine": one, "operation": "power"}, "effect": {"status": 429}})
    assert (await ask(key)).wait_seconds
    await records.set_stage(RUN_ID, key, Stage.INSTALLED)
    monkeypatch.setattr(power, "now", lambda: datetime.now(UTC) + timedelta(days=30))
    assert (await ask(key)).wait_seconds, "the half hour of the turn before is long over"


async def test_a_refusal_for_good_says_why(azure: Simulator, records: Records) -> None:
    key = await prepare(records, azure.take(forbidden=True), {})
    result = await ask(key)
    assert (result.accepted, result.wait_seconds) == (False, 0)
    assert result.failure is not None
    assert result.failure.code == "AuthorizationFailed"


@pytest.mark.parametrize("effect", [{"status": 429}, {"status": 503}, {"drop": "before"}])
async def test_a_restart_that_was_not_taken_is_asked_for_again(
    azure: Simulator, records: Records, effect: Json
) -> None:
    one = azure.take(rebootPending=True)
    key = await prepare(records, one, {})
    fault(azure, {"match": {"machine": one, "operation": "power"}, "times": 1, "effect": effect})
    first = await ask(key)
    assert not first.accepted
    assert first.wait_seconds
    assert (await finish(key)).accepted
    assert azure.http.get("/_sim/state", params={"id": one}).json()["machines"][0]["rebootPending"] is False


async def test_a_restart_that_is_refused_for_too_long_is_given_up(
    azure: Simulator, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = azure.take()
    key = await prepare(records, one, {})
    fault(azure, {"match": {"machine": one, "operation": "power"}, "effect": {"status": 429}})
    assert (await ask(key)).wait_seconds
    monkeypatch.setattr(power, "now", lambda: datetime.now(UTC) + timedelta(hours=1))
    result = await ask(key)
    assert (result.accepted, result.wait_seconds) == (False, 0)


async def test_an_operation_that_cannot_be_read_gets_its_time(
    azure: Simulator, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = azure.take()
    key = await prepare(records, one, {})
    await ask(key)
    fault(azure, {"match": {"machine": one, "operation": "poll"}, "effect": {"status": 403}})
    assert not (await ask(key)).accepted
    monkeypatch.setattr(power, "now", lambda: datetime.now(UTC) + timedelta(minutes=6))
    assert (await ask(key)).accepted, "it was accepted; how the machine is now says the rest"


async def test_a_restart_that_does_not_end_is_given_up(
    azure: Simulator, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = azure.take()
    key = await prepare(records, one, {})
    await ask(key)
    running = {"startTime": "2026-11-21T00:00:00+00:00", "status": "InProgress", "name": "x"}
    fault(azure, {"match": {"machine": one, "operation": "poll"}, "effect": {"status": 200, "body": running}})
    monkeypatch.setattr(power, "now", lambda: datetime.now(UTC) + timedelta(minutes=20))
    waiting = await ask(key)
    assert waiting.wait_seconds >= 120, "the longer it takes, the longer the waits"
    monkeypatch.setattr(power, "now", lambda: datetime.now(UTC) + timedelta(hours=1))
    result = await ask(key)
    assert (result.accepted, result.wait_seconds) == (False, 0)
    assert "half an hour" in (result.failure.text if result.failure else "")


async def test_signed_urls_stay_in_the_guard(azure: Simulator, records: Records) -> None:
    key = await prepare(records, azure.take(), {})
    assert "http" not in repr(await restart_machine(request(key)))
    guard = await records.get_guard(RUN_ID, key, GuardedCall.RESTART)
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


async def test_a_hibernated_machine_is_not_started(azure: Simulator, records: Records) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(records, one, {})
    rule = {"match": {"machine": one, "operation": "read"}, "effect": {"status": 200, "body": HIBERNATED}}
    fault(azure, rule)
    look = PreflightRequest(run_id=RUN_ID, machine_key=key, start_stopped=True)
    found = PreflightResult.from_wire(await preflight_machine(look.to_wire())).preflight
    assert found.outcome is not None
    assert (found.outcome.outcome.value, found.outcome.reason.value) == ("skipped", "hibernated")
    started = PowerResult.from_wire(await start_machine(request(key)))
    assert (started.accepted, started.wait_seconds) == (False, 0)
    assert sent(azure, "power", "POST", one) == []
    assert not (await row(records, key)).started_by_us


async def is_ours_to_stop(key: str) -> bool:
    look = PreflightRequest(run_id=RUN_ID, machine_key=key, start_stopped=True)
    return PreflightResult.from_wire(await preflight_machine(look.to_wire())).started_by_us


async def test_a_machine_that_was_started_is_ours_until_azure_has_taken_its_stop(
    azure: Simulator, records: Records
) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(records, one, {})
    assert not await is_ours_to_stop(key)
    await start_machine(request(key))
    fault(azure, {"match": {"machine": one, "operation": "power"}, "times": 1, "effect": {"status": 409}})
    assert not PowerResult.from_wire(await stop_machine(request(key))).accepted
    assert await is_ours_to_stop(key)
    assert (await finish(key, stop_machine)).accepted, "taken as soon as it has started"
    assert not await is_ours_to_stop(key)
    stops = len(sent(azure, "power", "POST", f"{one}/deallocate"))
    assert PowerResult.from_wire(await stop_machine(request(key))).accepted
    assert len(sent(azure, "power", "POST", f"{one}/deallocate")) == stops


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_a_stop_that_is_not_taken_for_a_passing_reason_is_to_be_asked_for_again(
    azure: Simulator, records: Records, status: int
) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(records, one, {})
    await start_machine(request(key))
    fault(azure, {"match": {"machine": one, "operation": "power"}, "times": 1, "effect": {"status": status}})
    first = PowerResult.from_wire(await stop_machine(request(key)))
    assert not first.accepted
    assert first.wait_seconds
    assert await is_ours_to_stop(key)


async def test_a_start_that_azure_forbids_is_not_asked_for_again(azure: Simulator, records: Records) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(records, one, {})
    fault(azure, {"match": {"machine": one, "operation": "power"}, "effect": {"status": 403}})
    refused = PowerResult.from_wire(await start_machine(request(key)))
    assert (refused.accepted, refused.wait_seconds) == (False, 0)


@pytest.mark.parametrize("operation", ["power", "read"])
async def test_a_start_that_is_throttled_is_to_be_asked_for_again(
    azure: Simulator, records: Records, operation: str
) -> None:
    one = azure.take(power="deallocated")
    key = await prepare(records, one, {})
    rule = {"match": {"machine": one, "operation": operation}, "times": 1, "effect": {"status": 429}}
    fault(azure, rule | {"effect": {"status": 429, "headers": {"Retry-After": "0"}}})
    first = PowerResult.from_wire(await start_machine(request(key)))
    assert not first.accepted
    assert first.wait_seconds
    assert (await finish(key, start_machine)).accepted
