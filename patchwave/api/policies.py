"""Policies over HTTP. ETags guard changes; a stored policy is always valid."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import azure.functions as func

from patchwave.api.endpoint import (
    ETAG,
    IF_MATCH,
    NO_POLICY,
    ParameterSpec,
    RequestBody,
    ResponseSpec,
    SchemaTweaks,
    route,
)
from patchwave.api.http import header_of, json_response, read_json, route_of
from patchwave.api.problems import ApiProblem, no_such
from patchwave.api.requests import REASON_QUERY, read_reason
from patchwave.domain.core.document_diff import changes_in_words
from patchwave.domain.core.documents import Document, Json, object_or_none
from patchwave.domain.core.ids import POLICY_NAME_PATTERN, is_adhoc_name, is_policy_name
from patchwave.domain.core.principal import Role, Signed
from patchwave.domain.core.validation import Problem
from patchwave.domain.policy.policy import Policy, parse_policy, policy_schema
from patchwave.domain.runs.provenance import policy_digest, rules_in_short
from patchwave.services.policy_guardrails import check_permitted
from patchwave.storage import Storage, StoredPolicy, open_storage

_SCHEMA = "schema"
"""Not a policy name: ``/api/policies/schema`` is the JSON Schema of policies."""

type NamedPolicy = Annotated[Policy, SchemaTweaks(optional=("name",))]
"""A policy whose name is in the path."""


class PolicyList(Document):
    """All policies."""

    policies: list[Policy]


_EXAMPLE: Json = {
    "scope": {"subscriptions": ["11111111-2222-4333-8444-555555555555"], "tags": {"values": {"env": ["test"]}}},
    "schedule": {"recurrence": "second Tuesday", "time": "22:00", "timeZone": "Europe/Berlin", "window": "PT3H"},
}
_IF_NONE_MATCH = ParameterSpec("If-None-Match", {"type": "string", "enum": ["*"]}, "Create it unless it exists.")
_CHANGED = "The policy is not the one that the header names."


@route("GET", "policies", ResponseSpec(200, PolicyList, as_given=True), role=Role.READER)
async def list_policies(req: func.HttpRequest) -> func.HttpResponse:
    """All policies, by name."""
    del req
    return json_response({"policies": [stored.document for stored in await open_storage().policies.list_all()]})


@route(
    "GET",
    "policies/{name}",
    ResponseSpec(200, Policy, headers=(ETAG,), as_given=True),
    role=Role.READER,
    problems=NO_POLICY,
)
async def get_policy(req: func.HttpRequest) -> func.HttpResponse:
    """One policy with its ETag."""
    name = route_of(req, "name")
    stored = await open_storage().policies.get(name) if is_policy_name(name) else None
    if stored is None:
        raise no_such("policy")
    return json_response(stored.document, headers={"ETag": stored.etag})


@route("GET", "policies/schema", ResponseSpec(200, Json), role=Role.READER, uses_storage=False)
async def get_policy_schema(req: func.HttpRequest) -> func.HttpResponse:
    """The JSON Schema of policies, for editors."""
    del req
    return json_response(policy_schema())


@route(
    "PUT",
    "policies/{name}",
    ResponseSpec(200, Policy, headers=(ETAG,), as_given=True),
    ResponseSpec(201, Policy, headers=(ETAG,), as_given=True),
    role=Role.AUTHOR,
    body=RequestBody(NamedPolicy, {"monthly": _EXAMPLE}),
    query=REASON_QUERY,
    headers=[IF_MATCH, _IF_NONE_MATCH],
    problems={400: "The name or the policy is not valid; every error at once.", 412: _CHANGED},
)
async def put_policy(req: func.HttpRequest) -> func.HttpResponse:
    """Create or replace a policy: 201 or 200. ``If-Match`` and ``If-None-Match: *`` guard the change."""
    name = _name_to_write(req)
    if is_adhoc_name(name):
        problem = Problem(path="name", message="is for policies that come in requests; choose another name")
        raise ApiProblem(400, "The name of the policy is not valid.", errors=[problem])
    document = read_json(req)
    # In a thread: it may have 256 KB.
    policy = await asyncio.to_thread(lambda: check_permitted(parse_policy(document, name=name)))
    none_match = header_of(req, "if-none-match")
    if none_match not in (None, "*"):
        raise ApiProblem(400, "If-None-Match can only be *: create the policy unless it exists.")
    at = datetime.now(UTC)
    said = read_reason(req, at)
    storage = open_storage()
    stored = await storage.policies.put(
        name,
        policy.to_wire(),
        if_match=header_of(req, "if-match"),
        if_none_match=none_match is not None,
        at=at,
        author=said.actor,
        author_id=said.actor_id,
        digest=policy_digest(policy),
    )
    is_new = stored.version == 1 and not stored.is_unchanged
    detail: Json = {"version": stored.version} | rules_in_short(policy)
    if not stored.is_unchanged:
        detail |= {"reason": said.reason} if said.reason else {}
        if stored.replaced is not None:
            detail |= changes_in_words(stored.replaced, stored.document)
        await storage.audit.add(name, "policy_written", **said.who, at=at, detail=detail)
    elif not await _is_audited(storage, stored):
        wrote = Signed(actor=stored.author or said.actor, actor_id=stored.author_id, proven=bool(stored.author_id))
        await storage.audit.add(name, "policy_written", **wrote.who, at=stored.updated_at, detail=detail)
    return json_response(stored.document, status=201 if is_new else 200, headers={"ETag": stored.etag})


async def _is_audited(storage: Storage, stored: StoredPolicy) -> bool:
    """Whether this version is audited: a worker may have died between the policy and its entry."""
    async for line in storage.audit.lines(stored.name):
        version = (object_or_none(line["detail"]) or {}).get("version")
        if line["action"] == "policy_written" and version == stored.version:
            return True
    return False


@route(
    "DELETE",
    "policies/{name}",
    ResponseSpec(204),
    role=Role.AUTHOR,
    query=REASON_QUERY,
    headers=[IF_MATCH],
    problems={400: "The name is not valid."} | NO_POLICY | {412: _CHANGED},
)
async def delete_policy(req: func.HttpRequest) -> func.HttpResponse:
    """Delete a policy. Its runs and their records stay."""
    name = _name_to_write(req)
    said = read_reason(req, datetime.now(UTC))
    storage = open_storage()
    if not await storage.policies.delete(name, if_match=header_of(req, "if-match")):
        raise no_such("policy")
    detail = {"reason": said.reason} if said.reason else {}
    await storage.audit.add(name, "policy_deleted", **said.who, at=said.at, detail=detail)
    return func.HttpResponse(status_code=204)


def _name_to_write(req: func.HttpRequest) -> str:
    name = route_of(req, "name")
    if not is_policy_name(name) or name == _SCHEMA:
        problem = Problem(path="name", message=f"must match {POLICY_NAME_PATTERN} and not be {_SCHEMA}")
        raise ApiProblem(400, "The name of the policy is not valid.", errors=[problem])
    return name
