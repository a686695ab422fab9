"""Steps of a maintenance run as a whole: status, machines, cancellation, end.

Steps of one machine are in `activities.maintenance_machine`, the import of results in `activities.maintenance_results`.
"""

from __future__ import annotations

from collections.abc import Sequence

from activities.context import load_run, now, wait_seconds
from activities.discover import add_found, trouble
from activities.heartbeat import record_heartbeat
from patchwave.domain.azure.errors import ArmFailure, classify
from patchwave.domain.core.documents import Json, format_instant, str_or_empty
from patchwave.domain.core.outcome import Reason
from patchwave.domain.fleet.discovery import build_queries, select_machines
from patchwave.domain.maintenance.occurrence import MaintenanceOccurrence, OccurrenceId
from patchwave.domain.maintenance.queries import machines_of_run
from patchwave.domain.policy.scope import Scope
from patchwave.domain.runs.commands import PATCHWAVE
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.maintenance_results import MaintenanceUpdateRow, has_status_mismatch
from patchwave.domain.runs.run import Run
from patchwave.domain.workflow.maintenance_run import (
    SHARD,
    CancelResult,
    MaintenancePhaseRef,
    MaintenanceRunStatus,
    MaintenanceSummary,
    PrePhaseEnd,
    PreSummary,
    ShardMachines,
    ShardRef,
    Shards,
)
from patchwave.domain.workflow.run import MachinesPage, MachinesPageRequest, RunRef
from patchwave.storage import RecordMissing, Storage, in_parallel
from patchwave.wiring import Services

_NAMED = 20
"""Machines listed in one audit entry."""
_PARALLEL = 50
_NOT_LISTED = "The machines of the scheduled run could not be listed."


def occurrence_of(run: Run) -> MaintenanceOccurrence:
    """The scheduled run that the maintenance run belongs to.

    Raises:
        RecordMissing: the run has another mode.
    """
    if run.maintenance is None:
        raise RecordMissing(f"run {run.id} is no maintenance run")
    return run.maintenance


async def load_maintenance_run(services: Services, request: RunRef) -> MaintenanceRunStatus:
    """Mark the run as running, and return its status. Safe to repeat."""
    run_id = request.run_id
    storage = services.storage
    try:
        await storage.runs.start(run_id, now())
        run, policy = await load_run(storage, run_id)
        occurrence = occurrence_of(run)
        await record_heartbeat(storage, run)
    except RecordMissing:
        return MaintenanceRunStatus(is_ended=True)
    around = policy.maintenance
    return MaintenanceRunStatus(
        is_ended=run.state.is_final,
        is_stopped=run.cancel_requested_at is not None or bool(run.stop_reason),
        is_prepared=occurrence.prepared_at is not None,
        is_canceled=occurrence.canceled_at is not None,
        is_over=occurrence.is_over,
        has_results=occurrence.results_at is not None,
        start_stopped=policy.start_stopped,
        hooks=policy.hooks.is_wanted,
        cancel_on_pre_failure=around is not None and around.cancel_on_pre_failure,
        announces=policy.notifications.is_wanted,
        pre_deadline=occurrence.pre_deadline,
        ends_at=occurrence.ends_at,
        post_deadline=occurrence.post_deadline,
        poll_seconds=wait_seconds(services.settings),
    )


# --- its machines


async def find_occurrence_machines(services: Services, request: MachinesPageRequest) -> MachinesPage:
    """Read one page of the scheduled run's machines.

    New machines in the policy's scope get a row; existing rows get Update Manager's status.
    """
    storage, settings = services.storage, services.settings
    run, policy = await load_run(storage, request.run_id)
    occurrence = occurrence_of(run)
    page = await services.resource_graph.page(machines_of_run(occurrence.id), occurrence.subscriptions, request.cursor)
    if page.failure is not None:
        return MachinesPage(machines=run.machines, **trouble(settings, page, request.attempt, _NOT_LISTED))
    read = [MaintenanceUpdateRow.read(row) for row in page.rows]
    said = dict(update for update in read if update is not None)
    await _note_passed_over(storage, run, [row for row, update in zip(page.rows, read, strict=True) if update is None])
    known = await storage.machines.get_stages(run.id, [machine.key for machine in said])
    fresh = [machine for machine in said if machine.key not in known]
    machines = run.machines
    for query in build_queries(Scope(machine_ids=tuple(machine.text for machine in fresh))) if fresh else []:
        found = await services.resource_graph.page(query.text, query.subscriptions)
        if found.failure is not None:
            return MachinesPage(machines=machines, **trouble(settings, found, request.attempt, _NOT_LISTED))
        rows = select_machines(policy.scope, found.rows)
        await add_found(settings, storage, run.id, rows)
        machines = await storage.runs.count_machines(run.id)
        known |= {row.machine_id.key: Stage.WAITING for row in rows}
    await _keep_words(storage, run, {machine.key: update for machine, update in said.items() if machine.key in known})
    return MachinesPage(machines=machines, cursor=page.skip_token, wait_seconds=page.wait_seconds)


async def _note_passed_over(storage: Storage, run: Run, rows: Sequence[Json]) -> None:
    """Audit rows of other resources, such as Arc machines: Azure patches them, without pre and post maintenance."""
    occurrence = occurrence_of(run)
    ids = [str_or_empty(row.get("resourceId")) or str_or_empty(row.get("id")) or "a row without an id" for row in rows]
    if occurrence.passing_over(ids) is occurrence:
        return
    noted = await storage.runs.update_occurrence(run.id, lambda known: known.passing_over(ids))
    passed_over = occurrence_of(noted).passed_over
    detail = {"machines": len(passed_over), "examples": passed_over[:_NAMED]}
    await storage.audit.add(run.id, "machines_passed_over", actor=PATCHWAVE, at=now(), detail=detail)


async def _keep_words(storage: Storage, run: Run, updates: dict[str, MaintenanceUpdateRow]) -> None:
    async def keep(found: tuple[str, MaintenanceUpdateRow]) -> None:
        key, update = found
        machine = await storage.machines.get_validated(run.id, key)
        if machine is None or not update.status or machine.update_manager_status == update.status:
            return
        error = update.error_message or machine.update_manager_error
        await storage.machines.update(
            run.id, key, machine.stage, update_manager_status=update.status, update_manager_error=error
        )

    await in_parallel(keep, updates.items(), most=_PARALLEL)


async def list_shards(services: Services, request: MaintenancePhaseRef) -> Shards:
    """Split the machines of the run into shards, without those that need no work."""
    cursors: list[str | None] = []
    cursor: str | None = None
    machines = services.storage.machines
    while True:
        page = await machines.list_page(request.run_id, outcome=None, limit=SHARD, cursor=cursor)
        if any(request.phase.is_open(machine) for machine in page.items):
            cursors.append(cursor)
        cursor = page.cursor
        if cursor is None:
            return Shards(cursors=cursors)


async def get_shard(services: Services, request: ShardRef) -> ShardMachines:
    """The machines of a shard that still need the phase."""
    page = await services.storage.machines.list_page(request.run_id, outcome=None, limit=SHARD, cursor=request.cursor)
    return ShardMachines(keys=[machine.key for machine in page.items if request.phase.is_open(machine)])


# --- pre phase


async def finish_pre_phase(services: Services, request: PrePhaseEnd) -> PreSummary:
    """Evaluate the pre phase and store the result.

    A machine on which it has not ended counts as failed: its state is unknown.
    """
    run_id = request.run_id
    storage = services.storage
    machines = [machine async for machine in storage.machines.scan(run_id)]
    failed = [machine for machine in machines if _has_failed(machine)]
    at = now()
    run = await storage.runs.update_occurrence(
        run_id,
        lambda known: known.model_copy(update={"prepared_at": known.prepared_at or at, "pre_failures": len(failed)}),
    )
    detail = {
        "machines": len(machines),
        "failed": len(failed),
        "started": sum(machine.powered_on_by_run for machine in machines),
        "failure": request.failure,
        "examples": [f"{each.name}: {each.pre_tasks_error or 'not ready in time'}" for each in failed[:_NAMED]],
    }
    await storage.audit.add(
        run_id, "occurrence_prepared", actor=PATCHWAVE, at=occurrence_of(run).prepared_at or at, detail=detail
    )
    await storage.runs.set_state(run_id, run.state, "the scheduled run of Update Manager")
    return PreSummary(machines=len(machines), failed=len(failed))


def _has_failed(machine: MachineRecord) -> bool:
    """Whether the pre phase failed on the machine. Outside of the boundary there is none."""
    return bool(machine.pre_tasks_error) or not (machine.pre_tasks_done or machine.reason == Reason.OUTSIDE_BOUNDARY)


async def cancel_occurrence(services: Services, request: RunRef) -> CancelResult:
    """Cancel the scheduled run, while that is possible. Safe to repeat."""
    run_id = request.run_id
    storage = services.storage
    run, _ = await load_run(storage, run_id)
    occurrence = occurrence_of(run)
    at = now()
    if occurrence.canceled_at is not None:
        return CancelResult(canceled=True)
    scheduled = OccurrenceId.parse(occurrence.id)
    failure = await services.maintenance.cancel(scheduled.configuration, scheduled.stamp)
    if failure is None and now() >= occurrence.starts_at:
        message = f"it had begun at {format_instant(occurrence.starts_at)}, when Azure takes a cancellation in vain"
        failure = ArmFailure(status=200, code="RunHasBegun", message=message)
    if failure is None:
        await storage.runs.update_occurrence(run_id, lambda known: known.model_copy(update={"canceled_at": at}))
        detail = {"occurrence": occurrence.id, "failed": occurrence.pre_failures}
        await storage.audit.add(run_id, "occurrence_canceled", actor=PATCHWAVE, at=at, detail=detail)
        return CancelResult(canceled=True)
    wait = wait_seconds(services.settings, failure.retry_after)
    is_passing = classify(failure).kind.is_transient
    if is_passing and (occurrence.cancel_deadline - at).total_seconds() > wait:
        return CancelResult(wait_seconds=wait, failure=failure)
    await storage.runs.update_occurrence(
        run_id, lambda known: known.model_copy(update={"cancel_failure": failure.text})
    )
    detail = {"occurrence": occurrence.id, "failure": failure.text}
    await storage.audit.add(run_id, "occurrence_not_canceled", actor=PATCHWAVE, at=at, detail=detail)
    return CancelResult(failure=failure)


# --- post phase


async def finish_results_import(services: Services, request: RunRef) -> None:
    """The results are imported, or the deadline for them has passed."""
    at, runs = now(), services.storage.runs
    run = await runs.update_occurrence(
        request.run_id, lambda known: known.model_copy(update={"results_at": known.results_at or at})
    )
    await runs.set_state(request.run_id, run.state)


async def summarize_maintenance_run(services: Services, request: RunRef) -> MaintenanceSummary:
    """Count the machines that Update Manager reported as done and that are not."""
    run_id = request.run_id
    storage = services.storage
    wrong = [machine async for machine in storage.machines.scan(run_id) if has_status_mismatch(machine)]
    run = await storage.runs.update_occurrence(
        run_id, lambda known: known.model_copy(update={"status_mismatches": len(wrong)})
    )
    if wrong:
        examples = [f"{each.name}: {each.outcome.value if each.outcome else ''}" for each in wrong[:_NAMED]]
        detail = {"machines": len(wrong), "examples": examples}
        at = occurrence_of(run).results_at or now()
        await storage.audit.add(run_id, "update_manager_status_mismatch", actor=PATCHWAVE, at=at, detail=detail)
    return MaintenanceSummary(status_mismatches=len(wrong))
