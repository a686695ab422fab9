"""Patch mode changes over HTTP: a plan that changes nothing, then its start and stop.

Only a plan can be started, so that its effects can be reviewed first.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from typing import Annotated

import azure.durable_functions as df
import azure.functions as func
from pydantic import Field

from patchwave.api.audit import audit_route
from patchwave.api.endpoint import (
    INVALID_BODY,
    INVALID_QUERY,
    LOCATION,
    PAGED,
    PageSpec,
    ParameterSpec,
    RequestBody,
    ResponseSpec,
    route,
)
from patchwave.api.http import (
    caller_of,
    json_response,
    page_of,
    route_of,
    word_of,
)
from patchwave.api.problems import invalid_body, no_such
from patchwave.api.requests import COMMAND, FLEET_PROBLEMS, MAX_REASON, read_command
from patchwave.domain.core.command import Command
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
from patchwave.domain.policy.scope import Scope
from patchwave.domain.workflow import contracts
from patchwave.services.fleet_reader import one_of_few, read_fleet
from patchwave.services.policy_guardrails import boundary, scope_problems
from patchwave.services.start_run import schedule_once
from patchwave.storage import Storage, open_storage

DEFAULT_WAVE = 20
DEFAULT_FAILURES = 10
MAX_FAILURES = 100_000
"""More than the machines of any change: a higher limit would have no effect."""
NO_CHANGE = {404: "There is no such change."}
_WHAT = "change of patch modes"
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
    reason: Annotated[str, Field(max_length=MAX_REASON)] = Field(default="", description="Why, for people.")
    actor: Annotated[str, Field(max_length=200)] = Field(
        default="", description="Who asks, where the platform does not know who calls."
    )


_CHANGES = PageSpec("ChangePage", "changes", ModeChange, "Changes, newest first.")


_MACHINES = PageSpec("MachineChangePage", "machines", MachineChange, "Machines of a change.")


_END = ParameterSpec("end", {"type": "string", "enum": list(ChangeEnd)}, "Only machines that ended like this.")


@route(
    "POST",
    "fleet/mode-changes",
    ResponseSpec(201, ModeChange, headers=(LOCATION,)),
    role=Role.OPERATOR,
    body=RequestBody(ChangeRequest, {"to Patchwave": _EXAMPLE}),
    problems=INVALID_BODY | FLEET_PROBLEMS,
)
@one_of_few
async def plan_mode_change(req: func.HttpRequest, body: ChangeRequest) -> func.HttpResponse:
    """Plan a change of patch modes: what becomes of each machine of the scope, without changing anything.

    Machines that are set so already, and those for which Azure would refuse it, have their end in the plan; the rest
    is what `start` changes.
    """
    wanted = await asyncio.to_thread(_wanted, body)
    storage = open_storage()
    found = await read_fleet(body.scope)
    at = datetime.now(UTC)
    within = within_boundary(found, boundary())

    def plan() -> list[MachineChange]:
        missing = missing_ids(body.scope, (machine.found.machine_id for machine in found))
        planned = [plan_machine(machine, wanted, at) for machine in within]
        return planned + [missing_machine(identity, at) for identity in missing]

    # In a thread: seconds for a large fleet would block other requests.
    machines = await asyncio.to_thread(plan)
    ends: dict[str, int] = {}
    for machine in machines:
        if machine.end is not None:
            ends[machine.end] = ends.get(machine.end, 0) + 1
    command = Command(**caller_of(req, claimed=body.actor).who, reason=body.reason, at=at)
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
    await storage.audit.add(
        change.id,
        "mode_change_planned",
        **command.who,
        at=at,
        detail={"wanted": wanted.to_wire(), "reason": command.reason},
    )
    return json_response(change.to_wire(), status=201, headers={"Location": f"/api/fleet/mode-changes/{change.id}"})


@route("GET", "fleet/mode-changes", _CHANGES.response, role=Role.READER, query=PAGED, problems=INVALID_QUERY)
async def list_mode_changes(req: func.HttpRequest) -> func.HttpResponse:
    """Changes of patch modes, newest first, a page at a time."""
    limit, cursor = page_of(req)
    page = await open_storage().patch_mode_changes.list_page(limit, cursor)
    return _CHANGES.respond([change.to_wire() for change in page.items], page)


@route("GET", "fleet/mode-changes/{changeId}", ResponseSpec(200, ModeChange), role=Role.READER, problems=NO_CHANGE)
async def get_mode_change(req: func.HttpRequest) -> func.HttpResponse:
    """One change; the ends of one in progress are counted now."""
    storage = open_storage()
    return json_response((await _counted(storage, await _find(storage, req))).to_wire())


@route(
    "GET",
    "fleet/mode-changes/{changeId}/machines",
    _MACHINES.response,
    role=Role.READER,
    query=[_END, *PAGED],
    problems=INVALID_QUERY | NO_CHANGE,
)
async def list_mode_change_machines(req: func.HttpRequest) -> func.HttpResponse:
    """The machines of a change, a page at a time, of one end or of all; one without an end is still to be changed."""
    limit, cursor = page_of(req)
    end = word_of(req, "end", ChangeEnd)
    storage = open_storage()
    change = await _find(storage, req)
    page = await storage.patch_mode_changes.list_machines(change.id, end=end, limit=limit, cursor=cursor)
    return _MACHINES.respond([machine.to_wire() for machine in page.items], page)


async def _audit_subject(storage: Storage, req: func.HttpRequest) -> str:
    return (await _find(storage, req)).id


list_mode_change_audit = audit_route(
    "list_mode_change_audit",
    "fleet/mode-changes/{changeId}/audit",
    _audit_subject,
    text="Who planned, started and stopped a change, oldest first.",
    problems=NO_CHANGE,
)


@route(
    "POST",
    "fleet/mode-changes/{changeId}/start",
    ResponseSpec(202, ModeChange, headers=(LOCATION,)),
    role=Role.OPERATOR,
    body=COMMAND,
    problems=INVALID_BODY | NO_CHANGE | {409: "It was stopped, or its plan is older than 24 hours."},
)
async def start_mode_change(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    """Carry out a plan. Repeating it changes nothing, and resumes a change whose worker was lost for good."""
    storage = open_storage()
    command = read_command(req, datetime.now(UTC))
    change = await storage.patch_mode_changes.start((await _find(storage, req)).id, command)
    if change.state is ChangeState.RUNNING:
        if change.started is not None and change.started.at == command.at:
            await storage.audit.add(
                change.id, "mode_change_started", **command.who, at=command.at, detail={"reason": command.reason}
            )
        request = ChangeRef(change_id=change.id)
        failed = "The change could not be scheduled"
        await schedule_once(client, contracts.CHANGE_PATCH_MODES, request, change.id, failed)
    return _accepted(await _counted(storage, change))


@route(
    "POST",
    "fleet/mode-changes/{changeId}/stop",
    ResponseSpec(202, ModeChange, headers=(LOCATION,)),
    role=Role.OPERATOR,
    body=COMMAND,
    problems=INVALID_BODY | NO_CHANGE | {409: "It has ended."},
)
async def stop_mode_change(req: func.HttpRequest) -> func.HttpResponse:
    """Ask Azure for nothing more. What it has taken is followed to its end."""
    storage = open_storage()
    command = read_command(req, datetime.now(UTC))
    change = await storage.patch_mode_changes.stop((await _find(storage, req)).id, command)
    await storage.audit.add(
        change.id, "mode_change_stopped", **command.who, at=command.at, detail={"reason": command.reason}
    )
    return _accepted(await _counted(storage, change))


def _wanted(request: ChangeRequest) -> WantedSettings:
    if not request.scope.has_selector:
        message = (
            "selects nothing; name at least one of subscriptions, resourceGroups, locations, osTypes, tags, machineIds"
        )
        raise invalid_body(Problem(path="scope", message=message))
    if problems := scope_problems(request.scope):
        raise invalid_body(*problems)
    return WantedSettings.model_validate(request.model_dump(include=set(WantedSettings.model_fields)))


async def _find(storage: Storage, request: func.HttpRequest) -> ModeChange:
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
        raise no_such(_WHAT)
    return found


async def _counted(storage: Storage, change: ModeChange) -> ModeChange:
    """The change with the current counts of its machines."""
    if change.state.is_final and change.started is not None:
        return change
    _, ends = await storage.patch_mode_changes.list_pending(change.id, 0)
    return change.model_copy(update={"counts_by_end": ends})


def _accepted(change: ModeChange) -> func.HttpResponse:
    return json_response(change.to_wire(), status=202, headers={"Location": f"/api/fleet/mode-changes/{change.id}"})
