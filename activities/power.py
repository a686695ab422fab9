"""Start a stopped machine, put it back as it was, and restart one that is patched."""

from __future__ import annotations

import uuid
from datetime import timedelta

from activities.context import MachineContext, load_machine, load_record, now, wait_seconds
from activities.windows import frozen
from adapters.arm import open_resource_manager
from adapters.tables import open_records
from domain.arm_error import ArmFailure, ErrorClass, classify
from domain.base import Json
from domain.guard import Guard, GuardedCall
from domain.identity import MachineId
from domain.operation import PollState
from domain.preflight import Power
from domain.run import IntentState, Stage
from domain.steering import reason_not_to_start
from domain.window import RESTART_NEEDS
from domain.work import MachineRef, PowerResult

_LONGEST_RESTART = timedelta(minutes=30)
"""Windows may configure updates for a long time before it goes down."""
_UNSEEN_RESTART = timedelta(minutes=5)
"""How long a restart gets whose operation cannot be read: the role may lack the right to."""
_PASSING = (ErrorClass.THROTTLED, ErrorClass.RETRY_LATER, ErrorClass.BUSY)


async def start_machine(data: Json) -> Json:
    """Remember how the machine was, then start it. ``MachineRef`` to ``PowerResult``."""
    request = MachineRef.from_wire(data)
    machine = await load_record(request.run_id, request.machine_key)
    manager = open_resource_manager()
    if not machine.started_by_us:
        # A second execution finds the machine running; what it was before is then in the row already.
        view = await manager.read_machine(MachineId.parse(machine.id))
        if isinstance(view, ArmFailure):
            return _refused(view).to_wire()
        if view.power is Power.HIBERNATED:
            return PowerResult(accepted=False).to_wire()
        if view.power not in (Power.STOPPED, Power.DEALLOCATED):
            # Somebody else has started it since the look at it, or does so now, and wants it to run.
            return PowerResult(accepted=True, wait_seconds=wait_seconds()).to_wire()
        await open_records().set_stage(
            request.run_id,
            request.machine_key,
            machine.stage,
            started_by_us=True,
            power_state=view.power.value,
        )
    submission = await manager.start(MachineId.parse(machine.id))
    if submission.accepted or submission.is_uncertain:
        # One that got lost leaves the machine stopped, which the next look at it shows.
        return PowerResult(accepted=True, wait_seconds=wait_seconds(), failure=submission.failure).to_wire()
    return _refused(submission.failure).to_wire()


async def stop_machine(data: Json) -> Json:
    """Stop or deallocate the machine, as it was before the run started it. ``MachineRef`` to ``PowerResult``.

    From then on it is not ours any more: whoever starts it before the run comes back to it wants it to run.
    """
    request = MachineRef.from_wire(data)
    machine = await load_record(request.run_id, request.machine_key)
    if not machine.started_by_us:
        return PowerResult(accepted=True).to_wire()
    # Deallocated is the answer when in doubt: a machine that is only stopped goes on costing money.
    deallocate = machine.power_state != Power.STOPPED.value
    submission = await open_resource_manager().stop(MachineId.parse(machine.id), deallocate=deallocate)
    if not submission.accepted:
        return _refused(submission.failure, is_uncertain=submission.is_uncertain).to_wire()
    await open_records().set_stage(request.run_id, request.machine_key, machine.stage, started_by_us=False)
    return PowerResult(accepted=True).to_wire()


async def restart_machine(data: Json) -> Json:
    """Restart the machine once, and say when that is done. ``MachineRef`` to ``PowerResult``.

    It is called until the restart has been carried out: until then the agent, read too early, still counts as ready.
    """
    request = MachineRef.from_wire(data)
    context = await load_machine(request.run_id, request.machine_key)
    guard = await open_records().get_guard(request.run_id, request.machine_key, GuardedCall.RESTART)
    if guard is not None and guard.state is IntentState.ACCEPTED:
        return (await _follow_restart(context, guard)).to_wire()
    if await _may_not_begin(context):
        return PowerResult(accepted=False, left=True).to_wire()
    return (await _ask_for_restart(context, guard)).to_wire()


async def _may_not_begin(context: MachineContext) -> bool:
    """Whether a restart must not be sent now: since the look at the machine, Azure may have made it wait for long."""
    end = context.run.window_end
    is_late = end is not None and now() > end - RESTART_NEEDS
    return is_late or reason_not_to_start(context.run, context.machine) is not None or bool(await frozen(context))


async def _ask_for_restart(context: MachineContext, known: Guard | None) -> PowerResult:
    records = open_records()
    guard = Guard(
        run_id=context.run.id,
        machine_key=context.machine.key,
        call=GuardedCall.RESTART,
        token=uuid.uuid4().hex,
        declared_at=now(),
        deadline_at=now() + _LONGEST_RESTART,
    )
    if known is None:
        guard = await records.declare_guard(guard)
    elif context.machine.stage is Stage.RESTARTING:
        guard = known
    else:
        # It was put back, perhaps to another window: its time begins anew.
        await records.save_guard(guard)
    await records.set_stage(context.run.id, context.machine.key, Stage.RESTARTING)
    submission = await open_resource_manager().restart(context.machine_id)
    if submission.accepted:
        urls = {"async_url": submission.async_url, "location_url": submission.location_url}
        await records.save_guard(guard.model_copy(update={"state": IntentState.ACCEPTED, **urls}))
        return PowerResult(accepted=False, wait_seconds=wait_seconds())
    refused = _refused(submission.failure, is_uncertain=submission.is_uncertain)
    # Asked for too long: nothing more is sent.
    return refused.model_copy(update={"wait_seconds": 0}) if now() >= guard.deadline_at else refused


async def _follow_restart(context: MachineContext, guard: Guard) -> PowerResult:
    # Location tells nothing beside the other URL: a restart has no result.
    location_url = "" if guard.async_url else guard.location_url
    reading = await open_resource_manager().poll(context.machine_id, guard.async_url, location_url)
    at = now()
    match reading.state:
        case PollState.SUCCEEDED | PollState.SUCCEEDED_WITHOUT_RESULT:
            return PowerResult(accepted=True)
        case PollState.FAILED:
            return PowerResult(accepted=False, failure=reading.failure)
        case PollState.LOST | PollState.UNCLEAR if at >= guard.declared_at + _UNSEEN_RESTART:
            # It was accepted and had its time; how the machine is now says the rest.
            return PowerResult(accepted=True)
        case PollState.RUNNING if at >= guard.deadline_at:
            overdue = ArmFailure(status=0, code="Overdue", message="the restart did not end in half an hour")
            return PowerResult(accepted=False, failure=overdue)
        case _:
            # A tenth of the time that it has taken: a long restart does not fill the history with polls.
            wait = max(wait_seconds(reading.retry_after), (at - guard.declared_at).total_seconds() / 10)
            return PowerResult(accepted=False, wait_seconds=wait)


def _refused(failure: ArmFailure | None, *, is_uncertain: bool = False) -> PowerResult:
    """Not taken, as far as is known; to be asked again when the reason passes."""
    failure = failure or ArmFailure(status=0, message="Azure gave no answer")
    is_passing = is_uncertain or classify(failure).kind in _PASSING
    return PowerResult(
        accepted=False, wait_seconds=wait_seconds(failure.retry_after) if is_passing else 0, failure=failure
    )
