"""Deletes our expired snapshots."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta

from patchwave.azure.snapshots import list_expiring
from patchwave.domain.azure.errors import NO_ANSWER, ArmFailure
from patchwave.domain.core.folding import fold
from patchwave.domain.machine.snapshot import MACHINE_TAG, SnapshotId, expired_run
from patchwave.wiring import Services

MAX_SNAPSHOTS = 200
"""Snapshots per call, which must end in time; the next call continues."""
_BUDGET = timedelta(minutes=5)
"""Of one call: a function may take ten minutes."""
_LOG = logging.getLogger("patchwave.cleanup")


async def delete_expired_snapshots(
    services: Services, now: datetime, *, most: int = MAX_SNAPSHOTS, budget: timedelta = _BUDGET
) -> list[SnapshotId]:
    """Delete expired snapshots that have our tags, and the name that follows from these.

    Failed deletions are left to a later call.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + budget.total_seconds()
    deleted: list[SnapshotId] = []
    locked: set[tuple[str, str]] = set()
    looks = 0
    async for snapshot in _expired(services, now):
        place = (snapshot.subscription_id, fold(snapshot.resource_group))
        if place in locked:
            continue
        if looks == most or clock() >= until:
            break
        looks += 1
        try:
            result = await _delete(services, snapshot, now)
        except Exception:
            _LOG.exception("The snapshot %s could not be deleted", snapshot.name)
            continue
        if isinstance(result, ArmFailure):
            # A lock or a missing permission holds for the whole group, and must not block other groups.
            locked.add(place)
            _LOG.warning("The snapshot %s could not be deleted: %s", snapshot.name, result.text)
        elif result:
            deleted.append(snapshot)
    return deleted


async def _expired(services: Services, now: datetime) -> AsyncGenerator[SnapshotId]:
    """Snapshots that Resource Graph lists as ours and expired."""
    skip_token = ""
    while True:
        page = await list_expiring(services.resource_graph, skip_token)
        if page.failure is not None:
            _LOG.warning("The snapshots could not be listed: %s", page.failure.text)
            return
        for listed in page.snapshots:
            if expired_run(listed.id, listed.tags, now) is not None:
                yield listed.id
        skip_token = page.skip_token
        if not skip_token:
            return


async def _delete(services: Services, snapshot: SnapshotId, now: datetime) -> bool | ArmFailure:
    """Read the snapshot again, because the list lags and a user may have extended it, then delete it.

    Returns whether it was deleted, or the failure.
    """
    view = await services.snapshots.read_snapshot(snapshot)
    if isinstance(view, ArmFailure):
        return False if view.status == 404 else view
    tags = view.tags or {}
    run_id = expired_run(snapshot, tags, now)
    if run_id is None:
        return False
    submission = await services.snapshots.delete_snapshot(snapshot)
    if not submission.accepted:
        return submission.failure or NO_ANSWER
    detail = {"snapshot": snapshot.text, "machine": tags[MACHINE_TAG]}
    await services.storage.audit.add(run_id, "snapshot_deleted", actor="cleanup", at=now, detail=detail)
    return True
