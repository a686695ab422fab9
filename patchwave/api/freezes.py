"""Freezes over HTTP: periods without patching. Changes are audited."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from azure.functions import HttpRequest, HttpResponse

from patchwave.api.audit import audit_route
from patchwave.api.endpoint import NO_FREEZE, RequestBody, ResponseSpec, SchemaTweaks, route
from patchwave.api.http import caller_of, json_response, name_of, read_json, route_of
from patchwave.api.problems import no_such
from patchwave.api.requests import CallerQuery, CommandQuery, read_command
from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.ids import ADHOC_POLICY
from patchwave.domain.core.principal import Role
from patchwave.domain.core.validation import Problem, suggest
from patchwave.domain.scheduling.freeze import Freeze, FreezeError, parse_freeze
from patchwave.storage import Storage, audit_subject

_MAX_HINTS = 5

type NamedFreeze = Annotated[Freeze, SchemaTweaks(optional=("name",))]
"""A freeze whose name is in the path."""


class FreezeList(Document):
    """All freezes."""

    freezes: list[Freeze]


_EXAMPLE: Json = {"from": "2026-12-20", "to": "2027-01-03", "timeZone": "Europe/Berlin", "reason": "Year-end closing"}


@route("GET", "freezes", ResponseSpec(200, FreezeList, as_given=True), role=Role.READER)
async def list_freezes(req: HttpRequest, storage: Storage) -> FreezeList:
    """All freezes, past and coming, by name."""
    return FreezeList(freezes=await storage.freezes.list_all())


@route("GET", "freezes/{name}", ResponseSpec(200, Freeze, as_given=True), role=Role.READER, problems=NO_FREEZE)
async def get_freeze(req: HttpRequest, storage: Storage) -> Freeze:
    """One freeze."""
    freeze = await storage.freezes.get(name_of(req, "freeze"))
    if freeze is None:
        raise no_such("freeze")
    return freeze


@route(
    "PUT",
    "freezes/{name}",
    ResponseSpec(200, Freeze, as_given=True),
    ResponseSpec(201, Freeze, as_given=True),
    role=Role.OPERATOR,
    body=RequestBody(NamedFreeze, {"year-end": _EXAMPLE}),
    problems={400: "The name or the freeze is not valid; every error at once."},
)
async def put_freeze(req: HttpRequest, storage: Storage, query: CallerQuery) -> HttpResponse:
    """Create or replace a freeze: 201 or 200. It counts from the next start of a machine on."""
    freeze = parse_freeze(read_json(req), name=route_of(req, "name"))
    await _check_policies(storage, freeze)
    is_new = await storage.freezes.put(freeze, **caller_of(req, claimed=query.actor).who, at=datetime.now(UTC))
    return json_response(freeze.to_wire(), status=201 if is_new else 200)


async def _check_policies(storage: Storage, freeze: Freeze) -> None:
    """Refuse names of unknown policies: with a typing error the freeze would silently block nothing."""
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


@route(
    "DELETE", "freezes/{name}", ResponseSpec(204), role=Role.OPERATOR, problems={400: "No reason is given."} | NO_FREEZE
)
async def delete_freeze(req: HttpRequest, storage: Storage, query: CommandQuery) -> HttpResponse:
    """Delete a freeze: 204. Machines that it kept out of a run stay out of that run."""
    command, name = read_command(req, query, datetime.now(UTC)), name_of(req, "freeze")
    if not await storage.freezes.delete(name, **command.who, reason=command.reason, at=command.at):
        raise no_such("freeze")
    return HttpResponse(status_code=204)


@audit_route("freezes/{name}/audit", problems={404: "No freeze can have this name."})
async def list_freeze_audit(storage: Storage, req: HttpRequest) -> str:
    """Who changed a freeze, and why; also of one that is gone."""
    return audit_subject(name_of(req, "freeze"))
