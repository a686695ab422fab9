"""Reads requests and writes JSON responses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, cast

from azure.functions import HttpRequest, HttpResponse
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from patchwave.api.auth import caller_named
from patchwave.api.problems import ApiProblem, invalid_body, no_such
from patchwave.domain.core.documents import Document, ExternalDocument, Json
from patchwave.domain.core.ids import RunId, is_policy_name
from patchwave.domain.core.principal import Signed
from patchwave.domain.core.validation import Problem, explain
from patchwave.services.strict_json import parse_json

MAX_BODY = 256 * 1024


def json_response(document: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """A JSON response."""
    return HttpResponse(
        json.dumps(document, ensure_ascii=False),
        status_code=status,
        headers=dict(headers or {}),
        mimetype="application/json",
    )


# --- bodies -------------------------------------------------------------------------------------------------


def read_body(request: HttpRequest) -> bytes:
    """The body of a request.

    Raises:
        ApiProblem: 413 above 256 KB.
    """
    body = request.get_body()
    if len(body) > MAX_BODY:
        raise ApiProblem(413, f"The body is larger than {MAX_BODY // 1024} KB.")
    return body


def read_json(request: HttpRequest) -> object:
    """The body as JSON.

    Raises:
        ApiProblem: 413 for a large body, 400 for invalid JSON.
    """
    return parse_json(read_body(request))


def read_model[Model: Document](request: HttpRequest, model: type[Model], absent: Json | None = None) -> Model:
    """The body as a document. ``absent`` stands for an empty body; without it, a body is required.

    Raises:
        ApiProblem: 413 for a large body, 400 for invalid JSON or an invalid document, with every error.
    """
    document: object = read_json(request) if absent is None or read_body(request).strip() else absent
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise invalid_body(*explain(error, model)) from None


# --- queries and headers ------------------------------------------------------------------------------------


class Query(ExternalDocument):
    """The parameters of a query, parsed and documented by one model. An empty parameter counts as absent."""


class Headers(ExternalDocument):
    """Headers that a route reads, parsed and documented by one model."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-").title())


def read_query[Model: Query](request: HttpRequest, model: type[Model]) -> Model:
    """The query of a request.

    Raises:
        ApiProblem: 400 with every error.
    """
    given = cast("Mapping[str, str]", request.params)
    return _parsed({name: text for name, text in given.items() if text}, model, "The query is not valid.")


def read_headers[Model: Headers](request: HttpRequest, model: type[Model]) -> Model:
    """The headers of a request.

    Raises:
        ApiProblem: 400 with every error.
    """
    names = [field.alias or name for name, field in model.model_fields.items()]
    given = {name: text for name in names if (text := header_of(request, name)) is not None}
    return _parsed(given, model, "A header is not valid.")


def _parsed[Model: ExternalDocument](given: Mapping[str, str], model: type[Model], detail: str) -> Model:
    try:
        return model.model_validate(given, by_alias=True, by_name=False)
    except ValidationError as error:
        # Of a list in one parameter, the parameter is named.
        problems = [Problem(path=each.path.partition("[")[0], message=each.message) for each in explain(error, model)]
        raise ApiProblem(400, detail, errors=problems) from None


def _whole_number(value: object) -> object:
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) < 10):
        raise ValueError("must be a whole number")
    return value


WholeNumber = Annotated[int, BeforeValidator(_whole_number)]
"""A number of a query: ASCII digits only."""


def _flag(value: object) -> object:
    if value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value


Flag = Annotated[bool, BeforeValidator(_flag)]
"""``true`` or ``false`` in a query."""


def comma_separated(max_length: int) -> BeforeValidator:
    """Splits a list that is one text in the query, of at most so many characters."""

    def split(value: object) -> object:
        if len(text := str(value)) > max_length:
            raise ValueError(f"is too long; at most {max_length:,} characters")
        return [item.strip() for item in text.split(",") if item.strip()]

    return BeforeValidator(split, json_schema_input_type=Annotated[str, Field(max_length=max_length)])


class PageQuery(Query):
    """The page of a list."""

    limit: WholeNumber = Field(default=50, ge=1, le=1_000, description="Maximum number of items.")
    cursor: str | None = Field(default=None, max_length=300, description="From the previous page; opaque.")


class CountQuery(Query):
    """The number of upcoming items."""

    count: WholeNumber = Field(default=12, ge=1, le=100, description="Maximum number of items.")


def header_of(request: HttpRequest, name: str) -> str | None:
    """A header, by case-insensitive name; ``None`` when it is absent."""
    return cast("Mapping[str, str]", request.headers).get(name)


# --- paths and callers --------------------------------------------------------------------------------------


def route_of(request: HttpRequest, name: str) -> str:
    """A path parameter; empty when it is absent."""
    return cast("Mapping[str, str]", request.route_params).get(name, "")


def run_id_of(request: HttpRequest) -> str:
    """The run id of the path.

    Raises:
        ApiProblem: 404 for an invalid run id.
    """
    try:
        return RunId.parse(route_of(request, "runId")).text
    except ValueError:
        raise no_such("run") from None


def name_of(request: HttpRequest, what: str) -> str:
    """The name of the path, of a policy or a freeze.

    Raises:
        ApiProblem: 404 for an invalid name.
    """
    if not is_policy_name(name := route_of(request, "name")):
        raise no_such(what)
    return name


def caller_of(request: HttpRequest, *, claimed: str = "") -> Signed:
    """The caller, for commands and the audit log; ``claimed`` is the name in the request."""
    return caller_named(request.headers, claimed)
