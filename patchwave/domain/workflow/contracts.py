"""The durable functions of the app, each with the document that it takes and the one that it returns.

Orchestrators call by these, activities and orchestrators are registered by them, and both sides marshal here: what
crosses the durable boundary, and stays in the history, is plain JSON: ids and counters. Rows, patches and signed URLs
stay in Table storage; a message says where to look.
"""

from __future__ import annotations

from enum import StrEnum
from types import NoneType
from typing import Any

from pydantic import TypeAdapter

from patchwave.domain.fleet.patch_mode_change import ChangeProgress, ChangeRef, MachineChangeRef, NextChanges
from patchwave.domain.machine.health import HealthRequest, HealthResult
from patchwave.domain.machine.hooks import HookResult, ScriptRequest
from patchwave.domain.machine.patch_pinning import PinSize
from patchwave.domain.notifications.events import Notice, NoticeChannels, NoticeReport, SendNotice, SendResult
from patchwave.domain.runs.error_budget import ErrorBudgetExceeded
from patchwave.domain.runs.run import RunControls
from patchwave.domain.workflow import machine, operation, phase, run
from patchwave.domain.workflow import maintenance_run as maintenance

VERSION = "1"
"""The version of the orchestrations of every run that is started now; see `orchestrators.versioning`."""


class Codec[Value]:
    """A type, and its values as plain JSON."""

    def __init__(self, kind: type[Value]) -> None:
        self._adapter = TypeAdapter[Value](kind)
        self._is_nothing = kind is NoneType

    def encode(self, value: Value) -> Any:
        """The value as plain JSON; of a subclass, the fields of the declared type."""
        return self._adapter.dump_python(value, mode="json", by_alias=True)

    def decode(self, data: object) -> Value:
        """The value that such JSON holds.

        Raises:
            pydantic.ValidationError: the data is not such a value.
        """
        return self._adapter.validate_python(None if self._is_nothing else data)


class Contract[Request, Result]:
    """A durable function: its name, and the types that it takes and returns. ``NoneType``: it returns nothing."""

    def __init__(self, name: str, request: type[Request], result: type[Result]) -> None:
        self.name = name
        self.request = Codec(request)
        self.result = Codec(result)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class Activity[Request, Result](Contract[Request, Result]):
    """One side effect."""


class Orchestration[Request, Result](Contract[Request, Result]):
    """A workflow of its own. One that continues as new takes its own state as its request."""


class Signal(StrEnum):
    """The external events that orchestrations wait for. None carries data: the row says what happened."""

    CANCEL = "cancel"
    """To a run, which passes it on to its phase, and that to machines that wait: no new starts."""
    POST_MAINTENANCE = "post_maintenance"
    """To a maintenance run: its row says that the post event has come."""
    CONTROL = "control"
    """To a run, which forwards it to its phase: a command has been written to the run's row."""


# --- orchestrations -----------------------------------------------------------------------------------------

PATCH_RUN = Orchestration("patch_run", run.RunInput, run.RunResult)
CLOSE_ORPHANED_RUN = Orchestration("close_orphaned_run", run.RunRef, run.RunResult)
PATCH_PHASE = Orchestration("patch_phase", phase.Phase, phase.PhaseEnd)
PATCH_MACHINE = Orchestration("patch_machine", machine.MachineWork, machine.MachineEnded)
AWAIT_OPERATION = Orchestration("await_operation", operation.AwaitOperation, operation.OperationReport)
SEND_NOTIFICATIONS = Orchestration("send_notifications", Notice, NoticeReport)
RUN_MAINTENANCE = Orchestration("run_maintenance", run.RunInput, run.RunResult)
MAINTAIN_SHARD = Orchestration("maintain_shard", maintenance.MaintainShard, NoneType)
MAINTAIN_MACHINE = Orchestration("maintain_machine", maintenance.MaintainMachine, NoneType)
CHANGE_PATCH_MODES = Orchestration("change_patch_modes", ChangeRef, NoneType)
CHANGE_MACHINE_PATCH_MODE = Orchestration("change_machine_patch_mode", MachineChangeRef, NoneType)

# --- activities of a run ------------------------------------------------------------------------------------

BEGIN_RUN = Activity("begin_run", run.RunRef, run.RunSettings)
LOAD_CHECKPOINT = Activity("load_checkpoint", run.RunRef, run.Checkpoint)
EXTEND_HEARTBEAT = Activity("extend_heartbeat", run.HeartbeatRequest, NoneType)
DISCOVER_MACHINES = Activity("discover_machines", run.MachinesPageRequest, run.DiscoveryPage)
PLAN_RUN = Activity("plan_run", run.RunRef, run.PlanSummary)
PIN_RING = Activity("pin_ring", run.RingRef, PinSize)
GET_RUN_CONTROLS = Activity("get_run_controls", run.RunRef, RunControls)
SET_RUN_STATE = Activity("set_run_state", run.SetRunState, run.RunStateShown)
STOP_RUN = Activity("stop_run", run.StopRun, RunControls)
GET_START_CUTOFF = Activity("get_start_cutoff", run.StepRef, run.Cutoff)
FIND_FIRST_OPENING = Activity("find_first_opening", run.RunRef, run.NextWindow)
FIND_NEXT_WINDOW = Activity("find_next_window", run.RunRef, run.NextWindow)
ENTER_WINDOW = Activity("enter_window", run.OpenWindow, NoneType)
RESERVE_GROUPS = Activity("reserve_groups", run.ReserveGroups, run.GroupsReserved)
RELEASE_GROUPS = Activity("release_groups", run.ReleaseGroups, run.GroupsReleased)
CLOSE_OPEN_MACHINES = Activity("close_open_machines", run.CloseOpenMachines, run.ClosedMachines)
CLOSE_RUN = Activity("close_run", run.CloseRun, dict[str, int])
LIST_CHANNELS = Activity("list_channels", Notice, NoticeChannels)
SEND_NOTIFICATION = Activity("send_notification", SendNotice, SendResult)
RECORD_DELIVERY = Activity("record_delivery", NoticeReport, NoneType)

# --- activities of a phase ----------------------------------------------------------------------------------

POLL_PHASE = Activity("poll_phase", phase.PhasePollRequest, phase.PhasePoll)
LIST_PENDING_MACHINES = Activity("list_pending_machines", phase.PendingMachinesRequest, phase.PendingMachines)
RECONCILE_MACHINES = Activity("reconcile_machines", phase.ReconcileRequest, phase.ReconciledMachines)
TRIP_ERROR_BUDGET = Activity("trip_error_budget", ErrorBudgetExceeded, RunControls)

# --- activities of a machine --------------------------------------------------------------------------------

PREFLIGHT_MACHINE = Activity("preflight_machine", machine.PreflightRequest, machine.PreflightResult)
START_MACHINE = Activity("start_machine", machine.PowerRequest, machine.PowerResult)
STOP_MACHINE = Activity("stop_machine", machine.PowerRequest, machine.PowerResult)
RESTART_MACHINE = Activity("restart_machine", machine.MachineRef, machine.PowerResult)
ASSESS_MACHINE = Activity("assess_machine", operation.StartOperation, operation.StartResult)
INSTALL_PATCHES = Activity("install_patches", operation.StartOperation, operation.StartResult)
POLL_OPERATION = Activity("poll_operation", operation.OperationRef, operation.OperationReport)
VERIFY_MACHINE = Activity("verify_machine", machine.VerifyRequest, machine.Verified)
TAKE_SNAPSHOT = Activity("take_snapshot", machine.MachineRef, HookResult)
RUN_SCRIPT = Activity("run_script", ScriptRequest, HookResult)
CHECK_HEALTH = Activity("check_health", HealthRequest, HealthResult)
RELEASE_MACHINE = Activity("release_machine", machine.ReleaseMachine, NoneType)
RECORD_OUTCOME = Activity("record_outcome", machine.RecordOutcome, machine.Recorded)

# --- activities around a scheduled run of Update Manager ----------------------------------------------------

LOAD_MAINTENANCE_RUN = Activity("load_maintenance_run", run.RunRef, maintenance.MaintenanceRunStatus)
FIND_OCCURRENCE_MACHINES = Activity("find_occurrence_machines", run.MachinesPageRequest, run.MachinesPage)
LIST_SHARDS = Activity("list_shards", maintenance.MaintenancePhaseRef, maintenance.Shards)
GET_SHARD = Activity("get_shard", maintenance.ShardRef, maintenance.ShardMachines)
RECORD_PRE_RESULT = Activity("record_pre_result", maintenance.PreResult, NoneType)
FINISH_PRE_PHASE = Activity("finish_pre_phase", maintenance.PrePhaseEnd, maintenance.PreSummary)
CANCEL_OCCURRENCE = Activity("cancel_occurrence", run.RunRef, maintenance.CancelResult)
IMPORT_RESULTS = Activity("import_results", run.MachinesPageRequest, maintenance.ResultsPage)
FINISH_RESULTS_IMPORT = Activity("finish_results_import", run.RunRef, NoneType)
CHECK_MACHINE_POWER = Activity("check_machine_power", machine.MachineRef, maintenance.PowerCheck)
FINALIZE_MACHINE = Activity("finalize_machine", maintenance.FinalizeRequest, NoneType)
SUMMARIZE_MAINTENANCE_RUN = Activity("summarize_maintenance_run", run.RunRef, maintenance.MaintenanceSummary)

# --- activities of a change of patch modes ------------------------------------------------------------------

NEXT_PATCH_MODE_WAVE = Activity("next_patch_mode_wave", ChangeRef, NextChanges)
STEP_PATCH_MODE_CHANGE = Activity("step_patch_mode_change", MachineChangeRef, ChangeProgress)
