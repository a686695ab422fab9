"""The API of refused calls: who was not let in, at which function, and why."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func

from patchwave.api.endpoint import INVALID_QUERY, PAGED, Answer, AuditPage, described
from patchwave.api.http import answer, answered, page_of, paged
from patchwave.services.refusal_log import REFUSED_CALLS
from patchwave.storage import open_storage

bp = df.Blueprint()


@bp.route(route="audit/refused", methods=["GET"])
@described(Answer(200, AuditPage), query=PAGED, refuses=INVALID_QUERY)
@answered
async def list_refused_calls(req: func.HttpRequest) -> func.HttpResponse:
    """Calls that were refused with 401 or 403, oldest first: one line for each hour, function, caller and reason."""
    limit, cursor = page_of(req)
    page = await open_storage().audit.list_page(REFUSED_CALLS, limit, cursor)
    return answer(paged("audit", page.items, page))
