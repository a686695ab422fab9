"""Records that tests store and read: a run, its machines, intents and commands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.command import Command
from patchwave.domain.core.ids import MachineId, RunId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import PatchRecord
from patchwave.domain.runs.intent import Intent
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.storage import Storage

NOW = datetime(2026, 11, 10, 19, 0, tzinfo=UTC)
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
RUN = "20261110T190000Z-monthly"


def machine(number: int, **changes: Any) -> MachineRecord:
    identity = MachineId.parse(
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-a/providers/Microsoft.Compute/virtualMachines/vm-{number}"
    )
    fields: dict[str, Any] = {
        "id": identity.text,
        "key": identity.key,
        "name": identity.name,
        "subscription_id": identity.subscription_id,
        "resource_group": identity.resource_group,
        "location": "westeurope",
        "os_type": "Linux",
        "zones": ["1"],
        "tags": {"owner": "team-a"},
        "queued_at": NOW,
    }
    return MachineRecord(**{**fields, **changes})


def command(actor: str = "ana", reason: str = "", at: datetime = NOW) -> Command:
    return Command(actor=actor, reason=reason, at=at)


def intent(run_id: str, number: int = 1, **changes: Any) -> Intent:
    one = machine(number)
    fields: dict[str, Any] = {
        "run_id": run_id,
        "machine_id": one.id,
        "machine_key": one.key,
        "kind": OperationKind.INSTALL,
        "created_at": NOW,
        "sent_at": NOW,
        "deadline_at": NOW + timedelta(hours=1),
    }
    return Intent(**{**fields, **changes})


def run(at: datetime = NOW, **changes: Any) -> Run:
    fields: dict[str, Any] = {
        "id": RunId.of(at, "monthly").text,
        "policy": "monthly",
        "mode": Mode.PATCH,
        "state": RunState.QUEUED,
        "trigger": Trigger(kind=TriggerKind.TIMER, actor="timer", detail="second Tuesday"),
        "created_at": at,
        "policy_snapshot": {"name": "monthly", "scope": {"tags": {"Ring": "ä😀"}}},
    }
    return Run(**{**fields, **changes})


def patches(count: int, state: str = "Available") -> list[PatchRecord]:
    return [
        PatchRecord(name=f"pkg-{n}", version=f"1.{n}", classifications=["Security"], state=state) for n in range(count)
    ]


KEY = machine(1).key


async def end_machine(storage: Storage, outcome: Outcome | None = None, *, run_id: str = RUN) -> None:
    failed = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.PATCHES_FAILED, message="1 patch failed.")
    await storage.results.record_outcome(run_id, KEY, outcome or failed, at=NOW, installation=None, patches=[])


async def stored_run(storage: Storage, run_id: str = RUN) -> Run:
    found = await storage.runs.get(run_id)
    assert found is not None
    return found
