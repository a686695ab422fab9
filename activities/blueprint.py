"""Registers the activities with the Functions host, each by its contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import azure.durable_functions as df

from activities import (
    accompany,
    attend,
    discovery,
    health,
    hooks,
    machine,
    mode_change,
    notify,
    pinning,
    plan,
    poll,
    power,
    recovery,
    reservations,
    results,
    run,
    steering,
    submit,
    turns,
    windows,
)
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.contracts import Activity
from patchwave.storage import batching

bp = df.Blueprint()

type Function = Callable[[object], Awaitable[object]]


def register[Request, Result](
    contract: Activity[Request, Result], function: Callable[[Request], Awaitable[Result]], *, batches: bool = False
) -> Function:
    """Register what does the work of a contract.

    Args:
        contract: the activity.
        function: its implementation.
        batches: it runs for hundreds of machines at a time, so that its requests of the storage wait for each other.
    """

    async def activity(data: object) -> object:
        request = contract.decode_request(data)
        if not batches:
            return contract.encode_result(await function(request))
        with batching():
            return contract.encode_result(await function(request))

    activity.__name__ = contract.name
    activity.__doc__ = function.__doc__
    bp.activity_trigger(input_name="data")(activity)
    return activity


# Once for a run, or once for many machines.
register(contracts.OPEN_RUN, run.open_run)
register(contracts.TAKE_STOCK, recovery.take_stock)
register(contracts.REST_UNTIL, recovery.rest_until)
register(contracts.DISCOVER_MACHINES, discovery.discover_machines)
register(contracts.PLAN_RUN, plan.plan_run)
register(contracts.PIN_RING, pinning.pin_ring)
register(contracts.READ_CONTROLS, steering.read_controls)
register(contracts.SET_RUN_STATE, steering.set_run_state)
register(contracts.STOP_RUN, steering.stop_run)
register(contracts.CLOSE_GATE, steering.close_gate)
register(contracts.READ_CUTOFF, windows.read_cutoff)
register(contracts.NEXT_WINDOW, windows.next_window)
register(contracts.OPEN_WINDOW, windows.open_window)
register(contracts.TAKE_PLACES, reservations.take_places)
register(contracts.GIVE_PLACES_BACK, reservations.give_places_back)
register(contracts.CLOSE_OPEN_MACHINES, run.close_open_machines)
register(contracts.CLOSE_RUN, run.close_run)
register(contracts.LIST_CHANNELS, notify.list_channels)
register(contracts.SEND_NOTICE, notify.send_notice)
register(contracts.CLOSE_NOTICE, notify.close_notice)
register(contracts.LOOK_AT_PHASE, turns.look_at_phase)
register(contracts.NEXT_MACHINES, turns.next_machines)
register(contracts.STILL_OPEN_MACHINES, turns.still_open_machines)
register(contracts.OPEN_OCCURRENCE, accompany.open_occurrence)
register(contracts.FIND_OCCURRENCE_MACHINES, accompany.find_occurrence_machines)
register(contracts.LIST_SHARDS, accompany.list_shards)
register(contracts.READ_SHARD, accompany.read_shard)
register(contracts.END_PREPARATION, accompany.end_preparation)
register(contracts.CANCEL_OCCURRENCE, accompany.cancel_occurrence)
register(contracts.COPY_RESULTS, results.copy_results)
register(contracts.END_RESULTS, accompany.end_results)
register(contracts.SUM_UP_OCCURRENCE, accompany.sum_up_occurrence)
register(contracts.NEXT_MODE_CHANGES, mode_change.next_mode_changes)

# For each machine.
register(contracts.PREFLIGHT_MACHINE, machine.preflight_machine, batches=True)
register(contracts.START_MACHINE, power.start_machine, batches=True)
register(contracts.STOP_MACHINE, power.stop_machine, batches=True)
register(contracts.RESTART_MACHINE, power.restart_machine, batches=True)
register(contracts.TAKE_SNAPSHOT, hooks.take_snapshot, batches=True)
register(contracts.RUN_SCRIPT, hooks.run_script, batches=True)
register(contracts.ASSESS_MACHINE, submit.assess_machine, batches=True)
register(contracts.INSTALL_PATCHES, submit.install_patches, batches=True)
register(contracts.POLL_OPERATION, poll.poll_operation, batches=True)
register(contracts.VERIFY_MACHINE, machine.verify_machine, batches=True)
register(contracts.CHECK_HEALTH, health.check_health, batches=True)
register(contracts.RELEASE_MACHINE, machine.release_machine, batches=True)
register(contracts.RECORD_OUTCOME, machine.record_outcome, batches=True)
register(contracts.NOTE_PREPARED, attend.note_prepared, batches=True)
register(contracts.LOOK_AGAIN, attend.look_again, batches=True)
register(contracts.CONCLUDE_MACHINE, attend.conclude_machine, batches=True)
register(contracts.CHANGE_MODE, mode_change.change_mode, batches=True)
