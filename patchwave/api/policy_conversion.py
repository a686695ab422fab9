"""Moving over from Update Manager and back: what a maintenance configuration is as policies, and a policy as one.

Nothing is stored and nothing is changed in Azure: whoever asks reads first what would become of each field.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import azure.durable_functions as df
import azure.functions as func
from pydantic import Field, ValidationError

from patchwave.api.azure_problems import AZURE_REFUSES, refused
from patchwave.api.endpoint import INVALID_BODY, NO_CONFIGURATION, NO_POLICY, Answer, Body, described
from patchwave.api.http import Refusal, answer, answered, invalid_body, no_such, read_json, route_of
from patchwave.azure.maintenance import open_maintenance
from patchwave.azure.resource_graph import QueryRefused, open_resource_graph
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.ids import ConfigurationId, check_policy_name, is_policy_name
from patchwave.domain.core.validation import Problem, explain
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
"""Azure cuts an HTTP answer off after 230 seconds."""

bp = df.Blueprint()


class ImportRequest(Document):
    """Which configuration moves in."""

    configuration_id: str = Field(description="ARM id of the maintenance configuration.")
    name: str = Field(default="", description="Name of the policy; made of the configuration's own unless given.")


class ExportRequest(Document):
    """What the policy is to become."""

    configuration_id: str = Field(description="ARM id that the maintenance configuration is to have.")
    location: str = Field(min_length=1, description="Region of the configuration.")
    give_up: list[str] = Field(
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
    "giveUp": ["maxConcurrent", "separateZones", "install.maximumDuration"],
}


@bp.route(route="policies/import", methods=["POST"])
@described(
    Answer(200, ImportResult, as_given=True),
    body=Body(ImportRequest, {"configuration": {"configurationId": _CONFIGURATION}}),
    refuses=INVALID_BODY | NO_CONFIGURATION | AZURE_REFUSES,
    uses_storage=False,
)
@answered
async def import_policy(req: func.HttpRequest) -> func.HttpResponse:
    """What a maintenance configuration and its assignments are as policies, disabled. Nothing is stored: PUT what you
    like, and enable it when the schedule does not patch the machines any more.

    ``problems`` says what would not mean the same, and what this app does not take; without any, times, machines and
    patches are those of the schedule, and all of the policies can be put.
    """
    given, identity = _read(ImportRequest, req)
    try:
        name = given.name and check_policy_name(given.name)
    except ValueError as error:
        raise invalid_body(Problem(path="name", message=str(error))) from None
    configuration = await open_maintenance().read(identity)
    if isinstance(configuration, ArmFailure):
        raise refused(configuration, "maintenance configuration")
    moved = policies_of(configuration, await _assignments(identity), name)
    return answer(moved.model_copy(update={"problems": [*moved.problems, *_refused_when_put(moved)]}).to_wire())


@bp.route(route="policies/{name}/export", methods=["POST"])
@described(
    Answer(200, ExportResult, as_given=True),
    body=Body(ExportRequest, {"given-up": _EXPORT}),
    refuses=INVALID_BODY | NO_POLICY | {422: "Schedules cannot carry all of the policy; every key with the reason."},
)
@answered
async def export_policy(req: func.HttpRequest) -> func.HttpResponse:
    """A stored policy as a maintenance configuration with its assignments. Nothing is changed in Azure.

    What a schedule cannot carry is refused, key by key; how carefully a policy works may be given up by name.
    """
    given, identity = _read(ExportRequest, req)
    name = route_of(req, "name")
    stored = await open_storage().policies.get(name) if is_policy_name(name) else None
    if stored is None:
        raise no_such("policy")
    policy = parse_stored_policy(stored.document, name=name)
    try:
        moved = configuration_of(policy, identity, given.location, datetime.now(UTC), given.give_up)
    except NotConvertible as error:
        raise Refusal(422, "A schedule cannot carry all of the policy.", errors=error.problems) from None
    return answer(moved.to_wire())


def _refused_when_put(moved: ImportResult) -> list[Problem]:
    """Why this app would take some of the policies and not others, such as machines outside of the boundary."""
    problems: list[Problem] = []
    for number, policy in enumerate(moved.policies):
        try:
            check_permitted(policy)
        except PolicyError as error:
            problems += [Problem(path=f"policies[{number}].{each.path}", message=each.message) for each in error.errors]
    return problems


def _read[Request: (ImportRequest, ExportRequest)](
    form: type[Request], request: func.HttpRequest
) -> tuple[Request, ConfigurationId]:
    """The body and the configuration that it names.

    Raises:
        Refusal: 400 with every error.
    """
    try:
        given = form.from_wire(read_json(request))
    except ValidationError as error:
        raise invalid_body(*explain(error, form)) from None
    try:
        return given, ConfigurationId.parse(given.configuration_id)
    except ValueError as error:
        raise invalid_body(Problem(path="configurationId", message=str(error))) from None


async def _assignments(configuration: ConfigurationId) -> list[Assignment]:
    """All assignments of a configuration, as Resource Graph shows them.

    Raises:
        Refusal: 502 when it refuses, 503 when it takes too long.
    """
    query = DiscoveryQuery(text=assignments_of_configuration(configuration))
    try:
        async with asyncio.timeout(MAX_SECONDS):
            rows = [row async for page in open_resource_graph().pages([query]) for row in page.rows]
    except TimeoutError:
        message = f"The assignments could not be read in {MAX_SECONDS:.0f} seconds; repeat the request."
        raise Refusal(503, message, headers={"Retry-After": "60"}) from None
    except QueryRefused as error:
        raise Refusal(502, f"The assignments could not be looked up. {error}") from error
    return list(filter(None, map(read_assignment, rows)))
