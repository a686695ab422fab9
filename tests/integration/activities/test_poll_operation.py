"""One poll at an operation: what is kept of its end, how long is waited, and when it is given up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from activities import poll_operation as module
from activities.poll_operation import poll_operation
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.azure.operation import OperationKind, PollReading, PollState
from patchwave.domain.azure.poll_schedule import PollSchedule
from patchwave.domain.runs import outcome_rules
from patchwave.domain.runs.intent import Intent, IntentState
from patchwave.domain.workflow.operation import OperationRef, OperationReport, OperationState
from patchwave.storage import RecordMissing, Storage
from patchwave.wiring import Services
from tests.support.factories import command
from tests.support.scripted_azure import KEY, NOW, ONE, RUN_ID, URL, Script, azure, intent, prepared, shown, view

__all__ = ["azure", "prepared"]

OURS = "0f3c5a1e-2222-4333-8444-555555555555"
RUNNING = PollReading(state=PollState.RUNNING)
LOST = PollReading(state=PollState.LOST, failure=ArmFailure(status=404, code="NotFound"))
GARBLED = ArmFailure(status=200, message="<html>")
INSTALLED: dict[str, Any] = {
    "status": "Succeeded",
    "installationActivityId": OURS,
    "rebootStatus": "NotNeeded",
    "installedPatchCount": 1,
    "patches": [{"patchId": "p", "name": "curl", "version": "8", "installationState": "Installed"}],
}


def unclear(failure: ArmFailure = GARBLED, retry_after: float | None = None) -> PollReading:
    return PollReading(state=PollState.UNCLEAR, failure=failure, retry_after=retry_after)


async def follow(storage: Storage, kind: OperationKind = OperationKind.INSTALL, **fields: Any) -> None:
    """An operation that Azure runs."""
    given: dict[str, Any] = {
        "state": IntentState.ACCEPTED,
        "accepted_at": NOW,
        "async_url": f"{URL}{OURS}?a",
        "location_url": f"{URL}{OURS}?l",
        "activity_id": OURS,
    }
    await storage.intents.declare(intent(kind, **(given | fields)))


async def poll(services: Services, kind: OperationKind = OperationKind.INSTALL) -> OperationReport:
    request = OperationRef(run_id=RUN_ID, machine_key=KEY, kind=kind)
    return await poll_operation(services, request)


async def stored(storage: Storage) -> Intent:
    found = await storage.intents.get(RUN_ID, KEY, OperationKind.INSTALL)
    assert found is not None
    return found


async def test_an_operation_without_an_intent_is_an_error(services: Services, prepared: Storage, azure: Script) -> None:
    with pytest.raises(RecordMissing, match=KEY):
        await poll(services)


async def test_a_running_operation_is_polled_again(services: Services, prepared: Storage, azure: Script) -> None:
    await follow(prepared)
    azure.polls = [RUNNING, PollReading(state=PollState.RUNNING, retry_after=900)]
    first, second = await poll(services), await poll(services)
    assert (first.state, first.failure, first.installation) == (OperationState.RUNNING, None, None)
    assert 30 <= first.wait_seconds <= 600
    assert second.wait_seconds == 900.05
    assert azure.polled == [(ONE, f"{URL}{OURS}?a", f"{URL}{OURS}?l")] * 2


async def test_the_result_of_an_installation_is_kept_and_its_list_stays_behind(
    services: Services, prepared: Storage, azure: Script
) -> None:
    await follow(prepared)
    azure.polls = [PollReading(state=PollState.SUCCEEDED, result=INSTALLED, took=600)]
    report = await poll(services)
    assert (report.state, report.adopted, report.outcome) == (OperationState.ENDED, False, None)
    assert report.installation is not None
    assert (report.installation.installed_patch_count, report.installation.patches) == (1, [])
    row = await prepared.machines.get(RUN_ID, KEY)
    assert row is not None
    assert row.installation is not None
    assert (row.installation.installed, row.installation.activity_id, row.installation.adopted) == (1, OURS, False)
    assert row.stage == "verifying"


async def test_an_adopted_installation_is_marked(services: Services, prepared: Storage, azure: Script) -> None:
    await follow(prepared, adopted=True)
    azure.polls = [PollReading(state=PollState.SUCCEEDED, result=INSTALLED)]
    assert (await poll(services)).adopted is True
    row = await prepared.machines.get(RUN_ID, KEY)
    assert row is not None
    assert row.installation is not None
    assert row.installation.adopted is True


async def test_the_result_of_an_assessment_is_kept(services: Services, prepared: Storage, azure: Script) -> None:
    await follow(prepared, OperationKind.ASSESS, adopted=True)
    told = {"status": "Succeeded", "assessmentActivityId": OURS, "criticalAndSecurityPatchCount": 4}
    azure.polls = [PollReading(state=PollState.SUCCEEDED, result=told)]
    report = await poll(services, OperationKind.ASSESS)
    assert (report.state, report.adopted, report.outcome) == (OperationState.ENDED, True, None)
    assert report.assessment is not None
    assert report.assessment.critical_and_security == 4
    row = await prepared.machines.get(RUN_ID, KEY)
    assert row is not None
    assert row.assessment is not None
    assert row.assessment.activity_id == OURS


async def test_an_assessment_that_did_not_work_has_its_outcome(
    services: Services, prepared: Storage, azure: Script
) -> None:
    await follow(prepared, OperationKind.ASSESS)
    azure.polls = [PollReading(state=PollState.SUCCEEDED, result={"status": "Failed", "assessmentActivityId": OURS})]
    report = await poll(services, OperationKind.ASSESS)
    assert report.outcome is not None
    assert report.outcome.outcome == "failed"


async def test_a_failed_operation_has_its_error(services: Services, prepared: Storage, azure: Script) -> None:
    await follow(prepared, adopted=True)
    failure = ArmFailure(status=200, code="VMExtensionProvisioningError", message="x")
    azure.polls, azure.reads = [PollReading(state=PollState.FAILED, failure=failure)], [view()]
    assert await poll(services) == OperationReport(
        state=OperationState.FAILED, failure=failure, wait_seconds=30, adopted=True
    )


GONE = ArmFailure(status=404, code="ResourceNotFound", message="The Resource was not found.")


async def test_an_operation_that_a_deletion_ended_is_of_a_machine_that_is_gone(
    services: Services, prepared: Storage, azure: Script
) -> None:
    await follow(prepared)
    preempted = ArmFailure(status=200, code="OperationPreempted", message="preempted by a more recent operation")
    azure.polls, azure.reads = [PollReading(state=PollState.FAILED, failure=preempted)], [GONE]
    report = await poll(services)
    assert (report.state, report.failure) == (OperationState.FAILED, GONE)
    outcome = outcome_rules.failed(GONE)
    assert (outcome.outcome, outcome.reason) == ("skipped", "not_found")


async def test_a_machine_that_two_polls_do_not_find_is_gone(
    services: Services, prepared: Storage, azure: Script
) -> None:
    await follow(prepared)
    azure.polls, azure.reads = [LOST, LOST], [GONE, GONE]
    first, second = await poll(services), await poll(services)
    assert (first.state, first.failure) == (OperationState.RUNNING, None)
    assert (second.state, second.failure) == (OperationState.FAILED, GONE)


# --- no usable answer


async def test_unclear_answers_are_polled_with_growing_pauses_and_then_lost(
    services: Services, prepared: Storage, azure: Script
) -> None:
    await follow(prepared, adopted=True)
    azure.polls = [unclear() for _ in range(20)]
    reports = [await poll(services) for _ in range(20)]
    assert [report.wait_seconds for report in reports[:-1]] == [30.0] * 3 + [60.0] * 4 + [120.0] * 4 + [240.0] * 8
    assert {report.state for report in reports[:-1]} == {OperationState.RUNNING}
    assert reports[-1] == OperationReport(state=OperationState.LOST, failure=GARBLED, adopted=True)
    assert (await stored(prepared)).failed_polls == 20


async def test_an_unclear_answer_with_retry_after_is_respected(
    services: Services, prepared: Storage, azure: Script
) -> None:
    await follow(prepared)
    azure.polls = [unclear(retry_after=77)]
    assert (await poll(services)).wait_seconds == 77.05


async def test_being_throttled_is_no_unclear_answer(services: Services, prepared: Storage, azure: Script) -> None:
    await follow(prepared, failed_polls=19)
    throttled = ArmFailure(status=429, code="TooManyRequests")
    azure.polls = [unclear(throttled, 11), unclear(throttled)]
    first, second = await poll(services), await poll(services)
    assert (first.state, first.wait_seconds) == (OperationState.RUNNING, 11.05)
    assert (second.state, second.wait_seconds) == (OperationState.RUNNING, 30)
    assert (await stored(prepared)).failed_polls == 19


# --- the machine tells


@pytest.mark.parametrize("state", [PollState.LOST, PollState.SUCCEEDED_WITHOUT_RESULT])
async def test_a_lost_operation_ends_by_what_the_machine_shows(
    services: Services, prepared: Storage, azure: Script, state: PollState
) -> None:
    await follow(prepared, adopted=True)
    azure.polls = [PollReading(state=state)]
    azure.reads = [shown(OURS, NOW, status="Succeeded", installedPatchCount=2)]
    report = await poll(services)
    assert (report.state, report.adopted) == (OperationState.ENDED, True)
    assert report.installation is not None
    assert report.installation.installed_patch_count == 2
    assert azure.read == [ONE]


async def test_a_lost_operation_that_the_machine_shows_as_running_runs(
    services: Services, prepared: Storage, azure: Script
) -> None:
    await follow(prepared, failed_polls=19)
    azure.polls, azure.reads = [LOST], [shown(OURS, NOW)]
    report = await poll(services)
    assert (report.state, report.failure) == (OperationState.RUNNING, None)
    assert (await stored(prepared)).failed_polls == 19


async def test_a_lost_assessment_is_no_installation(services: Services, prepared: Storage, azure: Script) -> None:
    await follow(prepared, OperationKind.ASSESS)
    assessed = {"assessmentActivityId": OURS, "startTime": NOW.isoformat(), "status": "Succeeded"}
    installed = {"installationActivityId": OURS, "startTime": NOW.isoformat(), "status": "InProgress"}
    azure.polls = [LOST]
    azure.reads = [
        view(
            availablePatchSummary=assessed | {"criticalAndSecurityPatchCount": 5},
            lastPatchInstallationSummary=installed,
        )
    ]
    report = await poll(services, OperationKind.ASSESS)
    assert report.state is OperationState.ENDED
    assert report.assessment is not None
    assert report.assessment.critical_and_security == 5


@pytest.mark.parametrize("shows", [view(), shown("other", NOW, status="Succeeded")])
async def test_a_foreign_operation_is_no_evidence_of_ours(
    services: Services, prepared: Storage, azure: Script, shows: MachineView
) -> None:
    await follow(prepared)
    azure.polls, azure.reads = [LOST], [shows]
    report = await poll(services)
    assert (report.state, report.wait_seconds) == (OperationState.RUNNING, 30)
    assert (await stored(prepared)).failed_polls == 1


async def test_the_reason_of_a_lost_operation_is_kept(services: Services, prepared: Storage, azure: Script) -> None:
    await follow(prepared, failed_polls=19)
    azure.polls, azure.reads = [LOST], [view()]
    report = await poll(services)
    assert (report.state, report.failure) == (OperationState.LOST, LOST.failure)


async def test_an_unreadable_machine_is_unclear_as_well(services: Services, prepared: Storage, azure: Script) -> None:
    await follow(prepared)
    azure.polls = [LOST] * 3
    azure.reads = [ArmFailure(status=status, retry_after=wait) for status, wait in ((500, 44), (429, 5), (503, 6))]
    assert [(await poll(services)).wait_seconds for _ in range(3)] == [44.05, 5.05, 6.05]
    assert (await stored(prepared)).failed_polls == 1


# --- deadline and stop


async def test_an_operation_is_given_up_at_its_deadline(services: Services, prepared: Storage, azure: Script) -> None:
    await follow(prepared, deadline_at=NOW + timedelta(seconds=100), adopted=True)
    azure.polls = [PollReading(state=PollState.RUNNING, retry_after=900), RUNNING]
    assert (await poll(services)).wait_seconds == 130
    azure.later(100)
    assert await poll(services) == OperationReport(state=OperationState.DEADLINE, adopted=True)


async def test_a_stop_ends_the_wait_and_not_the_operation(services: Services, prepared: Storage, azure: Script) -> None:
    await follow(prepared, adopted=True)
    await prepared.runs.cancel(RUN_ID, command())
    azure.polls = [RUNNING]
    assert await poll(services) == OperationReport(state=OperationState.CANCELED, adopted=True)


async def test_a_result_counts_after_the_deadline_and_after_a_stop(
    services: Services, prepared: Storage, azure: Script
) -> None:
    await follow(prepared, deadline_at=NOW - timedelta(hours=1))
    await prepared.runs.cancel(RUN_ID, command())
    azure.polls = [PollReading(state=PollState.SUCCEEDED, result=INSTALLED)]
    assert (await poll(services)).state is OperationState.ENDED


# --- the sweep of a region


class Sweep:
    """What a sweep of the region shows as running, and how often it was asked."""

    def __init__(self, *running: str) -> None:
        self.ids = set(running)
        self.asked: list[tuple[str, str]] = []

    async def running(self, subscription_id: str, location: str) -> set[str]:
        self.asked.append((subscription_id, location))
        return self.ids


@pytest.mark.parametrize(
    ("kind", "fields", "shows", "polls"),
    [
        (OperationKind.INSTALL, {}, OURS, 0),
        (OperationKind.INSTALL, {}, "other", 1),
        (OperationKind.INSTALL, {"activity_id": ""}, OURS, 1),
        (OperationKind.ASSESS, {}, OURS, 1),
    ],
)
async def test_with_very_many_in_flight_an_installation_that_a_sweep_shows_needs_no_poll(
    services: Services,
    prepared: Storage,
    azure: Script,
    monkeypatch: pytest.MonkeyPatch,
    kind: OperationKind,
    fields: dict[str, Any],
    shows: str,
    polls: int,
) -> None:
    sweep = Sweep(shows)
    monkeypatch.setattr(module, "SWEPT_ABOVE", -1)
    vars(services).update(bulk_status=sweep)
    await follow(prepared, kind, **fields)
    azure.polls = [RUNNING]
    assert (await poll(services, kind)).state is OperationState.RUNNING
    assert len(azure.polled) == polls


@pytest.mark.parametrize(("in_flight", "polls"), [(500, 1), (501, 0)])
async def test_a_sweep_is_used_with_more_than_five_hundred_in_flight(
    services: Services, prepared: Storage, azure: Script, monkeypatch: pytest.MonkeyPatch, in_flight: int, polls: int
) -> None:
    vars(services).update(bulk_status=Sweep(OURS))
    monkeypatch.setattr(PollSchedule, "in_flight", lambda *_: in_flight)
    await follow(prepared)
    azure.polls = [RUNNING]
    await poll(services)
    assert len(azure.polled) == polls


async def test_with_few_in_flight_no_sweep_is_used(services: Services, prepared: Storage, azure: Script) -> None:
    sweep = Sweep(OURS)
    vars(services).update(bulk_status=sweep)
    await follow(prepared)
    azure.polls = [RUNNING]
    await poll(services)
    assert (sweep.asked, len(azure.polled)) == ([], 1)
