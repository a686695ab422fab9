"""import_results: copies a scheduled run's installations from Resource Graph, which keeps them for 30 days.

A page of installations is imported in slices: patches are read for ten installations per query, and an activity must
end within minutes.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from activities.context import load_run
from activities.discover import trouble
from activities.maintenance_run import occurrence_of
from patchwave.azure.resource_graph import QueryPage, ResourceGraph
from patchwave.domain.azure.patch_results import InstalledPatch
from patchwave.domain.core.folding import fold
from patchwave.domain.maintenance.queries import INSTALLATIONS_PER_QUERY, installations_of_run, patches_of_installations
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.maintenance_results import InstallationRow, awaits_result, is_in_progress, read_patch
from patchwave.domain.runs.run import Run
from patchwave.domain.workflow.maintenance_run import ResultsPage
from patchwave.domain.workflow.run import MachinesPageRequest
from patchwave.settings import Settings
from patchwave.wiring import Services

SLICE = 50
"""Installations whose patches are imported in one call."""


class _Position(NamedTuple):
    """Where the import continues: the page token, and how many rows of that page are done."""

    token: str = ""
    done: int = 0


async def import_results(services: Services, request: MachinesPageRequest) -> ResultsPage:
    """Import a slice of the installations, without those that were imported before."""
    run, _ = await load_run(services.storage, request.run_id)
    occurrence = occurrence_of(run)
    position = _Position(*json.loads(request.cursor or "[]"))
    page = await services.resource_graph.page(
        installations_of_run(occurrence.id), occurrence.subscriptions, position.token
    )
    if page.failure is not None:
        return _failed(services.settings, run, page, request.attempt)
    part = page.rows[position.done : position.done + SLICE]
    failed = await _copy(services, run, [InstallationRow.model_validate(row) for row in part])
    if failed is not None:
        return _failed(services.settings, run, failed, request.attempt)
    done = position.done + len(part)
    following = _Position(position.token, done) if done < len(page.rows) else _Position(page.skip_token)
    if following != _Position():
        return ResultsPage(machines=run.machines, cursor=json.dumps(following), wait_seconds=page.wait_seconds)
    awaited = in_progress = 0
    async for machine in services.storage.machines.scan(run.id):
        awaited += awaits_result(machine)
        in_progress += is_in_progress(machine)
    return ResultsPage(machines=run.machines, awaited=awaited, in_progress=in_progress)


async def _copy(services: Services, run: Run, installations: list[InstallationRow]) -> QueryPage | None:
    """Import installations that have ended and are new; the page that could not be read, if any."""
    storage = services.storage
    fresh: list[tuple[InstallationRow, MachineRecord]] = []
    for each in installations:
        machine = None if each.machine is None else await storage.machines.get_validated(run.id, each.machine.key)
        if machine is not None and each.is_over and _is_news(machine, each):
            fresh.append((each, machine))
    for start in range(0, len(fresh), INSTALLATIONS_PER_QUERY):
        some = fresh[start : start + INSTALLATIONS_PER_QUERY]
        patches: dict[str, list[InstalledPatch]] = {fold(each.id): [] for each, _ in some}
        failed = await _read_patches(services.resource_graph, run, patches)
        if failed is not None:
            return failed
        for each, machine in some:
            found = [patch.to_record() for patch in patches[fold(each.id)]]
            error = each.result.error
            if error is not None and error.is_error:
                await storage.machines.update(run.id, machine.key, machine.stage, update_manager_error=error.sentence)
            await storage.results.record_installation(run.id, machine.key, each.result.summarize(), found)
    return None


async def _read_patches(graph: ResourceGraph, run: Run, patches: dict[str, list[InstalledPatch]]) -> QueryPage | None:
    token = ""
    query = patches_of_installations(list(patches))
    while True:
        page = await graph.page(query, occurrence_of(run).subscriptions, token)
        if page.failure is not None:
            return page
        for parent, patch in map(read_patch, page.rows):
            if parent in patches:
                patches[parent].append(patch)
        token = page.skip_token
        if not token:
            return None


def _is_news(machine: MachineRecord, found: InstallationRow) -> bool:
    """Whether the result is new. A machine has one installation per run; of several, the newest counts."""
    known = machine.installation
    if known is None or known.started_at is None or found.result.start_date_time is None:
        return known is None
    return found.result.start_date_time > known.started_at


def _failed(settings: Settings, run: Run, page: QueryPage, attempt: int) -> ResultsPage:
    what = "The results of the scheduled run could not be read."
    return ResultsPage(machines=run.machines, **trouble(settings, page, attempt, what))
