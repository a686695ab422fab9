"""Patch modes of a fleet's machines, and the machines that guest patching does not support."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date

import azure.functions as func

from patchwave.api.endpoint import INVALID_QUERY, ParameterSpec, ResponseSpec, route
from patchwave.api.http import json_response, number_of, words_of
from patchwave.api.requests import FLEET_PROBLEMS, SCOPE_QUERY, read_scope
from patchwave.domain.core.documents import Document
from patchwave.domain.core.principal import Role
from patchwave.domain.drift.patch_mode_report import MachineModes, PatchModeCounts, PatchSource, count, describe
from patchwave.domain.fleet.eligibility import Eligibility
from patchwave.domain.fleet.machine import FleetMachine
from patchwave.domain.fleet.supported_images import DOCUMENT_DATE, READ_ON
from patchwave.services.fleet_reader import (
    MAX_MACHINES,
    one_of_few,
    read_index,
    read_with_agents,
)
from patchwave.storage import open_storage


class FleetModes(Document):
    """Machines with their modes. The counts are of the scope, whatever else the query leaves out."""

    counts: PatchModeCounts
    machines: list[MachineModes]
    notes: list[str]


class IneligibleMachine(Document):
    """A machine that guest patching does not take as a whole, or of which that is not known."""

    id: str
    name: str
    subscription_id: str
    resource_group: str
    location: str
    os_type: str
    image: str
    agent_version: str
    eligibility: Eligibility


class FleetEligibility(Document):
    """Who is not eligible and why, by the table of images as it was read on that day.

    ``eligible`` counts the machines that nothing is known against; of ``unknown`` of them Azure does not tell all.
    """

    machines: int
    eligible: int
    unknown: int
    by_cause: dict[str, int]
    ineligible: list[IneligibleMachine]
    table_dated: date
    table_read_on: date
    notes: list[str]


_LIMIT = ParameterSpec(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": MAX_MACHINES, "default": MAX_MACHINES},
    "How many machines at most; the counts are of all.",
)
_PATCHED_BY = ParameterSpec(
    "patchedBy", {"type": "string", "maxLength": 100}, f"Only these, separated by commas: {', '.join(PatchSource)}."
)


@route(
    "GET",
    "fleet/modes",
    ResponseSpec(200, FleetModes),
    role=Role.READER,
    query=[*SCOPE_QUERY, _PATCHED_BY, _LIMIT],
    problems={400: INVALID_QUERY[400]} | FLEET_PROBLEMS,
)
@one_of_few
async def list_fleet_modes(req: func.HttpRequest) -> func.HttpResponse:
    """Per machine the patch and assessment mode, what will patch it and when, and whether nothing will."""
    scope, limit = read_scope(req), number_of(req, "limit", MAX_MACHINES, MAX_MACHINES)
    wanted = words_of(req, "patchedBy", PatchSource)
    index, notes = await read_index(open_storage(), scope)

    def report() -> func.HttpResponse:
        machines = [describe(standing) for standing in index.coverages]
        shown = [machine for machine in machines if not wanted or machine.patched_by in wanted]
        return json_response(FleetModes(counts=count(machines), machines=shown[:limit], notes=notes).to_wire())

    # In a thread: seconds of computation for a large fleet would block other requests.
    return await asyncio.to_thread(report)


@route(
    "GET",
    "fleet/eligibility",
    ResponseSpec(200, FleetEligibility),
    role=Role.READER,
    query=[*SCOPE_QUERY, _LIMIT],
    problems={400: INVALID_QUERY[400]} | FLEET_PROBLEMS,
    uses_storage=False,
)
@one_of_few
async def list_fleet_eligibility(req: func.HttpRequest) -> func.HttpResponse:
    """The machines that Azure's guest patching does not take, and why not."""
    scope, limit = read_scope(req), number_of(req, "limit", MAX_MACHINES, MAX_MACHINES)
    fleet, notes = await read_with_agents(scope)
    # In a thread: a large fleet would block other requests.
    return await asyncio.to_thread(lambda: json_response(_eligibility(fleet, limit, notes).to_wire()))


def _eligibility(fleet: Sequence[FleetMachine], limit: int, notes: list[str]) -> FleetEligibility:
    ineligible = [machine for machine in fleet if not machine.eligibility.is_eligible]
    causes: dict[str, int] = {}
    for machine in ineligible:
        for obstacle in machine.eligibility.obstacles:
            causes[obstacle.cause] = causes.get(obstacle.cause, 0) + 1
    listed = [
        IneligibleMachine(
            id=machine.found.id,
            name=machine.found.name,
            subscription_id=machine.found.subscription_id,
            resource_group=machine.found.resource_group,
            location=machine.found.location,
            os_type=machine.found.os_type,
            image=machine.found.image,
            agent_version=machine.agent_version,
            eligibility=machine.eligibility,
        )
        for machine in ineligible[:limit]
    ]
    return FleetEligibility(
        machines=len(fleet),
        eligible=len(fleet) - len(ineligible),
        unknown=sum(machine.eligibility.is_eligible and bool(machine.eligibility.unknown) for machine in fleet),
        by_cause=dict(sorted(causes.items())),
        ineligible=listed,
        table_dated=DOCUMENT_DATE,
        table_read_on=READ_ON,
        notes=notes,
    )
