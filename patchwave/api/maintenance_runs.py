"""Maintenance runs: kept when Azure no longer has their scheduled runs. Reads only."""

from __future__ import annotations

from datetime import UTC, datetime

import azure.functions as func

from patchwave.api.endpoint import (
    INVALID_QUERY,
    NO_RUN,
    PAGED,
    PageSpec,
    ParameterSpec,
    ResponseSpec,
    route,
)
from patchwave.api.http import json_response, page_of, query_of, run_id_of
from patchwave.api.problems import ApiProblem, no_such
from patchwave.domain.core.documents import Document, Json, UtcDatetime
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary
from patchwave.domain.core.principal import Role
from patchwave.domain.maintenance.occurrence import MaintenanceOccurrence
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.maintenance_results import has_status_mismatch
from patchwave.domain.runs.run import Mode, Run, RunState
from patchwave.storage import Storage, open_storage

_STATUS_MISMATCH = ParameterSpec(
    "statusMismatch",
    {"type": "boolean"},
    "true: only machines that Update Manager called done and that are not; a page may then hold fewer, or none.",
)


class MaintenanceRun(Document):
    """A scheduled run of Update Manager, and the pre and post maintenance of a policy."""

    run_id: str
    policy: str
    state: RunState
    reason: str = ""
    waiting_for: str = ""
    created_at: UtcDatetime
    ended_at: UtcDatetime | None = None
    machines: int
    counts_by_outcome: dict[str, int]
    occurrence: MaintenanceOccurrence


_RUNS = PageSpec("MaintenanceRuns", "runs", MaintenanceRun, "Some of them; no `cursor` after the last page.")


class MaintenanceRunMachine(Document):
    """A machine of a maintenance run: pre maintenance, Update Manager's status and result, and the outcome.

    ``status_mismatch``: Update Manager reports success, and the facts differ.
    """

    id: str
    key: str
    name: str
    pre_tasks_done: bool
    powered_on: bool
    pre_tasks_error: str
    snapshot_id: str
    update_manager_status: str
    update_manager_error: str
    installation: InstallationSummary | None
    assessment: AssessmentSummary | None
    outcome: OutcomeKind | None
    reason: str
    message: str
    status_mismatch: bool


_MACHINES = PageSpec(
    "MaintenanceRunMachines",
    "machines",
    MaintenanceRunMachine,
    "Some of its machines; no `cursor` after the last page.",
)


@route(
    "GET",
    "maintenance/runs",
    _RUNS.response,
    role=Role.READER,
    query=PAGED,
    problems=INVALID_QUERY,
)
async def list_maintenance_runs(req: func.HttpRequest) -> func.HttpResponse:
    """Maintenance runs, newest first, a page at a time."""
    limit, cursor = page_of(req)
    page = await open_storage().runs.list_page(limit, cursor, Mode.MAINTENANCE)
    return _RUNS.respond([view for run in page.items if (view := _view(run))], page)


@route("GET", "maintenance/runs/{runId}", ResponseSpec(200, MaintenanceRun), role=Role.READER, problems=NO_RUN)
async def get_maintenance_run(req: func.HttpRequest) -> func.HttpResponse:
    """One maintenance run; the counts of one that goes on are at most seconds old."""
    storage = open_storage()
    run = await _find(storage, run_id_of(req))
    counted = await storage.runs.get_counted(run.id, datetime.now(UTC))
    return json_response(_view(counted or run) or {})


@route(
    "GET",
    "maintenance/runs/{runId}/machines",
    _MACHINES.response,
    role=Role.READER,
    query=[_STATUS_MISMATCH, *PAGED],
    problems=INVALID_QUERY | NO_RUN,
)
async def list_maintenance_run_machines(req: func.HttpRequest) -> func.HttpResponse:
    """The machines of a maintenance run with their results, a page at a time."""
    limit, cursor = page_of(req)
    word = query_of(req, "statusMismatch") or "false"
    if word not in ("true", "false"):
        raise ApiProblem(400, "statusMismatch must be true or false.")
    storage = open_storage()
    run = await _find(storage, run_id_of(req))
    page = await storage.machines.list_page(run.id, outcome=None, limit=limit, cursor=cursor)
    wanted = [machine for machine in page.items if word == "false" or has_status_mismatch(machine)]
    return _MACHINES.respond([_machine(machine) for machine in wanted], page)


async def _find(storage: Storage, run_id: str) -> Run:
    run = await storage.runs.get(run_id)
    if run is None or run.maintenance is None:
        raise no_such("maintenance run")
    return run


def _view(run: Run) -> Json | None:
    if run.maintenance is None:
        return None
    return MaintenanceRun(
        run_id=run.id,
        policy=run.policy,
        state=run.state,
        reason=run.reason,
        waiting_for=run.waiting_for,
        created_at=run.created_at,
        ended_at=run.ended_at,
        machines=run.machines,
        counts_by_outcome=run.counts_by_outcome,
        occurrence=run.maintenance,
    ).to_wire()


def _machine(machine: MachineRecord) -> Json:
    fields = {name: getattr(machine, name) for name in MaintenanceRunMachine.model_fields if name != "status_mismatch"}
    return MaintenanceRunMachine(**fields, status_mismatch=has_status_mismatch(machine)).to_wire()
