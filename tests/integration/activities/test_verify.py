"""verify_machine: what the machine says of a reboot after its installation, and what it leaves unsaid."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from activities import machine as activity
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.azure.operation import read_operation
from patchwave.domain.azure.patch_results import InstallResult
from patchwave.domain.core.documents import Json
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.machine.health import Moment
from patchwave.domain.runs.outcome_rules import evaluate_installation
from patchwave.domain.workflow.machine import Verified, VerifyRequest
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.azure_bodies import ended, installation
from tests.support.azure_bodies import machine as sample
from tests.support.factories import machine

RUN = "20261121T020000Z-monthly"
INSTALLED_AT = datetime(2026, 11, 21, 2, tzinfo=UTC)
LATER, EARLIER = "2026-11-21T03:00:00Z", "2026-11-21T01:00:00Z"


async def seen(services: Services, storage: Storage, summary: Json | None) -> Verified:
    """What the activity tells of a machine whose newest assessment is this one."""
    view = MachineView.model_validate(sample(patchStatus={"availablePatchSummary": summary}))

    class Azure:
        async def read_machine(self, machine_id: MachineId, *, keep_for: Moment | None = None) -> MachineView:
            return view

    vars(services).update(resource_manager=Azure())
    await storage.machines.add(RUN, [machine(1)])
    request = VerifyRequest(run_id=RUN, machine_key=machine(1).key, installed_at=INSTALLED_AT)
    return await activity.verify_machine(services, request)


@pytest.mark.parametrize(("status", "is_gone"), [(404, True), (403, False), (503, False)])
async def test_a_deleted_machine_is_gone(services: Services, storage: Storage, status: int, is_gone: bool) -> None:
    class Azure:
        async def read_machine(self, machine_id: MachineId, *, keep_for: Moment | None = None) -> ArmFailure:
            return ArmFailure(status=status)

    vars(services).update(resource_manager=Azure())
    await storage.machines.add(RUN, [machine(1)])
    request = VerifyRequest(run_id=RUN, machine_key=machine(1).key, installed_at=INSTALLED_AT)
    verified = await activity.verify_machine(services, request)
    assert (verified.is_ready, verified.is_gone) == (False, is_gone)


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ({"lastModifiedTime": LATER, "rebootPending": True}, True),
        ({"lastModifiedTime": LATER, "rebootPending": False}, False),
        ({"lastModifiedTime": LATER, "rebootPending": None}, None),
        ({"lastModifiedTime": LATER}, None),
        ({"startTime": LATER, "rebootPending": True}, True),
        ({"lastModifiedTime": EARLIER, "rebootPending": True}, None),
        ({"rebootPending": True}, None),
        (None, None),
    ],
)
async def test_only_a_newer_word_counts_and_a_missing_one_is_none(
    services: Services, storage: Storage, summary: Json | None, expected: bool | None
) -> None:
    found = await seen(services, storage, summary)
    assert (found.is_ready, found.reboot_pending) == (True, expected)


async def test_a_missing_word_never_overrides_that_a_reboot_is_required(services: Services, storage: Storage) -> None:
    found = await seen(services, storage, {"lastModifiedTime": LATER, "status": "Succeeded"})
    wire: dict[str, Any] = read_operation(200, ended(installation(rebootStatus="Required"))).result
    outcome = evaluate_installation(
        InstallResult.model_validate(wire), reboot_pending=found.reboot_pending, needs_subscription=0
    )
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.REBOOT_REQUIRED, Reason.REBOOT_PENDING)
