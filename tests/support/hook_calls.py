"""Machines whose hooks run on the simulator: their rows, faults and requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from patchwave.domain.machine.hooks import HookResult, HookState
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.run import RunState, Trigger, TriggerKind
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.simulated_run import RUN_ID, create_run
from tests.support.simulator import Simulator

type Json = dict[str, Any]


async def prepare(
    storage: Storage, one: str, hooks: Json, *, window_end: datetime | None = None, continues: bool = False
) -> str:
    """A run of a policy with these hooks over that machine; the machine's key."""
    schedule = {"recurrence": "second Tuesday", "time": "20:00", "timeZone": "UTC", "window": "PT4H"}
    policy: Json = {"schedule": schedule | {"continueInNextWindow": continues}, "hooks": hooks}
    run: Json = {
        "state": RunState.RUNNING,
        "trigger": Trigger(kind=TriggerKind.HTTP, actor="ada@example.com"),
        "window_end": window_end,
    }
    (key,) = await create_run(storage, one, policy=policy, run=run, stage=Stage.ASSESSED, location="")
    return key


async def finish[Request](
    services: Services,
    activity: Callable[[Services, Request], Awaitable[HookResult]],
    request: Request,
    *,
    most: int = 200,
) -> HookResult:
    """Call until the hook is done or has failed."""
    for _ in range(most):
        result = await activity(services, request)
        if result.state is not HookState.WAIT:
            return result
        await asyncio.sleep(0.05)
    raise AssertionError("the hook does not end")


def sent(simulator: Simulator, operation: str, method: str, part: str) -> list[Json]:
    """The requests of an operation whose path has that part."""
    parameters = {"operation": operation, "method": method}
    found: list[Json] = simulator.http.get("/_sim/requests", params=parameters).json()["requests"]
    return [each for each in found if part.casefold() in each["path"].casefold()]


def fault(simulator: Simulator, rule: Json) -> None:
    assert simulator.http.post("/_sim/faults", json=rule).status_code == 201


async def row(storage: Storage, key: str) -> MachineRecord:
    found = await storage.machines.get(RUN_ID, key)
    assert found is not None
    return found


LOCKED_SCOPE = "/subscriptions/3f2b9a64-71c8-4d05-9e1a-8c6d5f0b7e42/resourceGroups/rg-shop"
LOCKED = {
    "status": 409,
    "body": {
        "error": {
            "code": "ScopeLocked",
            "message": f"The scope '{LOCKED_SCOPE}/providers/Microsoft.Compute/virtualMachines/web-01' cannot perform"
            f" write operation because following scope(s) are locked: '{LOCKED_SCOPE}'. Please remove the lock and try"
            " again.",
        }
    },
}
DISALLOWED = {
    "status": 403,
    "body": {
        "error": {
            "code": "RequestDisallowedByPolicy",
            "message": "Resource 'web-01' was disallowed by policy. Policy identifiers: "
            '\'[{"policyAssignment":{"name":"no-changes-at-night"}}]\'.',
        }
    },
}
REFUSALS = [(LOCKED, LOCKED_SCOPE), (DISALLOWED, "no-changes-at-night")]
