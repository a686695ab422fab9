"""Maintenance runs: kept when Azure no longer has their scheduled runs. Reads only."""

from __future__ import annotations

from datetime import UTC, datetime

from azure.functions import HttpRequest, HttpResponse
from pydantic import Field

from patchwave.api.endpoint import NO_RUN, PageSpec, route
from patchwave.api.http import Flag, PageQuery, run_id_of
from patchwave.api.problems import no_such
from patchwave.domain.core.documents import Document, Json, UtcDatetime
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary
from patchwave.domain.core.principal import Role
from patchwave.domain.maintenance.occurrence import MaintenanceOccurrence
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.maintenance_results import has_status_mismatch
from patchwave.domain.runs.run import Mode, Run, RunState
from patchwave.storage import Storage


class MaintenanceMachinesQuery(PageQuery):
    """A page of machines, perhaps only those of contradictory results."""

    status_mismatch: Flag = Field(
        default=False,
        description="true: only machines that Update Manager called done and that are not; a page may then hold fewer,"
        " or none.",
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


@route("GET", "maintenance/runs", _RUNS.response, role=Role.READER)
async def list_maintenance_runs(req: HttpRequest, storage: Storage, query: PageQuery) -> HttpResponse:
    """Maintenance runs, newest first, a page at a time."""
    page = await storage.runs.list_page(query.limit, query.cursor, Mode.MAINTENANCE)
    return _RUNS.respond([_view(run).to_wire() for run in page.items if run.maintenance is not None], page)


@route("GET", "maintenance/runs/{runId}", role=Role.READER, problems=NO_RUN)
async def get_maintenance_run(req: HttpRequest, storage: Storage) -> MaintenanceRun:
    """One maintenance run; the counts of one in progress are at most seconds old."""
    run = await _find(storage, run_id_of(req))
    return _view(await storage.runs.get_counted(run.id, datetime.now(UTC)) or run)


@route("GET", "maintenance/runs/{runId}/machines", _MACHINES.response, role=Role.READER, problems=NO_RUN)
async def list_maintenance_run_machines(
    req: HttpRequest, storage: Storage, query: MaintenanceMachinesQuery
) -> HttpResponse:
    """The machines of a maintenance run with their results, a page at a time."""
    run = await _find(storage, run_id_of(req))
    page = await storage.machines.list_page(run.id, outcome=None, limit=query.limit, cursor=query.cursor)
    wanted = [machine for machine in page.items if not query.status_mismatch or has_status_mismatch(machine)]
    return _MACHINES.respond([_machine(machine) for machine in wanted], page)


async def _find(storage: Storage, run_id: str) -> Run:
    run = await storage.runs.get(run_id)
    if run is None or run.maintenance is None:
        raise no_such("maintenance run")
    return run


def _view(run: Run) -> MaintenanceRun:
    names = MaintenanceRun.model_fields.keys() - {"run_id", "occurrence"}
    fields: Json = {name: getattr(run, name) for name in names} | {"run_id": run.id, "occurrence": run.maintenance}
    return MaintenanceRun(**fields)


def _machine(machine: MachineRecord) -> Json:
    fields = {name: getattr(machine, name) for name in MaintenanceRunMachine.model_fields if name != "status_mismatch"}
    return MaintenanceRunMachine(**fields, status_mismatch=has_status_mismatch(machine)).to_wire()
