"""Evidence of a run: all its stored data, and the acknowledgement of an export."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import azure.functions as func
from pydantic import Field, StrictInt

from patchwave.api.endpoint import (
    INVALID_BODY,
    INVALID_QUERY,
    NO_RUN,
    PAGED,
    PageSpec,
    RequestBody,
    ResponseSpec,
    route,
)
from patchwave.api.http import caller_of, json_response, page_of, run_id_of
from patchwave.api.problems import ApiProblem
from patchwave.api.runs import ListedRun, find_run, listed_run
from patchwave.domain.core.documents import Document
from patchwave.domain.core.principal import Role
from patchwave.storage import Storage, open_storage

_EXPORTED = "evidence_exported"


_EVIDENCE = PageSpec(
    "EvidencePage", "records", dict[str, Any], "What is kept of a run; `record` says what each of them is."
)


class Export(Document):
    """What was received of a run's evidence."""

    records: Annotated[StrictInt, Field(ge=1, le=10_000_000)] = Field(
        description="The records of all pages; those that a page names as unreadable count."
    )


@route(
    "GET",
    "runs/{runId}/evidence",
    _EVIDENCE.response,
    role=Role.OPERATOR,
    query=PAGED,
    problems=INVALID_QUERY | NO_RUN,
)
async def get_run_evidence(req: func.HttpRequest) -> func.HttpResponse:
    """Everything that is kept of a run, a page at a time. Reading it changes nothing."""
    limit, cursor = page_of(req)
    storage = open_storage()
    run = await find_run(storage, run_id_of(req))
    page = await storage.evidence.list_page(run, limit, cursor)
    return _EVIDENCE.respond(page.items, page)


@route(
    "POST",
    "runs/{runId}/evidence/exported",
    ResponseSpec(200, ListedRun),
    role=Role.OPERATOR,
    body=RequestBody(Export, {"a run of one machine": {"records": 2}}),
    problems=INVALID_BODY | NO_RUN | {409: "The run has not ended, or has another number of records."},
)
async def acknowledge_export(req: func.HttpRequest, body: Export) -> func.HttpResponse:
    """Say that all evidence of a run that ended is kept elsewhere, after which the run may be removed.

    ``records`` is how many were received on all pages. Some of the pages are no export: 409. Saying the same again
    changes nothing.
    """
    received = body.records
    storage = open_storage()
    run = await find_run(storage, run_id_of(req))
    if not run.state.is_final:
        raise ApiProblem(409, "The run has not ended, and its evidence goes on growing.")
    if await storage.evidence.count(run.id) != received:
        # The first acknowledgement adds a record, so a repeated one counts one more.
        if await _was_acknowledged(storage, run.id, received):
            return json_response(listed_run(run))
        raise ApiProblem(409, "The run has another number of records than were received: read all pages, then say so.")
    at = datetime.now(UTC)
    await storage.evidence.mark_exported(run.id, at)
    await storage.audit.add(run.id, _EXPORTED, **caller_of(req).who, at=at, detail={"records": received})
    return json_response(listed_run(run.model_copy(update={"exported_at": at})))


async def _was_acknowledged(storage: Storage, run_id: str, received: int) -> bool:
    async for line in storage.audit.lines(run_id):
        if line["action"] == _EXPORTED and line["detail"] == {"records": received}:
            return True
    return False
