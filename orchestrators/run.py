"""patch_run: open, discover, assess, patch, close."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durabletask import task

from domain.outcome import Outcome, OutcomeKind, Reason
from domain.run import Mode, RunState
from domain.work import (
    CloseOpenMachines,
    CloseRun,
    Discovered,
    DiscoverRequest,
    OpenedRun,
    RunRef,
    Step,
    Wave,
)
from orchestrators import names
from orchestrators.retries import RETRY, RETRY_RESULT

MOST_DISCOVERY_FAILURES = 6
"""Pages of the discovery that may fail in a row before the run says that Azure cannot be reached."""

_CANCELED = "Cancelled on request."

type Steps[Result] = Generator[task.Task[Any], Any, Result]


def patch_run(context: task.OrchestrationContext, data: dict[str, Any]) -> Steps[dict[str, Any]]:
    """Run a policy once. Input ``RunRef``; the run row holds everything else. Whatever happens, the run is closed."""
    run_id = RunRef.from_wire(data).run_id
    run = _Run(context, run_id)
    try:
        state, reason = yield from run.execute()
    except task.TaskFailedError as error:
        state, reason = RunState.FAILED, f"Patchwave itself failed: {error}"[:2_000]
    yield from run.close(state, reason)
    return {"runId": run_id, "state": state.value}


class _Run:
    """The steps of one run."""

    def __init__(self, context: task.OrchestrationContext, run_id: str) -> None:
        self._context = context
        self._run_id = run_id
        self._cancel = context.wait_for_external_event(names.CANCEL_EVENT)

    def execute(self) -> Steps[tuple[RunState, str]]:
        """Everything up to the close; returns how the run ends, and why."""
        opened = OpenedRun.from_wire((yield from self._call(names.OPEN_RUN, RunRef(run_id=self._run_id).to_wire())))
        if opened.is_final:
            return RunState.COMPLETED, ""
        discovered, failure = yield from self._discover()
        if self._cancel.is_complete:
            return RunState.CANCELED, _CANCELED
        if failure:
            return RunState.FAILED, failure
        if not discovered.machines:
            return RunState.EMPTY, f"No machine matches the scope: {discovered.selectors}"
        steps = [Step.ASSESS] if opened.mode is Mode.ASSESS else [Step.ASSESS, Step.PATCH]
        for step in steps:
            if self._cancel.is_complete:
                break
            yield from self._wave(step, opened)
        if self._cancel.is_complete:
            return RunState.CANCELED, _CANCELED
        return RunState.COMPLETED, ""

    def close(self, state: RunState, reason: str) -> Steps[None]:
        """Give every machine an outcome, then the run its end."""
        if state is RunState.CANCELED:
            outcome = Outcome.canceled()
        else:
            outcome = Outcome(
                outcome=OutcomeKind.UNKNOWN,
                reason=Reason.INTERNAL,
                message="The run ended without a word from this machine; look at it."
                + (f" {reason}" if reason else ""),
            )
        yield from self._result(
            names.CLOSE_OPEN_MACHINES, CloseOpenMachines(run_id=self._run_id, outcome=outcome).to_wire()
        )
        yield from self._result(names.CLOSE_RUN, CloseRun(run_id=self._run_id, state=state, reason=reason).to_wire())

    def _discover(self) -> Steps[tuple[Discovered, str]]:
        """Page after page; returns the last page, with the size of the fleet, and the sentence of a failure."""
        cursor, attempt = "", 0
        while True:
            request = DiscoverRequest(run_id=self._run_id, cursor=cursor, attempt=attempt).to_wire()
            page = Discovered.from_wire((yield from self._call(names.DISCOVER_MACHINES, request)))
            if page.failure:
                attempt += 1
                if attempt >= MOST_DISCOVERY_FAILURES or page.wait_seconds <= 0:
                    return page, page.failure
            else:
                cursor, attempt = page.cursor, 0
                if not cursor:
                    return page, ""
            if self._cancel.is_complete:
                return page, ""
            if page.wait_seconds > 0:
                yield self._context.create_timer(timedelta(seconds=page.wait_seconds))

    def _wave(self, step: Step, opened: OpenedRun) -> Steps[None]:
        """One pass over the machines. A cancel is passed on, and the wave ends by itself."""
        wave = Wave(
            run_id=self._run_id,
            step=step,
            mode=opened.mode,
            max_concurrent=opened.assess_concurrency if step is Step.ASSESS else opened.max_concurrent,
            start_stopped=opened.start_stopped,
        )
        wave_id = names.wave_instance(self._run_id, step.value)
        running: task.Task[Any] = self._context.call_sub_orchestrator(
            names.PATCH_WAVE, input=wave.to_wire(), instance_id=wave_id
        )
        yield task.when_any([running, self._cancel])
        if not running.is_complete:
            self._context.send_event(wave_id, names.CANCEL_EVENT)
            yield running
        running.get_result()

    def _call(self, activity: str, request: dict[str, Any]) -> Steps[Any]:
        return (yield self._context.call_activity(activity, input=request, retry_policy=RETRY))

    def _result(self, activity: str, request: dict[str, Any]) -> Steps[Any]:
        return (yield self._context.call_activity(activity, input=request, retry_policy=RETRY_RESULT))
