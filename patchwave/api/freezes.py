"""Freezes over HTTP: stretches of time in which nothing is patched. Every change is in the audit log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import azure.durable_functions as df
import azure.functions as func

from patchwave.api.endpoint import INVALID_QUERY, NO_FREEZE, PAGED, Answer, AuditPage, Body, Keys, described
from patchwave.api.http import answer, answered, caller_of, no_such, page_of, paged, query_of, read_json, route_of
from patchwave.api.requests import BY, ORDER_QUERY, read_order
from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.ids import ADHOC_POLICY, is_policy_name
from patchwave.domain.core.validation import Problem, suggest
from patchwave.domain.scheduling.freeze import Freeze, FreezeError, parse_freeze
from patchwave.storage import Storage, audit_subject, open_storage

_MAX_HINTS = 5

bp = df.Blueprint()

type NamedFreeze = Annotated[Freeze, Keys(optional=("name",))]
"""A freeze whose name is in the address."""


class FreezeList(Document):
    """All freezes."""

    freezes: list[Freeze]


_EXAMPLE: Json = {
    "from": "2026-12-20",
    "to": "2027-01-03",
    "timeZone": "Europe/Berlin",
    "reason": "Year-end closing",
}


@bp.route(route="freezes", methods=["GET"])
@described(Answer(200, FreezeList, as_given=True))
@answered
async def list_freezes(req: func.HttpRequest) -> func.HttpResponse:
    """All freezes, past and coming, by name."""
    del req
    return answer({"freezes": [freeze.to_wire() for freeze in await open_storage().freezes.list_all()]})


@bp.route(route="freezes/{name}", methods=["GET"])
@described(Answer(200, Freeze, as_given=True), refuses=NO_FREEZE)
@answered
async def get_freeze(req: func.HttpRequest) -> func.HttpResponse:
    """One freeze."""
    name = route_of(req, "name")
    freeze = await open_storage().freezes.get(name) if is_policy_name(name) else None
    if freeze is None:
        raise no_such("freeze")
    return answer(freeze.to_wire())


@bp.route(route="freezes/{name}", methods=["PUT"])
@described(
    Answer(200, Freeze, as_given=True),
    Answer(201, Freeze, as_given=True),
    body=Body(NamedFreeze, {"year-end": _EXAMPLE}),
    query=[BY],
    refuses={400: "The name or the freeze is not valid; every error at once."},
)
@answered
async def put_freeze(req: func.HttpRequest) -> func.HttpResponse:
    """Create or replace a freeze: 201 or 200. It counts from the next start of a machine on."""
    freeze = parse_freeze(read_json(req), name=route_of(req, "name"))
    storage = open_storage()
    await _check_policies(storage, freeze)
    is_new = await storage.freezes.put(freeze, **caller_of(req, claimed=query_of(req, "by")).who, at=datetime.now(UTC))
    return answer(freeze.to_wire(), status=201 if is_new else 200)


async def _check_policies(storage: Storage, freeze: Freeze) -> None:
    """Refuse a name that no policy has: with a slip in it the freeze would hold nothing, and nobody would notice."""
    if not freeze.policies:
        return
    known = {stored.name for stored in await storage.policies.list_all()} | {ADHOC_POLICY}
    problems: list[Problem] = []
    for index, name in enumerate(freeze.policies):
        if name not in known:
            # Each hint compares the name with all policies.
            hint = suggest(name, known) if len(problems) < _MAX_HINTS else ""
            message = f"there is no policy {name}" + (f"; {hint}" if hint else "")
            problems.append(Problem(path=f"policies[{index}]", message=message))
    if problems:
        raise FreezeError(problems)


@bp.route(route="freezes/{name}", methods=["DELETE"])
@described(Answer(204), query=ORDER_QUERY, refuses={400: "No reason is given."} | NO_FREEZE)
@answered
async def delete_freeze(req: func.HttpRequest) -> func.HttpResponse:
    """Delete a freeze: 204. Machines that it kept out of a run stay out of that run."""
    name = route_of(req, "name")
    order = read_order(req, datetime.now(UTC))
    if not is_policy_name(name) or not await open_storage().freezes.delete(
        name, **order.who, reason=order.why, at=order.at
    ):
        raise no_such("freeze")
    return func.HttpResponse(status_code=204)


@bp.route(route="freezes/{name}/audit", methods=["GET"])
@described(Answer(200, AuditPage), query=PAGED, refuses=INVALID_QUERY | {404: "No freeze can have this name."})
@answered
async def list_freeze_audit(req: func.HttpRequest) -> func.HttpResponse:
    """Who changed a freeze, and why; also of one that is gone."""
    name = route_of(req, "name")
    if not is_policy_name(name):
        raise no_such("freeze")
    limit, cursor = page_of(req)
    page = await open_storage().audit.list_page(audit_subject(name), limit, cursor)
    return answer(paged("audit", page.items, page))
