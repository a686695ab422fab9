"""One decorator defines a route: method, path, role, body, query, headers, responses and problems.

It registers the function, checks the role, turns errors into problem details, and feeds the OpenAPI document.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from inspect import signature
from typing import Any, cast

import azure.durable_functions as df
import azure.functions as func
from pydantic import Field, GetJsonSchemaHandler, TypeAdapter, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from patchwave.api.auth import check_role, signed_in
from patchwave.api.http import DEFAULT_LIMIT, MAX_LIMIT, json_response, read_model, route_of
from patchwave.api.problems import to_problem
from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.ids import MACHINE_KEY_PATTERN, POLICY_NAME_PATTERN, RUN_ID_PATTERN
from patchwave.domain.core.principal import Role
from patchwave.domain.policy.scope import RESOURCE_GROUP_PATTERN, SUBSCRIPTION_PATTERN
from patchwave.services.refusal_log import TRACED, note_refused
from patchwave.storage import Page
from patchwave.wiring import current_services

type Handler = Callable[..., Awaitable[func.HttpResponse]]


@dataclass(frozen=True, slots=True)
class SchemaTweaks:
    """Changes a model's schema: keys that are omitted, and keys that are optional."""

    without: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The model's schema with the changes."""
        schema = dict(handler.resolve_ref_schema(handler(core)))
        schema["properties"] = {key: member for key, member in schema["properties"].items() if key not in self.without}
        if "required" in schema:
            gone = {*self.without, *self.optional}
            schema["required"] = [key for key in schema["required"] if key not in gone]
        return schema


@dataclass(frozen=True, slots=True)
class SchemaOf:
    """Documents a value by another type, such as JSON that is validated later."""

    shape: Any

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema of the other type."""
        return handler(TypeAdapter(self.shape).core_schema)


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """A parameter of query, path or headers; optional unless it is part of the path."""

    name: str
    schema: Json
    description: str
    example: object = None


@dataclass(frozen=True, slots=True)
class ResponseSpec:
    """A successful response.

    ``shape`` is the type of the JSON body, ``None`` without a body, or a JSON Schema. ``as_given``: user documents are
    returned in their input form, where keys with a default are optional.
    """

    status: int
    shape: Any = None
    headers: tuple[ParameterSpec, ...] = ()
    as_given: bool = False


@dataclass(frozen=True, slots=True)
class RequestBody:
    """The JSON body of a request, with valid examples by name."""

    shape: Any
    examples: Mapping[str, Json]
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSpec:
    """A route. Every route also has 401 of the host, 413 with a body, and 500."""

    name: str
    """The function's name."""
    method: str
    path: str
    """Without the common prefix; parameter names in braces."""
    role: Role | None
    """``None``: the route has its own authentication."""
    is_open: bool
    """Whether the host requires no function key."""
    responses: tuple[ResponseSpec, ...]
    body: RequestBody | None
    query: tuple[ParameterSpec, ...]
    headers: tuple[ParameterSpec, ...]
    problems: Mapping[int, str]
    """Descriptions of problem responses by status."""
    uses_storage: bool
    """Whether it responds 503 when the storage is unreachable."""
    handler: Handler
    """The handler with its role check."""


bp = df.Blueprint()
"""All routes of the API."""
ROUTES: dict[str, RouteSpec] = {}
"""Routes by function name; filled by `route`."""


def route(
    method: str,
    path: str,
    *responses: ResponseSpec,
    role: Role | None,
    is_open: bool = False,
    body: RequestBody | None = None,
    query: Sequence[ParameterSpec] = (),
    headers: Sequence[ParameterSpec] = (),
    problems: Mapping[int, str] | None = None,
    uses_storage: bool = True,
) -> Callable[[Handler], Any]:
    """Register and document an HTTP function; its docstring is the description in the OpenAPI document.

    The role is checked before the handler runs, and its exceptions become problems. A handler with a parameter
    ``client`` gets the durable client, one with ``body`` the parsed body, one with ``services`` the app's services.
    """

    def register(handler: Handler) -> Any:
        spec = RouteSpec(
            name=handler.__name__,
            method=method,
            path=path,
            role=role,
            is_open=is_open,
            responses=responses,
            body=body,
            query=tuple(query),
            headers=tuple(headers),
            problems=dict(problems or {}),
            uses_storage=uses_storage,
            handler=guarded(handler, role, body),
        )
        assert spec.name not in ROUTES, f"two routes are named {spec.name}"
        ROUTES[spec.name] = spec
        bound: Any = spec.handler
        if "client" in signature(handler).parameters:
            bound = bp.durable_client_input(client_name="client")(bound)
        level = func.AuthLevel.ANONYMOUS if is_open else None
        return bp.route(route=path, methods=[method], auth_level=level)(bound)

    return register


def guarded(handler: Handler, role: Role | None, body: RequestBody | None = None) -> Handler:
    """The handler with its role check; exceptions become problems.

    A handler with a parameter ``body`` gets the parsed body, one with ``services`` the app's services.
    """
    name, own = handler.__name__, signature(handler)
    parsed = body if "body" in own.parameters else None
    takes_services = "services" in own.parameters

    @wraps(handler)
    async def handle(*args: Any, **kwargs: Any) -> func.HttpResponse:
        # The library passes it by keyword, or by position beside a durable client.
        request = cast("func.HttpRequest", kwargs["req"] if "req" in kwargs else args[0])
        try:
            check_role(name, role, request.headers)
            if parsed is not None:
                # In a thread: it may have 256 KB.
                kwargs["body"] = await asyncio.to_thread(read_model, request, parsed.shape, required=parsed.required)
            if takes_services:
                kwargs.setdefault("services", current_services())
            return await handler(*args, **kwargs)
        except Exception as error:
            problem = to_problem(error)
            if problem.status in TRACED:
                caller = partial(signed_in, request.headers)
                await note_refused(name, caller, problem.status, str(error), route_of(request, "policy"))
            return problem.to_response()

    # The host binds what the signature names; neither body nor services are a binding.
    bound = [each for each in own.parameters.values() if each.name not in ("body", "services")]
    vars(handle)["__signature__"] = own.replace(parameters=bound)
    return handle


class ListPage(Document):
    """Common members of pages of stored lists."""

    cursor: str | None
    unreadable: list[str] = Field(
        default_factory=list[str],
        description="Keys of stored rows of this page that are damaged; left out when there are none.",
    )


class PageSpec:
    """A page of a stored list: the response's key for its items, and their type."""

    def __init__(self, name: str, key: str, item: Any, text: str) -> None:
        self._key = key
        fields: dict[str, Any] = {key: (list[item], ...)}
        self.shape = create_model(name, __base__=ListPage, __doc__=text, **fields)

    @property
    def response(self) -> ResponseSpec:
        """The documented response."""
        return ResponseSpec(200, self.shape)

    def respond(self, items: Sequence[object], page: Page[Any]) -> func.HttpResponse:
        """The response with the items as JSON, and the keys of damaged rows of the page."""
        body: dict[str, object] = {self._key: items, "cursor": page.cursor}
        return json_response(body | {"unreadable": page.unreadable} if page.unreadable else body)


# --- shared by several routes -------------------------------------------------------------------------------

NO_RUN = {404: "There is no such run."}
NO_MACHINE = {404: "There is no such run, or no such machine in it."}
NO_POLICY = {404: "There is no such policy."}
NO_FREEZE = {404: "There is no such freeze."}
NO_CONFIGURATION = {404: "There is no such maintenance configuration."}
INVALID_QUERY = {400: "The query is not valid, or the cursor is of another list."}
INVALID_BODY = {400: "The body is no JSON, or of another form; every error at once."}

LIMIT = ParameterSpec(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "How many at most.",
)
CURSOR = ParameterSpec("cursor", {"type": "string", "maxLength": 300}, "Of the page before; opaque.")
PAGED = (LIMIT, CURSOR)

LOCATION = ParameterSpec("Location", {"type": "string"}, "Where to look at it.")
RETRY_AFTER = ParameterSpec("Retry-After", {"type": "integer", "minimum": 1}, "Seconds to wait before the next look.")
ETAG = ParameterSpec("ETag", {"type": "string", "pattern": '^"[0-9]+-[0-9a-f]{12}"$'}, "Of the stored version.")
IF_MATCH = ParameterSpec("If-Match", {"type": "string"}, "Change it only if its ETag is one of these; `*` is any.")

_NAME: Json = {"type": "string", "pattern": POLICY_NAME_PATTERN, "maxLength": 32}
ROUTE = {
    "runId": ParameterSpec(
        "runId",
        {"type": "string", "pattern": f"^{RUN_ID_PATTERN}$", "maxLength": 58},
        "The id of a run.",
        "20261110T190000Z-monthly",
    ),
    "machineKey": ParameterSpec(
        "machineKey",
        {"type": "string", "pattern": f"^{MACHINE_KEY_PATTERN}$"},
        "The key of a machine in the run.",
        "a1b2c3d4e5f6a1b2c3d4e5f6",
    ),
    "changeId": ParameterSpec(
        "changeId",
        {"type": "string", "pattern": f"^{RUN_ID_PATTERN}$", "maxLength": 58},
        "The id of a change of patch modes.",
        "20261110T190000Z-modes-1a2b3c4d",
    ),
    "name": ParameterSpec("name", _NAME, "The name of it.", "monthly"),
    "policy": ParameterSpec("policy", _NAME, "The name of a stored policy.", "monthly"),
    "subscriptionId": ParameterSpec(
        "subscriptionId",
        {"type": "string", "pattern": SUBSCRIPTION_PATTERN},
        "The subscription of a maintenance configuration.",
        "11111111-2222-4333-8444-555555555555",
    ),
    "resourceGroup": ParameterSpec(
        "resourceGroup",
        {"type": "string", "pattern": RESOURCE_GROUP_PATTERN, "maxLength": 90},
        "The resource group of a maintenance configuration.",
        "rg-schedules",
    ),
    "configuration": ParameterSpec(
        "configuration",
        {"type": "string", "pattern": r"^[A-Za-z0-9_.()-]+$", "maxLength": 127},
        "The name of a maintenance configuration.",
        "monthly-servers",
    ),
}
"""Parts of routes, by name."""
