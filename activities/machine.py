"""Steps of one machine: preflight with its lease, verification, release, and outcome."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from activities.context import (
    MachineContext,
    acquire_lease,
    load_machine,
    load_record,
    locked_by,
    now,
    retry_after,
    wait_seconds,
)
from activities.window import frozen, is_behind_window
from patchwave.domain.azure.errors import ArmFailure, ErrorClass, classify, is_throttling
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.azure.patch_results import PatchSummary
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import Outcome, Reason
from patchwave.domain.core.patches import AssessmentSummary
from patchwave.domain.machine.health import Moment
from patchwave.domain.machine.preflight import Preflight, Readiness, evaluate
from patchwave.domain.runs.checkpoint import INSTALLING
from patchwave.domain.runs.commands import terminal_outcome
from patchwave.domain.runs.error_budget import counts_as_failure
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.run import Mode
from patchwave.domain.workflow.machine import (
    MachineEnded,
    PreflightRequest,
    PreflightResult,
    Recorded,
    RecordOutcome,
    ReleaseMachine,
    Verified,
    VerifyRequest,
)
from patchwave.storage import Change, completion_change
from patchwave.wiring import Services

_IN_PROGRESS = INSTALLING | {Stage.RESTARTING}
"""Stages in which preflight only finds machines whose orchestration died: the next one resumes them."""
_CHANGED_NEXT = (Stage.ASSESSED, Stage.INSTALLED)
"""Stages after which a machine is installed or restarted; an assessment changes nothing on it."""


async def preflight_machine(services: Services, request: PreflightRequest) -> PreflightResult:
    """Acquire the machine's lease for the run, and read its state.

    An earlier assessment is omitted when another installation ran since.
    """
    context = await load_machine(services, request.run_id, request.machine_key)
    if context.machine.stage in _IN_PROGRESS:
        return await _go_on(context)
    outcome = terminal_outcome(context.run, context.machine)
    if outcome is not None:
        return _not_ready(Readiness.SKIP, outcome)
    is_prepared_next = context.run.mode is Mode.MAINTENANCE and not context.machine.pre_tasks_done
    held = await frozen(context) if is_prepared_next or context.machine.stage in _CHANGED_NEXT else None
    if held is not None:
        # Before anything changes the machine: a power-on, or a snapshot of its disk.
        return _not_ready(Readiness.SKIP, held)
    holder = await acquire_lease(context, force=True)
    if holder is not None:
        return _not_ready(Readiness.WAIT, locked_by(holder), wait_seconds=wait_seconds(services.settings, polls=2))
    view = await services.resource_manager.read_machine(context.machine_id, keep_for=Moment.BEFORE)
    if isinstance(view, ArmFailure):
        verdict, outcome = classify(view), classify(view).to_outcome(view)
        if is_throttling(view) and is_behind_window(context.run, context.machine):
            # Requeue for another window, or end.
            requeued = context.policy.continues and context.run.mode is Mode.PATCH
            is_on = context.machine.powered_on_by_run
            return _not_ready(Readiness.SKIP, outcome, powered_on_by_run=is_on, requeued=requeued)
        if verdict.kind.is_transient:
            return _not_ready(Readiness.WAIT, outcome, **retry_after(services.settings, view, polls=2))
        return _not_ready(Readiness.SKIP, outcome)
    if (joined := _other_scale_set(context.machine, view)) is not None:
        return _not_ready(Readiness.SKIP, joined, powered_on_by_run=context.machine.powered_on_by_run)
    if learned := _learned(context.machine, view):
        await services.storage.machines.update(request.run_id, request.machine_key, context.machine.stage, **learned)
    assessment, assess_attempt = await _assessed(context, view.last_installation)
    return PreflightResult(
        preflight=evaluate(view, start_stopped=request.start_stopped),
        wait_seconds=wait_seconds(services.settings),
        powered_on_by_run=context.machine.powered_on_by_run,
        assess_activity_id=_activity(view.last_assessment),
        install_activity_id=_activity(view.last_installation),
        assessment=assessment,
        installation=context.machine.installation,
        assess_attempt=assess_attempt,
    )


async def _assessed(context: MachineContext, installed: PatchSummary | None) -> tuple[AssessmentSummary | None, int]:
    """The run's assessment unless it is outdated, and the attempt number of another one.

    After an installation by another caller, installing again would find nothing and might restart the machine.
    """
    found = context.machine.assessment
    is_done_here = context.machine.installation is not None
    if found is None or is_done_here or installed is None or not installed.comes_after(found):
        return found, 1
    intent = await context.storage.intents.get(context.run.id, context.machine.key, OperationKind.ASSESS)
    return None, intent.attempt + 1 if intent else 1


async def _go_on(context: MachineContext) -> PreflightResult:
    """Resume a machine whose operation Azure may have accepted: it is followed, so no check blocks it.

    If the intent shows that the request was never sent, `submit_operation` evaluates again whether it may be.
    """
    await acquire_lease(context)
    return PreflightResult(
        preflight=Preflight(readiness=Readiness.READY),
        powered_on_by_run=context.machine.powered_on_by_run,
        assessment=context.machine.assessment,
        installation=context.machine.installation,
        is_in_progress=True,
    )


async def verify_machine(services: Services, request: VerifyRequest) -> Verified:
    """Read the machine after an installation."""
    machine = await load_record(services.storage, request.run_id, request.machine_key)
    view = await services.resource_manager.read_machine(MachineId.parse(machine.id), keep_for=Moment.AFTER)
    if isinstance(view, ArmFailure):
        is_gone = classify(view).kind is ErrorClass.GONE
        return Verified(is_ready=False, is_gone=is_gone, **retry_after(services.settings, view))
    return Verified(
        is_ready=view.is_up,
        reboot_pending=_newer_word(view.last_assessment, request.installed_at),
        wait_seconds=wait_seconds(services.settings),
    )


async def release_machine(services: Services, request: ReleaseMachine) -> None:
    """Release a machine that stays in the run until its next step."""
    storage = services.storage
    installation = {"installation": request.installation} if request.installation else {}
    ended = MachineEnded(key=request.machine_key, attempt=request.attempt, requeued=request.requeued)
    completion = completion_change(request.phase, ended)
    await storage.machines.update(
        request.run_id, request.machine_key, request.stage, completion=completion, **installation
    )
    if not request.keep_lease:
        await storage.leases.release(request.machine_key, request.run_id)


async def record_outcome(services: Services, request: RecordOutcome) -> Recorded:
    """Store the machine's final row; the first one counts."""

    def completion(outcome: Outcome) -> Change:
        failed = counts_as_failure(outcome.outcome, outcome.reason)
        ended = MachineEnded(key=request.machine_key, attempt=request.attempt, failed=failed)
        return completion_change(request.phase, ended)

    stored = await services.storage.results.record_outcome(
        request.run_id,
        request.machine_key,
        request.outcome,
        at=now(),
        installation=request.installation,
        patches=[],
        completion=completion,
        release=not request.keep_lease,
    )
    return Recorded(failed=counts_as_failure(stored.outcome, stored.reason))


def _activity(summary: PatchSummary | None) -> str:
    return summary.activity_id if summary else ""


def _learned(known: MachineRecord, view: MachineView) -> dict[str, Any]:
    """Facts from the instance view that Resource Graph lacks or shows late."""
    said = {"os_type": view.os_type, "update_domain": view.update_domain}
    if known.scale_set:
        said |= {"fault_domain": view.fault_domain}
    learned = {name: value for name, value in said.items() if value and not getattr(known, name)}
    if view.scale_set_id and fold(view.scale_set_id) != fold(known.scale_set):
        learned |= {"scale_set": view.scale_set_id, "fault_domain": view.fault_domain}
    return learned


def _other_scale_set(planned: MachineRecord, view: MachineView) -> Outcome | None:
    """The outcome of a machine that has joined a scale set since the plan: nothing keeps it apart from its members."""
    is_planned, now_in = bool(planned.wave), view.scale_set_id
    if not is_planned or not now_in or fold(now_in) == fold(planned.scale_set):
        return None
    message = f"The machine has joined the scale set {now_in} since the plan was made; the next run plans it with that."
    return Outcome.skipped(Reason.SCALE_SET_CHANGED, message)


def _newer_word(assessment: PatchSummary | None, installed_at: datetime | None) -> bool | None:
    """Whether an assessment newer than the installation reports a pending reboot; ``None`` without one."""
    if assessment is None or installed_at is None:
        return None
    seen_at = assessment.last_modified_time or assessment.start_time
    return assessment.reboot_pending if seen_at is not None and seen_at > installed_at else None


def _not_ready(readiness: Readiness, outcome: Outcome, **fields: Any) -> PreflightResult:
    return PreflightResult(preflight=Preflight(readiness=readiness, outcome=outcome), **fields)
