"""Removes expired records."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from durabletask.client import OrchestrationStatus

from patchwave.domain.fleet.patch_mode_change import ChangeState
from patchwave.domain.runs.retention import Retention, hourly_shard, is_purgeable
from patchwave.settings import Settings
from patchwave.storage import Storage

MAX_ROWS = 20_000
"""Rows removed per call, which must end in time; the next call continues."""
MAX_RUNS = 50
_BUDGET = timedelta(minutes=6)
"""Of one call: a function may take ten minutes."""
_PAUSES_KEPT = timedelta(days=1)
_INSTANCE_TIME = timedelta(seconds=60)
_INSTANCE_SPAN = timedelta(days=14)
"""Age range beyond the limit in which instances are removed; older ones are gone already."""
_ENDED = [OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED, OrchestrationStatus.TERMINATED]
_LOG = logging.getLogger("patchwave.retention")


class PurgingEngine(Protocol):
    """The used methods of the durable client."""

    async def purge_orchestrations_by(
        self,
        *,
        created_time_from: datetime,
        created_time_to: datetime,
        runtime_status: list[OrchestrationStatus],
        timeout: timedelta,
    ) -> object: ...


def retention_of(settings: Settings) -> Retention:
    """The retention periods of the settings; 0 days keep records for ever."""

    def age(days: int) -> timedelta | None:
        return timedelta(days=days) if days else None

    return Retention(
        runs=age(settings.keep_runs_days),
        history=age(settings.keep_history_days),
        instances=age(settings.keep_instances_days),
        needs_export=settings.purge_requires_export,
    )


async def purge(
    storage: Storage,
    engine: PurgingEngine,
    retention: Retention,
    now: datetime,
    *,
    most: int = MAX_ROWS,
    budget: timedelta = _BUDGET,
) -> list[str]:
    """Remove expired records within limits of rows and time; returns the ids of removed runs and mode changes.

    Kinds are independent: a failure of one is logged and does not affect the others.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + budget.total_seconds()
    gone: list[str] = []
    left = _Left(most)
    number = hourly_shard(now)

    async def engine_instances(age: timedelta) -> None:
        before = now - age
        await engine.purge_orchestrations_by(
            created_time_from=before - _INSTANCE_SPAN,
            created_time_to=before,
            runtime_status=_ENDED,
            timeout=_INSTANCE_TIME,
        )

    async def past(removed: Awaitable[int]) -> None:
        await removed

    work: list[tuple[str, timedelta | None, Callable[[timedelta], Awaitable[None]]]] = [
        ("durable instances", retention.instances, engine_instances),
        ("claims", retention.runs, lambda age: past(storage.retention.purge_idempotency_keys(number, now - age))),
        ("histories", retention.history, lambda age: past(storage.retention.purge_machines(number, now - age))),
        ("packages", retention.history, lambda age: past(storage.retention.purge_seen(number, now - age))),
        ("audit logs", retention.history, lambda age: past(storage.retention.purge_audit(now - age))),
        ("pauses", _PAUSES_KEPT, lambda age: past(storage.retention.purge_throttling(now - age))),
        ("runs", retention.runs, lambda _: _purge_runs(storage, retention, now, left, gone)),
        ("mode changes", retention.runs, lambda age: _purge_mode_changes(storage, now - age, left, gone)),
    ]
    for what, age, remove in work:
        if age is None:
            continue
        try:
            async with asyncio.timeout_at(until):
                await remove(age)
        except TimeoutError:
            _LOG.warning("No time was left to remove %s; the next call goes on.", what)
        except Exception:
            _LOG.exception("The %s could not be removed", what)
    if gone:
        _LOG.info("%d runs were removed: they have been kept long enough.", len(gone))
    return gone


@dataclass(slots=True)
class _Left:
    """The number of rows that this call may still remove."""

    rows: int


async def _purge_runs(storage: Storage, retention: Retention, now: datetime, left: _Left, gone: list[str]) -> None:
    removed_runs = 0
    async for run in storage.retention.list_runs_before(now - (retention.runs or timedelta.max)):
        if left.rows <= 0 or removed_runs == MAX_RUNS:
            return
        if is_purgeable(run, retention, now) and await _has_gone(run.id, storage.retention.purge_run, left, gone):
            removed_runs += 1


async def _purge_mode_changes(storage: Storage, cutoff: datetime, left: _Left, gone: list[str]) -> None:
    async for change in storage.retention.list_mode_changes_before(cutoff):
        if left.rows <= 0:
            return
        if change.state is not ChangeState.RUNNING:
            await _has_gone(change.id, storage.retention.purge_mode_change, left, gone)


async def _has_gone(
    what: str, remove: Callable[[str, int], Awaitable[int | None]], left: _Left, gone: list[str]
) -> bool:
    try:
        removed = await remove(what, left.rows)
    except Exception:
        # Continue: the newest come first, and a failure must not block all older ones for ever.
        _LOG.exception("What is kept of %s could not be removed", what)
        return False
    if removed is None:
        left.rows = 0
        return False
    gone.append(what)
    left.rows -= removed
    return True
