"""What Azure itself says of the machine or the scheduled run that an event names.

An event is a text that arrived over the network. Nothing is started for it before Azure has shown what it names, and
times are Azure's. What cannot be answered now is an error: Event Grid then delivers the event again.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from patchwave.azure.maintenance import open_maintenance
from patchwave.azure.resource_graph import QueryRefused, open_resource_graph
from patchwave.azure.virtual_machines import open_resource_manager
from patchwave.domain.azure.errors import ArmFailure, ErrorClass, classify
from patchwave.domain.core.documents import as_object, fold_keys, parse_instant
from patchwave.domain.core.ids import MachineId
from patchwave.domain.fleet.discovery import DiscoveryQuery
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.maintenance.occurrence import LONGEST_WINDOW, OccurrenceNotice, ScheduledRun
from patchwave.domain.maintenance.queries import run_with_id
from patchwave.settings import load_settings

LONGEST_SECONDS = 20.0
"""Event Grid waits for half a minute."""
_MOMENT = timedelta(seconds=1)
_PASSING = (ErrorClass.THROTTLED, ErrorClass.RETRY_LATER)


class NotKnownYet(Exception):
    """Azure cannot say now whether there is what the event names; the text is for the log."""


async def is_machine(machine: MachineId) -> bool:
    """Whether the app can read such a machine.

    Raises:
        NotKnownYet: Azure did not answer.
    """
    found = await open_resource_manager().read_machine(machine)
    if not isinstance(found, ArmFailure):
        return True
    if classify(found).kind in _PASSING:
        raise NotKnownYet(found.text)
    return False


async def find_scheduled_run(notice: OccurrenceNotice) -> ScheduledRun | None:
    """The scheduled run as Azure knows it; ``None`` when its configuration is gone.

    The calendar of the configuration knows a run at once. One that it does not know, such as after a change of the
    schedule, is looked for in Resource Graph, which is minutes late.

    Raises:
        NotKnownYet: Azure did not answer, or does not show the run.
    """
    configuration = await open_maintenance().read(notice.id.configuration)
    if isinstance(configuration, ArmFailure):
        verdict = classify(configuration)
        if verdict.kind in _PASSING:
            raise NotKnownYet(configuration.text)
        if verdict.kind is ErrorClass.GONE:
            return None
    length = _length_of(configuration)
    if notice.is_on_time and _plans(configuration, notice.id.at):
        return ScheduledRun(notice.id, notice.id.at, notice.id.at + length)
    starts_at = await _start_in_resource_graph(notice)
    return ScheduledRun(notice.id, starts_at, starts_at + length)


def _length_of(configuration: MaintenanceConfiguration | ArmFailure) -> timedelta:
    """How long a run may last; without the right to read its configuration, as long as any may."""
    length = LONGEST_WINDOW
    if isinstance(configuration, MaintenanceConfiguration) and configuration.window and not configuration.unreadable:
        length = configuration.window.length
    return length / load_settings().maintenance_speed


def _plans(configuration: MaintenanceConfiguration | ArmFailure, at: datetime) -> bool:
    if isinstance(configuration, ArmFailure):
        return False
    coming = configuration.next_occurrence(at - _MOMENT)
    return coming is not None and coming.at_utc == at


async def _start_in_resource_graph(notice: OccurrenceNotice) -> datetime:
    pages = open_resource_graph().pages([DiscoveryQuery(text=run_with_id(notice.id.text))])
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            rows = [row async for page in pages for row in page.rows]
    except (TimeoutError, QueryRefused) as error:
        raise NotKnownYet(f"Resource Graph does not say: {error}") from error
    starts = [parse_instant(fold_keys(as_object(row.get("properties")) or {}).get("startdatetime")) for row in rows]
    known = [start for start in starts if start is not None]
    if not known:
        raise NotKnownYet(f"Azure does not show {notice.id.text}")
    return known[0]
