"""Evidence of a run: all its stored data, and the acknowledgement of an export."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from azure.functions import HttpRequest, HttpResponse
from pydantic import Field, StrictInt

from patchwave.api.endpoint import NO_RUN, PageSpec, RequestBody, ResponseSpec, route
from patchwave.api.http import PageQuery, caller_of, run_id_of
from patchwave.api.problems import ApiProblem
from patchwave.api.runs import ListedRun, find_run, listed_run
from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.principal import Role
from patchwave.storage import Storage

_EXPORTED = "evidence_exported"
_EVIDENCE = PageSpec(
    "EvidencePage", "records", dict[str, Any], "What is kept of a run; `record` says what each of them is."
)


class Export(Document):
    """What was received of a run's evidence."""

    records: Annotated[StrictInt, Field(ge=1, le=10_000_000)] = Field(
        description="The records of all pages; those that a page names as unreadable count."
    )


@route("GET", "runs/{runId}/evidence", _EVIDENCE.response, role=Role.OPERATOR, problems=NO_RUN)
async def get_run_evidence(req: HttpRequest, storage: Storage, query: PageQuery) -> HttpResponse:
    """Everything that is kept of a run, a page at a time. Reading it changes nothing."""
    run = await find_run(storage, run_id_of(req))
    page = await storage.evidence.list_page(run, query.limit, query.cursor)
    return _EVIDENCE.respond(page.items, page)


@route(
    "POST",
    "runs/{runId}/evidence/exported",
    ResponseSpec(200, ListedRun),
    role=Role.OPERATOR,
    body=RequestBody(Export, {"a run of one machine": {"records": 2}}),
    problems=NO_RUN | {409: "The run has not ended, or has another number of records."},
)
async def acknowledge_export(req: HttpRequest, storage: Storage, body: Export) -> Json:
    """Acknowledge that all evidence of an ended run is kept elsewhere; the run may then be removed.

    ``records`` is the number received on all pages: 409 when some are missing. A repetition changes nothing.
    """
    received = body.records
    run = await find_run(storage, run_id_of(req))
    if not run.state.is_final:
        raise ApiProblem(409, "The run has not ended, and its evidence goes on growing.")
    if await storage.evidence.count(run.id) != received:
        # The first acknowledgement adds a record, so a repeated one counts one more.
        if await _was_acknowledged(storage, run.id, received):
            return listed_run(run)
        raise ApiProblem(409, "The run has another number of records than were received: read all pages, then say so.")
    at = datetime.now(UTC)
    await storage.evidence.mark_exported(run.id, at)
    await storage.audit.add(run.id, _EXPORTED, **caller_of(req).who, at=at, detail={"records": received})
    return listed_run(run.model_copy(update={"exported_at": at}))


async def _was_acknowledged(storage: Storage, run_id: str, received: int) -> bool:
    async for line in storage.audit.lines(run_id):
        if line["action"] == _EXPORTED and line["detail"] == {"records": received}:
            return True
    return False
