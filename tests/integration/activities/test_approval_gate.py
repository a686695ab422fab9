"""A ring that needs an approval: each activity that starts something asks the run's row, not only the orchestration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from activities.machine import preflight_machine
from activities.power import restart_machine, start_machine
from activities.script import run_script
from activities.snapshot import take_snapshot
from activities.submit_operation import submit
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.documents import Json
from patchwave.domain.core.outcome import Reason
from patchwave.domain.machine.hooks import ScriptRequest, When
from patchwave.domain.runs.run import Trigger, TriggerKind
from patchwave.domain.workflow.machine import MachineRef, PowerRequest, PreflightRequest
from patchwave.domain.workflow.operation import StartOperation
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.factories import command
from tests.support.simulated_azure import azure
from tests.support.simulated_run import AT, RUN_ID, create_run
from tests.support.simulator import SUBSCRIPTION, Simulator

__all__ = ["azure"]

POLICY: Json = {
    "name": "monthly",
    "scope": {"subscriptions": [SUBSCRIPTION]},
    "startStopped": True,
    "rebootMode": "separate",
    "hooks": {"snapshot": {}, "before": {"linux": "true", "windows": "1"}, "after": {"linux": "true", "windows": "1"}},
    "rings": [{"name": "canary", "percent": 5}, {"name": "broad", "approval": {}}],
}


def ref(key: str) -> MachineRef:
    return MachineRef(run_id=RUN_ID, machine_key=key)


def script(when: When) -> Callable[[str], ScriptRequest]:
    return lambda key: ScriptRequest(run_id=RUN_ID, machine_key=key, when=when)


def install(key: str) -> StartOperation:
    return StartOperation(run_id=RUN_ID, machine_key=key, kind=OperationKind.INSTALL)


def power(key: str) -> PowerRequest:
    return PowerRequest(run_id=RUN_ID, machine_key=key, since=AT)


type Activity = Callable[[Services, Any], Awaitable[Any]]

STARTS: dict[str, tuple[Activity, Callable[[str], Any]]] = {
    "install": (submit, install),
    "restart": (restart_machine, ref),
    "start": (start_machine, power),
    "snapshot": (take_snapshot, ref),
    "script before": (run_script, script(When.BEFORE)),
    "script after": (run_script, script(When.AFTER)),
}


async def prepare(storage: Storage, one: str) -> str:
    """A run that has planned, and has a machine of the ring that waits; the machine's key."""
    run = {"trigger": Trigger(kind=TriggerKind.TIMER)}
    place = {"ring": "broad", "lane": "westeurope", "wave": 1}
    (key,) = await create_run(storage, one, policy=POLICY, run=run, **place)
    return key


def changes(azure: Simulator, one: str) -> list[str]:
    """The calls about the machine that change anything."""
    found: list[Json] = azure.http.get("/_sim/requests").json()["requests"]
    name = one.rsplit("/", 1)[1].lower()
    return [each["path"] for each in found if each["method"] in ("POST", "PUT") and name in str(each["path"]).lower()]


@pytest.mark.parametrize(("activity", "request_of"), STARTS.values(), ids=STARTS)
async def test_nothing_is_sent_before_the_ring_is_approved(
    services: Services, azure: Simulator, storage: Storage, activity: Activity, request_of: Callable[[str], Any]
) -> None:
    one = azure.take(power="stopped" if activity is start_machine else "running")
    key = await prepare(storage, one)
    await activity(services, request_of(key))
    assert changes(azure, one) == []
    await storage.runs.decide_ring(RUN_ID, "broad", command(), approved=True)
    await activity(services, request_of(key))
    assert changes(azure, one)


async def test_nothing_is_sent_after_the_ring_was_rejected(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take()
    key = await prepare(storage, one)
    await storage.runs.decide_ring(RUN_ID, "broad", command(), approved=False)
    for activity, request_of in STARTS.values():
        await activity(services, request_of(key))
    assert changes(azure, one) == []
    request = PreflightRequest(run_id=RUN_ID, machine_key=key, start_stopped=True)
    found = (await preflight_machine(services, request)).preflight.outcome
    assert found
    assert found.reason is Reason.NOT_APPROVED
