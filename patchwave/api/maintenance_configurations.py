"""Maintenance configurations over HTTP: the schedules of Update Manager, and their upcoming runs.

Bodies are Azure's own, so that those of templates and ``az rest`` work unchanged.
"""

from __future__ import annotations

from datetime import UTC, datetime

from azure.functions import HttpRequest, HttpResponse
from pydantic import Field, ValidationError

from patchwave.api.audit import audit_route
from patchwave.api.endpoint import NO_CONFIGURATION, RequestBody, ResponseSpec, route
from patchwave.api.http import CountQuery, Query, caller_of, json_response, read_json, route_of
from patchwave.api.problems import AZURE_PROBLEMS, BOUNDARY_PROBLEMS, ApiProblem, invalid_body, invalid_query, no_such
from patchwave.api.requests import COMMAND, CallerQuery, CommandQuery, CreateHeaders, read_command
from patchwave.domain.core.documents import Document, Json, object_or_none
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.core.principal import Role
from patchwave.domain.core.validation import Problem, explain
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.policy.policy import merge_patch
from patchwave.domain.policy.scope import RESOURCE_GROUP_PATTERN, SUBSCRIPTION_PATTERN
from patchwave.services import maintenance_configurations as configurations
from patchwave.services.maintenance_configurations import CanceledRun, ComingRuns, ConfigurationView
from patchwave.storage import Storage
from patchwave.wiring import Services


class ConfigurationPage(Document):
    """Configurations for guest patching."""

    configurations: list[ConfigurationView]
    cursor: str | None


_EXAMPLE: Json = {
    "location": "westeurope",
    "properties": {
        "maintenanceScope": "InGuestPatch",
        "extensionProperties": {"InGuestPatchMode": "User"},
        "maintenanceWindow": {
            "startDateTime": "2027-01-12 22:00",
            "duration": "03:55",
            "timeZone": "W. Europe Standard Time",
            "recurEvery": "Month Second Tuesday Offset4",
        },
        "installPatches": {
            "rebootSetting": "IfRequired",
            "windowsParameters": {"classificationsToInclude": ["Critical", "Security"]},
            "linuxParameters": {"classificationsToInclude": ["Critical", "Security"]},
        },
    },
}
_CHANGE: Json = {"properties": {"maintenanceWindow": {"duration": "03:00"}}}
CONFIGURATION_PROBLEMS = (
    {400: "The configuration or its address is not valid; every limit at once."} | NO_CONFIGURATION | AZURE_PROBLEMS
)
_PATH = "maintenance/configurations/{subscriptionId}/{resourceGroup}/{configuration}"


class ConfigurationsQuery(Query):
    """Where the configurations are, or the page of all."""

    subscription: str = Field(
        default="",
        description="Only of this subscription, as they are this moment; without it those that Resource Graph shows,"
        " minutes late.",
        json_schema_extra={"pattern": SUBSCRIPTION_PATTERN},
    )
    resource_group: str = Field(
        default="",
        description="Only of this resource group of the subscription.",
        json_schema_extra={"pattern": RESOURCE_GROUP_PATTERN, "maxLength": 90},
    )
    cursor: str = Field(default="", max_length=4_096, description="From the previous page; opaque.")


class CancellationQuery(CommandQuery):
    """Which run to cancel, and why."""

    run: str = Field(
        default="",
        max_length=600,
        description="The run: its start in UTC as yyyyMMddHHmmss, or the correlation id of an event; the next one"
        " unless given.",
        examples=["20270112210000"],
    )


@route(
    "GET",
    "maintenance/configurations",
    ResponseSpec(200, ConfigurationPage, as_given=True),
    role=Role.READER,
    problems=AZURE_PROBLEMS | {404: "There is no such subscription."},
    uses_storage=False,
)
async def list_configurations(req: HttpRequest, services: Services, query: ConfigurationsQuery) -> ConfigurationPage:
    """The configurations that patch inside machines, each with its next run."""
    group, cursor = query.resource_group, ""
    if query.subscription or group:
        place = _identity(query.subscription, group or "any", "any")
        if place is None:
            raise invalid_query("subscription", "give the id of a subscription, and the name of a group of it")
        views = await configurations.list_of_place(services, place.subscription_id, group)
    else:
        views, cursor = await configurations.list_page(services, query.cursor)
    return ConfigurationPage(configurations=views, cursor=cursor or None)


@route(
    "GET", _PATH, ResponseSpec(200, ConfigurationView, as_given=True), role=Role.READER, problems=CONFIGURATION_PROBLEMS
)
async def get_configuration(req: HttpRequest, services: Services) -> ConfigurationView:
    """One configuration, as it is this moment, and its next run."""
    return await configurations.get_configuration(services, configuration_of(req))


@route(
    "PUT",
    _PATH,
    ResponseSpec(200, ConfigurationView, as_given=True),
    ResponseSpec(201, ConfigurationView, as_given=True),
    role=Role.AUTHOR,
    body=RequestBody(MaintenanceConfiguration, {"second-tuesday": _EXAMPLE}),
    problems=CONFIGURATION_PROBLEMS
    | BOUNDARY_PROBLEMS
    | {412: "There is such a configuration, and the request asked to create it only."},
)
async def put_configuration(
    req: HttpRequest, services: Services, query: CallerQuery, headers: CreateHeaders
) -> HttpResponse:
    """Create or replace a configuration: 201 or 200. The body is Azure's own. ``If-None-Match: *`` only creates."""
    identity = configuration_of(req)
    wanted = _parse(read_json(req), identity)
    existing = await configurations.find_configuration(services, identity)
    if existing is not None and headers.if_none_match:
        raise ApiProblem(412, f"There is a maintenance configuration {existing.id}; nothing was changed.")
    caller = caller_of(req, claimed=query.actor)
    view = await configurations.write_configuration(services, wanted, existing, caller)
    return json_response(view.to_wire(), status=201 if existing is None else 200)


@route(
    "PATCH",
    _PATH,
    ResponseSpec(200, ConfigurationView, as_given=True),
    role=Role.AUTHOR,
    body=RequestBody(Json, {"shorter": _CHANGE}),
    problems=CONFIGURATION_PROBLEMS | BOUNDARY_PROBLEMS,
)
async def change_configuration(req: HttpRequest, services: Services, query: CallerQuery) -> ConfigurationView:
    """Change parts of a configuration: a JSON merge patch (RFC 7396) of Azure's body."""
    identity = configuration_of(req)
    change = object_or_none(read_json(req))
    if change is None:
        raise invalid_body(Problem(path="$", message="must be an object with what is to change"))
    existing = await configurations.read_existing(services, identity)
    try:
        wanted = _parse(merge_patch(existing.to_wire(), change), identity)
    except RecursionError:
        raise _too_deep() from None
    caller = caller_of(req, claimed=query.actor)
    return await configurations.write_configuration(services, wanted, existing, caller)


@route("DELETE", _PATH, ResponseSpec(204), role=Role.AUTHOR, problems=CONFIGURATION_PROBLEMS | BOUNDARY_PROBLEMS)
async def delete_configuration(req: HttpRequest, services: Services, query: CommandQuery) -> HttpResponse:
    """Delete a configuration: 204. Nothing patches its machines by schedule any more."""
    identity = configuration_of(req)
    await configurations.delete_configuration(services, identity, read_command(req, query, datetime.now(UTC)))
    return HttpResponse(status_code=204)


@route("GET", f"{_PATH}/runs", role=Role.READER, problems=CONFIGURATION_PROBLEMS)
async def list_coming_runs(req: HttpRequest, services: Services, query: CountQuery) -> ComingRuns:
    """When a configuration runs next, until when each run can be cancelled, and which are."""
    return await configurations.list_coming_runs(services, configuration_of(req), query.count)


@route(
    "POST",
    f"{_PATH}/cancel",
    role=Role.OPERATOR,
    body=COMMAND,
    problems=CONFIGURATION_PROBLEMS
    | BOUNDARY_PROBLEMS
    | {409: "It is too late for that run, or there is none to come."},
)
async def cancel_scheduled_run(req: HttpRequest, services: Services, query: CancellationQuery) -> CanceledRun:
    """Cancel one coming run for all of its machines; it cannot be taken back. Later runs stay. May be repeated."""
    identity = configuration_of(req)
    command = read_command(req, query, datetime.now(UTC))
    return await configurations.cancel_run(services, identity, query.run, command)


@audit_route(f"{_PATH}/audit", problems={404: "No configuration can have this name."})
async def list_configuration_audit(storage: Storage, req: HttpRequest) -> str:
    """Who changed a configuration and its assignments here, and why; also of one that is gone."""
    return configurations.audit_subject_of(configuration_of(req))


def configuration_of(request: HttpRequest) -> ConfigurationId:
    """The configuration of the path.

    Raises:
        ApiProblem: 404 for an invalid name.
    """
    identity = _identity(*(route_of(request, name) for name in ("subscriptionId", "resourceGroup", "configuration")))
    if identity is None:
        raise no_such("maintenance configuration")
    return identity


def _identity(subscription: str, group: str, name: str) -> ConfigurationId | None:
    text = (
        f"/subscriptions/{subscription}/resourceGroups/{group}"
        f"/providers/Microsoft.Maintenance/maintenanceConfigurations/{name}"
    )
    try:
        return ConfigurationId.parse(text)
    except ValueError:
        return None


def _parse(body: object, identity: ConfigurationId) -> MaintenanceConfiguration:
    fields = object_or_none(body)
    if fields is None:
        raise invalid_body(Problem(path="$", message="must be an object with location and properties"))
    # Azure writes null for unset members; read-only ones must not be sent.
    try:
        fields = _without_null(fields)
    except RecursionError:
        raise _too_deep() from None
    given = {name: value for name, value in fields.items() if name not in ("name", "type", "systemData")}
    given_id = given.pop("id", None)
    if given_id is not None and fold(str(given_id)) != identity.folded:
        raise invalid_body(Problem(path="id", message=f"is not that of the address, {identity}; leave it out"))
    try:
        return MaintenanceConfiguration.model_validate({**given, "id": str(identity)})
    except ValidationError as error:
        raise invalid_body(*explain(error, MaintenanceConfiguration)) from error


def _too_deep() -> ApiProblem:
    return invalid_body(Problem(path="$", message="is nested too deeply"))


def _without_null(value: Json) -> Json:
    return {
        name: _without_null(inner) if (inner := object_or_none(item)) is not None else item
        for name, item in value.items()
        if item is not None
    }
