"""Imports maintenance configurations of Update Manager as policies. Nothing is stored, and nothing is changed."""

from __future__ import annotations

from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.core.validation import Problem
from patchwave.domain.maintenance.import_policy import ImportResult, policies_of
from patchwave.domain.policy.policy import PolicyError
from patchwave.services.maintenance_assignments import read_with_assignments
from patchwave.services.policy_guardrails import check_permitted
from patchwave.wiring import Services


async def import_policies(services: Services, identity: ConfigurationId, name: str) -> ImportResult:
    """What a maintenance configuration and its assignments are as policies, with what this app would refuse of them.

    Raises:
        ServiceError: as `read_with_assignments`.
    """
    configuration, assignments = await read_with_assignments(services, identity)
    moved = policies_of(configuration, assignments, name)
    problems: list[Problem] = []
    for number, policy in enumerate(moved.policies):
        try:
            check_permitted(services.settings, policy)
        except PolicyError as error:
            problems += [Problem(path=f"policies[{number}].{each.path}", message=each.message) for each in error.errors]
    return moved.model_copy(update={"problems": [*moved.problems, *problems]})
