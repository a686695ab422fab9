"""await_operation: polls until the end, with a history that does not grow."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from durabletask.client import OrchestrationStatus
from durabletask.history import TimerCreatedEvent

from domain.outcome import Outcome, Reason
from domain.preflight import Preflight, Readiness
from domain.run import Mode, OperationKind
from domain.work import (
    AwaitOperation,
    MachineWork,
    OperationReport,
    OperationState,
    PreflightResult,
    StartResult,
    StartState,
    Step,
    Traits,
    Verified,
)
from orchestrators.machine import MOST_LOOKS
from orchestrators.operation import MOST_UNCOUNTED_WAITS, POLLS_PER_GENERATION
from tests.replay.fakes import (
    ACCEPTED,
    CANCELED,
    INSTALLED,
    LOST,
    OVERDUE,
    PASSING,
    READY,
    READY_AGAIN,
    RUN_ID,
    RUNNING,
    Fleet,
    Script,
)

KEY = "a" * 24
WORK = MachineWork(
    run_id=RUN_ID, machine_key=KEY, step=Step.PATCH, traits=Traits(mode=Mode.PATCH), phase="patch"
).to_wire()
NOT_YET = PreflightResult(
    preflight=Preflight(readiness=Readiness.WAIT, outcome=Outcome.skipped(Reason.INTERNAL, "Not now.")), wait_seconds=5
)
INPUT = AwaitOperation(run_id=RUN_ID, machine_key=KEY, kind=OperationKind.INSTALL).to_wire()


@pytest.mark.parametrize("end", [INSTALLED, PASSING, LOST, OVERDUE, CANCELED], ids=lambda end: end.state.value)
def test_polls_until_there_is_something_to_report(end: OperationReport) -> None:
    fleet = Fleet([KEY], {KEY: Script(install_polls=[RUNNING] * 4 + [end])})
    with fleet.bench() as bench:
        ended = bench.run("await_operation", INPUT)
        assert len(bench.calls_of("poll_operation")) == 5
    assert OperationReport.from_wire(ended.output) == end


@pytest.mark.parametrize("polls", [35, 240])
def test_the_history_does_not_grow_with_the_polls(polls: int) -> None:
    fleet = Fleet([KEY], {KEY: Script(install_polls=[RUNNING] * (polls - 1) + [INSTALLED])})
    with fleet.bench() as bench:
        ended = bench.run("await_operation", INPUT, timeout=40)
        assert len(bench.calls_of("poll_operation")) == polls
    assert ended.status is OrchestrationStatus.COMPLETED
    # 4 events a step, a timer and a poll each; the closed form of a generation is 8K+4.
    assert len(ended.history) <= 8 * POLLS_PER_GENERATION + 4


def test_nothing_signed_passes_through_the_history() -> None:
    fleet = Fleet([KEY])
    with fleet.bench() as bench:
        ended = bench.run("await_operation", INPUT)
    assert "http" not in repr(ended.history)
    assert OperationReport.from_wire(ended.output).state is OperationState.ENDED


def test_the_first_look_comes_when_the_end_is_near() -> None:
    fleet = Fleet([KEY], {KEY: Script(install_polls=[INSTALLED])})
    with fleet.bench() as bench:
        ended = bench.run("await_operation", INPUT | {"waitSeconds": 600})
        assert len(bench.calls_of("poll_operation")) == 1
    assert [type(event) for event in ended.history].count(TimerCreatedEvent) == 1


def test_a_turn_that_was_given_is_waited_for_and_handed_in() -> None:
    """Everybody waits for their turn: no number of waits ends a machine."""
    slots = [datetime(2026, 11, 21, hour, tzinfo=UTC) for hour in range(6)] * 12
    assert len(slots) > MOST_UNCOUNTED_WAITS
    waits = [StartResult(state=StartState.WAIT, wait_seconds=20, counts=False, slot=slot) for slot in slots]
    fleet = Fleet([KEY], {KEY: Script(install_starts=[*waits, ACCEPTED])})
    with fleet.bench() as bench:
        bench.run("patch_machine", WORK)
        sent = [call["slot"] for call in bench.calls_of("install_patches")]
    assert sent[0] is None
    assert [datetime.fromisoformat(slot) for slot in sent[1:]] == slots
    assert fleet.outcomes[KEY] == ("patched", "ok")


def test_a_look_whose_turn_had_not_come_is_none() -> None:
    unread = NOT_YET.model_copy(update={"counts": False})
    unseen = Verified(is_ready=False, wait_seconds=5, counts=False)
    script = Script(
        looks=[unread] * (2 * MOST_LOOKS) + [READY], verifications=[unseen] * (2 * MOST_LOOKS) + [READY_AGAIN]
    )
    fleet = Fleet([KEY], {KEY: script})
    with fleet.bench() as bench:
        bench.run("patch_machine", WORK)
    assert fleet.outcomes[KEY] == ("patched", "ok")
