"""Start a stopped machine, and put it back as it was."""

from __future__ import annotations

from activities.context import load_machine, wait_seconds
from adapters.arm import Submission, open_resource_manager
from adapters.tables import open_records
from domain.arm_error import ArmFailure
from domain.base import Json
from domain.preflight import Power
from domain.work import MachineRef, PowerResult


async def start_machine(data: Json) -> Json:
    """Remember how the machine was, then start it. ``MachineRef`` to ``PowerResult``."""
    request = MachineRef.from_wire(data)
    context = await load_machine(request.run_id, request.machine_key)
    manager = open_resource_manager()
    if not context.machine.started_by_us:
        # A second execution finds the machine running; what it was before is then in the row already.
        view = await manager.read_machine(context.machine_id)
        if isinstance(view, ArmFailure):
            return PowerResult(accepted=False, failure=view).to_wire()
        await open_records().set_stage(
            request.run_id,
            request.machine_key,
            context.machine.stage,
            started_by_us=True,
            power_state=view.power.value,
        )
    return _result(await manager.start(context.machine_id))


async def stop_machine(data: Json) -> Json:
    """Stop or deallocate the machine, as it was before the run started it. ``MachineRef`` to ``PowerResult``."""
    request = MachineRef.from_wire(data)
    context = await load_machine(request.run_id, request.machine_key)
    if not context.machine.started_by_us:
        return PowerResult(accepted=True).to_wire()
    # Deallocated is the answer when in doubt: a machine that is only stopped goes on costing money.
    deallocate = context.machine.power_state != Power.STOPPED.value
    return _result(await open_resource_manager().stop(context.machine_id, deallocate=deallocate))


def _result(submission: Submission) -> Json:
    return PowerResult(
        accepted=submission.accepted or submission.is_uncertain,
        wait_seconds=wait_seconds(),
        failure=submission.failure,
    ).to_wire()
