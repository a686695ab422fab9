"""Timer triggers: each calls one service."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import azure.durable_functions as df
import azure.functions as func

from patchwave.domain.core.documents import object_or_none
from patchwave.services import catch_up, retention, scheduler, snapshot_cleanup, watchdog
from patchwave.wiring import current_services

_LOG = logging.getLogger("patchwave.timers")

bp = df.Blueprint()


@bp.timer_trigger(schedule="0 */5 * * * *", arg_name="timer", run_on_startup=False, use_monitor=True)
@bp.durable_client_input(client_name="client")
async def start_scheduled_runs(timer: func.TimerRequest, client: df.DurableFunctionsClient) -> None:
    """Start due policies, then machines that are back in an open window. A late or repeated call is harmless."""
    missed_since = None
    if timer.past_due:
        _LOG.warning("The timer is late; only occurrences whose window is still open are started.")
        missed_since = _last_run(timer)
    services, now = current_services(), datetime.now(UTC)
    await scheduler.start_what_is_due(services.storage, client, now, missed_since=missed_since)
    await catch_up.start_catch_ups(services, client, now)


@bp.timer_trigger(schedule="30 */5 * * * *", arg_name="timer", run_on_startup=False, use_monitor=True)
@bp.durable_client_input(client_name="client")
async def supervise_runs(timer: func.TimerRequest, client: df.DurableFunctionsClient) -> None:
    """Supervise every live run. A late or repeated call is harmless."""
    services = current_services()
    watch = watchdog.Watch(services.storage, client, datetime.now(UTC), services.settings.poll_seconds)
    await watchdog.supervise_runs(watch)


@bp.timer_trigger(schedule="0 35 * * * *", arg_name="timer", run_on_startup=False, use_monitor=True)
@bp.durable_client_input(client_name="client")
async def purge_expired_records(timer: func.TimerRequest, client: df.DurableFunctionsClient) -> None:
    """Remove a slice of the expired records. A late or repeated call is harmless."""
    services = current_services()
    kept = retention.retention_of(services.settings)
    await retention.purge(services.storage, client, kept, datetime.now(UTC))


@bp.timer_trigger(schedule="0 10,25,40,55 * * * *", arg_name="timer", run_on_startup=False, use_monitor=True)
async def delete_expired_snapshots(timer: func.TimerRequest) -> None:
    """Delete expired snapshots. A late or repeated call is harmless."""
    deleted = await snapshot_cleanup.delete_expired_snapshots(current_services(), datetime.now(UTC))
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
