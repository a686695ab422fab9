"""Conversion between Update Manager's maintenance configurations and policies, in both directions.

Nothing is stored, and nothing is changed in Azure: the caller reviews the conversion of each field first.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import azure.functions as func
from pydantic import Field

from patchwave.api.endpoint import INVALID_BODY, NO_CONFIGURATION, NO_POLICY, RequestBody, ResponseSpec, route
from patchwave.api.http import json_response, route_of
from patchwave.api.problems import AZURE_PROBLEMS, ApiProblem, azure_problem, invalid_body, no_such
from patchwave.azure.maintenance import open_maintenance
from patchwave.azure.resource_graph import QueryRefused, open_resource_graph
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.ids import ConfigurationId, check_policy_name, is_policy_name
from patchwave.domain.core.principal import Role
from patchwave.domain.core.validation import Problem
from patchwave.domain.fleet.discovery import DiscoveryQuery
from patchwave.domain.maintenance.assignment import Assignment, read_assignment
from patchwave.domain.maintenance.conversion_report import NotConvertible
from patchwave.domain.maintenance.export_policy import CARE, ExportResult, configuration_of
from patchwave.domain.maintenance.import_policy import ImportResult, policies_of
from patchwave.domain.maintenance.queries import assignments_of_configuration
from patchwave.domain.policy.policy import PolicyError
from patchwave.domain.policy.stored_policies import parse_stored_policy
from patchwave.services.policy_guardrails import check_permitted
from patchwave.storage import open_storage

MAX_SECONDS = 120.0
"""Azure ends an HTTP request after 230 seconds."""


class ImportRequest(Document):
    """Which configuration moves in."""

    configuration_id: str = Field(description="ARM id of the maintenance configuration.")
    name: str = Field(default="", description="Name of the policy; made of the configuration's own unless given.")


class ExportRequest(Document):
    """What the policy is to become."""

    configuration_id: str = Field(description="ARM id that the maintenance configuration is to have.")
    location: str = Field(min_length=1, description="Region of the configuration.")
    allow_loss: list[str] = Field(
        default_factory=list[str],
        max_length=len(CARE),
        description=f"Keys of the policy that may be lost, as schedules cannot carry them: {', '.join(CARE)}.",
    )


_CONFIGURATION = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg-schedules"
    "/providers/Microsoft.Maintenance/maintenanceConfigurations/monthly-servers"
)
_EXPORT: Json = {
    "configurationId": _CONFIGURATION,
    "location": "westeurope",
    "allowLoss": ["maxConcurrent", "separateZones", "install.maximumDuration"],
}


@route(
    "POST",
    "policies/import",
    ResponseSpec(200, ImportResult, as_given=True),
    role=Role.READER,
    body=RequestBody(ImportRequest, {"configuration": {"configurationId": _CONFIGURATION}}),
    problems=INVALID_BODY | NO_CONFIGURATION | AZURE_PROBLEMS,
    uses_storage=False,
)
async def import_policy(req: func.HttpRequest, body: ImportRequest) -> func.HttpResponse:
    """What a maintenance configuration and its assignments are as policies, disabled. Nothing is stored: PUT what you
    like, and enable it when the schedule does not patch the machines any more.

    ``problems`` says what would not mean the same, and what this app does not take; without any, times, machines and
    patches are those of the schedule, and all of the policies can be put.
    """
    identity = _configuration(body.configuration_id)
    try:
        name = body.name and check_policy_name(body.name)
    except ValueError as error:
        raise invalid_body(Problem(path="name", message=str(error))) from None
    configuration = await open_maintenance().read(identity)
    if isinstance(configuration, ArmFailure):
        raise azure_problem(configuration, "maintenance configuration")
    moved = policies_of(configuration, await _assignments(identity), name)
    return json_response(moved.model_copy(update={"problems": [*moved.problems, *_refused_when_put(moved)]}).to_wire())


@route(
    "POST",
    "policies/{name}/export",
    ResponseSpec(200, ExportResult, as_given=True),
    role=Role.READER,
    body=RequestBody(ExportRequest, {"given-up": _EXPORT}),
    problems=INVALID_BODY | NO_POLICY | {422: "Schedules cannot carry all of the policy; every key with the reason."},
)
async def export_policy(req: func.HttpRequest, body: ExportRequest) -> func.HttpResponse:
    """A stored policy as a maintenance configuration with its assignments. Nothing is changed in Azure.

    What a schedule cannot carry is refused, key by key; how carefully a policy works may be given up by name.
    """
    identity = _configuration(body.configuration_id)
    name = route_of(req, "name")
    stored = await open_storage().policies.get(name) if is_policy_name(name) else None
    if stored is None:
        raise no_such("policy")
    policy = parse_stored_policy(stored.document, name=name)
    try:
        moved = configuration_of(policy, identity, body.location, datetime.now(UTC), body.allow_loss)
    except NotConvertible as error:
        raise ApiProblem(422, "A schedule cannot carry all of the policy.", errors=error.problems) from None
    return json_response(moved.to_wire())


def _refused_when_put(moved: ImportResult) -> list[Problem]:
    """Why this app would refuse some of the policies, such as machines outside of the boundary."""
    problems: list[Problem] = []
    for number, policy in enumerate(moved.policies):
        try:
            check_permitted(policy)
        except PolicyError as error:
            problems += [Problem(path=f"policies[{number}].{each.path}", message=each.message) for each in error.errors]
    return problems


def _configuration(text: str) -> ConfigurationId:
    """The configuration of a body.

    Raises:
        ApiProblem: 400 for an invalid id.
    """
    try:
        return ConfigurationId.parse(text)
    except ValueError as error:
        raise invalid_body(Problem(path="configurationId", message=str(error))) from None


async def _assignments(configuration: ConfigurationId) -> list[Assignment]:
    """All assignments of a configuration, from Resource Graph.

    Raises:
        ApiProblem: 502 when it refuses, 503 when it takes too long.
    """
    query = DiscoveryQuery(text=assignments_of_configuration(configuration))
    try:
        async with asyncio.timeout(MAX_SECONDS):
            rows = [row async for page in open_resource_graph().pages([query]) for row in page.rows]
    except TimeoutError:
        message = f"The assignments could not be read in {MAX_SECONDS:.0f} seconds; repeat the request."
        raise ApiProblem(503, message, headers={"Retry-After": "60"}) from None
    except QueryRefused as error:
        raise ApiProblem(502, f"The assignments could not be looked up. {error}") from error
    return list(filter(None, map(read_assignment, rows)))
