"""poll_operation: poll an operation once, and store its result when it has ended."""

from __future__ import annotations

import time
from typing import TypeGuard

from activities.context import now, wait_seconds
from activities.patch_pinning import note_packages, note_selection
from patchwave.azure.bulk_status import SWEPT_ABOVE
from patchwave.domain.azure.errors import ArmFailure, ErrorClass, classify, is_throttling
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.azure.operation import OperationKind, PollReading, PollState
from patchwave.domain.azure.patch_results import AssessResult, InstallResult, PatchOperationStatus
from patchwave.domain.azure.poll_schedule import PollSchedule, TrackedOperation
from patchwave.domain.core.documents import Json
from patchwave.domain.core.ids import MachineId
from patchwave.domain.runs.intent import Intent, is_ours
from patchwave.domain.runs.outcome_rules import evaluate_assessment
from patchwave.domain.workflow.operation import OperationRef, OperationReport, OperationState
from patchwave.storage import RecordMissing, Storage, bucket_key
from patchwave.wiring import Services

MAX_UNCLEAR_POLLS = 20
"""Polls without a usable response before an operation counts as lost: over half an hour, with growing waits."""


async def poll_operation(services: Services, request: OperationRef) -> OperationReport:
    """Poll an operation."""
    storage = services.storage
    intent = await storage.intents.get(request.run_id, request.machine_key, request.kind)
    if intent is None:
        raise RecordMissing(f"run {request.run_id} has no {request.kind.value} intent of {request.machine_key}")
    machine = MachineId.parse(intent.machine_id)
    if await _shows_as_running(services, machine, intent):
        reading = PollReading(state=PollState.RUNNING)
    else:
        reading = await services.resource_manager.poll(machine, intent.async_url, intent.location_url)
    report = await report_of(services, machine, intent, reading)
    if report.state is OperationState.RUNNING:
        report = await _bound(services, intent, report)
    if report.state is not OperationState.RUNNING:
        services.poll_schedule.ended(_tracked(intent), reading.took)
    return report


async def _shows_as_running(services: Services, machine: MachineId, intent: Intent) -> bool:
    """Whether the bulk status of the region shows the operation as running. Saves its poll in large phases."""
    if intent.kind is not OperationKind.INSTALL or not intent.activity_id or machine.is_arc:
        return False
    if services.poll_schedule.in_flight(_place_of(intent), time.time()) <= SWEPT_ABOVE:
        return False
    return intent.activity_id in await services.bulk_status.running(machine.subscription_id, intent.location)


async def report_of(services: Services, machine: MachineId, intent: Intent, reading: PollReading) -> OperationReport:
    """The report for one poll's response; stores the result of an operation that has ended."""
    match reading.state:
        case PollState.RUNNING:
            return _running(services, intent, reading.retry_after)
        case PollState.SUCCEEDED:
            return await _keep(services.storage, intent, reading.result)
        case PollState.FAILED:
            view = await services.resource_manager.read_machine(machine)
            # A deletion, as by autoscale of a member of a scale set, ends the operations of the machine.
            failure = view if _is_gone(view) else reading.failure
            wait, adopted = wait_seconds(services.settings), intent.adopted
            return OperationReport(state=OperationState.FAILED, failure=failure, wait_seconds=wait, adopted=adopted)
        case PollState.UNCLEAR:
            return await _unclear(services, intent, reading.failure, reading.retry_after)
        case PollState.LOST | PollState.SUCCEEDED_WITHOUT_RESULT:
            return await _ask_machine(services, machine, intent, reading.failure)


async def _keep(storage: Storage, intent: Intent, result: Json) -> OperationReport:
    """Store the result with its patches; only the counts are returned."""
    if intent.kind is OperationKind.ASSESS:
        assessed = AssessResult.model_validate(result)
        bad = evaluate_assessment(assessed)
        patches = [patch.to_record() for patch in assessed.available_patches]
        summary = await note_selection(storage, intent, assessed.summarize(), patches)
        await storage.results.record_assessment(intent.run_id, intent.machine_key, summary, patches, now())
        await note_packages(storage, patches)
        return OperationReport(state=OperationState.ENDED, assessment=summary, outcome=bad, adopted=intent.adopted)
    installed = InstallResult.model_validate(result)
    patches = [patch.to_record() for patch in installed.patches]
    summary = installed.summarize(adopted=intent.adopted)
    await storage.results.record_installation(intent.run_id, intent.machine_key, summary, patches)
    counted = installed.model_copy(update={"patches": []})
    return OperationReport(state=OperationState.ENDED, installation=counted, adopted=intent.adopted)


async def _ask_machine(
    services: Services, machine: MachineId, intent: Intent, failure: ArmFailure | None
) -> OperationReport:
    """Read the counts from the machine's patch status, because the operation's own record is gone or not readable."""
    view = await services.resource_manager.read_machine(machine, settles=True)
    if _is_gone(view) and intent.failed_polls:
        # Two polls in a row have found neither the operation nor the machine.
        return OperationReport(state=OperationState.FAILED, failure=view, adopted=intent.adopted)
    if isinstance(view, ArmFailure):
        return await _unclear(services, intent, view, view.retry_after)
    summary = view.last_assessment if intent.kind is OperationKind.ASSESS else view.last_installation
    if summary is None or not is_ours(intent, summary):
        return await _unclear(services, intent, failure, None)
    if summary.status is PatchOperationStatus.IN_PROGRESS:
        return _running(services, intent, None)
    result = summary.to_assess_result() if intent.kind is OperationKind.ASSESS else summary.to_install_result()
    return await _keep(services.storage, intent, result.model_dump(mode="json", by_alias=True))


def _is_gone(view: MachineView | ArmFailure) -> TypeGuard[ArmFailure]:
    """Whether the machine no longer exists."""
    return isinstance(view, ArmFailure) and classify(view).kind is ErrorClass.GONE


async def _unclear(
    services: Services, intent: Intent, failure: ArmFailure | None, asked: float | None
) -> OperationReport:
    """No usable response: retry with growing waits, until the operation counts as lost. Throttling does not count."""
    if failure is not None and is_throttling(failure):
        return OperationReport(state=OperationState.RUNNING, wait_seconds=wait_seconds(services.settings, asked))
    polls = intent.failed_polls + 1
    await services.storage.intents.save(intent.model_copy(update={"failed_polls": polls}))
    if polls >= MAX_UNCLEAR_POLLS:
        return OperationReport(state=OperationState.LOST, failure=failure, adopted=intent.adopted)
    wait = wait_seconds(services.settings, asked, polls=min(2 ** (polls // 4), 8))
    return OperationReport(state=OperationState.RUNNING, wait_seconds=wait)


async def _bound(services: Services, intent: Intent, report: OperationReport) -> OperationReport:
    """End a running operation at its deadline, or when the run is stopped; no poll follows either."""
    left = (intent.deadline_at - now()).total_seconds()
    if left <= 0:
        return OperationReport(state=OperationState.DEADLINE, adopted=intent.adopted)
    if await services.storage.runs.is_canceled(intent.run_id):
        return OperationReport(state=OperationState.CANCELED, adopted=intent.adopted)
    # Poll right at the deadline: an earlier poll could not end the operation.
    return report.model_copy(update={"wait_seconds": min(report.wait_seconds, left + wait_seconds(services.settings))})


def _running(services: Services, intent: Intent, asked: float | None) -> OperationReport:
    """Poll again: not before Azure asks for it, and not before a result is likely."""
    wait = services.poll_schedule.following(_tracked(intent), time.time(), _elapsed(intent))
    return OperationReport(state=OperationState.RUNNING, wait_seconds=max(wait, wait_seconds(services.settings, asked)))


# --- when to poll


def first_poll_delay(schedule: PollSchedule, intent: Intent, known: float | None) -> float:
    """Seconds to the first poll of an accepted operation; ``known``: how long it took the last time."""
    return schedule.first(_tracked(intent), time.time(), _elapsed(intent), known)


def _tracked(intent: Intent) -> TrackedOperation:
    """The schedule's key data of an intent's operation."""
    name = f"{intent.run_id}/{intent.machine_key}/{intent.kind.value}"
    return TrackedOperation(name=name, place=_place_of(intent), kind=intent.kind, os_type=intent.os_type)


def _place_of(intent: Intent) -> str:
    """The subscription and region of the operation; of Arc machines the subscription alone."""
    machine = MachineId.parse(intent.machine_id)
    return bucket_key(machine.subscription_id, intent.location, is_arc=machine.is_arc)


def _elapsed(intent: Intent) -> float:
    """Seconds since Azure accepted the operation."""
    return max(0.0, time.time() - (intent.accepted_at or intent.sent_at).timestamp())
