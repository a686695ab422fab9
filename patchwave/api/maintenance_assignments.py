"""Assignments over HTTP: machines of a maintenance configuration, single ones or by a dynamic scope."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from azure.functions import HttpRequest
from pydantic import Field

from patchwave.api.endpoint import RequestBody, ResponseSpec, route
from patchwave.api.http import Query, caller_of
from patchwave.api.problems import AZURE_PROBLEMS, BOUNDARY_PROBLEMS, invalid_body, invalid_query
from patchwave.api.requests import (
    EXAMPLE_CONFIGURATION,
    CallerQuery,
    CommandQuery,
    ConfigurationIdText,
    MachineIdText,
    read_command,
)
from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.ids import ConfigurationId, MachineId
from patchwave.domain.core.principal import Role
from patchwave.domain.core.validation import Problem
from patchwave.domain.maintenance.assignment import (
    Assignment,
    DynamicScope,
    ScopeFilter,
    assignment_id,
    assignment_name,
    check_assignment,
)
from patchwave.services import maintenance_assignments as assignments
from patchwave.services.maintenance_assignments import AssignedSchedule, AssignmentList, RemovedAssignments
from patchwave.wiring import Services


class AssignmentRequest(Document):
    """What to assign to what."""

    configuration_id: ConfigurationIdText = Field(description="ARM id of the maintenance configuration.")
    resource_id: str = Field(description="ARM id of a virtual machine, a subscription or a resource group.")
    name: Annotated[str, Field(max_length=260)] = Field(
        default="", description="Name of the assignment; made of the configuration's unless given."
    )
    location: str = Field(default="", description="Region; that of the configuration unless given.")
    filter: ScopeFilter | None = Field(default=None, description="Which machines; for subscriptions and groups.")
    all_machines: bool = Field(
        default=False, description="Assign a whole subscription: without a filter, only this says that it is meant."
    )


_MACHINE = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg-app"
_EXAMPLES: dict[str, Json] = {
    "machine": {
        "configurationId": EXAMPLE_CONFIGURATION,
        "resourceId": f"{_MACHINE}/providers/Microsoft.Compute/virtualMachines/vm-01",
    },
    "dynamic-scope": {
        "configurationId": EXAMPLE_CONFIGURATION,
        "resourceId": _MACHINE,
        "filter": {
            "osTypes": ["Linux"],
            "locations": ["westeurope"],
            "tagSettings": {"filterOperator": "Any", "tags": {"env": ["prod", "stage"]}},
        },
    },
}


class AssignmentsQuery(Query):
    """A machine or a configuration."""

    machine: MachineIdText = Field(default="", max_length=1_000, description="ARM id of a machine.")
    configuration: ConfigurationIdText = Field(
        default="", max_length=1_000, description="ARM id of a maintenance configuration."
    )


class RemovalQuery(AssignmentsQuery, CommandQuery):
    """What to remove, and why."""

    assignment: str = Field(
        default="", max_length=1_000, description="ARM id of one assignment, instead of machine and configuration."
    )


@route(
    "GET",
    "maintenance/assignments",
    ResponseSpec(200, AssignmentList, as_given=True),
    role=Role.READER,
    problems=AZURE_PROBLEMS,
    uses_storage=False,
)
async def list_assignments(req: HttpRequest, services: Services, query: AssignmentsQuery) -> AssignmentList:
    """What a machine is assigned to, directly and by dynamic scopes; or what a configuration is assigned to."""
    if bool(query.machine) == bool(query.configuration):
        raise invalid_query("machine", "give machine or configuration, one of them")
    if query.machine:
        return await assignments.list_of_machine(services, MachineId.parse(query.machine))
    return await assignments.list_of_configuration(services, ConfigurationId.parse(query.configuration))


@route(
    "PUT",
    "maintenance/assignments",
    ResponseSpec(200, AssignedSchedule, as_given=True),
    role=Role.AUTHOR,
    body=RequestBody(AssignmentRequest, _EXAMPLES),
    problems=AZURE_PROBLEMS
    | BOUNDARY_PROBLEMS
    | {
        400: "The request is not valid, or a limit would be passed; all of it at once.",
        404: "There is no such machine or maintenance configuration.",
        409: "An assignment of this name is for another configuration, or Azure refuses it as things are.",
    },
)
async def put_assignment(
    req: HttpRequest, services: Services, query: CallerQuery, body: AssignmentRequest
) -> AssignedSchedule:
    """Assign a configuration to a machine or a dynamic scope, or change the filter of a scope. May be repeated.

    The answer says how many machines a dynamic scope matches now. The same machines under another spelling of the
    filter are the same assignment.
    """
    wanted = _parse(body)
    if problems := [*check_assignment(wanted), *_check_width(wanted, body)]:
        raise invalid_body(*problems)
    caller = caller_of(req, claimed=query.actor)
    return await assignments.assign(services, wanted, is_named=bool(body.name), actor=caller)


@route(
    "DELETE",
    "maintenance/assignments",
    ResponseSpec(200, RemovedAssignments, as_given=True),
    role=Role.AUTHOR,
    problems={404: "There is no such assignment."} | AZURE_PROBLEMS | BOUNDARY_PROBLEMS,
)
async def remove_assignments(req: HttpRequest, services: Services, query: RemovalQuery) -> RemovedAssignments:
    """Remove a machine from a configuration, under whatever names it is assigned to it; or remove one assignment."""
    command = read_command(req, query, datetime.now(UTC))
    if not query.assignment and not (query.machine and query.configuration):
        raise invalid_query("machine", "give machine and configuration, or assignment")
    if query.assignment:
        return await assignments.remove_assignment(services, query.assignment, command)
    machine, configuration = MachineId.parse(query.machine), ConfigurationId.parse(query.configuration)
    return await assignments.remove_from_machine(services, machine, configuration, command)


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


def _parse(given: AssignmentRequest) -> Assignment:
    identity = ConfigurationId.parse(given.configuration_id)
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
