"""Reads the fleet for an HTTP caller: the machines of a scope with their settings.

Bounded in machines and time, because Azure ends an HTTP request after 230 seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial, wraps
from typing import Any
from weakref import WeakKeyDictionary

from patchwave.azure.resource_graph import QueryRefused, ResourceGraph, Row
from patchwave.domain.drift.fleet_index import FleetIndex
from patchwave.domain.drift.inputs import (
    DriftInputs,
    FleetPolicy,
    LastAssessment,
    read_assessments,
    with_answers,
)
from patchwave.domain.fleet.discovery import DiscoveryQuery, build_queries, twins_queries
from patchwave.domain.fleet.machine import SETTINGS_COLUMNS, FleetMachine, select_fleet, without_twins
from patchwave.domain.fleet.packed_rows import PackedTable, unpack_rows
from patchwave.domain.fleet.patch_status import ASSESSMENTS
from patchwave.domain.fleet.supported_images import IMAGE_TABLE, ImageTable
from patchwave.domain.maintenance.assignment import read_assignment
from patchwave.domain.maintenance.configuration import read_configuration
from patchwave.domain.maintenance.queries import PACKED_ASSIGNMENTS, all_configurations
from patchwave.domain.policy.policy import PolicyError
from patchwave.domain.policy.scope import Scope
from patchwave.domain.policy.stored_policies import parse_stored_policy
from patchwave.services.computation import compute
from patchwave.services.errors import NARROW, FleetTooLarge, FleetUnreadable, TooManyReads, time_limit
from patchwave.storage import Storage
from patchwave.wiring import Services

MAX_MACHINES = 20_000
"""Machines in one response: about 20 MB of JSON."""
MAX_SECONDS = 140.0
"""Limit for Resource Graph; agent versions may take a minute more."""
_MAX_INDEX = 200.0
_MAX_ANSWERS = 50.0
"""As agent versions, which are read at the same time."""
_MAX_SHOWN_LENGTH = 300
_MAX_SHOWN = 3
MAX_READS = 4
"""Concurrent fleet reads in one worker: each holds a fleet in memory, and all share one quota."""
_RETRY_SECONDS = 10
_in_progress: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
"""Current fleet reads per event loop; a worker has one."""


def one_of_few[**Arguments, Result](
    handler: Callable[Arguments, Awaitable[Result]],
) -> Callable[Arguments, Awaitable[Result]]:
    """Limit concurrent calls of functions that read the fleet; raises `TooManyReads` above the limit."""

    @wraps(handler)
    async def handle(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        loop = asyncio.get_running_loop()
        if _in_progress.get(loop, 0) >= MAX_READS:
            raise TooManyReads(
                f"{MAX_READS} reads of the fleet are in progress; repeat the request when one has ended.",
                retry_after=_RETRY_SECONDS,
            )
        _in_progress[loop] = _in_progress.get(loop, 0) + 1
        try:
            return await handler(*args, **kwargs)
        finally:
            _in_progress[loop] -= 1

    return handle


async def read_fleet(graph: ResourceGraph, scope: Scope, images: ImageTable = IMAGE_TABLE) -> list[FleetMachine]:
    """The machines of a scope, each once, ordered by id; their images are judged by this table.

    Raises:
        FleetTooLarge: the scope has too many machines.
        FleetUnreadable: Resource Graph refuses.
        FleetTooSlow: the time limit is exceeded.
    """
    found: dict[str, FleetMachine] = {}
    try:
        async with time_limit("The fleet", MAX_SECONDS, NARROW):
            # In a thread: a scope may have 2,000 machines, whose ids are all written into queries.
            queries = await asyncio.to_thread(build_queries, scope, SETTINGS_COLUMNS)
            async for page in graph.pages(queries):
                for machine in await compute(partial(select_fleet, scope, page.rows, images)):
                    found.setdefault(machine.folded, machine)
                if len(found) > MAX_MACHINES:
                    raise FleetTooLarge(f"The scope has more than {MAX_MACHINES:,} machines: narrow it.")
            queries = await asyncio.to_thread(twins_queries, [machine.found for machine in found.values()])
            twins = [row async for page in graph.pages(queries) for row in page.rows] if queries else []
    except QueryRefused as refusal:
        raise FleetUnreadable(f"The machines could not be listed. {refusal}") from refusal
    return without_twins([found[folded] for folded in sorted(found)], twins)


async def read_with_agents(services: Services, scope: Scope) -> tuple[list[FleetMachine], list[str]]:
    """`read_fleet` with agent versions and Azure's answers, and notes on unreadable ones, which stay empty.

    Raises:
        ServiceError: as `read_fleet`.
    """
    fleet = await read_fleet(services.resource_graph, scope, services.settings.image_table)
    (versioned, notes), (assessments, unread) = await asyncio.gather(
        with_agent_versions(services, fleet), _read_answers(services.resource_graph, fleet)
    )
    return await asyncio.to_thread(with_answers, versioned, assessments), [*notes, *unread]


async def _read_answers(
    graph: ResourceGraph, fleet: Sequence[FleetMachine]
) -> tuple[dict[str, LastAssessment], list[str]]:
    """The newest assessments, read only when they decide on an image that the table lacks."""
    # In a thread: images of a large fleet are judged for the first time here.
    if not await asyncio.to_thread(lambda: any(machine.eligibility.is_image_undecided for machine in fleet)):
        return {}, []
    try:
        async with asyncio.timeout(_MAX_ANSWERS):
            rows, left_out = await read_packed(graph, ASSESSMENTS, Scope())
        shown = ({**row, "at": row.get("modifiedAt"), "errors": row.get("error")} for row in rows)
        return read_assessments(shown), left_out
    except TimeoutError:
        why = f"reading the assessments takes more than {_MAX_ANSWERS:.0f} seconds"
    except QueryRefused as refusal:
        why = str(refusal).rstrip(".")
    return {}, [f"What Azure last answered for machines whose image the table lacks is not known: {why}."]


async def with_agent_versions(
    services: Services, fleet: Sequence[FleetMachine]
) -> tuple[list[FleetMachine], list[str]]:
    """The machines with their agent versions, and notes on unreadable ones, which stay empty."""
    subscriptions = {each.found.machine_id.subscription_id for each in fleet if not each.found.problem}
    versions, notes = await services.agent_versions.read(sorted(subscriptions))

    def with_versions() -> list[FleetMachine]:
        return [replace(machine, agent_version=versions.get(machine.folded, "")) for machine in fleet]

    return await compute(with_versions), notes


async def read_rows(graph: ResourceGraph, query: str) -> list[Row]:
    """All rows of a query over everything that the identity can read.

    Raises:
        QueryRefused: Resource Graph refuses it.
    """
    pages = graph.pages([DiscoveryQuery(text=query)])
    return [row async for page in pages for row in page.rows]


async def read_packed(
    graph: ResourceGraph, table: PackedTable, scope: Scope
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The rows of a packed table for the machines of a scope, and a note on rows that Azure left out.

    Raises:
        QueryRefused: Resource Graph refuses it.
    """
    rows = [row async for page in graph.pages(table.queries(scope)) for row in page.rows]
    unpacked, missing = await compute(partial(unpack_rows, rows))
    return unpacked, [f"Resource Graph left out {missing:,} rows of {table.kind}."] if missing else []


def read_each[Found](
    rows: Iterable[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], Found | None], what: str
) -> tuple[list[Found], list[str]]:
    """The readable rows, and a note on the others."""
    found: list[Found] = []
    others: list[str] = []
    for row in rows:
        one = read(row)
        if one is None:
            others.append(str(row.get("id"))[:_MAX_SHOWN_LENGTH])
        else:
            found.append(one)
    if not others:
        return found, []
    shown = ", ".join(sorted(others)[:_MAX_SHOWN])
    return found, [f"{len(others):,} {what} have ids that cannot be read and were not judged: {shown}."]


async def read_policies(storage: Storage) -> tuple[list[FleetPolicy], list[str]]:
    """The stored policies with their overrides, and a note on each unreadable one."""
    policies: list[FleetPolicy] = []
    notes: list[str] = []
    for stored in await storage.policies.list_all():
        try:
            policy = parse_stored_policy(stored.document, name=stored.name)
        except PolicyError as error:
            notes.append(f"The policy {stored.name} is not valid any more and was not judged: {error}.")
            continue
        overrides = await storage.overrides.get(policy.name)
        pause = overrides.pause
        resting = f"is {pause.sentence}" if pause else ""
        policies.append(FleetPolicy(policy, resting, overrides))
    return policies, notes


async def read_index(services: Services, scope: Scope) -> tuple[FleetIndex, list[str]]:
    """The machines of a scope with agents, schedules and policies; and notes on unreadable data.

    Raises:
        ServiceError: as `read_fleet`.
    """
    try:
        async with time_limit("The fleet", _MAX_INDEX, NARROW):
            (fleet, unread), configurations, (assignments, left_out), (policies, notes) = await asyncio.gather(
                read_with_agents(services, scope),
                read_rows(services.resource_graph, all_configurations()),
                read_packed(services.resource_graph, PACKED_ASSIGNMENTS, Scope()),
                read_policies(services.storage),
            )
    except QueryRefused as refusal:
        raise FleetUnreadable(f"The schedules could not be listed. {refusal}") from refusal

    def index() -> tuple[FleetIndex, list[str]]:
        schedules, odd_schedules = read_each(configurations, read_configuration, "maintenance configurations")
        assigned, odd_assignments = read_each(assignments, read_assignment, "assignments")
        facts = DriftInputs(machines=fleet, configurations=schedules, assignments=assigned, policies=policies)
        return FleetIndex(facts, datetime.now(UTC)), [*unread, *notes, *left_out, *odd_schedules, *odd_assignments]

    return await compute(index)
