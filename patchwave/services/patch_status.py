"""How the patching of a fleet stands, for an HTTP caller.

Of a fleet it is read from Resource Graph: a page for each thousand machines, and some pages beside them, as the rows
of patch tables come packed. Of one machine its instance view is read too, which is current.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from patchwave.azure.resource_graph import QueryRefused
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.instance_view import PatchStatusView
from patchwave.domain.core.ids import MachineId
from patchwave.domain.drift.fleet_index import FleetIndex
from patchwave.domain.drift.next_patching import PatchCalendar
from patchwave.domain.drift.patch_status_report import MachineStatus, describe_status
from patchwave.domain.fleet.packed_rows import by_owner
from patchwave.domain.fleet.patch_mode import PatchSettings
from patchwave.domain.fleet.patch_status import (
    ASSESSMENTS,
    EXTENSIONS,
    INSTALLATIONS,
    PatchStatus,
    fleet_status,
    machine_status,
)
from patchwave.domain.policy.scope import Scope
from patchwave.services.computation import compute
from patchwave.services.errors import NARROW, FleetUnreadable, time_limit
from patchwave.services.fleet_reader import read_index, read_packed
from patchwave.services.maintenance_configurations import canceled_at_azure
from patchwave.wiring import Services

_MAX_SECONDS = 200.0
_TABLES = (ASSESSMENTS, INSTALLATIONS, EXTENSIONS)


@dataclass(frozen=True)
class FleetStatus:
    """Every machine of a scope, by id, and notes on what could not be read."""

    machines: list[MachineStatus]
    notes: list[str]


async def read_patch_status(services: Services, scope: Scope) -> FleetStatus:
    """The status of the machines of a scope; of a scope that names one machine, by its instance view.

    Raises:
        ServiceError: as `patchwave.services.fleet_reader.read_fleet`.
    """
    graph = services.resource_graph
    try:
        async with time_limit("The fleet", _MAX_SECONDS, NARROW):
            (index, notes), (canceled, unread), freezes, view, packed = await asyncio.gather(
                read_index(services, scope),
                canceled_at_azure(graph),
                services.storage.freezes.list_all(),
                _read_view(services, scope),
                asyncio.gather(*(read_packed(graph, table, scope) for table in _TABLES)),
            )
    except QueryRefused as refusal:
        raise FleetUnreadable(f"The patch status could not be read. {refusal}") from refusal
    calendar = PatchCalendar(index, freezes, canceled)
    open_runs = await compute(calendar.open_runs)
    calendar = replace(calendar, ended_runs=await _ended(services, open_runs))
    notes += [unread] if unread else []
    notes += [note for _, left_out in packed for note in left_out]
    if isinstance(view, ArmFailure):
        notes += [f"The instance view could not be read, so that Resource Graph's data is shown: {view.text}."]
        view = None
    elif view is not None and not index.facts.machines:
        notes += ["Azure has the machine, and Resource Graph does not list it, which is minutes behind."]
    rows = [found for found, _ in packed]
    return FleetStatus(await compute(partial(_describe, calendar, rows, view)), notes)


async def _read_view(services: Services, scope: Scope) -> PatchStatusView | ArmFailure | None:
    """The instance view of the one machine that a scope names."""
    if len(scope.machine_ids) != 1:
        return None
    return await services.resource_manager.read_patch_status(MachineId.parse(scope.machine_ids[0]))


async def _ended(services: Services, run_ids: Sequence[str]) -> frozenset[str]:
    """Those of the runs that are over."""
    runs = await asyncio.gather(*map(services.storage.runs.get, run_ids))
    return frozenset(run.id for run in runs if run is not None and run.state.is_final)


def _describe(
    calendar: PatchCalendar, packed: Sequence[Sequence[Mapping[str, Any]]], view: PatchStatusView | None
) -> list[MachineStatus]:
    tables = zip(packed, _TABLES, strict=True)
    assessed, installed, extended = (by_owner(rows, table.behind) for rows, table in tables)
    now = calendar.index.now

    def status(machine: str) -> PatchStatus:
        return fleet_status(assessed.get(machine), installed.get(machine), extended.get(machine), now)

    if view is None:
        return [
            describe_status(each, status(each.machine.folded), calendar.of(each)) for each in calendar.index.coverages
        ]
    current = _with_view(calendar, view)
    return [
        describe_status(each, machine_status(view, status(each.machine.folded), now), current.of(each), view.power)
        for each in current.index.coverages
    ]


def _with_view(calendar: PatchCalendar, view: PatchStatusView) -> PatchCalendar:
    """The calendar of the one machine, as its instance view shows it."""
    facts = calendar.index.facts
    settings = PatchSettings.read(view.os_type, view.os_configuration)
    machines = [replace(machine, settings=settings) for machine in facts.machines]
    return replace(calendar, index=FleetIndex(replace(facts, machines=machines), calendar.index.now))
