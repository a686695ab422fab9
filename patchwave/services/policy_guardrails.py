"""Checks policies against the app's settings: scripts, probe hosts, the boundary's subscriptions, and the resource
groups of snapshots.
"""

from __future__ import annotations

from collections.abc import Sequence

from patchwave.azure.pipeline import boundary_of
from patchwave.domain.core.ids import ConfigurationId, MachineId
from patchwave.domain.core.validation import Problem
from patchwave.domain.machine.hooks import scripts_are_off
from patchwave.domain.policy.boundary import Boundary, needs_boundary, outside
from patchwave.domain.policy.http_probe import host_of, may_be_listed
from patchwave.domain.policy.policy import Policy, PolicyError
from patchwave.domain.policy.scope import Scope
from patchwave.settings import Settings


def check_permitted(settings: Settings, policy: Policy) -> Policy:
    """The policy, if the settings permit its scripts, probes, scope and snapshots.

    A policy that was stored under other settings stays: its machines are skipped, or their probe has no result, with
    this reason.

    Raises:
        PolicyError: scripts are disabled, no machine's probe can match the permitted hosts, a subscription is outside
            the boundary, or the resource group of snapshots is not listed.
    """
    boundary = boundary_of(settings)
    problems: list[Problem] = [*scope_problems(boundary, policy.scope), *_snapshot_problems(boundary, policy)]
    around = policy.maintenance.configurations if policy.maintenance is not None else []
    named = [ConfigurationId.parse(text).subscription_id for text in around]
    problems += _outside(boundary, "maintenance.configurations", named)
    if policy.hooks.has_scripts and not settings.scripts_enabled:
        problems.append(Problem(path="hooks", message=scripts_are_off(only_roles_miss=settings.scripts)))
    probe = policy.health.probe
    if probe is not None and not may_be_listed(probe.url, settings.listed_probe_hosts):
        message = (
            f"The host {host_of(probe.url)} is not in PATCHWAVE_PROBE_HOSTS, an app setting: no request would be sent."
        )
        problems.append(Problem(path="health.probe.url", message=message))
    if problems:
        raise PolicyError(problems)
    return policy


def scope_problems(boundary: Boundary, scope: Scope) -> list[Problem]:
    """Problems of a scope that lies outside the boundary. Discovered machines are checked one by one later."""
    if boundary.is_needed_by(scope):
        return [Problem(path="scope", message=needs_boundary())]
    machines = [MachineId.parse(text).subscription_id for text in scope.machine_ids]
    return [
        *_outside(boundary, "scope.subscriptions", scope.subscriptions),
        *_outside(boundary, "scope.machineIds", machines),
        *_outside(boundary, "scope.scaleSets", [text.split("/")[2] for text in scope.scale_sets]),
    ]


def _outside(boundary: Boundary, path: str, subscriptions: Sequence[str]) -> list[Problem]:
    return [
        Problem(path=f"{path}[{number}]", message=outside(subscription))
        for number, subscription in enumerate(subscriptions)
        if not boundary.holds(subscription)
    ]


def _snapshot_problems(boundary: Boundary, policy: Policy) -> list[Problem]:
    hook = policy.hooks.snapshot
    if hook is None or hook.resource_group is None or boundary.takes_snapshots(hook.resource_group):
        return []
    message = (
        f"The resource group {hook.resource_group} is not in PATCHWAVE_SNAPSHOT_GROUPS, an app setting: leave the group"
        " out, and each snapshot goes to the machine's own."
    )
    return [Problem(path="hooks.snapshot.resourceGroup", message=message)]
