"""What people and gates may ask of a run, and what that means for a machine whose turn has come."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.core.command import Command, InvalidTransition
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.runs import commands
from patchwave.domain.runs.error_budget import ErrorBudgetExceeded
from patchwave.domain.runs.intent import Intent, IntentState
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import ApprovalDecision, Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.workflow.operation import StartState
from patchwave.domain.workflow.start_blocker import start_blocker
from tests.support.factories import intent, machine

NOW = datetime(2026, 11, 10, 19, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
ANA = Command(actor="ana", reason="the disks are full", at=NOW)
BEN = Command(actor="ben", reason="all is well", at=LATER)
POLICY = {
    "name": "monthly",
    "scope": {"osTypes": ["Linux"]},
    "rings": [
        {"name": "canary", "percent": 5},
        {"name": "early", "percent": 20, "approval": {"within": "PT4H"}},
        {"name": "broad", "approval": {"within": "PT24H"}},
    ],
}


def run(state: RunState = RunState.RUNNING, **changes: Any) -> Run:
    fields: dict[str, Any] = {
        "id": "20261110T190000Z-monthly",
        "policy": "monthly",
        "mode": Mode.PATCH,
        "state": state,
        "trigger": Trigger(kind=TriggerKind.TIMER),
        "created_at": NOW,
        "policy_snapshot": POLICY,
    }
    return Run(**{**fields, **changes})


def approved_run(**changes: Any) -> Run:
    """A run whose rings have the approvals that they need."""
    approvals = {ring: ApprovalDecision(approved=True, actor="ben", at=NOW) for ring in ("early", "broad")}
    fields: dict[str, Any] = {"decisions": approvals, **changes}
    return run(**fields)


def gate(scope: str = "lane:broad/westeurope", *, ends_run: bool = False) -> ErrorBudgetExceeded:
    return ErrorBudgetExceeded(run_id=run().id, scope=scope, failures=3, limit=2, ends_run=ends_run)


def approve(state: Run, ring: str, order: Command = ANA) -> Run:
    return commands.decide(state, ring, order, approved=True)


def reject(state: Run, ring: str, order: Command = ANA) -> Run:
    return commands.decide(state, ring, order, approved=False)


def placed(**changes: Any) -> MachineRecord:
    return machine(1, **{"ring": "broad", "lane": "westeurope", "wave": 2, **changes})


class TestPauseAndResume:
    def test_a_pause_shows_at_once_with_actor_and_reason(self) -> None:
        paused = commands.pause(run(), ANA)
        assert (paused.state, paused.paused_at) == (RunState.PAUSED, NOW)
        said = paused.last_commands["pause"]
        assert (said.actor, said.reason, said.before, said.after) == (
            "ana", "the disks are full", RunState.RUNNING, RunState.PAUSED,
        )  # fmt: skip
        assert commands.controls(paused).is_paused

    def test_a_second_pause_changes_nothing(self) -> None:
        paused = commands.pause(run(), ANA)
        assert commands.pause(paused, BEN) == paused

    def test_a_resume_gives_back_what_was_shown_before(self) -> None:
        for state, waiting_for in (
            (RunState.QUEUED, ""),
            (RunState.RUNNING, ""),
            (RunState.AWAITING_APPROVAL, "broad"),
            (RunState.AWAITING_WINDOW, "2026-12-08T22:00:00Z"),
        ):
            before = run(state, waiting_for=waiting_for)
            resumed = commands.resume(commands.pause(before, ANA), BEN)
            assert (resumed.state, resumed.waiting_for, resumed.paused_from_state) == (state, waiting_for, None)
            assert (resumed.paused_at, resumed.resumed_at, resumed.resume_count) == (None, LATER, 1)

    def test_a_running_run_is_not_resumed(self) -> None:
        assert commands.resume(run(), ANA) == run()
        resumed = commands.resume(commands.pause(run(), ANA), BEN)
        assert commands.resume(resumed, ANA) == resumed

    def test_progress_under_a_pause_shows_once_it_is_resumed(self) -> None:
        paused = commands.pause(run(RunState.QUEUED), ANA)
        started = commands.start(paused, LATER)
        assert (started.state, started.paused_from_state, started.started_at) == (
            RunState.PAUSED,
            RunState.RUNNING,
            LATER,
        )
        asks = commands.show(started, RunState.AWAITING_APPROVAL, "broad")
        assert (asks.state, asks.waiting_for) == (RunState.PAUSED, "broad")
        assert commands.resume(asks, BEN).state is RunState.AWAITING_APPROVAL

    @pytest.mark.parametrize("order", [commands.pause, commands.resume])
    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"state": RunState.COMPLETED}, "completed"),
            ({"cancel_requested_at": NOW}, "cancelled"),
            ({"stop_reason": "The error budget of the run is used up."}, "budget"),
        ],
    )
    def test_a_run_that_ends_is_neither_paused_nor_resumed(
        self, order: Callable[[Run, Command], Run], changes: dict[str, Any], word: str
    ) -> None:
        with pytest.raises(InvalidTransition, match=word):
            order(run(**changes), ANA)


class TestCancel:
    def test_the_first_cancel_stays(self) -> None:
        canceled = commands.cancel(run(), ANA)
        assert canceled.cancel_requested_at == NOW
        assert canceled.last_commands["cancel"].reason == "the disks are full"
        assert commands.cancel(canceled, BEN) == canceled
        ended = commands.close(canceled, RunState.CANCELED, "", LATER)
        assert commands.cancel(ended, BEN) == ended

    @pytest.mark.parametrize("state", [state for state in RunState if state.is_final and state != "canceled"])
    def test_a_run_that_ended_by_itself_cannot_be_cancelled(self, state: RunState) -> None:
        with pytest.raises(InvalidTransition, match=state.value):
            commands.cancel(run(state), ANA)

    def test_a_paused_run_can_be_cancelled(self) -> None:
        assert commands.controls(commands.cancel(commands.pause(run(), ANA), BEN)).is_canceled


class TestDecisions:
    def test_the_awaited_ring_is_approved_and_the_run_continues(self) -> None:
        waits = commands.show(run(), RunState.AWAITING_APPROVAL, "early")
        assert commands.ring_in_question(waits) == "early"
        approved = approve(waits, "early")
        assert (approved.state, approved.waiting_for) == (RunState.RUNNING, "")
        decision = approved.decisions["early"]
        assert (decision.approved, decision.actor, decision.reason, decision.at) == (True, "ana", ANA.reason, NOW)
        assert commands.controls(approved).decided == {"early": True}

    def test_a_ring_may_be_decided_in_advance(self) -> None:
        waits = commands.show(run(), RunState.AWAITING_APPROVAL, "early")
        rejected = reject(waits, "broad")
        assert (rejected.state, rejected.waiting_for) == (RunState.AWAITING_APPROVAL, "early")
        assert commands.controls(rejected).decided == {"broad": False}

    def test_the_same_again_changes_nothing_and_the_contrary_is_refused(self) -> None:
        approved = approve(run(), "broad")
        assert approve(approved, "broad", BEN) == approved
        with pytest.raises(InvalidTransition, match=r"approved by ana at 2026-11-10T19:00.*Cancel the run"):
            reject(approved, "broad", BEN)
        with pytest.raises(InvalidTransition, match="rejected by ben"):
            approve(reject(run(), "broad", BEN), "broad")

    def test_the_same_again_is_no_error_once_the_run_has_ended(self) -> None:
        ended = commands.close(approve(run(), "broad"), RunState.COMPLETED, "", LATER)
        assert approve(ended, "broad", BEN) == ended
        with pytest.raises(InvalidTransition, match="completed"):
            approve(ended, "early")

    def test_without_a_name_it_is_the_awaited_ring_and_else_the_last_one(self) -> None:
        approved = approve(commands.show(run(), RunState.AWAITING_APPROVAL, "early"), "early")
        assert commands.ring_in_question(approved) == "early"
        both = approve(approved, "broad", BEN)
        assert commands.ring_in_question(both) == "broad"
        paused = commands.pause(commands.show(both, RunState.AWAITING_APPROVAL, "early"), BEN)
        assert commands.ring_in_question(paused) == "early"
        with pytest.raises(InvalidTransition, match="name the ring"):
            commands.ring_in_question(run())

    @pytest.mark.parametrize("ring", ["canary", "missing", ""])
    def test_a_ring_that_needs_no_approval_is_refused(self, ring: str) -> None:
        with pytest.raises(InvalidTransition, match="no ring"):
            approve(run(), ring)

    def test_a_ring_with_machines_that_cannot_be_pinned_may_be_approved(self) -> None:
        waits = POLICY | {
            "pinRings": True,
            "withoutPin": "wait",
            "rings": [{"name": "canary", "percent": 5}, {"name": "b"}],
        }
        approved = approve(run(policy_snapshot=waits), "b")
        assert approved.decisions["b"].approved
        with pytest.raises(InvalidTransition, match="no ring canary"):
            approve(run(policy_snapshot=waits), "canary")
        with pytest.raises(InvalidTransition, match="no ring b"):
            approve(run(policy_snapshot=waits | {"withoutPin": "skip"}), "b")


class TestGates:
    def test_a_gate_holds_its_scope_until_it_is_resumed(self) -> None:
        held = commands.trip_error_budget(run(), gate(), NOW)
        assert (held.state, held.blocked_scopes) == (RunState.HELD, ["lane:broad/westeurope"])
        assert held.waiting_for == "lane:broad/westeurope"
        assert commands.controls(held).blocked_scopes == held.blocked_scopes
        assert (held.last_commands["hold"].actor, held.last_commands["hold"].after) == ("patchwave", RunState.HELD)
        assert "westeurope in the ring broad is used up: 3 failed, 2 may" in held.last_commands["hold"].reason
        resumed = commands.resume(held, BEN)
        assert (resumed.state, resumed.blocked_scopes, resumed.resume_count) == (RunState.RUNNING, [], 1)
        assert resumed.waiting_for == ""

    def test_a_gate_closes_once_and_another_one_beside_it(self) -> None:
        held = commands.trip_error_budget(run(), gate(), NOW)
        assert commands.trip_error_budget(held, gate(), LATER) == held
        both = commands.trip_error_budget(held, gate("ring:broad"), LATER)
        assert both.blocked_scopes == ["lane:broad/westeurope", "ring:broad"]

    def test_a_pause_is_shown_before_a_gate_and_both_end_together(self) -> None:
        both = commands.trip_error_budget(commands.pause(run(), ANA), gate(), LATER)
        assert (both.state, both.paused_from_state) == (RunState.PAUSED, RunState.HELD)
        assert commands.pause(both, BEN) == both
        assert commands.resume(both, BEN).state is RunState.RUNNING

    def test_a_pause_and_a_gate_during_the_bake_time(self) -> None:
        bakes = commands.show(run(), RunState.RUNNING, "the bake time of the ring canary")
        paused = commands.pause(bakes, ANA)
        resumed = commands.resume(paused, BEN)
        assert [each.waiting_for for each in (bakes, paused, resumed)] == ["the bake time of the ring canary"] * 3
        held = commands.trip_error_budget(bakes, gate(), NOW)
        assert held.waiting_for == "lane:broad/westeurope"
        assert commands.resume(commands.pause(held, ANA), BEN).waiting_for == ""

    def test_a_held_run_that_waits_for_its_window_shows_that(self) -> None:
        held = commands.trip_error_budget(run(), gate(), NOW)
        waits = commands.show(held, RunState.AWAITING_WINDOW, "2026-12-08T22:00:00Z")
        assert (waits.state, waits.waiting_for) == (RunState.AWAITING_WINDOW, "2026-12-08T22:00:00Z")
        assert commands.show(waits, RunState.RUNNING).state is RunState.HELD

    def test_a_gate_may_end_the_run_and_its_first_reason_stays(self) -> None:
        stopped = commands.trip_error_budget(run(), gate("run", ends_run=True), NOW)
        assert stopped.stop_reason == "The error budget of the run is used up: 3 failed, 2 may."
        assert (stopped.stopped_at, stopped.blocked_scopes) == (NOW, [])
        assert commands.stop(stopped, "another reason", LATER) == stopped
        assert commands.controls(stopped).stop_reason == stopped.stop_reason

    def test_an_approval_in_time_wins_over_its_deadline(self) -> None:
        asked = run(RunState.AWAITING_APPROVAL, waiting_for="broad")
        assert commands.stop(asked, "late", LATER, unless_approved="broad").stop_reason == "late"
        assert commands.stop(reject(asked, "broad"), "no", LATER, unless_approved="broad").stop_reason == "no"
        approved = approve(asked, "broad")
        assert commands.stop(approved, "late", LATER, unless_approved="broad") == approved

    def test_nothing_changes_a_run_that_has_ended(self) -> None:
        ended = commands.close(commands.pause(run(waiting_for=""), ANA), RunState.CANCELED, "asked for", LATER)
        assert (ended.state, ended.paused_from_state, ended.ended_at) == (RunState.CANCELED, None, LATER)
        assert commands.show(ended, RunState.RUNNING) == ended
        assert commands.trip_error_budget(ended, gate(), LATER) == ended
        assert commands.stop(ended, "late", LATER) == ended
        assert commands.close(ended, RunState.COMPLETED, "", LATER) == ended
        assert commands.start(ended, LATER) == ended

    @pytest.mark.parametrize(
        ("scope", "words"),
        [
            ("run", "the run"),
            ("ring:broad", "the ring broad"),
            ("lane:broad/westeurope", "westeurope in the ring broad"),
            ("wave:broad/westeurope/3", "wave 3 of westeurope in the ring broad"),
        ],
    )
    def test_scopes_in_words(self, scope: str, words: str) -> None:
        assert commands.describe_scope(scope) == words


class TestStartBlockers:
    def test_nothing_keeps_it(self) -> None:
        assert start_blocker(approved_run(), placed()) is None

    @pytest.mark.parametrize(
        "scope",
        ["run", "ring:broad", "lane:broad/westeurope", "wave:broad/westeurope/2", "wave:broad/westeurope/1"],
    )
    def test_a_gate_that_holds_one_of_its_scopes_leaves_it(self, scope: str) -> None:
        result = start_blocker(approved_run(blocked_scopes=["ring:other", scope]), placed())
        assert result is not None
        assert (result.state, result.outcome) == (StartState.REQUEUED, None)

    def test_a_gate_that_holds_others_does_not(self) -> None:
        others = ["ring:canary", "lane:broad/northeurope", "wave:broad/westeurope/3", "lane:canary/westeurope"]
        assert start_blocker(approved_run(blocked_scopes=others), placed()) is None

    def test_a_pause_leaves_it(self) -> None:
        result = start_blocker(commands.pause(approved_run(), ANA), placed())
        assert result is not None
        assert result.state is StartState.REQUEUED

    def test_a_cancel_a_skip_and_a_stop_end_it_in_this_order(self) -> None:
        stopped = approved_run(stop_reason="The ring broad was rejected.")
        skipped = placed(skip_command=ANA)
        for state, one, kind, reason in (
            (commands.cancel(stopped, ANA), skipped, OutcomeKind.CANCELED, Reason.CANCELED_BY_USER),
            (stopped, skipped, OutcomeKind.SKIPPED, Reason.SKIPPED_BY_PERSON),
            (commands.pause(approved_run(), ANA), skipped, OutcomeKind.SKIPPED, Reason.SKIPPED_BY_PERSON),
            (stopped, placed(), OutcomeKind.SKIPPED, Reason.ERROR_BUDGET),
        ):
            result = start_blocker(state, one)
            assert result is not None
            assert result.outcome is not None
            assert (result.state, result.outcome.outcome, result.outcome.reason) == (StartState.ENDED, kind, reason)
            assert commands.terminal_outcome(state, one) == result.outcome

    def test_nothing_starts_in_a_run_that_has_ended(self) -> None:
        """It was closed because it failed itself, and the machine's orchestration has not received that."""
        result = start_blocker(commands.close(approved_run(), RunState.FAILED, "-", LATER), placed())
        assert result is not None
        assert result.outcome is not None
        assert (result.state, result.outcome.outcome) == (StartState.ENDED, OutcomeKind.SKIPPED)

    def test_a_machine_that_has_ended_keeps_its_outcome(self) -> None:
        ended = placed(outcome=OutcomeKind.UNKNOWN, reason=Reason.INTERNAL, message="Look at it.", skip_command=ANA)
        result = start_blocker(approved_run(), ended)
        assert result is not None
        assert result.outcome == Outcome(outcome=OutcomeKind.UNKNOWN, reason=Reason.INTERNAL, message="Look at it.")

    @pytest.mark.parametrize("decision", [None, ApprovalDecision(approved=False, actor="ben", at=NOW)])
    def test_nothing_starts_in_a_ring_that_is_not_approved(self, decision: ApprovalDecision | None) -> None:
        """The orchestration asks before it takes the ring; the row decides before each start."""
        state = run(decisions={"early": ApprovalDecision(approved=True, actor="ben", at=NOW)})
        if decision is not None:
            state = state.model_copy(update={"decisions": {**state.decisions, "broad": decision}})
        result = start_blocker(state, placed())
        assert result is not None
        assert result.outcome is not None
        assert (result.state, result.outcome.reason) == (StartState.ENDED, Reason.NOT_APPROVED)
        assert commands.terminal_outcome(state, placed()) == result.outcome
        for free in (placed(ring="canary"), placed(ring="early"), placed(ring="")):
            assert start_blocker(state, free) is None
        assert start_blocker(state.model_copy(update={"mode": Mode.ASSESS}), placed()) is None

    def test_its_outcome_has_actor_and_reason(self) -> None:
        assert commands.skipped(ANA).message == "Skipped by ana: the disks are full"
        assert commands.skipped(Command(actor="ana", at=NOW)).message == "Skipped by ana."
        assert commands.not_started("The ring x stops.").message == "Not started: the ring x stops."


class TestSkip:
    @pytest.mark.parametrize("found", [None, intent(run().id, state=IntentState.REFUSED)])
    def test_before_its_operation_it_can_be_skipped_once(self, found: Intent | None) -> None:
        skipped = commands.skip(placed(), found, ANA)
        assert skipped.skip_command == ANA
        assert commands.skip(skipped, found, BEN) == skipped

    @pytest.mark.parametrize("state", [IntentState.DECLARED, IntentState.ACCEPTED])
    def test_once_azure_may_have_its_operation_it_is_too_late(self, state: IntentState) -> None:
        with pytest.raises(InvalidTransition, match="too late"):
            commands.skip(placed(), intent(run().id, state=state), ANA)

    def test_an_ended_machine_is_not_skipped(self) -> None:
        with pytest.raises(InvalidTransition, match="patched"):
            commands.skip(placed(outcome=OutcomeKind.PATCHED), None, ANA)


ORDERS: tuple[Callable[[Run], Run], ...] = (
    lambda state: commands.pause(state, ANA),
    lambda state: commands.resume(state, BEN),
    lambda state: commands.cancel(state, ANA),
    lambda state: approve(state, "broad"),
    lambda state: reject(state, "broad"),
    lambda state: commands.trip_error_budget(state, gate(), NOW),
    lambda state: commands.trip_error_budget(state, gate("ring:broad", ends_run=True), NOW),
    lambda state: commands.stop(state, "because", NOW),
    lambda state: commands.show(state, RunState.AWAITING_APPROVAL, "broad"),
    lambda state: commands.show(state, RunState.AWAITING_WINDOW, "later"),
    lambda state: commands.show(state, RunState.RUNNING),
    lambda state: commands.start(state, NOW),
    lambda state: commands.close(state, RunState.COMPLETED, "", LATER),
)


@given(st.lists(st.sampled_from(ORDERS), max_size=20))
def test_whatever_is_ordered_the_run_shows_what_keeps_it_and_an_order_twice_is_one(
    orders: list[Callable[[Run], Run]],
) -> None:
    state = run(RunState.QUEUED)
    for order in orders:
        before = state
        try:
            state = order(before)
        except InvalidTransition:
            continue
        if before.state.is_final:
            assert state == before
        assert (state.state is RunState.PAUSED) == (state.paused_at is not None and not state.state.is_final)
        assert (state.paused_from_state is not None) == (state.state is RunState.PAUSED)
        if state.state is RunState.HELD:
            assert state.blocked_scopes
        if state.state is RunState.RUNNING:
            assert not state.blocked_scopes
        assert state.resume_count >= before.resume_count
        assert not before.stop_reason or state.stop_reason == before.stop_reason
        assert before.cancel_requested_at in (None, state.cancel_requested_at)
        assert Run.model_validate(state.to_wire()) == state
        assert order(state) == state


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": RunState.COMPLETED}, "The run has ended as completed; it cannot be {} any more."),
        ({"cancel_requested_at": NOW}, "The run is being cancelled; it cannot be {} any more."),
        ({"stop_reason": "3 of 3."}, "A gate ends the run; it cannot be {} any more. 3 of 3."),
    ],
)
def test_a_command_to_a_run_that_is_about_to_end_is_refused_with_the_reason(changes: dict[str, Any], why: str) -> None:
    state = run().model_copy(update=changes)
    orders: list[tuple[str, Callable[[], Run]]] = [
        ("paused", lambda: commands.pause(state, ANA)),
        ("resumed", lambda: commands.resume(state, ANA)),
        ("approved", lambda: approve(state, "canary")),
        ("rejected", lambda: reject(state, "canary")),
    ]
    for word, order in orders:
        with pytest.raises(InvalidTransition) as refused:
            order()
        assert str(refused.value) == why.format(word)
