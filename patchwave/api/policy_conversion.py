"""Conversion between Update Manager's maintenance configurations and policies, in both directions.

Nothing is stored, and nothing is changed in Azure: the caller reviews the conversion of each field first.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from azure.functions import HttpRequest
from pydantic import AfterValidator, Field

from patchwave.api.endpoint import NO_CONFIGURATION, NO_POLICY, RequestBody, ResponseSpec, route
from patchwave.api.http import route_of
from patchwave.api.problems import AZURE_PROBLEMS, ApiProblem
from patchwave.api.requests import EXAMPLE_CONFIGURATION, ConfigurationIdText
from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.ids import ConfigurationId, check_policy_name
from patchwave.domain.core.principal import Role
from patchwave.domain.maintenance.conversion_report import NotConvertible
from patchwave.domain.maintenance.export_policy import CARE, ExportResult, configuration_of
from patchwave.domain.maintenance.import_policy import ImportResult
from patchwave.services.policy_conversion import import_policies
from patchwave.services.start_run import find_policy
from patchwave.storage import Storage
from patchwave.wiring import Services


class ImportRequest(Document):
    """Which configuration moves in."""

    configuration_id: ConfigurationIdText = Field(description="ARM id of the maintenance configuration.")
    name: Annotated[str, AfterValidator(lambda name: name and check_policy_name(name))] = Field(
        default="", description="Name of the policy; made of the configuration's own unless given."
    )


class ExportRequest(Document):
    """What the policy is to become."""

    configuration_id: ConfigurationIdText = Field(description="ARM id that the maintenance configuration is to have.")
    location: str = Field(min_length=1, description="Region of the configuration.")
    allow_loss: list[str] = Field(
        default_factory=list[str],
        max_length=len(CARE),
        description=f"Keys of the policy that may be lost, as schedules cannot carry them: {', '.join(CARE)}.",
    )


_EXPORT: Json = {
    "configurationId": EXAMPLE_CONFIGURATION,
    "location": "westeurope",
    "allowLoss": ["maxConcurrent", "separateZones", "install.maximumDuration"],
}


@route(
    "POST",
    "policies/import",
    ResponseSpec(200, ImportResult, as_given=True),
    role=Role.READER,
    body=RequestBody(ImportRequest, {"configuration": {"configurationId": EXAMPLE_CONFIGURATION}}),
    problems=NO_CONFIGURATION | AZURE_PROBLEMS,
    uses_storage=False,
)
async def import_policy(req: HttpRequest, services: Services, body: ImportRequest) -> ImportResult:
    """What a maintenance configuration and its assignments are as policies, disabled. Nothing is stored: PUT what you
    like, and enable it when the schedule does not patch the machines any more.

    ``problems`` says what would not mean the same, and what this app does not take; without any, times, machines and
    patches are those of the schedule, and all of the policies can be put.
    """
    identity = ConfigurationId.parse(body.configuration_id)
    return await import_policies(services, identity, body.name)


@route(
    "POST",
    "policies/{name}/export",
    ResponseSpec(200, ExportResult, as_given=True),
    role=Role.READER,
    body=RequestBody(ExportRequest, {"given-up": _EXPORT}),
    problems=NO_POLICY | {422: "Schedules cannot carry all of the policy; every key with the reason."},
)
async def export_policy(req: HttpRequest, storage: Storage, body: ExportRequest) -> ExportResult:
    """A stored policy as a maintenance configuration with its assignments. Nothing is changed in Azure.

    What a schedule cannot carry is refused, key by key; how carefully a policy works may be given up by name.
    """
    identity = ConfigurationId.parse(body.configuration_id)
    policy = await find_policy(storage, route_of(req, "name"))
    try:
        return configuration_of(policy, identity, body.location, datetime.now(UTC), body.allow_loss)
    except NotConvertible as error:
        raise ApiProblem(422, "A schedule cannot carry all of the policy.", errors=error.problems) from None
