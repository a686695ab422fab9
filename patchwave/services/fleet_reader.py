"""Reading the fleet while a caller waits: a scope from a query, and its machines with what they are set to.

Bounded in machines and in time, since Azure cuts an HTTP answer off after 230 seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import wraps
from weakref import WeakKeyDictionary

import azure.functions as func
from pydantic import ValidationError

from patchwave.api.endpoint import Parameter
from patchwave.api.http import Refusal, query_of
from patchwave.azure.resource_graph import QueryRefused, Row, open_resource_graph
from patchwave.azure.vm_agents import open_agent_versions
from patchwave.domain.core.documents import Json
from patchwave.domain.core.validation import explain
from patchwave.domain.drift.fleet_index import FleetIndex
from patchwave.domain.drift.inputs import DriftInputs, FleetPolicy
from patchwave.domain.fleet.discovery import DiscoveryQuery, build_queries
from patchwave.domain.fleet.machine import SETTINGS_COLUMNS, FleetMachine, select_fleet
from patchwave.domain.maintenance.assignment import read_assignment
from patchwave.domain.maintenance.configuration import read_configuration
from patchwave.domain.maintenance.queries import all_assignments, all_configurations
from patchwave.domain.policy.policy import PolicyError
from patchwave.domain.policy.scope import Scope
from patchwave.domain.policy.stored_policies import parse_stored_policy
from patchwave.storage import Storage

MAX_MACHINES = 20_000
"""Machines that one answer holds: about 20 MB of JSON."""
MAX_SECONDS = 140.0
"""For Resource Graph; versions of agents may take a minute more."""
_MAX_INDEX = 200.0
_MAX_SHOWN_LENGTH = 300
_MAX_SHOWN = 3
MAX_READS = 4
"""Reads of the fleet at the same time in one worker: each holds a fleet in memory, and waits for the same quota."""
_COME_AGAIN_SECONDS = 10
TOO_MANY_READS = {429: f"{MAX_READS} reads of the fleet are under way already."}
FLEET_REFUSES = TOO_MANY_READS | {
    422: f"The scope has more than {MAX_MACHINES:,} machines.",
    502: "Azure refuses to list the machines.",
    503: "The storage cannot be reached, or reading the fleet takes too long.",
}

_LISTS: Mapping[str, str] = {
    "subscription": "subscriptions",
    "resourceGroup": "resourceGroups",
    "location": "locations",
    "osType": "osTypes",
    "machine": "machineIds",
}
_TEXT: Json = {"type": "string", "maxLength": 4_096}
SCOPE_QUERY = (
    Parameter("subscription", _TEXT, "Ids of subscriptions, separated by commas; all that can be read unless given."),
    Parameter("resourceGroup", _TEXT, "Names of resource groups."),
    Parameter("location", _TEXT, "Regions."),
    Parameter("osType", _TEXT, "Windows or Linux."),
    Parameter("machine", _TEXT, "ARM ids of machines."),
)
"""The scope of a read, in its query: entries of one list are alternatives, every list given must match."""


_under_way: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
"""How many reads of the fleet each event loop has; a worker has one."""


def one_of_few[**Arguments](
    handler: Callable[Arguments, Awaitable[func.HttpResponse]],
) -> Callable[Arguments, Awaitable[func.HttpResponse]]:
    """Let the handler run only while few others of its kind do; else it refuses with 429 and ``Retry-After``."""

    @wraps(handler)
    async def handle(*args: Arguments.args, **kwargs: Arguments.kwargs) -> func.HttpResponse:
        loop = asyncio.get_running_loop()
        if _under_way.get(loop, 0) >= MAX_READS:
            raise Refusal(
                429,
                f"{MAX_READS} reads of the fleet are under way; repeat the request when one has ended.",
                headers={"Retry-After": str(_COME_AGAIN_SECONDS)},
            )
        _under_way[loop] = _under_way.get(loop, 0) + 1
        try:
            return await handler(*args, **kwargs)
        finally:
            _under_way[loop] -= 1

    return handle


def read_scope(request: func.HttpRequest) -> Scope:
    """The scope in a query; without parameters all that the identity can read.

    Raises:
        Refusal: 400 when a value is none of its kind.
    """
    found = {
        key: [item.strip() for item in text.split(",") if item.strip()]
        for name, key in _LISTS.items()
        if (text := query_of(request, name))
    }
    try:
        return Scope.from_wire(found)
    except ValidationError as error:
        raise Refusal(400, "The query is not valid.", errors=explain(error, Scope)) from None


async def read_fleet(scope: Scope) -> list[FleetMachine]:
    """The machines of a scope, each once, ordered by id.

    Raises:
        Refusal: 422 when there are too many, 502 when Resource Graph refuses, 503 when it takes too long.
    """
    found: dict[str, FleetMachine] = {}
    try:
        async with asyncio.timeout(MAX_SECONDS):
            # A scope may name 2,000 machines, whose ids are all written into queries.
            queries = await asyncio.to_thread(build_queries, scope, SETTINGS_COLUMNS)
            async for page in open_resource_graph().pages(queries):
                for machine in select_fleet(scope, page.rows):
                    found.setdefault(machine.folded, machine)
                if len(found) > MAX_MACHINES:
                    raise Refusal(422, f"The scope has more than {MAX_MACHINES:,} machines: narrow it.")
    except QueryRefused as refusal:
        raise Refusal(502, f"The machines could not be listed. {refusal}") from refusal
    except TimeoutError:
        raise _too_slow(MAX_SECONDS) from None
    return [found[folded] for folded in sorted(found)]


async def read_with_agents(scope: Scope) -> tuple[list[FleetMachine], list[str]]:
    """The same with the versions of VM agents, and notes on those that cannot be read: those machines have none.

    Raises:
        Refusal: as `read_fleet`.
    """
    fleet = await read_fleet(scope)
    subscriptions = {each.found.machine_id.subscription_id for each in fleet if not each.found.problem}
    versions, notes = await open_agent_versions().read(sorted(subscriptions))

    def with_versions() -> list[FleetMachine]:
        return [replace(machine, agent_version=versions.get(machine.folded, "")) for machine in fleet]

    # As long as the fleet is large: other requests of this process go on meanwhile.
    return await asyncio.to_thread(with_versions), notes


async def read_rows(query: str) -> list[Row]:
    """All rows of a query over everything that the identity can read.

    Raises:
        QueryRefused: Resource Graph refuses it.
    """
    pages = open_resource_graph().pages([DiscoveryQuery(text=query)])
    return [row async for page in pages for row in page.rows]


def read_each[Found](
    rows: Iterable[Row], read: Callable[[Row], Found | None], what: str
) -> tuple[list[Found], list[str]]:
    """What can be read of the rows, and a note on the others."""
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
    """The stored policies with what people have ordered for them, and a note on each that cannot be read any more."""
    policies: list[FleetPolicy] = []
    notes: list[str] = []
    for stored in await storage.policies.list_all():
        try:
            policy = parse_stored_policy(stored.document, name=stored.name)
        except PolicyError as error:
            notes.append(f"The policy {stored.name} is not valid any more and was not judged: {error}.")
            continue
        pause = (await storage.overrides.get(policy.name)).pause
        policies.append(FleetPolicy(policy, f"is paused by {pause.by}: {pause.reason}" if pause else ""))
    return policies, notes


async def read_index(storage: Storage, scope: Scope) -> tuple[FleetIndex, list[str]]:
    """The machines of a scope with agents, schedules and policies, by machine; and notes on what could not be read.

    Raises:
        Refusal: as `read_fleet`.
    """
    try:
        async with asyncio.timeout(_MAX_INDEX):
            (fleet, unread), configurations, assignments, (policies, notes) = await asyncio.gather(
                read_with_agents(scope),
                read_rows(all_configurations()),
                read_rows(all_assignments()),
                read_policies(storage),
            )
    except QueryRefused as refusal:
        raise Refusal(502, f"The schedules could not be listed. {refusal}") from refusal
    except TimeoutError:
        raise _too_slow(_MAX_INDEX) from None

    def index() -> tuple[FleetIndex, list[str]]:
        schedules, odd_schedules = read_each(configurations, read_configuration, "maintenance configurations")
        assigned, odd_assignments = read_each(assignments, read_assignment, "assignments")
        facts = DriftInputs(machines=fleet, configurations=schedules, assignments=assigned, policies=policies)
        return FleetIndex(facts, datetime.now(UTC)), [*unread, *notes, *odd_schedules, *odd_assignments]

    # As long as the fleet is large: other requests of this process go on meanwhile.
    return await asyncio.to_thread(index)


def _too_slow(seconds: float) -> Refusal:
    return Refusal(
        503,
        f"The fleet could not be read in {seconds:.0f} seconds; repeat the request, or narrow the scope.",
        headers={"Retry-After": "60"},
    )
