"""await_operation: polls until the end, with a history that does not grow."""

from __future__ import annotations

import pytest
from durabletask.client import OrchestrationStatus

from domain.run import OperationKind
from domain.work import AwaitOperation, OperationReport, OperationState
from orchestrators.operation import POLLS_PER_GENERATION
from tests.replay.fakes import CANCELED, INSTALLED, LOST, OVERDUE, PASSING, RUN_ID, RUNNING, Fleet, Script

KEY = "a" * 24
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
