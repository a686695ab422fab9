"""The durable functions of the app, each with the document that it takes and the one that it returns.

Orchestrators call by these, activities and orchestrators are registered by them, and both sides marshal here: what
crosses the durable boundary, and stays in the history, is plain JSON.
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
from patchwave.domain.workflow import maintenance_run as maintenance
from patchwave.domain.workflow import messages

VERSION = "1"
"""The version of the orchestrations of every run that is started now; see `orchestrators.versioning`."""


class Contract[Request, Result]:
    """A durable function: its name, and the types that it takes and returns. ``NoneType``: it returns nothing."""

    def __init__(self, name: str, request: type[Request], result: type[Result]) -> None:
        self.name = name
        self._request = TypeAdapter[Request](request)
        self._result = TypeAdapter[Result](result)
        self._returns_nothing = result is NoneType

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def encode_request(self, request: Request) -> Any:
        """The request as plain JSON."""
        return self._request.dump_python(request, mode="json", by_alias=True)

    def decode_request(self, data: object) -> Request:
        """The request that such JSON holds.

        Raises:
            pydantic.ValidationError: the data is not such a request.
        """
        return self._request.validate_python(data)

    def encode_result(self, result: Result) -> Any:
        """The result as plain JSON."""
        return self._result.dump_python(result, mode="json", by_alias=True)

    def decode_result(self, data: object) -> Result:
        """The result that such JSON holds.

        Raises:
            pydantic.ValidationError: the data is not such a result.
        """
        return self._result.validate_python(None if self._returns_nothing else data)


class Activity[Request, Result](Contract[Request, Result]):
    """One side effect."""


class Orchestration[Request, Result](Contract[Request, Result]):
    """A workflow of its own. One that continues as new takes its own state as its request."""


class Signal(StrEnum):
    """The external events that orchestrations wait for. None carries data: the row says what happened."""

    CANCEL = "cancel"
    """To a run, which passes it on to its phase, and that to machines that wait: no new starts."""
    POST_MAINTENANCE = "post_maintenance"
    """To a run that accompanies a scheduled one: its row says that the post event has come."""
    CONTROL = "control"
    """To a run, which forwards it to its phase: a command has been written to the run's row."""


# --- orchestrations -----------------------------------------------------------------------------------------

PATCH_RUN = Orchestration("patch_run", messages.RunInput, messages.RunResult)
CLOSE_ORPHANED_RUN = Orchestration("close_orphaned_run", messages.RunRef, messages.RunResult)
PATCH_PHASE = Orchestration("patch_phase", messages.Phase, messages.PhaseEnd)
PATCH_MACHINE = Orchestration("patch_machine", messages.MachineWork, messages.MachineEnded)
AWAIT_OPERATION = Orchestration("await_operation", messages.AwaitOperation, messages.OperationReport)
SEND_NOTIFICATIONS = Orchestration("send_notifications", Notice, NoticeReport)
RUN_MAINTENANCE = Orchestration("run_maintenance", messages.RunInput, messages.RunResult)
MAINTAIN_SHARD = Orchestration("maintain_shard", maintenance.MaintainShard, NoneType)
MAINTAIN_MACHINE = Orchestration("maintain_machine", maintenance.MaintainMachine, NoneType)
CHANGE_PATCH_MODES = Orchestration("change_patch_modes", ChangeRef, NoneType)
CHANGE_MACHINE_PATCH_MODE = Orchestration("change_machine_patch_mode", MachineChangeRef, NoneType)

# --- activities of a run ------------------------------------------------------------------------------------

BEGIN_RUN = Activity("begin_run", messages.RunRef, messages.RunSettings)
LOAD_CHECKPOINT = Activity("load_checkpoint", messages.RunRef, messages.Checkpoint)
EXTEND_HEARTBEAT = Activity("extend_heartbeat", messages.HeartbeatRequest, NoneType)
DISCOVER_MACHINES = Activity("discover_machines", messages.DiscoveryRequest, messages.DiscoveryPage)
PLAN_RUN = Activity("plan_run", messages.RunRef, messages.PlanSummary)
PIN_RING = Activity("pin_ring", messages.RingRef, PinSize)
GET_RUN_CONTROLS = Activity("get_run_controls", messages.RunRef, RunControls)
SET_RUN_STATE = Activity("set_run_state", messages.SetRunState, messages.RunStateShown)
STOP_RUN = Activity("stop_run", messages.StopRun, RunControls)
GET_START_CUTOFF = Activity("get_start_cutoff", messages.StepRef, messages.Cutoff)
FIND_NEXT_WINDOW = Activity("find_next_window", messages.RunRef, messages.NextWindow)
ENTER_WINDOW = Activity("enter_window", messages.OpenWindow, NoneType)
TAKE_PLACES = Activity("take_places", messages.TakePlaces, messages.PlacesTaken)
GIVE_PLACES_BACK = Activity("give_places_back", messages.GivePlacesBack, messages.PlacesGivenBack)
CLOSE_OPEN_MACHINES = Activity("close_open_machines", messages.CloseOpenMachines, messages.ClosedMachines)
CLOSE_RUN = Activity("close_run", messages.CloseRun, dict[str, int])
LIST_CHANNELS = Activity("list_channels", Notice, NoticeChannels)
SEND_NOTIFICATION = Activity("send_notification", SendNotice, SendResult)
RECORD_DELIVERY = Activity("record_delivery", NoticeReport, NoneType)

# --- activities of a phase ----------------------------------------------------------------------------------

POLL_PHASE = Activity("poll_phase", messages.PhasePollRequest, messages.PhasePoll)
LIST_PENDING_MACHINES = Activity("list_pending_machines", messages.PendingMachinesRequest, messages.PendingMachines)
RECONCILE_MACHINES = Activity("reconcile_machines", messages.ReconcileRequest, messages.ReconciledMachines)
TRIP_ERROR_BUDGET = Activity("trip_error_budget", ErrorBudgetExceeded, RunControls)

# --- activities of a machine --------------------------------------------------------------------------------

PREFLIGHT_MACHINE = Activity("preflight_machine", messages.PreflightRequest, messages.PreflightResult)
START_MACHINE = Activity("start_machine", messages.PowerRequest, messages.PowerResult)
STOP_MACHINE = Activity("stop_machine", messages.PowerRequest, messages.PowerResult)
RESTART_MACHINE = Activity("restart_machine", messages.MachineRef, messages.PowerResult)
ASSESS_MACHINE = Activity("assess_machine", messages.StartOperation, messages.StartResult)
INSTALL_PATCHES = Activity("install_patches", messages.StartOperation, messages.StartResult)
POLL_OPERATION = Activity("poll_operation", messages.OperationRef, messages.OperationReport)
VERIFY_MACHINE = Activity("verify_machine", messages.VerifyRequest, messages.Verified)
TAKE_SNAPSHOT = Activity("take_snapshot", messages.MachineRef, HookResult)
RUN_SCRIPT = Activity("run_script", ScriptRequest, HookResult)
CHECK_HEALTH = Activity("check_health", HealthRequest, HealthResult)
RELEASE_MACHINE = Activity("release_machine", messages.ReleaseMachine, NoneType)
RECORD_OUTCOME = Activity("record_outcome", messages.RecordOutcome, messages.Recorded)

# --- activities around a scheduled run of Update Manager ----------------------------------------------------

LOAD_MAINTENANCE_RUN = Activity("load_maintenance_run", messages.RunRef, maintenance.MaintenanceRunStatus)
FIND_OCCURRENCE_MACHINES = Activity(
    "find_occurrence_machines", maintenance.MaintenancePageRequest, maintenance.MachinesPage
)
LIST_SHARDS = Activity("list_shards", maintenance.MaintenancePhaseRef, maintenance.Shards)
GET_SHARD = Activity("get_shard", maintenance.ShardRef, maintenance.ShardMachines)
RECORD_PRE_RESULT = Activity("record_pre_result", maintenance.PreResult, NoneType)
FINISH_PRE_PHASE = Activity("finish_pre_phase", maintenance.PrePhaseEnd, maintenance.PreSummary)
CANCEL_OCCURRENCE = Activity("cancel_occurrence", messages.RunRef, maintenance.CancelResult)
IMPORT_RESULTS = Activity("import_results", maintenance.MaintenancePageRequest, maintenance.ResultsPage)
FINISH_RESULTS_IMPORT = Activity("finish_results_import", messages.RunRef, NoneType)
CHECK_MACHINE_POWER = Activity("check_machine_power", messages.MachineRef, maintenance.PowerCheck)
FINALIZE_MACHINE = Activity("finalize_machine", maintenance.FinalizeRequest, NoneType)
SUMMARIZE_MAINTENANCE_RUN = Activity("summarize_maintenance_run", messages.RunRef, maintenance.MaintenanceSummary)

# --- activities of a change of patch modes ------------------------------------------------------------------

NEXT_PATCH_MODE_WAVE = Activity("next_patch_mode_wave", ChangeRef, NextChanges)
STEP_PATCH_MODE_CHANGE = Activity("step_patch_mode_change", MachineChangeRef, ChangeProgress)
