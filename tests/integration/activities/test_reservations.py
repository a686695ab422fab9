"""reserve_groups and release_groups on real storage: which run waits for which, and what ends the wait."""

from __future__ import annotations

from datetime import timedelta

import pytest

from activities.reservations import release_groups, reserve_groups
from patchwave.domain.core.command import Command
from patchwave.domain.planning.admission import Permit
from patchwave.domain.planning.plan import Makespan, Plan
from patchwave.domain.planning.reservation import Groups, Reservation, groups_of
from patchwave.domain.planning.topology import Topology
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.workflow.run import GroupsReserved, PlanSummary, ReleaseGroups, ReserveGroups
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.factories import NOW

U0, U1, NE = (f"20261110T19000{number}Z-{name}" for number, name in enumerate(["u0", "u1", "ne"]))
PAIRED = Topology.of([("westeurope", "northeurope")])
AV = groups_of([Permit("set:s/rg/av", 1), Permit("domains:s/rg/av", 1, "0")], ["westeurope"], PAIRED)
NORTH = groups_of([], ["northeurope"], PAIRED)


async def begin(storage: Storage, run_id: str, groups: Groups, state: RunState = RunState.RUNNING) -> None:
    trigger = Trigger(kind=TriggerKind.HTTP)
    await storage.runs.create(
        Run(id=run_id, policy="p", mode=Mode.PATCH, state=state, trigger=trigger, created_at=NOW, policy_snapshot={})
    )
    makespan = Makespan(predicted_seconds=0, lower_bound_seconds=0)
    plan = Plan(policy="p", rings=[], machines=[], excluded=[], makespan=makespan, notes=[])
    await storage.plans.save(run_id, plan, [], PlanSummary(), groups={(0, 0): groups})


async def take(services: Services, run_id: str, sequence: int = 1, phase: int = 0) -> GroupsReserved:
    request = ReserveGroups(run_id=run_id, ring_number=0, phase_number=phase, sequence=sequence)
    return await reserve_groups(services, request)


async def give(services: Services, run_id: str, sequence: int = 1) -> list[str]:
    request = ReleaseGroups(run_id=run_id, sequence=sequence)
    return (await release_groups(services, request)).waiting


async def shown(storage: Storage, run_id: str) -> tuple[RunState, str]:
    run = await storage.runs.get(run_id)
    assert run is not None
    return run.state, run.waiting_for


async def test_a_set_and_a_region_pair_have_one_run_at_a_time(services: Services, storage: Storage) -> None:
    for run_id, groups in ((U0, AV), (U1, AV), (NE, NORTH)):
        await begin(storage, run_id, groups)
    assert (await take(services, U0)).waits_for == ""
    second, third = await take(services, U1), await take(services, NE)
    assert second.waits_for == f"the run {U0}: both work on the availability set av"
    assert second.wait_seconds > 0
    assert third.waits_for == f"the run {U0}, and 1 more: both work on the paired regions northeurope and westeurope"
    assert await shown(storage, U0) == (RunState.RUNNING, "")
    assert await shown(storage, U1) == (RunState.AWAITING_RUN, second.waits_for)
    assert await shown(storage, NE) == (RunState.AWAITING_RUN, third.waits_for)
    assert sorted(await give(services, U0)) == [U1, NE]
    assert (await take(services, U1)).waits_for == ""
    assert (
        await take(services, NE)
    ).waits_for == f"the run {U1}: both work on the paired regions northeurope and westeurope"
    assert await give(services, U1) == [NE]
    assert (await take(services, NE)).waits_for == ""
    assert await give(services, NE) == []


async def test_the_wait_is_in_the_audit_log_once(services: Services, storage: Storage) -> None:
    await begin(storage, U0, AV)
    await begin(storage, U1, AV)
    await take(services, U0)
    for _ in range(3):
        await take(services, U1)
    lines = [line for line in (await storage.audit.list_page(U1, 10, None)).items if line["action"] == "run_waits"]
    assert [(line["actor"], line["detail"]["for"]) for line in lines] == [("patchwave", [U0])]
    assert lines[0]["detail"]["reason"] == f"the run {U0}: both work on the availability set av"


@pytest.mark.parametrize("ends", ["closed", "removed"])
async def test_a_run_that_has_ended_keeps_no_other_waiting(services: Services, storage: Storage, ends: str) -> None:
    """It may have died before it gave anything back."""
    if ends == "closed":
        await begin(storage, U0, AV)
    await begin(storage, U1, AV)
    if ends == "closed":
        await take(services, U0)
        await storage.runs.close(U0, RunState.FAILED, "It died.", NOW)
    else:
        await storage.reservations.reserve(Reservation(run_id=U0, sequence=1, phase="0.0", since=NOW, groups=AV))
    assert (await take(services, U1)).waits_for == ""
    assert [each.run_id for each in await storage.reservations.list_all()] == [U1]


async def test_a_run_that_has_ended_leaves_no_row(services: Services, storage: Storage) -> None:
    await begin(storage, U0, AV)
    await take(services, U0)
    await storage.runs.close(U0, RunState.COMPLETED, "", NOW)
    await give(services, U0)
    assert await storage.reservations.list_all() == []


async def test_a_paused_run_keeps_its_reservation(services: Services, storage: Storage) -> None:
    await begin(storage, U0, AV)
    await begin(storage, U1, AV)
    await take(services, U0)
    await storage.runs.pause(U0, Command(actor="ana", at=NOW + timedelta(minutes=1)))
    assert (await take(services, U1)).waits_for.startswith(f"the run {U0}")


async def test_a_phase_without_groups_waits_for_none(services: Services, storage: Storage) -> None:
    await begin(storage, U0, AV)
    await begin(storage, U1, AV)
    await take(services, U0)
    assert (await take(services, U1, phase=1)).waits_for == ""


async def test_the_next_phase_frees_what_the_one_before_it_kept(services: Services, storage: Storage) -> None:
    """The run that waited is woken, although the other one gives nothing back between its phases."""
    await begin(storage, U0, AV)
    await begin(storage, U1, AV)
    await begin(storage, NE, AV)
    assert (await take(services, U0)).freed == []
    await take(services, U1)
    await take(services, NE)
    again = await take(services, U0, sequence=2)
    assert (again.waits_for, again.freed) == ("", []), "the same phase in the next window keeps its reservation"
    following = await take(services, U0, sequence=3, phase=1)
    assert sorted(following.freed) == [U1, NE]
    assert (await take(services, U0, sequence=3, phase=1)).freed == []
    assert (await take(services, U1)).waits_for == ""
