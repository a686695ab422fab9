"""Reads requests and writes JSON responses."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from enum import StrEnum
from typing import cast

import azure.functions as func
from pydantic import ValidationError

from patchwave.api.auth import caller_named
from patchwave.api.problems import ApiProblem, invalid_body, invalid_query, no_such
from patchwave.domain.core.documents import Document
from patchwave.domain.core.ids import RunId
from patchwave.domain.core.principal import Signed
from patchwave.domain.core.validation import explain
from patchwave.services.strict_json import parse_json

MAX_BODY = 256 * 1024
MAX_PARAMETER = 8_192
"""Characters of a query parameter or header: the limit of common front ends."""
DEFAULT_LIMIT = 50
MAX_LIMIT = 1_000
_LOG = logging.getLogger("patchwave.http")


def json_response(
    document: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> func.HttpResponse:
    """A JSON response."""
    return func.HttpResponse(
        json.dumps(document, ensure_ascii=False),
        status_code=status,
        headers=dict(headers or {}),
        mimetype="application/json",
    )


def read_body(request: func.HttpRequest) -> bytes:
    """The body of a request.

    Raises:
        ApiProblem: 413 above 256 KB.
    """
    body = request.get_body()
    if len(body) > MAX_BODY:
        raise ApiProblem(413, f"The body is larger than {MAX_BODY // 1024} KB.")
    return body


def read_json(request: func.HttpRequest) -> object:
    """The body as JSON.

    Raises:
        ApiProblem: 413 for a large body, 400 for invalid JSON.
    """
    return parse_json(read_body(request))


def read_model[Model: Document](request: func.HttpRequest, model: type[Model], *, required: bool = True) -> Model:
    """The body as a document. A missing body that is not ``required`` gives the defaults.

    Raises:
        ApiProblem: 413 for a large body, 400 for invalid JSON or an invalid document, with every error.
    """
    document: object = read_json(request) if required or read_body(request).strip() else {}
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise invalid_body(*explain(error, model)) from None


def page_of(request: func.HttpRequest) -> tuple[int, str | None]:
    """``limit`` and ``cursor`` of a list.

    Raises:
        ApiProblem: 400 for a limit other than 1 to 1,000.
    """
    return number_of(request, "limit", DEFAULT_LIMIT, MAX_LIMIT), query_of(request, "cursor") or None


def number_of(request: func.HttpRequest, name: str, default: int, largest: int) -> int:
    """An integer query parameter, or the default.

    Raises:
        ApiProblem: 400 unless it is a number from 1 to ``largest``.
    """
    text = query_of(request, name) or str(default)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= number <= largest:
        raise invalid_query(name, f"must be a number from 1 to {largest}")
    return number


def word_of[Word: StrEnum](request: func.HttpRequest, name: str, words: type[Word]) -> Word | None:
    """An enum query parameter; ``None`` when it is absent.

    Raises:
        ApiProblem: 400 for another value.
    """
    text = query_of(request, name)
    return _known(text, name, words) if text else None


def words_of[Word: StrEnum](request: func.HttpRequest, name: str, words: type[Word]) -> list[Word]:
    """A query parameter that is a comma-separated list of enum values; empty when it is absent.

    Raises:
        ApiProblem: 400 for another value.
    """
    return [_known(text.strip(), name, words) for text in query_of(request, name).split(",") if text.strip()]


def _known[Word: StrEnum](text: str, name: str, words: type[Word]) -> Word:
    try:
        return words(text)
    except ValueError:
        raise invalid_query(name, f"{text[:100]!r} is not one of {', '.join(words)}") from None


def run_id_of(request: func.HttpRequest) -> str:
    """The run id of the path.

    Raises:
        ApiProblem: 404 for an invalid run id.
    """
    try:
        return RunId.parse(route_of(request, "runId")).text
    except ValueError:
        raise no_such("run") from None


def header_of(request: func.HttpRequest, name: str) -> str | None:
    """A header, by case-insensitive name; ``None`` when it is absent."""
    headers = cast("Mapping[str, str]", request.headers)
    return headers.get(name)


def route_of(request: func.HttpRequest, name: str) -> str:
    """A path parameter; empty when it is absent."""
    return cast("Mapping[str, str]", request.route_params).get(name, "")


def query_of(request: func.HttpRequest, name: str) -> str:
    """A query parameter; empty when it is absent.

    Raises:
        ApiProblem: 400 when it is too long.
    """
    text = cast("Mapping[str, str]", request.params).get(name, "")
    if len(text) > MAX_PARAMETER:
        raise invalid_query(name, f"is too long; at most {MAX_PARAMETER:,} characters")
    return text


def caller_of(request: func.HttpRequest, *, claimed: str = "") -> Signed:
    """The caller, for commands and the audit log; ``claimed`` is the name in the request."""
    return caller_named(request.headers, claimed)
