"""Drift detection over HTTP."""

from __future__ import annotations

from typing import Annotated

from azure.functions import HttpRequest
from pydantic import Field

from patchwave.api.endpoint import route
from patchwave.api.http import Query, WholeNumber, comma_separated
from patchwave.api.requests import FLEET_PROBLEMS
from patchwave.domain.core.principal import Role
from patchwave.domain.drift.findings import DriftReport, FindingKind
from patchwave.services.drift import detect_drift
from patchwave.services.fleet_reader import one_of_few
from patchwave.wiring import Services

DEFAULT_STALE_DAYS = 7
"""Azure keeps an assessment for as long."""
MAX_STALE_DAYS = 365
MAX_FINDINGS = 20_000
"""Findings in one response: about 12 MB of JSON."""


class DriftQuery(Query):
    """Which findings are wanted."""

    stale_days: WholeNumber = Field(
        default=DEFAULT_STALE_DAYS,
        ge=1,
        le=MAX_STALE_DAYS,
        description="Assessments older than so many days are stale.",
    )
    kind: Annotated[list[FindingKind], comma_separated(300)] = Field(
        default=[],
        description=f"Only these kinds of findings, separated by commas: {', '.join(FindingKind)}.",
        examples=["unpatched,same_start"],
    )
    subject: str = Field(
        default="",
        max_length=1_000,
        description="Only findings on a machine or configuration whose id holds this text, such as a name or a resource"
        " group.",
        examples=["rg-web"],
    )
    limit: WholeNumber = Field(
        default=MAX_FINDINGS,
        ge=1,
        le=MAX_FINDINGS,
        description="Maximum number of findings; the counts are of all that the other parameters ask for.",
    )


@route("GET", "fleet/doctor", role=Role.READER, problems=FLEET_PROBLEMS)
@one_of_few
async def examine_fleet(req: HttpRequest, services: Services, query: DriftQuery) -> DriftReport:
    """Drift over the whole fleet: what silently patches nothing, or twice, and the command that mends it."""
    return await detect_drift(services, query.stale_days, query.kind, query.subject, query.limit)
