"""Whether a policy that somebody sends may have scripts: only where the operator of the app allows them."""

from __future__ import annotations

from domain.hooks import scripts_are_off
from domain.policy import Policy, PolicyError
from domain.validation import Problem
from settings import load_settings


def check_scripts(policy: Policy) -> Policy:
    """The policy, unless it has scripts that would not be run.

    A policy that was stored while they were allowed stays: its machines are then skipped, each with this reason.

    Raises:
        PolicyError: it has scripts, and running them is off.
    """
    if policy.hooks.has_scripts and not load_settings().scripts:
        raise PolicyError([Problem(path="hooks", message=scripts_are_off())])
    return policy
