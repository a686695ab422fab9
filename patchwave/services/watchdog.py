"""Supervises runs that may have lost their orchestration, or a part of it.

`patchwave.domain.runs.watchdog` decides. A run whose orchestration has died gets its next generation, which resumes
from its rows. A machine whose orchestration has died or is stuck is requeued, and its phase starts another.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from durabletask.client import OrchestrationQuery, OrchestrationState, OrchestrationStatus

from patchwave.domain.notifications.events import Notice, RunEnded
from patchwave.domain.policy.notifications import Event
from patchwave.domain.runs.commands import PATCHWAVE
from patchwave.domain.runs.run import Run
from patchwave.domain.runs.watchdog import (
    STARTING,
    EngineStatus,
    Observation,
    RecoveryAction,
    decide,
    heartbeat_deadline,
    is_stuck,
)
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.machine import MachineEnded, MachineWork
from patchwave.domain.workflow.run import RunRef
from patchwave.services.start_run import DurableClient, schedule, schedule_run
from patchwave.storage import LiveRun, Storage, completion_change, in_parallel

_RUNS_AT_ONCE = 8
_INSTANCES_AT_ONCE = 32
MAX_ROUNDS = 6
"""Checks of one run per call: the engine takes a moment to end instances."""
ENDED_BY_WATCHDOG = "ended by the watchdog"
"""Output of instances that the watchdog ended, to distinguish them from those that a user ended."""
_LIVE = (
    OrchestrationStatus.RUNNING,
    OrchestrationStatus.PENDING,
    OrchestrationStatus.CONTINUED_AS_NEW,
    OrchestrationStatus.SUSPENDED,
)
_DEAD = (OrchestrationStatus.FAILED, OrchestrationStatus.TERMINATED)
_TERMINATED = "The orchestration of the run was ended in the engine."
_LOG = logging.getLogger("patchwave.watchdog")


class WatchedEngine(DurableClient, Protocol):
    """The used methods of the durable client."""

    async def get_orchestration_state(self, instance_id: str) -> OrchestrationState | None: ...

    async def get_all_orchestration_states(
        self, orchestration_query: OrchestrationQuery
    ) -> list[OrchestrationState]: ...

    async def terminate_orchestration(self, instance_id: str, *, output: object, recursive: bool) -> None: ...

    async def purge_orchestration(self, instance_id: str, recursive: bool) -> object: ...


@dataclass(frozen=True, slots=True)
class Watch:
    """One call of the watchdog."""

    storage: Storage
    engine: WatchedEngine
    now: datetime
    poll_seconds: float
    """Between two polls of an operation, before the interval grows."""
    pause: float = 1.0
    """Seconds that the engine gets to end instances."""
    budget: timedelta = timedelta(minutes=4)
    """Limit of a call: less than the timer's interval and the function's time limit."""


async def supervise_runs(watch: Watch) -> dict[str, list[RecoveryAction]]:
    """Supervise all live runs, several in parallel; returns the actions by run id.

    When the time is over, the next call begins with the remaining runs.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + watch.budget.total_seconds()
    watched = await watch.storage.runs.list_watched()
    place = await watch.storage.live_runs.get_cursor()
    first = next((index for index, each in enumerate(watched) if each.run_id == place), 0)
    waiting = deque([*watched[first:], *watched[:first]])
    done: dict[str, list[RecoveryAction]] = {}
    cut_off: list[str] = []
    not_seen: list[str] = []

    async def work() -> None:
        while waiting:
            each = waiting.popleft()
            if loop.time() >= until:
                not_seen.append(each.run_id)
                continue
            try:
                async with asyncio.timeout_at(until):
                    done[each.run_id] = await _look_at(watch, each)
            except TimeoutError:
                cut_off.append(each.run_id)
            except Exception:
                # A failure of one run must not affect the others.
                _LOG.exception("The run %s could not be supervised", each.run_id)

    await asyncio.gather(*(work() for _ in range(_RUNS_AT_ONCE)))
    # Continue here next time, so that slow runs do not starve the others.
    left = [*not_seen, *cut_off]
    if left:
        _LOG.warning("No time was left for %d of %d runs: the next call begins with them.", len(left), len(watched))
    if left or place:
        await watch.storage.live_runs.set_cursor(left[0] if left else "")
    return done


async def _look_at(watch: Watch, each: LiveRun) -> list[RecoveryAction]:
    run = each.run
    if run is None:
        if watch.now - each.since > STARTING:
            # The process died between entry and row, or the run was removed.
            await watch.storage.live_runs.remove(each.run_id)
        return []
    if not run.state.is_final:
        return await _supervise(watch, run)
    if watch.now - (run.ended_at or run.created_at) > STARTING:
        await _settle(watch, run)
    return []


async def _settle(watch: Watch, run: Run) -> None:
    """Complete an interrupted end: notify, and release reservations."""
    instance_id = instance_ids.notice(run.id, Event.ENDED.value, 1)
    if await watch.engine.get_orchestration_state(instance_id) is None:
        notice = Notice(run_id=run.id, at=watch.now, facts=RunEnded())
        await schedule(watch.engine, contracts.SEND_NOTIFICATIONS, notice, instance_id)
    full = await watch.storage.runs.get(run.id)
    await watch.storage.runs.settle(full or run)
    _LOG.warning("Run %s had ended, and what follows its end was missing.", run.id)


async def _supervise(watch: Watch, run: Run) -> list[RecoveryAction]:
    storage, engine, now = watch.storage, watch.engine, watch.now
    done: list[RecoveryAction] = []
    for _ in range(MAX_ROUNDS):
        own = await engine.get_orchestration_state(run.id)
        others = await _instances_of(engine, run.id)
        if any(each.name == contracts.CLOSE_ORPHANED_RUN.name for each in _live(others)):
            return done
        action = decide(run, Observation(_status(own), _turned_at(own) if own else None, bool(_live(others))), now)
        if action is not RecoveryAction.NOTHING:
            done.append(action)
            _LOG.warning("Run %s: %s", run.id, action.value)
        match action:
            case RecoveryAction.NOTHING:
                await _supervise_machines(watch, run, others)
                return done
            case RecoveryAction.WAKE:
                await engine.raise_orchestration_event(run.id, Signal.CONTROL)
                return done
            case RecoveryAction.STOP:
                run = await storage.runs.stop(run.id, _TERMINATED, now)
                await storage.audit.add(run.id, "run_stopped", actor=PATCHWAVE, at=now, detail={"reason": _TERMINATED})
            case RecoveryAction.END:
                await _end(engine, own, others)
                await asyncio.sleep(watch.pause)
            case RecoveryAction.CONTINUE:
                await _continue(watch, run, _status(own))
                return done
            case RecoveryAction.CLOSE:
                request = RunRef(run_id=run.id)
                await schedule(engine, contracts.CLOSE_ORPHANED_RUN, request, instance_ids.closing(run.id))
                return done
    return done


async def _end(engine: WatchedEngine, own: OrchestrationState | None, others: Sequence[OrchestrationState]) -> None:
    """End the run, its phases and its machines; their operations only when none of these is left.

    A live machine would record the end of its operation as an outcome.
    """
    live = [each for each in [own, *others] if each is not None and each.runtime_status in _LIVE]
    above = [
        each for each in live if each.name not in (contracts.AWAIT_OPERATION.name, contracts.SEND_NOTIFICATIONS.name)
    ]

    async def terminate(each: OrchestrationState) -> None:
        await engine.terminate_orchestration(each.instance_id, output=ENDED_BY_WATCHDOG, recursive=False)

    terminated = above or [each for each in live if each.name == contracts.AWAIT_OPERATION.name]
    await in_parallel(terminate, terminated, most=_INSTANCES_AT_ONCE)


async def _continue(watch: Watch, run: Run, status: EngineStatus) -> None:
    """Start the next generation; or the first, if the run was never started."""
    if run.started_at is None:
        await schedule_run(watch.engine, run)
        return
    begun = await watch.storage.runs.begin_generation(
        run.id, run.generation, contracts.VERSION, heartbeat_deadline(watch.now)
    )
    if begun.generation != run.generation + 1 or begun.state.is_final:
        return
    detail = {"generation": begun.generation, "found": status.value, "version": contracts.VERSION}
    await watch.storage.audit.add(run.id, "run_recovered", actor=PATCHWAVE, at=watch.now, detail=detail)
    await schedule_run(watch.engine, begun)


async def _supervise_machines(watch: Watch, run: Run, others: Sequence[OrchestrationState]) -> None:
    """Requeue machines whose orchestration died, and end stuck ones, which are requeued next."""
    live = _live(others)
    phases = {each.instance_id for each in live if each.name == contracts.PATCH_PHASE.name}
    machines = [each for each in others if each.name == contracts.PATCH_MACHINE.name]
    operations = {
        each.instance_id.rsplit(":", 2)[0]: each for each in live if each.name == contracts.AWAIT_OPERATION.name
    }

    async def look(machine: OrchestrationState) -> None:
        instance_id = machine.instance_id
        operation = operations.get(instance_id)
        if machine.runtime_status in _DEAD and operation is not None:
            # Its end must be confirmed before another instance follows the same operation.
            await watch.engine.terminate_orchestration(operation.instance_id, output=ENDED_BY_WATCHDOG, recursive=False)
        elif machine.runtime_status in _DEAD:
            await _requeue(watch, run, machine, phases)
            await watch.engine.purge_orchestration(instance_id, recursive=False)
        elif machine.runtime_status is not OrchestrationStatus.SUSPENDED:
            turned_at = max(_turned_at(each) for each in (machine, operation) if each is not None)
            if is_stuck(turned_at, watch.now, watch.poll_seconds):
                await watch.engine.terminate_orchestration(instance_id, output=ENDED_BY_WATCHDOG, recursive=False)

    await in_parallel(look, machines, most=_INSTANCES_AT_ONCE)


async def _requeue(watch: Watch, run: Run, machine: OrchestrationState, phases: Container[str]) -> None:
    """Tell a live phase to requeue the machine. An operation that Azure accepted is adopted."""
    state = await watch.engine.get_orchestration_state(machine.instance_id)
    given = None if state is None else state.get_input()
    work = None if given is None else MachineWork.model_validate(given)
    if work is None or instance_ids.phase(run.id, work.phase) not in phases:
        return
    at = datetime.now(UTC)
    ended = MachineEnded(key=work.machine_key, attempt=work.attempt, requeued=True)
    await watch.storage.completions.record(run.id, completion_change(work.phase, ended))
    detail = {"machine": work.machine_key, "step": work.step.value, "found": machine.runtime_status.name.lower()}
    await watch.storage.audit.add(run.id, "machine_requeued", actor=PATCHWAVE, at=at, detail=detail)


async def _instances_of(engine: WatchedEngine, run_id: str) -> list[OrchestrationState]:
    """The live and failed instances of a run, without completed ones, which are most of them."""
    query = OrchestrationQuery(instance_id_prefix=f"{run_id}:", runtime_status=[*_LIVE, *_DEAD])
    return await engine.get_all_orchestration_states(query)


def _live(states: Sequence[OrchestrationState]) -> list[OrchestrationState]:
    """Those that still work for the run; notifications do not count."""
    return [each for each in states if each.runtime_status in _LIVE and each.name != contracts.SEND_NOTIFICATIONS.name]


def _turned_at(state: OrchestrationState) -> datetime:
    """The instance's last update; the client returns UTC without a zone."""
    at = state.last_updated_at
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def _status(own: OrchestrationState | None) -> EngineStatus:
    if own is None:
        return EngineStatus.MISSING
    match own.runtime_status:
        case OrchestrationStatus.COMPLETED:
            return EngineStatus.COMPLETED
        case OrchestrationStatus.FAILED:
            return EngineStatus.FAILED
        case OrchestrationStatus.TERMINATED:
            return EngineStatus.ENDED if own.get_output() == ENDED_BY_WATCHDOG else EngineStatus.TERMINATED
        case OrchestrationStatus.SUSPENDED:
            return EngineStatus.SUSPENDED
        case _:
            return EngineStatus.LIVE
