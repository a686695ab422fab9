"""Start a stopped machine, restore its power state, and restart a patched one."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from activities.context import (
    MachineContext,
    declare_call,
    load_machine,
    load_record,
    load_run,
    now,
    retry_after,
    save_accepted,
    wait_seconds,
)
from activities.window import frozen, is_behind_window
from patchwave.domain.azure.errors import NO_ANSWER, ArmFailure, ErrorClass, classify, is_throttling
from patchwave.domain.azure.instance_view import Power
from patchwave.domain.azure.operation import PollReading, PollState
from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.ids import MachineId
from patchwave.domain.machine.at_most_once import AtMostOnceRecord, GuardedCall
from patchwave.domain.machine.power import (
    MAX_CHANGE_POLLS,
    SETTLES_IN_POLLS,
    Next,
    is_restored,
    never_done,
    next_step,
    power_before,
    undone,
)
from patchwave.domain.runs.intent import IntentState
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.run import Mode
from patchwave.domain.scheduling.window import RESTART_NEEDS
from patchwave.domain.workflow.machine import MachineRef, PowerRequest, PowerResult
from patchwave.domain.workflow.start_blocker import start_blocker
from patchwave.settings import Settings
from patchwave.storage import Storage
from patchwave.wiring import Services

_MAX_RESTART = timedelta(minutes=30)
"""Windows may configure updates for a long time before it shuts down."""
_UNSEEN_RESTART = timedelta(minutes=5)
"""How long to wait for a restart whose operation cannot be read, for example for lack of a permission."""


async def start_machine(services: Services, request: PowerRequest) -> PowerResult:
    """Store the machine's power state, then start it.

    Called until the machine starts. Each call reads the machine first, because a lost call may have been accepted.
    Throttling is waited out until the run's window is over.
    """
    started = await _start(services, request)
    if started.wait_seconds and started.failure is not None and is_throttling(started.failure):
        run, policy = await load_run(services.storage, request.run_id)
        machine = await load_record(services.storage, request.run_id, request.machine_key)
        if is_behind_window(run, machine):
            over = {"accepted": False, "wait_seconds": 0, "requeued": policy.continues and run.mode is Mode.PATCH}
            return started.model_copy(update=over)
    return started


async def _start(services: Services, request: PowerRequest) -> PowerResult:
    machine = await load_record(services.storage, request.run_id, request.machine_key)
    view = await services.resource_manager.read_machine(MachineId.parse(machine.id))
    if isinstance(view, ArmFailure):
        return _refused(services.settings, view)
    if view.power is Power.HIBERNATED:
        return PowerResult(accepted=False)
    if view.power not in (Power.STOPPED, Power.DEALLOCATED):
        # It is starting; or a user has started it since the read, and wants it to run.
        return PowerResult(accepted=True, wait_seconds=wait_seconds(services.settings))
    if not machine.powered_on_by_run:
        # Before the row says that it was started: a refused machine stays as it is.
        if await _may_not_start(services.storage, request.run_id, machine):
            return PowerResult(accepted=False, requeued=True)
        seen: dict[str, Any] = {"powered_on_by_run": True, "power_state": view.power.value}
        await services.storage.machines.update(request.run_id, request.machine_key, machine.stage, **seen)
    change = _Change(services, request, machine, GuardedCall.START, view.power)
    result = await change.go_on()
    # An accepted call may leave the machine off for a moment, which the next read shows.
    return result.model_copy(update={"accepted": result.is_open and bool(result.wait_seconds)})


async def stop_machine(services: Services, request: PowerRequest) -> PowerResult:
    """Stop or deallocate the machine, as it was before the run started it.

    Called until the machine shows it. Then clears ``powered_on_by_run``: if a user starts the machine afterwards, the
    run leaves it running.
    """
    machine = await load_record(services.storage, request.run_id, request.machine_key)
    if not machine.powered_on_by_run:
        return PowerResult(accepted=True)
    view = await services.resource_manager.read_machine(MachineId.parse(machine.id))
    if isinstance(view, ArmFailure):
        is_gone = classify(view).kind is ErrorClass.GONE
        return PowerResult(accepted=True) if is_gone else _refused(services.settings, view)
    before = power_before(machine.power_state)
    if not is_restored(view.power, before):
        return await _Change(services, request, machine, GuardedCall.STOP, view.power).go_on()
    await services.storage.machines.update(request.run_id, request.machine_key, machine.stage, powered_on_by_run=False)
    return PowerResult(accepted=True)


async def _may_not_start(storage: Storage, run_id: str, machine: MachineRecord) -> bool:
    """Whether controls block the start, read right before it. A stop needs no such check: it only restores."""
    run, _ = await load_run(storage, run_id)
    return start_blocker(run, machine) is not None


class _Change:
    """One step of a start or stop of a machine that does not show the new power state yet."""

    def __init__(
        self, services: Services, request: PowerRequest, machine: MachineRecord, call: GuardedCall, shown: Power
    ) -> None:
        self._settings, self._storage, self._manager = services.settings, services.storage, services.resource_manager
        self._request = request
        self._machine = machine
        self._call = call
        self._shown = shown

    async def go_on(self) -> PowerResult:
        """Send the request, wait for its operation, or end with a failure."""
        stored = await self._storage.at_most_once.get(self._request.run_id, self._request.machine_key, self._call)
        last = stored if stored is not None and stored.change_id == self._change_id else None
        deadline = (
            last.deadline_at if last is not None else self._request.since + _polls(self._settings, MAX_CHANGE_POLLS)
        )
        match next_step(self._shown, last, now(), deadline, _polls(self._settings, SETTLES_IN_POLLS)):
            case Next.WAIT:
                return self._waiting(last)
            case Next.SEND:
                return await self._send(stored, last)
            case Next.FOLLOW if last is not None:
                return await self._follow(last)
            case _:
                failure = never_done(self._shown, last)
                is_open = last is not None and last.state is not IntentState.REFUSED
                return PowerResult(accepted=False, failure=failure, is_open=is_open)

    async def _follow(self, last: AtMostOnceRecord) -> PowerResult:
        """Azure accepted the call, and the machine shows no effect: read the operation for the reason."""
        location_url = "" if last.async_url else last.location_url
        reading = await self._manager.poll(MachineId.parse(self._machine.id), last.async_url, location_url)
        match reading.state:
            case PollState.RUNNING | PollState.UNCLEAR:
                return self._waiting(last, reading.retry_after)
            case PollState.SUCCEEDED | PollState.SUCCEEDED_WITHOUT_RESULT:
                return PowerResult(accepted=False, failure=undone(self._shown))
            case PollState.FAILED | PollState.LOST:
                said = reading.failure.text if reading.failure and reading.state is PollState.FAILED else ""
                return await self._send(last, last.model_copy(update={"failure": said or last.failure}))

    async def _send(self, stored: AtMostOnceRecord | None, last: AtMostOnceRecord | None) -> PowerResult:
        machine_id = MachineId.parse(self._machine.id)
        if self._call is GuardedCall.START and await _may_not_start(self._storage, self._request.run_id, self._machine):
            is_open = last is not None and last.state is not IntentState.REFUSED
            return PowerResult(accepted=False, requeued=True, is_open=is_open)
        guard = AtMostOnceRecord(
            run_id=self._request.run_id,
            machine_key=self._request.machine_key,
            call=self._call,
            token=uuid.uuid4().hex,
            change_id=self._change_id,
            created_at=now(),
            deadline_at=last.deadline_at
            if last is not None and now() < last.deadline_at
            else now() + _polls(self._settings, MAX_CHANGE_POLLS),
        )
        if not await declare_call(self._storage, guard, stored):
            return self._waiting(last)
        if self._call is GuardedCall.START:
            submission = await self._manager.start(machine_id)
        else:
            deallocate = power_before(self._machine.power_state) is Power.DEALLOCATED
            submission = await self._manager.stop(machine_id, deallocate=deallocate)
        if submission.accepted:
            earlier = last.failure if last is not None else ""
            await save_accepted(self._storage, guard.model_copy(update={"failure": earlier}), submission)
            return self._waiting(guard)
        failure = submission.failure or NO_ANSWER
        changes: dict[str, Any] = {
            "state": IntentState.DECLARED if submission.is_open else IntentState.REFUSED,
            "failure": failure.text,
        }
        if is_throttling(failure):
            # A locally throttled call does not count as an attempt.
            changes["deadline_at"] = (
                now() + timedelta(seconds=failure.retry_after or 0) + _polls(self._settings, MAX_CHANGE_POLLS)
            )
        await self._storage.at_most_once.save(guard.model_copy(update=changes))
        if submission.is_open:
            return self._waiting(guard, failure.retry_after, failure)
        return _refused(self._settings, failure)

    def _waiting(
        self, last: AtMostOnceRecord | None, asked: float | None = None, failure: ArmFailure | None = None
    ) -> PowerResult:
        """No such wait counts as an attempt: the change has a deadline, which throttling postpones."""
        ran_for = now() - last.created_at if last is not None else timedelta(0)
        wait = wait_seconds(self._settings, asked, ran_for=ran_for)
        return PowerResult(accepted=False, wait_seconds=wait, failure=failure, is_open=True, counts_as_attempt=False)

    @property
    def _change_id(self) -> str:
        return format_instant(self._request.since)


async def restart_machine(services: Services, request: MachineRef) -> PowerResult:
    """Restart the machine once, and report when it is done.

    Called until the restart is done: the agent still reports ready before the machine goes down.
    """
    context = await load_machine(services, request.run_id, request.machine_key)
    guard = await services.storage.at_most_once.get(request.run_id, request.machine_key, GuardedCall.RESTART)
    if guard is not None and guard.state is IntentState.ACCEPTED:
        return await _follow_restart(context, guard)
    if guard is not None and guard.state is IntentState.DECLARED and context.machine.stage is Stage.RESTARTING:
        waiting = await _find_restart(context, guard)
        if waiting is not None:
            return waiting
    if await _may_not_begin(context):
        return PowerResult(accepted=False, requeued=True)
    return await _ask_for_restart(context, guard)


async def _may_not_begin(context: MachineContext) -> bool:
    """Whether a restart must not be sent any more: after throttling, the window or the controls may block it."""
    if context.is_before_window:
        return True
    end = context.window_end
    is_late = end is not None and now() > end - RESTART_NEEDS
    return is_late or start_blocker(context.run, context.machine) is not None or bool(await frozen(context))


async def _find_restart(context: MachineContext, guard: AtMostOnceRecord) -> PowerResult | None:
    """The state of a restart with an ambiguous response; ``None``: Azure certainly did not accept it.

    An accepted one shows within seconds: the machine is being changed, was changed since, or its agent is away.
    """
    view = await context.services.resource_manager.read_machine(context.machine_id)
    at = now()
    if isinstance(view, ArmFailure):
        may_pass = is_throttling(view) or (at < guard.deadline_at and classify(view).kind.may_pass)
        return _refused(context.settings, view, is_open=True, may_pass=may_pass)
    has_changed = view.changed_at is not None and view.changed_at >= guard.created_at
    if has_changed or view.is_being_changed or not view.is_agent_ready:
        await context.storage.at_most_once.save(guard.model_copy(update={"state": IntentState.ACCEPTED}))
        return PowerResult(accepted=False, wait_seconds=wait_seconds(context.settings))
    if at < guard.created_at + _polls(context.settings, SETTLES_IN_POLLS):
        return PowerResult(accepted=False, wait_seconds=wait_seconds(context.settings), is_open=True)
    return None


async def _ask_for_restart(context: MachineContext, known: AtMostOnceRecord | None) -> PowerResult:
    storage = context.storage
    # A requeued machine, perhaps in another window, starts with its full time.
    is_retry = known is not None and context.machine.stage is Stage.RESTARTING
    guard = AtMostOnceRecord(
        run_id=context.run.id,
        machine_key=context.machine.key,
        call=GuardedCall.RESTART,
        token=uuid.uuid4().hex,
        created_at=now(),
        deadline_at=known.deadline_at if known is not None and is_retry else now() + _MAX_RESTART,
    )
    if not await declare_call(storage, guard, known):
        return PowerResult(accepted=False, wait_seconds=wait_seconds(context.settings), is_open=True)
    await storage.machines.update(context.run.id, context.machine.key, Stage.RESTARTING)
    submission = await context.services.resource_manager.restart(context.machine_id)
    if submission.accepted:
        await save_accepted(storage, guard, submission)
        return PowerResult(accepted=False, wait_seconds=wait_seconds(context.settings))
    changes: dict[str, Any] = {} if submission.is_open else {"state": IntentState.REFUSED}
    refused = _refused(context.settings, submission.failure, is_open=submission.is_open)
    if not refused.counts_as_attempt:
        # A locally throttled call does not count as an attempt.
        changes["deadline_at"] = now() + timedelta(seconds=refused.wait_seconds) + _MAX_RESTART
    if changes:
        guard = guard.model_copy(update=changes)
        await storage.at_most_once.save(guard)
    # Out of time: nothing more is sent.
    return refused.model_copy(update={"wait_seconds": 0}) if now() >= guard.deadline_at else refused


async def _follow_restart(context: MachineContext, guard: AtMostOnceRecord) -> PowerResult:
    # Location adds nothing to the other URL: a restart has no result.
    location_url = "" if guard.async_url else guard.location_url
    reading = await context.services.resource_manager.poll(context.machine_id, guard.async_url, location_url)
    at = now()
    match reading.state:
        case PollState.SUCCEEDED | PollState.SUCCEEDED_WITHOUT_RESULT:
            return PowerResult(accepted=True)
        case PollState.FAILED:
            return PowerResult(accepted=False, failure=reading.failure)
        case PollState.LOST | PollState.UNCLEAR if at >= _unseen_until(guard, reading):
            # It was accepted, and its time is over; the machine's state decides.
            return PowerResult(accepted=True)
        case PollState.RUNNING if at >= guard.deadline_at:
            overdue = ArmFailure(status=0, code="Overdue", message="the restart did not end in half an hour")
            return PowerResult(accepted=False, failure=overdue)
        case _:
            # Throttled polls do not count as attempts: the deadline bounds them.
            asked = reading.retry_after or (reading.failure.retry_after if reading.failure else None)
            wait = wait_seconds(context.settings, asked, ran_for=at - guard.created_at)
            return PowerResult(accepted=False, wait_seconds=wait, counts_as_attempt=False)


def _unseen_until(guard: AtMostOnceRecord, reading: PollReading) -> datetime:
    """Until when to poll an operation that cannot be read: only a throttled one gets the full deadline."""
    if reading.failure is not None and is_throttling(reading.failure):
        return guard.deadline_at
    return guard.created_at + _UNSEEN_RESTART


def _polls(settings: Settings, count: int) -> timedelta:
    return timedelta(seconds=settings.poll_seconds * count)


def _refused(
    settings: Settings, failure: ArmFailure | None, *, is_open: bool = False, may_pass: bool | None = None
) -> PowerResult:
    """The result of a call that was not accepted, as far as is known.

    ``may_pass``: whether it is retried; by default after a transient failure.
    """
    failure = failure or NO_ANSWER
    retry = retry_after(settings, failure)
    if not (is_open or classify(failure).kind.may_pass if may_pass is None else may_pass):
        retry["wait_seconds"] = 0
    return PowerResult(accepted=False, failure=failure, is_open=is_open, **retry)
