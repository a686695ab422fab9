"""Freezes over HTTP: stretches of time in which nothing is patched. Every change is in the audit log."""

from __future__ import annotations

from datetime import UTC, datetime

import azure.durable_functions as df
import azure.functions as func

from adapters.tables import audit_subject, open_records
from domain.freeze import parse_freeze
from domain.identity import is_policy_name
from triggers.http import answer, answered, caller_of, no_such, page_of, query_of, read_json, route_of
from triggers.orders import read_order

bp = df.Blueprint()


@bp.route(route="freezes", methods=["GET"])
@answered
async def list_freezes(req: func.HttpRequest) -> func.HttpResponse:
    """All freezes, past and coming, by name."""
    del req
    return answer({"freezes": [freeze.to_wire() for freeze in await open_records().list_freezes()]})


@bp.route(route="freezes/{name}", methods=["GET"])
@answered
async def get_freeze(req: func.HttpRequest) -> func.HttpResponse:
    """One freeze."""
    name = route_of(req, "name")
    freeze = await open_records().get_freeze(name) if is_policy_name(name) else None
    if freeze is None:
        raise no_such("freeze")
    return answer(freeze.to_wire())


@bp.route(route="freezes/{name}", methods=["PUT"])
@answered
async def put_freeze(req: func.HttpRequest) -> func.HttpResponse:
    """Create or replace a freeze: 201 or 200. It counts from the next start of a machine on."""
    freeze = parse_freeze(read_json(req), name=route_of(req, "name"))
    is_new = await open_records().put_freeze(
        freeze, by=caller_of(req, claimed=query_of(req, "by")), at=datetime.now(UTC)
    )
    return answer(freeze.to_wire(), status=201 if is_new else 200)


@bp.route(route="freezes/{name}", methods=["DELETE"])
@answered
async def delete_freeze(req: func.HttpRequest) -> func.HttpResponse:
    """Delete a freeze: 204. Machines that it kept out of a run stay out of that run."""
    name = route_of(req, "name")
    order = read_order(req, datetime.now(UTC))
    if not is_policy_name(name) or not await open_records().delete_freeze(
        name, by=order.by, reason=order.why, at=order.at
    ):
        raise no_such("freeze")
    return func.HttpResponse(status_code=204)


@bp.route(route="freezes/{name}/audit", methods=["GET"])
@answered
async def list_freeze_audit(req: func.HttpRequest) -> func.HttpResponse:
    """Who changed a freeze, and why; also of one that is gone."""
    name = route_of(req, "name")
    if not is_policy_name(name):
        raise no_such("freeze")
    limit, cursor = page_of(req)
    page = await open_records().list_audit(audit_subject(name), limit, cursor)
    return answer({"audit": page.items, "cursor": page.cursor})
