"""plan_run: orders the machines once, and stores the plan before any machine starts.

The decision is that of `patchwave.domain.planning.planner`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping

from activities.context import load_run, now, record_outcomes, seconds_of
from patchwave.domain.fleet.scale_sets import ScaleSet, read_scale_set, scale_set_queries
from patchwave.domain.planning.admission import Permit
from patchwave.domain.planning.canary import with_approvals
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.planning.plan import Plan
from patchwave.domain.planning.plan_windows import PlanWindows
from patchwave.domain.planning.planner import Placement, PlanResult, make_plan
from patchwave.domain.planning.reservation import Groups, groups_of
from patchwave.domain.planning.topology import PlannerMachine, Topology
from patchwave.domain.policy.policy import Policy
from patchwave.domain.policy.rollout import Ring
from patchwave.domain.runs.commands import PATCHWAVE
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.workflow.run import PhaseSummary, PlanSummary, RingSummary, RunRef
from patchwave.settings import Settings
from patchwave.wiring import Services

_LOG = logging.getLogger("patchwave.plan")


async def plan_run(services: Services, request: RunRef) -> PlanSummary:
    """Plan the run, or return the plan that it has.

    Machines outside of the plan get their outcome here. A retry after a crash finds them ended with the same reason,
    and so makes the same plan.
    """
    planned = await services.storage.plans.get_summary(request.run_id)
    if planned is None:
        planned = await _plan(services, request.run_id)
    return planned


async def _plan(services: Services, run_id: str) -> PlanSummary:
    storage = services.storage
    run, policy = await load_run(storage, run_id)
    machines = [machine async for machine in storage.machines.scan(run_id)]
    seconds = await storage.history.install_seconds()
    topology = await services.locations.read({machine.subscription_id for machine in machines})
    topology = topology.with_scale_sets(await _scale_sets(services, machines))
    ended = {machine.key: (machine.reason, machine.message) for machine in machines if machine.outcome is not None}
    in_scope = [_as_planned(machine, seconds, policy) for machine in machines]
    policy = with_approvals(policy, in_scope, ended)
    windows = None
    if run.local_window is not None:
        zones = (machine.time_zone for machine in machines if machine.outcome is None)
        windows = PlanWindows.of(run.local_window, zones, now())
    # A large fleet takes seconds: a thread leaves the loop to other activities of this worker.
    result = await asyncio.to_thread(make_plan, in_scope, policy, topology, ended, windows)
    left_out = [(key, one.outcome) for key, one in result.excluded.items() if key not in ended]
    await record_outcomes(storage, run_id, left_out)
    planned = _in_short(services.settings, result.plan, policy)
    await storage.audit.add(run_id, "planned", actor=PATCHWAVE, at=now(), detail=_counts(result.plan))
    placed = [_placed(one) for one in result.placements]
    groups = _groups(result, topology)
    return await storage.plans.save(run_id, result.plan, placed, planned, seconds, groups)


async def _scale_sets(services: Services, machines: Iterable[MachineRecord]) -> list[ScaleSet]:
    """What Resource Graph tells of the scale sets; of those that cannot be read nothing is known, which is safe."""
    found: list[ScaleSet | None] = []
    for query in scale_set_queries(machine.scale_set for machine in machines if machine.scale_set):
        page = await services.resource_graph.page(query.text, query.subscriptions)
        if page.failure is not None:
            _LOG.warning("Scale sets could not be read for the plan. %s", page.failure.text)
        found += map(read_scale_set, page.rows)
    return [each for each in found if each is not None]


def _as_planned(machine: MachineRecord, seconds: Mapping[str, float], policy: Policy) -> PlannerMachine:
    """The planner's input for a machine."""
    found = machine.assessment
    took = seconds.get(machine.key)
    longest = policy.install.maximum_duration.total_seconds()
    return PlannerMachine(
        id=machine.id,
        key=machine.key,
        name=machine.name,
        subscription=machine.subscription_id,
        location=machine.location,
        zones=tuple(machine.zones),
        availability_set=machine.availability_set,
        update_domain=machine.update_domain,
        scale_set=machine.scale_set,
        fault_domain=machine.fault_domain,
        os_type=machine.os_type,
        image=machine.image,
        tags=machine.tags,
        # Resource Graph lags minutes behind: a machine that was just assessed runs, whatever it shows.
        power_state="" if found is not None else machine.power_state,
        pending=None if found is None else found.installable,
        # With a restart days after the installation, the duration says nothing about the installation.
        predicted_seconds=None if took is None else min(took, longest),
        time_zone=machine.time_zone,
    )


def _placed(placement: Placement) -> PlacedMachine:
    return PlacedMachine(
        key=placement.key,
        lane=placement.lane,
        wave=placement.wave,
        wave_size=placement.wave_size,
        permits=[place.text for place in placement.permits],
    )


def _groups(result: PlanResult, topology: Topology) -> dict[tuple[int, int], Groups]:
    """The concurrency groups that each phase reserves against other runs."""
    permits: dict[tuple[int, int], set[Permit]] = {}
    regions: dict[tuple[int, int], set[str]] = {}
    for placement in result.placements:
        phase = placement.ring, placement.phase - 1
        permits.setdefault(phase, set()).update(placement.permits)
        regions.setdefault(phase, set()).add(placement.lane)
    return {phase: groups_of(permits[phase], regions[phase], topology) for phase in permits}


def _in_short(settings: Settings, plan: Plan, policy: Policy) -> PlanSummary:
    """The plan in short for the orchestrator: sizes for error budgets, approvals, and bake times."""
    by_name = {ring.name: ring for ring in policy.rings}
    lanes = Counter((machine.ring, machine.phase, machine.lane) for machine in plan.machines)

    def phase(ring: str, number: int, regions: Iterable[str]) -> PhaseSummary:
        sizes = {lane: lanes[ring, number, lane] for lane in regions}
        return PhaseSummary(lanes={lane: machines for lane, machines in sizes.items() if machines})

    rings: list[RingSummary] = []
    for ring in plan.rings:
        wanted = by_name.get(ring.name, Ring(name=ring.name))
        rings.append(
            RingSummary(
                name=ring.name,
                machines=ring.machines,
                phases=[phase(ring.name, number, regions) for number, regions in enumerate(ring.phases, start=1)],
                approval_seconds=wanted.approval.within.total_seconds() if wanted.approval else None,
                bake_seconds=seconds_of(settings, policy.bake_after(wanted)),
            )
        )
    zones = [each.time_zone for each in plan.time_zones]
    return PlanSummary(machines=len(plan.machines), rings=rings, time_zones=zones)


def _counts(plan: Plan) -> dict[str, object]:
    return {
        "machines": len(plan.machines),
        "rings": {ring.name: ring.machines for ring in plan.rings},
        "excluded": dict(sorted(Counter(machine.reason for machine in plan.excluded).items())),
        "predictedSeconds": plan.makespan.predicted_seconds,
    }
