"""What the settings of the app let policies do: scripts only where they are allowed, probes only of listed hosts."""

from __future__ import annotations

from domain.hooks import scripts_are_off
from domain.policy import Policy, PolicyError
from domain.probe import host_of, may_be_listed
from domain.validation import Problem
from settings import load_settings


def check_permitted(policy: Policy) -> Policy:
    """The policy, unless it has a script or a probe that would never be run.

    A policy that was stored while they were allowed stays: its machines are then skipped, or their probe says nothing,
    each with this reason.

    Raises:
        PolicyError: running scripts is off, or no machine's probe can be on the list of hosts.
    """
    settings = load_settings()
    problems: list[Problem] = []
    if policy.hooks.has_scripts and not settings.scripts:
        problems.append(Problem(path="hooks", message=scripts_are_off()))
    probe = policy.health.probe
    if probe is not None and not may_be_listed(probe.url, settings.listed_probe_hosts):
        message = (
            f"The host {host_of(probe.url)} is not in PATCHWAVE_PROBE_HOSTS, an app setting: nobody would be asked."
        )
        problems.append(Problem(path="health.probe.url", message=message))
    if problems:
        raise PolicyError(problems)
    return policy
