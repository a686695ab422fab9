"""discover_machines: stores one page of Resource Graph as machine rows of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from activities.context import load_run, now, record_outcomes, wait_seconds
from patchwave.azure.pipeline import boundary_of
from patchwave.azure.resource_graph import QueryPage, ResourceGraph
from patchwave.domain.azure.errors import ArmFailure, classify, is_throttling
from patchwave.domain.core.documents import Json
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import Outcome, Reason
from patchwave.domain.fleet.discovery import (
    NO_MEMBERS,
    DiscoveredMachine,
    build_queries,
    evaluate_boundary,
    evaluate_duplicates,
    missing_scale_sets,
    select_machines,
    twins_queries,
)
from patchwave.domain.policy.boundary import needs_boundary
from patchwave.domain.policy.policy import Policy
from patchwave.domain.policy.scope import Scope
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Run
from patchwave.domain.runs.window_results import left_out, max_failed_windows
from patchwave.domain.workflow.run import DiscoveryPage, MachinesPageRequest
from patchwave.settings import Settings
from patchwave.storage import Storage
from patchwave.wiring import Services

_SHORT_PAUSES = 6
"""Consecutive waits that are only as long as Resource Graph asks for."""


class _Position(NamedTuple):
    """Where the discovery continues: query, page token of Resource Graph, and number of machines so far.

    A machine that two pages list is counted twice here. The final count comes from the rows.
    """

    query: int = 0
    token: str = ""
    found: int = 0

    def behind(self, page_token: str, machines: int) -> _Position:
        """The position after a page with ``machines`` machines."""
        query = self.query if page_token else self.query + 1
        return _Position(query, page_token, self.found + machines)


async def discover_machines(services: Services, request: MachinesPageRequest) -> DiscoveryPage:
    """Read one page and add its machines.

    The last page also adds rows for ids and scale sets that the policy names and Resource Graph does not list: skipped,
    not found. A second execution adds a set's row once more, which is then there already.
    """
    storage = services.storage
    run, policy = await load_run(storage, request.run_id)
    if boundary_of(services.settings).is_needed_by(policy.scope):
        return DiscoveryPage(failure=f"The scope {needs_boundary()}.")
    queries = build_queries(policy.scope)
    position = _Position(*json.loads(request.cursor or "[]"))
    wait = 0.0
    if position.query < len(queries):
        query = queries[position.query]
        page = await services.resource_graph.page(query.text, query.subscriptions, position.token)
        if page.failure is not None:
            return DiscoveryPage(
                **trouble(services.settings, page, request.attempt, "The machines could not be listed.")
            )
        found = select_machines(policy.scope, page.rows)
        twins = await find_twins(services.resource_graph, found)
        if twins.failure is not None:
            return DiscoveryPage(
                **trouble(services.settings, twins, request.attempt, "The Arc machines could not be compared with VMs.")
            )
        found = evaluate_duplicates(found, twins.rows)
        await add_found(services.settings, storage, request.run_id, found, window=_window(run, policy))
        wait = max(page.wait_seconds, twins.wait_seconds)
        position = position.behind(page.skip_token, len(found))
    if position.query < len(queries):
        await storage.runs.set_machine_count(request.run_id, position.found)
        return DiscoveryPage(machines=position.found, cursor=json.dumps(position), wait_seconds=wait)
    await _add_missing(storage, request.run_id, policy.scope)
    await _add_missing_sets(storage, request.run_id, policy.scope)
    if run.counted_occurrence is not None:
        await _apply_last_windows(storage, request.run_id, policy)
    machines = await storage.runs.count_machines(request.run_id)
    return DiscoveryPage(machines=machines, selectors=policy.scope.describe())


async def find_twins(graph: ResourceGraph, found: Sequence[DiscoveredMachine]) -> QueryPage:
    """The virtual machines that are enrolled in Azure Arc as these machines; nothing is asked without Arc machines."""
    twins = QueryPage()
    for query in twins_queries(found):
        page = await graph.page(query.text, query.subscriptions)
        if page.failure is not None:
            return page
        twins = QueryPage([*twins.rows, *page.rows], wait_seconds=max(twins.wait_seconds, page.wait_seconds))
    return twins


async def add_found(
    settings: Settings,
    storage: Storage,
    run_id: str,
    found: Sequence[DiscoveredMachine],
    *,
    window: Mapping[str, object] | None = None,
) -> None:
    """Add rows for discovered machines; invalid ones, and those outside the boundary, are skipped at once.

    ``window``: the fields about the window that the run belongs to.
    """
    judged = evaluate_boundary(found, boundary_of(settings))
    rows = [record_of(machine).model_copy(update=dict(window or {})) for machine in judged]
    await storage.machines.add(run_id, rows)
    problems = [each for each in judged if each.problem]
    outcomes = [(each.machine_id.key, Outcome.skipped(each.problem_reason, each.problem)) for each in problems]
    await record_outcomes(storage, run_id, outcomes)


def _window(run: Run, policy: Policy) -> Json:
    """The fields of a machine's row about the window that the run belongs to, if there is one."""
    if run.counted_occurrence is None:
        return {}
    most = max_failed_windows(retries=policy.retry_in_next_window)
    return {"occurrence": run.counted_occurrence, "max_failed_windows": most}


async def _apply_last_windows(storage: Storage, run_id: str, policy: Policy) -> None:
    """Store how machines ended in their last window, and leave out those that need a person.

    One scan for the fleet, before anything is started; machines that were patched since cost nothing more.
    """
    unfinished = await storage.history.list_unfinished()
    keys = await storage.machines.set_last_windows(run_id, unfinished)
    most = max_failed_windows(retries=policy.retry_in_next_window)
    stuck = [(key, left_out(unfinished[key])) for key in keys if unfinished[key].is_left_out(most)]
    await record_outcomes(storage, run_id, stuck)


async def _add_missing(storage: Storage, run_id: str, scope: Scope) -> None:
    """Add rows for the ids that the policy names and Resource Graph does not list."""
    asked = {machine.key: machine for machine in map(MachineId.parse, scope.machine_ids)}
    known = await storage.machines.get_stages(run_id, list(asked))
    missing = [machine for key, machine in asked.items() if key not in known and not scope.exclude.names(machine)]
    if not missing:
        return
    await storage.machines.add(run_id, [_missing_record(machine) for machine in missing])
    outcome = Outcome.skipped(
        Reason.NOT_FOUND,
        "No such machine: it does not exist, the identity may not read it, or another selector leaves it out.",
    )
    await record_outcomes(storage, run_id, [(machine.key, outcome) for machine in missing])


async def _add_missing_sets(storage: Storage, run_id: str, scope: Scope) -> None:
    """Add rows for the scale sets that the policy names and that have no machine in the run."""
    if not scope.scale_sets:
        return
    members_of = [machine.scale_set async for machine in storage.machines.scan(run_id)]
    missing = [_scale_set(text) for text in missing_scale_sets(scope, members_of)]
    await storage.machines.add(run_id, [_missing_record(scale_set) for scale_set in missing])
    outcome = Outcome.skipped(Reason.NOT_FOUND, NO_MEMBERS)
    await record_outcomes(storage, run_id, [(scale_set.key, outcome) for scale_set in missing])


def _scale_set(text: str) -> MachineId:
    """The parts of a scale set's id, for its row."""
    parts = text.split("/")
    return MachineId(text, parts[2].lower(), parts[4], parts[8])


def record_of(machine: DiscoveredMachine) -> MachineRecord:
    """The row of a discovered machine."""
    identity = machine.machine_id
    return MachineRecord(
        id=identity.text,
        key=identity.key,
        name=machine.name,
        subscription_id=machine.subscription_id,
        resource_group=machine.resource_group,
        location=machine.location,
        os_type=machine.os_type,
        zones=list(machine.zones),
        tags=machine.tags,
        power_state=machine.power_state,
        availability_set=machine.availability_set_id,
        scale_set=machine.scale_set_id,
        fault_domain=machine.fault_domain,
        image=machine.image,
        time_zone=machine.time_zone,
        queued_at=now(),
    )


def _missing_record(identity: MachineId) -> MachineRecord:
    return MachineRecord(
        id=identity.text,
        key=identity.key,
        name=identity.name,
        subscription_id=identity.subscription_id,
        resource_group=identity.resource_group,
        queued_at=now(),
    )


def pause_after(settings: Settings, failure: ArmFailure, asked: float, attempt: int) -> float:
    """Seconds until the page is requested again after ``attempt`` failures; 0 when the failure is permanent.

    While throttled, Resource Graph's ``Retry-After`` counts; other outages use exponential waits. After `_SHORT_PAUSES`
    short waits in a row the waits grow as well, because hours of them must fit into one history.
    """
    if asked <= 0:
        return 0.0
    named = asked if failure.status == 429 else failure.retry_after
    grown = wait_seconds(settings, polls=min(2**attempt, 8))
    if named is None:
        return grown
    return wait_seconds(settings, named) if attempt < _SHORT_PAUSES else max(wait_seconds(settings, named), grown)


def trouble(settings: Settings, page: QueryPage, attempt: int, what: str) -> Json:
    """The fields of a page that could not be read: a growing wait after a transient failure."""
    failure = page.failure
    if failure is None:
        return {}
    return {
        "wait_seconds": pause_after(settings, failure, page.wait_seconds, attempt),
        "failure": f"{what} {classify(failure).sentence} ({failure.text})",
        "counts_as_attempt": not is_throttling(failure),
    }
