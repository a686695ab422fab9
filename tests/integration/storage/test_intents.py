"""Leases, intents and skips to the letter: boundaries, and what stays when a step is executed again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.command import InvalidTransition
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.runs.intent import IntentState
from patchwave.domain.runs.machine_record import Stage
from patchwave.storage import RecordMissing, Storage
from patchwave.storage.engine.client import TableRequests
from patchwave.storage.engine.rows import Row
from tests.support.factories import NOW, RUN, command, intent, machine

KEY = machine(1).key
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


async def lease(storage: Storage) -> dict[str, str]:
    row = await storage._store.machines.get("machines", f"l~{KEY}")
    assert row is not None
    return {name: str(row.columns[name]) for name in ("owner", "since", "until")}


async def test_a_lease_is_another_ones_until_the_moment_when_it_runs_out(storage: Storage) -> None:
    assert await storage.leases.acquire(KEY, "run-a", NOW, NOW + HOUR) == "run-a"
    assert await storage.leases.acquire(KEY, "run-b", NOW + HOUR - SECOND, NOW + 2 * HOUR) == "run-a"
    assert await storage.leases.held([KEY], "run-a", NOW + HOUR - SECOND) == {KEY}
    assert await storage.leases.held([KEY], "run-a", NOW + HOUR) == set()
    assert await storage.leases.held([KEY], "run-b", NOW) == set()
    assert await storage.leases.acquire(KEY, "run-b", NOW + HOUR, NOW + 2 * HOUR) == "run-b"
    assert await lease(storage) == {
        "owner": "run-b",
        "since": "2026-11-10T20:00:00.000Z",
        "until": "2026-11-10T21:00:00.000Z",
    }


async def test_a_lease_that_is_released_during_the_request_is_acquired(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = storage._store.machines
    read = table.get

    async def get_late(partition: str, key: str) -> Row | None:
        row = await read(partition, key)
        assert row is None or await table.delete(partition, key, row.etag)
        return await read(partition, key)

    await storage.leases.acquire(KEY, "run-a", NOW, NOW + HOUR)
    monkeypatch.setattr(table, "get", get_late)
    assert await storage.leases.acquire(KEY, "run-b", NOW, NOW + 2 * HOUR) == "run-b"
    monkeypatch.undo()
    assert (await lease(storage))["owner"] == "run-b"


async def test_a_lease_that_is_taken_again_keeps_its_beginning_and_is_never_shortened(storage: Storage) -> None:
    await storage.leases.acquire(KEY, "run-a", NOW, NOW + 2 * HOUR)
    await storage.leases.acquire(KEY, "run-a", NOW + HOUR, NOW + HOUR + SECOND)
    assert await lease(storage) == {
        "owner": "run-a",
        "since": "2026-11-10T19:00:00.000Z",
        "until": "2026-11-10T21:00:00.000Z",
    }
    await storage.leases.acquire(KEY, "run-a", NOW + HOUR, NOW + 3 * HOUR)
    assert await lease(storage) == {
        "owner": "run-a",
        "since": "2026-11-10T19:00:00.000Z",
        "until": "2026-11-10T22:00:00.000Z",
    }


@pytest.mark.parametrize(
    ("lasting", "until"), [(HOUR, "2026-11-10T20:00:00.000Z"), (HOUR + SECOND, "2026-11-10T21:00:00.000Z")]
)
async def test_a_lease_that_is_known_to_last_is_left_as_it_is(storage: Storage, lasting: timedelta, until: str) -> None:
    await storage.leases.acquire(KEY, "run-a", NOW, NOW + HOUR)
    assert await storage.leases.acquire(KEY, "run-a", NOW, NOW + 2 * HOUR, lasting=NOW + lasting) == "run-a"
    assert (await lease(storage))["until"] == until


async def test_a_lease_is_given_back_by_its_owner_alone(storage: Storage) -> None:
    await storage.leases.acquire(KEY, "run-a", NOW, NOW + HOUR)
    await storage.leases.release(KEY, "run-b")
    assert (await lease(storage))["owner"] == "run-a"
    await storage.leases.release(KEY, "run-a")
    await storage.leases.release(KEY, "run-a")
    assert await storage.leases.held([KEY], "run-a", NOW) == set()
    assert await storage.leases.acquire(KEY, "run-b", NOW, NOW + HOUR) == "run-b"


async def test_an_intent_that_changed_is_not_declared_again(storage: Storage) -> None:
    known = intent(RUN, state=IntentState.REFUSED)
    assert not await storage.intents.redeclare(known, intent(RUN, attempt=2)), "there is none"
    await storage.intents.declare(known)
    await storage.intents.save(known.model_copy(update={"state": IntentState.ACCEPTED}))
    assert not await storage.intents.redeclare(known, intent(RUN, attempt=2))
    stored = await storage.intents.get(RUN, KEY, OperationKind.INSTALL)
    assert stored is not None
    assert (stored.state, stored.attempt) == (IntentState.ACCEPTED, 1)
    assert await storage.intents.redeclare(stored, intent(RUN, attempt=2))
    again = await storage.intents.get(RUN, KEY, OperationKind.INSTALL)
    assert again is not None
    assert (again.state, again.attempt) == (IntentState.DECLARED, 2)


async def test_an_intent_is_cached_once_it_was_read(storage: Storage) -> None:
    assert not storage.intents.is_cached(RUN, KEY, OperationKind.INSTALL)
    assert await storage.intents.get(RUN, KEY, OperationKind.INSTALL) is None
    await storage.intents.declare(intent(RUN))
    assert storage.intents.is_cached(RUN, KEY, OperationKind.INSTALL)
    assert not storage.intents.is_cached(RUN, KEY, OperationKind.ASSESS)


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
async def test_an_intent_is_read_unless_the_row_shows_that_none_exists(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, stage: Stage, kind: OperationKind, *, is_asked: bool
) -> None:
    await storage.machines.add(RUN, [machine(1, stage=stage)])
    await storage.machines.get_validated(RUN, KEY)
    reads: list[str] = []
    get = TableRequests.get

    async def counted(table: TableRequests, partition: str, key: str, select: list[str] | None) -> Row | None:
        reads.append(key)
        return await get(table, partition, key, select)

    monkeypatch.setattr(TableRequests, "get", counted)
    assert await storage.intents.find(RUN, KEY, kind) is None
    assert reads == ([f"i~{KEY}~{kind.value}"] if is_asked else [])
    await storage.intents.declare(intent(RUN, kind=kind))
    found = await storage.intents.find(RUN, KEY, kind)
    assert found is not None
    assert found.kind is kind


async def test_an_operation_begins_once_and_keeps_its_first_time(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    assert await storage.machines.begin_operation(RUN, KEY, Stage.ASSESSING, NOW) is None
    assert await storage.machines.begin_operation(RUN, KEY, Stage.INSTALLING, NOW + HOUR) is None
    found = await storage.machines.get(RUN, KEY)
    assert found is not None
    assert (found.stage, found.started_at) == (Stage.INSTALLING, NOW)
    with pytest.raises(RecordMissing):
        await storage.machines.begin_operation(RUN, machine(2).key, Stage.ASSESSING, NOW)


async def test_an_operation_does_not_begin_on_a_machine_that_is_skipped_or_has_ended(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1), machine(2)])
    await storage.machines.skip(RUN, KEY, command("ana", "broken disk"), OperationKind.INSTALL)
    assert await storage.machines.begin_operation(RUN, KEY, Stage.INSTALLING, NOW) == command("ana", "broken disk")
    await storage.results.record_outcomes(RUN, [machine(2).key], Outcome.canceled(), NOW)
    assert await storage.machines.begin_operation(RUN, machine(2).key, Stage.INSTALLING, NOW) is None
    for number, stage in ((1, Stage.WAITING), (2, Stage.DONE)):
        found = await storage.machines.get(RUN, machine(number).key)
        assert found is not None
        assert (found.stage, found.started_at) == (stage, None)


async def test_a_skip_is_too_late_after_an_intent_unless_azure_refused_it(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    declared = intent(RUN)
    await storage.intents.declare(declared)
    with pytest.raises(InvalidTransition, match="too late"):
        await storage.machines.skip(RUN, KEY, command(), OperationKind.INSTALL)
    await storage.intents.save(declared.model_copy(update={"state": IntentState.REFUSED}))
    first = await storage.machines.skip(RUN, KEY, command("ana", "Bearer eyJhbGciOiJ.abc.def"), OperationKind.INSTALL)
    assert first.skip_command == command("ana", "Bearer ***")
    again = await storage.machines.skip(RUN, KEY, command("ben"), OperationKind.INSTALL)
    assert again.skip_command == first.skip_command
    with pytest.raises(RecordMissing):
        await storage.machines.skip(RUN, machine(2).key, command(), OperationKind.INSTALL)
