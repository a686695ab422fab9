"""Orders in the row of a run and of a machine, given by many at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.command import InvalidTransition
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.runs.error_budget import ErrorBudgetExceeded
from patchwave.domain.runs.intent import IntentState
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import RunState
from patchwave.storage import RecordMissing, Storage
from tests.support.factories import NOW, RUN, command, intent, machine, run

LATER = NOW + timedelta(minutes=5)
POLICY = {
    "name": "monthly",
    "scope": {"osTypes": ["Linux"]},
    "rings": [{"name": "canary", "percent": 5}, {"name": "broad", "approval": {}}],
}
GATE = ErrorBudgetExceeded(run_id=RUN, scope="ring:broad", failures=3, limit=2, ends_run=False)


@pytest.fixture
async def live(storage: Storage) -> Storage:
    """Records with a run that has started."""
    await storage.runs.create(run(policy_snapshot=POLICY))
    await storage.runs.start(RUN, NOW)
    await storage.machines.add(RUN, [machine(1)])
    await storage.runs.count_machines(RUN)
    return storage


async def test_what_is_empty_again_is_empty_in_the_row(live: Storage) -> None:
    before = await live.runs.get(RUN)
    paused = await live.runs.pause(RUN, command())
    assert await live.runs.get(RUN) == paused
    await live.runs.trip_error_budget(GATE, NOW)
    resumed = await live.runs.resume(RUN, command(at=LATER))
    stored = await live.runs.get(RUN)
    assert stored == resumed
    assert before
    assert stored
    assert (stored.paused_at, stored.paused_from_state, stored.blocked_scopes) == (None, None, [])
    assert (stored.state, stored.resume_count, stored.machines) == (RunState.RUNNING, 1, 1)
    assert stored.policy_snapshot == before.policy_snapshot


async def test_many_orders_at_once_all_count_and_of_equal_ones_the_first(live: Storage) -> None:
    await asyncio.gather(
        live.runs.pause(RUN, command("ana")),
        live.runs.pause(RUN, command("ben")),
        live.runs.trip_error_budget(GATE, NOW),
        live.runs.decide_ring(RUN, "broad", command("ana"), approved=True),
        live.runs.cancel(RUN, command("eve")),
        return_exceptions=True,
    )
    stored = await live.runs.get(RUN)
    assert stored
    assert stored.cancel_requested_at == NOW
    assert stored.blocked_scopes == ["ring:broad"]
    # A pause and an approval that lost against the cancel were refused: both are whole, or not there.
    assert (stored.paused_at is not None) == ("pause" in stored.last_commands)


async def test_of_contrary_decisions_at_once_one_wins(live: Storage) -> None:
    answers = await asyncio.gather(
        *(live.runs.decide_ring(RUN, "broad", command(f"p{n}"), approved=n % 2 == 0) for n in range(6)),
        return_exceptions=True,
    )
    stored = await live.runs.get(RUN)
    assert stored
    decision = stored.decisions["broad"]
    refused = [answer for answer in answers if isinstance(answer, InvalidTransition)]
    assert len(refused) == 3
    assert all(f"by {decision.actor} at" in str(answer) for answer in refused)


async def test_a_paused_run_that_starts_stays_paused(storage: Storage) -> None:
    await storage.runs.create(run(policy_snapshot=POLICY))
    await storage.runs.pause(RUN, command())
    started = await storage.runs.start(RUN, LATER)
    assert (started.state, started.paused_from_state, started.started_at) == (RunState.PAUSED, RunState.RUNNING, LATER)
    assert await storage.runs.get(RUN) == started


async def test_gates_and_states_are_shown_and_the_end_takes_them_away(live: Storage) -> None:
    await live.runs.set_state(RUN, RunState.AWAITING_APPROVAL, "broad")
    stopped = await live.runs.stop(RUN, "See https://example.org/log?sig=SECRET", NOW)
    assert stopped.stop_reason == "See https://example.org/log?***"
    assert (await live.runs.stop(RUN, "again", LATER)) == stopped
    closed = await live.runs.close(RUN, RunState.STOPPED, stopped.stop_reason, LATER)
    assert (closed.state, closed.waiting_for, closed.stopped_at) == (RunState.STOPPED, "", NOW)
    assert await live.runs.get(RUN) == closed


async def test_comments_are_kept_without_secrets(live: Storage) -> None:
    paused = await live.runs.pause(RUN, command(reason="\0 Bearer abcdefghijkl, https://example.org/?code=SECRET"))
    assert paused.last_commands["pause"].reason == "\ufffd Bearer ***, https://example.org/?***"


async def test_orders_to_a_run_that_is_not_there(storage: Storage) -> None:
    for give in (storage.runs.pause, storage.runs.resume, storage.runs.cancel):
        with pytest.raises(RecordMissing):
            await give(RUN, command())
    with pytest.raises(RecordMissing):
        await storage.machines.skip(RUN, machine(1).key, command(), OperationKind.INSTALL)
    with pytest.raises(RecordMissing):
        await storage.machines.begin_operation(RUN, machine(1).key, Stage.INSTALLING, NOW)


class TestSkippingAMachine:
    KEY = machine(1).key

    async def test_the_first_order_stays_and_keeps_the_operation_from_beginning(self, live: Storage) -> None:
        skipped = await live.machines.skip(RUN, self.KEY, command("ana", "being rebuilt"), OperationKind.INSTALL)
        again = await live.machines.skip(RUN, self.KEY, command("ben"), OperationKind.INSTALL)
        assert skipped == again == await live.machines.get(RUN, self.KEY)
        await live.intents.declare(intent(RUN))
        asked = await live.machines.begin_operation(RUN, self.KEY, Stage.INSTALLING, NOW)
        assert asked == command("ana", "being rebuilt")
        found = await live.machines.get(RUN, self.KEY)
        assert found
        assert (found.stage, found.started_at) == (Stage.WAITING, None)

    async def test_after_the_operation_has_begun_it_is_too_late(self, live: Storage) -> None:
        await live.intents.declare(intent(RUN))
        assert await live.machines.begin_operation(RUN, self.KEY, Stage.INSTALLING, NOW) is None
        with pytest.raises(InvalidTransition, match="installing"):
            await live.machines.skip(RUN, self.KEY, command(), OperationKind.INSTALL)
        found = await live.machines.get(RUN, self.KEY)
        assert found
        assert (found.stage, found.started_at, found.skip_command) == (Stage.INSTALLING, NOW, None)

    async def test_an_assessment_does_not_hinder_a_run_that_installs(self, live: Storage) -> None:
        await live.intents.declare(intent(RUN, kind=OperationKind.ASSESS, state=IntentState.ACCEPTED))
        await live.machines.begin_operation(RUN, self.KEY, Stage.ASSESSING, NOW)
        skipped = await live.machines.skip(RUN, self.KEY, command(), OperationKind.INSTALL)
        assert skipped.skip_command == command()

    async def test_what_azure_refused_may_still_be_skipped(self, live: Storage) -> None:
        await live.intents.declare(intent(RUN))
        await live.machines.begin_operation(RUN, self.KEY, Stage.INSTALLING, NOW)
        await live.intents.save(intent(RUN, state=IntentState.REFUSED))
        assert (await live.machines.skip(RUN, self.KEY, command(), OperationKind.INSTALL)).skip_command == command()
        await live.intents.save(intent(RUN, attempt=2))
        assert await live.machines.begin_operation(RUN, self.KEY, Stage.INSTALLING, LATER) == command()

    async def test_the_start_of_a_machine_is_kept(self, live: Storage) -> None:
        await live.machines.begin_operation(RUN, self.KEY, Stage.ASSESSING, NOW)
        await live.machines.begin_operation(RUN, self.KEY, Stage.INSTALLING, LATER)
        found = await live.machines.get(RUN, self.KEY)
        assert found
        assert (found.stage, found.started_at) == (Stage.INSTALLING, NOW)

    async def test_a_machine_that_has_ended_stays_as_it_is(self, live: Storage) -> None:
        await live.results.record_outcomes(RUN, [self.KEY], Outcome.canceled(), NOW)
        assert await live.machines.begin_operation(RUN, self.KEY, Stage.INSTALLING, LATER) is None
        with pytest.raises(InvalidTransition, match="canceled"):
            await live.machines.skip(RUN, self.KEY, command(), OperationKind.INSTALL)
        found = await live.machines.get(RUN, self.KEY)
        assert found
        assert (found.stage, found.skip_command) == (Stage.DONE, None)

    async def test_of_a_skip_and_a_start_at_once_exactly_one_wins(self, storage: Storage) -> None:
        await storage.runs.create(run(policy_snapshot=POLICY))
        machines = [machine(number) for number in range(24)]
        await storage.machines.add(RUN, machines)

        async def begin(number: int) -> bool:
            await storage.intents.declare(intent(RUN, number))
            return await storage.machines.begin_operation(RUN, machine(number).key, Stage.INSTALLING, NOW) is None

        async def skip(number: int) -> bool:
            try:
                await storage.machines.skip(RUN, machine(number).key, command(), OperationKind.INSTALL)
            except InvalidTransition:
                return False
            return True

        numbers = range(len(machines))
        begun, skipped = await asyncio.gather(asyncio.gather(*map(begin, numbers)), asyncio.gather(*map(skip, numbers)))
        assert all(one != other for one, other in zip(begun, skipped, strict=True))
