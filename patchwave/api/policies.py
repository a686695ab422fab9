"""Policies over HTTP. ETags guard changes; a stored policy is always valid."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

from azure.functions import HttpRequest, HttpResponse
from pydantic import Field

from patchwave.api.endpoint import ETAG, NO_POLICY, RequestBody, ResponseSpec, SchemaTweaks, route
from patchwave.api.http import Headers, json_response, name_of, read_json, route_of
from patchwave.api.problems import ApiProblem, no_such
from patchwave.api.requests import CreateHeaders, ReasonQuery, command_of
from patchwave.domain.core.document_diff import changes_in_words
from patchwave.domain.core.documents import Document, Json, object_or_none
from patchwave.domain.core.ids import POLICY_NAME_PATTERN, is_adhoc_name, is_policy_name
from patchwave.domain.core.principal import Role, Signed
from patchwave.domain.core.validation import Problem
from patchwave.domain.policy.policy import Policy, parse_policy, policy_schema
from patchwave.domain.runs.provenance import policy_digest, rules_in_short
from patchwave.services.policy_guardrails import check_permitted
from patchwave.storage import Storage, StoredPolicy
from patchwave.wiring import Services

_SCHEMA = "schema"
"""Not a policy name: ``/api/policies/schema`` is the JSON Schema of policies."""

type NamedPolicy = Annotated[Policy, SchemaTweaks(optional=("name",))]
"""A policy whose name is in the path."""


class PolicyList(Document):
    """All policies."""

    policies: list[Policy]


class DeleteHeaders(Headers):
    """Guards a deletion."""

    if_match: str | None = Field(default=None, description="Change it only if its ETag is one of these; `*` is any.")


class WriteHeaders(CreateHeaders, DeleteHeaders):
    """Guards a change."""


_EXAMPLE: Json = {
    "scope": {"subscriptions": ["11111111-2222-4333-8444-555555555555"], "tags": {"values": {"env": ["test"]}}},
    "schedule": {"recurrence": "second Tuesday", "time": "22:00", "timeZone": "Europe/Berlin", "window": "PT3H"},
}
_CHANGED = "The policy is not the one that the header names."


@route("GET", "policies", ResponseSpec(200, PolicyList, as_given=True), role=Role.READER)
async def list_policies(req: HttpRequest, storage: Storage) -> Json:
    """All policies, by name."""
    return {"policies": [stored.document for stored in await storage.policies.list_all()]}


@route(
    "GET",
    "policies/{name}",
    ResponseSpec(200, Policy, headers=(ETAG,), as_given=True),
    role=Role.READER,
    problems=NO_POLICY,
)
async def get_policy(req: HttpRequest, storage: Storage) -> HttpResponse:
    """One policy with its ETag."""
    stored = await storage.policies.get(name_of(req, "policy"))
    if stored is None:
        raise no_such("policy")
    return json_response(stored.document, headers={"ETag": stored.etag})


@route("GET", "policies/schema", role=Role.READER, uses_storage=False)
async def get_policy_schema(req: HttpRequest) -> Json:
    """The JSON Schema of policies, for editors."""
    return policy_schema()


@route(
    "PUT",
    "policies/{name}",
    ResponseSpec(200, Policy, headers=(ETAG,), as_given=True),
    ResponseSpec(201, Policy, headers=(ETAG,), as_given=True),
    role=Role.AUTHOR,
    body=RequestBody(NamedPolicy, {"monthly": _EXAMPLE}),
    problems={400: "The name or the policy is not valid; every error at once.", 412: _CHANGED},
)
async def put_policy(req: HttpRequest, services: Services, query: ReasonQuery, headers: WriteHeaders) -> HttpResponse:
    """Create or replace a policy: 201 or 200. ``If-Match`` and ``If-None-Match: *`` guard the change."""
    name = _name_to_write(req)
    if is_adhoc_name(name):
        problem = Problem(path="name", message="is for policies that come in requests; choose another name")
        raise ApiProblem(400, "The name of the policy is not valid.", errors=[problem])
    document = read_json(req)
    # In a thread: it may have 256 KB.
    policy = await asyncio.to_thread(lambda: check_permitted(services.settings, parse_policy(document, name=name)))
    at = datetime.now(UTC)
    command = command_of(req, query.actor, query.reason, at)
    storage = services.storage
    stored = await storage.policies.put(
        name,
        policy.to_wire(),
        if_match=headers.if_match,
        if_none_match=headers.if_none_match,
        at=at,
        author=command.actor,
        author_id=command.actor_id,
        digest=policy_digest(policy),
    )
    is_new = stored.version == 1 and not stored.is_unchanged
    detail: Json = {"version": stored.version} | rules_in_short(policy)
    if not stored.is_unchanged:
        detail |= {"reason": command.reason} if command.reason else {}
        if stored.replaced is not None:
            detail |= changes_in_words(stored.replaced, stored.document)
        await storage.audit.add(name, "policy_written", **command.who, at=at, detail=detail)
    elif not await _is_audited(storage, stored):
        wrote = Signed(actor=stored.author or command.actor, actor_id=stored.author_id, proven=bool(stored.author_id))
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
    problems={400: "The name is not valid."} | NO_POLICY | {412: _CHANGED},
)
async def delete_policy(req: HttpRequest, storage: Storage, query: ReasonQuery, headers: DeleteHeaders) -> HttpResponse:
    """Delete a policy. Its runs and their records stay."""
    name = _name_to_write(req)
    command = command_of(req, query.actor, query.reason, datetime.now(UTC))
    if not await storage.policies.delete(name, if_match=headers.if_match):
        raise no_such("policy")
    detail = {"reason": command.reason} if command.reason else {}
    await storage.audit.add(name, "policy_deleted", **command.who, at=command.at, detail=detail)
    return HttpResponse(status_code=204)


def _name_to_write(req: HttpRequest) -> str:
    name = route_of(req, "name")
    if not is_policy_name(name) or name == _SCHEMA:
        problem = Problem(path="name", message=f"must match {POLICY_NAME_PATTERN} and not be {_SCHEMA}")
        raise ApiProblem(400, "The name of the policy is not valid.", errors=[problem])
    return name
