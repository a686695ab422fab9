"""Timer triggers: each calls one service."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import azure.durable_functions as df
import azure.functions as func

from patchwave.azure.snapshots import open_snapshots
from patchwave.domain.core.documents import object_or_none
from patchwave.services import retention, scheduler, snapshot_cleanup, watchdog
from patchwave.settings import load_settings
from patchwave.storage import open_storage

_LOG = logging.getLogger("patchwave.timers")

bp = df.Blueprint()


@bp.timer_trigger(schedule="0 */5 * * * *", arg_name="timer", run_on_startup=False, use_monitor=True)
@bp.durable_client_input(client_name="client")
async def start_scheduled_runs(timer: func.TimerRequest, client: df.DurableFunctionsClient) -> None:
    """Start due policies. Window and run id make a late or repeated call harmless."""
    missed_since = None
    if timer.past_due:
        _LOG.warning("The timer is late; only occurrences whose window is still open are started.")
        missed_since = _last_run(timer)
    await scheduler.start_what_is_due(open_storage(), client, datetime.now(UTC), missed_since=missed_since)


@bp.timer_trigger(schedule="30 */5 * * * *", arg_name="timer", run_on_startup=False, use_monitor=True)
@bp.durable_client_input(client_name="client")
async def supervise_runs(timer: func.TimerRequest, client: df.DurableFunctionsClient) -> None:
    """Supervise every live run. A late or repeated call is harmless."""
    watch = watchdog.Watch(open_storage(), client, datetime.now(UTC), load_settings().poll_seconds)
    await watchdog.supervise_runs(watch)


@bp.timer_trigger(schedule="0 35 * * * *", arg_name="timer", run_on_startup=False, use_monitor=True)
@bp.durable_client_input(client_name="client")
async def purge_expired_records(timer: func.TimerRequest, client: df.DurableFunctionsClient) -> None:
    """Remove a slice of the expired records. A late or repeated call is harmless."""
    await retention.purge(open_storage(), client, retention.retention_of(load_settings()), datetime.now(UTC))


@bp.timer_trigger(schedule="0 10,25,40,55 * * * *", arg_name="timer", run_on_startup=False, use_monitor=True)
async def delete_expired_snapshots(timer: func.TimerRequest) -> None:
    """Delete expired snapshots. A late or repeated call is harmless."""
    deleted = await snapshot_cleanup.delete_expired_snapshots(open_storage(), open_snapshots(), datetime.now(UTC))
    if deleted:
        _LOG.info("%d expired snapshots were deleted.", len(deleted))


def _last_run(timer: func.TimerRequest) -> datetime | None:
    """The timer's previous execution, by its monitor; ``None`` when unknown."""
    status: object = getattr(timer, "schedule_status", None)
    last_run = (object_or_none(status) or {}).get("Last")
    try:
        last = datetime.fromisoformat(str(last_run))
    except ValueError:
        return None
    last = last if last.tzinfo else last.replace(tzinfo=UTC)
    return last if last.year > 1 else None
