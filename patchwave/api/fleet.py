"""Patch status and modes of a fleet's machines, and the machines that guest patching does not support."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import Annotated

from azure.functions import HttpRequest
from pydantic import Field

from patchwave.api.endpoint import route
from patchwave.api.http import Flag, WholeNumber, comma_separated
from patchwave.api.requests import FLEET_PROBLEMS, ScopeQuery
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.folding import fold
from patchwave.domain.core.principal import Role
from patchwave.domain.drift.patch_mode_report import MachineModes, PatchModeCounts, PatchSource, count, describe
from patchwave.domain.drift.patch_status_report import MachineStatus, PatchStatusCounts, count_status
from patchwave.domain.fleet.eligibility import Eligibility
from patchwave.domain.fleet.machine import FleetMachine
from patchwave.domain.fleet.patch_status import EnablementState
from patchwave.domain.fleet.supported_images import DOCUMENT_DATE, READ_ON
from patchwave.services.computation import compute
from patchwave.services.fleet_reader import MAX_MACHINES, one_of_few, read_index, read_with_agents
from patchwave.services.patch_status import read_patch_status
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


class FleetPatchStatus(Document):
    """Machines with their status. The counts are of the scope, whatever else the query leaves out."""

    at: UtcDatetime
    counts: PatchStatusCounts
    machines: list[MachineStatus]
    cursor: str | None = Field(description="For the next page, which reads the fleet again; null on the last one.")
    notes: list[str]


class StatusQuery(ModesQuery):
    """The same, perhaps only of machines of a policy, or in some state."""

    policy: str = Field(default="", max_length=32, description="Only machines that this policy covers and will patch.")
    enablement: Annotated[list[EnablementState], comma_separated(100)] = Field(
        default=[], description=f"Only these, separated by commas: {', '.join(EnablementState)}."
    )
    reboot_pending: Flag | None = Field(default=None, description="Only machines with, or without, a pending reboot.")
    cursor: str | None = Field(default=None, max_length=1_000, description="From the previous page; opaque.")

    def takes(self, machine: MachineStatus) -> bool:
        """Whether the machine is wanted."""
        return (
            (not self.patched_by or machine.patched_by in self.patched_by)
            and (not self.policy or self.policy in machine.policies)
            and (not self.enablement or machine.enablement.state in self.enablement)
            and (self.reboot_pending is None or self.reboot_pending is (machine.status.reboot_pending is True))
        )


@route("GET", "fleet/status", role=Role.READER, problems=FLEET_PROBLEMS)
@one_of_few
async def list_fleet_status(req: HttpRequest, services: Services, query: StatusQuery) -> FleetPatchStatus:
    """Per machine its last assessment and installation, its patch extension, and what patches it next.

    A query that names one machine reads its instance view, which is current; any other one is answered from Resource
    Graph, which is minutes behind.
    """
    found = await read_patch_status(services, query.to_scope())

    def report() -> FleetPatchStatus:
        after = query.cursor or ""
        wanted = [each for each in found.machines if query.takes(each) and fold(each.id) > after]
        shown = wanted[: query.limit]
        return FleetPatchStatus(
            at=datetime.now(UTC),
            counts=count_status(found.machines),
            machines=shown,
            cursor=fold(shown[-1].id) if len(wanted) > len(shown) else None,
            notes=found.notes,
        )

    return await compute(report)


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

    return await compute(report)


@route("GET", "fleet/eligibility", role=Role.READER, problems=FLEET_PROBLEMS, uses_storage=False)
@one_of_few
async def list_fleet_eligibility(req: HttpRequest, services: Services, query: EligibilityQuery) -> FleetEligibility:
    """The machines that Azure's guest patching does not take, and why not."""
    fleet, notes = await read_with_agents(services, query.to_scope())
    return await compute(partial(_eligibility, fleet, query.limit, notes))


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
