"""What people and gates say holds for a machine whose turn has come: nothing is sent to it from that moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from activities import submit_operation
from activities.machine import preflight_machine
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.machine.preflight import Readiness
from patchwave.domain.runs.error_budget import ErrorBudgetExceeded
from patchwave.domain.runs.intent import Intent, IntentState
from patchwave.domain.runs.run import RunState
from patchwave.domain.workflow.machine import PreflightRequest
from patchwave.domain.workflow.operation import StartOperation, StartResult, StartState
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.factories import command
from tests.support.simulated_azure import azure
from tests.support.simulated_run import AT, RUN_ID, create_run
from tests.support.simulator import Simulator

__all__ = ["azure"]


type Give = Callable[[Storage, str], Awaitable[object]]


async def pause(storage: Storage, key: str) -> None:
    await storage.runs.pause(RUN_ID, command())


async def hold(storage: Storage, key: str) -> None:
    gate = ErrorBudgetExceeded(run_id=RUN_ID, scope="lane:broad/westeurope", failures=2, limit=1, ends_run=False)
    await storage.runs.trip_error_budget(gate, AT)


async def hold_elsewhere(storage: Storage, key: str) -> None:
    gate = ErrorBudgetExceeded(run_id=RUN_ID, scope="lane:broad/northeurope", failures=2, limit=1, ends_run=False)
    await storage.runs.trip_error_budget(gate, AT)


async def stop(storage: Storage, key: str) -> None:
    await storage.runs.stop(RUN_ID, "The error budget of the run is used up.", AT)


async def cancel(storage: Storage, key: str) -> None:
    await storage.runs.cancel(RUN_ID, command())


async def skip(storage: Storage, key: str) -> None:
    await storage.machines.skip(RUN_ID, key, command(reason="being rebuilt"), OperationKind.INSTALL)


async def close(storage: Storage, key: str) -> None:
    await storage.runs.close(RUN_ID, RunState.FAILED, "Patchwave itself failed.", AT)


ENDS: list[tuple[Give, OutcomeKind, Reason]] = [
    (cancel, OutcomeKind.CANCELED, Reason.CANCELED_BY_USER),
    (skip, OutcomeKind.SKIPPED, Reason.SKIPPED_BY_PERSON),
    (stop, OutcomeKind.SKIPPED, Reason.ERROR_BUDGET),
    (close, OutcomeKind.SKIPPED, Reason.INTERNAL),
]


async def prepare(storage: Storage, one: str) -> str:
    """A run over that machine; the machine's key."""
    (key,) = await create_run(storage, one, ring="broad", lane="westeurope", wave=1)
    return key


async def submit(services: Services, key: str, kind: OperationKind = OperationKind.INSTALL) -> StartResult:
    request = StartOperation(run_id=RUN_ID, machine_key=key, kind=kind)
    return await submit_operation.submit(services, request)


def sent(azure: Simulator, one: str, operation: str = "install") -> int:
    """How many such calls of the machine the simulator has seen."""
    found = azure.http.get("/_sim/requests", params={"operation": operation}).json()["requests"]
    return sum(one.lower() in str(request).lower() for request in found)


@pytest.mark.parametrize("kind", OperationKind)
@pytest.mark.parametrize("give", [pause, hold])
async def test_a_machine_that_is_held_is_requeued(
    services: Services, storage: Storage, azure: Simulator, give: Give, kind: OperationKind
) -> None:
    one = azure.take()
    key = await prepare(storage, one)
    await give(storage, key)
    assert await submit(services, key, kind) == StartResult(state=StartState.REQUEUED)
    assert await storage.intents.get(RUN_ID, key, kind) is None
    await storage.runs.resume(RUN_ID, command())
    assert (await submit(services, key, kind)).state is StartState.ACCEPTED
    assert sent(azure, one, kind.value) == 1


@pytest.mark.parametrize(("give", "kind", "reason"), ENDS)
async def test_a_machine_that_may_not_start_any_more_ends(
    services: Services, storage: Storage, azure: Simulator, give: Give, kind: OutcomeKind, reason: Reason
) -> None:
    one = azure.take()
    key = await prepare(storage, one)
    await give(storage, key)
    result = await submit(services, key)
    assert result.state is StartState.ENDED
    assert result.outcome
    assert (result.outcome.outcome, result.outcome.reason) == (kind, reason)
    request = PreflightRequest(run_id=RUN_ID, machine_key=key, start_stopped=False)
    preflight = (await preflight_machine(services, request)).preflight
    assert (preflight.readiness, preflight.outcome) == (Readiness.SKIP, result.outcome)
    assert sent(azure, one) == 0


async def test_a_gate_of_another_region_holds_no_machine_here(
    services: Services, storage: Storage, azure: Simulator
) -> None:
    key = await prepare(storage, azure.take())
    await hold_elsewhere(storage, key)
    assert (await submit(services, key)).state is StartState.ACCEPTED


@pytest.mark.parametrize("give", [pause, hold, cancel, stop])
async def test_a_command_between_preflight_and_request_still_holds(
    services: Services, storage: Storage, azure: Simulator, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hundreds of machines in flight there are seconds between the two."""
    one = azure.take()
    key = await prepare(storage, one)
    declare = storage.intents.declare

    async def declare_and_then(wanted: Intent) -> tuple[Intent, bool]:
        answer = await declare(wanted)
        await give(storage, key)
        return answer

    monkeypatch.setattr(storage.intents, "declare", declare_and_then)
    result = await submit(services, key)
    assert result.state is (StartState.REQUEUED if give in (pause, hold) else StartState.ENDED)
    intent = await storage.intents.get(RUN_ID, key, OperationKind.INSTALL)
    assert intent
    assert (intent.state, intent.attempts) == (IntentState.REFUSED, [])
    assert sent(azure, one) == 0
    if give is pause:
        await storage.runs.resume(RUN_ID, command())
        assert (await submit(services, key)).state is StartState.ACCEPTED
        assert sent(azure, one) == 1


async def test_a_skip_that_was_first_keeps_the_call_from_being_sent(
    services: Services, storage: Storage, azure: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = azure.take()
    key = await prepare(storage, one)
    declare = storage.intents.declare

    async def skip_and_then_declare(wanted: Intent) -> tuple[Intent, bool]:
        await skip(storage, key)
        return await declare(wanted)

    monkeypatch.setattr(storage.intents, "declare", skip_and_then_declare)
    result = await submit(services, key)
    assert result.outcome
    assert result.outcome.message == "Skipped by ana: being rebuilt"
    found: Any = await storage.machines.get(RUN_ID, key)
    assert (found.stage, found.started_at) == ("waiting", None)
    assert sent(azure, one) == 0


async def test_of_two_executions_that_declare_anew_one_sends(
    services: Services, storage: Storage, azure: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine may execute an activity twice at once, also the one that tries again after a refusal."""
    one = azure.take()
    key = await prepare(storage, one)
    refused = Intent(
        run_id=RUN_ID,
        machine_id=one,
        machine_key=key,
        kind=OperationKind.INSTALL,
        created_at=AT,
        sent_at=AT,
        deadline_at=AT,
        state=IntentState.REFUSED,
    )
    await storage.intents.declare(refused)
    throttled_until = storage.throttling.until
    results: list[StartResult] = []

    async def let_the_other_one_pass(budget: str) -> datetime | None:
        monkeypatch.setattr(storage.throttling, "until", throttled_until)
        results.append(await submit(services, key))
        return await throttled_until(budget)

    monkeypatch.setattr(storage.throttling, "until", let_the_other_one_pass)
    results.append(await submit(services, key))
    assert [result.state for result in results] == [StartState.ACCEPTED, StartState.WAIT]
    assert sent(azure, one) == 1
    intent = await storage.intents.get(RUN_ID, key, OperationKind.INSTALL)
    assert intent
    assert intent.state is IntentState.ACCEPTED
    assert (await submit(services, key)).state is StartState.ACCEPTED
    assert sent(azure, one) == 1
