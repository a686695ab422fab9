"""Dry runs: what a run of a policy would do on machines as they are known now, without touching one.

A run plans after it has assessed each machine. A dry run knows Resource Graph or an exported file only, so it plans
every machine unless something says that a run would leave it out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from patchwave.domain.calendar.schedule import due_occurrence, occurrences
from patchwave.domain.core.outcome import Reason
from patchwave.domain.fleet.discovery import NO_MEMBERS, DiscoveredMachine, missing_ids, missing_scale_sets
from patchwave.domain.fleet.exclusions import unknown_system
from patchwave.domain.planning.canary import with_approvals
from patchwave.domain.planning.plan import ExcludedMachine, Plan
from patchwave.domain.planning.plan_windows import PlanWindows
from patchwave.domain.planning.planner import make_plan
from patchwave.domain.planning.topology import PlannerMachine, Topology
from patchwave.domain.policy.policy import Policy
from patchwave.domain.policy.scope import OsType


@dataclass(frozen=True, slots=True)
class FoundMachine:
    """A machine as it was found, with what else is known of it; ``None`` where it is not known."""

    machine: DiscoveredMachine
    update_domain: int | None = None
    pending: int | None = None
    """Pending patches of an assessment that still holds."""
    seconds: float | None = None
    """How long an installation takes, its reboot included."""

    def to_planner(self, policy: Policy) -> PlannerMachine:
        """What the planner looks at. No installation takes longer than the policy lets it."""
        found, identity = self.machine, self.machine.machine_id
        longest = policy.install.maximum_duration.total_seconds()
        return PlannerMachine(
            id=found.id,
            key=identity.key,
            name=found.name,
            subscription=identity.subscription_id,
            location=found.location,
            zones=found.zones,
            availability_set=found.availability_set_id,
            update_domain="" if self.update_domain is None else str(self.update_domain),
            scale_set=found.scale_set_id,
            fault_domain=found.fault_domain,
            os_type=found.os_type,
            image=found.image,
            tags=found.tags,
            power_state=found.power_state,
            pending=self.pending,
            predicted_seconds=None if self.seconds is None else min(self.seconds, longest),
            time_zone=found.time_zone,
        )


@dataclass(frozen=True, slots=True)
class DryRun:
    """A plan, and how many of the machines that were found are outside of the policy's scope."""

    plan: Plan
    outside: int = 0


def plan_dry_run(found: Sequence[FoundMachine], policy: Policy, topology: Topology, now: datetime) -> DryRun:
    """Plan for those of the machines that the policy is for. Each machine must be there once.

    Where machines read their own clocks, it is the plan of the occurrence that is open or comes next.
    """
    inside = [
        each
        for each in found
        if policy.scope.holds(
            each.machine.machine_id,
            location=each.machine.location,
            os_type=each.machine.os_type,
            tags=each.machine.tags,
            scale_set=each.machine.scale_set_id,
        )
    ]
    machines = [each.to_planner(policy) for each in inside if not each.machine.problem]
    # A run ends them when it would assess them, and counts them in per cents all the same.
    unsupported = unknown_system()
    ended = {
        machine.key: (unsupported.reason, unsupported.message)
        for machine in machines
        if OsType.read(machine.os_type) is None
    }
    windows = _windows(policy, [machine for machine in machines if machine.key not in ended], now)
    plan = make_plan(machines, with_approvals(policy, machines, ended), topology, ended, windows).plan
    missing = [
        ExcludedMachine(id=each.machine.id, reason=each.machine.problem_reason.value, detail=each.machine.problem)
        for each in inside
        if each.machine.problem
    ] + [
        ExcludedMachine(
            id=identity.text,
            reason=Reason.NOT_FOUND.value,
            detail="No such machine: it does not exist, it cannot be read, or another selector leaves it out.",
        )
        for identity in missing_ids(policy.scope, [each.machine.machine_id for each in inside])
    ]
    members_of = [each.machine.scale_set_id for each in inside]
    missing += [
        ExcludedMachine(id=scale_set, reason=Reason.NOT_FOUND.value, detail=NO_MEMBERS)
        for scale_set in missing_scale_sets(policy.scope, members_of)
    ]
    return DryRun(plan.model_copy(update={"excluded": [*plan.excluded, *missing]}), len(found) - len(inside))


def _windows(policy: Policy, machines: Iterable[PlannerMachine], now: datetime) -> PlanWindows | None:
    schedule = policy.schedule
    if schedule is None or not schedule.is_local:
        return None
    due = due_occurrence(schedule, now)
    chosen = due or next(iter(occurrences(schedule, now, 1)), None)
    if chosen is None or chosen.local is None:
        return None
    return PlanWindows.of(chosen.local, (machine.time_zone for machine in machines), now)
