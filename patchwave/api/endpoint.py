"""One decorator defines a route: method, path, role, body, responses and problems.

It registers the function, checks the role, parses query, headers and body, turns errors into problem details, and feeds
the OpenAPI document.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from inspect import get_annotations, signature, unwrap
from typing import Any, cast

import azure.durable_functions as df
import azure.functions as func
from pydantic import Field, GetJsonSchemaHandler, TypeAdapter, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from patchwave.api.auth import check_role, signed_in
from patchwave.api.http import Headers, Query, json_response, read_headers, read_model, read_query, route_of
from patchwave.api.problems import to_problem
from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.ids import MACHINE_KEY_PATTERN, POLICY_NAME_PATTERN, RUN_ID_PATTERN
from patchwave.domain.core.principal import Role
from patchwave.domain.policy.scope import RESOURCE_GROUP_PATTERN, SUBSCRIPTION_PATTERN
from patchwave.services.refusal_log import TRACED, note_refused
from patchwave.storage import Page
from patchwave.wiring import current_services

type Handler = Callable[..., Awaitable[func.HttpResponse | Document | Json]]
"""A handler's document is the body of the route's first response."""
type HttpFunction = Callable[..., Awaitable[func.HttpResponse]]


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
class HeaderSpec:
    """A header of a response."""

    name: str
    schema: Json
    description: str


@dataclass(frozen=True, slots=True)
class ResponseSpec:
    """A successful response.

    ``shape`` is the type of the JSON body, ``None`` without a body, or a JSON Schema. ``as_given``: user documents are
    returned in their input form, where keys with a default are optional.
    """

    status: int
    shape: Any = None
    headers: tuple[HeaderSpec, ...] = ()
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
    query: type[Query] | None
    headers: type[Headers] | None
    problems: Mapping[int, str]
    """Descriptions of problem responses by status."""
    uses_storage: bool
    """Whether it responds 503 when the storage is unreachable."""
    handler: HttpFunction
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
    problems: Mapping[int, str] | None = None,
    uses_storage: bool = True,
) -> Callable[[Handler], Any]:
    """Register and document an HTTP function; its docstring is the description in the OpenAPI document.

    The role is checked before the handler runs, and its exceptions become problems. Besides ``req``, a handler may have
    the parameters ``client`` (of the durable engine), ``services`` or ``storage`` (of the app), ``query`` and
    ``headers`` (parsed by the models that annotate them), and ``body`` (parsed by the model of `RequestBody`). Without
    ``responses`` it is 200 with the document that the handler returns.
    """

    def register(handler: Handler) -> Any:
        models = _annotations(handler)
        answers = responses or (ResponseSpec(200, models["return"]),)
        takes_input = body is not None or "query" in models or "headers" in models
        spec = RouteSpec(
            name=handler.__name__,
            method=method,
            path=path,
            role=role,
            is_open=is_open,
            responses=answers,
            body=body,
            query=models.get("query"),
            headers=models.get("headers"),
            problems=(INVALID_REQUEST if takes_input else {}) | dict(problems or {}),
            uses_storage=uses_storage,
            handler=guarded(handler, role, body, answers[0].status),
        )
        assert spec.name not in ROUTES, f"two routes are named {spec.name}"
        ROUTES[spec.name] = spec
        bound: Any = spec.handler
        if "client" in signature(handler).parameters:
            bound = bp.durable_client_input(client_name="client")(bound)
        level = func.AuthLevel.ANONYMOUS if is_open else None
        return bp.route(route=path, methods=[method], auth_level=level)(bound)

    return register


def guarded(handler: Handler, role: Role | None, body: RequestBody | None = None, status: int = 200) -> HttpFunction:
    """The handler with its role check and parsed parameters; exceptions become problems."""
    name, own, models = handler.__name__, signature(handler), _annotations(handler)

    @wraps(handler)
    async def handle(*args: Any, **kwargs: Any) -> func.HttpResponse:
        # The library passes it by keyword, or by position beside a durable client.
        request = cast("func.HttpRequest", kwargs["req"] if "req" in kwargs else args[0])
        try:
            check_role(name, role, request.headers)
            if "query" in models:
                kwargs["query"] = read_query(request, models["query"])
            if "headers" in models:
                kwargs["headers"] = read_headers(request, models["headers"])
            if body is not None and "body" in models:
                # In a thread: it may have 256 KB.
                absent: Json | None = None if body.required else {}
                kwargs["body"] = await asyncio.to_thread(read_model, request, body.shape, absent)
            if "services" in models:
                kwargs.setdefault("services", current_services())
            if "storage" in models:
                kwargs["storage"] = current_services().storage
            result = await handler(*args, **kwargs)
            if isinstance(result, func.HttpResponse):
                return result
            # In a thread: it may have megabytes.
            return await asyncio.to_thread(_respond, result, status)
        except Exception as error:
            problem = to_problem(error)
            if problem.status in TRACED:
                caller = partial(signed_in, request.headers)
                await note_refused(
                    current_services(), name, caller, problem.status, str(error), route_of(request, "policy")
                )
            return problem.to_response()

    # The host binds what the signature names, and checks what it returns.
    bound = [each for each in own.parameters.values() if each.name in ("req", "client")]
    vars(handle)["__signature__"] = own.replace(parameters=bound, return_annotation=func.HttpResponse)
    handle.__annotations__ = {**handle.__annotations__, "return": func.HttpResponse}
    return handle


def _respond(body: Document | Json, status: int) -> func.HttpResponse:
    if not isinstance(body, Document):
        return json_response(body, status=status)
    # Faster than by way of Python's objects: ten thousand machines are 20 MB.
    return func.HttpResponse(body.model_dump_json(by_alias=True), status_code=status, mimetype="application/json")


def _annotations(handler: Handler) -> dict[str, Any]:
    return get_annotations(unwrap(handler), eval_str=True)


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
INVALID_REQUEST = {400: "The query, a header or the body is not valid; every error at once."}

LOCATION = HeaderSpec("Location", {"type": "string"}, "The URL of it.")
RETRY_AFTER = HeaderSpec("Retry-After", {"type": "integer", "minimum": 1}, "Seconds until the next request.")
ETAG = HeaderSpec("ETag", {"type": "string", "pattern": '^"[0-9]+-[0-9a-f]{12}"$'}, "The stored version.")


def _part(description: str, pattern: str, example: str, max_length: int | None = None) -> Json:
    schema = {"type": "string", "pattern": pattern} | ({"maxLength": max_length} if max_length else {})
    return {"description": description, "schema": schema, "example": example}


_RUN_ID, _ID = f"^{RUN_ID_PATTERN}$", "11111111-2222-4333-8444-555555555555"
PATH_PARTS = {
    "runId": _part("The id of a run.", _RUN_ID, "20261110T190000Z-monthly", 58),
    "machineKey": _part("The key of a machine in the run.", f"^{MACHINE_KEY_PATTERN}$", "a1b2c3d4e5f6a1b2c3d4e5f6"),
    "changeId": _part("The id of a change of patch modes.", _RUN_ID, "20261110T190000Z-modes-1a2b3c4d", 58),
    "name": _part("The name of it.", POLICY_NAME_PATTERN, "monthly", 32),
    "policy": _part("The name of a stored policy.", POLICY_NAME_PATTERN, "monthly", 32),
    "subscriptionId": _part("The subscription of a maintenance configuration.", SUBSCRIPTION_PATTERN, _ID),
    "resourceGroup": _part(
        "The resource group of a maintenance configuration.", RESOURCE_GROUP_PATTERN, "rg-schedules", 90
    ),
    "configuration": _part("The name of a maintenance configuration.", r"^[A-Za-z0-9_.()-]+$", "monthly-servers", 127),
}
"""Parameters of paths, by name."""
