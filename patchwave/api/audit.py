"""Audit logs of runs, policies, freezes, configurations and patch mode changes, defined once; and of refused calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from azure.functions import HttpRequest, HttpResponse

from patchwave.api.endpoint import PageSpec, route
from patchwave.api.http import PageQuery
from patchwave.domain.core.documents import Document, Json, UtcDatetime
from patchwave.domain.core.principal import Role
from patchwave.services.refusal_log import REFUSED_CALLS
from patchwave.storage import Storage


class AuditLine(Document):
    """One line of an audit log; ``detail`` is a text when it was too long to be kept whole."""

    at: UtcDatetime
    action: str
    actor: str
    actor_id: str
    """Object id of the signed-in principal; empty without sign-in."""
    proven: bool
    """Whether the platform verified the name; an unverified one ends with "(claimed)"."""
    detail: Json | str | None


_AUDIT = PageSpec("AuditPage", "audit", AuditLine, "Lines of an audit log, oldest first.")


def audit_route(
    path: str, *, problems: Mapping[int, str] | None = None
) -> Callable[[Callable[[Storage, HttpRequest], Awaitable[str]]], Any]:
    """Register the route of an audit log; the decorated function returns the log's key for a request."""

    def register(subject: Callable[[Storage, HttpRequest], Awaitable[str]]) -> Any:
        async def read(req: HttpRequest, storage: Storage, query: PageQuery) -> HttpResponse:
            page = await storage.audit.list_page(await subject(storage, req), query.limit, query.cursor)
            return _AUDIT.respond(page.items, page)

        read.__name__, read.__doc__ = subject.__name__, subject.__doc__
        return route("GET", path, _AUDIT.response, role=Role.READER, problems=problems)(read)

    return register


@audit_route("audit/refused")
async def list_refused_calls(storage: Storage, req: HttpRequest) -> str:
    """Calls that were refused with 401 or 403, oldest first: one line for each hour, function, caller and reason."""
    return REFUSED_CALLS
