"""Policies over HTTP. A change may be guarded by the ETag that was read; what is stored is always a valid policy."""

from __future__ import annotations

from datetime import UTC, datetime

import azure.durable_functions as df
import azure.functions as func

from adapters.tables import open_records
from domain.identity import POLICY_NAME_PATTERN, is_policy_name
from domain.policy import parse_policy, policy_schema
from domain.validation import Problem
from triggers.http import Refusal, answer, answered, caller_of, header_of, no_such, read_json, route_of
from triggers.permitted import check_permitted

bp = df.Blueprint()

_SCHEMA = "schema"
"""Not a policy: ``/api/policies/schema`` is the JSON Schema of all of them."""


@bp.route(route="policies", methods=["GET"])
@answered
async def list_policies(req: func.HttpRequest) -> func.HttpResponse:
    """All policies, by name."""
    del req
    return answer({"policies": [stored.document for stored in await open_records().list_policies()]})


@bp.route(route="policies/{name}", methods=["GET"])
@answered
async def get_policy(req: func.HttpRequest) -> func.HttpResponse:
    """One policy with its ETag; the name ``schema`` gives the JSON Schema of policies."""
    name = route_of(req, "name")
    if name == _SCHEMA:
        return answer(policy_schema())
    stored = await open_records().get_policy(name) if is_policy_name(name) else None
    if stored is None:
        raise no_such("policy")
    return answer(stored.document, headers={"ETag": stored.etag})


@bp.route(route="policies/{name}", methods=["PUT"])
@answered
async def put_policy(req: func.HttpRequest) -> func.HttpResponse:
    """Create or replace a policy: 201 or 200. ``If-Match`` and ``If-None-Match: *`` guard the change."""
    name = _name_to_write(req)
    policy = check_permitted(parse_policy(read_json(req), name=name))
    none_match = header_of(req, "if-none-match")
    if none_match not in (None, "*"):
        raise Refusal(400, "If-None-Match can only be *: create the policy unless it exists.")
    at = datetime.now(UTC)
    records = open_records()
    stored = await records.put_policy(
        name,
        policy.to_wire(),
        if_match=header_of(req, "if-match"),
        if_none_match=none_match is not None,
        at=at,
    )
    await records.audit(name, "policy_written", by=caller_of(req), at=at, detail={"version": stored.version})
    return answer(stored.document, status=201 if stored.version == 1 else 200, headers={"ETag": stored.etag})


@bp.route(route="policies/{name}", methods=["DELETE"])
@answered
async def delete_policy(req: func.HttpRequest) -> func.HttpResponse:
    """Delete a policy. Its runs and their records stay."""
    name = _name_to_write(req)
    records = open_records()
    if not await records.delete_policy(name, if_match=header_of(req, "if-match")):
        raise no_such("policy")
    await records.audit(name, "policy_deleted", by=caller_of(req), at=datetime.now(UTC))
    return func.HttpResponse(status_code=204)


def _name_to_write(req: func.HttpRequest) -> str:
    name = route_of(req, "name")
    if not is_policy_name(name) or name == _SCHEMA:
        problem = Problem(path="name", message=f"must match {POLICY_NAME_PATTERN} and not be {_SCHEMA}")
        raise Refusal(400, "The name of the policy is not valid.", errors=[problem])
    return name
