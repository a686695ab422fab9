"""Pre and post events of Update Manager: each scheduled run gets one maintenance run of each policy that asks for it.

Events come at least once, late, in any order, or not at all. The run's id is derived from the scheduled run and the
policy, so that the first event creates it and all others find it. Its row stores the events, and its orchestration
reads the row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import grpc

from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.folding import fold
from patchwave.domain.maintenance.events import AzureEvent, EventKind
from patchwave.domain.maintenance.occurrence import (
    EventTimeouts,
    MaintenanceOccurrence,
    OccurrenceNotice,
    ScheduledRun,
    from_first_event,
)
from patchwave.domain.policy.policy import Policy
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.workflow.contracts import Signal
from patchwave.services.start_run import DurableClient, list_valid_policies, start_run
from patchwave.settings import Settings
from patchwave.storage import Storage
from patchwave.wiring import Services

_LOG = logging.getLogger("patchwave.events")


async def record_event(services: Services, client: DurableClient, event: AzureEvent, scheduled: ScheduledRun) -> None:
    """Create or find the maintenance runs for the event's scheduled run, and store the event.

    ``scheduled`` comes from Azure; its times count.

    Raises:
        Exception: the failure of a policy, after all policies were processed; Event Grid then delivers the event again.
    """
    notice, at = event.occurrence, datetime.now(UTC)
    if notice is None:
        return
    storage, timeouts = services.storage, event_timeouts(services.settings)

    def apply(known: MaintenanceOccurrence) -> MaintenanceOccurrence:
        return _apply(known.corrected(scheduled, timeouts, at), event, at)

    runs = await _known(storage, notice)
    failures: list[Exception] = []
    for chosen in await list_valid_policies(storage):
        policy = chosen.policy
        if not _maintained_by(policy, notice):
            continue
        run_id = notice.id.run_id(policy.name)
        known = runs.get(run_id.text)
        if known is not None and known.state is not RunState.QUEUED:
            continue
        maintenance = _apply(from_first_event(scheduled, timeouts, at), event, at)
        trigger = Trigger(kind=TriggerKind.EVENT_GRID, actor=event.kind.value, detail=event.id)
        try:
            # A queued run may never have reached the engine.
            run = await start_run(
                storage, client, chosen, run_id, trigger, mode=Mode.MAINTENANCE, maintenance=maintenance
            )
        except Exception as error:
            _LOG.exception("The policy %s could not begin a maintenance run for %s.", policy.name, notice.id.text)
            failures.append(error)
            continue
        runs[run.id] = run
    for run in runs.values():
        try:
            await _note(storage, client, run, event, at, apply)
        except Exception as error:
            _LOG.exception("The event could not be noted in the run %s.", run.id)
            failures.append(error)
    if failures:
        raise failures[0]


def event_timeouts(settings: Settings) -> EventTimeouts:
    """The timeouts of maintenance runs."""
    return EventTimeouts(
        prepare=timedelta(seconds=settings.maintenance_pre_timeout_seconds),
        cutoff=timedelta(seconds=settings.maintenance_cancel_cutoff_seconds),
        post=timedelta(seconds=settings.maintenance_post_timeout_seconds),
    )


async def _note(
    storage: Storage,
    client: DurableClient,
    run: Run,
    event: AzureEvent,
    at: datetime,
    apply: Callable[[MaintenanceOccurrence], MaintenanceOccurrence],
) -> None:
    """Store the result of ``apply``, and wake a run that waits for a post event."""
    if run.state.is_final or run.maintenance is None or apply(run.maintenance) == run.maintenance:
        return
    noted = await storage.runs.update_occurrence(run.id, apply)
    detail = {"event": event.kind.value, "status": event.occurrence.status if event.occurrence else ""}
    times = noted.maintenance or run.maintenance
    if (times.starts_at, times.ends_at) != (run.maintenance.starts_at, run.maintenance.ends_at):
        detail |= {"startsAt": format_instant(times.starts_at), "endsAt": format_instant(times.ends_at)}
    await storage.audit.add(run.id, "maintenance_event", actor="azure", at=at, detail=detail)
    if event.kind is EventKind.AFTER_MAINTENANCE:
        try:
            await client.raise_orchestration_event(run.id, Signal.POST_MAINTENANCE)
        except grpc.RpcError as error:
            # Its timer polls the row as well.
            _LOG.warning("Run %s could not be signalled its post event: %s", run.id, type(error).__name__)


def _apply(known: MaintenanceOccurrence, event: AzureEvent, at: datetime) -> MaintenanceOccurrence:
    """The occurrence with the event; a repeated event changes nothing."""
    if event.kind is EventKind.BEFORE_MAINTENANCE:
        return known if known.pre_event_at else known.model_copy(update={"pre_event_at": at})
    if known.post_event_at is not None:
        return known
    status = event.occurrence.status if event.occurrence else ""
    return known.model_copy(update={"post_event_at": at, "status": status})


async def _known(storage: Storage, notice: OccurrenceNotice) -> dict[str, Run]:
    """The live runs of this scheduled run, also of policies that have changed since."""
    wanted = fold(notice.id.text)
    return {
        run.id: run
        for run in await storage.runs.list_live()
        if run.maintenance is not None and fold(run.maintenance.id) == wanted
    }


def _maintained_by(policy: Policy, notice: OccurrenceNotice) -> bool:
    tasks = policy.maintenance
    return policy.enabled and tasks is not None and tasks.names(notice.id.configuration)
