"""What a route promises, said next to it: the bodies it takes, the answers it gives, and how it refuses.

`patchwave.api.openapi` makes the document of the API of it. A route without a description is in no document, so that
the document is refused as a whole: none can be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from patchwave.api.http import DEFAULT_LIMIT, MAX_LIMIT
from patchwave.domain.core.documents import Document, Json, UtcDatetime
from patchwave.domain.core.ids import MACHINE_KEY_PATTERN, POLICY_NAME_PATTERN, RUN_ID_PATTERN
from patchwave.domain.policy.scope import RESOURCE_GROUP_PATTERN, SUBSCRIPTION_PATTERN

_ATTRIBUTE = "__patchwave_promise__"


@dataclass(frozen=True, slots=True)
class Keys:
    """Marks a model whose JSON form differs a little: keys that are left out, and keys that may be."""

    without: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema of the model, changed."""
        schema = dict(handler.resolve_ref_schema(handler(core)))
        schema["properties"] = {key: member for key, member in schema["properties"].items() if key not in self.without}
        if "required" in schema:
            gone = {*self.without, *self.optional}
            schema["required"] = [key for key in schema["required"] if key not in gone]
        return schema


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query, the route or the headers, which may be left out unless it is part of the route."""

    name: str
    schema: Json
    description: str
    example: object = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request that goes well is answered with.

    ``shape`` is the type whose JSON the body is, ``None`` without a body, or a JSON Schema. ``as_given``: documents
    that people wrote come back as they may be written, where keys with a default may be left out.
    """

    status: int
    shape: Any = None
    headers: tuple[Parameter, ...] = ()
    as_given: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """The JSON that a request takes, with examples that work, by name."""

    shape: Any
    examples: Mapping[str, Json]
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """All that a route promises beside what every route does: 401 of the host, 413 with a body, 500."""

    answers: tuple[Answer, ...]
    body: Body | None = None
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    refuses: Mapping[int, str] = field(default_factory=dict[int, str])
    """Statuses of problem documents, each with when it is given."""
    uses_storage: bool = True
    """Whether it answers 503 when the storage cannot be reached."""


def described[Handler: Callable[..., Any]](
    *answers: Answer,
    body: Body | None = None,
    query: Sequence[Parameter] = (),
    headers: Sequence[Parameter] = (),
    refuses: Mapping[int, str] | None = None,
    uses_storage: bool = True,
) -> Callable[[Handler], Handler]:
    """Say what a route promises; its docstring becomes the text of the document."""
    promise = Promise(
        answers=answers,
        body=body,
        query=tuple(query),
        headers=tuple(headers),
        refuses=dict(refuses or {}),
        uses_storage=uses_storage,
    )

    def describe(handler: Handler) -> Handler:
        setattr(handler, _ATTRIBUTE, promise)
        return handler

    return describe


def promise_of(handler: object) -> Promise:
    """What a route promises.

    Raises:
        LookupError: nobody has described it.
    """
    # The durable client's decorator keeps the function that it wraps here.
    inner = getattr(handler, "client_function", handler)
    promise = getattr(inner, _ATTRIBUTE, None)
    if promise is None:
        raise LookupError(
            f"The route {getattr(inner, '__name__', inner)} has no description: see patchwave/api/endpoint.py."
        )
    return cast(Promise, promise)


class AuditLine(Document):
    """One line of an audit log; ``detail`` is a text when it was too long to be kept whole."""

    at: UtcDatetime
    action: str
    by: str
    by_id: str
    """Object id of the signed-in principal; empty where none was."""
    proven: bool
    """Whether the platform names them; a name that a caller typed ends with "(claimed)"."""
    detail: Json | str | None


class ListPage(Document):
    """What the pages of stored lists have in common."""

    cursor: str | None
    unreadable: list[str] = Field(
        default_factory=list[str],
        description="Keys of stored rows of this page that are damaged; left out when there are none.",
    )


class AuditPage(ListPage):
    """Lines of an audit log, oldest first."""

    audit: list[AuditLine]


# --- what several routes share ------------------------------------------------------------------------------

NO_RUN = {404: "There is no such run."}
NO_MACHINE = {404: "There is no such run, or no such machine in it."}
NO_POLICY = {404: "There is no such policy."}
NO_FREEZE = {404: "There is no such freeze."}
NO_CONFIGURATION = {404: "There is no such maintenance configuration."}
INVALID_QUERY = {400: "The query is not valid, or the cursor is of another list."}
INVALID_BODY = {400: "The body is no JSON, or of another form; every error at once."}

LIMIT = Parameter(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "How many at most.",
)
CURSOR = Parameter("cursor", {"type": "string", "maxLength": 300}, "Of the page before; opaque.")
PAGED = (LIMIT, CURSOR)

LOCATION = Parameter("Location", {"type": "string"}, "Where to look at it.")
RETRY_AFTER = Parameter("Retry-After", {"type": "integer", "minimum": 1}, "Seconds to wait before the next look.")
ETAG = Parameter("ETag", {"type": "string", "pattern": '^"[0-9]+-[0-9a-f]{12}"$'}, "Of the stored version.")
IF_MATCH = Parameter("If-Match", {"type": "string"}, "Change it only if its ETag is one of these; `*` is any.")

_NAME: Json = {"type": "string", "pattern": POLICY_NAME_PATTERN, "maxLength": 32}
ROUTE = {
    "runId": Parameter(
        "runId",
        {"type": "string", "pattern": f"^{RUN_ID_PATTERN}$", "maxLength": 58},
        "The id of a run.",
        "20261110T190000Z-monthly",
    ),
    "machineKey": Parameter(
        "machineKey",
        {"type": "string", "pattern": f"^{MACHINE_KEY_PATTERN}$"},
        "The key of a machine in the run.",
        "a1b2c3d4e5f6a1b2c3d4e5f6",
    ),
    "changeId": Parameter(
        "changeId",
        {"type": "string", "pattern": f"^{RUN_ID_PATTERN}$", "maxLength": 58},
        "The id of a change of patch modes.",
        "20261110T190000Z-modes-1a2b3c4d",
    ),
    "name": Parameter("name", _NAME, "The name of it.", "monthly"),
    "policy": Parameter("policy", _NAME, "The name of a stored policy.", "monthly"),
    "subscriptionId": Parameter(
        "subscriptionId",
        {"type": "string", "pattern": SUBSCRIPTION_PATTERN},
        "The subscription of a maintenance configuration.",
        "11111111-2222-4333-8444-555555555555",
    ),
    "resourceGroup": Parameter(
        "resourceGroup",
        {"type": "string", "pattern": RESOURCE_GROUP_PATTERN, "maxLength": 90},
        "The resource group of a maintenance configuration.",
        "rg-schedules",
    ),
    "configuration": Parameter(
        "configuration",
        {"type": "string", "pattern": r"^[A-Za-z0-9_.()-]+$", "maxLength": 127},
        "The name of a maintenance configuration.",
        "monthly-servers",
    ),
}
"""Parts of routes, by name."""
