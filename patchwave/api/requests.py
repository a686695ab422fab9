"""Bodies and queries shared by several resources: commands, policies, and scopes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, cast

from azure.functions import HttpRequest
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel

from patchwave.api.endpoint import RequestBody, SchemaOf, SchemaTweaks
from patchwave.api.http import Headers, Query, caller_of, comma_separated, read_model
from patchwave.api.problems import ApiProblem
from patchwave.domain.core.command import Command
from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.ids import ConfigurationId, MachineId
from patchwave.domain.core.validation import Problem, explain
from patchwave.domain.policy.policy import Policy
from patchwave.domain.policy.scope import Scope
from patchwave.domain.runs.run import StartableMode
from patchwave.services.fleet_reader import MAX_MACHINES, MAX_READS

MAX_REASON = 500
_MAX_NAME = 200
EXAMPLE_CONFIGURATION = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg-schedules"
    "/providers/Microsoft.Maintenance/maintenanceConfigurations/monthly-servers"
)


def _check(parse: Callable[[str], object]) -> AfterValidator:
    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


ConfigurationIdText = Annotated[str, _check(ConfigurationId.parse)]
"""The ARM id of a maintenance configuration, in a request."""
MachineIdText = Annotated[str, _check(MachineId.parse)]
"""The ARM id of a machine, in a request."""


# --- commands -----------------------------------------------------------------------------------------------


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must have printable characters only")
    return text


CallerName = Annotated[str, StringConstraints(strip_whitespace=True, max_length=_MAX_NAME), AfterValidator(_printable)]
"""A name in the request. It only counts where the platform does not identify the caller."""
_Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_REASON)]


class AuditReason(Document):
    """Who asks for it, and why."""

    reason: Annotated[_Reason, StringConstraints(min_length=1)]
    actor: CallerName = ""


COMMAND = RequestBody(
    AuditReason, {"said": {"reason": "The data centre moves.", "actor": "ana@example.org"}}, required=False
)


def _only_star(text: object) -> bool:
    if text != "*":
        raise ValueError("can only be *: create it unless it exists")
    return True


class CreateHeaders(Headers):
    """Guards the creation of an object."""

    if_none_match: Annotated[bool, BeforeValidator(_only_star), WithJsonSchema({"type": "string", "enum": ["*"]})] = (
        Field(default=False, description="Create it unless it exists.")
    )


class CallerQuery(Query):
    """The name of the caller, in the query."""

    actor: CallerName = Field(default="", description="Who asks, where the platform does not know who calls.")


class ReasonQuery(CallerQuery):
    """Caller and reason of a change, both optional."""

    reason: Annotated[_Reason, AfterValidator(_printable)] = Field(
        default="", description="Why, for people and the audit log."
    )


class CommandQuery(CallerQuery):
    """Caller and reason of a command, for a request without a body."""

    reason: _Reason = Field(
        default="", description="Why, for people; needed unless the body has it.", json_schema_extra={"minLength": 1}
    )


def read_command(request: HttpRequest, query: CommandQuery, at: datetime) -> Command:
    """The command in the body or, without one, in the query.

    The reason is required: users see it wherever the command blocks work.

    Raises:
        ApiProblem: 400 when the reason is missing or too long, or the body is invalid.
    """
    given = read_model(request, AuditReason, query.model_dump(include={"reason", "actor"}))
    return command_of(request, given.actor, given.reason, at)


def command_of(request: HttpRequest, actor: str, reason: str, at: datetime) -> Command:
    """The command of the caller; ``actor`` only counts where the platform does not identify them."""
    return Command(**caller_of(request, claimed=actor).who, reason=reason, at=at)


# --- policies -----------------------------------------------------------------------------------------------


type InlinePolicy = Annotated[Policy, SchemaTweaks(optional=("name",))]
"""A policy in a request, which runs as ``adhoc-`` and its own name, or a digest of it."""


def _name_or_policy(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError("must be the name of a policy, or a policy")
    return cast("object", value)


class PlanRequest(Document):
    """A policy, by name or as it is, and a merge patch over it (RFC 7396)."""

    policy: Annotated[str | Json, BeforeValidator(_name_or_policy), SchemaOf(str | InlinePolicy)]
    overrides: Json | None = None


class StartRequest(PlanRequest):
    """What starts a run."""

    mode: StartableMode | None = Field(default=None, description="What the policy says, unless given.")

    def as_sent(self) -> Json:
        """The body without unset members."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


# --- the scope of a read of the fleet -----------------------------------------------------------------------

FLEET_PROBLEMS = {
    422: f"The scope has more than {MAX_MACHINES:,} machines.",
    429: f"{MAX_READS} reads of the fleet are in progress already.",
    502: "Azure refuses to list the machines.",
    503: "The storage cannot be reached, or reading the fleet takes too long.",
}

_Items = Annotated[list[str], comma_separated(8_192)]


class ScopeQuery(Query):
    """A scope: entries of one list are alternatives, every given list must match."""

    subscriptions: _Items = Field(
        default=[],
        alias="subscription",
        description="Ids of subscriptions, separated by commas; all that can be read unless given.",
    )
    resource_groups: _Items = Field(default=[], alias="resourceGroup", description="Names of resource groups.")
    locations: _Items = Field(default=[], alias="location", description="Regions.")
    os_types: _Items = Field(default=[], alias="osType", description="Windows or Linux.")
    machine_ids: _Items = Field(default=[], alias="machine", description="ARM ids of machines.")
    scale_sets: _Items = Field(default=[], alias="scaleSet", description="ARM ids of scale sets: their members.")

    def to_scope(self) -> Scope:
        """The scope; without parameters, everything that the identity can read.

        Raises:
            ApiProblem: 400 for an invalid value.
        """
        lists = {to_camel(name): items for name, items in self if name in ScopeQuery.model_fields}
        try:
            scope = Scope.model_validate(lists)
        except ValidationError as error:
            raise ApiProblem(400, "The query is not valid.", errors=explain(error, Scope)) from None
        message = "is an Arc machine; this is about virtual machines of Azure: leave it out"
        arcs = [Problem(path=f"machine[{place}]", message=message) for place in scope.of_other_types]
        if arcs:
            raise ApiProblem(400, "The query is not valid.", errors=arcs)
        return scope
