"""Dry runs over HTTP: what a run of a policy would do on the live fleet."""

from __future__ import annotations

from azure.functions import HttpRequest

from patchwave.api.endpoint import RequestBody, route
from patchwave.api.requests import FLEET_PROBLEMS, PlanRequest
from patchwave.domain.core.principal import Role
from patchwave.domain.planning.plan import Plan
from patchwave.services.dry_run import MAX_MACHINES, plan_live_fleet
from patchwave.services.fleet_reader import one_of_few
from patchwave.services.start_run import requested_policy
from patchwave.wiring import Services


@route(
    "POST",
    "plans",
    role=Role.READER,
    body=RequestBody(PlanRequest, {"stored": {"policy": "monthly"}}),
    problems=FLEET_PROBLEMS
    | {404: "There is no policy of this name.", 422: f"The policy is for more than {MAX_MACHINES:,} machines."},
)
@one_of_few
async def plan_dry_run(req: HttpRequest, services: Services, body: PlanRequest) -> Plan:
    """The plan of a run of a stored or an inline policy, starting now (docs/explanation/rollout-planning.md)."""
    policy = (await requested_policy(services, body.policy, body.overrides)).policy
    return await plan_live_fleet(services, policy)
