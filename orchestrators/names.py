"""Names that cross the durable boundary: functions, events and instances."""

from __future__ import annotations

PATCH_RUN = "patch_run"
PATCH_WAVE = "patch_wave"
PATCH_MACHINE = "patch_machine"
AWAIT_OPERATION = "await_operation"

OPEN_RUN = "open_run"
DISCOVER_MACHINES = "discover_machines"
CLOSE_OPEN_MACHINES = "close_open_machines"
CLOSE_RUN = "close_run"
NEXT_MACHINES = "next_machines"
STILL_OPEN_MACHINES = "still_open_machines"
PREFLIGHT_MACHINE = "preflight_machine"
START_MACHINE = "start_machine"
STOP_MACHINE = "stop_machine"
ASSESS_MACHINE = "assess_machine"
INSTALL_PATCHES = "install_patches"
POLL_OPERATION = "poll_operation"
VERIFY_MACHINE = "verify_machine"
RELEASE_MACHINE = "release_machine"
RECORD_OUTCOME = "record_outcome"

CANCEL_EVENT = "cancel"
"""Raised on a run, and passed on to its wave: no new starts."""
MACHINE_ENDED_EVENT = "machine_ended"
"""Raised by a machine on its wave; the data is the machine key.

An event, not the child's completion: completions do not reach a parent that has continued as new since.
"""


def wave_instance(run_id: str, step: str) -> str:
    """The instance id of a wave."""
    return f"{run_id}:{step}"


def machine_instance(run_id: str, step: str, machine_key: str) -> str:
    """The instance id of a machine in a step."""
    return f"{run_id}:{step}:{machine_key}"


def operation_instance(machine_instance_id: str, kind: str, attempt: int) -> str:
    """The instance id of one attempt at an operation."""
    return f"{machine_instance_id}:{kind}:{attempt}"
