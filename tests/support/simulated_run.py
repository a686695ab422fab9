"""A run over machines of the simulator, in storage."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from patchwave.domain.core.ids import MachineId
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.storage import Storage
from tests.support.simulator import SUBSCRIPTION

AT = datetime(2026, 11, 21, tzinfo=UTC)
RUN_ID = "20261121T000000Z-monthly"

type Json = dict[str, Any]


async def create_run(
    storage: Storage, *ids: str, policy: Json | None = None, run: Json | None = None, **machine: Any
) -> list[str]:
    """A patch run over these machines, started unless it has another state; the keys of the machines.

    ``policy``, ``run`` and ``machine`` have further fields of the policy, the run and each machine.
    """
    fields: Json = {"state": RunState.QUEUED, "trigger": Trigger(kind=TriggerKind.HTTP)} | (run or {})
    snapshot = {"name": "monthly", "scope": {"subscriptions": [SUBSCRIPTION]}} | (policy or {})
    made = Run(id=RUN_ID, policy="monthly", mode=Mode.PATCH, created_at=AT, policy_snapshot=snapshot, **fields)
    await storage.runs.create(made)
    if made.state is RunState.QUEUED:
        await storage.runs.start(RUN_ID, AT)
    machines = [_machine(one, machine) for one in ids]
    await storage.machines.add(RUN_ID, machines)
    return [each.key for each in machines]


def _machine(one: str, changes: Json) -> MachineRecord:
    found = MachineId.parse(one)
    fields: Json = {
        "name": found.name,
        "subscription_id": SUBSCRIPTION,
        "resource_group": found.resource_group,
        "location": "westeurope",
        "os_type": "Windows" if int(one[-3:]) % 2 else "Linux",
    }
    return MachineRecord(id=one, key=found.key, **(fields | changes))
