"""Patch modes of a fleet's machines, and the machines that guest patching does not support."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Annotated

from azure.functions import HttpRequest
from pydantic import Field

from patchwave.api.endpoint import route
from patchwave.api.http import WholeNumber, comma_separated
from patchwave.api.requests import FLEET_PROBLEMS, ScopeQuery
from patchwave.domain.core.documents import Document
from patchwave.domain.core.principal import Role
from patchwave.domain.drift.patch_mode_report import MachineModes, PatchModeCounts, PatchSource, count, describe
from patchwave.domain.fleet.eligibility import Eligibility
from patchwave.domain.fleet.machine import FleetMachine
from patchwave.domain.fleet.supported_images import DOCUMENT_DATE, READ_ON
from patchwave.services.fleet_reader import MAX_MACHINES, one_of_few, read_index, read_with_agents
from patchwave.wiring import Services


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
    """The machines that are not eligible and why, by the table of images as it was read on that day.

    ``eligible`` counts the machines without a known obstacle; for ``unknown`` of them Azure's data is not complete, or
    the table lacks their image and no answer of Azure decides. ``byImage`` counts all machines.
    """

    machines: int
    eligible: int
    unknown: int
    by_cause: dict[str, int]
    by_image: dict[str, int]
    ineligible: list[IneligibleMachine]
    unlisted: list[IneligibleMachine] = Field(
        description="Machines without an obstacle whose image the table lacks, with how each was judged."
    )
    table_dated: date
    table_read_on: date
    notes: list[str]


class EligibilityQuery(ScopeQuery):
    """A scope, and how many of its machines are listed."""

    limit: WholeNumber = Field(
        default=MAX_MACHINES,
        ge=1,
        le=MAX_MACHINES,
        description="Maximum number of listed machines; the counts are of all.",
    )


class ModesQuery(EligibilityQuery):
    """The same, perhaps only of machines with some sources of patches."""

    patched_by: Annotated[list[PatchSource], comma_separated(100)] = Field(
        default=[], description=f"Only these, separated by commas: {', '.join(PatchSource)}."
    )


@route("GET", "fleet/modes", role=Role.READER, problems=FLEET_PROBLEMS)
@one_of_few
async def list_fleet_modes(req: HttpRequest, services: Services, query: ModesQuery) -> FleetModes:
    """Per machine the patch and assessment mode, what will patch it and when, and whether nothing will."""
    scope, wanted = query.to_scope(), query.patched_by
    index, notes = await read_index(services, scope)

    def report() -> FleetModes:
        machines = list(map(describe, index.coverages))
        shown = [machine for machine in machines if not wanted or machine.patched_by in wanted]
        return FleetModes(counts=count(machines), machines=shown[: query.limit], notes=notes)

    # In a thread: seconds of computation for a large fleet would block other requests.
    return await asyncio.to_thread(report)


@route("GET", "fleet/eligibility", role=Role.READER, problems=FLEET_PROBLEMS, uses_storage=False)
@one_of_few
async def list_fleet_eligibility(req: HttpRequest, services: Services, query: EligibilityQuery) -> FleetEligibility:
    """The machines that Azure's guest patching does not take, and why not."""
    fleet, notes = await read_with_agents(services, query.to_scope())
    # In a thread: a large fleet would block other requests.
    return await asyncio.to_thread(_eligibility, fleet, query.limit, notes)


def _eligibility(fleet: Sequence[FleetMachine], limit: int, notes: list[str]) -> FleetEligibility:
    ineligible = [machine for machine in fleet if not machine.eligibility.is_eligible]
    causes = Counter(obstacle.cause for machine in ineligible for obstacle in machine.eligibility.obstacles)
    unlisted = [machine for machine in fleet if machine.eligibility.is_eligible and machine.eligibility.image_note]
    images = Counter(machine.eligibility.image_support.value for machine in fleet)
    return FleetEligibility(
        machines=len(fleet),
        eligible=len(fleet) - len(ineligible),
        unknown=sum(machine.eligibility.is_eligible and bool(machine.eligibility.unknown) for machine in fleet),
        by_cause=dict(sorted(causes.items())),
        by_image=dict(sorted(images.items())),
        ineligible=list(map(_listed, ineligible[:limit])),
        unlisted=list(map(_listed, unlisted[: max(0, limit - len(ineligible))])),
        table_dated=DOCUMENT_DATE,
        table_read_on=READ_ON,
        notes=notes,
    )


def _listed(machine: FleetMachine) -> IneligibleMachine:
    columns = IneligibleMachine.model_fields.keys() - {"agent_version", "eligibility"}
    return IneligibleMachine(
        **{name: getattr(machine.found, name) for name in columns},
        agent_version=machine.agent_version,
        eligibility=machine.eligibility,
    )
