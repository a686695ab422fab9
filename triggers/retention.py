"""Evidence of a run as one document, and the timer that removes what has been kept long enough."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import azure.durable_functions as df
import azure.functions as func
import grpc
from durabletask.client import OrchestrationStatus

from adapters.tables import Records, open_records
from domain.base import Document
from domain.mode_change import ChangeState
from domain.retention import Retention, may_go, slice_of
from settings import Settings, load_settings
from triggers.described import INVALID_QUERY, NO_RUN, PAGED, Answer, described
from triggers.http import answer, answered, caller_of, page_of, run_id_of
from triggers.runs import find_run

MOST_ROWS = 20_000
"""Removed in one call, so that it ends well within its time; the next call goes on."""
MOST_RUNS = 50
_INSTANCE_TIME = timedelta(seconds=60)
_INSTANCE_SPAN = timedelta(days=14)
"""Instances are removed when they are between so much older than they may be and just too old."""
_ENDED = [OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED, OrchestrationStatus.TERMINATED]
_LOG = logging.getLogger("patchwave.retention")

bp = df.Blueprint()


class EvidencePage(Document):
    """What is kept of a run; ``record`` says what each of them is."""

    records: list[dict[str, Any]]
    cursor: str | None


class PurgingEngine(Protocol):
    """What is used of the durable client."""

    async def purge_orchestrations_by(
        self,
        *,
        created_time_from: datetime,
        created_time_to: datetime,
        runtime_status: list[OrchestrationStatus],
        timeout: timedelta,
    ) -> object: ...


@bp.route(route="runs/{runId}/evidence", methods=["GET"])
@described(Answer(200, EvidencePage), query=PAGED, refuses=INVALID_QUERY | NO_RUN)
@answered
async def get_run_evidence(req: func.HttpRequest) -> func.HttpResponse:
    """Everything that is kept of a run, a page at a time; whoever reads the last page of one that ended has it all."""
    limit, cursor = page_of(req)
    records = open_records()
    run = await find_run(records, run_id_of(req))
    page = await records.evidence(run, limit, cursor)
    if page.cursor is None and run.state.is_final:
        at = datetime.now(UTC)
        await records.mark_exported(run.id, at)
        await records.audit(run.id, "evidence_exported", by=caller_of(req), at=at)
    return answer({"records": page.items, "cursor": page.cursor})


@bp.timer_trigger(schedule="0 35 * * * *", arg_name="timer", run_on_startup=False, use_monitor=True)
@bp.durable_client_input(client_name="client")
async def purged_records(timer: func.TimerRequest, client: df.DurableFunctionsClient) -> None:
    """Remove a slice of what is over. A call that is late or comes twice finds what is left."""
    await purge(open_records(), client, retention_of(load_settings()), datetime.now(UTC))


def retention_of(settings: Settings) -> Retention:
    """What the settings ask for; 0 days keep for ever."""

    def age(days: int) -> timedelta | None:
        return timedelta(days=days) if days else None

    return Retention(
        runs=age(settings.keep_runs_days),
        history=age(settings.keep_history_days),
        instances=age(settings.keep_instances_days),
        needs_export=settings.purge_needs_export,
    )


async def purge(
    records: Records, engine: PurgingEngine, retention: Retention, now: datetime, *, most: int = MOST_ROWS
) -> list[str]:
    """Remove what may go, up to so many rows; the ids of the runs and mode changes that are gone now."""
    gone: list[str] = []
    if retention.runs is not None:
        left = most
        async for run in records.runs_before(now - retention.runs):
            if not may_go(run, retention, now):
                continue
            removed = await records.purge_run(run.id, left)
            if removed is None:
                break
            gone.append(run.id)
            left -= removed
            if left <= 0 or len(gone) == MOST_RUNS:
                break
        gone += await _purge_mode_changes(records, now - retention.runs, left)
    if gone:
        _LOG.info("%d runs were removed: they have been kept long enough.", len(gone))
    if retention.history is not None:
        await records.purge_history(slice_of(now), now - retention.history)
    if retention.instances is not None:
        before = now - retention.instances
        try:
            await engine.purge_orchestrations_by(
                created_time_from=before - _INSTANCE_SPAN,
                created_time_to=before,
                runtime_status=_ENDED,
                timeout=_INSTANCE_TIME,
            )
        except grpc.RpcError as error:
            _LOG.warning("The durable instances could not be removed: %s", type(error).__name__)
    return gone


async def _purge_mode_changes(records: Records, cutoff: datetime, most: int) -> list[str]:
    gone: list[str] = []
    left = most
    async for change in records.mode_changes_before(cutoff):
        if left <= 0:
            break
        if change.state is ChangeState.RUNNING:
            continue
        removed = await records.purge_mode_change(change.id, left)
        if removed is None:
            break
        gone.append(change.id)
        left -= removed
    return gone
