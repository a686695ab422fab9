"""Drift detection: reads the whole fleet from Resource Graph while the caller waits, then evaluates it.

Some fifty pages for 10,000 machines, at 15 queries in 5 seconds: well within the time limit of a response. The versions
of agents come from the lists of machines, some hundreds per page.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from patchwave.azure.resource_graph import QueryRefused
from patchwave.domain.core.ids import MachineType
from patchwave.domain.drift.detect import examine
from patchwave.domain.drift.findings import DriftReport, FindingKind
from patchwave.domain.drift.inputs import (
    DriftInputs,
    excluded_patches,
    failed_installations,
    first_and_last_runs,
    newest_assessments,
    read_assessments,
    read_failed_installations,
    read_runs,
    with_answers,
    with_exclusions,
    with_own,
)
from patchwave.domain.fleet.machine import FleetMachine
from patchwave.domain.fleet.scale_sets import all_scale_sets, read_scale_set
from patchwave.domain.maintenance.assignment import read_assignment
from patchwave.domain.maintenance.configuration import read_configuration
from patchwave.domain.maintenance.queries import all_assignments, all_configurations
from patchwave.domain.policy.scope import Scope
from patchwave.services.errors import FleetUnreadable, time_limit
from patchwave.services.fleet_reader import (
    read_each,
    read_fleet,
    read_policies,
    read_rows,
    with_agent_versions,
)
from patchwave.wiring import Services

MAX_SECONDS = 180.0
"""Azure ends an HTTP request after 230 seconds; evaluation needs a few of them after the reads."""


async def detect_drift(
    services: Services, stale_days: int, kinds: list[FindingKind], subject: str, limit: int
) -> DriftReport:
    """Drift over the whole fleet: findings of the kinds, on subjects whose id holds the text.

    Args:
        stale_days: assessments older than so many days are stale.
        limit: maximum number of findings; the counts are of all.

    Raises:
        ServiceError: as `read_fleet`.
    """
    now = datetime.now(UTC)
    try:
        async with time_limit("The fleet", MAX_SECONDS):
            facts = await _gather(services, now)
    except QueryRefused as refusal:
        raise FleetUnreadable(f"The fleet could not be read. {refusal}") from refusal
    # In a thread: seconds of computation for a large fleet would block other requests.
    return await asyncio.to_thread(lambda: examine(facts, now, stale_days).only(kinds, subject, limit))


async def _gather(services: Services, now: datetime) -> DriftInputs:
    """Stored data, then Azure's tables in parallel."""
    storage, graph = services.storage, services.resource_graph
    policies, notes = await read_policies(storage)
    own = await storage.history.last_assessments()
    azure, arc = MachineType.AZURE, MachineType.ARC
    queries = (
        all_configurations(),
        all_assignments(),
        newest_assessments(azure),
        failed_installations(),
        excluded_patches(azure, now),
        first_and_last_runs(),
        all_scale_sets(),
    )
    (fleet, unread), tables = await asyncio.gather(
        _read_fleet(services), asyncio.gather(*(read_rows(graph, query) for query in queries))
    )
    configurations, assignments, assessments, failed, excused, runs, sets = tables
    if any(machine.is_arc for machine in fleet):
        assessments += await read_rows(graph, newest_assessments(arc))
        excused += await read_rows(graph, excluded_patches(arc, now))

    def facts() -> DriftInputs:
        schedules, odd_schedules = read_each(configurations, read_configuration, "maintenance configurations")
        assigned, odd_assignments = read_each(assignments, read_assignment, "assignments")
        scale_sets, odd_sets = read_each(sets, read_scale_set, "scale sets")
        known = with_own(with_exclusions(read_assessments(assessments), excused), fleet, own)
        return DriftInputs(
            machines=with_answers(fleet, known),
            configurations=schedules,
            assignments=assigned,
            assessments=known,
            failed_installations=read_failed_installations(failed),
            runs=read_runs(runs),
            policies=policies,
            scale_sets=scale_sets,
            notes=[*notes, *unread, *odd_schedules, *odd_assignments, *odd_sets],
        )

    # In a thread: a large fleet would block other requests.
    return await asyncio.to_thread(facts)


async def _read_fleet(services: Services) -> tuple[list[FleetMachine], list[str]]:
    """The whole fleet with agent versions; what Azure answered is read beside it, with all assessments."""
    fleet = await read_fleet(
        services.resource_graph, Scope(machine_types=tuple(MachineType)), services.settings.image_table
    )
    return await with_agent_versions(services, fleet)
