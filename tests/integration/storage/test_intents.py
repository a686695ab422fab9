"""Leases, intents and skips to the letter: boundaries, and what stays when a step is executed again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.command import NotPossible
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.runs.intent import IntentState
from patchwave.domain.runs.machine_record import Stage
from patchwave.storage import RecordMissing, Records
from patchwave.storage.engine.client import TableRequests
from patchwave.storage.engine.rows import Row
from tests.support.factories import NOW, intent, machine, order

RUN = "20261110T190000Z-monthly"
KEY = machine(1).key
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


async def lease(records: Records) -> dict[str, str]:
    row = await records._store.machines.get("machines", f"l~{KEY}")
    assert row is not None
    return {name: str(row.columns[name]) for name in ("owner", "since", "until")}


async def test_a_lease_is_another_ones_until_the_moment_when_it_runs_out(records: Records) -> None:
    assert await records.acquire_lease(KEY, "run-a", NOW, NOW + HOUR) == "run-a"
    assert await records.acquire_lease(KEY, "run-b", NOW + HOUR - SECOND, NOW + 2 * HOUR) == "run-a"
    assert await records.leased([KEY], "run-a", NOW + HOUR - SECOND) == {KEY}
    assert await records.leased([KEY], "run-a", NOW + HOUR) == set()
    assert await records.leased([KEY], "run-b", NOW) == set()
    assert await records.acquire_lease(KEY, "run-b", NOW + HOUR, NOW + 2 * HOUR) == "run-b"
    assert await lease(records) == {
        "owner": "run-b",
        "since": "2026-11-10T20:00:00.000Z",
        "until": "2026-11-10T21:00:00.000Z",
    }


async def test_a_lease_that_is_given_back_while_it_is_asked_for_is_taken(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = records._store.machines
    read = table.get

    async def get_late(partition: str, key: str) -> Row | None:
        row = await read(partition, key)
        assert row is None or await table.delete(partition, key, row.etag)
        return await read(partition, key)

    await records.acquire_lease(KEY, "run-a", NOW, NOW + HOUR)
    monkeypatch.setattr(table, "get", get_late)
    assert await records.acquire_lease(KEY, "run-b", NOW, NOW + 2 * HOUR) == "run-b"
    monkeypatch.undo()
    assert (await lease(records))["owner"] == "run-b"


async def test_a_lease_that_is_taken_again_keeps_its_beginning_and_is_never_shortened(records: Records) -> None:
    await records.acquire_lease(KEY, "run-a", NOW, NOW + 2 * HOUR)
    await records.acquire_lease(KEY, "run-a", NOW + HOUR, NOW + HOUR + SECOND)
    assert await lease(records) == {
        "owner": "run-a",
        "since": "2026-11-10T19:00:00.000Z",
        "until": "2026-11-10T21:00:00.000Z",
    }
    await records.acquire_lease(KEY, "run-a", NOW + HOUR, NOW + 3 * HOUR)
    assert await lease(records) == {
        "owner": "run-a",
        "since": "2026-11-10T19:00:00.000Z",
        "until": "2026-11-10T22:00:00.000Z",
    }


@pytest.mark.parametrize(
    ("lasting", "until"), [(HOUR, "2026-11-10T20:00:00.000Z"), (HOUR + SECOND, "2026-11-10T21:00:00.000Z")]
)
async def test_a_lease_that_is_known_to_last_is_left_as_it_is(records: Records, lasting: timedelta, until: str) -> None:
    await records.acquire_lease(KEY, "run-a", NOW, NOW + HOUR)
    assert await records.acquire_lease(KEY, "run-a", NOW, NOW + 2 * HOUR, lasting=NOW + lasting) == "run-a"
    assert (await lease(records))["until"] == until


async def test_a_lease_is_given_back_by_its_owner_alone(records: Records) -> None:
    await records.acquire_lease(KEY, "run-a", NOW, NOW + HOUR)
    await records.release_lease(KEY, "run-b")
    assert (await lease(records))["owner"] == "run-a"
    await records.release_lease(KEY, "run-a")
    await records.release_lease(KEY, "run-a")
    assert await records.leased([KEY], "run-a", NOW) == set()
    assert await records.acquire_lease(KEY, "run-b", NOW, NOW + HOUR) == "run-b"


async def test_an_intent_that_changed_is_not_declared_again(records: Records) -> None:
    known = intent(RUN, state=IntentState.REFUSED)
    assert not await records.declare_again(known, intent(RUN, attempt=2)), "there is none"
    await records.declare_intent(known)
    await records.save_intent(known.model_copy(update={"state": IntentState.ACCEPTED}))
    assert not await records.declare_again(known, intent(RUN, attempt=2))
    stored = await records.get_intent(RUN, KEY, OperationKind.INSTALL)
    assert stored is not None
    assert (stored.state, stored.attempt) == (IntentState.ACCEPTED, 1)
    assert await records.declare_again(stored, intent(RUN, attempt=2))
    again = await records.get_intent(RUN, KEY, OperationKind.INSTALL)
    assert again is not None
    assert (again.state, again.attempt) == (IntentState.DECLARED, 2)


async def test_an_intent_is_known_to_whoever_has_seen_it(records: Records) -> None:
    assert not records.is_intent_known(RUN, KEY, OperationKind.INSTALL)
    assert await records.get_intent(RUN, KEY, OperationKind.INSTALL) is None
    await records.declare_intent(intent(RUN))
    assert records.is_intent_known(RUN, KEY, OperationKind.INSTALL)
    assert not records.is_intent_known(RUN, KEY, OperationKind.ASSESS)


@pytest.mark.parametrize(
    ("stage", "kind", "is_asked"),
    [
        (Stage.WAITING, OperationKind.ASSESS, False),
        (Stage.ASSESSED, OperationKind.INSTALL, False),
        (Stage.WAITING, OperationKind.INSTALL, True),
        (Stage.ASSESSED, OperationKind.ASSESS, True),
        (Stage.ASSESSING, OperationKind.ASSESS, True),
        (Stage.INSTALLING, OperationKind.INSTALL, True),
    ],
)
async def test_an_intent_is_looked_for_unless_the_row_says_that_none_has_begun(
    records: Records, monkeypatch: pytest.MonkeyPatch, stage: Stage, kind: OperationKind, *, is_asked: bool
) -> None:
    await records.add_machines(RUN, [machine(1, stage=stage)])
    await records.current_machine(RUN, KEY)
    reads: list[str] = []
    get = TableRequests.get

    async def counted(table: TableRequests, partition: str, key: str, select: list[str] | None) -> Row | None:
        reads.append(key)
        return await get(table, partition, key, select)

    monkeypatch.setattr(TableRequests, "get", counted)
    assert await records.find_intent(RUN, KEY, kind) is None
    assert reads == ([f"i~{KEY}~{kind.value}"] if is_asked else [])
    await records.declare_intent(intent(RUN, kind=kind))
    found = await records.find_intent(RUN, KEY, kind)
    assert found is not None
    assert found.kind is kind


async def test_an_operation_begins_once_and_keeps_its_first_time(records: Records) -> None:
    await records.add_machines(RUN, [machine(1)])
    assert await records.begin_operation(RUN, KEY, Stage.ASSESSING, NOW) is None
    assert await records.begin_operation(RUN, KEY, Stage.INSTALLING, NOW + HOUR) is None
    found = await records.get_machine(RUN, KEY)
    assert found is not None
    assert (found.stage, found.started_at) == (Stage.INSTALLING, NOW)
    with pytest.raises(RecordMissing):
        await records.begin_operation(RUN, machine(2).key, Stage.ASSESSING, NOW)


async def test_an_operation_does_not_begin_on_a_machine_that_is_skipped_or_has_ended(records: Records) -> None:
    await records.add_machines(RUN, [machine(1), machine(2)])
    await records.skip_machine(RUN, KEY, order("ana", "broken disk"), OperationKind.INSTALL)
    assert await records.begin_operation(RUN, KEY, Stage.INSTALLING, NOW) == order("ana", "broken disk")
    await records.record_outcomes(RUN, [machine(2).key], Outcome.canceled(), NOW)
    assert await records.begin_operation(RUN, machine(2).key, Stage.INSTALLING, NOW) is None
    for number, stage in ((1, Stage.WAITING), (2, Stage.DONE)):
        found = await records.get_machine(RUN, machine(number).key)
        assert found is not None
        assert (found.stage, found.started_at) == (stage, None)


async def test_a_skip_comes_too_late_behind_an_intent_unless_azure_refused_it(records: Records) -> None:
    await records.add_machines(RUN, [machine(1)])
    declared = intent(RUN)
    await records.declare_intent(declared)
    with pytest.raises(NotPossible, match="too late"):
        await records.skip_machine(RUN, KEY, order(), OperationKind.INSTALL)
    await records.save_intent(declared.model_copy(update={"state": IntentState.REFUSED}))
    first = await records.skip_machine(RUN, KEY, order("ana", "Bearer eyJhbGciOiJ.abc.def"), OperationKind.INSTALL)
    assert first.skip_command == order("ana", "Bearer ***")
    again = await records.skip_machine(RUN, KEY, order("ben"), OperationKind.INSTALL)
    assert again.skip_command == first.skip_command
    with pytest.raises(RecordMissing):
        await records.skip_machine(RUN, machine(2).key, order(), OperationKind.INSTALL)
