"""Hooks and restarts as parts of an orchestrator: they wait with timers, end in bounded time, and say what failed."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus

from local.functions_host.durable.workbench import Workbench, WorkflowResult
from orchestrators.hooks import after_install, before_install
from orchestrators.operation import Requeue
from orchestrators.power import restart
from orchestrators.waits import Waits
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.machine.hooks import HookResult, HookState, ScriptRequest, When
from patchwave.domain.runs.error_budget import counts_as_failure
from patchwave.domain.workflow.machine import MachineRef, PowerResult

RUN_ID = "20261121T000000Z-monthly"
KEY = "c" * 24
REF = MachineRef(run_id=RUN_ID, machine_key=KEY)

DONE = HookResult(state=HookState.DONE)
RUNS = HookResult.wait(60, "The script did not end.", counts_as_attempt=False)
BUSY = HookResult.wait(60, "Another command runs.")
FORGIVEN = BUSY.model_copy(update={"outcome": None})
FAILED = HookResult.failed("The script ended with exit code 3.")
REQUEUED = HookResult(state=HookState.REQUEUED)
CANCELED = HookResult.stopped(Outcome.canceled())

type Steps = Generator[task.Task[Any], Any, Any]


def before(context: task.OrchestrationContext, data: Any) -> Steps:
    result = yield from before_install(REF, Waits(context))
    if isinstance(result, Requeue):
        return "requeued"
    return None if result is None else result.to_wire()


def after(context: task.OrchestrationContext, data: Any) -> Steps:
    return (yield from after_install(REF, Waits(context), OutcomeKind.PATCHED))


def restarting(context: task.OrchestrationContext, data: Any) -> Steps:
    failure = yield from restart(REF, Waits(context))
    if isinstance(failure, PowerResult):
        return {"failure": failure.failure.text if failure.failure else "", "isOpen": failure.is_open}
    return failure


class Hooks:
    """Activities that answer from lists; the last entry of each stays."""

    def __init__(self, *, snapshot: list[HookResult] | None = None, script: list[HookResult] | None = None) -> None:
        self.answers = {"take_snapshot": snapshot or [DONE], "run_script": script or [DONE]}
        self.calls: list[tuple[str, Any]] = []
        self.minutes = 0.0
        """Virtual time that it took."""

    def run(self, orchestrator: Any) -> WorkflowResult:
        named = {name: self._activity(name) for name in self.answers}
        with Workbench([orchestrator], named) as bench:
            began = bench.now()
            ended = bench.run(orchestrator.__name__, {}, timeout=60)
            self.minutes = round((bench.now() - began).total_seconds() / 60, 1)
        assert ended.status is OrchestrationStatus.COMPLETED, ended.failure
        return ended

    def _activity(self, name: str) -> Any:
        def call(data: Any) -> Any:
            self.calls.append((name, data))
            answers = self.answers[name]
            return (answers.pop(0) if len(answers) > 1 else answers[0]).to_wire()

        return call

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.calls]


def test_the_snapshot_is_ready_before_the_script_begins() -> None:
    hooks = Hooks(snapshot=[RUNS, RUNS, DONE], script=[RUNS, DONE])
    assert hooks.run(before).output is None
    assert hooks.order == ["take_snapshot"] * 3 + ["run_script"] * 2
    assert hooks.minutes == pytest.approx(3, abs=0.2), "a minute for each wait"
    assert hooks.calls[0][1] == MachineRef(run_id=RUN_ID, machine_key=KEY).to_wire()
    assert hooks.calls[-1][1] == ScriptRequest(run_id=RUN_ID, machine_key=KEY, when=When.BEFORE).to_wire()


@pytest.mark.parametrize("where", ["snapshot", "script"])
def test_a_failed_hook_skips_the_machine_and_uses_the_budgets(where: str) -> None:
    answers: dict[str, list[HookResult]] = {where: [RUNS, FAILED]}
    hooks = Hooks(**answers)
    outcome = Outcome.model_validate(hooks.run(before).output)
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.SKIPPED, Reason.HOOK_FAILED)
    assert counts_as_failure(outcome.outcome, outcome.reason)
    assert ("run_script" in hooks.order) == (where == "script"), "no script without its snapshot"


def test_a_cancelled_run_is_no_failure_of_the_hook() -> None:
    outcome = Outcome.model_validate(Hooks(snapshot=[CANCELED]).run(before).output)
    assert outcome == Outcome.canceled()
    assert not counts_as_failure(outcome.outcome, outcome.reason)


@pytest.mark.parametrize("where", ["snapshot", "script"])
def test_a_machine_whose_hooks_may_not_begin_is_requeued(where: str) -> None:
    left: dict[str, list[HookResult]] = {where: [REQUEUED]}
    assert Hooks(**left).run(before).output == "requeued"


def test_refusals_are_borne_for_a_while() -> None:
    hooks = Hooks(script=[BUSY] * 5 + [DONE])
    assert hooks.run(before).output is None
    hooks = Hooks(script=[BUSY])
    outcome = Outcome.model_validate(hooks.run(before).output)
    assert hooks.order.count("run_script") == 6
    assert outcome.message == "Another command runs."


def test_what_the_policy_does_not_mind_does_not_skip_the_machine() -> None:
    assert Hooks(script=[FORGIVEN]).run(before).output is None


def test_a_hook_that_never_ends_ends_all_the_same() -> None:
    hooks = Hooks(snapshot=[RUNS])
    ended = hooks.run(before)
    assert Outcome.model_validate(ended.output).reason is Reason.HOOK_FAILED
    assert 24 * 60 - 15 <= hooks.minutes <= 24 * 60 + 1
    assert len(hooks.calls) <= 160
    assert len(ended.history) <= 1_300


def test_throttling_is_no_refusal_of_a_hook() -> None:
    hooks = Hooks(snapshot=[BUSY] * 5 + [RUNS] * 100 + [DONE])
    assert hooks.run(before).output is None
    assert hooks.order == ["take_snapshot"] * 106 + ["run_script"]


def test_after_the_installation_a_failure_is_a_sentence() -> None:
    assert Hooks(script=[RUNS, DONE]).run(after).output == ""
    hooks = Hooks(script=[RUNS, FAILED])
    assert hooks.run(after).output == "The script ended with exit code 3."
    told = ScriptRequest(run_id=RUN_ID, machine_key=KEY, when=When.AFTER, outcome=OutcomeKind.PATCHED)
    assert [call for _, call in hooks.calls] == [told.to_wire()] * 2
    assert hooks.order == ["run_script"] * 2, "no snapshot afterwards"
    request = ScriptRequest(run_id=RUN_ID, machine_key=KEY, when=When.AFTER, outcome=OutcomeKind.PATCHED)
    assert hooks.calls[0] == ("run_script", request.to_wire())


def test_after_the_installation_even_a_broken_activity_is_only_a_sentence() -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("the storage is away")

    with Workbench([after], {"run_script": broken}) as bench:
        ended = bench.run("after", {}, timeout=60)
    assert ended.status is OrchestrationStatus.COMPLETED
    assert "not known whether it ran" in ended.output


# --- restarts

ASKED = PowerResult(accepted=False, wait_seconds=30)
RESTARTED = PowerResult(accepted=True)
REFUSED = PowerResult(accepted=False, failure=ArmFailure(status=403, code="AuthorizationFailed", message="No."))


def restarted(answers: list[PowerResult]) -> tuple[Any, int]:
    """What came of it, and how often the activity was called."""
    calls: list[Any] = []

    def call(data: Any) -> Any:
        calls.append(data)
        return (answers.pop(0) if len(answers) > 1 else answers[0]).to_wire()

    with Workbench([restarting], {"restart_machine": call}) as bench:
        began = bench.now()
        ended = bench.run("restarting", {}, timeout=60)
        took = (bench.now() - began).total_seconds()
    assert ended.status is OrchestrationStatus.COMPLETED
    assert calls == [MachineRef(run_id=RUN_ID, machine_key=KEY).to_wire()] * len(calls)
    assert took == pytest.approx(30 * (len(calls) - 1), abs=15)
    return ended.output, len(calls)


def test_a_restart_is_over_when_azure_reports_it() -> None:
    assert restarted([ASKED, ASKED, RESTARTED]) == (None, 3)


def test_a_refused_restart_has_the_reason() -> None:
    assert restarted([ASKED, REFUSED]) == ({"failure": "HTTP 403 AuthorizationFailed: No.", "isOpen": False}, 2)


def test_a_restart_that_may_have_been_accepted_is_reported_as_open() -> None:
    unknown = ASKED.model_copy(update={"wait_seconds": 0, "is_open": True})
    assert restarted([unknown]) == ({"failure": "", "isOpen": True}, 1)


def test_a_restart_that_never_ends_is_given_up() -> None:
    assert restarted([ASKED]) == ({"failure": "", "isOpen": False}, 60)
