"""Refused calls (401 and 403): function, caller, and reason."""

from __future__ import annotations

import azure.functions as func

from patchwave.api.audit import audit_route
from patchwave.services.refusal_log import REFUSED_CALLS
from patchwave.storage import Storage


async def _audit_subject(storage: Storage, req: func.HttpRequest) -> str:
    del storage, req
    return REFUSED_CALLS


list_refused_calls = audit_route(
    "list_refused_calls",
    "audit/refused",
    _audit_subject,
    text="Calls that were refused with 401 or 403, oldest first: one line for each hour, function, caller and reason.",
)
