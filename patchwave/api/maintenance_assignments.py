"""Assignments over HTTP: machines of a maintenance configuration, single ones or by a dynamic scope.

Resource Graph has all assignments, minutes late. A machine's own list is current, and only exists while the machine
does. Assignments of a machine are therefore read from both, which covers recent ones and those of deleted machines.
Changes are audited under the configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

import azure.functions as func
from pydantic import Field

from patchwave.api.endpoint import INVALID_QUERY, ParameterSpec, RequestBody, ResponseSpec, route
from patchwave.api.http import caller_of, json_response, query_of
from patchwave.api.maintenance_configurations import audit_subject_of
from patchwave.api.problems import (
    AZURE_PROBLEMS,
    BOUNDARY_PROBLEMS,
    ApiProblem,
    azure_problem,
    invalid_body,
    invalid_query,
    no_such,
)
from patchwave.api.requests import ACTOR, COMMAND_QUERY, read_command
from patchwave.azure.maintenance import open_maintenance
from patchwave.azure.resource_graph import QueryRefused, open_resource_graph
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.command import Command
from patchwave.domain.core.documents import Document, Json, UtcDatetime
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import ConfigurationId, MachineId
from patchwave.domain.core.principal import Role, Signed
from patchwave.domain.core.validation import Problem
from patchwave.domain.fleet.discovery import DiscoveredMachine, DiscoveryQuery, build_queries, select_machines
from patchwave.domain.maintenance.assignment import (
    MAX_ASSOCIATIONS,
    MAX_IN_DYNAMIC_SCOPE,
    Assignment,
    DynamicScope,
    ScopeFilter,
    assignment_id,
    assignment_name,
    check_assignment,
    check_scopes,
    check_sizes,
    read_assignment,
)
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.maintenance.queries import (
    assignment_with_id,
    assignments_of_configuration,
    assignments_of_machine,
    dynamic_scopes,
)
from patchwave.domain.policy.scope import Scope
from patchwave.storage import Storage, open_storage

MAX_SECONDS = 120.0
"""Azure ends an HTTP request after 230 seconds."""
_NO_ROW = "Resource Graph does not know this machine: it is new, gone, or cannot be read; dynamic scopes are left out."


class AssignmentRequest(Document):
    """What to assign to what."""

    configuration_id: str = Field(description="ARM id of the maintenance configuration.")
    resource_id: str = Field(description="ARM id of a virtual machine, a subscription or a resource group.")
    name: Annotated[str, Field(max_length=260)] = Field(
        default="", description="Name of the assignment; made of the configuration's unless given."
    )
    location: str = Field(default="", description="Region; that of the configuration unless given.")
    filter: ScopeFilter | None = Field(default=None, description="Which machines; for subscriptions and groups.")
    all_machines: bool = Field(
        default=False, description="Assign a whole subscription: without a filter, only this says that it is meant."
    )


class AssignedSchedule(Document):
    """One assignment, and when its configuration runs next."""

    assignment: Assignment
    dynamic: bool
    """Whether it is for whatever machines match."""
    next_run: UtcDatetime | None
    notes: list[str]
    matching: int | None = None
    """Machines that match a dynamic scope now, as far as Resource Graph shows them; in the answer to a PUT only."""


class AssignmentList(Document):
    """Assignments of a machine or of a configuration."""

    assignments: list[AssignedSchedule]
    notes: list[str]
    """What could not be looked up."""


class RemovedAssignments(Document):
    """The assignments that are gone; ids."""

    removed: list[str]
    still_assigned: list[Assignment]
    """Dynamic scopes by which the machine still gets the configuration: remove its tag, or change the filter."""


_MACHINE = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg-app"
_CONFIGURATION = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg-schedules"
    "/providers/Microsoft.Maintenance/maintenanceConfigurations/monthly-servers"
)
_EXAMPLES: dict[str, Json] = {
    "machine": {
        "configurationId": _CONFIGURATION,
        "resourceId": f"{_MACHINE}/providers/Microsoft.Compute/virtualMachines/vm-01",
    },
    "dynamic-scope": {
        "configurationId": _CONFIGURATION,
        "resourceId": _MACHINE,
        "filter": {
            "osTypes": ["Linux"],
            "locations": ["westeurope"],
            "tagSettings": {"filterOperator": "Any", "tags": {"env": ["prod", "stage"]}},
        },
    },
}
_ID: Json = {"type": "string", "maxLength": 1_000}
_MACHINE_ID = ParameterSpec("machine", _ID, "ARM id of a machine.")
_CONFIGURATION_ID = ParameterSpec("configuration", _ID, "ARM id of a maintenance configuration.")
_ASSIGNMENT_ID = ParameterSpec("assignment", _ID, "ARM id of one assignment, instead of machine and configuration.")


@route(
    "GET",
    "maintenance/assignments",
    ResponseSpec(200, AssignmentList, as_given=True),
    role=Role.READER,
    query=[_MACHINE_ID, _CONFIGURATION_ID],
    problems=INVALID_QUERY | AZURE_PROBLEMS,
    uses_storage=False,
)
async def list_assignments(req: func.HttpRequest) -> func.HttpResponse:
    """What a machine is assigned to, directly and by dynamic scopes; or what a configuration is assigned to."""
    named = query_of(req, "machine"), query_of(req, "configuration")
    if bool(named[0]) == bool(named[1]):
        raise invalid_query("machine", "give machine or configuration, one of them")
    async with _in_time():
        if named[0]:
            return json_response((await _of_machine(_machine(named[0]))).to_wire())
        identity = _configuration(named[1])
        found = await _assignments(assignments_of_configuration(identity))
        return json_response((await _list(found, [])).to_wire())


@route(
    "PUT",
    "maintenance/assignments",
    ResponseSpec(200, AssignedSchedule, as_given=True),
    role=Role.AUTHOR,
    body=RequestBody(AssignmentRequest, _EXAMPLES),
    query=[ACTOR],
    problems=AZURE_PROBLEMS
    | BOUNDARY_PROBLEMS
    | {
        400: "The request is not valid, or a limit would be passed; all of it at once.",
        404: "There is no such machine or maintenance configuration.",
        409: "An assignment of this name is for another configuration, or Azure refuses it as things are.",
    },
)
async def put_assignment(req: func.HttpRequest, body: AssignmentRequest) -> func.HttpResponse:
    """Assign a configuration to a machine or a dynamic scope, or change the filter of a scope. May be repeated.

    The answer says how many machines a dynamic scope matches now. The same machines under another spelling of the
    filter are the same assignment.
    """
    now, storage = datetime.now(UTC), open_storage()
    wanted = _parse(body)
    if problems := [*check_assignment(wanted), *_check_width(wanted, body)]:
        raise invalid_body(*problems)
    identity = ConfigurationId.parse(wanted.maintenance_configuration_id)
    configuration = await open_maintenance().read(identity)
    if isinstance(configuration, ArmFailure):
        raise azure_problem(configuration, "maintenance configuration")
    if not wanted.location:
        wanted = wanted.model_copy(update={"location": configuration.location})
    async with _in_time():
        others = await _assignments(assignments_of_configuration(identity))
        if not body.name:
            wanted = _under_its_name(wanted, others)
        await _check_name(wanted)
        matching = await _check_limits(wanted, others)
    made = await open_maintenance().assign(wanted)
    if isinstance(made, ArmFailure):
        raise azure_problem(made, "machine, resource group or subscription")
    actor = caller_of(req, claimed=query_of(req, "actor"))
    await _note(storage, "assignment_written", made, actor, now)
    view = _assigned(made, configuration, now)
    if matching == 0:
        view.notes.append("No machine matches now.")
    return json_response(view.model_copy(update={"matching": matching}).to_wire())


@route(
    "DELETE",
    "maintenance/assignments",
    ResponseSpec(200, RemovedAssignments, as_given=True),
    role=Role.AUTHOR,
    query=[_MACHINE_ID, _CONFIGURATION_ID, _ASSIGNMENT_ID, *COMMAND_QUERY],
    problems=INVALID_QUERY | {404: "There is no such assignment."} | AZURE_PROBLEMS | BOUNDARY_PROBLEMS,
)
async def remove_assignments(req: func.HttpRequest) -> func.HttpResponse:
    """Remove a machine from a configuration, under whatever names it is assigned to it; or remove one assignment."""
    command, storage = read_command(req, datetime.now(UTC)), open_storage()
    named = query_of(req, "assignment")
    async with _in_time():
        if named:
            found, still = [await _one(named)], []
        else:
            machine, identity = _machine(query_of(req, "machine")), _configuration(query_of(req, "configuration"))
            found = await _naming(machine, identity)
            still = await _holding(machine, identity)
        removed = [each.id for each in found if await _remove(storage, each, command)]
    if not removed and not still:
        raise no_such("assignment")
    return json_response(RemovedAssignments(removed=removed, still_assigned=still).to_wire())


async def _of_machine(machine: MachineId) -> AssignmentList:
    """The machine's assignments, and the dynamic scopes that contain it."""
    row = await _row(machine)
    direct = await _naming(machine)
    dynamic = [each for each in await _assignments(dynamic_scopes()) if row is not None and each.holds(row)]
    return await _list([*direct, *dynamic], [] if row else [_NO_ROW])


async def _naming(machine: MachineId, configuration: ConfigurationId | None = None) -> list[Assignment]:
    """Assignments that name the machine, of one configuration or of all, from Resource Graph and its own list."""
    found = await _assignments(assignments_of_machine(machine, configuration))
    exact = await open_maintenance().assignments_of(machine)
    if isinstance(exact, ArmFailure):
        if exact.status != 404:
            raise azure_problem(exact, "machine")
        exact = []
    known = {each.folded: each for each in [*found, *exact]}
    return [each for each in known.values() if configuration in (None, each.configuration_id)]


async def _holding(machine: MachineId, configuration: ConfigurationId) -> list[Assignment]:
    """The dynamic scopes through which the machine has the configuration."""
    row = await _row(machine)
    found = await _assignments(assignments_of_configuration(configuration)) if row else []
    return [each for each in found if each.is_dynamic and row is not None and each.holds(row)]


async def _row(machine: MachineId) -> DiscoveredMachine | None:
    """The machine's row in Resource Graph."""
    return next(iter(await _machines(Scope(machine_ids=(machine.text,)))), None)


async def _machines(scope: Scope) -> list[DiscoveredMachine]:
    pages = open_resource_graph().pages(build_queries(scope))
    rows = [row async for page in pages for row in page.rows]
    return select_machines(scope, rows)


async def _assignments(query: str) -> list[Assignment]:
    pages = open_resource_graph().pages([DiscoveryQuery(text=query)])
    found = [read_assignment(row) async for page in pages for row in page.rows]
    return [each for each in found if each is not None]


async def _list(found: Iterable[Assignment], notes: list[str]) -> AssignmentList:
    """The assignments with the next runs of their configurations."""
    listed, now = list(found), datetime.now(UTC)
    wanted = {each.configuration_id for each in listed} - {None}
    read = await asyncio.gather(*(open_maintenance().read(each) for each in wanted if each))
    known = {each.configuration_id: each for each in read if isinstance(each, MaintenanceConfiguration)}
    views = [
        _assigned(each, known.get(each.configuration_id) if each.configuration_id else None, now) for each in listed
    ]
    return AssignmentList(assignments=views, notes=notes)


def _assigned(
    assignment: Assignment, configuration: MaintenanceConfiguration | None, now: datetime
) -> AssignedSchedule:
    following = configuration.next_occurrence(now) if configuration else None
    notes: list[str] = []
    if configuration is None:
        notes.append("Its configuration is gone or cannot be read: nothing is patched by it.")
    elif following is None:
        notes.append(f"Its configuration never runs: {configuration.unreadable or 'the schedule has ended'}.")
    return AssignedSchedule(
        assignment=assignment,
        dynamic=assignment.is_dynamic,
        next_run=following.at_utc if following else None,
        notes=notes,
    )


async def _check_name(wanted: Assignment) -> None:
    """Refuse the name of another configuration's assignment: the machine would silently leave that one."""
    found = await open_maintenance().read_assignment(wanted.resource_id, wanted.name)
    if isinstance(found, ArmFailure):
        if found.status != 404:
            raise azure_problem(found, "assignment")
    elif found.configuration_id != wanted.configuration_id:
        raise ApiProblem(
            409,
            f"The assignment {wanted.name} is there for {found.maintenance_configuration_id}: give another name, or"
            " remove it first.",
        )


def _check_width(wanted: Assignment, given: AssignmentRequest) -> list[Problem]:
    """Require confirmation for a whole subscription: a forgotten filter looks the same."""
    criteria = wanted.filter or ScopeFilter()
    if not wanted.is_dynamic:
        return [Problem(path="allMachines", message="is for dynamic scopes")] if given.all_machines else []
    if given.all_machines and not criteria.is_empty:
        return [Problem(path="allMachines", message="contradicts the filter: give one of them")]
    # A resource group needs locations anyway.
    if criteria.is_empty and not given.all_machines and wanted.is_subscription:
        message = (
            "selects every machine of the subscription; give locations, resourceGroups, osTypes or tags, or say that"
            " this is meant: allMachines: true, --all-machines on the command line"
        )
        return [Problem(path="filter", message=message)]
    return []


def _under_its_name(wanted: Assignment, others: Iterable[Assignment]) -> Assignment:
    """The assignment under its existing name, if another tool created it under a different one."""
    known = list(others)
    if wanted.folded in {each.folded for each in known}:
        return wanted
    same = next((each for each in known if each.is_same_as(wanted)), None)
    return wanted if same is None else wanted.model_copy(update={"id": same.id, "name": same.name})


async def _check_limits(wanted: Assignment, known: Iterable[Assignment]) -> int | None:
    """The current number of machines of a dynamic scope; ``None`` for a machine.

    Refuses more than the limits of a schedule, as far as Resource Graph shows its current assignments.

    Raises:
        ApiProblem: 400 with each exceeded limit.
    """
    together = [*(each for each in known if each.folded != wanted.folded), wanted]
    in_scope: int | None = None
    if wanted.is_dynamic:
        in_scope = len(await _machines(wanted.scope)) if wanted.scope is not None else 0
    problems = [*check_scopes(together), *check_sizes(await _count(together), in_scope)]
    if problems:
        raise invalid_body(*problems)
    return in_scope


async def _count(assignments: Iterable[Assignment]) -> int:
    """The number of distinct machines of a schedule; only an upper bound if that is within the limit."""
    listed = list(assignments)
    held = {fold(each.resource_id) for each in listed if not each.is_dynamic}
    scopes = [each.scope for each in listed if each.is_dynamic and each.scope is not None]
    # A scope's limit bounds its machines, so most schedules need no count.
    if len(held) + len(scopes) * MAX_IN_DYNAMIC_SCOPE > MAX_ASSOCIATIONS:
        for scope in scopes:
            held |= {machine.machine_id.folded for machine in await _machines(scope)}
    return len(held)


async def _one(text: str) -> Assignment:
    """The assignment with this id, which may belong to a deleted machine."""
    named = read_assignment({"id": text})
    if named is None or (named.machine_id is None and not named.is_dynamic):
        raise invalid_query("assignment", "is not the id of an assignment of a machine or a dynamic scope")
    exact = await open_maintenance().read_assignment(named.resource_id, named.name)
    if isinstance(exact, Assignment):
        return exact
    if exact.status != 404:
        raise azure_problem(exact, "assignment")
    found = await _assignments(assignment_with_id(named.id))
    if not found:
        raise no_such("assignment")
    return found[0]


async def _remove(storage: Storage, assignment: Assignment, command: Command) -> bool:
    was_there = await open_maintenance().unassign(assignment.resource_id, assignment.name)
    if isinstance(was_there, ArmFailure):
        raise azure_problem(was_there, "assignment")
    if was_there:
        await _note(storage, "assignment_removed", assignment, command, command.at, command.reason)
    return was_there


async def _note(
    storage: Storage, action: str, assignment: Assignment, actor: Signed, at: datetime, reason: str = ""
) -> None:
    identity = assignment.configuration_id
    if identity is None:
        return
    detail: Json = {"assignment": assignment.id, "resource": assignment.resource_id}
    if assignment.filter is not None:
        detail["filter"] = assignment.filter.to_wire()
    if reason:
        detail["reason"] = reason
    await storage.audit.add(audit_subject_of(identity), action, **actor.who, at=at, detail=detail)


@asynccontextmanager
async def _in_time() -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(MAX_SECONDS):
            yield
    except TimeoutError:
        raise ApiProblem(
            503,
            f"Azure could not be asked in {MAX_SECONDS:.0f} seconds; repeat the request.",
            headers={"Retry-After": "60"},
        ) from None
    except QueryRefused as error:
        raise ApiProblem(502, f"The assignments could not be looked up. {error}") from error


def _parse(given: AssignmentRequest) -> Assignment:
    try:
        identity = ConfigurationId.parse(given.configuration_id)
    except ValueError as error:
        raise invalid_body(Problem(path="configurationId", message=str(error))) from None
    place, criteria = given.resource_id.rstrip("/"), given.filter
    if criteria is None and DynamicScope.parse(place) is not None:
        criteria = ScopeFilter()
    name = given.name or assignment_name(identity, criteria)
    try:
        text = assignment_id(place, name)
    except ValueError as error:
        raise invalid_body(Problem(path="name", message=str(error))) from None
    return Assignment(
        id=text,
        name=name,
        maintenance_configuration_id=str(identity),
        resource_id=place,
        location=given.location,
        filter=criteria,
    )


def _machine(text: str) -> MachineId:
    try:
        return MachineId.parse(text)
    except ValueError as error:
        raise invalid_query("machine", str(error)) from None


def _configuration(text: str) -> ConfigurationId:
    try:
        return ConfigurationId.parse(text)
    except ValueError as error:
        raise invalid_query("configuration", str(error)) from None
