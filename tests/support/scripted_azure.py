"""Resource Manager in the place of the real client, with a script: what each POST, read and poll is answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities import context, poll_operation, submit_operation
from patchwave.azure.compute import Submission
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.install_request import InstallParameters
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.azure.operation import OperationKind, PollReading
from patchwave.domain.core.ids import MachineId
from patchwave.domain.runs.intent import Intent
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.azure_bodies import machine
from tests.support.simulator import SUBSCRIPTION

NOW = datetime.now(UTC).replace(microsecond=0)
RUN_ID = "20261121T000000Z-monthly"
ONE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-sim/providers/Microsoft.Compute/virtualMachines/vm-1"
KEY = MachineId.parse(ONE).key
URL = f"https://management.azure.com/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/we/operations/"


def view(**patch_status: object) -> MachineView:
    """A machine that runs and shows these summaries."""
    return MachineView.model_validate(machine("running", patchStatus=patch_status))


def shown(activity: str, started: datetime, *, status: str = "InProgress", **fields: object) -> MachineView:
    """A machine that shows an installation."""
    told = {"installationActivityId": activity, "startTime": started.isoformat(), "status": status}
    return view(lastPatchInstallationSummary=told | fields)


@dataclass
class Script:
    """Answers, each used up from the front; a POST or read without one fails the test by its ``IndexError``."""

    now: datetime = NOW
    posts: list[Submission] = field(default_factory=list[Submission])
    reads: list[MachineView | ArmFailure] = field(default_factory=list[MachineView | ArmFailure])
    polls: list[PollReading] = field(default_factory=list[PollReading])
    sent: list[tuple[str, str, InstallParameters | None, Intent]] = field(
        default_factory=list[tuple[str, str, InstallParameters | None, Intent]]
    )
    polled: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    read: list[str] = field(default_factory=list[str])
    settling: list[bool] = field(default_factory=list[bool])
    """Whether each read was to settle what became of a call."""

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def install(
        self, machine_id: MachineId, location: str, parameters: InstallParameters, intent: Intent
    ) -> Submission:
        self.sent.append((machine_id.text, location, parameters, intent))
        return self.posts.pop(0)

    async def assess(self, machine_id: MachineId, location: str, intent: Intent) -> Submission:
        self.sent.append((machine_id.text, location, None, intent))
        return self.posts.pop(0)

    async def read_machine(self, machine_id: MachineId, *, settles: bool = False) -> MachineView | ArmFailure:
        self.read.append(machine_id.text)
        self.settling.append(settles)
        return self.reads.pop(0)

    async def poll(self, machine_id: MachineId, async_url: str, location_url: str) -> PollReading:
        self.polled.append((machine_id.text, async_url, location_url))
        return self.polls.pop(0)


@pytest.fixture
def azure(services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Script:
    """The script, the clock of the activities, and waits that are not spread."""
    found = Script()
    monkeypatch.setattr(context.random, "uniform", lambda low, high: 1.0)
    for module in (context, submit_operation, poll_operation):
        monkeypatch.setattr(module, "now", lambda: found.now)
    vars(services).update(resource_manager=found)
    return found


@pytest.fixture
async def prepared(storage: Storage, azure: Script) -> Storage:
    """A run over one Linux machine."""
    await prepare(storage)
    return storage


async def prepare(storage: Storage, *, policy: dict[str, Any] | None = None, **fields: object) -> None:
    """A run over the machine."""
    run = Run(
        id=RUN_ID,
        policy="monthly",
        mode=Mode.PATCH,
        state=RunState.QUEUED,
        trigger=Trigger(kind=TriggerKind.HTTP),
        created_at=NOW,
        policy_snapshot={"name": "monthly", "scope": {"subscriptions": [SUBSCRIPTION]}} | (policy or {}),
    )
    await storage.runs.create(run)
    await storage.runs.start(RUN_ID, NOW)
    one = MachineRecord(
        id=ONE,
        key=KEY,
        name="vm-1",
        subscription_id=SUBSCRIPTION,
        resource_group="rg-sim",
        location="westeurope",
        os_type="Linux",
    )
    await storage.machines.add(RUN_ID, [one.model_copy(update=fields)])


def intent(kind: OperationKind = OperationKind.INSTALL, **fields: Any) -> Intent:
    """An intent of that machine, declared now."""
    given: dict[str, Any] = {
        "run_id": RUN_ID,
        "machine_key": KEY,
        "machine_id": ONE,
        "location": "westeurope",
        "os_type": "Linux",
        "kind": kind,
        "created_at": NOW,
        "sent_at": NOW,
        "deadline_at": NOW + timedelta(hours=4),
    }
    return Intent(**(given | fields))


__all__ = ["KEY", "NOW", "ONE", "RUN_ID", "URL", "Script", "azure", "intent", "prepare", "prepared", "shown", "view"]
