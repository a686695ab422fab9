"""Who asks for something, and why: what every order about the calendar carries."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import azure.functions as func
from pydantic import Field

from patchwave.api.endpoint import Body, Parameter
from patchwave.api.http import caller_of, invalid_body, invalid_query, query_of, read_body, read_json
from patchwave.domain.core.command import Order
from patchwave.domain.core.documents import Document, object_or_none
from patchwave.domain.core.validation import Problem, unknown_keys

MAX_REASON = 500
_MAX_NAME = 200


class CalendarOrder(Document):
    """Who asks for it, and why."""

    reason: Annotated[str, Field(min_length=1, max_length=MAX_REASON)]
    by: Annotated[str, Field(max_length=_MAX_NAME)] = ""


ORDER = Body(CalendarOrder, {"said": {"reason": "The data centre moves.", "by": "ana@example.org"}}, required=False)
BY = Parameter(
    "by", {"type": "string", "maxLength": _MAX_NAME}, "Who asks, where the platform does not know who calls."
)
ORDER_QUERY = (
    Parameter(
        "reason",
        {"type": "string", "minLength": 1, "maxLength": MAX_REASON},
        "Why, for people; needed unless the body has it.",
    ),
    BY,
)


SAID_QUERY = (
    Parameter("reason", {"type": "string", "maxLength": MAX_REASON}, "Why, for people and the audit log."),
    BY,
)


def read_said(request: func.HttpRequest, at: datetime) -> Order:
    """``reason`` and ``by`` of the query; who calls and no reason where they are not given.

    Raises:
        Refusal: 400 when one of them is too long or has characters that cannot be shown.
    """
    reason, name = query_of(request, "reason").strip(), query_of(request, "by").strip()
    for path, text, longest in (("reason", reason, MAX_REASON), ("by", name, _MAX_NAME)):
        if len(text) > longest or not text.isprintable():
            raise invalid_query(path, f"must have at most {longest} printable characters")
    return Order(**caller_of(request, claimed=name).who, why=reason, at=at)


def read_order(request: func.HttpRequest, at: datetime) -> Order:
    """``reason``, and ``by``, from the body or, for a request without one, from the query.

    The reason is shown to people wherever they wonder why nothing ran, so there must be one. ``by`` is the word of the
    caller, and only counts where the platform does not know who calls.

    Raises:
        Refusal: 400 when the reason is missing or too long, or the body is of another form.
    """
    given = _given(request)
    problems = unknown_keys(given, ("reason", "by"), "is not known; an order has reason and by")
    reason = given.get("reason", "")
    if not isinstance(reason, str) or not reason.strip():
        problems.append(Problem(path="reason", message="is missing; say why, for the audit log"))
    elif len(reason) > MAX_REASON:
        problems.append(Problem(path="reason", message=f"is too long; at most {MAX_REASON} characters"))
    name = given.get("by", "")
    if not isinstance(name, str) or len(name) > _MAX_NAME or not name.isprintable():
        problems.append(Problem(path="by", message=f"must be a name of at most {_MAX_NAME} printable characters"))
    if problems:
        raise invalid_body(*problems)
    return Order(
        **caller_of(request, claimed=str(name).strip()).who,
        why=str(reason).strip(),
        at=at,
    )


def _given(request: func.HttpRequest) -> dict[str, object]:
    if not read_body(request):
        return {"reason": query_of(request, "reason"), "by": query_of(request, "by")}
    fields = object_or_none(read_json(request))
    if fields is None:
        raise invalid_body(Problem(path="$", message="must be an object with reason, and optionally by"))
    return fields
