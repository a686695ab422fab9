"""Dry runs: what a run of a policy would do on the live fleet. Nothing is locked, stored or started.

Reads from Azure while the caller waits, so it is bounded in machines and in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from patchwave.azure.pipeline import boundary_of
from patchwave.azure.resource_graph import QueryRefused
from patchwave.domain.azure.install_request import LinuxParameters, WindowsParameters
from patchwave.domain.core.documents import object_or_none
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.core.patches import AssessmentSummary
from patchwave.domain.fleet.discovery import (
    DiscoveredMachine,
    build_queries,
    evaluate_boundary,
    evaluate_duplicates,
    select_machines,
    twins_queries,
)
from patchwave.domain.fleet.scale_sets import ScaleSet, read_scale_set, scale_set_queries
from patchwave.domain.machine.patch_selection import rule_of, select, wanted_on
from patchwave.domain.planning import dry_run
from patchwave.domain.planning.dry_run import FoundMachine
from patchwave.domain.planning.plan import Plan
from patchwave.domain.policy.policy import Policy
from patchwave.domain.policy.scope import OsType, Scope
from patchwave.services.errors import NARROW, FleetTooLarge, FleetUnreadable, time_limit
from patchwave.storage import Storage, in_parallel
from patchwave.wiring import Services

MAX_MACHINES = 5_000
"""Machines in one response: about 3 MB of JSON."""
MAX_SECONDS = 120.0
"""Azure ends an HTTP request after 230 seconds, of which planning needs a part."""
ASSESSMENT_HOLDS = timedelta(hours=24)
"""How long an assessment without pending patches counts: updates are released daily."""
MAX_LISTS = 1_000
"""Patch lists that one dry run reads; for further machines, every pending patch counts as selected."""
_FLEET_PAGE = 1_000
_PARALLEL = 50
_NOTHING_DONE = (OutcomeKind.ASSESSED, OutcomeKind.NOTHING_TO_INSTALL, OutcomeKind.SKIPPED, OutcomeKind.CANCELED)


async def plan_live_fleet(services: Services, policy: Policy) -> Plan:
    """The plan of a run of the policy that starts now.

    Raises:
        FleetTooLarge: the policy is for too many machines.
        FleetUnreadable: Resource Graph refuses.
        FleetTooSlow: the time limit is exceeded.
    """
    storage = services.storage
    async with time_limit("The fleet", MAX_SECONDS, NARROW):
        found = await _find(services, policy.scope)
        pending, seconds, topology, scale_sets = await asyncio.gather(
            _pending(storage, policy, found, datetime.now(UTC)),
            storage.history.install_seconds(),
            services.locations.read({machine.subscription_id for machine in found if not machine.problem}),
            _scale_sets(services, found),
        )
    machines = [
        FoundMachine(machine, pending=pending.get(key), seconds=seconds.get(key))
        for machine, key in ((machine, machine.machine_id.key) for machine in found)
    ]

    topology = topology.with_scale_sets(scale_sets)
    # In a thread: seconds of computation for a large fleet would block other requests.
    return (await asyncio.to_thread(dry_run.plan_dry_run, machines, policy, topology, datetime.now(UTC))).plan


async def _scale_sets(services: Services, found: Sequence[DiscoveredMachine]) -> list[ScaleSet]:
    """What Resource Graph tells of the scale sets that the machines are members of."""
    queries = scale_set_queries(machine.scale_set_id for machine in found if not machine.problem)
    try:
        rows = [row async for page in services.resource_graph.pages(queries) for row in page.rows]
    except QueryRefused as refusal:
        raise FleetUnreadable(f"The scale sets could not be listed. {refusal}") from refusal
    return [each for each in map(read_scale_set, rows) if each is not None]


async def _find(services: Services, scope: Scope) -> Sequence[DiscoveredMachine]:
    """The machines of a scope."""
    found: dict[str, DiscoveredMachine] = {}
    try:
        queries = await asyncio.to_thread(build_queries, scope)
        boundary = boundary_of(services.settings)
        async for page in services.resource_graph.pages(queries):
            for machine in evaluate_boundary(select_machines(scope, page.rows), boundary):
                found.setdefault(machine.machine_id.folded, machine)
            if len(found) > MAX_MACHINES:
                raise FleetTooLarge(
                    f"The policy is for more than {MAX_MACHINES:,} machines, which is more than one answer holds:"
                    " narrow its scope with overrides, or plan an exported fleet with `patchwave plan --fleet`.",
                )
        pages = services.resource_graph.pages(twins_queries(found.values()))
        twins = [row async for page in pages for row in page.rows]
    except QueryRefused as refusal:
        raise FleetUnreadable(f"The machines could not be listed. {refusal}") from refusal
    return evaluate_duplicates([found[folded] for folded in sorted(found)], twins)


async def _pending(
    storage: Storage, policy: Policy, found: Sequence[DiscoveredMachine], now: datetime
) -> dict[str, int]:
    """The number of pending patches that the policy selects, by machine key, where known.

    It is known for machines whose latest run assessed them recently and patched nothing.
    """
    systems = {machine.machine_id.key: OsType.read(machine.os_type) for machine in found}
    pending: dict[str, int] = {}
    unjudged: list[_Assessed] = []
    cursor: str | None = None
    while True:
        page = await storage.history.list_fleet(_FLEET_PAGE, cursor)
        for row in page.items:
            key = str(row["key"])
            os_type = systems.get(key)
            assessment = object_or_none(row.get("assessment"))
            summary = AssessmentSummary.model_validate(assessment) if assessment else None
            is_lately = summary is not None and summary.at is not None and now - summary.at < ASSESSMENT_HOLDS
            if summary is None or not is_lately or row.get("outcome") not in _NOTHING_DONE or key not in systems:
                continue
            if os_type is None or not summary.pending:
                pending[key] = summary.pending
                continue
            wanted = wanted_on(policy.install, os_type)
            if summary.selection is not None and summary.selection.rule == rule_of(wanted):
                pending[key] = summary.selection.installable
            else:
                unjudged.append(_Assessed(key, str(row["runId"]), summary, wanted))
        cursor = page.cursor
        if cursor is None:
            break
    pending |= {one.key: one.summary.pending for one in unjudged[MAX_LISTS:]}
    return pending | await _judge(storage, unjudged[:MAX_LISTS])


class _Assessed(NamedTuple):
    """An assessment that was evaluated by another selection than the policy's."""

    key: str
    run_id: str
    summary: AssessmentSummary
    wanted: WindowsParameters | LinuxParameters


async def _judge(storage: Storage, assessed: Sequence[_Assessed]) -> dict[str, int]:
    """The number of selected patches by machine key. Without a stored list, all patches count."""

    async def judge(one: _Assessed) -> tuple[str, int]:
        patches = await storage.results.list_patches(one.run_id, one.key)
        return one.key, select(one.wanted, one.summary, patches).installable

    return dict(await in_parallel(judge, assessed, most=_PARALLEL))
