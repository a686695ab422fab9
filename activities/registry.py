"""Registers the activities with the Functions host, each by its contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import azure.durable_functions as df

from activities import (
    discover,
    health,
    heartbeat,
    machine,
    maintenance_machine,
    maintenance_results,
    maintenance_run,
    notifications,
    patch_mode_change,
    patch_pinning,
    phase,
    plan,
    poll_operation,
    power,
    reservations,
    run,
    script,
    snapshot,
    submit_operation,
    window,
)
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.contracts import Activity
from patchwave.storage import batching
from patchwave.wiring import Services, current_services

bp = df.Blueprint()

type Function = Callable[[object], Awaitable[object]]


def register[Request, Result](
    contract: Activity[Request, Result],
    function: Callable[[Services, Request], Awaitable[Result]],
    *,
    batches: bool = False,
) -> Function:
    """Register the implementation of an activity contract.

    Args:
        contract: the activity.
        function: its implementation.
        batches: whether it runs for hundreds of machines at a time, with storage requests in batches.
    """

    async def activity(data: object) -> object:
        with batching() if batches else nullcontext():
            return contract.result.encode(await function(current_services(), contract.request.decode(data)))

    activity.__name__ = contract.name
    activity.__doc__ = function.__doc__
    bp.activity_trigger(input_name="data")(activity)
    return activity


# Per run, or per page of machines.
register(contracts.BEGIN_RUN, run.begin_run)
register(contracts.LOAD_CHECKPOINT, heartbeat.load_checkpoint)
register(contracts.EXTEND_HEARTBEAT, heartbeat.extend_heartbeat)
register(contracts.DISCOVER_MACHINES, discover.discover_machines)
register(contracts.PLAN_RUN, plan.plan_run)
register(contracts.PIN_RING, patch_pinning.pin_ring)
register(contracts.GET_RUN_CONTROLS, run.get_run_controls)
register(contracts.SET_RUN_STATE, run.set_run_state)
register(contracts.STOP_RUN, run.stop_run)
register(contracts.TRIP_ERROR_BUDGET, run.trip_error_budget)
register(contracts.GET_START_CUTOFF, window.get_start_cutoff)
register(contracts.FIND_NEXT_WINDOW, window.find_next_window)
register(contracts.ENTER_WINDOW, window.enter_window)
register(contracts.FIND_FIRST_OPENING, window.find_first_opening)
register(contracts.RESERVE_GROUPS, reservations.reserve_groups)
register(contracts.RELEASE_GROUPS, reservations.release_groups)
register(contracts.CLOSE_OPEN_MACHINES, run.close_open_machines)
register(contracts.CLOSE_RUN, run.close_run)
register(contracts.LIST_CHANNELS, notifications.list_channels)
register(contracts.SEND_NOTIFICATION, notifications.send_notification)
register(contracts.RECORD_DELIVERY, notifications.record_delivery)
register(contracts.POLL_PHASE, phase.poll_phase)
register(contracts.LIST_PENDING_MACHINES, phase.list_pending_machines)
register(contracts.RECONCILE_MACHINES, phase.reconcile_machines)
register(contracts.LOAD_MAINTENANCE_RUN, maintenance_run.load_maintenance_run)
register(contracts.FIND_OCCURRENCE_MACHINES, maintenance_run.find_occurrence_machines)
register(contracts.LIST_SHARDS, maintenance_run.list_shards)
register(contracts.GET_SHARD, maintenance_run.get_shard)
register(contracts.FINISH_PRE_PHASE, maintenance_run.finish_pre_phase)
register(contracts.CANCEL_OCCURRENCE, maintenance_run.cancel_occurrence)
register(contracts.IMPORT_RESULTS, maintenance_results.import_results)
register(contracts.FINISH_RESULTS_IMPORT, maintenance_run.finish_results_import)
register(contracts.SUMMARIZE_MAINTENANCE_RUN, maintenance_run.summarize_maintenance_run)
register(contracts.NEXT_PATCH_MODE_WAVE, patch_mode_change.next_patch_mode_wave)

# Per machine.
register(contracts.PREFLIGHT_MACHINE, machine.preflight_machine, batches=True)
register(contracts.START_MACHINE, power.start_machine, batches=True)
register(contracts.STOP_MACHINE, power.stop_machine, batches=True)
register(contracts.RESTART_MACHINE, power.restart_machine, batches=True)
register(contracts.TAKE_SNAPSHOT, snapshot.take_snapshot, batches=True)
register(contracts.RUN_SCRIPT, script.run_script, batches=True)
register(contracts.ASSESS_MACHINE, submit_operation.submit, batches=True)
register(contracts.INSTALL_PATCHES, submit_operation.submit, batches=True)
register(contracts.POLL_OPERATION, poll_operation.poll_operation, batches=True)
register(contracts.VERIFY_MACHINE, machine.verify_machine, batches=True)
register(contracts.CHECK_HEALTH, health.check_health, batches=True)
register(contracts.RELEASE_MACHINE, machine.release_machine, batches=True)
register(contracts.RECORD_OUTCOME, machine.record_outcome, batches=True)
register(contracts.RECORD_PRE_RESULT, maintenance_machine.record_pre_result, batches=True)
register(contracts.CHECK_MACHINE_POWER, maintenance_machine.check_machine_power, batches=True)
register(contracts.FINALIZE_MACHINE, maintenance_machine.finalize_machine, batches=True)
register(contracts.STEP_PATCH_MODE_CHANGE, patch_mode_change.step_patch_mode_change, batches=True)
