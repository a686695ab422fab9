"""The stored plan: read back as it was made, handed out in its order, and whole or not there at all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.planning.plan import ExcludedMachine, Plan, PlannedMachine
from patchwave.domain.planning.plan import PlannedRing as RingOfPlan
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.workflow.run import PhaseSummary, PlanSummary, RingSummary
from patchwave.storage import InvalidCursor, Storage, StorageUnreachable
from patchwave.storage.engine.rows import Change
from patchwave.storage.engine.table import Table
from patchwave.storage.plans import HEAD
from tests.support.factories import NOW, RUN, machine
from tests.support.plans import in_order, key_of, make, planned_machine

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
SECONDS = st.floats(0, 1e7)


SHORT = PlanSummary(
    machines=3,
    rings=[
        RingSummary(name="canary", machines=2, phases=[PhaseSummary(lanes={"westeurope": 2}), PhaseSummary(lanes={})]),
        RingSummary(name="broad", machines=1, phases=[PhaseSummary(lanes={"eastus": 1})], approval_seconds=60.5),
    ],
)


async def keys_of(storage: Storage, ring: int, phase: int, limit: int = 1000) -> list[str]:
    return [one.key for one in (await storage.plans.list_placements(RUN, ring, phase, limit, None)).items]


async def add(storage: Storage, count: int) -> list[MachineRecord]:
    machines = [machine(number) for number in range(count)]
    await storage.machines.add(RUN, machines)
    return machines


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = draw(st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=4, unique=True))
    phases = {name: draw(st.lists(st.lists(TEXT, max_size=3), min_size=1, max_size=3)) for name in names}
    numbers = draw(st.lists(st.integers(0, 999), max_size=12, unique=True))
    cut = draw(st.integers(0, len(numbers)))
    machines: list[PlannedMachine] = []
    for number in numbers[:cut]:
        ring = draw(st.sampled_from(names))
        machines.append(
            planned_machine(
                number,
                ring=ring,
                phase=draw(st.integers(1, len(phases[ring]))),
                lane=draw(TEXT),
                wave=draw(st.integers(1, 500)),
                groups=draw(st.lists(TEXT, max_size=3)),
                predicted_start=draw(SECONDS),
                predicted_end=draw(SECONDS),
                placement_reasons=draw(st.lists(TEXT, max_size=3)),
            )
        )
    excluded = [
        ExcludedMachine(id=machine(number).id, reason=draw(TEXT), detail=draw(TEXT)) for number in numbers[cut:]
    ]
    rings = [RingOfPlan(name=name, machines=draw(st.integers(0, 9)), phases=phases[name]) for name in names]
    return make(machines, excluded, rings=rings, notes=draw(st.lists(TEXT, max_size=3)))


@given(plan=plans(), data=st.data())
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_what_is_read_back_is_what_was_stored(storage: Storage, plan: Plan, data: st.DataObject) -> None:
    run_id = f"20261110T190000Z-p{time.monotonic_ns()}"
    placed = data.draw(st.permutations(in_order(plan)))
    assert await storage.plans.save(run_id, plan, placed, SHORT) == SHORT
    assert await storage.plans.get(run_id) == plan
    assert await storage.plans.get_summary(run_id) == SHORT
    where = {
        key_of(one): (plan.rings.index(ring), one.phase - 1)
        for ring in plan.rings
        for one in plan.machines
        if one.ring == ring.name
    }
    for ring, shown in enumerate(plan.rings):
        for phase in range(len(shown.phases)):
            wanted = [one for one in placed if where[one.key] == (ring, phase)]
            assert (await storage.plans.list_placements(run_id, ring, phase, 100, None)).items == wanted


async def test_a_run_without_a_plan_has_none(storage: Storage) -> None:
    assert await storage.plans.get(RUN) is None
    assert await storage.plans.get_summary(RUN) is None
    assert await keys_of(storage, 0, 0) == []


async def test_a_phase_is_handed_out_in_pages(storage: Storage) -> None:
    plan = make([planned_machine(number) for number in range(25)] + [planned_machine(99, phase=2)])
    placed = in_order(plan)
    await storage.plans.save(RUN, plan, placed, SHORT)
    found: list[PlacedMachine] = []
    cursor: str | None = None
    sizes: list[int] = []
    while True:
        page = await storage.plans.list_placements(RUN, 0, 0, 10, cursor)
        found += page.items
        sizes.append(len(page.items))
        cursor = page.cursor
        if cursor is None:
            break
    assert found == placed[:25]
    assert sizes == [10, 10, 5]
    with pytest.raises(InvalidCursor):
        await storage.plans.list_placements(
            RUN, 0, 1, 10, (await storage.plans.list_placements(RUN, 0, 0, 10, None)).cursor
        )


async def test_a_machines_own_row_shows_its_place_and_keeps_everything_else(storage: Storage) -> None:
    machines = await add(storage, 3)
    await storage.results.record_outcomes(RUN, [machines[2].key], Outcome.skipped(Reason.HOLD_TAG, "held"), NOW)
    plan = make(
        [planned_machine(0), planned_machine(1, ring="broad", wave=7, lane="eastus", placement_reasons=["a", "b"])]
    )
    await storage.plans.save(RUN, plan, in_order(plan), SHORT)
    first, second, third = [await storage.machines.get(RUN, one.key) for one in machines]
    place = {"ring": "broad", "phase": 1, "lane": "eastus", "wave": 7, "placement_reasons": ["a", "b"]}
    assert second == machines[1].model_copy(update=place)
    assert first
    assert (first.ring, first.lane) == ("canary", "westeurope")
    assert third
    assert (third.ring, third.outcome) == ("", OutcomeKind.SKIPPED)


async def test_a_whole_plan_never_changes(storage: Storage) -> None:
    first = make([planned_machine(1)])
    second = make([planned_machine(1, placement_reasons=["another"]), planned_machine(2)], notes=[])
    await storage.plans.save(RUN, first, in_order(first), SHORT)
    assert await storage.plans.save(RUN, second, in_order(second), PlanSummary()) == SHORT
    assert await storage.plans.get(RUN) == first


async def test_a_plan_that_was_cut_off_is_not_there_and_leaves_nothing_behind(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever request of the first execution is the last one to arrive."""
    await add(storage, 260)
    excluded = [ExcludedMachine(id=machine(number).id, reason="no_ring", detail="-") for number in range(250, 260)]
    first = make([planned_machine(number) for number in range(250)], excluded)
    second = make(
        [planned_machine(number, ring="broad") for number in range(120)],
        [ExcludedMachine(id=machine(130).id, reason="no_ring", detail="-")],
    )
    real_apply, real_insert = Table.apply, Table.insert
    for survivors in (0, 1, 3, 4, 5):
        run_id = f"20261110T19000{survivors}Z-monthly"
        left = survivors

        async def apply(table: Table, partition: str, changes: Sequence[Change]) -> None:
            nonlocal left
            if not left:
                raise StorageUnreachable("cut")
            left -= 1
            await real_apply(table, partition, changes)

        async def insert(table: Table, partition: str, key: str, columns: dict[str, Any]) -> bool:
            if key == HEAD:
                raise StorageUnreachable("cut")
            return await real_insert(table, partition, key, columns)

        monkeypatch.setattr(Table, "apply", apply)
        monkeypatch.setattr(Table, "insert", insert)
        with pytest.raises(StorageUnreachable):
            await storage.plans.save(run_id, first, in_order(first), SHORT)
        monkeypatch.undo()
        assert await storage.plans.get(run_id) is None
        assert await storage.plans.get_summary(run_id) is None
        assert await storage.plans.save(run_id, second, in_order(second), SHORT) == SHORT
        assert await storage.plans.get(run_id) == second
        assert (await storage.plans.list_placements(run_id, 0, 0, 1000, None)).items == []
        assert (await storage.plans.list_placements(run_id, 1, 0, 1000, None)).items == in_order(second)


async def test_machines_and_places_must_be_the_same(storage: Storage) -> None:
    plan = make([planned_machine(1), planned_machine(2)])
    with pytest.raises(ValueError, match="not of the same machines"):
        await storage.plans.save(RUN, plan, in_order(plan)[:1], SHORT)
    assert await storage.plans.get_summary(RUN) is None


async def test_a_large_plan_takes_one_request_for_a_hundred_rows(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = await add(storage, 1_000)
    plan = make([planned_machine(number, ring="broad" if number % 4 else "canary") for number in range(1_000)])
    sent: list[int] = []
    real_apply = Table.apply

    async def apply(table: Table, partition: str, changes: Sequence[Change]) -> list[str]:
        sent.append(len(changes))
        return await real_apply(table, partition, changes)

    monkeypatch.setattr(Table, "apply", apply)
    await storage.plans.save(RUN, plan, in_order(plan), SHORT)
    assert sent == [100] * 20 + [1]
    assert await storage.plans.get(RUN) == plan
    assert len(await keys_of(storage, 1, 0, 5_000)) == 750
    assert sum([1 async for one in storage.machines.scan(RUN) if one.ring]) == len(machines)


async def test_durations_are_those_of_the_last_installations(storage: Storage) -> None:
    machines = await add(storage, 3)
    began, patched = NOW - timedelta(minutes=40), Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="-")
    failed = patched.model_copy(update={"outcome": OutcomeKind.FAILED})
    installed = InstallationSummary(status="Succeeded", installed=3, started_at=began)
    for one, outcome in zip(machines, (patched, failed, patched), strict=True):
        await storage.results.record_outcome(RUN, one.key, outcome, at=NOW, installation=installed, patches=[])
    assert await storage.history.install_seconds() == {machines[0].key: 2400, machines[2].key: 2400}
    later = "20261210T190000Z-monthly"
    await storage.machines.add(later, machines)
    month = timedelta(days=30)
    installed = installed.model_copy(update={"started_at": began + month})
    await storage.results.record_outcome(
        later, machines[0].key, failed, at=NOW + month, installation=installed, patches=[]
    )
    assert await storage.history.install_seconds() == {machines[2].key: 2400}


async def test_the_last_assessment_of_each_machine_is_known(storage: Storage) -> None:
    machines = await add(storage, 2)
    await storage.results.record_assessment(RUN, machines[0].key, AssessmentSummary(status="Succeeded"), [], NOW)
    for one in machines:
        await storage.results.record_outcomes(RUN, [one.key], Outcome.skipped(Reason.HOLD_TAG, "held"), NOW)
    assert await storage.history.last_assessments() == {machines[0].key: NOW}


async def test_standings_have_stage_and_end(storage: Storage) -> None:
    machines = await add(storage, 3)
    await storage.machines.update(RUN, machines[1].key, Stage.INSTALLED)
    await storage.results.record_outcomes(RUN, [machines[2].key], Outcome.skipped(Reason.HOLD_TAG, "held"), NOW)
    standings = await storage.machines.get_progress(RUN, [one.key for one in machines] + ["0" * 24])
    assert standings == {
        machines[0].key: (Stage.WAITING, None, ""),
        machines[1].key: (Stage.INSTALLED, None, ""),
        machines[2].key: (Stage.DONE, OutcomeKind.SKIPPED, "hold_tag"),
    }
