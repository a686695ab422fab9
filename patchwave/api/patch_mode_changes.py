"""Patch mode changes over HTTP: a plan that changes nothing, then its start and stop.

Only a plan can be started, so that its effects can be reviewed first.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from datetime import UTC, datetime

from azure.durable_functions import DurableFunctionsClient
from azure.functions import HttpRequest, HttpResponse
from pydantic import Field

from patchwave.api.audit import audit_route
from patchwave.api.endpoint import LOCATION, PageSpec, RequestBody, ResponseSpec, route
from patchwave.api.http import PageQuery, json_response, route_of
from patchwave.api.problems import invalid_body, no_such
from patchwave.api.requests import COMMAND, FLEET_PROBLEMS, MAX_REASON, CommandQuery, command_of, read_command
from patchwave.azure.pipeline import boundary_of
from patchwave.domain.core.documents import Json
from patchwave.domain.core.principal import Role
from patchwave.domain.core.validation import Problem
from patchwave.domain.fleet.discovery import missing_ids
from patchwave.domain.fleet.machine import within_boundary
from patchwave.domain.fleet.patch_mode import WantedSettings
from patchwave.domain.fleet.patch_mode_change import (
    MAX_WAVE,
    ChangeEnd,
    ChangeRef,
    ChangeState,
    MachineChange,
    ModeChange,
    change_id,
    count_ends,
    missing_machine,
    plan_machine,
)
from patchwave.domain.policy.arc_rules import type_problems
from patchwave.domain.policy.boundary import Boundary
from patchwave.domain.policy.scope import Scope
from patchwave.domain.workflow import contracts
from patchwave.services.fleet_reader import one_of_few, read_fleet
from patchwave.services.policy_guardrails import scope_problems
from patchwave.services.start_run import schedule_once
from patchwave.storage import Storage
from patchwave.wiring import Services

DEFAULT_WAVE = 20
DEFAULT_FAILURES = 10
MAX_FAILURES = 100_000
"""More than the machines of any change: a higher limit would have no effect."""
NO_CHANGE = {404: "There is no such change."}
_EXAMPLE: Json = {
    "scope": {"subscriptions": ["11111111-2222-4333-8444-555555555555"], "osTypes": ["Linux"]},
    "patchMode": "AutomaticByPlatform",
    "bypass": True,
    "reason": "Patchwave patches these machines.",
}


class ChangeRequest(WantedSettings):
    """Which machines shall be set to what, how many of them at a time, and after how many failures it stops."""

    scope: Scope = Field(description="The machines; at least one selector.")
    max_concurrent: int = Field(
        default=DEFAULT_WAVE, ge=1, le=MAX_WAVE, description="Machines that are changed at the same time."
    )
    max_failures: int = Field(
        default=DEFAULT_FAILURES,
        ge=1,
        le=MAX_FAILURES,
        description="The change ends once so many machines have failed.",
    )
    reason: str = Field(default="", max_length=MAX_REASON, description="Why, for people.")
    actor: str = Field(default="", max_length=200, description="Who asks, where the platform does not know who calls.")


class ChangeMachinesQuery(PageQuery):
    """A page of machines, perhaps of one end only."""

    end: ChangeEnd | None = Field(default=None, description="Only machines that ended like this.")


_CHANGES = PageSpec("ChangePage", "changes", ModeChange, "Changes, newest first.")
_MACHINES = PageSpec("MachineChangePage", "machines", MachineChange, "Machines of a change.")
_ACCEPTED = ResponseSpec(202, ModeChange, headers=(LOCATION,))


@route(
    "POST",
    "fleet/mode-changes",
    ResponseSpec(201, ModeChange, headers=(LOCATION,)),
    role=Role.OPERATOR,
    body=RequestBody(ChangeRequest, {"to Patchwave": _EXAMPLE}),
    problems=FLEET_PROBLEMS,
)
@one_of_few
async def plan_mode_change(req: HttpRequest, services: Services, body: ChangeRequest) -> HttpResponse:
    """Plan a change of patch modes: what becomes of each machine of the scope, without changing anything.

    Machines that are set so already, and those for which Azure would refuse it, have their end in the plan; the rest
    is what `start` changes.
    """
    storage, boundary = services.storage, boundary_of(services.settings)
    wanted = await asyncio.to_thread(_wanted, boundary, body)
    found = await read_fleet(services.resource_graph, body.scope, services.settings.image_table)
    at = datetime.now(UTC)
    within = within_boundary(found, boundary)

    def plan() -> list[MachineChange]:
        missing = missing_ids(body.scope, (machine.found.machine_id for machine in found))
        planned = [plan_machine(machine, wanted, at) for machine in within]
        return planned + [missing_machine(identity, at) for identity in missing]

    # In a thread: seconds for a large fleet would block other requests.
    machines = await asyncio.to_thread(plan)
    ends = Counter(machine.end.value for machine in machines if machine.end is not None)
    command = command_of(req, body.actor, body.reason, at)
    change = ModeChange(
        id=change_id(at, secrets.token_hex(4)),
        state=ChangeState.PLANNED,
        wanted=wanted,
        scope=body.scope,
        max_concurrent=body.max_concurrent,
        max_failures=body.max_failures,
        planned=command,
        machines=len(machines),
        to_change=len(machines) - sum(ends.values()),
        counts_by_end=count_ends(ends),
    )
    await storage.patch_mode_changes.create(change, machines)
    detail = {"wanted": wanted.to_wire(), "reason": command.reason}
    await storage.audit.add(change.id, "mode_change_planned", **command.who, at=at, detail=detail)
    return _response(change, 201)


@route("GET", "fleet/mode-changes", _CHANGES.response, role=Role.READER)
async def list_mode_changes(req: HttpRequest, storage: Storage, query: PageQuery) -> HttpResponse:
    """Changes of patch modes, newest first, a page at a time."""
    page = await storage.patch_mode_changes.list_page(query.limit, query.cursor)
    return _CHANGES.respond([change.to_wire() for change in page.items], page)


@route("GET", "fleet/mode-changes/{changeId}", role=Role.READER, problems=NO_CHANGE)
async def get_mode_change(req: HttpRequest, storage: Storage) -> ModeChange:
    """One change; the ends of one in progress are counted now."""
    return await _counted(storage, await _find(storage, req))


@route("GET", "fleet/mode-changes/{changeId}/machines", _MACHINES.response, role=Role.READER, problems=NO_CHANGE)
async def list_mode_change_machines(req: HttpRequest, storage: Storage, query: ChangeMachinesQuery) -> HttpResponse:
    """The machines of a change, a page at a time, of one end or of all; one without an end is still to be changed."""
    change = await _find(storage, req)
    page = await storage.patch_mode_changes.list_machines(change.id, **dict(query))
    return _MACHINES.respond([machine.to_wire() for machine in page.items], page)


@audit_route("fleet/mode-changes/{changeId}/audit", problems=NO_CHANGE)
async def list_mode_change_audit(storage: Storage, req: HttpRequest) -> str:
    """Who planned, started and stopped a change, oldest first."""
    return (await _find(storage, req)).id


@route(
    "POST",
    "fleet/mode-changes/{changeId}/start",
    _ACCEPTED,
    role=Role.OPERATOR,
    body=COMMAND,
    problems=NO_CHANGE | {409: "It was stopped, or its plan is older than 24 hours."},
)
async def start_mode_change(
    req: HttpRequest, client: DurableFunctionsClient, storage: Storage, query: CommandQuery
) -> HttpResponse:
    """Carry out a plan. Repeating it changes nothing, and resumes a change whose worker was lost for good."""
    command = read_command(req, query, datetime.now(UTC))
    change = await storage.patch_mode_changes.start((await _find(storage, req)).id, command)
    if change.state is ChangeState.RUNNING:
        if change.started is not None and change.started.at == command.at:
            detail = {"reason": command.reason}
            await storage.audit.add(change.id, "mode_change_started", **command.who, at=command.at, detail=detail)
        request, failed = ChangeRef(change_id=change.id), "The change could not be scheduled"
        await schedule_once(client, contracts.CHANGE_PATCH_MODES, request, change.id, failed)
    return _response(await _counted(storage, change), 202)


@route(
    "POST",
    "fleet/mode-changes/{changeId}/stop",
    _ACCEPTED,
    role=Role.OPERATOR,
    body=COMMAND,
    problems=NO_CHANGE | {409: "It has ended."},
)
async def stop_mode_change(req: HttpRequest, storage: Storage, query: CommandQuery) -> HttpResponse:
    """Ask Azure for nothing more. What it has taken is followed to its end."""
    command = read_command(req, query, datetime.now(UTC))
    change = await storage.patch_mode_changes.stop((await _find(storage, req)).id, command)
    detail = {"reason": command.reason}
    await storage.audit.add(change.id, "mode_change_stopped", **command.who, at=command.at, detail=detail)
    return _response(await _counted(storage, change), 202)


def _wanted(boundary: Boundary, request: ChangeRequest) -> WantedSettings:
    if not request.scope.has_selector:
        message = (
            "selects nothing; name at least one of subscriptions, resourceGroups, locations, osTypes, tags, machineIds"
        )
        raise invalid_body(Problem(path="scope", message=message))
    if request.scope.holds_arc:
        message = "patch modes are of virtual machines of Azure only; leave arc out"
        raise invalid_body(Problem(path="scope.machineTypes", message=message))
    if problems := [*scope_problems(boundary, request.scope), *type_problems(request.scope)]:
        raise invalid_body(*problems)
    return WantedSettings.model_validate(request.model_dump(include=set(WantedSettings.model_fields)))


async def _find(storage: Storage, request: HttpRequest) -> ModeChange:
    """The change of the path.

    Raises:
        ApiProblem: 404 when it does not exist.
    """
    try:
        found = await storage.patch_mode_changes.get(route_of(request, "changeId"))
    except ValueError:
        # Not an id, or one with an invalid date.
        found = None
    if found is None:
        raise no_such("change of patch modes")
    return found


async def _counted(storage: Storage, change: ModeChange) -> ModeChange:
    """The change with the current counts of its machines."""
    if change.state.is_final and change.started is not None:
        return change
    _, ends = await storage.patch_mode_changes.list_pending(change.id, 0)
    return change.model_copy(update={"counts_by_end": ends})


def _response(change: ModeChange, status: int) -> HttpResponse:
    return json_response(change.to_wire(), status=status, headers={"Location": f"/api/fleet/mode-changes/{change.id}"})
