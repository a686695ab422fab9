"""Request bodies and queries shared by several resources: commands, policies, and scopes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, cast

import azure.functions as func
from pydantic import AfterValidator, BeforeValidator, StringConstraints, ValidationError

from patchwave.api.endpoint import ParameterSpec, RequestBody, SchemaOf, SchemaTweaks
from patchwave.api.http import caller_of, query_of, read_body, read_model
from patchwave.api.problems import ApiProblem, invalid_body, invalid_query
from patchwave.domain.core.command import Command
from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.validation import explain
from patchwave.domain.policy.policy import Policy
from patchwave.domain.policy.scope import Scope
from patchwave.domain.runs.run import Mode, StartableMode
from patchwave.services.fleet_reader import MAX_MACHINES, MAX_READS
from patchwave.services.start_run import MAX_KEY

MAX_REASON = 500
_MAX_NAME = 200


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must have printable characters only")
    return text


CallerName = Annotated[str, StringConstraints(strip_whitespace=True, max_length=_MAX_NAME), AfterValidator(_printable)]
"""A name in the request. It only counts where the platform does not identify the caller."""


class AuditReason(Document):
    """Who asks for it, and why."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_REASON)]
    actor: CallerName = ""


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

    mode: StartableMode = Mode.PATCH

    def as_sent(self) -> Json:
        """The body without unset members."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


KEY_REUSED = {422: "The key was used for another request."}
IDEMPOTENCY_KEY = ParameterSpec(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": MAX_KEY},
    "A repetition by the same caller with the same key and body gives the first run; with another body of the same"
    " policy it is refused.",
)

COMMAND = RequestBody(
    AuditReason, {"said": {"reason": "The data centre moves.", "actor": "ana@example.org"}}, required=False
)
ACTOR = ParameterSpec(
    "actor", {"type": "string", "maxLength": _MAX_NAME}, "Who asks, where the platform does not know who calls."
)
COMMAND_QUERY = (
    ParameterSpec(
        "reason",
        {"type": "string", "minLength": 1, "maxLength": MAX_REASON},
        "Why, for people; needed unless the body has it.",
    ),
    ACTOR,
)


REASON_QUERY = (
    ParameterSpec("reason", {"type": "string", "maxLength": MAX_REASON}, "Why, for people and the audit log."),
    ACTOR,
)


def read_reason(request: func.HttpRequest, at: datetime) -> Command:
    """``reason`` and ``actor`` of the query, both optional.

    Raises:
        ApiProblem: 400 when one is too long or has unprintable characters.
    """
    reason, name = query_of(request, "reason").strip(), query_of(request, "actor").strip()
    for path, text, longest in (("reason", reason, MAX_REASON), ("actor", name, _MAX_NAME)):
        if len(text) > longest or not text.isprintable():
            raise invalid_query(path, f"must have at most {longest} printable characters")
    return Command(**caller_of(request, claimed=name).who, reason=reason, at=at)


def read_command(request: func.HttpRequest, at: datetime) -> Command:
    """``reason`` and ``actor`` from the body or, without one, from the query.

    The reason is required: users see it wherever nothing runs. ``actor`` is unverified, and only counts where the
    platform does not identify the caller.

    Raises:
        ApiProblem: 400 when the reason is missing or too long, or the body is invalid.
    """
    if read_body(request):
        return command_of(request, read_model(request, AuditReason), at)
    try:
        given = AuditReason.model_validate({name: query_of(request, name) for name in ("reason", "actor")})
    except ValidationError as error:
        raise invalid_body(*explain(error, AuditReason)) from None
    return command_of(request, given, at)


def command_of(request: func.HttpRequest, given: AuditReason, at: datetime) -> Command:
    """The command of the caller."""
    return Command(**caller_of(request, claimed=given.actor).who, reason=given.reason, at=at)


# --- the scope of a read of the fleet -----------------------------------------------------------------------

TOO_MANY_READS = {429: f"{MAX_READS} reads of the fleet are in progress already."}
FLEET_PROBLEMS = TOO_MANY_READS | {
    422: f"The scope has more than {MAX_MACHINES:,} machines.",
    502: "Azure refuses to list the machines.",
    503: "The storage cannot be reached, or reading the fleet takes too long.",
}


_LISTS: Mapping[str, str] = {
    "subscription": "subscriptions",
    "resourceGroup": "resourceGroups",
    "location": "locations",
    "osType": "osTypes",
    "machine": "machineIds",
}
_TEXT: Json = {"type": "string", "maxLength": 4_096}
SCOPE_QUERY = (
    ParameterSpec(
        "subscription", _TEXT, "Ids of subscriptions, separated by commas; all that can be read unless given."
    ),
    ParameterSpec("resourceGroup", _TEXT, "Names of resource groups."),
    ParameterSpec("location", _TEXT, "Regions."),
    ParameterSpec("osType", _TEXT, "Windows or Linux."),
    ParameterSpec("machine", _TEXT, "ARM ids of machines."),
)
"""Query parameters of a scope: entries of one list are alternatives, every given list must match."""


def read_scope(request: func.HttpRequest) -> Scope:
    """The scope of a query; without parameters, everything that the identity can read.

    Raises:
        ApiProblem: 400 for an invalid value.
    """
    found = {
        key: [item.strip() for item in text.split(",") if item.strip()]
        for name, key in _LISTS.items()
        if (text := query_of(request, name))
    }
    try:
        return Scope.model_validate(found)
    except ValidationError as error:
        raise ApiProblem(400, "The query is not valid.", errors=explain(error, Scope)) from None
