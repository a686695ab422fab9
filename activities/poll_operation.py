"""poll_operation: poll an operation once, and store its result when it has ended."""

from __future__ import annotations

import time

from activities.context import now, wait_seconds
from activities.patch_pinning import note_packages, note_selection
from activities.poll_schedule import elapsed, followed, open_looks, place_of
from patchwave.azure.bulk_status import SWEPT_ABOVE, open_bulk_status
from patchwave.azure.virtual_machines import open_resource_manager
from patchwave.domain.azure.errors import ArmFailure, is_throttling
from patchwave.domain.azure.operation import OperationKind, PollReading, PollState
from patchwave.domain.azure.patch_results import AssessResult, InstallResult, PatchOperationStatus, PatchSummary
from patchwave.domain.core.documents import Json
from patchwave.domain.core.ids import MachineId
from patchwave.domain.runs.intent import Intent, is_ours
from patchwave.domain.runs.outcome_rules import evaluate_assessment
from patchwave.domain.workflow.operation import OperationRef, OperationReport, OperationState
from patchwave.storage import RecordMissing, open_storage

MAX_UNCLEAR_POLLS = 20
"""Polls without a usable response before an operation counts as lost: over half an hour, with growing waits."""


async def poll_operation(request: OperationRef) -> OperationReport:
    """Poll an operation."""
    storage = open_storage()
    intent = await storage.intents.get(request.run_id, request.machine_key, request.kind)
    if intent is None:
        raise RecordMissing(f"run {request.run_id} has no {request.kind.value} intent of {request.machine_key}")
    machine = MachineId.parse(intent.machine_id)
    if await _shows_as_running(machine, intent):
        reading = PollReading(state=PollState.RUNNING)
    else:
        reading = await open_resource_manager().poll(machine, intent.async_url, intent.location_url)
    report = await report_of(machine, intent, reading)
    if report.state is OperationState.RUNNING:
        report = await _bound(intent, report)
    if report.state is not OperationState.RUNNING:
        open_looks().ended(followed(intent), reading.took)
    return report


async def _shows_as_running(machine: MachineId, intent: Intent) -> bool:
    """Whether the bulk status of the region shows the operation as running. Saves its poll in large phases."""
    if intent.kind is not OperationKind.INSTALL or not intent.activity_id:
        return False
    if open_looks().in_flight(place_of(intent), time.time()) <= SWEPT_ABOVE:
        return False
    return intent.activity_id in await open_bulk_status().running(machine.subscription_id, intent.location)


async def report_of(machine: MachineId, intent: Intent, reading: PollReading) -> OperationReport:
    """The report for one poll's response; stores the result of an operation that has ended."""
    match reading.state:
        case PollState.RUNNING:
            return _running(intent, reading.retry_after)
        case PollState.SUCCEEDED:
            return await _keep(intent, reading.result)
        case PollState.FAILED:
            return OperationReport(
                state=OperationState.FAILED,
                failure=reading.failure,
                wait_seconds=wait_seconds(),
                adopted=intent.adopted,
            )
        case PollState.UNCLEAR:
            return await _unclear(intent, reading.failure, reading.retry_after)
        case PollState.LOST | PollState.SUCCEEDED_WITHOUT_RESULT:
            return await _ask_machine(machine, intent, reading.failure)


async def _keep(intent: Intent, result: Json) -> OperationReport:
    """Store the result with its patches; only the counts are returned."""
    storage = open_storage()
    if intent.kind is OperationKind.ASSESS:
        assessed = AssessResult.model_validate(result)
        bad = evaluate_assessment(assessed)
        patches = [patch.to_record() for patch in assessed.available_patches]
        summary = await note_selection(intent, assessed.summarize(), patches)
        await storage.results.record_assessment(intent.run_id, intent.machine_key, summary, patches, now())
        await note_packages(patches)
        return OperationReport(state=OperationState.ENDED, assessment=summary, outcome=bad, adopted=intent.adopted)
    installed = InstallResult.model_validate(result)
    patches = [patch.to_record() for patch in installed.patches]
    summary = installed.summarize(adopted=intent.adopted)
    await storage.results.record_installation(intent.run_id, intent.machine_key, summary, patches)
    return OperationReport(
        state=OperationState.ENDED,
        installation=installed.model_copy(update={"patches": []}),
        adopted=intent.adopted,
    )


async def _ask_machine(machine: MachineId, intent: Intent, failure: ArmFailure | None) -> OperationReport:
    """Read the counts from the machine's patch status, because the operation's own record is gone or not readable."""
    view = await open_resource_manager().read_machine(machine)
    if isinstance(view, ArmFailure):
        return await _unclear(intent, view, view.retry_after)
    summary = view.last_assessment if intent.kind is OperationKind.ASSESS else view.last_installation
    if summary is None or not is_ours(intent, summary):
        return await _unclear(intent, failure, None)
    if summary.status is PatchOperationStatus.IN_PROGRESS:
        return _running(intent, None)
    return await _keep(intent, _as_result(summary, intent.kind))


def _as_result(summary: PatchSummary, kind: OperationKind) -> Json:
    result = summary.to_assess_result() if kind is OperationKind.ASSESS else summary.to_install_result()
    return result.model_dump(mode="json", by_alias=True)


async def _unclear(intent: Intent, failure: ArmFailure | None, asked: float | None) -> OperationReport:
    """No usable response: retry with growing waits, until the operation counts as lost. Throttling does not count."""
    if failure is not None and is_throttling(failure):
        return OperationReport(state=OperationState.RUNNING, wait_seconds=wait_seconds(asked))
    polls = intent.failed_polls + 1
    await open_storage().intents.save(intent.model_copy(update={"failed_polls": polls}))
    if polls >= MAX_UNCLEAR_POLLS:
        return OperationReport(state=OperationState.LOST, failure=failure, adopted=intent.adopted)
    return OperationReport(
        state=OperationState.RUNNING, wait_seconds=wait_seconds(asked, polls=min(2 ** (polls // 4), 8))
    )


async def _bound(intent: Intent, report: OperationReport) -> OperationReport:
    """End a running operation at its deadline, or when the run is stopped; no poll follows either."""
    left = (intent.deadline_at - now()).total_seconds()
    if left <= 0:
        return OperationReport(state=OperationState.DEADLINE, adopted=intent.adopted)
    if await open_storage().runs.is_canceled(intent.run_id):
        return OperationReport(state=OperationState.CANCELED, adopted=intent.adopted)
    # Poll right at the deadline: an earlier poll could not end the operation.
    return report.model_copy(update={"wait_seconds": min(report.wait_seconds, left + wait_seconds())})


def _running(intent: Intent, asked: float | None) -> OperationReport:
    """Poll again: not before Azure asks for it, and not before a result is likely."""
    wait = open_looks().following(followed(intent), time.time(), elapsed(intent))
    return OperationReport(state=OperationState.RUNNING, wait_seconds=max(wait, wait_seconds(asked)))
