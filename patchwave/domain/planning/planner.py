"""The planner: rings, phases, lanes and waves of a fleet, with the reason for every place and for every exclusion.

Pure: the same machines in any order give the same plan. Times come from the admission that the running lane follows;
see `patchwave.domain.planning.timeline`. What a machine may run beside is in `patchwave.domain.planning.constraints`,
who goes first in `patchwave.domain.planning.critical_path`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from patchwave.domain.azure.instance_view import Power
from patchwave.domain.calendar.region_time_zones import AS_OF
from patchwave.domain.core.duration import format_duration
from patchwave.domain.core.folding import fold
from patchwave.domain.core.outcome import Reason
from patchwave.domain.fleet.exclusions import CONNECTED, hibernated, hold_reason, not_connected
from patchwave.domain.planning.admission import Permit
from patchwave.domain.planning.canary import pin_notes
from patchwave.domain.planning.constraints import ConcurrencyConstraints
from patchwave.domain.planning.critical_path import Job
from patchwave.domain.planning.explain import PlanExplainer
from patchwave.domain.planning.phases import PhasePlan, make_phases
from patchwave.domain.planning.plan import (
    ExcludedMachine,
    Makespan,
    Plan,
    PlannedMachine,
    PlannedRing,
    PlannedTimeZone,
)
from patchwave.domain.planning.plan_windows import PlanWindows
from patchwave.domain.planning.ring_schedule import DrawnPhase, RingDrawing
from patchwave.domain.planning.rings import RingAssignment, choose_rings
from patchwave.domain.planning.timeline import Slice
from patchwave.domain.planning.topology import PlannerMachine, Topology
from patchwave.domain.policy.gates import wave_barrier_enabled
from patchwave.domain.policy.install import shortest_installation
from patchwave.domain.policy.policy import Policy, PolicyMode
from patchwave.domain.policy.rollout import PhaseOrder, RebootMode, Ring, order_rings
from patchwave.domain.policy.scope import OsType

DEFAULT_SECONDS: Mapping[str, float] = {"windows": 2400.0, "linux": 1200.0}
"""How long an installation is expected to take on a machine without a history, its restart included."""
UNKNOWN_SYSTEM_SECONDS = 2400.0
_NAMED = 3
"""Time zones that a note names."""
_MAX_DRAWN = 2_000
"""Machines times ways to part the regions of a ring into phases that are drawn and compared."""

_STOPPED = frozenset({"stopped", "stopping", "deallocated", "deallocating"})


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a machine stands in the plan, with what decides when it may start.

    ``ring`` counts from 0 in the order of `Plan.rings`, ``phase`` and ``wave`` from 1. ``wave_size`` is the number of
    machines in the wave. Times are seconds from the start of the run.
    """

    key: str
    ring: int
    ring_name: str
    phase: int
    lane: str
    wave: int
    wave_size: int
    permits: tuple[Permit, ...]
    reason: str
    predicted_start: float
    predicted_end: float


@dataclass(frozen=True, slots=True)
class PlanResult:
    """A plan as the document that people see, and as what the run needs, machine by machine.

    ``placements`` are in the order (ring, phase, predicted start, key), as are ``plan.machines``; ``excluded`` is by
    key.
    """

    plan: Plan
    placements: list[Placement]
    excluded: dict[str, ExcludedMachine]


def make_plan(
    machines: Sequence[PlannerMachine],
    policy: Policy,
    topology: Topology,
    ended: Mapping[str, tuple[str, str]] = {},
    windows: PlanWindows | None = None,
) -> PlanResult:
    """Plan a run.

    Args:
        machines: every machine in scope, each once, in any order.
        policy: a valid one.
        topology: pairs of regions and physical zones.
        ended: machines that are over already, by key, with reason and sentence. Per cents count them.
        windows: the hours of each time zone, if machines read their own clocks.
    """
    in_order = sorted(machines, key=lambda machine: fold(machine.id))
    rings = order_rings(policy.rings)
    chosen = choose_rings(in_order, rings)
    excluded: dict[str, ExcludedMachine] = {}
    for machine in in_order:
        left_out = _exclusion(machine, policy, chosen, ended, windows)
        if left_out is not None:
            reason, detail = left_out
            excluded[machine.key] = ExcludedMachine(id=machine.id, reason=reason, detail=detail)
    planned = [machine for machine in in_order if machine.key not in excluded]
    constraints = ConcurrencyConstraints(in_order, planned, policy, topology, windows)
    drawing = _Drawing(policy, topology, constraints, chosen, windows)
    by_ring: dict[int, list[PlannerMachine]] = {}
    for machine in planned:
        by_ring.setdefault(chosen[machine.key].number, []).append(machine)
    last = max(by_ring, default=-1)
    for number, ring in enumerate(rings):
        drawing.add_ring(number, ring, by_ring.get(number, []), is_last=number >= last)
    plan = Plan(
        policy=policy.name,
        rings=drawing.rings,
        machines=drawing.machines,
        excluded=list(excluded.values()),
        makespan=Makespan(predicted_seconds=drawing.end, lower_bound_seconds=drawing.lower_bound),
        begins_at=windows.begins if windows is not None else None,
        time_zones=_time_zones(planned, policy, windows, drawing.placements) if windows is not None else [],
        notes=drawing.notes
        + pin_notes(policy, in_order, planned, chosen)
        + _unmonitored(planned, topology)
        + _notes(policy, drawing.end, constraints.unused_tags, is_local=windows is not None),
    )
    plan = plan.model_copy(update={"notes": [*plan.notes, *_late_notes(plan, policy)]})
    return PlanResult(plan, drawing.placements, excluded)


def expected_seconds(machine: PlannerMachine, policy: Policy) -> float:
    """How long the installation is expected to take: as before, else a default that the policy's maximum may cut."""
    if machine.predicted_seconds is not None and machine.predicted_seconds > 0:
        return float(max(1, round(machine.predicted_seconds)))
    default = DEFAULT_SECONDS.get(machine.os_type.lower(), UNKNOWN_SYSTEM_SECONDS)
    return min(default, policy.install.maximum_duration.total_seconds())


def _exclusion(
    machine: PlannerMachine,
    policy: Policy,
    chosen: Mapping[str, RingAssignment],
    ended: Mapping[str, tuple[str, str]],
    windows: PlanWindows | None,
) -> tuple[str, str] | None:
    """Why a machine has no place in the plan: reason code and sentence. ``None``: it has one."""
    if machine.key in ended:
        return ended[machine.key]
    held = hold_reason(machine.tags)
    if held is not None:
        return Reason.HOLD_TAG, held
    if machine.key not in chosen:
        return Reason.NO_RING, "No ring of the policy selects this machine; give the last ring no selector."
    if windows is not None and machine.time_zone not in windows.hours:
        return Reason.UNKNOWN_TIME_ZONE, (
            f"What its clock shows is not known: it has no Windows time zone that is known, and the region"
            f" {machine.location or '(none)'} is not in the table of {AS_OF}; patch it by a policy with a time zone."
        )
    power = machine.power_state.rpartition("/")[2].lower()
    if power == Power.HIBERNATED.value:
        return Reason.HIBERNATED, hibernated().message
    if machine.is_arc and power not in ("", CONNECTED):
        return Reason.NOT_CONNECTED, not_connected(machine.power_state).message
    if power in _STOPPED and not policy.start_stopped:
        return Reason.NOT_RUNNING, f"The machine is {power}; start it, or set startStopped in the policy."
    if machine.pending == 0:
        return Reason.NO_PENDING_PATCHES, "The latest assessment found no patch to install."
    return None


def _time_zones(
    planned: Iterable[PlannerMachine], policy: Policy, windows: PlanWindows, placements: Iterable[Placement]
) -> list[PlannedTimeZone]:
    """The windows of the planned machines, with how many are reached too late in theirs."""
    by_key = {machine.key: machine for machine in planned}
    machines = Counter(machine.time_zone for machine in by_key.values())
    late: Counter[str] = Counter()
    for placement in placements:
        machine = by_key[placement.key]
        os_type = OsType.read(machine.os_type) or OsType.WINDOWS
        last = windows.hours[machine.time_zone].closes_at - shortest_installation(policy.install, os_type)
        late[machine.time_zone] += placement.predicted_start > windows.seconds(last)
    in_order = sorted(machines, key=lambda zone: (*windows.hours[zone], zone))
    return [
        PlannedTimeZone(
            time_zone=zone,
            opens_at=windows.hours[zone].opens_at,
            closes_at=windows.hours[zone].closes_at,
            machines=machines[zone],
            late_machines=late[zone],
        )
        for zone in in_order
    ]


def _late_notes(plan: Plan, policy: Policy) -> list[str]:
    late = [each for each in plan.time_zones if each.late_machines]
    if not late:
        return []
    machines, zones = sum(each.late_machines for each in late), ", ".join(each.time_zone for each in late[:_NAMED])
    more = f" and {len(late) - _NAMED} more" if len(late) > _NAMED else ""
    rest = "they go on in the next one" if policy.continues else "they are skipped"
    return [f"{machines} machines are reached only when the window of their time zone is over: {rest} ({zones}{more})."]


def _notes(policy: Policy, seconds: float, unused_tags: Iterable[str], *, is_local: bool) -> list[str]:
    """What is true of the whole plan, which takes so many seconds; ``unused_tags`` may well be misspelt."""
    notes = [f"No machine has the tag {tag}, so its limit has no effect." for tag in unused_tags]
    if policy.mode is PolicyMode.ASSESS:
        notes.append("The policy only assesses (mode: assess): its runs follow no plan, and install nothing.")
    if policy.reboot_mode is RebootMode.SEPARATE:
        notes.append("The times are those of the installations; each ring restarts afterwards, by the same rules.")
    schedule = policy.schedule
    if schedule is not None and not is_local and seconds > schedule.window.total_seconds():
        rest = "goes on in the next one" if schedule.continue_in_next_window else "is skipped"
        window = format_duration(schedule.window)
        notes.append(f"The window of the schedule, {window}, is shorter than the plan: what does not fit {rest}.")
    return notes


def _unmonitored(planned: Iterable[PlannerMachine], topology: Topology) -> list[str]:
    """A note on each scale set whose members nothing watches: Microsoft requires that for patching them."""
    members = Counter(name for machine in planned if (name := topology.unmonitored_set(machine)))
    return [
        f"Scale set {name} has no Application Health extension, which Azure requires for guest patching of Flexible"
        f" scale sets: whether its members ({count:,}) work after their patches is seen from outside only."
        for name, count in sorted(members.items())
    ]


@dataclass(frozen=True, slots=True)
class _PhaseOf:
    """One phase of one ring, before it is drawn."""

    ring_number: int
    ring: Ring
    number: int
    phases: PhasePlan
    members: Mapping[str, PlannerMachine]


@dataclass(slots=True)
class _Drawing:
    """The plan as far as it is drawn: ring after ring, phase after phase."""

    policy: Policy
    topology: Topology
    constraints: ConcurrencyConstraints
    chosen: Mapping[str, RingAssignment]
    windows: PlanWindows | None = None
    end: float = 0.0
    lower_bound: float = 0.0
    rings: list[PlannedRing] = field(default_factory=list[PlannedRing])
    machines: list[PlannedMachine] = field(default_factory=list[PlannedMachine])
    placements: list[Placement] = field(default_factory=list[Placement])
    notes: list[str] = field(default_factory=list[str])

    def add_ring(self, number: int, ring: Ring, machines: Sequence[PlannerMachine], *, is_last: bool) -> None:
        """Draw a ring after what is drawn already, and its bake time unless nothing follows."""
        policy = self.policy
        lanes: dict[str, list[Job]] = {}
        for machine in machines:
            job = Job(machine.key, machine.region, expected_seconds(machine, policy), self.constraints.permits(machine))
            lanes.setdefault(machine.region, []).append(job)
        drawing = RingDrawing(
            lanes,
            self.constraints.run_capacity,
            ramp=policy.ramp,
            wave_barrier=wave_barrier_enabled(policy.error_budget, policy.bake.waves),
            bake_seconds=policy.bake.waves.total_seconds() if policy.bake.waves is not None else 0.0,
            openings=self.windows.openings if self.windows is not None else {},
        )
        most_drawn = max(1, _MAX_DRAWN // max(1, len(machines)))
        phases = make_phases(
            drawing.loads(),
            Topology() if self.constraints.has_pair_permits else self.topology,
            policy.phases,
            drawing,
            most_drawn=most_drawn,
            fewest_first=policy.phase_order is PhaseOrder.FEWEST_MACHINES,
        )
        self.rings.append(
            PlannedRing(
                name=ring.name, machines=len(machines), phases=phases.regions, approval=ring.approval is not None
            )
        )
        self.notes += [f"Ring {ring.name}: {note}" for note in phases.notes]
        if not machines:
            self.notes.append(
                f"Ring {ring.name} has nothing to do: it selects no machine, or all of them are left out."
            )
            return
        if ring.approval is not None:
            self.notes.append(f"Ring {ring.name} waits for an approval; the times take it as given at once.")
        members = {machine.key: machine for machine in machines}
        ended = 0
        for phase, regions in enumerate(phases.regions, start=1):
            drawn = drawing.draw(regions, ended, self.end)
            self._add_phase(_PhaseOf(number, ring, phase, phases, members), drawn, ended)
            ended += len(drawn.jobs)
        windows_bound = max(drawing.opening(job) + job.seconds for jobs in lanes.values() for job in jobs)
        self.lower_bound = max(self.lower_bound + phases.bound, windows_bound)
        if not is_last:
            bake_seconds = policy.bake_after(ring).total_seconds()
            self.end += bake_seconds
            self.lower_bound += bake_seconds

    def _add_phase(self, phase: _PhaseOf, drawn: DrawnPhase, ended: int) -> None:
        jobs, waves = drawn.jobs, drawn.waves
        slices = {
            key: Slice(self.end + each.start, self.end + each.end, each.after) for key, each in drawn.slices.items()
        }
        self.end += drawn.seconds
        sizes = Counter((job.lane, waves[job.key]) for job in jobs)
        explanation = PlanExplainer(self.constraints, jobs, slices, ramp=self.policy.ramp, ended=ended)
        for job in sorted(jobs, key=lambda job: (slices[job.key].start, job.key)):
            wave = waves[job.key]
            reasons = [
                *filter(None, (self.chosen[job.key].reason, phase.phases.reasons.get(job.lane, ""))),
                *explanation.reasons(job, wave),
            ]
            if unmonitored := self.topology.unmonitored_set(phase.members[job.key]):
                reasons.append(f"{unmonitored} has no Application Health extension")
            self._place(phase, job, wave, sizes[job.lane, wave], slices[job.key], reasons)

    def _place(self, phase: _PhaseOf, job: Job, wave: int, wave_size: int, times: Slice, reasons: list[str]) -> None:
        self.placements.append(
            Placement(
                key=job.key,
                ring=phase.ring_number,
                ring_name=phase.ring.name,
                phase=phase.number,
                lane=job.lane,
                wave=wave,
                wave_size=wave_size,
                permits=job.permits,
                reason="; ".join(reasons),
                predicted_start=times.start,
                predicted_end=times.end,
            )
        )
        self.machines.append(
            PlannedMachine(
                id=phase.members[job.key].id,
                ring=phase.ring.name,
                phase=phase.number,
                lane=job.lane,
                wave=wave,
                groups=[place.group for place in job.permits],
                predicted_start=times.start,
                predicted_end=times.end,
                placement_reasons=reasons,
            )
        )
