"""The one way to start a run: by run id, for every caller and however often."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from patchwave.api import runs
from patchwave.domain.calendar.schedule import Occurrence
from patchwave.domain.core.ids import RunId
from patchwave.domain.policy.policy import parse_policy
from patchwave.domain.runs.provenance import WrittenPolicy, written
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.services.errors import EngineUnavailable
from patchwave.services.start_run import start_run
from patchwave.storage import Storage
from tests.support.factories import NOW
from tests.support.http_calls import POLICY, Engine, call

TIMER = Trigger(kind=TriggerKind.TIMER, actor="timer")
DUE = Occurrence(NOW, NOW + timedelta(hours=4))
RUN = RunId.of(NOW, "monthly")


@pytest.fixture
def chosen() -> WrittenPolicy:
    return written(parse_policy({"name": "monthly", **POLICY}), author="cleo", author_id="", version=1)


async def start(storage: Storage, engine: Engine, chosen: WrittenPolicy, mode: Mode = Mode.PATCH) -> Run:
    return await start_run(storage, engine, chosen, RUN, TIMER, mode=mode, occurrence=DUE)


async def test_two_triggers_of_one_occurrence_are_one_run(
    storage: Storage, engine: Engine, chosen: WrittenPolicy
) -> None:
    """F16: the same trigger delivered twice within a second."""
    first, second = await asyncio.gather(*(start(storage, engine, chosen) for _ in range(2)))
    assert first.id == second.id == "20261110T190000Z-monthly"
    assert (first.occurrence, first.window_end) == (NOW, NOW + timedelta(hours=4))
    assert list(engine.instances) == [RUN.text]
    assert len((await storage.runs.list_page(10, None)).items) == 1


async def test_a_redelivery_after_the_end_starts_nothing(
    storage: Storage, engine: Engine, chosen: WrittenPolicy
) -> None:
    """F17: the same trigger again, long after its run has ended."""
    await start(storage, engine, chosen)
    ended = await storage.runs.close(RUN.text, RunState.COMPLETED, "", NOW)
    again = await start(storage, engine, chosen, Mode.ASSESS)
    assert again == ended
    assert engine.attempts == [RUN.text]


async def test_a_starter_that_died_before_the_engine_is_made_good(
    storage: Storage, engine: Engine, chosen: WrittenPolicy
) -> None:
    """The row is there, the orchestration is not: the next start of the same id schedules and audits it."""
    row = Run(
        id=RUN.text,
        policy="monthly",
        mode=Mode.PATCH,
        state=RunState.QUEUED,
        trigger=TIMER,
        created_at=NOW,
        policy_snapshot=chosen.policy.to_wire(),
        policy_origin=chosen.origin,
    )
    await storage.runs.create(row)
    assert await start(storage, engine, chosen) == row
    assert list(engine.instances) == [RUN.text]
    assert [line["action"] for line in (await storage.audit.list_page(RUN.text, 10, None)).items] == ["run_started"]


async def test_a_repeated_start_is_audited_once(storage: Storage, engine: Engine, chosen: WrittenPolicy) -> None:
    for _ in range(3):
        await start(storage, engine, chosen)
    assert len((await storage.audit.list_page(RUN.text, 10, None)).items) == 1


async def test_an_engine_that_is_away_leaves_a_run_that_the_next_start_schedules(
    storage: Storage, engine: Engine, chosen: WrittenPolicy
) -> None:
    engine.failing = True
    with pytest.raises(EngineUnavailable) as caught:
        await start(storage, engine, chosen)
    assert caught.value.retry_after
    engine.failing = False
    assert (await start(storage, engine, chosen)).state is RunState.QUEUED
    assert list(engine.instances) == [RUN.text]


async def test_a_run_that_cannot_be_requested_again_does_not_stay_queued(
    storage: Storage, engine: Engine, monthly: str
) -> None:
    """Without an Idempotency-Key every start has an id of its own: no later start would schedule this one."""
    engine.failing = True
    assert (await call(runs.start_run, body={"policy": monthly}, engine=engine)).status == 503
    [left] = (await storage.runs.list_page(10, None)).items
    assert left.state is RunState.FAILED
    assert left.reason
