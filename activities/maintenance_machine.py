"""Steps of one machine in a maintenance run: store its pre-phase result, check its power, finalize it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from activities.context import load_machine, load_record, now, retry_after, wait_seconds
from activities.maintenance_run import occurrence_of
from patchwave.domain.azure.errors import ArmFailure, classify
from patchwave.domain.azure.instance_view import Power
from patchwave.domain.core.ids import MachineId
from patchwave.domain.machine.health import Moment
from patchwave.domain.machine.power import NotRestored, not_restored
from patchwave.domain.runs.maintenance_results import conclude
from patchwave.domain.workflow.machine import MachineRef
from patchwave.domain.workflow.maintenance_run import FinalizeRequest, PowerCheck, PowerState, PreResult
from patchwave.wiring import Services

_LOCK_MARGIN = timedelta(hours=2)
"""Added to the deadline of the scheduled run: time for the post phase."""


async def record_pre_result(services: Services, request: PreResult) -> None:
    """Store how the pre phase ended on the machine.

    Extends the lease to the end of the scheduled run, so that no other run installs while Azure does.
    """
    context = await load_machine(services, request.run_id, request.machine_key)
    until = occurrence_of(context.run).post_deadline + _LOCK_MARGIN
    await context.storage.leases.acquire(context.machine.key, context.run.id, now(), until)
    is_ours = context.machine.powered_on_by_run and not request.start_refused
    seen: dict[str, Any] = {"power_state": Power.HIBERNATED.value} if request.is_hibernated else {}
    await context.storage.machines.update(
        context.run.id,
        context.machine.key,
        context.machine.stage,
        pre_tasks_done=True,
        pre_tasks_error=request.pre_tasks_error,
        powered_on_by_run=is_ours,
        powered_on=is_ours,
        **seen,
    )


async def check_machine_power(services: Services, request: MachineRef) -> PowerCheck:
    """Read the machine's power after the scheduled run."""
    machine = await load_record(services.storage, request.run_id, request.machine_key)
    view = await services.resource_manager.read_machine(MachineId.parse(machine.id), keep_for=Moment.AFTER)
    if isinstance(view, ArmFailure):
        is_passing = classify(view).kind.is_transient
        return PowerCheck(
            state=PowerState.WAIT if is_passing else PowerState.OFF,
            powered_on_by_run=machine.powered_on_by_run,
            **retry_after(services.settings, view),
        )
    if view.power in (Power.STOPPED, Power.DEALLOCATED, Power.HIBERNATED):
        state = PowerState.OFF
    else:
        state = PowerState.READY if view.power is Power.RUNNING and view.is_agent_ready else PowerState.WAIT
    last = view.last_assessment
    return PowerCheck(
        state=state,
        powered_on_by_run=machine.powered_on_by_run,
        assess_activity_id=last.activity_id if last else "",
        wait_seconds=wait_seconds(services.settings),
    )


async def finalize_machine(services: Services, request: FinalizeRequest) -> None:
    """Store the machine's final row; the first one counts."""
    context = await load_machine(services, request.run_id, request.machine_key)
    outcome = conclude(occurrence_of(context.run), context.machine)
    message = " ".join([outcome.message, *request.problems])
    left = NotRestored(request.not_restored) if request.not_restored else None
    await services.storage.results.record_outcome(
        context.run.id,
        context.machine.key,
        not_restored(outcome.model_copy(update={"message": message}), left),
        at=now(),
        installation=context.machine.installation,
        patches=[],
        release=not request.keep_lease,
    )
