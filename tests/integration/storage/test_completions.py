"""Completions: written with the machine's row or not at all, and read by the phase whenever they become readable."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.workflow.machine import MachineEnded
from patchwave.storage import Change, RecordMissing, Storage, completion_change, completions
from patchwave.storage.completions import CompletionRepository
from patchwave.storage.engine.rows import Conflict, Row
from patchwave.storage.engine.store import Store
from tests.support.factories import NOW, RUN, machine, patches

PHASE = "patch:0.0.1"
PATCHED = Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="3 patches installed.")
FAILED = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.PATCHES_FAILED, message="1 patch failed.")


def ended(number: int, attempt: int = 1, **fields: bool) -> MachineEnded:
    return MachineEnded(key=machine(number).key, attempt=attempt, **fields)


async def record(storage: Storage, number: int, outcome: Outcome, *, second: int, phase: str = PHASE) -> Outcome:
    at = NOW + timedelta(seconds=second)

    def completion(stored: Outcome) -> Change:
        return completion_change(phase, ended(number, failed=stored.outcome is OutcomeKind.FAILED))

    key = machine(number).key
    return await storage.results.record_outcome(
        RUN, key, outcome, at=at, installation=None, patches=[], completion=completion
    )


async def test_a_phase_gets_completions_after_its_cursor(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(number) for number in range(4)])
    assert await storage.completions.since(RUN, PHASE, "") == ([], "")
    await record(storage, 2, PATCHED, second=1)
    await record(storage, 1, FAILED, second=2)
    first, cursor = await storage.completions.since(RUN, PHASE, "")
    assert sorted(first, key=str) == sorted([ended(2), ended(1, failed=True)], key=str)
    await storage.machines.update(
        RUN, machine(3).key, Stage.ASSESSED, completion=completion_change(PHASE, ended(3, 4, requeued=True))
    )
    second, later = await storage.completions.since(RUN, PHASE, cursor)
    assert second == [ended(3, 4, requeued=True)]
    assert await storage.completions.since(RUN, PHASE, cursor) == (second, later), "the poll was executed twice"
    assert await storage.completions.since(RUN, PHASE, later) == ([], later)


async def test_consumed_rows_are_removed_by_the_hundred(storage: Storage) -> None:
    for number in range(130):
        await storage.completions.record(RUN, completion_change(PHASE, ended(number)))
    completed, cursor = await storage.completions.since(RUN, PHASE, "")
    assert len(completed) == len(cursor.split()) == 130
    assert (await storage.completions.since(RUN, PHASE, ""))[0] == completed, "nothing goes before the phase has it"
    again, left = await storage.completions.since(RUN, PHASE, cursor)
    assert (again, len(left.split())) == ([], 30)
    assert await storage.completions.since(RUN, PHASE, cursor) == ([], left)
    assert len((await storage.completions.since(RUN, PHASE, ""))[0]) == 30


async def test_four_hundred_are_read_at_a_time_and_the_others_next(storage: Storage) -> None:
    changes = [completion_change(PHASE, ended(number)) for number in range(450)]
    for first in range(0, 450, 90):
        await asyncio.gather(*(storage.completions.record(RUN, change) for change in changes[first : first + 90]))
    completed, cursor = await storage.completions.since(RUN, PHASE, "")
    assert len(completed) == 400
    rest, cursor = await storage.completions.since(RUN, PHASE, cursor)
    assert len(rest) == 50
    assert {one.key for one in completed} | {one.key for one in rest} == {machine(number).key for number in range(450)}
    assert await storage.completions.since(RUN, PHASE, cursor) == ([], cursor)


async def test_completions_of_other_phases_and_passes_are_not_read(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1), machine(2)])
    await record(storage, 1, PATCHED, second=1, phase="patch:0.0.1")
    await record(storage, 2, PATCHED, second=1, phase="patch:0.0.10")
    assert (await storage.completions.since(RUN, "patch:0.0.1", ""))[0] == [ended(1)]
    assert (await storage.completions.since(RUN, "patch:0.0.10", ""))[0] == [ended(2)]


async def test_a_machine_that_ended_elsewhere_completes_with_the_stored_outcome(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    await storage.results.record_outcomes(RUN, [machine(1).key], FAILED, NOW)
    assert await record(storage, 1, PATCHED, second=1) == FAILED
    await storage.machines.update(RUN, machine(1).key, Stage.ASSESSED, completion=completion_change(PHASE, ended(1, 2)))
    assert (await storage.completions.since(RUN, PHASE, ""))[0] == [ended(1, failed=True), ended(1, 2)]


async def test_a_machine_that_is_not_in_the_run_has_no_completion(storage: Storage) -> None:
    with pytest.raises(RecordMissing):
        await record(storage, 1, PATCHED, second=1)
    assert (await storage.completions.since(RUN, PHASE, ""))[0] == []


async def test_a_machine_with_more_patches_than_a_transaction_holds_completes_with_its_row(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    for count in (98, 99, 100, 230):
        key = machine(1).key
        outcome = await storage.results.record_outcome(
            RUN,
            key,
            PATCHED,
            at=NOW,
            installation=None,
            patches=patches(count),
            completion=lambda _, count=count: completion_change(f"p{count}", ended(1)),
        )
        assert outcome == PATCHED
        assert (await storage.completions.since(RUN, f"p{count}", ""))[0] == [ended(1)]


# --- delays between a write and the poll that reads it


class Rows:
    """The completions of one run in memory, as a table of the service keeps them."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self._etags = itertools.count(1)
        self.most_read = 0

    async def scan(self, partition: str, *, first: str, end: str) -> AsyncGenerator[Row]:
        found = [self.rows[key] for key in sorted(self.rows) if first <= key < end]
        self.most_read = max(self.most_read, len(found))
        for row in found:
            yield row

    async def apply(self, partition: str, changes: Sequence[Change]) -> None:
        for change in changes:
            known = self.rows.get(change.key)
            if change.etag and (known is None or known.etag != change.etag):
                raise Conflict("stale", is_gone=known is None)
        for change in changes:
            if change.verb == "delete":
                del self.rows[change.key]
            else:
                self.rows[change.key] = Row(change.key, change.columns, str(next(self._etags)))


_LATE = st.tuples(st.just("write"), st.integers(0, 25))
_AGAIN = st.tuples(st.just("again"), st.integers(0, 25))
_POLL = st.tuples(st.sampled_from(["poll", "poll twice", "lost poll"]), st.just(0))


@settings(deadline=None)
@given(st.lists(st.one_of(_LATE, _LATE, _AGAIN, _POLL), max_size=120))
def test_every_completion_is_read_however_late_it_becomes_readable(steps: list[tuple[str, int]]) -> None:
    """Writes become readable in any order and at any time between polls, which may be executed again or get lost."""
    asyncio.run(_read_all_completions(steps))


async def _read_all_completions(steps: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(completions, "BATCH_ROWS", 3)
        patched.setattr(completions, "_MAX_PER_POLL", 5)
        table = Rows()
        completion_rows = CompletionRepository(cast("Store", SimpleNamespace(results=table)))
        written: set[int] = set()
        rewritten: set[int] = set()
        completed: list[str] = []
        cursor = ""
        for what, number in [*steps, *[("poll", 0)] * 12]:
            match what:
                case "write" | "again" if what == "again" or number not in written:
                    if number in written:
                        rewritten.add(number)
                    written.add(number)
                    await completion_rows.record(RUN, completion_change(PHASE, ended(number)))
                case "poll" | "poll twice":
                    if what == "poll twice":
                        # The answer of the first execution got lost; the second one counts.
                        await completion_rows.since(RUN, PHASE, cursor)
                    found, cursor = await completion_rows.since(RUN, PHASE, cursor)
                    completed += [one.key for one in found]
                case "lost poll":
                    await completion_rows.since(RUN, PHASE, cursor)
                case _:
                    pass
        assert {machine(number).key for number in written} == set(completed)
        for number in written - rewritten:
            assert completed.count(machine(number).key) == 1
        assert len(table.rows) <= 2
