"""What all HTTP functions share: JSON in, JSON out, and problem details (RFC 9457) for everything that goes wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from functools import wraps
from http import HTTPStatus
from typing import Any, cast

import azure.functions as func

from patchwave.api.auth import NotSignedIn, RoleMissing, caller_named, check_role
from patchwave.domain.core.command import NotAllowed, NotPossible
from patchwave.domain.core.ids import RunId
from patchwave.domain.core.principal import Signed
from patchwave.domain.core.validation import Problem, listed
from patchwave.domain.policy.policy import PolicyError
from patchwave.domain.scheduling.freeze import FreezeError
from patchwave.services.refusal_log import TRACED, note_refused
from patchwave.storage import InvalidCursor, Page, PreconditionFailed, RecordTooLarge, StorageUnreachable

MAX_BODY = 256 * 1024
MAX_ENTRIES = 2_000
"""In one list of a body: as many ids of machines as a body has room for."""
MAX_KEYS = 1_000
"""Of one object of a body."""
MAX_VALUES = 10_000
"""In all lists and objects of a body: each may be wrong, and is then an error that somebody has to make."""
MAX_PARAMETER = 8_192
"""Of a query parameter or a header, in characters: as long as a front end lets through."""
DEFAULT_LIMIT = 50
MAX_LIMIT = 1_000
_MAX_NAME = 100
_LOG = logging.getLogger("patchwave.http")


class Refusal(Exception):
    """A request that is answered with a problem: the HTTP status, one sentence, and what exactly is wrong.

    ``why`` is what the trace says of it where the caller must not read it; it is the text of the exception.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
        why: str = "",
    ) -> None:
        super().__init__(why or detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(listed(errors))
        self.headers = dict(headers or {})

    def to_response(self) -> func.HttpResponse:
        """The problem document."""
        problem: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            problem["errors"] = [error.to_wire() for error in self.errors]
        return func.HttpResponse(
            json.dumps(problem), status_code=self.status, headers=self.headers, mimetype="application/problem+json"
        )


def answer(document: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> func.HttpResponse:
    """A JSON answer."""
    return func.HttpResponse(
        json.dumps(document, ensure_ascii=False),
        status_code=status,
        headers=dict(headers or {}),
        mimetype="application/json",
    )


def paged(name: str, items: Sequence[object], page: Page[Any]) -> dict[str, object]:
    """The body of a page of stored rows; damaged ones of it are named, and hide no other."""
    body: dict[str, object] = {name: items, "cursor": page.cursor}
    return body | {"unreadable": page.unreadable} if page.unreadable else body


def answered[**Arguments](
    handler: Callable[Arguments, Awaitable[func.HttpResponse]],
) -> Callable[Arguments, Awaitable[func.HttpResponse]]:
    """Let nobody in without the role that the function needs, and turn what a handler raises into a problem.

    Nothing internal ever reaches the caller.
    """

    @wraps(handler)
    async def handle(*args: Arguments.args, **kwargs: Arguments.kwargs) -> func.HttpResponse:
        # The library hands it over by name, and beside a durable client by place.
        request = cast("func.HttpRequest", kwargs["req"] if "req" in kwargs else args[0])
        try:
            check_role(handler.__name__, request.headers)
            return await handler(*args, **kwargs)
        except Exception as error:
            refusal = _refusal_of(error)
            if refusal.status in TRACED:
                policy = route_of(request, "policy")
                await note_refused(handler.__name__, request.headers, refusal.status, str(error), policy)
            return refusal.to_response()

    return handle


def _refusal_of(error: Exception) -> Refusal:
    match error:
        case Refusal():
            return error
        case PolicyError():
            return Refusal(400, "The policy is not valid.", errors=error.errors)
        case FreezeError():
            return Refusal(400, "The freeze is not valid.", errors=error.errors)
        case InvalidCursor():
            return Refusal(400, "The cursor is not one that this list gave.")
        case NotSignedIn():
            # Neither text says what was nearly right: the trace does.
            return Refusal(401, "Sign in.", headers={"WWW-Authenticate": "Bearer"})
        case RoleMissing():
            return Refusal(403, "You may not do this.")
        case NotAllowed():
            return Refusal(403, str(error))
        case NotPossible():
            return Refusal(409, str(error))
        case PreconditionFailed():
            return Refusal(412, "The policy is not the one you have seen: read it again, then repeat the change.")
        case RecordTooLarge():
            return Refusal(413, "The document is too large to be stored.")
        case StorageUnreachable():
            _LOG.warning("Storage cannot be used: %s", error)
            return Refusal(503, "The storage of the records cannot be reached.", headers={"Retry-After": "15"})
        case _:
            _LOG.error("Unexpected failure", exc_info=error)
            return Refusal(500, "Patchwave failed on this request; its log has the reason.")


def read_body(request: func.HttpRequest) -> bytes:
    """The body.

    Raises:
        Refusal: 413 when it is over 256 KB.
    """
    body = request.get_body()
    if len(body) > MAX_BODY:
        raise Refusal(413, f"The body is larger than {MAX_BODY // 1024} KB.")
    return body


def read_json(request: func.HttpRequest) -> object:
    """The body as JSON.

    Raises:
        Refusal: 413 when it is too large, 400 when it is not JSON.
    """
    return parse_json(read_body(request))


def parse_json(body: bytes) -> object:
    """A body as JSON that every reader takes for the same value.

    Raises:
        Refusal: 400 when it is not JSON, names a key of an object twice, holds half of a surrogate pair, or has more
            entries, keys or values than any real document.
    """
    try:
        document = json.loads(body, object_pairs_hook=_Objects().read, parse_constant=_refuse_constant)
        _check_extent(document)
        # Raises for half of a surrogate pair, which neither storage nor an answer could hold.
        json.dumps(document, ensure_ascii=False).encode()
    except _AmbiguousKey as error:
        raise Refusal(400, f"The body names the key {error} of one object twice.") from None
    except UnicodeEncodeError:
        raise Refusal(400, "The body holds half of a surrogate pair, which is no text.") from None
    except (ValueError, RecursionError):
        raise Refusal(400, "The body is not JSON.") from None
    return document


def _check_extent(document: object) -> None:
    """Refuse what only a hostile document has so many of. The text of values is bounded by the body itself.

    Raises:
        Refusal: 400 with what there is too much of.
    """
    values = 0
    left = [document]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            inner: Sequence[object] = list(cast("dict[str, object]", value).values())
        elif isinstance(value, list):
            inner = cast("list[object]", value)
            if len(inner) > MAX_ENTRIES:
                raise Refusal(400, f"A list of the body has more than {MAX_ENTRIES:,} entries.")
        else:
            continue
        values += len(inner)
        if values > MAX_VALUES:
            raise _too_many_values()
        left += inner


def _too_many_values() -> Refusal:
    return Refusal(400, f"The body has more than {MAX_VALUES:,} values.")


class _AmbiguousKey(Exception):
    """An object has two members of one name; the text is the name."""


class _Objects:
    """Makes the objects of one body, as long as there are not too many of them."""

    def __init__(self) -> None:
        self._values = 0

    def read(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object of its members, each of which has a name of its own."""
        self._values += 1 + len(pairs)
        if len(pairs) > MAX_KEYS:
            raise Refusal(400, f"An object of the body has more than {MAX_KEYS:,} keys.")
        if self._values > 2 * MAX_VALUES:
            raise _too_many_values()
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            again = next(name for name, _ in pairs if name in seen or seen.add(name))
            raise _AmbiguousKey(json.dumps(again)[:_MAX_NAME])
        return made


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def page_of(request: func.HttpRequest) -> tuple[int, str | None]:
    """``limit`` and ``cursor`` of a list.

    Raises:
        Refusal: 400 when the limit is no number from 1 to 1,000.
    """
    return number_of(request, "limit", DEFAULT_LIMIT, MAX_LIMIT), query_of(request, "cursor") or None


def number_of(request: func.HttpRequest, name: str, default: int, largest: int) -> int:
    """A query parameter that counts something; the default when it is absent.

    Raises:
        Refusal: 400 when it is no number from 1 to the largest.
    """
    text = query_of(request, name) or str(default)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= number <= largest:
        raise invalid_query(name, f"must be a number from 1 to {largest}")
    return number


def word_of[Word: StrEnum](request: func.HttpRequest, name: str, words: type[Word]) -> Word | None:
    """A query parameter that is one of some words; ``None`` when it is absent.

    Raises:
        Refusal: 400 when it is another.
    """
    text = query_of(request, name)
    return _known(text, name, words) if text else None


def words_of[Word: StrEnum](request: func.HttpRequest, name: str, words: type[Word]) -> list[Word]:
    """A query parameter that lists some words between commas; empty when it is absent.

    Raises:
        Refusal: 400 when one of them is another.
    """
    return [_known(text.strip(), name, words) for text in query_of(request, name).split(",") if text.strip()]


def _known[Word: StrEnum](text: str, name: str, words: type[Word]) -> Word:
    try:
        return words(text)
    except ValueError:
        raise invalid_query(name, f"{text[:100]!r} is not one of {', '.join(words)}") from None


def run_id_of(request: func.HttpRequest) -> str:
    """The run id of the route.

    Raises:
        Refusal: 404 when it cannot be the id of a run.
    """
    try:
        return RunId.parse(route_of(request, "runId")).text
    except ValueError:
        raise no_such("run") from None


def invalid_body(*problems: Problem) -> Refusal:
    """400 for a body that is JSON, but of another form than the function takes."""
    return Refusal(400, "The request is not valid.", errors=problems)


def invalid_query(name: str, message: str) -> Refusal:
    """400 for a query parameter that says what the function does not take."""
    return Refusal(400, "The query is not valid.", errors=[Problem(path=name, message=message)])


def no_such(what: str) -> Refusal:
    """404 for a thing that does not exist."""
    return Refusal(404, f"There is no such {what}.")


def header_of(request: func.HttpRequest, name: str) -> str | None:
    """A header, whatever its case; ``None`` when it is absent."""
    headers = cast("Mapping[str, str]", request.headers)
    return headers.get(name)


def route_of(request: func.HttpRequest, name: str) -> str:
    """A part of the route; empty when it is absent."""
    return cast("Mapping[str, str]", request.route_params).get(name, "")


def query_of(request: func.HttpRequest, name: str) -> str:
    """A query parameter; empty when it is absent.

    Raises:
        Refusal: 400 when it is longer than any that is needed.
    """
    text = cast("Mapping[str, str]", request.params).get(name, "")
    if len(text) > MAX_PARAMETER:
        raise invalid_query(name, f"is too long; at most {MAX_PARAMETER:,} characters")
    return text


def caller_of(request: func.HttpRequest, *, claimed: str = "") -> Signed:
    """Who calls, for orders and the audit log; ``claimed`` is the name that the caller typed."""
    return caller_named(request.headers, claimed)
