"""check_health on real records and the Resource Manager simulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.health import check_health
from patchwave.azure.resource_health import ResourceHealth
from patchwave.azure.virtual_machines import ResourceManager
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.command import Command
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.machine.health import HealthRequest, HealthResult, HealthState, Moment
from patchwave.domain.runs.machine_record import MachineRecord, SignalState, Stage
from patchwave.domain.runs.run import RunState, Trigger, TriggerKind
from patchwave.settings import load_settings
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.azure import Access
from tests.support.simulated_run import AT, RUN_ID, create_run
from tests.support.simulator import Simulator


@pytest.fixture(autouse=True)
async def azure(
    services: Services, storage: Storage, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """The simulator in the place of Azure."""
    del storage  # which has made the other settings
    monkeypatch.setenv("PATCHWAVE_RESOURCE_MANAGER", simulator.ready["arm"])
    load_settings.cache_clear()
    access = Access(simulator.ready)
    manager = ResourceManager(access.settings, access.credential)
    watcher = ResourceHealth(access.settings, access.pipeline())
    monkeypatch.setattr(manager, "_pipeline", access.pipeline())
    vars(services).update(resource_manager=manager)
    vars(services).update(resource_health=watcher)
    yield
    await manager.close()
    await watcher.close()


async def prepare(storage: Storage, one: str, section: dict[str, Any] | None = None, **fields: Any) -> str:
    """A run with that machine; the machine's key."""
    run = {"state": RunState.RUNNING, "trigger": Trigger(kind=TriggerKind.HTTP, actor="ada@example.com")}
    machine = {"stage": Stage.ASSESSED, "location": "", "os_type": ""} | fields
    (key,) = await create_run(storage, one, policy={"health": section or {}}, run=run, **machine)
    return key


async def check(services: Services, key: str, moment: Moment, looked_for: float = 0) -> HealthResult:
    request = HealthRequest(run_id=RUN_ID, machine_key=key, moment=moment, looked_for=looked_for)
    return await check_health(services, request)


async def row(storage: Storage, key: str) -> MachineRecord:
    found = await storage.machines.get(RUN_ID, key)
    assert found is not None
    return found


def change(simulator: Simulator, one: str, **simulation: object) -> None:
    reply = simulator.http.post("/_sim/machines", json={"id": one, "simulation": simulation})
    assert reply.status_code == 200, reply.text


async def test_a_healthy_machine_before_and_after(services: Services, storage: Storage, simulator: Simulator) -> None:
    key = await prepare(storage, simulator.take(appHealth="healthy"))
    assert await check(services, key, Moment.BEFORE) == HealthResult(state=HealthState.OK)
    assert await check(services, key, Moment.AFTER) == HealthResult(state=HealthState.OK)
    machine = await row(storage, key)
    assert machine.stage is Stage.ASSESSED
    assert machine.health_before is not None
    assert machine.health_after is not None
    states = {name: signal.state for name, signal in machine.health_before.signals.items()}
    assert states == dict.fromkeys(["power", "agent", "vmHealth", "resourceHealth"], SignalState.HEALTHY)


async def test_one_that_became_unhealthy_gets_time_and_then_fails(
    services: Services, storage: Storage, simulator: Simulator
) -> None:
    one = simulator.take()
    key = await prepare(storage, one, {"settle": "PT10M"})
    assert (await check(services, key, Moment.BEFORE)).state is HealthState.OK
    change(simulator, one, resourceHealth="Unavailable")
    early = await check(services, key, Moment.AFTER, 30)
    assert early.state is HealthState.WAIT
    assert 0 < early.wait_seconds <= 570
    late = await check(services, key, Moment.AFTER, 600)
    assert late.state is HealthState.UNHEALTHY
    assert late.outcome is not None
    assert (late.outcome.outcome, late.outcome.reason) == (OutcomeKind.FAILED, Reason.UNHEALTHY)
    assert "Resource Health says Unavailable" in late.outcome.message
    assert (await row(storage, key)).stage is Stage.ASSESSED, "recording the outcome is another activity's task"


async def test_a_cancelled_run_gives_no_machine_time_to_settle(
    services: Services, storage: Storage, simulator: Simulator
) -> None:
    one = simulator.take()
    key = await prepare(storage, one, {"settle": "PT10M"})
    assert (await check(services, key, Moment.BEFORE)).state is HealthState.OK
    change(simulator, one, resourceHealth="Unavailable")
    assert (await check(services, key, Moment.AFTER, 30)).state is HealthState.WAIT
    await storage.runs.cancel(RUN_ID, Command(actor="ana", at=AT))
    judged = await check(services, key, Moment.AFTER, 60)
    assert judged.state is HealthState.UNHEALTHY
    assert judged.outcome is not None
    assert (judged.outcome.outcome, judged.outcome.reason) == (OutcomeKind.FAILED, Reason.UNHEALTHY)
    assert judged.outcome.message.endswith("The run was cancelled before the machine had its time to settle.")
    late = await check(services, key, Moment.AFTER, 600)
    assert late.outcome is not None
    assert "cancelled" not in late.outcome.message
    assert await check(services, key, Moment.BEFORE) == HealthResult(state=HealthState.OK), "the next step says so"


async def test_the_lock_lasts_while_a_machine_settles(
    services: Services, storage: Storage, simulator: Simulator
) -> None:
    """It may take two hours, which the lease of the installation did not foresee."""
    one = simulator.take(appHealth="healthy")
    key = await prepare(storage, one)
    at = datetime.now(UTC)
    await check(services, key, Moment.AFTER)
    assert await storage.leases.held([key], RUN_ID, at + timedelta(hours=2)) == {key}
    await storage.leases.release(key, RUN_ID)
    await storage.results.record_outcomes(RUN_ID, [key], Outcome.canceled(), AT)
    await check(services, key, Moment.AFTER)
    assert await storage.leases.held([key], RUN_ID, at) == set(), "it has ended"


async def test_a_machine_that_recovers_is_healthy_at_once(
    services: Services, storage: Storage, simulator: Simulator
) -> None:
    one = simulator.take()
    key = await prepare(storage, one)
    await check(services, key, Moment.BEFORE)
    change(simulator, one, agent="notReady")
    assert (await check(services, key, Moment.AFTER)).state is HealthState.WAIT
    change(simulator, one, agent="ready")
    assert (await check(services, key, Moment.AFTER, 30)).state is HealthState.OK


async def test_one_that_was_unhealthy_before_is_patched_and_noted(
    services: Services, storage: Storage, simulator: Simulator
) -> None:
    key = await prepare(storage, simulator.take(resourceHealth="Degraded"))
    assert (await check(services, key, Moment.BEFORE)).state is HealthState.OK
    assert (await check(services, key, Moment.AFTER)).state is HealthState.OK
    before = (await row(storage, key)).health_before
    assert before is not None
    assert before.healthy is False
    assert "Degraded" in before.reason


async def test_one_that_we_started_may_settle_before(
    services: Services, storage: Storage, simulator: Simulator
) -> None:
    key = await prepare(storage, simulator.take(appHealth="unhealthy"), powered_on_by_run=True)
    assert (await check(services, key, Moment.BEFORE)).state is HealthState.WAIT
    assert (await row(storage, key)).health_before is None
    assert (await check(services, key, Moment.BEFORE, 15 * 60)).state is HealthState.OK


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_firing_alert_vetoes(services: Services, storage: Storage, simulator: Simulator, enabled: bool) -> None:
    one = simulator.take(alerts=[{"rule": "cpu-high", "severity": "Sev0"}])
    key = await prepare(storage, one, {"alerts": {}, "enabled": enabled})
    answer = await check(services, key, Moment.BEFORE)
    assert answer.state is HealthState.UNHEALTHY
    assert answer.outcome is not None
    assert (answer.outcome.outcome, answer.outcome.reason) == (OutcomeKind.SKIPPED, Reason.ALERT_FIRING)
    change(simulator, one, alerts=[{"rule": "cpu-high", "severity": "Sev0", "condition": "Resolved"}])
    assert (await check(services, key, Moment.BEFORE)).state is HealthState.OK


async def test_alerts_count_only_where_the_policy_has_them(
    services: Services, storage: Storage, simulator: Simulator
) -> None:
    key = await prepare(storage, simulator.take(alerts=[{"rule": "cpu-high"}]))
    assert (await check(services, key, Moment.BEFORE)).state is HealthState.OK


async def test_unreadable_alerts_are_retried_and_then_veto(
    services: Services, storage: Storage, simulator: Simulator
) -> None:
    key = await prepare(storage, simulator.take(), {"alerts": {}})
    rule = {
        "match": {"operation": "alerts"},
        "times": 2,
        "effect": {"status": 429, "headers": {"Retry-After": "17"}, "body": {"error": {"code": "TooManyRequests"}}},
    }
    assert simulator.http.post("/_sim/faults", json=rule).status_code == 201
    first = await check(services, key, Moment.BEFORE)
    assert first.state is HealthState.WAIT
    assert first.wait_seconds >= 17
    later = await check(services, key, Moment.BEFORE, 86_000)
    assert later.state is HealthState.WAIT, "being throttled uses up no time"
    assert later.wait_seconds == 300
    assert simulator.http.post("/_sim/faults", json=rule | {"times": 1}).status_code == 201
    last = await check(services, key, Moment.BEFORE, 86_401)
    assert last.outcome is not None
    assert (last.outcome.outcome, last.outcome.reason) == (OutcomeKind.SKIPPED, Reason.THROTTLED)


@pytest.mark.parametrize(("looked_for", "state"), [(299, HealthState.WAIT), (301, HealthState.UNHEALTHY)])
async def test_alerts_that_fail_are_waited_for_five_minutes(
    services: Services,
    storage: Storage,
    simulator: Simulator,
    looked_for: float,
    state: HealthState,
) -> None:
    class Broken:
        async def fired_alerts(self, *_: object) -> ArmFailure:
            return ArmFailure(status=500, code="InternalServerError")

    vars(services).update(resource_health=Broken())
    key = await prepare(storage, simulator.take(), {"alerts": {}})
    assert (await check(services, key, Moment.BEFORE, looked_for)).state is state


async def test_settling_follows_the_clock_of_a_trial(
    services: Services, storage: Storage, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = simulator.take()
    key = await prepare(storage, one, {"settle": "PT10M"})
    assert (await check(services, key, Moment.BEFORE)).state is HealthState.OK
    change(simulator, one, resourceHealth="Unavailable")
    monkeypatch.setenv("PATCHWAVE_CLOCK_SPEED", "60")
    load_settings.cache_clear()
    assert (await check(services, key, Moment.AFTER, 9)).state is HealthState.WAIT
    assert (await check(services, key, Moment.AFTER, 10)).state is HealthState.UNHEALTHY


async def test_a_probe_of_a_host_that_is_not_listed_has_no_result(
    services: Services, storage: Storage, simulator: Simulator
) -> None:
    key = await prepare(storage, simulator.take(), {"probe": {"url": "http://169.254.169.254/metadata"}})
    assert (await check(services, key, Moment.BEFORE)).state is HealthState.OK
    before = (await row(storage, key)).health_before
    assert before is not None
    assert before.signals["probe"].state is SignalState.UNKNOWN
    assert "PATCHWAVE_PROBE_HOSTS" in before.signals["probe"].detail


async def test_an_unreadable_machine_is_read_again(services: Services, storage: Storage, simulator: Simulator) -> None:
    one = simulator.take()
    key = await prepare(storage, one, {"resourceHealth": False})
    rule = {"match": {"operation": "read", "machine": one}, "times": 2, "effect": {"status": 503}}
    assert simulator.http.post("/_sim/faults", json=rule).status_code == 201
    first, second = await check(services, key, Moment.BEFORE), await check(services, key, Moment.BEFORE, 300)
    assert (
        (first.state, first.counts_as_attempt) == (second.state, second.counts_as_attempt) == (HealthState.WAIT, False)
    )
    assert (await check(services, key, Moment.BEFORE, 300)).state is HealthState.OK
    assert (await check(services, key, Moment.AFTER)).state is HealthState.OK


async def test_a_policy_without_health_sends_no_request(
    services: Services, storage: Storage, simulator: Simulator
) -> None:
    key = await prepare(storage, simulator.take(), {"enabled": False})
    before = simulator.http.get("/_sim").json()["requests"]
    assert (await check(services, key, Moment.BEFORE)).state is HealthState.OK
    assert simulator.http.get("/_sim").json()["requests"] == before


async def test_the_first_check_reuses_the_view_of_the_preflight(
    services: Services, storage: Storage, simulator: Simulator
) -> None:
    """One read for both, and only once: whatever comes later is read again."""
    one = simulator.take(appHealth="healthy")
    key = await prepare(storage, one)
    machine = MachineId.parse(one)
    await services.resource_manager.read_machine(machine, keep_for=Moment.BEFORE)
    change(simulator, one, appHealth="unhealthy")
    await check(services, key, Moment.BEFORE)
    before = (await row(storage, key)).health_before
    assert before is not None
    assert before.signals["vmHealth"].state is SignalState.HEALTHY, "as the preflight saw it"
    await check(services, key, Moment.AFTER)
    after = (await row(storage, key)).health_after
    assert after is not None
    assert after.signals["vmHealth"].state is SignalState.UNHEALTHY


async def test_a_view_is_not_reused_when_it_is_old(
    services: Services, storage: Storage, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = simulator.take(appHealth="healthy")
    key = await prepare(storage, one)
    monkeypatch.setattr("patchwave.azure.virtual_machines.monotonic", lambda: 0.0)
    await services.resource_manager.read_machine(MachineId.parse(one), keep_for=Moment.BEFORE)
    change(simulator, one, appHealth="unhealthy")
    monkeypatch.setattr("patchwave.azure.virtual_machines.monotonic", lambda: 60.0)
    await check(services, key, Moment.BEFORE)
    before = (await row(storage, key)).health_before
    assert before is not None
    assert before.signals["vmHealth"].state is SignalState.UNHEALTHY


async def prepare_throttled(services: Services, storage: Storage, simulator: Simulator) -> str:
    """The key of a machine that was healthy; Resource Health asks the next request to wait for a second."""
    one = simulator.take()
    key = await prepare(storage, one)
    assert (await check(services, key, Moment.BEFORE)).state is HealthState.OK
    rule = {
        "match": {"operation": "health", "machine": one},
        "times": 1,
        "effect": {"status": 429, "headers": {"Retry-After": "1"}, "body": {"error": {"code": "TooManyRequests"}}},
    }
    assert simulator.http.post("/_sim/faults", json=rule).status_code == 201
    return key


async def test_what_was_read_is_kept_while_another_source_asks_to_wait(
    services: Services, storage: Storage, simulator: Simulator
) -> None:
    """Otherwise no check of thousands of machines is complete: a read of one source costs the other its slot."""
    key = await prepare_throttled(services, storage, simulator)
    since = simulator.http.get("/_sim").json()["requests"]
    found = await check(services, key, Moment.AFTER)
    assert found.state is HealthState.WAIT
    while found.state is HealthState.WAIT:
        await asyncio.sleep(0.2)
        found = await check(services, key, Moment.AFTER, 1)
    asked = simulator.http.get("/_sim/requests", params={"since": since}).json()["requests"]
    assert sorted(each["operation"] for each in asked) == ["health", "health", "read"]


async def test_a_reserved_time_is_kept_however_long_the_check_has_taken(
    services: Services, storage: Storage, simulator: Simulator
) -> None:
    """Pauses grow while a machine settles; after a throttled check they would miss the next reserved time too."""
    key = await prepare_throttled(services, storage, simulator)
    found = await check(services, key, Moment.AFTER, 800)
    assert found.state is HealthState.WAIT
    assert found.wait_seconds == 1
