"""Audit logs of runs, policies, freezes, configurations and patch mode changes, defined once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import azure.functions as func

from patchwave.api.endpoint import INVALID_QUERY, PAGED, PageSpec, route
from patchwave.api.http import page_of
from patchwave.domain.core.documents import Document, Json, UtcDatetime
from patchwave.domain.core.principal import Role
from patchwave.storage import Storage, open_storage


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
    name: str,
    path: str,
    subject: Callable[[Storage, func.HttpRequest], Awaitable[str]],
    *,
    text: str,
    problems: Mapping[int, str] | None = None,
) -> Any:
    """Register the route of an audit log; ``subject`` returns the log's key for a request."""

    async def read(req: func.HttpRequest) -> func.HttpResponse:
        limit, cursor = page_of(req)
        storage = open_storage()
        page = await storage.audit.list_page(await subject(storage, req), limit, cursor)
        return _AUDIT.respond(page.items, page)

    read.__name__, read.__doc__ = name, text
    described = route(
        "GET", path, _AUDIT.response, role=Role.READER, query=PAGED, problems={**INVALID_QUERY, **(problems or {})}
    )
    return described(read)
