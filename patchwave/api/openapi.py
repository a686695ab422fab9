"""The OpenAPI 3.1 document of the API, generated from its routes.

``docs/openapi.json`` is the same document; ``make docs`` writes it, and ``make lint`` reports when it is outdated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, cast

from azure.functions import HttpRequest
from pydantic import BaseModel, TypeAdapter
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaMode

from patchwave.api.endpoint import PATH_PARTS, RETRY_AFTER, ROUTES, HeaderSpec, RouteSpec, route
from patchwave.api.health import HEALTH_KEY_HEADER
from patchwave.api.http import MAX_BODY
from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.principal import Role
from patchwave.domain.core.validation import Problem
from patchwave.domain.policy.policy import policy_schema

API_VERSION = "0.1.0"
PREFIX = "/api/"
"""Prefix of all routes, as in host.json."""
_REFERENCE = "#/components/schemas/{model}"
_PROBLEM = "application/problem+json"
_KEYWORDS = ("type", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "default")
"""Keywords of the schema of a parameter."""
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


class ProblemDetails(Document):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Problem] | None = None
    """Everything that is wrong with the request, each with its path and the fix."""


@route("GET", "openapi.json", role=Role.READER, uses_storage=False)
async def get_openapi(req: HttpRequest) -> Json:
    """This document."""
    return openapi()


@cache
def openapi() -> Json:
    """The document."""
    found = routes()
    schemas, components = _schemas(found)
    paths: dict[str, Json] = {}
    for spec in found:
        paths.setdefault(path_of(spec), {})[spec.method.lower()] = _operation(spec, schemas)
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


def routes() -> list[RouteSpec]:
    """The routes of the API, by name."""
    return [ROUTES[name] for name in sorted(ROUTES)]


def path_of(spec: RouteSpec) -> str:
    """The path of a route, with parameter names in braces."""
    return PREFIX + spec.path


def _operation(spec: RouteSpec, schemas: Mapping[int, Json]) -> Json:
    text = " ".join((spec.handler.__doc__ or "").replace("``", "`").split())
    parts = [part[1:-1] for part in spec.path.split("/") if part.startswith("{")]
    parameters: list[Json] = [{"name": name, "in": "path", "required": True} | PATH_PARTS[name] for name in parts]
    parameters += [*_parameters(spec.query, "query"), *_parameters(spec.headers, "header")]
    needs = f" Needs the role {spec.role.value} where roles count." if spec.role else ""
    operation: Json = {
        "operationId": to_camel(spec.name),
        "summary": text.split(". ")[0].split(": ")[0].rstrip("."),
        "description": text + needs,
        "tags": [spec.path.split("/")[0].split(".")[0]],
        "parameters": parameters,
        "responses": _responses(spec, schemas),
    }
    if spec.is_open:
        operation["security"] = [{}, {"healthKey": []}]
    if spec.body is not None:
        examples = {each: {"value": value} for each, value in spec.body.examples.items()}
        operation["requestBody"] = {
            "required": spec.body.required,
            "content": {"application/json": {"schema": schemas[id(spec.body)], "examples": examples}},
        }
    return operation


def _responses(spec: RouteSpec, schemas: Mapping[int, Json]) -> Json:
    responses: dict[int, Json] = {}
    for good in spec.responses:
        response: Json = {"description": HTTPStatus(good.status).phrase}
        if good.headers:
            response["headers"] = {each.name: _header(each) for each in good.headers}
        if good.shape is not None:
            response["content"] = {"application/json": {"schema": schemas[id(good)]}}
        responses[good.status] = response
    refusals = {500: "Patchwave failed on this request; its log has the reason."}
    if spec.body is not None:
        refusals[413] = f"The body is larger than {MAX_BODY // 1024} KB, or cannot be stored."
    if spec.uses_storage:
        refusals[503] = "The storage of the records cannot be reached."
    if spec.role is not None:
        refusals[403] = f"Roles count, and the caller does not have the role {spec.role.value}."
    for status, why in (refusals | dict(spec.problems)).items():
        problem: Json = {"description": why, "content": {_PROBLEM: {"schema": _reference(ProblemDetails.__name__)}}}
        if status == 503:
            problem["headers"] = {RETRY_AFTER.name: _header(RETRY_AFTER)}
        responses.setdefault(status, problem)
    if not spec.is_open:
        # The host's refusals have no body, the function's have one.
        responses.setdefault(401, {"description": "The function key is missing or not valid."})
    return {str(status): responses[status] for status in sorted(responses)}


def _parameters(model: type[BaseModel] | None, place: str) -> Iterator[Json]:
    """The fields of a model of query or headers."""
    document = model.model_json_schema() if model is not None else {}
    for name, field in document.get("properties", {}).items():
        # An optional one is text or null in the model, and text or absent in the request.
        schema: Json = {**field, **field.get("anyOf", [{}])[0]}
        if reference := schema.pop("$ref", ""):
            schema |= document["$defs"][reference.rpartition("/")[2]]
        parameter: Json = {"name": name, "in": place, "required": False, "description": field["description"]}
        if examples := schema.pop("examples", ()):
            parameter["example"] = examples[0]
        yield parameter | {"schema": {key: schema[key] for key in _KEYWORDS if schema.get(key)}}


def _header(given: HeaderSpec) -> Json:
    return {"description": given.description, "required": True, "schema": given.schema}


def _schemas(routes: Sequence[RouteSpec]) -> tuple[dict[int, Json], Json]:
    """Schemas of bodies and responses by the identity of their description, and referenced schemas."""
    wanted: list[tuple[int, JsonSchemaMode, TypeAdapter[Any]]] = [(0, "validation", TypeAdapter(ProblemDetails))]
    for spec in routes:
        if spec.body is not None:
            wanted.append((id(spec.body), "validation", TypeAdapter(spec.body.shape)))
        for good in spec.responses:
            mode: JsonSchemaMode = "validation" if good.as_given else "serialization"
            if good.shape is not None:
                wanted.append((id(good), mode, TypeAdapter(good.shape)))
    found, shared = TypeAdapter.json_schemas(wanted, by_alias=True, ref_template=_REFERENCE)
    components: Json = shared["$defs"]
    # As served for editors, with every key described.
    policy = policy_schema()
    for name, schema in {"Policy": policy, **policy.pop("$defs")}.items():
        if name in components:
            components[name] = schema
    del components["Policy"]["$schema"]
    named = {name: _referring(schema) for name, schema in components.items()}
    return {each: _referring(schema) for (each, _), schema in found.items()}, dict(sorted(named.items()))


def _referring(schema: Any) -> Any:
    """The schema with references into this document."""
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
    return {"$ref": _REFERENCE.format(model=name)}
