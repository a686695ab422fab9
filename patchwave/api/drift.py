"""Drift detection over HTTP: reads the whole fleet from Resource Graph while the caller waits, then evaluates it.

Some fifty pages for 10,000 machines, at 15 queries in 5 seconds: well within the time limit of a response.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import azure.functions as func

from patchwave.api.endpoint import ParameterSpec, ResponseSpec, route
from patchwave.api.http import json_response, number_of, query_of, words_of
from patchwave.api.problems import ApiProblem
from patchwave.api.requests import FLEET_PROBLEMS
from patchwave.azure.resource_graph import QueryRefused
from patchwave.domain.core.principal import Role
from patchwave.domain.drift.detect import examine
from patchwave.domain.drift.findings import DriftReport, FindingKind
from patchwave.domain.drift.inputs import (
    DriftInputs,
    excluded_patches,
    first_and_last_runs,
    newest_assessments,
    read_assessments,
    read_runs,
    with_exclusions,
    with_own,
)
from patchwave.domain.maintenance.assignment import read_assignment
from patchwave.domain.maintenance.configuration import read_configuration
from patchwave.domain.maintenance.queries import all_assignments, all_configurations
from patchwave.domain.policy.scope import Scope
from patchwave.services.fleet_reader import one_of_few, read_each, read_fleet, read_policies, read_rows
from patchwave.storage import Storage, open_storage

DEFAULT_STALE_DAYS = 7
"""Azure keeps an assessment for as long."""
MAX_STALE_DAYS = 365
MAX_FINDINGS = 20_000
"""Findings in one response: about 12 MB of JSON."""
MAX_SECONDS = 180.0
"""Azure ends an HTTP request after 230 seconds; evaluation needs a few of them after the reads."""

_QUERY = (
    ParameterSpec(
        "staleDays",
        {"type": "integer", "minimum": 1, "maximum": MAX_STALE_DAYS, "default": DEFAULT_STALE_DAYS},
        "Assessments older than so many days are stale.",
    ),
    ParameterSpec(
        "kind",
        {"type": "string", "maxLength": 300},
        f"Only these kinds of findings, separated by commas: {', '.join(FindingKind)}.",
        "unpatched,same_start",
    ),
    ParameterSpec(
        "subject",
        {"type": "string", "maxLength": 1_000},
        "Only findings on a machine or configuration whose id holds this text, such as a name or a resource group.",
        "rg-web",
    ),
    ParameterSpec(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_FINDINGS, "default": MAX_FINDINGS},
        "How many findings at most; the counts are of all that the other parameters ask for.",
    ),
)


@route(
    "GET",
    "fleet/doctor",
    ResponseSpec(200, DriftReport),
    role=Role.READER,
    query=_QUERY,
    problems={400: "The query is not valid."} | FLEET_PROBLEMS,
)
@one_of_few
async def examine_fleet(req: func.HttpRequest) -> func.HttpResponse:
    """Drift over the whole fleet: what silently patches nothing, or twice, and the command that mends it."""
    stale_days = number_of(req, "staleDays", DEFAULT_STALE_DAYS, MAX_STALE_DAYS)
    limit = number_of(req, "limit", MAX_FINDINGS, MAX_FINDINGS)
    kinds, subject = words_of(req, "kind", FindingKind), query_of(req, "subject")
    now = datetime.now(UTC)
    try:
        async with asyncio.timeout(MAX_SECONDS):
            facts = await _gather(open_storage(), now)
    except QueryRefused as refusal:
        raise ApiProblem(502, f"The fleet could not be read. {refusal}") from refusal
    except TimeoutError:
        raise ApiProblem(
            503,
            f"The fleet could not be read in {MAX_SECONDS:.0f} seconds; repeat the request.",
            headers={"Retry-After": "60"},
        ) from None

    def report() -> func.HttpResponse:
        return json_response(examine(facts, now, stale_days).only(kinds, subject, limit).to_wire())

    # In a thread: seconds of computation for a large fleet would block other requests.
    return await asyncio.to_thread(report)


async def _gather(storage: Storage, now: datetime) -> DriftInputs:
    """Stored data, then Azure's tables in parallel.

    Raises:
        QueryRefused: Resource Graph refuses one of the tables.
        ApiProblem: there are too many machines, or they cannot be listed.
    """
    policies, notes = await read_policies(storage)
    own = await storage.history.last_assessments()
    fleet, configurations, assignments, assessments, excused, runs = await asyncio.gather(
        read_fleet(Scope()),
        read_rows(all_configurations()),
        read_rows(all_assignments()),
        read_rows(newest_assessments()),
        read_rows(excluded_patches(now)),
        read_rows(first_and_last_runs()),
    )

    def facts() -> DriftInputs:
        schedules, odd_schedules = read_each(configurations, read_configuration, "maintenance configurations")
        assigned, odd_assignments = read_each(assignments, read_assignment, "assignments")
        return DriftInputs(
            machines=fleet,
            configurations=schedules,
            assignments=assigned,
            assessments=with_own(with_exclusions(read_assessments(assessments), excused), fleet, own),
            runs=read_runs(runs),
            policies=policies,
            notes=[*notes, *odd_schedules, *odd_assignments],
        )

    # In a thread: a large fleet would block other requests.
    return await asyncio.to_thread(facts)
