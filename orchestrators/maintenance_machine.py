"""maintain_shard and maintain_machine: pre and post maintenance of machines, many at a time.

Pre phase: preflight, power-on if the policy allows it, agent, snapshot, script. Post phase: check, script, assessment,
power restored, finalize. Activities are safe to repeat when an orchestration dies.
"""

from __future__ import annotations

from typing import Any

from durabletask import task

from orchestrators.hooks import after_install, before_install
from orchestrators.operation import MachineResult, Requeue, assess
from orchestrators.power import restore_power
from orchestrators.preflight import MAX_BOOT_POLLS, MAX_POLLS, Preflight, explain_start
from orchestrators.runtime import Context, Steps, call, implements, start, utc_now
from orchestrators.waits import Waits
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.machine.preflight import Readiness
from patchwave.domain.maintenance.occurrence import too_late_to_prepare
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.machine import PreflightResult
from patchwave.domain.workflow.maintenance_run import (
    FinalizeRequest,
    MaintainMachine,
    MaintainShard,
    MaintenancePhase,
    PowerState,
    PreResult,
)

AT_ONCE = 25
"""Machines of one shard in progress at the same time."""
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
    waiting = (yield from call(context, contracts.GET_SHARD, shard)).keys
    running: list[task.Task[Any]] = []
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            running.append(_maintain(context, shard, waiting.pop(0)))
        yield task.when_any(running)
        running = [each for each in running if not each.is_complete]


def _maintain(context: Context, shard: MaintainShard, key: str) -> task.Task[Any]:
    work = MaintainMachine(**shard.model_dump(), machine_key=key)
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
        self._preflight = Preflight(work, self._waits, self._is_too_late)
        self._was_refused = False
        self._is_hibernated = False

    # --- pre phase

    def prepare(self) -> Steps[str]:
        """The pre phase; returns what failed, or an empty string."""
        checked = yield from self._preflight.check(may_start=self._work.start_stopped)
        if checked.preflight.readiness is Readiness.NEEDS_START:
            if self._is_too_late():
                return too_late_to_prepare().message
            checked = yield from self._start()
        outcome = checked.preflight.outcome
        self._is_hibernated = outcome is not None and outcome.reason is Reason.HIBERNATED
        if outcome is None and self._work.hooks:
            if self._is_too_late():
                return too_late_to_prepare().message
            veto = yield from before_install(self._work, self._waits)
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
        checked, started = yield from self._preflight.start()
        if checked.preflight.readiness is Readiness.WAIT and not started.accepted:
            # A refused call may follow one that was lost: the machine boots.
            checked = yield from self._preflight.check(max_polls=MAX_BOOT_POLLS)
        # If it is still off after a refusal, it was not started, and a user who starts it from now on wants it to run.
        self._was_refused = not (started.accepted or started.is_open) and checked.preflight.readiness is Readiness.SKIP
        return explain_start(checked, started)

    def _is_too_late(self) -> bool:
        return self._work.until is not None and utc_now(self._context) >= self._work.until

    # --- post phase

    def settle(self) -> Steps[None]:
        """The post phase. The power state is restored whatever else failed."""
        problems: list[str] = []
        checked = yield from self._waits.poll(
            contracts.CHECK_MACHINE_POWER, self._work, MAX_POLLS, lambda checked: checked.state is not PowerState.WAIT
        )
        if checked.state is PowerState.READY:
            if self._work.hooks:
                problems.append((yield from after_install(self._work, self._waits)))
            if self._work.assess:
                problems.append((yield from self._assess(checked.assess_activity_id)))
        left = (yield from restore_power(self._work, self._waits)) if checked.powered_on_by_run else None
        done = FinalizeRequest(
            run_id=self._work.run_id,
            machine_key=self._work.machine_key,
            problems=[problem for problem in problems if problem],
            not_restored=left.sentence if left is not None else "",
            keep_lease=left is not None and left.is_open,
        )
        yield from call(self._context, contracts.FINALIZE_MACHINE, done)

    def _assess(self, previous_activity_id: str) -> Steps[str]:
        """Assess; returns the sentence about a failure. The result is in the machine's row."""
        try:
            found = yield from assess(self._work, self._waits, previous_activity_id)
        except task.TaskFailedError:
            return "Patchwave itself failed on the assessment afterwards."
        if isinstance(found, Requeue):
            return "It was not assessed afterwards: the run was paused."
        if not isinstance(found, MachineResult) or found.outcome.outcome is OutcomeKind.CANCELED:
            return ""
        return f"It could not be assessed afterwards: {found.outcome.message}"


def _problem(outcome: Outcome | None, work: MaintainMachine) -> str:
    """What failed before the run. A stopped machine that the policy does not start is no failure."""
    if outcome is None:
        return ""
    is_meant = outcome.reason in _NO_FAILURE and not (work.start_stopped and outcome.reason is Reason.NOT_RUNNING)
    return "" if is_meant else outcome.message
