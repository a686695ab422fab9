"""The HTTP API: one file per resource; all routes are registered on one blueprint, `bp`."""

from patchwave.api import (
    audit,
    drift,
    evidence,
    fleet,
    freezes,
    health,
    maintenance_assignments,
    maintenance_configurations,
    maintenance_runs,
    openapi,
    patch_mode_changes,
    plans,
    policies,
    policy_conversion,
    policy_schedule,
    run_commands,
    runs,
    stuck_machines,
)
from patchwave.api.endpoint import bp

__all__ = ["bp"]

# Importing a resource registers its routes.
_resources = {audit, drift, evidence, fleet, freezes, health, openapi, patch_mode_changes, plans, policies, runs}
_resources |= {maintenance_assignments, maintenance_configurations, maintenance_runs}
_resources |= {policy_conversion, policy_schedule, run_commands, stuck_machines}
