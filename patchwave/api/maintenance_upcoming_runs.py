"""Upcoming runs of a maintenance configuration over HTTP: list them, and cancel one."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import azure.functions as func

from patchwave.api.endpoint import ParameterSpec, ResponseSpec, route
from patchwave.api.http import json_response, number_of, query_of
from patchwave.api.maintenance_configurations import (
    CONFIGURATION_PROBLEMS,
    RUN_CANCELED,
    audit_subject_of,
    canceled_runs_of,
    configuration_of,
    cutoff,
    notes_on,
    read_existing,
)
from patchwave.api.problems import BOUNDARY_PROBLEMS, ApiProblem, azure_problem, invalid_query
from patchwave.api.requests import COMMAND, COMMAND_QUERY, read_command
from patchwave.azure.maintenance import open_maintenance
from patchwave.domain.calendar.schedule import Occurrence
from patchwave.domain.core.documents import Document
from patchwave.domain.core.principal import Role
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.maintenance.upcoming_run import ComingRun, coming_run, coming_runs, parse_run
from patchwave.domain.maintenance.validation import MAX_WINDOW
from patchwave.storage import open_storage

DEFAULT_COUNT = 12
MAX_COUNT = 100
_COUNT = ParameterSpec(
    "count",
    {"type": "integer", "minimum": 1, "maximum": MAX_COUNT, "default": DEFAULT_COUNT},
    "How many runs.",
)
_RUN = ParameterSpec(
    "run",
    {"type": "string", "maxLength": 600},
    "The run: its start in UTC as yyyyMMddHHmmss, or the correlation id of an event; the next one unless given.",
    "20270112210000",
)


class ComingRuns(Document):
    """The next runs of a configuration."""

    configuration: str
    runs: list[ComingRun]
    notes: list[str]


class CanceledRun(Document):
    """A run that will not happen."""

    configuration: str
    run: ComingRun
    already: bool
    """It was cancelled before this request, which has changed nothing."""


@route(
    "GET",
    "maintenance/configurations/{subscriptionId}/{resourceGroup}/{configuration}/runs",
    ResponseSpec(200, ComingRuns),
    role=Role.READER,
    query=[_COUNT],
    problems=CONFIGURATION_PROBLEMS,
)
async def list_coming_runs(req: func.HttpRequest) -> func.HttpResponse:
    """When a configuration runs next, until when each run can be cancelled, and which are."""
    count = number_of(req, "count", DEFAULT_COUNT, MAX_COUNT)
    identity, storage, now = configuration_of(req), open_storage(), datetime.now(UTC)
    found = await read_existing(identity)
    canceled, note = await canceled_runs_of(storage, identity)
    notes = [*notes_on(found, now, canceled), *filter(None, [note])]
    runs = coming_runs(found, now, count, cutoff(), canceled)
    return json_response(ComingRuns(configuration=found.id, runs=runs, notes=notes).to_wire())


@route(
    "POST",
    "maintenance/configurations/{subscriptionId}/{resourceGroup}/{configuration}/cancel",
    ResponseSpec(200, CanceledRun),
    role=Role.OPERATOR,
    body=COMMAND,
    query=[_RUN, *COMMAND_QUERY],
    problems=CONFIGURATION_PROBLEMS
    | BOUNDARY_PROBLEMS
    | {409: "It is too late for that run, or there is none to come."},
)
async def cancel_scheduled_run(req: func.HttpRequest) -> func.HttpResponse:
    """Cancel one coming run for all of its machines; it cannot be taken back. Later runs stay. May be repeated."""
    identity, storage = configuration_of(req), open_storage()
    command = read_command(req, datetime.now(UTC))
    found = await read_existing(identity)
    canceled, _ = await canceled_runs_of(storage, identity)
    run = _run_to_cancel(found, query_of(req, "run"), command.at, canceled)
    if run.canceled:
        return json_response(CanceledRun(configuration=found.id, run=run, already=True).to_wire())
    failure = await open_maintenance().cancel(identity, run.run)
    if failure is not None:
        raise azure_problem(failure, "cancellation")
    await storage.audit.add(
        audit_subject_of(identity),
        RUN_CANCELED,
        **command.who,
        at=command.at,
        detail={"reason": command.reason, "run": run.run},
    )
    run = run.model_copy(update={"canceled": True})
    return json_response(CanceledRun(configuration=found.id, run=run, already=False).to_wire())


def _run_to_cancel(
    configuration: MaintenanceConfiguration, named: str, now: datetime, canceled: Collection[str]
) -> ComingRun:
    """The run to cancel, which may be cancelled already.

    Raises:
        ApiProblem: 400 for an invalid name, 409 when no such run is upcoming or its deadline has passed.
    """
    if named:
        try:
            start = parse_run(named)
        except ValueError as error:
            raise invalid_query("run", str(error)) from None
        # The schedule may have changed since an event named the run: Azure decides.
        length = MAX_WINDOW if configuration.window is None or configuration.unreadable else configuration.window.length
        run = coming_run(Occurrence(start, start + length), cutoff(), canceled)
    else:
        following = coming_runs(configuration, now, 1, cutoff(), canceled)
        if not following:
            raise ApiProblem(409, " ".join(["There is no run to come.", *notes_on(configuration, now)]))
        run = following[0]
    if now >= run.cancel_deadline and not (run.canceled and now < run.starts_at):
        later = [each for each in coming_runs(configuration, now, 2, cutoff()) if now < each.cancel_deadline]
        hint = f" The one after it, {later[0].run}, can still be cancelled." if later else ""
        raise ApiProblem(
            409,
            f"Too late: the run that starts at {run.starts_at:%Y-%m-%d %H:%M:%S}Z could be cancelled until"
            f" {run.cancel_deadline:%Y-%m-%d %H:%M:%S}Z.{hint}",
        )
    return run
