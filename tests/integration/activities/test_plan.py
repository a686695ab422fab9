"""plan_run and the handing out of its plan, with the real planner on a real Azurite."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities import plan
from activities.phase import list_pending_machines, reconcile_machines
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary, Selection
from patchwave.domain.planning.admission import Permit
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.planning.plan import Plan
from patchwave.domain.planning.topology import Topology
from patchwave.domain.policy.policy import parse_policy
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.run import Mode, Run, RunState, Step, Trigger, TriggerKind
from patchwave.domain.workflow.phase import (
    PendingMachines,
    PendingMachinesRequest,
    ReconciledMachines,
    ReconcileRequest,
)
from patchwave.domain.workflow.run import PlanSummary, RunRef
from patchwave.storage import Storage, StorageUnreachable
from patchwave.storage.engine.table import Table
from patchwave.storage.plans import HEAD
from patchwave.wiring import Services
from tests.support.factories import NOW, machine

RUN = "20261110T190000Z-monthly"
RINGS: list[dict[str, Any]] = [
    {"name": "canary", "tags": {"values": {"ring": ["canary"]}}, "bake": "PT1H"},
    {"name": "broad", "tags": {"values": {"ring": ["broad"]}}, "approval": {"within": "PT8H"}},
    {"name": "last", "tags": {"values": {"ring": ["last"]}}},
]
POLICY: dict[str, Any] = {"name": "monthly", "scope": {"locations": ["westeurope", "northeurope"]}, "rings": RINGS}
FOUND = AssessmentSummary(status="Succeeded", critical_and_security=2)


class Regions:
    async def read(self, subscriptions: Collection[str]) -> Topology:
        return Topology.of([("westeurope", "northeurope")])


@pytest.fixture(autouse=True)
def topology(services: Services) -> None:
    vars(services).update(locations=Regions())


def fleet() -> list[MachineRecord]:
    """Two canaries, six machines of the broad ring over two paired regions, and one that no ring takes."""
    rings = ["canary"] * 2 + ["broad"] * 6 + ["none"]
    return [
        machine(
            number,
            tags={"ring": ring},
            location="northeurope" if number in (6, 7) else "westeurope",
            stage=Stage.ASSESSED,
            assessment=FOUND,
        )
        for number, ring in enumerate(rings)
    ]


async def begin(storage: Storage, machines: Sequence[MachineRecord], **changes: Any) -> None:
    policy = parse_policy(POLICY | changes)
    await storage.runs.create(
        Run(
            id=RUN,
            policy="monthly",
            mode=Mode.PATCH,
            state=RunState.RUNNING,
            trigger=Trigger(kind=TriggerKind.HTTP),
            created_at=NOW,
            policy_snapshot=policy.to_wire(),
        )
    )
    await storage.machines.add(RUN, machines)


async def plan_it(services: Services) -> PlanSummary:
    return await plan.plan_run(services, RunRef(run_id=RUN))


async def stored(storage: Storage) -> Plan:
    found = await storage.plans.get(RUN)
    assert found
    return found


async def next_page(
    services: Services,
    step: Step,
    ring: int = 0,
    phase: int = 0,
    *,
    limit: int = 100,
    cursor: str | None = None,
    first_attempt: int = 1,
) -> PendingMachines:
    request = PendingMachinesRequest(
        run_id=RUN,
        step=step,
        ring_number=ring,
        phase_number=phase,
        first_attempt=first_attempt,
        cursor=cursor,
        limit=limit,
    )
    return await list_pending_machines(services, request)


async def handed_out(services: Services, step: Step, ring: int = 0, phase: int = 0) -> set[str]:
    return {one.key for one in (await next_page(services, step, ring, phase)).machines}


async def still_open(services: Services, step: Step, machines: Sequence[MachineRecord]) -> ReconciledMachines:
    request = ReconcileRequest(run_id=RUN, step=step, keys=[one.key for one in machines])
    return await reconcile_machines(services, request)


async def test_the_orchestrator_gets_rings_phases_lanes_and_what_to_wait_for(
    services: Services, storage: Storage
) -> None:
    await begin(storage, fleet(), bake={"rings": "PT30M"})
    planned = await plan_it(services)
    assert planned.machines == 8
    canary, broad, last = planned.rings
    assert (canary.name, canary.machines, canary.bake_seconds, canary.approval_seconds) == ("canary", 2, 3600, None)
    assert (broad.name, broad.machines, broad.bake_seconds, broad.approval_seconds) == ("broad", 6, 1800, 8 * 3600)
    assert (last.name, last.machines, last.phases) == ("last", 0, [])
    assert [phase.lanes for phase in canary.phases] == [{"westeurope": 2}]
    # Paired regions never share a phase; the smaller one goes first.
    assert [phase.lanes for phase in broad.phases] == [{"northeurope": 2}, {"westeurope": 4}]


@pytest.mark.parametrize(("choice", "seconds"), [("skip", None), ("wait", 24 * 3600), ("install", None)])
async def test_a_ring_with_machines_that_cannot_be_pinned_waits_where_the_policy_has_it(
    services: Services, storage: Storage, choice: str, seconds: float | None
) -> None:
    rings = [{"name": "canary", "tags": {"values": {"ring": ["canary"]}}}, {"name": "rest"}]
    machines = [
        machine(1, tags={"ring": "canary"}, location="westeurope", stage=Stage.ASSESSED, assessment=FOUND),
        machine(2, tags={}, os_type="Windows", location="westeurope", stage=Stage.ASSESSED, assessment=FOUND),
    ]
    await begin(storage, machines, rings=rings, pinRings=True, withoutPin=choice)
    planned = await plan_it(services)
    assert [ring.approval_seconds for ring in planned.rings] == [None, seconds]
    plan_of_run = await stored(storage)
    assert [ring.approval for ring in plan_of_run.rings] == [False, seconds is not None]
    assert any("no machine of Windows" in note and f"withoutPin: {choice}" in note for note in plan_of_run.notes)


async def test_a_machine_of_whose_patches_the_policy_selects_none_has_no_place(
    services: Services, storage: Storage
) -> None:
    unselected = FOUND.model_copy(update={"selection": Selection(installable=0)})
    tags = {"ring": "canary"}
    machines = [
        machine(1, tags=tags, stage=Stage.ASSESSED, assessment=unselected),
        machine(2, tags=tags, stage=Stage.ASSESSED, assessment=FOUND),
    ]
    await begin(storage, machines)
    assert (await plan_it(services)).machines == 1
    assert {one.reason for one in (await stored(storage)).excluded} == {"no_pending_patches"}


async def test_a_policy_without_rings_is_one_ring_of_everything(services: Services, storage: Storage) -> None:
    await begin(storage, fleet(), rings=[])
    planned = await plan_it(services)
    assert [(ring.machines, ring.approval_seconds, ring.bake_seconds) for ring in planned.rings] == [(9, None, 0)]


async def test_only_machines_without_a_ring_end_with_the_plan(services: Services, storage: Storage) -> None:
    machines = fleet()
    await begin(storage, machines)
    await plan_it(services)
    left_out = await storage.machines.get(RUN, machines[8].key)
    assert left_out
    assert (left_out.outcome, left_out.reason, left_out.stage) == (OutcomeKind.SKIPPED, Reason.NO_RING, Stage.DONE)
    open_machines = [one async for one in storage.machines.scan(RUN) if one.outcome is None]
    assert {one.key for one in open_machines} == {one.key for one in machines[:8]}
    assert {one.ring for one in open_machines} == {"canary", "broad"}
    assert all(one.placement_reasons for one in open_machines)
    lines = (await storage.audit.list_page(RUN, 10, None)).items
    assert [line["action"] for line in lines] == ["planned"]
    assert lines[0]["detail"]["excluded"] == {"no_ring": 1}
    assert lines[0]["detail"]["rings"] == {"canary": 2, "broad": 6, "last": 0}


async def test_machines_that_have_ended_are_listed_with_their_own_reason_and_keep_their_outcome(
    services: Services,
    storage: Storage,
) -> None:
    machines = fleet()
    await begin(storage, machines)
    held = Outcome.skipped(Reason.HOLD_TAG, "held by its owner")
    await storage.results.record_outcomes(RUN, [machines[0].key], held, NOW)
    planned = await plan_it(services)
    assert planned.rings[0].machines == 1
    excluded = {one.id: (one.reason, one.detail) for one in (await stored(storage)).excluded}
    assert excluded[machines[0].id] == ("hold_tag", "held by its owner")
    kept = await storage.machines.get(RUN, machines[0].key)
    assert kept
    assert (kept.reason, kept.ended_at) == ("hold_tag", NOW)


async def test_planning_again_gives_the_stored_plan_whatever_has_happened_since(
    services: Services, storage: Storage
) -> None:
    machines = fleet()
    await begin(storage, machines)
    first = await plan_it(services)
    document = await stored(storage)
    await storage.results.record_outcomes(RUN, [machines[0].key], Outcome.canceled(), NOW)
    assert await plan_it(services) == first
    assert await stored(storage) == document
    assert len((await storage.audit.list_page(RUN, 10, None)).items) == 1


async def test_a_planner_that_was_cut_off_makes_the_same_plan_again(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(storage, fleet())
    real = Table.insert

    async def insert(table: Table, partition: str, key: str, columns: dict[str, Any]) -> bool:
        if key == HEAD:
            raise StorageUnreachable("cut off")
        return await real(table, partition, key, columns)

    with monkeypatch.context() as patch:
        patch.setattr(Table, "insert", insert)
        with pytest.raises(StorageUnreachable):
            await plan_it(services)
    assert await storage.plans.get(RUN) is None
    again = await plan_it(services)
    document = await stored(storage)
    assert again.machines == 8
    assert [(one.reason, one.detail) for one in document.excluded] == [
        (Reason.NO_RING, "No ring of the policy selects this machine; give the last ring no selector.")
    ]


async def test_times_come_from_the_last_installation_and_never_exceed_the_policy(
    services: Services, storage: Storage
) -> None:
    machines = fleet()
    earlier = "20261010T190000Z-monthly"
    await storage.machines.add(earlier, [one.model_copy(update={"stage": Stage.WAITING}) for one in machines[:2]])
    patched = Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="-")
    for one, took in ((machines[0], timedelta(minutes=7)), (machines[1], timedelta(days=3))):
        done = InstallationSummary(status="Succeeded", installed=1, started_at=NOW - took)
        await storage.results.record_outcome(earlier, one.key, patched, at=NOW, installation=done, patches=[])
    await begin(storage, machines, install={"maximumDuration": "PT90M"}, separateZones=False)
    await plan_it(services)
    length = {one.id: one.predicted_end - one.predicted_start for one in (await stored(storage)).machines}
    assert length[machines[0].id] == 7 * 60
    assert length[machines[1].id] == 90 * 60


async def test_a_machine_that_was_just_assessed_counts_as_running(services: Services, storage: Storage) -> None:
    stale = machine(1, tags={"ring": "canary"}, power_state="deallocated", assessment=FOUND, stage=Stage.ASSESSED)
    await begin(storage, [stale])
    assert (await plan_it(services)).machines == 1


async def test_the_assess_step_has_all_machines_that_have_not_ended(services: Services, storage: Storage) -> None:
    machines = [machine(number) for number in range(5)]
    await begin(storage, machines)
    missing = Outcome.skipped(Reason.NOT_FOUND, "gone")
    await storage.results.record_outcomes(RUN, [machines[2].key], missing, NOW)
    wanted = sorted(one.key for one in machines if one is not machines[2])
    first = await next_page(services, Step.ASSESS, limit=3)
    rest = await next_page(services, Step.ASSESS, limit=3, cursor=first.cursor)
    assert rest.cursor is None
    assert [*first.machines, *rest.machines] == [PlacedMachine(key=key) for key in wanted]


async def test_the_patch_step_follows_the_plan_with_its_places(services: Services, storage: Storage) -> None:
    machines = fleet()
    await begin(storage, machines, maxConcurrent=3)
    await plan_it(services)
    assert await handed_out(services, Step.PATCH, 0) == {one.key for one in machines[:2]}
    assert await handed_out(services, Step.PATCH, 1, 0) == {one.key for one in machines[6:8]}
    page = await next_page(services, Step.PATCH, 1, 1, limit=3)
    assert page.cursor is not None
    rest = await next_page(services, Step.PATCH, 1, 1, limit=3, cursor=page.cursor)
    placed = [*page.machines, *rest.machines]
    assert {one.key for one in placed} == {one.key for one in machines[2:6]}
    assert {one.lane for one in placed} == {"westeurope"}
    starts = {one.id: one.predicted_start for one in (await stored(storage)).machines}
    times = [starts[next(each.id for each in machines if each.key == one.key)] for one in placed]
    assert times == sorted(times)
    assert all(Permit("run", 3) in [Permit.parse(text) for text in one.permits] for one in placed)


async def test_who_has_ended_or_waits_for_a_restart_is_not_patched_again(services: Services, storage: Storage) -> None:
    machines = fleet()
    await begin(storage, machines)
    await plan_it(services)
    await storage.results.record_outcomes(RUN, [machines[2].key], Outcome.skipped(Reason.SKIPPED_BY_PERSON, "-"), NOW)
    await storage.machines.update(RUN, machines[3].key, Stage.INSTALLED)
    await storage.machines.update(RUN, machines[4].key, Stage.RESTARTING)
    page = await next_page(services, Step.PATCH, 1, 1, first_attempt=3)
    assert [(one.key, one.attempt) for one in page.machines] == [(machines[5].key, 3)]


async def test_the_restart_step_takes_those_that_were_patched(services: Services, storage: Storage) -> None:
    machines = fleet()
    await begin(storage, machines)
    await plan_it(services)
    await storage.machines.update(RUN, machines[3].key, Stage.INSTALLED)
    await storage.machines.update(RUN, machines[4].key, Stage.RESTARTING)
    await storage.results.record_outcomes(RUN, [machines[2].key], Outcome.canceled(), NOW)
    assert await handed_out(services, Step.RESTART, 1, 1) == {machines[3].key}


async def test_machines_in_progress_and_failed_ones(services: Services, storage: Storage) -> None:
    stages = [Stage.WAITING, Stage.ASSESSING, Stage.ASSESSED, Stage.INSTALLING, Stage.INSTALLED, Stage.RESTARTING]
    machines = [machine(number, stage=stage) for number, stage in enumerate(stages)]
    ended = [machine(number) for number in (10, 11, 12)]
    await begin(storage, [*machines, *ended])
    outcomes = (
        Outcome(outcome=OutcomeKind.FAILED, reason=Reason.PATCHES_FAILED, message="-"),
        Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="-"),
        Outcome.skipped(Reason.HOOK_FAILED, "-"),
    )
    for one, outcome in zip(ended, outcomes, strict=True):
        await storage.results.record_outcomes(RUN, [one.key], outcome, NOW)
    gone = machine(99)
    failed = [ended[0].key, ended[2].key]
    for step, working in ((Step.ASSESS, 2), (Step.PATCH, 4), (Step.RESTART, 6)):
        answer = await still_open(services, step, [*machines, *ended, gone])
        assert answer.unlocked == answer.keys
        assert (answer.keys, answer.failed) == ([one.key for one in machines[:working]], failed)


async def test_who_works_is_locked_by_the_run(services: Services, storage: Storage) -> None:
    machines = fleet()[:4]
    await begin(storage, machines)
    at = datetime.now(UTC)
    leases = [(RUN, at + timedelta(hours=1)), (RUN, at - timedelta(hours=1)), ("another run", at + timedelta(hours=1))]
    for one, (owner, until) in zip(machines, leases, strict=False):
        await storage.leases.acquire(one.key, owner, at - timedelta(hours=2), until)
    answer = await still_open(services, Step.PATCH, machines)
    assert answer.unlocked == [one.key for one in machines[1:]]
