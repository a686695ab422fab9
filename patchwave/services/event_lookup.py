"""Looks up the machine or the scheduled run of an event in Azure.

An event is untrusted input. Nothing is started before Azure confirms it, and all times are Azure's. What cannot be
confirmed now is an error: Event Grid then delivers the event again.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from time import monotonic
from weakref import WeakKeyDictionary

from patchwave.azure.resource_graph import QueryRefused, ResourceGraph
from patchwave.azure.virtual_machines import ResourceManager
from patchwave.domain.azure.errors import ArmFailure, ErrorClass, classify
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.core.documents import lower_keys, object_or_none, parse_instant
from patchwave.domain.core.ids import MachineId
from patchwave.domain.fleet.discovery import DiscoveryQuery
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.maintenance.occurrence import MAX_WINDOW, OccurrenceNotice, ScheduledRun
from patchwave.domain.maintenance.queries import run_with_id
from patchwave.wiring import Services

MAX_SECONDS = 20.0
"""Event Grid waits for half a minute."""
_MOMENT = timedelta(seconds=1)
REMEMBERED_SECONDS = 300.0
"""How long a missing machine is not looked up again."""
MAX_MISSES = 5
MISSES_SECONDS = 30.0
"""Period of the limit of failed look-ups: they use the same read bucket as runs."""
_SIDE_BY_SIDE = 5


class NotKnownYet(Exception):
    """Azure cannot confirm the event now; the text is for the log."""


class _Lookups:
    """The queries of one event loop; a worker has one."""

    def __init__(self) -> None:
        self.gate = asyncio.Semaphore(_SIDE_BY_SIDE)
        # Time at which a machine was missing, by its lowercase id.
        self._missing: dict[str, float] = {}

    def check(self, machine: MachineId) -> None:
        """Allow a look-up, unless it would most likely fail.

        Raises:
            NotKnownYet: the machine was missing recently, or too many others were.
        """
        now = monotonic()
        self._missing = {folded: at for folded, at in self._missing.items() if now - at < REMEMBERED_SECONDS}
        if machine.folded in self._missing:
            raise NotKnownYet(f"{machine} was not there a moment ago")
        if sum(now - at < MISSES_SECONDS for at in self._missing.values()) >= MAX_MISSES:
            raise NotKnownYet(f"{MAX_MISSES} other machines that events named were not there a moment ago")

    def note_missing(self, machine: MachineId) -> None:
        """Record that the machine is missing."""
        self._missing[machine.folded] = monotonic()


_lookups: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lookups] = WeakKeyDictionary()


async def find_machine(manager: ResourceManager, machine: MachineId) -> MachineView | None:
    """The machine as Azure shows it; ``None`` when the app cannot read it.

    Events of missing machines cost a bounded number of reads; later events are delayed, not lost.

    Raises:
        NotKnownYet: Azure did not respond, or was not asked because of recent failed look-ups.
    """
    lookups = _lookups.setdefault(asyncio.get_running_loop(), _Lookups())
    lookups.check(machine)
    async with lookups.gate:
        # Again: earlier look-ups may have failed meanwhile.
        lookups.check(machine)
        found = await manager.read_machine(machine)
        if not isinstance(found, ArmFailure):
            return found
        if classify(found).kind.is_transient:
            raise NotKnownYet(found.text)
        lookups.note_missing(machine)
        return None


async def find_scheduled_run(services: Services, notice: OccurrenceNotice) -> ScheduledRun | None:
    """The scheduled run in Azure; ``None`` when its configuration was deleted.

    The configuration's schedule usually has the run. Otherwise, such as after a change of the schedule, Resource Graph
    is queried, which lags minutes behind.

    Raises:
        NotKnownYet: Azure did not respond, or does not show the run.
    """
    configuration = await services.maintenance.read(notice.id.configuration)
    if isinstance(configuration, ArmFailure):
        verdict = classify(configuration)
        if verdict.kind.is_transient:
            raise NotKnownYet(configuration.text)
        if verdict.kind is ErrorClass.GONE:
            return None
    length = _length_of(configuration) / services.settings.maintenance_speed
    if notice.is_on_time and _plans(configuration, notice.id.at):
        return ScheduledRun(notice.id, notice.id.at, notice.id.at + length)
    starts_at = await _start_in_resource_graph(services.resource_graph, notice)
    return ScheduledRun(notice.id, starts_at, starts_at + length)


def _length_of(configuration: MaintenanceConfiguration | ArmFailure) -> timedelta:
    """The maximum duration of a run; without permission to read its configuration, the longest possible."""
    if isinstance(configuration, MaintenanceConfiguration) and configuration.window and not configuration.unreadable:
        return configuration.window.length
    return MAX_WINDOW


def _plans(configuration: MaintenanceConfiguration | ArmFailure, at: datetime) -> bool:
    if isinstance(configuration, ArmFailure):
        return False
    coming = configuration.next_occurrence(at - _MOMENT)
    return coming is not None and coming.at_utc == at


async def _start_in_resource_graph(graph: ResourceGraph, notice: OccurrenceNotice) -> datetime:
    pages = graph.pages([DiscoveryQuery(text=run_with_id(notice.id.text))])
    try:
        async with asyncio.timeout(MAX_SECONDS):
            rows = [row async for page in pages for row in page.rows]
    except (TimeoutError, QueryRefused) as error:
        raise NotKnownYet(f"Resource Graph does not say: {error}") from error
    for row in rows:
        start = parse_instant(lower_keys(object_or_none(row.get("properties")) or {}).get("startdatetime"))
        if start is not None:
            return start
    raise NotKnownYet(f"Azure does not show {notice.id.text}")
