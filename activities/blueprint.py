"""Registers the activities with the Functions host; what they do is in the other modules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import cast

import azure.durable_functions as df

from activities.accompany import (
    cancel_occurrence,
    end_preparation,
    end_results,
    find_occurrence_machines,
    list_shards,
    open_occurrence,
    read_shard,
    sum_up_occurrence,
)
from activities.attend import conclude_machine, look_again, note_prepared
from activities.discovery import discover_machines
from activities.health import check_health
from activities.hooks import run_script, take_snapshot
from activities.machine import preflight_machine, record_outcome, release_machine, verify_machine
from activities.mode_change import change_mode, next_mode_changes
from activities.notify import close_notice, list_channels, send_notice
from activities.pinning import pin_ring
from activities.plan import plan_run
from activities.poll import poll_operation
from activities.power import restart_machine, start_machine, stop_machine
from activities.recovery import rest_until, take_stock
from activities.reservations import give_places_back, take_places
from activities.results import copy_results
from activities.run import close_open_machines, close_run, open_run
from activities.steering import close_gate, read_controls, set_run_state, stop_run
from activities.submit import assess_machine, install_patches
from activities.turns import look_at_phase, next_machines, still_open_machines
from activities.windows import next_window, open_window, read_cutoff
from patchwave.domain.core.documents import Json
from patchwave.storage import batching

bp = df.Blueprint()


def _as_function(activity: Callable[[Json], Awaitable[Json]]) -> Callable[[object], Awaitable[object]]:
    """The same activity with annotations that the Functions worker takes: it refuses generic ones."""

    async def run(data: object) -> object:
        return await activity(cast("Json", data))

    run.__name__ = activity.__name__
    run.__doc__ = activity.__doc__
    return run


def with_batching(step: Callable[[Json], Awaitable[Json]]) -> Callable[[Json], Awaitable[Json]]:
    """The same step of a machine, which waits for those of other machines to share what it asks of the records."""

    @wraps(step)
    async def run(data: Json) -> Json:
        with batching():
            return await step(data)

    return run


OF_RUNS = (
    open_run,
    take_stock,
    rest_until,
    discover_machines,
    look_at_phase,
    next_machines,
    still_open_machines,
    plan_run,
    pin_ring,
    read_controls,
    set_run_state,
    close_gate,
    stop_run,
    read_cutoff,
    next_window,
    open_window,
    take_places,
    give_places_back,
    list_channels,
    send_notice,
    close_notice,
    close_open_machines,
    close_run,
    open_occurrence,
    find_occurrence_machines,
    list_shards,
    read_shard,
    end_preparation,
    cancel_occurrence,
    copy_results,
    end_results,
    sum_up_occurrence,
    next_mode_changes,
)
"""What is done once for a run, or once for many machines: it waits for nobody."""
OF_MACHINES = (
    preflight_machine,
    start_machine,
    stop_machine,
    restart_machine,
    take_snapshot,
    run_script,
    assess_machine,
    install_patches,
    poll_operation,
    verify_machine,
    check_health,
    release_machine,
    record_outcome,
    note_prepared,
    look_again,
    conclude_machine,
    change_mode,
)
"""What is done for each machine: hundreds at a time."""

for activity in (*OF_RUNS, *map(with_batching, OF_MACHINES)):
    bp.activity_trigger(input_name="data")(_as_function(activity))
