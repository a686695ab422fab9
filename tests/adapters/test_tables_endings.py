"""Endings: written with the machine's row or not at all, and read by the phase since its last look."""

from __future__ import annotations

from datetime import timedelta

import pytest

from adapters.tables import Change, RecordMissing, Records, ending_change
from domain.outcome import Outcome, OutcomeKind, Reason
from domain.run import Stage
from domain.work import MachineEnded
from tests.adapters.samples import NOW, machine

RUN = "20261110T190000Z-monthly"
PHASE = "patch:0.0.1"
PATCHED = Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="3 patches installed.")
FAILED = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.PATCHES_FAILED, message="1 patch failed.")
NONE = timedelta(0)


def ended(number: int, attempt: int = 1, **fields: bool) -> MachineEnded:
    return MachineEnded(key=machine(number).key, attempt=attempt, **fields)


async def record(records: Records, number: int, outcome: Outcome, *, second: int, phase: str = PHASE) -> Outcome:
    at = NOW + timedelta(seconds=second)

    def ending(stored: Outcome) -> Change:
        return ending_change(phase, ended(number, failed=stored.outcome is OutcomeKind.FAILED), at)

    key = machine(number).key
    return await records.record_outcome(RUN, key, outcome, at=at, installation=None, patches=[], ending=ending)


async def test_a_phase_reads_what_is_new_by_time(records: Records) -> None:
    await records.add_machines(RUN, [machine(number) for number in range(4)])
    assert await records.endings_since(RUN, PHASE, "", NONE) == ([], "")
    await record(records, 2, PATCHED, second=1)
    await record(records, 1, FAILED, second=2)
    first, heard = await records.endings_since(RUN, PHASE, "", NONE)
    assert first == [ended(2), ended(1, failed=True)]
    await records.set_stage(
        RUN,
        machine(3).key,
        Stage.ASSESSED,
        ending=ending_change(PHASE, ended(3, 4, left=True), NOW + timedelta(days=1)),
    )
    second, later = await records.endings_since(RUN, PHASE, heard, timedelta(seconds=0.5))
    assert second == [ended(1, failed=True), ended(3, 4, left=True)], "what is near the newest known one comes again"
    assert (await records.endings_since(RUN, PHASE, later, NONE))[1] == later


async def test_other_phases_and_passes_are_not_heard(records: Records) -> None:
    await records.add_machines(RUN, [machine(1), machine(2)])
    await record(records, 1, PATCHED, second=1, phase="patch:0.0.1")
    await record(records, 2, PATCHED, second=1, phase="patch:0.0.10")
    assert (await records.endings_since(RUN, "patch:0.0.1", "", NONE))[0] == [ended(1)]
    assert (await records.endings_since(RUN, "patch:0.0.10", "", NONE))[0] == [ended(2)]


async def test_a_machine_that_somebody_else_ended_is_told_with_the_outcome_that_is_stored(records: Records) -> None:
    await records.add_machines(RUN, [machine(1)])
    await records.record_outcomes(RUN, [machine(1).key], FAILED, NOW)
    assert await record(records, 1, PATCHED, second=1) == FAILED
    await records.set_stage(
        RUN, machine(1).key, Stage.ASSESSED, ending=ending_change(PHASE, ended(1), NOW + timedelta(seconds=2))
    )
    assert (await records.endings_since(RUN, PHASE, "", NONE))[0] == [ended(1, failed=True), ended(1)]


async def test_a_machine_that_is_not_in_the_run_has_no_ending(records: Records) -> None:
    with pytest.raises(RecordMissing):
        await record(records, 1, PATCHED, second=1)
    assert (await records.endings_since(RUN, PHASE, "", NONE))[0] == []


async def test_a_machine_with_more_patches_than_a_transaction_holds_is_told_with_its_row(records: Records) -> None:
    from tests.adapters.test_tables_machines import patches

    await records.add_machines(RUN, [machine(1)])
    for count in (98, 99, 100, 230):
        key = machine(1).key
        outcome = await records.record_outcome(
            RUN,
            key,
            PATCHED,
            at=NOW,
            installation=None,
            patches=patches(count),
            ending=lambda _, count=count: ending_change(f"p{count}", ended(1), NOW),
        )
        assert outcome == PATCHED
        assert (await records.endings_since(RUN, f"p{count}", "", NONE))[0] == [ended(1)]
