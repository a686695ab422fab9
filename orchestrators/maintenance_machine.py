"""maintain_shard and maintain_machine: pre and post maintenance of machines, many at a time.

Pre phase: preflight, power-on if the policy allows it, agent, snapshot, script. Post phase: check, script, assessment,
power restored, finalize. Activities are safe to repeat when an orchestration dies.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from durabletask import task

from orchestrators.hooks import after_install, before_install
from orchestrators.operation import MachineResult, Requeue, operate, unfinished
from orchestrators.power import MAX_POWER_POLLS, explain_start, power_request, restore_power
from orchestrators.retry_budget import RetryBudget
from orchestrators.runtime import Context, Steps, call, implements, start, utc_now
from orchestrators.waits import Waits
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.machine.preflight import Readiness
from patchwave.domain.maintenance.occurrence import too_late_to_prepare
from patchwave.domain.runs.run import Mode, Step
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.machine import MachineRef, MachineWork, PreflightRequest, PreflightResult
from patchwave.domain.workflow.maintenance_run import (
    FinalizeRequest,
    MaintainMachine,
    MaintainShard,
    MaintenancePhase,
    PowerCheck,
    PowerState,
    PreResult,
    ShardRef,
)
from patchwave.domain.workflow.run import MachineOptions

AT_ONCE = 25
"""Machines of one shard in progress at the same time."""
MAX_POLLS = 6
MAX_BOOT_POLLS = 20
"""Polls of a machine that is busy or locked, and of one that boots."""
_NO_FAILURE = (
    Reason.NOT_RUNNING,
    Reason.HIBERNATED,
    Reason.NOT_FOUND,
    Reason.CANCELED_BY_USER,
    Reason.SKIPPED_BY_PERSON,
)
"""Reasons without a failure for an omitted pre phase: the policy asks for none, or the machine is gone."""


@implements(contracts.MAINTAIN_SHARD)
def maintain_shard(context: Context, shard: MaintainShard) -> Steps[None]:
    """Take the machines of a shard through a phase. A machine whose orchestration fails stays open."""
    request = ShardRef(run_id=shard.run_id, phase=shard.phase, cursor=shard.cursor)
    waiting = (yield from call(context, contracts.GET_SHARD, request)).keys
    running: list[task.Task[Any]] = []
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            running.append(_maintain(context, shard, waiting.pop(0)))
        yield task.when_any(running)
        running = [each for each in running if not each.is_complete]


def _maintain(context: Context, shard: MaintainShard, key: str) -> task.Task[Any]:
    work = MaintainMachine(
        run_id=shard.run_id,
        machine_key=key,
        phase=shard.phase,
        until=shard.until,
        start_stopped=shard.start_stopped,
        hooks=shard.hooks,
        assess=shard.assess,
    )
    instance = instance_ids.machine(shard.run_id, shard.phase.value, key, shard.attempt)
    return start(context, contracts.MAINTAIN_MACHINE, work, instance)


@implements(contracts.MAINTAIN_MACHINE)
def maintain_machine(context: Context, work: MaintainMachine) -> Steps[None]:
    """Take one machine through a phase.

    Raises:
        TaskFailedError: storage or the worker failed for good in the post phase, which is then repeated.
    """
    machine = _Machine(context, work)
    if work.phase is MaintenancePhase.POST:
        yield from machine.settle()
        return
    try:
        problem = yield from machine.prepare()
    except task.TaskFailedError as error:
        problem = f"Patchwave itself failed before the scheduled run: {error}"[:1_000]
    yield from machine.note(problem)


class _Machine:
    """The steps of one machine. Every method that yields is part of the orchestrator and is replayed with it."""

    def __init__(self, context: Context, work: MaintainMachine) -> None:
        self._context = context
        self._waits = Waits(context)
        self._work = work
        self._ref = MachineRef(run_id=work.run_id, machine_key=work.machine_key)
        self._was_refused = False
        self._is_hibernated = False

    # --- pre phase

    def prepare(self) -> Steps[str]:
        """The pre phase; returns what failed, or an empty string."""
        checked = yield from self._preflight(may_start=self._work.start_stopped, max_polls=MAX_POLLS)
        if checked.preflight.readiness is Readiness.NEEDS_START:
            if self._is_too_late:
                return too_late_to_prepare().message
            checked = yield from self._start()
        outcome = checked.preflight.outcome
        self._is_hibernated = outcome is not None and outcome.reason is Reason.HIBERNATED
        if outcome is None and self._work.hooks:
            if self._is_too_late:
                return too_late_to_prepare().message
            veto = yield from before_install(self._context, self._ref, self._waits)
            if veto is not None and not isinstance(veto, Outcome):
                return "The run was paused, so that nothing was done on the machine before the scheduled run."
            outcome = veto
        return _problem(outcome, self._work)

    def note(self, problem: str) -> Steps[None]:
        """Store how the pre phase ended."""
        prepared = PreResult(
            run_id=self._work.run_id,
            machine_key=self._work.machine_key,
            pre_tasks_error=problem,
            start_refused=self._was_refused,
            is_hibernated=self._is_hibernated,
        )
        yield from call(self._context, contracts.RECORD_PRE_RESULT, prepared)

    def _start(self) -> Steps[PreflightResult]:
        request = power_request(self._context, self._ref)
        retries = RetryBudget(self._context, MAX_POWER_POLLS)
        while True:
            started = yield from call(self._context, contracts.START_MACHINE, request)
            pause = retries.pause(started) if started.wait_seconds else None
            if pause is None or self._is_too_late:
                break
            yield self._pause(pause)
            checked = yield from self._preflight(may_start=True, max_polls=1 if started.accepted else MAX_POLLS)
            if checked.preflight.readiness is Readiness.READY:
                return checked
            if checked.preflight.readiness is not Readiness.NEEDS_START or self._is_too_late:
                break
        checked = yield from self._preflight(may_start=False, max_polls=MAX_BOOT_POLLS)
        # A repeated call may be refused because the first one started the machine. If it is still off, it was not
        # started, and a user who starts it from now on wants it to run.
        self._was_refused = not (started.accepted or started.is_open) and checked.preflight.readiness is Readiness.SKIP
        return explain_start(checked, started)

    def _preflight(self, *, may_start: bool, max_polls: int) -> Steps[PreflightResult]:
        request = PreflightRequest(
            run_id=self._work.run_id, machine_key=self._work.machine_key, start_stopped=may_start
        )
        retries = RetryBudget(self._context, max_polls)
        while True:
            checked = yield from call(self._context, contracts.PREFLIGHT_MACHINE, request)
            if checked.preflight.readiness is not Readiness.WAIT or self._is_too_late:
                return checked
            pause = retries.pause(checked)
            if pause is None:
                return checked
            yield self._pause(pause)

    @property
    def _is_too_late(self) -> bool:
        return self._work.until is not None and utc_now(self._context) >= self._work.until

    # --- post phase

    def settle(self) -> Steps[None]:
        """The post phase. The power state is restored whatever else failed."""
        problems: list[str] = []
        checked = yield from self._check_power()
        if checked.state is PowerState.READY:
            if self._work.hooks:
                problems.append((yield from after_install(self._context, self._ref, self._waits)))
            if self._work.assess:
                problems.append((yield from self._assess(checked.assess_activity_id)))
        left = (yield from restore_power(self._context, self._ref, self._waits)) if checked.powered_on_by_run else None
        done = FinalizeRequest(
            run_id=self._work.run_id,
            machine_key=self._work.machine_key,
            problems=[problem for problem in problems if problem],
            not_restored=left.sentence if left is not None else "",
            keep_lease=left is not None and left.is_open,
        )
        yield from call(self._context, contracts.FINALIZE_MACHINE, done)

    def _check_power(self) -> Steps[PowerCheck]:
        retries = RetryBudget(self._context, MAX_POLLS)
        while True:
            checked = yield from call(self._context, contracts.CHECK_MACHINE_POWER, self._ref)
            pause = retries.pause(checked) if checked.state is PowerState.WAIT else None
            if pause is None:
                return checked
            yield self._pause(pause)

    def _assess(self, previous_activity_id: str) -> Steps[str]:
        """Assess; returns the sentence about a failure. The result is in the machine's row."""
        work = MachineWork(
            run_id=self._work.run_id,
            machine_key=self._work.machine_key,
            step=Step.ASSESS,
            options=MachineOptions(mode=Mode.MAINTENANCE),
            phase="",
        )
        try:
            report = yield from operate(self._context, work, self._waits, OperationKind.ASSESS, previous_activity_id)
        except task.TaskFailedError:
            return "Patchwave itself failed on the assessment afterwards."
        if isinstance(report, MachineResult):
            bad: Outcome | None = report.outcome
        elif isinstance(report, Requeue):
            return "It was not assessed afterwards: the run was paused."
        elif report.assessment is None:
            bad = report.outcome or unfinished(OperationKind.ASSESS, report).outcome
        else:
            bad = report.outcome
        if bad is None or bad.outcome is OutcomeKind.CANCELED:
            return ""
        return f"It could not be assessed afterwards: {bad.message}"

    def _pause(self, seconds: float) -> task.Task[Any]:
        return self._context.create_timer(timedelta(seconds=seconds))


def _problem(outcome: Outcome | None, work: MaintainMachine) -> str:
    """What failed before the run. A stopped machine that the policy does not start is no failure."""
    if outcome is None:
        return ""
    is_meant = outcome.reason in _NO_FAILURE and not (work.start_stopped and outcome.reason is Reason.NOT_RUNNING)
    return "" if is_meant else outcome.message
