"""await_operation: polls until the end, with a history that does not grow."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from durabletask.client import OrchestrationStatus
from durabletask.history import TimerCreatedEvent

from orchestrators.operation import POLLS_PER_EXECUTION
from orchestrators.preflight import MAX_POLLS
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.documents import Json
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.machine.preflight import Preflight, Readiness
from patchwave.domain.runs.run import Mode, Step
from patchwave.domain.workflow.machine import MachineWork, PreflightResult, Verified
from patchwave.domain.workflow.operation import AwaitOperation, OperationReport, OperationState, StartResult, StartState
from patchwave.domain.workflow.run import MachineOptions
from tests.support.scripted_fleet import (
    ACCEPTED,
    BUSY,
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
    run_id=RUN_ID, machine_key=KEY, step=Step.PATCH, options=MachineOptions(mode=Mode.PATCH), phase="patch"
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
    assert OperationReport.model_validate(ended.output) == end


@pytest.mark.parametrize("polls", [35, 240])
def test_the_history_does_not_grow_with_the_polls(polls: int) -> None:
    fleet = Fleet([KEY], {KEY: Script(install_polls=[RUNNING] * (polls - 1) + [INSTALLED])})
    with fleet.bench() as bench:
        ended = bench.run("await_operation", INPUT, timeout=40)
        assert len(bench.calls_of("poll_operation")) == polls
    assert ended.status is OrchestrationStatus.COMPLETED
    # 4 events a step, a timer and a poll each; the closed form of an execution is 8K+4.
    assert len(ended.history) <= 8 * POLLS_PER_EXECUTION + 4


def test_nothing_signed_passes_through_the_history() -> None:
    fleet = Fleet([KEY])
    with fleet.bench() as bench:
        ended = bench.run("await_operation", INPUT)
    assert "http" not in repr(ended.history)
    assert OperationReport.model_validate(ended.output).state is OperationState.ENDED


def test_the_first_poll_is_near_the_expected_end() -> None:
    fleet = Fleet([KEY], {KEY: Script(install_polls=[INSTALLED])})
    with fleet.bench() as bench:
        ended = bench.run("await_operation", INPUT | {"waitSeconds": 600})
        assert len(bench.calls_of("poll_operation")) == 1
    assert [type(event) for event in ended.history].count(TimerCreatedEvent) == 1


def test_a_reserved_time_is_waited_for_and_sent_along() -> None:
    """Every request waits for its reserved time: no number of such waits ends a machine."""
    slots = [datetime(2026, 11, 21, hour, tzinfo=UTC) for hour in range(6)] * 12
    waits = [
        StartResult(state=StartState.WAIT, wait_seconds=20, counts_as_attempt=False, reserved_at=slot) for slot in slots
    ]
    fleet = Fleet([KEY], {KEY: Script(install_starts=[*waits, ACCEPTED])})
    with fleet.bench() as bench:
        bench.run("patch_machine", WORK)
        sent = [call["reservedAt"] for call in bench.calls_of("install_patches")]
    assert sent[0] is None
    assert [datetime.fromisoformat(slot) for slot in sent[1:]] == slots
    assert fleet.outcomes[KEY] == ("patched", "ok")


NOT_KNOWN = StartResult(state=StartState.WAIT, wait_seconds=120)
UNCOUNTED = NOT_KNOWN.model_copy(update={"counts_as_attempt": False})
NOT_OURS = StartResult(
    state=StartState.ENDED, outcome=Outcome.skipped(Reason.OPERATION_CONFLICT, "Another operation is running.")
)
PERHAPS = StartResult(
    state=StartState.ENDED,
    outcome=Outcome(outcome=OutcomeKind.UNKNOWN, reason=Reason.OPERATION_LOST, message="It may be ours."),
    may_run=True,
)


def played(*starts: StartResult) -> tuple[Fleet, list[Json], Json]:
    """The machine's start with these answers: what it was asked, and what was recorded."""
    fleet = Fleet([KEY], {KEY: Script(install_starts=list(starts))})
    with fleet.bench() as bench:
        bench.run("patch_machine", WORK)
        asked = bench.calls_of("install_patches")
    return fleet, asked, fleet.recorded[KEY][0]


def test_when_the_retries_are_used_up_the_last_post_is_settled_and_nothing_more_is_sent() -> None:
    fleet, asked, recorded = played(*[NOT_KNOWN] * 6, UNCOUNTED, NOT_OURS)
    assert [call["isLast"] for call in asked] == [False] * 6 + [True] * 2
    assert fleet.outcomes[KEY] == ("skipped", "operation_conflict")
    assert recorded["keepLease"] is False


def test_an_operation_that_proves_to_be_ours_is_followed_even_then() -> None:
    fleet, asked, _ = played(*[NOT_KNOWN] * 6, ACCEPTED)
    assert [call["isLast"] for call in asked] == [False] * 6 + [True]
    assert fleet.outcomes[KEY] == ("patched", "ok")


def test_the_lock_stays_when_something_may_run() -> None:
    fleet, _, recorded = played(*[NOT_KNOWN] * 6, PERHAPS)
    assert fleet.outcomes[KEY] == ("unknown", "operation_lost")
    assert recorded["keepLease"] is True


def test_a_machine_without_any_answer_ends_as_unknown_with_its_lock() -> None:
    fleet, asked, recorded = played(NOT_KNOWN)
    assert len(asked) == 12
    assert fleet.outcomes[KEY] == ("unknown", "operation_lost")
    assert recorded["keepLease"] is True


def test_a_certain_refusal_ends_with_its_own_outcome_when_the_retries_are_used_up() -> None:
    fleet, asked, recorded = played(BUSY)
    assert len(asked) == 6
    assert not any(call["isLast"] for call in asked)
    assert fleet.outcomes[KEY] == ("skipped", "operation_conflict")
    assert recorded["keepLease"] is False


def test_each_attempt_is_followed_under_an_id_of_its_own() -> None:
    fleet = Fleet([KEY])
    with fleet.bench() as bench:
        bench.run("patch_machine", WORK, instance_id="patch-a")
        follower = bench.client.get_orchestration_state("patch-a:i:1")
    assert follower is not None
    assert follower.name == "await_operation"


def test_an_answer_that_has_the_result_needs_no_poll() -> None:
    fleet = Fleet([KEY], {KEY: Script(install_starts=[StartResult(state=StartState.ACCEPTED, report=INSTALLED)])})
    with fleet.bench() as bench:
        bench.run("patch_machine", WORK)
        assert not [call for call in bench.calls_of("poll_operation") if call["kind"] == "install"]
    assert fleet.outcomes[KEY] == ("patched", "ok")


def test_a_poll_before_its_reserved_time_does_not_count() -> None:
    unread = NOT_YET.model_copy(update={"counts_as_attempt": False})
    unseen = Verified(is_ready=False, wait_seconds=5, counts_as_attempt=False)
    script = Script(
        preflights=[unread] * (2 * MAX_POLLS) + [READY], verifications=[unseen] * (2 * MAX_POLLS) + [READY_AGAIN]
    )
    fleet = Fleet([KEY], {KEY: script})
    with fleet.bench() as bench:
        bench.run("patch_machine", WORK)
    assert fleet.outcomes[KEY] == ("patched", "ok")
