"""Assignments of maintenance configurations: to machines, and to dynamic scopes. Changes are audited.

Resource Graph has all assignments, minutes late. A machine's own list is current, and only exists while the machine
does. Assignments of a machine are therefore read from both, which covers recent ones and those of deleted machines.

All functions raise `AzureRefused` for a refusal of Resource Manager, `FleetUnreadable` for one of Resource Graph, and
`FleetTooSlow`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from patchwave.azure.resource_graph import QueryRefused, ResourceGraph
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.command import Command
from patchwave.domain.core.documents import Document, Json, UtcDatetime
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import ConfigurationId, MachineId
from patchwave.domain.core.principal import Signed
from patchwave.domain.fleet.discovery import DiscoveredMachine, build_queries, select_machines
from patchwave.domain.maintenance.assignment import (
    MAX_ASSOCIATIONS,
    MAX_IN_DYNAMIC_SCOPE,
    Assignment,
    check_scopes,
    check_sizes,
    read_assignment,
)
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.maintenance.queries import (
    assignment_with_id,
    assignments_of_configuration,
    assignments_of_machine,
    dynamic_scopes,
)
from patchwave.domain.policy.scope import Scope
from patchwave.services.errors import (
    Conflict,
    FleetUnreadable,
    InvalidQuery,
    InvalidRequest,
    NotFound,
    result_of,
    time_limit,
)
from patchwave.services.fleet_reader import read_rows
from patchwave.services.maintenance_configurations import audit_subject_of, read_existing
from patchwave.wiring import Services

MAX_SECONDS = 120.0
"""Azure ends an HTTP request after 230 seconds."""
_NO_ROW = "Resource Graph does not know this machine: it is new, gone, or cannot be read; dynamic scopes are left out."


class AssignedSchedule(Document):
    """One assignment, and when its configuration runs next."""

    assignment: Assignment
    dynamic: bool
    """Whether it is for whatever machines match."""
    next_run: UtcDatetime | None
    notes: list[str]
    matching: int | None = None
    """Machines that match a dynamic scope now, as far as Resource Graph shows them; in the answer to a PUT only."""


class AssignmentList(Document):
    """Assignments of a machine or of a configuration."""

    assignments: list[AssignedSchedule]
    notes: list[str]
    """What could not be looked up."""


class RemovedAssignments(Document):
    """The assignments that are gone; ids."""

    removed: list[str]
    still_assigned: list[Assignment]
    """Dynamic scopes by which the machine still gets the configuration: remove its tag, or change the filter."""


# --- reads --------------------------------------------------------------------------------------------------


async def list_of_machine(services: Services, machine: MachineId) -> AssignmentList:
    """The machine's assignments, and the dynamic scopes that contain it."""
    async with _in_time():
        row = await _row(services.resource_graph, machine)
        direct = await _naming(services, machine)
        scopes = await _assignments(services.resource_graph, dynamic_scopes())
        dynamic = [each for each in scopes if row is not None and each.holds(row)]
        return await _list(services, [*direct, *dynamic], [] if row else [_NO_ROW])


async def list_of_configuration(services: Services, configuration: ConfigurationId) -> AssignmentList:
    """The machines and dynamic scopes of a configuration."""
    async with _in_time():
        return await _list(services, await _of_configuration(services, configuration), [])


async def read_with_assignments(
    services: Services, identity: ConfigurationId
) -> tuple[MaintenanceConfiguration, list[Assignment]]:
    """A configuration with all of its assignments."""
    configuration = await read_existing(services, identity)
    async with _in_time():
        return configuration, await _of_configuration(services, identity)


# --- changes ------------------------------------------------------------------------------------------------


async def assign(services: Services, wanted: Assignment, *, is_named: bool, actor: Signed) -> AssignedSchedule:
    """Assign a configuration to a machine or a dynamic scope, or change the filter of a scope.

    Args:
        wanted: the assignment; its location is that of the configuration if it has none.
        is_named: whether the caller has chosen its name.

    Raises:
        Conflict: the name is that of another configuration's assignment.
        InvalidRequest: with each exceeded limit.
    """
    now, identity = datetime.now(UTC), ConfigurationId.parse(wanted.maintenance_configuration_id)
    configuration = await read_existing(services, identity)
    if not wanted.location:
        wanted = wanted.model_copy(update={"location": configuration.location})
    async with _in_time():
        others = await _of_configuration(services, identity)
        if not is_named:
            wanted = _under_its_name(wanted, others)
        await _check_name(services, wanted)
        matching = await _check_limits(services.resource_graph, wanted, others)
    made = result_of(await services.maintenance.assign(wanted), "machine, resource group or subscription")
    await _audit(services, "assignment_written", made, actor, now)
    view = _assigned(made, configuration, now)
    if matching == 0:
        view.notes.append("No machine matches now.")
    return view.model_copy(update={"matching": matching})


async def remove_from_machine(
    services: Services, machine: MachineId, configuration: ConfigurationId, command: Command
) -> RemovedAssignments:
    """Remove a machine from a configuration, under whatever names it is assigned to it.

    Raises:
        NotFound: it is not assigned to it.
    """
    async with _in_time():
        found = await _naming(services, machine, configuration)
        row = await _row(services.resource_graph, machine)
        others = await _of_configuration(services, configuration) if row else []
        still = [each for each in others if each.is_dynamic and row is not None and each.holds(row)]
        return await _remove(services, found, still, command)


async def remove_assignment(services: Services, assignment_id: str, command: Command) -> RemovedAssignments:
    """Remove one assignment, which may belong to a deleted machine.

    Raises:
        InvalidQuery: the id is not one of an assignment of a machine or a dynamic scope.
        NotFound: it does not exist.
    """
    named = read_assignment({"id": assignment_id})
    if named is None or (named.machine_id is None and not named.is_dynamic):
        raise InvalidQuery("assignment", "is not the id of an assignment of a machine or a dynamic scope")
    async with _in_time():
        exact = await services.maintenance.read_assignment(named.resource_id, named.name)
        if isinstance(exact, ArmFailure) and exact.status == 404:
            found = await _assignments(services.resource_graph, assignment_with_id(named.id))
        else:
            found = [result_of(exact, "assignment")]
        return await _remove(services, found[:1], [], command)


async def _remove(
    services: Services, found: Iterable[Assignment], still: list[Assignment], command: Command
) -> RemovedAssignments:
    removed: list[str] = []
    for each in found:
        if result_of(await services.maintenance.unassign(each.resource_id, each.name), "assignment"):
            await _audit(services, "assignment_removed", each, command, command.at, command.reason)
            removed.append(each.id)
    if not removed and not still:
        raise NotFound("There is no such assignment.")
    return RemovedAssignments(removed=removed, still_assigned=still)


async def _audit(
    services: Services, action: str, assignment: Assignment, actor: Signed, at: datetime, reason: str = ""
) -> None:
    identity = assignment.configuration_id
    if identity is None:
        return
    detail: Json = {"assignment": assignment.id, "resource": assignment.resource_id}
    if assignment.filter is not None:
        detail["filter"] = assignment.filter.to_wire()
    if reason:
        detail["reason"] = reason
    await services.storage.audit.add(audit_subject_of(identity), action, **actor.who, at=at, detail=detail)


async def _check_name(services: Services, wanted: Assignment) -> None:
    """Refuse the name of another configuration's assignment: the machine would silently leave that one."""
    found = await services.maintenance.read_assignment(wanted.resource_id, wanted.name)
    if isinstance(found, ArmFailure) and found.status == 404:
        return
    if (found := result_of(found, "assignment")).configuration_id != wanted.configuration_id:
        raise Conflict(
            f"The assignment {wanted.name} is there for {found.maintenance_configuration_id}: give another name, or"
            " remove it first."
        )


def _under_its_name(wanted: Assignment, others: Iterable[Assignment]) -> Assignment:
    """The assignment under its existing name, if another tool created it under a different one."""
    known = list(others)
    if wanted.folded in {each.folded for each in known}:
        return wanted
    same = next((each for each in known if each.is_same_as(wanted)), None)
    return wanted if same is None else wanted.model_copy(update={"id": same.id, "name": same.name})


async def _check_limits(graph: ResourceGraph, wanted: Assignment, known: Iterable[Assignment]) -> int | None:
    """The current number of machines of a dynamic scope; ``None`` for a machine.

    Refuses more than the limits of a schedule, as far as Resource Graph shows its current assignments.
    """
    together = [*(each for each in known if each.folded != wanted.folded), wanted]
    in_scope: int | None = None
    if wanted.is_dynamic:
        in_scope = len(await _machines(graph, wanted.scope)) if wanted.scope is not None else 0
    problems = [*check_scopes(together), *check_sizes(await _count(graph, together), in_scope)]
    if problems:
        raise InvalidRequest("The request is not valid.", errors=problems)
    return in_scope


async def _count(graph: ResourceGraph, assignments: Iterable[Assignment]) -> int:
    """The number of distinct machines of a schedule; only an upper bound if that is within the limit."""
    listed = list(assignments)
    held = {fold(each.resource_id) for each in listed if not each.is_dynamic}
    scopes = [each.scope for each in listed if each.is_dynamic and each.scope is not None]
    # A scope's limit bounds its machines, so most schedules need no count.
    if len(held) + len(scopes) * MAX_IN_DYNAMIC_SCOPE > MAX_ASSOCIATIONS:
        for scope in scopes:
            held |= {machine.machine_id.folded for machine in await _machines(graph, scope)}
    return len(held)


# --- shared -------------------------------------------------------------------------------------------------


async def _naming(
    services: Services, machine: MachineId, configuration: ConfigurationId | None = None
) -> list[Assignment]:
    """Assignments that name the machine, of one configuration or of all, from Resource Graph and its own list."""
    found = await _assignments(services.resource_graph, assignments_of_machine(machine, configuration))
    exact = await services.maintenance.assignments_of(machine)
    exact = [] if isinstance(exact, ArmFailure) and exact.status == 404 else result_of(exact, "machine")
    known = {each.folded: each for each in [*found, *exact]}
    return [each for each in known.values() if configuration in (None, each.configuration_id)]


async def _of_configuration(services: Services, configuration: ConfigurationId) -> list[Assignment]:
    return await _assignments(services.resource_graph, assignments_of_configuration(configuration))


async def _assignments(graph: ResourceGraph, query: str) -> list[Assignment]:
    return list(filter(None, map(read_assignment, await read_rows(graph, query))))


async def _row(graph: ResourceGraph, machine: MachineId) -> DiscoveredMachine | None:
    """The machine's row in Resource Graph."""
    scope = Scope(machine_ids=(machine.text,), machine_types=(machine.machine_type,))
    return next(iter(await _machines(graph, scope)), None)


async def _machines(graph: ResourceGraph, scope: Scope) -> list[DiscoveredMachine]:
    return select_machines(scope, [row async for page in graph.pages(build_queries(scope)) for row in page.rows])


async def _list(services: Services, found: list[Assignment], notes: list[str]) -> AssignmentList:
    """The assignments with the next runs of their configurations."""
    now, wanted = datetime.now(UTC), {each.configuration_id for each in found}
    read = await asyncio.gather(*(services.maintenance.read(each) for each in wanted if each))
    known = {each.configuration_id: each for each in read if isinstance(each, MaintenanceConfiguration)}
    views = [
        _assigned(each, known.get(each.configuration_id) if each.configuration_id else None, now) for each in found
    ]
    return AssignmentList(assignments=views, notes=notes)


def _assigned(
    assignment: Assignment, configuration: MaintenanceConfiguration | None, now: datetime
) -> AssignedSchedule:
    following = configuration.next_occurrence(now) if configuration else None
    notes: list[str] = []
    if configuration is None:
        notes.append("Its configuration is gone or cannot be read: nothing is patched by it.")
    elif following is None:
        notes.append(f"Its configuration never runs: {configuration.unreadable or 'the schedule has ended'}.")
    return AssignedSchedule(
        assignment=assignment,
        dynamic=assignment.is_dynamic,
        next_run=following.at_utc if following else None,
        notes=notes,
    )


@asynccontextmanager
async def _in_time() -> AsyncGenerator[None]:
    try:
        async with time_limit("The assignments", MAX_SECONDS):
            yield
    except QueryRefused as error:
        raise FleetUnreadable(f"The assignments could not be looked up. {error}") from error
