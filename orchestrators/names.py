"""Names that cross the durable boundary: functions, events and instances."""

from __future__ import annotations

VERSION = "1"
"""The version of the orchestrations of every run that is started now; see `orchestrators.versions`."""

PATCH_RUN = "patch_run"
CLOSE_DEAD_RUN = "close_dead_run"
PATCH_PHASE = "patch_phase"
PATCH_MACHINE = "patch_machine"
AWAIT_OPERATION = "await_operation"
SEND_NOTIFICATIONS = "send_notifications"
ACCOMPANY_RUN = "accompany_run"
ATTEND_SHARD = "attend_shard"
ATTEND_MACHINE = "attend_machine"
CHANGE_MODES = "change_modes"
CHANGE_MODE_OF_MACHINE = "change_mode_of_machine"

OPEN_RUN = "open_run"
TAKE_STOCK = "take_stock"
REST_UNTIL = "rest_until"
DISCOVER_MACHINES = "discover_machines"
CLOSE_OPEN_MACHINES = "close_open_machines"
CLOSE_RUN = "close_run"
PLAN_RUN = "plan_run"
READ_CONTROLS = "read_controls"
SET_RUN_STATE = "set_run_state"
CLOSE_GATE = "close_gate"
STOP_RUN = "stop_run"
READ_CUTOFF = "read_cutoff"
NEXT_WINDOW = "next_window"
OPEN_WINDOW = "open_window"
TAKE_PLACES = "take_places"
GIVE_PLACES_BACK = "give_places_back"
LOOK_AT_PHASE = "look_at_phase"
NEXT_MACHINES = "next_machines"
STILL_OPEN_MACHINES = "still_open_machines"
PREFLIGHT_MACHINE = "preflight_machine"
START_MACHINE = "start_machine"
STOP_MACHINE = "stop_machine"
ASSESS_MACHINE = "assess_machine"
INSTALL_PATCHES = "install_patches"
POLL_OPERATION = "poll_operation"
VERIFY_MACHINE = "verify_machine"
RESTART_MACHINE = "restart_machine"
TAKE_SNAPSHOT = "take_snapshot"
RUN_SCRIPT = "run_script"
CHECK_HEALTH = "check_health"
RELEASE_MACHINE = "release_machine"
RECORD_OUTCOME = "record_outcome"
PIN_RING = "pin_ring"
LIST_CHANNELS = "list_channels"
SEND_NOTICE = "send_notice"
CLOSE_NOTICE = "close_notice"
OPEN_OCCURRENCE = "open_occurrence"
FIND_OCCURRENCE_MACHINES = "find_occurrence_machines"
LIST_SHARDS = "list_shards"
READ_SHARD = "read_shard"
NOTE_PREPARED = "note_prepared"
END_PREPARATION = "end_preparation"
CANCEL_OCCURRENCE = "cancel_occurrence"
COPY_RESULTS = "copy_results"
END_RESULTS = "end_results"
LOOK_AGAIN = "look_again"
CONCLUDE_MACHINE = "conclude_machine"
SUM_UP_OCCURRENCE = "sum_up_occurrence"
NEXT_MODE_CHANGES = "next_mode_changes"
CHANGE_MODE = "change_mode"

CANCEL_EVENT = "cancel"
"""Raised on a run, and passed on to its phase and from there to machines that wait: no new starts."""
POST_EVENT = "post"
"""Raised on a run that accompanies a scheduled one: its row says that the post event has come."""
STEER_EVENT = "steer"
"""Raised on a run, and passed on to its phase: somebody said something; the row tells what."""


def phase_name(step: str, place: str = "") -> str:
    """The name of a phase in a step, within its run; ``place`` tells phases and repeated passes apart."""
    return f"{step}:{place}" if place else step


def phase_instance(run_id: str, phase: str) -> str:
    """The instance id of a phase of a run."""
    return f"{run_id}:{phase}"


def machine_instance(run_id: str, step: str, machine_key: str, attempt: int = 1) -> str:
    """The instance id of a machine in a step; one that was put back and starts again gets a new instance.

    The attempt is written in base 36, so that every window that a run can take adds one character at most.
    """
    return f"{run_id}:{step}{_base_36(attempt) if attempt > 1 else ''}:{machine_key}"


def shard_instance(run_id: str, part: str, attempt: int, number: int) -> str:
    """The instance id of the machines of a shard in a part of the work around a scheduled run."""
    return f"{run_id}:{part}-shard{_base_36(attempt)}:{number}"


def machine_change_instance(change_id: str, wave: int, machine_key: str) -> str:
    """The instance id of a machine in a wave of a change of patch modes."""
    return f"{change_id}:{_base_36(wave + 1)}:{machine_key}"


def closing_instance(run_id: str) -> str:
    """The instance id of closing a run whose own orchestration has ended without that."""
    return f"{run_id}:close"


def notice_instance(run_id: str, event: str, number: int) -> str:
    """The instance id of telling people about an event of a run."""
    return f"{run_id}:notify:{event}:{number}"


def operation_instance(machine_instance_id: str, kind: str, attempt: int) -> str:
    """The instance id of one attempt at an operation; of its kind it has the first letter, as ids are short."""
    return f"{machine_instance_id}:{kind[0]}:{attempt}"


def _base_36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
