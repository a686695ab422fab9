"""Who is said to patch which machine: the schedules, dynamic scopes and policies of a fleet, looked up by machine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from patchwave.domain.calendar.schedule import occurrences
from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import MachineId
from patchwave.domain.drift.inputs import DriftInputs, FleetPolicy
from patchwave.domain.fleet.exclusions import hold_reason
from patchwave.domain.fleet.machine import FleetMachine
from patchwave.domain.fleet.patch_mode import (
    AttachedSchedule,
    PatchMode,
    PatchOwnership,
    PatchSource,
    arc_ownership,
    patch_ownership,
)
from patchwave.domain.maintenance.assignment import Assignment
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.planning.dry_run import FoundMachine
from patchwave.domain.planning.rings import choose_rings
from patchwave.domain.policy.policy import PolicyMode
from patchwave.domain.policy.rollout import order_rings
from patchwave.domain.policy.scope import Scope


@dataclass(frozen=True, slots=True)
class Attachment:
    """A configuration for guests that is attached to a machine, by these assignments of it."""

    configuration: MaintenanceConfiguration
    assignments: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True)
class PatchCoverage:
    """What is said to patch one machine.

    ``policies`` cover it and will run; ``resting`` are sentences on those that would cover it and will not.
    ``patching`` is ``None`` for a machine of neither system.
    """

    machine: FleetMachine
    attached: tuple[Attachment, ...] = ()
    policies: tuple[str, ...] = ()
    resting: tuple[str, ...] = ()
    patching: PatchOwnership | None = None

    @property
    def schedule_names(self) -> str:
        return ", ".join(attached.configuration.name for attached in self.attached)

    @property
    def others(self) -> list[str]:
        """What patches it beside policies of ours, in words; Azure lets only one of them at a time."""
        patching, settings = self.patching, self.machine.settings
        if patching is None or settings is None:
            return []
        match patching.patcher:
            case PatchSource.SCHEDULE:
                return [f"the schedule {self.schedule_names}"]
            case PatchSource.PLATFORM:
                return ["Azure's automatic patching"]
            case PatchSource.OPERATING_SYSTEM if settings.patch_mode is PatchMode.AUTOMATIC_BY_OS:
                return ["Windows Update"]
            case _:
                return []


@dataclass(slots=True)
class _State:
    """What a configuration is good for at this moment."""

    next_at: datetime | None
    why_not: str = ""


@dataclass(frozen=True)
class FleetIndex:
    """The facts by machine, at one moment. Everything is compared by ids in lower case."""

    facts: DriftInputs
    now: datetime

    @cached_property
    def configurations(self) -> dict[str, MaintenanceConfiguration]:
        return {fold(each.id): each for each in self.facts.configurations}

    @cached_property
    def schedules(self) -> list[MaintenanceConfiguration]:
        """The configurations that patch inside machines."""
        return [each for each in self.facts.configurations if each.patches_guests]

    @cached_property
    def machines(self) -> dict[str, FleetMachine]:
        return {machine.folded: machine for machine in self.facts.machines}

    @cached_property
    def coverages(self) -> list[PatchCoverage]:
        """Every machine with what is said to patch it, by id."""
        policies = [(policy, *self._covered(policy)) for policy in self.facts.policies]
        return [self._coverage(self.machines[folded], policies) for folded in sorted(self.machines)]

    @cached_property
    def machines_by_schedule(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for standing in self.coverages:
            for attached in standing.attached:
                folded = fold(attached.configuration.id)
                counts[folded] = counts.get(folded, 0) + 1
        return counts

    def why_not(self, configuration: MaintenanceConfiguration) -> str:
        """Why a schedule patches nothing whatever the machine is set to; empty when it may patch."""
        return self._states[fold(configuration.id)].why_not

    @cached_property
    def _states(self) -> dict[str, _State]:
        return {fold(each.id): _state_of(each, self.now) for each in self.schedules}

    def _coverage(
        self, machine: FleetMachine, policies: Sequence[tuple[FleetPolicy, frozenset[str], str]]
    ) -> PatchCoverage:
        attached = tuple(self._attached(machine))
        held = machine.found.problem or hold_reason(machine.found.tags)
        running: list[str] = []
        resting: list[str] = []
        for policy, covered, why_not in policies:
            if machine.folded in covered and not (why_not or held):
                running.append(policy.policy.name)
            elif machine.folded in covered and not policy.is_maintenance_only:
                resting.append(why_not or f"The policy {policy.policy.name} skips it. {held}")
        return PatchCoverage(machine, attached, tuple(running), tuple(resting), self._patching(machine, attached))

    def _patching(self, machine: FleetMachine, attached: Sequence[Attachment]) -> PatchOwnership | None:
        if machine.settings is None:
            return None
        schedules = [
            AttachedSchedule(
                configuration_id=each.configuration.id, next_at=self._states[fold(each.configuration.id)].next_at
            )
            for each in attached
        ]
        if machine.is_arc:
            return arc_ownership(schedules)
        return patch_ownership(
            machine.settings,
            schedules,
            unsupported=machine.unsupported,
            is_undecided=machine.eligibility.is_image_undecided,
        )

    def _attached(self, machine: FleetMachine) -> Iterator[Attachment]:
        identity = machine.found.machine_id
        dynamic = self._assignments.get(identity.subscription_id, [])
        holding = [each for each in dynamic if each.scope is not None and _holds(each.scope, machine, identity)]
        by_configuration: dict[str, list[Assignment]] = {}
        for assignment in (*self._assignments.get(machine.folded, []), *holding):
            by_configuration.setdefault(fold(assignment.maintenance_configuration_id), []).append(assignment)
        for folded, assignments in sorted(by_configuration.items()):
            configuration = self.configurations.get(folded)
            if configuration is not None and configuration.patches_guests:
                yield Attachment(configuration, tuple(assignments))

    @cached_property
    def _assignments(self) -> dict[str, list[Assignment]]:
        """By machine; dynamic ones by subscription, so that a machine is compared with the scopes of its own only."""
        found: dict[str, list[Assignment]] = {}
        for assignment in self.facts.assignments:
            folded = fold(assignment.resource_id)
            found.setdefault(folded.split("/")[2] if assignment.is_dynamic else folded, []).append(assignment)
        return found

    def _covered(self, policy: FleetPolicy) -> tuple[frozenset[str], str]:
        """The machines that runs of a policy take, and why its schedule does not start any."""
        scope = policy.policy.scope
        inside = [
            FoundMachine(machine.found).to_planner(policy.policy)
            for machine in self.facts.machines
            if _holds(scope, machine, machine.found.machine_id)
        ]
        chosen = choose_rings(inside, order_rings(policy.policy.rings))
        return frozenset(fold(each.id) for each in inside if each.key in chosen), _why_not(policy, self.now)


def _holds(scope: Scope, machine: FleetMachine, identity: MachineId) -> bool:
    """Whether a machine is in a scope; its id is parsed once for all the scopes that it is compared with."""
    found = machine.found
    return scope.holds(
        identity, location=found.location, os_type=found.os_type, tags=found.tags, scale_set=found.scale_set_id
    )


def _state_of(configuration: MaintenanceConfiguration, now: datetime) -> _State:
    if not configuration.in_guest_patch_mode:
        return _State(None, f"{configuration.name} has no InGuestPatchMode")
    if configuration.unreadable:
        # When it runs is not known, which is no reason to say that it does not.
        return _State(now)
    following = configuration.next_occurrence(now)
    if following is None:
        return _State(None, f"{configuration.name} {expiry_text(configuration)}")
    return _State(following.at_utc)


def expiry_text(configuration: MaintenanceConfiguration) -> str:
    expired = configuration.window.expires_at if configuration.window else None
    return f"ended at {format_instant(expired)}" if expired else "has no run to come"


def _why_not(policy: FleetPolicy, now: datetime) -> str:
    name, schedule = policy.policy.name, policy.policy.schedule
    if not policy.policy.enabled:
        return f"The policy {name}, which covers it, is disabled."
    if policy.policy.mode is PolicyMode.ASSESS:
        return f"The policy {name}, which covers it, only assesses."
    if schedule is None:
        return f"The policy {name}, which covers it, has no schedule."
    if policy.resting:
        return f"The policy {name}, which covers it, {policy.resting}."
    return "" if occurrences(schedule, now, 1) else f"The schedule of the policy {name}, which covers it, has ended."
