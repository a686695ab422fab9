"""get_openapi: the OpenAPI 3.1 document of this API, made of its routes and of what each promises.

``docs/openapi.json`` is the same document; ``make docs`` writes it, and `make lint` says when it is out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, NamedTuple, cast

import azure.durable_functions as df
import azure.functions as func
from azure.functions.decorators.function_app import Function
from azure.functions.decorators.http import HttpTrigger
from pydantic import TypeAdapter
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaMode

from patchwave.api import (
    drift,
    fleet,
    freezes,
    health,
    maintenance_assignments,
    maintenance_configurations,
    maintenance_runs,
    maintenance_upcoming_runs,
    patch_mode_changes,
    plans,
    policies,
    policy_conversion,
    policy_schedule,
    refused_calls,
    run_commands,
    runs,
)
from patchwave.api.auth import ROLES
from patchwave.api.endpoint import RETRY_AFTER, ROUTE, Answer, Parameter, Promise, described, promise_of
from patchwave.api.health import HEALTH_KEY_HEADER
from patchwave.api.http import MAX_BODY, answer, answered
from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.principal import Role
from patchwave.domain.core.validation import Problem
from patchwave.domain.policy.policy import policy_schema
from patchwave.services import retention
from triggers import webhook

API_VERSION = "0.1.0"
PREFIX = "/api/"
"""Of all routes, as in host.json."""
_REFERENCE = "#/components/schemas/{model}"
_NAMES = {"domain__agenda__Decision": "OccurrenceDecision", "domain__run__Decision": "RingDecision"}
"""Two classes of one name, as the library tells them apart, and what they are called here."""
_PROBLEM = "application/problem+json"
_INTRODUCTION = """\
Assesses and patches fleets of Azure virtual machines. Times are UTC, ISO-8601 with `Z`. What goes wrong is answered \
with problem details (RFC 9457). The host of the functions itself answers 401 to a call without a key, without a body.
"""
_SECURITY: list[Json] = [{"functionKey": []}, {"functionKeyInQuery": []}, {"functionKey": [], "entra": []}]
_SCHEMES: Json = {
    "functionKey": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
    "functionKeyInQuery": {"type": "apiKey", "in": "query", "name": "code"},
    "entra": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of Microsoft Entra ID, where the authentication of App Service is on.",
    },
    "healthKey": {
        "type": "apiKey",
        "in": "header",
        "name": HEALTH_KEY_HEADER,
        "description": "Only for `?deep=1` of the health function.",
    },
}

bp = df.Blueprint()


class ProblemDetails(Document):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Problem] | None = None
    """Everything that is wrong with the request, each with its path and the fix."""


@bp.route(route="openapi.json", methods=["GET"])
@described(Answer(200, Json), uses_storage=False)
@answered
async def get_openapi(req: func.HttpRequest) -> func.HttpResponse:
    """This document."""
    del req
    return answer(openapi())


@cache
def openapi() -> Json:
    """The document.

    Raises:
        LookupError: a route has no description.
    """
    found = routes()
    schemas, components = _schemas([route.promise for route in found])
    paths: dict[str, Json] = {}
    for route in found:
        paths.setdefault(route.path, {})[route.method] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Patchwave",
            "version": API_VERSION,
            "description": _INTRODUCTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": _SECURITY,
        "paths": {path: paths[path] for path in sorted(paths)},
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
    }


class Route(NamedTuple):
    """An HTTP function: its name, where it answers, and to whom."""

    name: str
    template: str
    method: str
    is_open: bool
    handler: Callable[..., object]

    @property
    def path(self) -> str:
        """Its address, with the names of its parts in braces."""
        return PREFIX + self.template

    @property
    def operation_id(self) -> str:
        """Its name in the document."""
        return to_camel(self.name)

    @property
    def promise(self) -> Promise:
        """What it promises.

        Raises:
            LookupError: nobody has described it.
        """
        return promise_of(self.handler)

    @property
    def role(self) -> Role | None:
        """The role that it needs where roles count."""
        return ROLES[self.name]


def routes() -> list[Route]:
    """The HTTP functions of the API, by name, as an app of their own registers them."""
    app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)
    for part in (
        runs,
        retention,
        refused_calls,
        run_commands,
        policies,
        plans,
        policy_schedule,
        freezes,
        maintenance_configurations,
        maintenance_upcoming_runs,
        maintenance_runs,
        maintenance_assignments,
        fleet,
        patch_mode_changes,
        drift,
        policy_conversion,
        webhook,
        health,
    ):
        app.register_functions(part.bp)
    app.register_functions(bp)
    functions: list[Function] = app.get_functions()
    found: list[Route] = []
    for function in functions:
        trigger = function.get_trigger()
        if isinstance(trigger, HttpTrigger):
            [method] = trigger.methods or []
            is_open = trigger.auth_level is func.AuthLevel.ANONYMOUS
            handler = cast(Callable[..., object], function.get_user_function())
            found.append(
                Route(str(function.get_function_name()), str(trigger.route), method.value.lower(), is_open, handler)
            )
    return sorted(found, key=lambda route: route.name)


def _operation(route: Route, schemas: Mapping[int, Json]) -> Json:
    promise = route.promise
    text = " ".join((route.handler.__doc__ or "").replace("``", "`").split())
    parts = [part[1:-1] for part in route.template.split("/") if part.startswith("{")]
    parameters = [_parameter(ROUTE[name], "path") for name in parts]
    parameters += [_parameter(each, "query") for each in promise.query]
    parameters += [_parameter(each, "header") for each in promise.headers]
    needs = f" Needs the role {route.role.value} where roles count." if route.role else ""
    operation: Json = {
        "operationId": route.operation_id,
        "summary": text.split(". ")[0].split(": ")[0].rstrip("."),
        "description": text + needs,
        "tags": [route.template.split("/")[0].split(".")[0]],
        "parameters": parameters,
        "responses": _responses(route, schemas),
    }
    if route.is_open:
        operation["security"] = [{}, {"healthKey": []}]
    if promise.body is not None:
        examples = {each: {"value": value} for each, value in promise.body.examples.items()}
        operation["requestBody"] = {
            "required": promise.body.required,
            "content": {"application/json": {"schema": schemas[id(promise.body)], "examples": examples}},
        }
    return operation


def _responses(route: Route, schemas: Mapping[int, Json]) -> Json:
    promise = route.promise
    responses: dict[int, Json] = {}
    for good in promise.answers:
        response: Json = {"description": HTTPStatus(good.status).phrase}
        if good.headers:
            response["headers"] = {each.name: _header(each) for each in good.headers}
        if good.shape is not None:
            response["content"] = {"application/json": {"schema": schemas[id(good)]}}
        responses[good.status] = response
    refusals = {500: "Patchwave failed on this request; its log has the reason."}
    if promise.body is not None:
        refusals[413] = f"The body is larger than {MAX_BODY // 1024} KB, or cannot be stored."
    if promise.uses_storage:
        refusals[503] = "The storage of the records cannot be reached."
    if route.role is not None:
        refusals[403] = f"Roles count, and the caller does not have the role {route.role.value}."
    for status, why in (refusals | dict(promise.refuses)).items():
        problem: Json = {"description": why, "content": {_PROBLEM: {"schema": _reference(ProblemDetails.__name__)}}}
        if status == 503:
            problem["headers"] = {RETRY_AFTER.name: _header(RETRY_AFTER)}
        responses.setdefault(status, problem)
    if not route.is_open:
        # Without a body where the host refuses, with one where the function does.
        responses.setdefault(401, {"description": "The function key is missing or not valid."})
    return {str(status): responses[status] for status in sorted(responses)}


def _parameter(given: Parameter, place: str) -> Json:
    parameter: Json = {
        "name": given.name,
        "in": place,
        "required": place == "path",
        "description": given.description,
        "schema": given.schema,
    }
    return parameter if given.example is None else parameter | {"example": given.example}


def _header(given: Parameter) -> Json:
    return {"description": given.description, "required": True, "schema": given.schema}


def _schemas(promises: Sequence[Promise]) -> tuple[dict[int, Json], Json]:
    """The schema of every body and answer, by the identity of its description, and those that they refer to."""
    wanted: list[tuple[int, JsonSchemaMode, TypeAdapter[Any]]] = [(0, "validation", TypeAdapter(ProblemDetails))]
    for promise in promises:
        if promise.body is not None:
            wanted.append((id(promise.body), "validation", TypeAdapter(promise.body.shape)))
        for good in promise.answers:
            mode: JsonSchemaMode = "validation" if good.as_given else "serialization"
            if good.shape is not None:
                wanted.append((id(good), mode, TypeAdapter(good.shape)))
    found, shared = TypeAdapter.json_schemas(wanted, by_alias=True, ref_template=_REFERENCE)
    components: Json = shared["$defs"]
    # As it is served for editors, with every key explained.
    policy = policy_schema()
    for name, schema in {"Policy": policy, **policy.pop("$defs")}.items():
        if name in components:
            components[name] = schema
    del components["Policy"]["$schema"]
    named = {_NAMES.get(name, name): _referring(schema) for name, schema in components.items()}
    return {each: _referring(schema) for (each, _), schema in found.items()}, dict(sorted(named.items()))


def _referring(schema: Any) -> Any:
    """The schema with its references into this document."""
    if isinstance(schema, dict):
        members = cast("Json", schema).items()
        return {
            key: _reference(member.rpartition("/")[2])["$ref"] if key == "$ref" else _referring(member)
            for key, member in members
        }
    if isinstance(schema, list):
        return [_referring(each) for each in cast("list[Any]", schema)]
    return schema


def _reference(name: str) -> Json:
    return {"$ref": _REFERENCE.format(model=_NAMES.get(name, name))}
