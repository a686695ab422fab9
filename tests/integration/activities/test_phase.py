"""Whose turn it is in a step, who has ended, and who still works, on real tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from activities.phase import list_pending_machines, reconcile_machines
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.run import Step
from patchwave.domain.workflow.machine import MachineEnded
from patchwave.domain.workflow.phase import (
    PendingMachines,
    PendingMachinesRequest,
    ReconciledMachines,
    ReconcileRequest,
)
from patchwave.storage import RecordMissing, Storage, completion_change
from patchwave.wiring import Services
from tests.support.factories import NOW, command, machine, run
from tests.support.phase_calls import HOUR, PHASE, RUN, SHORT, poll
from tests.support.plans import in_order, make, planned_machine

FAILED = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.PATCHES_FAILED, message="1 patch failed.")
PATCHED = Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="done")


@pytest.fixture
async def machines(storage: Storage) -> list[MachineRecord]:
    """Six machines of a run: three in the first phase of the canary ring, three in the ring behind it."""
    await storage.runs.create(run())
    await storage.runs.start(RUN, NOW)
    found = [machine(number, stage=Stage.ASSESSED) for number in range(6)]
    await storage.machines.add(RUN, found)
    plan = make([planned_machine(number, ring="canary" if number < 3 else "broad") for number in range(6)])
    await storage.plans.save(RUN, plan, in_order(plan), SHORT)
    return found


async def page(services: Services, step: Step, **request: object) -> PendingMachines:
    wanted = PendingMachinesRequest(run_id=RUN, step=step, limit=100).model_copy(update=request)
    return await list_pending_machines(services, wanted)


async def still_open(services: Services, step: Step, keys: list[str]) -> ReconciledMachines:
    return await reconcile_machines(services, ReconcileRequest(run_id=RUN, step=step, keys=keys))


async def test_a_poll_has_completions_controls_and_the_poll_interval(
    services: Services, storage: Storage, machines: list[MachineRecord]
) -> None:
    await storage.runs.pause(RUN, command())
    ended = MachineEnded(key=machines[0].key, attempt=2, failed=True)
    await storage.completions.record(RUN, completion_change(PHASE, ended))
    await storage.completions.record(RUN, completion_change("patch:0.0.2", MachineEnded(key=machines[1].key)))
    first = await poll(services)
    assert first.ended == [ended]
    assert first.controls.is_paused
    assert first.wait_seconds == 30
    second = await poll(services, first.since)
    assert (second.ended, second.since) == ([], first.since)


async def test_a_poll_extends_the_heartbeat(
    services: Services, storage: Storage, machines: list[MachineRecord]
) -> None:
    await poll(services)
    stored = await storage.runs.get(RUN)
    assert stored is not None
    assert stored.heartbeat_deadline is not None
    assert timedelta(minutes=29) < stored.heartbeat_deadline - datetime.now(UTC) < timedelta(minutes=31)


async def test_a_poll_without_a_run_fails(services: Services, storage: Storage) -> None:
    with pytest.raises(RecordMissing, match="20261110T190000Z-monthly has no row"):
        await poll(services)


async def test_the_assess_step_takes_those_that_are_not_assessed_by_key(services: Services, storage: Storage) -> None:
    await storage.runs.create(run())
    stages = list(Stage)
    found = [machine(number, stage=stage) for number, stage in enumerate(stages)]
    await storage.machines.add(RUN, found)
    wanted = {one.key for one in found if one.stage in (Stage.WAITING, Stage.ASSESSING)}
    pending = await page(services, Step.ASSESS, first_attempt=3)
    assert [one.key for one in pending.machines] == sorted(wanted)
    assert {one.attempt for one in pending.machines} == {3}
    assert pending.cursor is None
    first = await page(services, Step.ASSESS, limit=5)
    assert first.cursor is not None
    rest = await page(services, Step.ASSESS, limit=5, cursor=first.cursor)
    assert rest.cursor is None
    assert {one.key for one in [*first.machines, *rest.machines]} == wanted


async def test_the_patch_step_takes_a_phase_in_the_order_of_the_plan(
    services: Services, storage: Storage, machines: list[MachineRecord]
) -> None:
    await storage.results.record_outcome(RUN, machines[1].key, PATCHED, at=NOW, installation=None, patches=[])
    found = await page(services, Step.PATCH, first_attempt=4)
    assert [(one.key, one.attempt, one.lane) for one in found.machines] == [
        (machines[0].key, 4, "westeurope"),
        (machines[2].key, 4, "westeurope"),
    ]
    assert found.cursor is None
    behind = await page(services, Step.PATCH, ring_number=1)
    assert [one.key for one in behind.machines] == [one.key for one in machines[3:]]
    assert (await page(services, Step.PATCH, phase_number=1)).machines == []
    first = await page(services, Step.PATCH, limit=2)
    assert [one.key for one in first.machines] == [machines[0].key]
    assert first.cursor is not None
    assert [one.key for one in (await page(services, Step.PATCH, limit=2, cursor=first.cursor)).machines] == [
        machines[2].key
    ]


@pytest.mark.parametrize(
    ("stage", "patch", "restart"),
    [
        (Stage.WAITING, True, False),
        (Stage.ASSESSING, True, False),
        (Stage.ASSESSED, True, False),
        (Stage.INSTALLING, True, False),
        (Stage.VERIFYING, True, False),
        (Stage.INSTALLED, False, True),
        (Stage.RESTARTING, False, False),
    ],
)
async def test_which_stages_are_pending_in_which_step(
    services: Services, storage: Storage, machines: list[MachineRecord], stage: Stage, *, patch: bool, restart: bool
) -> None:
    for one in machines[1:3]:
        await storage.results.record_outcome(RUN, one.key, PATCHED, at=NOW, installation=None, patches=[])
    await storage.machines.update(RUN, machines[0].key, stage)
    assert bool((await page(services, Step.PATCH)).machines) is patch
    assert bool((await page(services, Step.RESTART)).machines) is restart


@pytest.mark.parametrize(
    ("stage", "works_in"),
    [
        (Stage.WAITING, {Step.ASSESS, Step.PATCH, Step.RESTART}),
        (Stage.ASSESSING, {Step.ASSESS, Step.PATCH, Step.RESTART}),
        (Stage.ASSESSED, {Step.PATCH, Step.RESTART}),
        (Stage.INSTALLING, {Step.PATCH, Step.RESTART}),
        (Stage.VERIFYING, {Step.PATCH, Step.RESTART}),
        (Stage.INSTALLED, {Step.RESTART}),
        (Stage.RESTARTING, {Step.RESTART}),
    ],
)
async def test_who_still_works_in_which_step(
    services: Services, storage: Storage, machines: list[MachineRecord], stage: Stage, works_in: set[Step]
) -> None:
    key = machines[0].key
    await storage.machines.update(RUN, key, stage)
    for step in Step:
        found = await still_open(services, step, [key])
        assert found.keys == ([key] if step in works_in else [])
        assert found.unlocked == found.keys
        assert found.failed == []


async def test_of_those_that_have_ended_the_failures_are_named(
    services: Services, storage: Storage, machines: list[MachineRecord]
) -> None:
    failed, patched, skipped, locked, unlocked, _ = machines
    foreign = Outcome.skipped(Reason.FROZEN, "The machine is frozen.")
    for one, outcome in ((failed, FAILED), (patched, PATCHED), (skipped, foreign)):
        await storage.results.record_outcome(RUN, one.key, outcome, at=NOW, installation=None, patches=[])
    now = datetime.now(UTC)
    assert await storage.leases.acquire(locked.key, RUN, now, now + HOUR) == RUN
    assert await storage.leases.acquire(unlocked.key, "another run", now, now + HOUR) == "another run"
    keys = [one.key for one in machines[:5]]
    found = await still_open(services, Step.PATCH, [*keys, "f" * 24])
    assert found.keys == [locked.key, unlocked.key]
    assert found.failed == [failed.key]
    assert found.unlocked == [unlocked.key]
    assert await still_open(services, Step.PATCH, []) == ReconciledMachines(keys=[], failed=[], unlocked=[])
