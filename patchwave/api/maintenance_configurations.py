"""Maintenance configurations over HTTP: the schedules of Update Manager.

Bodies are Azure's own, so that those of templates and ``az rest`` work unchanged. What Azure would refuse, or accept
without effect, is refused here first, with all errors at once. Changes are audited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import azure.functions as func
from pydantic import ValidationError

from patchwave.api.audit import audit_route
from patchwave.api.endpoint import (
    INVALID_QUERY,
    NO_CONFIGURATION,
    ParameterSpec,
    RequestBody,
    ResponseSpec,
    route,
)
from patchwave.api.http import caller_of, header_of, json_response, query_of, read_json, route_of
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
from patchwave.domain.core.documents import Document, Json, object_or_none, str_or_empty
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.core.principal import Role
from patchwave.domain.core.validation import Problem, explain
from patchwave.domain.fleet.discovery import DiscoveryQuery
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration, read_configuration
from patchwave.domain.maintenance.queries import all_configurations, canceled_runs
from patchwave.domain.maintenance.upcoming_run import ComingRun, canceled_by_configuration, coming_runs
from patchwave.domain.maintenance.validation import advice, check_configuration, check_number
from patchwave.domain.policy.policy import merge_patch
from patchwave.domain.policy.scope import RESOURCE_GROUP_PATTERN, SUBSCRIPTION_PATTERN
from patchwave.settings import load_settings
from patchwave.storage import Storage, open_storage

WHAT = "maintenance configuration"
RUN_CANCELED = "scheduled_run_canceled"
"""Audit action of a run that was cancelled here."""
MAX_CANCELED = 100
"""Upcoming runs that are searched for the first one that is not cancelled."""
_MAX_CURSOR = 4_096
_LOOK_UP_SECONDS = 30.0


class ConfigurationView(Document):
    """A configuration, its next runs and its notes."""

    configuration: MaintenanceConfiguration
    next_run: ComingRun | None
    """Nothing when the schedule has ended, or cannot be read."""
    notes: list[str]
    """What Azure permits and may not do as expected."""


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
_ONLY_CREATE = ParameterSpec("If-None-Match", {"type": "string", "enum": ["*"]}, "* creates, and never replaces.")
CONFIGURATION_PROBLEMS = (
    {400: "The configuration or its address is not valid; every limit at once."} | NO_CONFIGURATION | AZURE_PROBLEMS
)
_IN_SUBSCRIPTION = (
    ParameterSpec(
        "subscription",
        {"type": "string", "pattern": SUBSCRIPTION_PATTERN},
        "Only of this subscription, as they are this moment; without it those that Resource Graph shows, minutes late.",
    ),
    ParameterSpec(
        "resourceGroup",
        {"type": "string", "pattern": RESOURCE_GROUP_PATTERN, "maxLength": 90},
        "Only of this resource group of the subscription.",
    ),
    ParameterSpec("cursor", {"type": "string", "maxLength": _MAX_CURSOR}, "Of the page before; opaque."),
)


@route(
    "GET",
    "maintenance/configurations",
    ResponseSpec(200, ConfigurationPage, as_given=True),
    role=Role.READER,
    query=_IN_SUBSCRIPTION,
    problems=AZURE_PROBLEMS | INVALID_QUERY | {404: "There is no such subscription."},
    uses_storage=False,
)
async def list_configurations(req: func.HttpRequest) -> func.HttpResponse:
    """The configurations that patch inside machines, each with its next run."""
    subscription, group = query_of(req, "subscription"), query_of(req, "resourceGroup")
    cursor = ""
    if subscription or group:
        place = _identity(subscription, group or "any", "any")
        if place is None:
            raise invalid_query("subscription", "give the id of a subscription, and the name of a group of it")
        found = await open_maintenance().list(place.subscription_id, group)
        if isinstance(found, ArmFailure):
            raise azure_problem(found, "subscription")
    else:
        given = query_of(req, "cursor")
        if len(given) > _MAX_CURSOR:
            raise ApiProblem(400, "The cursor is not one that this list gave.")
        page = await open_resource_graph().page_in_turn(all_configurations(), skip_token=given)
        if page.failure is not None:
            raise azure_problem(page.failure, "list of configurations")
        found, cursor = list(filter(None, map(read_configuration, page.rows))), page.skip_token
    now = datetime.now(UTC)
    guests = [each for each in found if each.patches_guests]
    canceled, note = await _canceled_at_azure() if guests else ({}, "")
    views = [_view(each, now, canceled.get(each.configuration_id, ()), note) for each in guests]
    return json_response(ConfigurationPage(configurations=views, cursor=cursor or None).to_wire())


@route(
    "GET",
    "maintenance/configurations/{subscriptionId}/{resourceGroup}/{configuration}",
    ResponseSpec(200, ConfigurationView, as_given=True),
    role=Role.READER,
    problems=CONFIGURATION_PROBLEMS,
)
async def get_configuration(req: func.HttpRequest) -> func.HttpResponse:
    """One configuration, as it is this moment, and its next run."""
    identity, storage, now = configuration_of(req), open_storage(), datetime.now(UTC)
    found = await read_existing(identity)
    return json_response(_view(found, now, *await canceled_runs_of(storage, identity)).to_wire())


@route(
    "PUT",
    "maintenance/configurations/{subscriptionId}/{resourceGroup}/{configuration}",
    ResponseSpec(200, ConfigurationView, as_given=True),
    ResponseSpec(201, ConfigurationView, as_given=True),
    role=Role.AUTHOR,
    body=RequestBody(MaintenanceConfiguration, {"second-tuesday": _EXAMPLE}),
    query=[ACTOR],
    headers=[_ONLY_CREATE],
    problems=CONFIGURATION_PROBLEMS
    | BOUNDARY_PROBLEMS
    | {412: "There is such a configuration, and the request asked to create it only."},
)
async def put_configuration(req: func.HttpRequest) -> func.HttpResponse:
    """Create or replace a configuration: 201 or 200. The body is Azure's own. ``If-None-Match: *`` only creates."""
    identity, storage = configuration_of(req), open_storage()
    condition = header_of(req, "if-none-match")
    if condition not in (None, "*"):
        raise ApiProblem(400, "If-None-Match can only be *: create the configuration unless it exists.")
    wanted = _parse(read_json(req), identity)
    found = await open_maintenance().read(identity)
    if isinstance(found, ArmFailure) and found.status != 404:
        raise azure_problem(found, WHAT)
    existing = None if isinstance(found, ArmFailure) else found
    if existing is not None and condition is not None:
        raise ApiProblem(412, f"There is a maintenance configuration {existing.id}; nothing was changed.")
    return await _write(req, storage, wanted, existing)


@route(
    "PATCH",
    "maintenance/configurations/{subscriptionId}/{resourceGroup}/{configuration}",
    ResponseSpec(200, ConfigurationView, as_given=True),
    role=Role.AUTHOR,
    body=RequestBody(Json, {"shorter": _CHANGE}),
    query=[ACTOR],
    problems=CONFIGURATION_PROBLEMS | BOUNDARY_PROBLEMS,
)
async def change_configuration(req: func.HttpRequest) -> func.HttpResponse:
    """Change parts of a configuration: a JSON merge patch (RFC 7396) of Azure's body."""
    identity, storage = configuration_of(req), open_storage()
    change = object_or_none(read_json(req))
    if change is None:
        raise invalid_body(Problem(path="$", message="must be an object with what is to change"))
    existing = await read_existing(identity)
    try:
        wanted = merge_patch(existing.to_wire(), change)
    except RecursionError:
        raise _too_deep() from None
    return await _write(req, storage, _parse(wanted, identity), existing)


@route(
    "DELETE",
    "maintenance/configurations/{subscriptionId}/{resourceGroup}/{configuration}",
    ResponseSpec(204),
    role=Role.AUTHOR,
    query=COMMAND_QUERY,
    problems=CONFIGURATION_PROBLEMS | BOUNDARY_PROBLEMS,
)
async def delete_configuration(req: func.HttpRequest) -> func.HttpResponse:
    """Delete a configuration: 204. Nothing patches its machines by schedule any more."""
    identity, storage = configuration_of(req), open_storage()
    command = read_command(req, datetime.now(UTC))
    was_there = await open_maintenance().remove(identity)
    if isinstance(was_there, ArmFailure):
        raise azure_problem(was_there, WHAT)
    if not was_there:
        raise no_such(WHAT)
    await storage.audit.add(
        audit_subject_of(identity),
        "configuration_deleted",
        **command.who,
        at=command.at,
        detail={"reason": command.reason},
    )
    return func.HttpResponse(status_code=204)


async def _audit_subject(storage: Storage, req: func.HttpRequest) -> str:
    del storage  # a deleted configuration still has its log
    return audit_subject_of(configuration_of(req))


list_configuration_audit = audit_route(
    "list_configuration_audit",
    "maintenance/configurations/{subscriptionId}/{resourceGroup}/{configuration}/audit",
    _audit_subject,
    text="Who changed a configuration and its assignments here, and why; also of one that is gone.",
    problems={404: "No configuration can have this name."},
)


def audit_subject_of(configuration: ConfigurationId) -> str:
    """The audit subject of a configuration and its assignments."""
    return f"maintenance~{configuration.key}"


def configuration_of(request: func.HttpRequest) -> ConfigurationId:
    """The configuration of the path.

    Raises:
        ApiProblem: 404 for an invalid name.
    """
    identity = _identity(*(route_of(request, name) for name in ("subscriptionId", "resourceGroup", "configuration")))
    if identity is None:
        raise no_such(WHAT)
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


async def read_existing(identity: ConfigurationId) -> MaintenanceConfiguration:
    """The current configuration in Azure.

    Raises:
        ApiProblem: it does not exist, or Azure refuses.
    """
    found = await open_maintenance().read(identity)
    if isinstance(found, ArmFailure):
        raise azure_problem(found, WHAT)
    return found


async def _write(
    request: func.HttpRequest,
    storage: Storage,
    wanted: MaintenanceConfiguration,
    existing: MaintenanceConfiguration | None,
) -> func.HttpResponse:
    now, identity = datetime.now(UTC), wanted.configuration_id
    problems = check_configuration(wanted, now, existing)
    if existing is None and not problems:
        others = await open_maintenance().list(identity.subscription_id)
        if isinstance(others, ArmFailure):
            raise azure_problem(others, "subscription")
        problems = check_number(wanted, others)
    if problems:
        raise ApiProblem(400, "The configuration is not valid.", errors=problems)
    made = await open_maintenance().write(wanted)
    if isinstance(made, ArmFailure):
        # A PUT also needs the location.
        raise azure_problem(made, "resource group" if made.status == 404 else WHAT)
    actor = caller_of(request, claimed=query_of(request, "actor"))
    await storage.audit.add(
        audit_subject_of(identity), "configuration_written", **actor.who, at=now, detail=wanted.to_azure()
    )
    if existing is None:
        return json_response(_view(made, now).to_wire(), status=201)
    return json_response(_view(made, now, *await canceled_runs_of(storage, identity)).to_wire())


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


def _view(
    configuration: MaintenanceConfiguration, now: datetime, canceled: Collection[str] = (), note: str = ""
) -> ConfigurationView:
    following = coming_runs(configuration, now, 1, cutoff(), canceled)
    return ConfigurationView(
        configuration=configuration,
        next_run=following[0] if following else None,
        notes=[*notes_on(configuration, now, canceled), *filter(None, [note])],
    )


def notes_on(configuration: MaintenanceConfiguration, now: datetime, canceled: Collection[str] = ()) -> list[str]:
    """Notes on settings that Azure permits and that may not work as expected."""
    if configuration.unreadable:
        return [f"When it runs is not known: {configuration.unreadable}."]
    if configuration.has_ended(now):
        return ["The schedule has ended: no run comes any more."]
    following = coming_runs(configuration, now, MAX_CANCELED, cutoff(), canceled)
    if not following[0].canceled:
        return advice(configuration, now)
    left = next((run for run in following if not run.canceled), None)
    after = f"the next one that happens starts at {left.starts_at:%Y-%m-%d %H:%M}Z" if left else "so are those after it"
    return [f"The next run is cancelled; {after}."]


async def canceled_runs_of(storage: Storage, configuration: ConfigurationId) -> tuple[Collection[str], str]:
    """The names of the cancelled runs of a configuration, and a note when some could not be read.

    Resource Graph has all cancellations, minutes late; the audit log has those made here at once.
    """
    ours = {
        str_or_empty((object_or_none(line["detail"]) or {}).get("run"))
        async for line in storage.audit.lines(audit_subject_of(configuration))
        if line["action"] == RUN_CANCELED
    }
    found, note = await _canceled_at_azure(configuration)
    return ours | found.get(configuration, set()), note


async def _canceled_at_azure(
    configuration: ConfigurationId | None = None,
) -> tuple[dict[ConfigurationId, set[str]], str]:
    query = DiscoveryQuery(text=canceled_runs(configuration))
    try:
        async with asyncio.timeout(_LOOK_UP_SECONDS):
            rows = [row async for page in open_resource_graph().pages([query]) for row in page.rows]
    except (TimeoutError, QueryRefused) as error:
        reason = str(error) or f"no answer in {_LOOK_UP_SECONDS:.0f} seconds"
        return {}, f"Resource Graph did not say which runs are cancelled: {reason}"
    return canceled_by_configuration(rows), ""


def cutoff() -> timedelta:
    """How long before its start a run can be cancelled."""
    return timedelta(seconds=load_settings().maintenance_cancel_cutoff_seconds)
