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
"""The version of the orchestrations of every run that is started now; see `orchestrators.versions`."""


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
    POST = "post"
    """To a run that accompanies a scheduled one: its row says that the post event has come."""
    STEER = "steer"
    """To a run, which passes it on to its phase: somebody said something; the row tells what."""


# --- orchestrations -----------------------------------------------------------------------------------------

PATCH_RUN = Orchestration("patch_run", messages.FollowRun, messages.RunResult)
CLOSE_DEAD_RUN = Orchestration("close_dead_run", messages.RunRef, messages.RunResult)
PATCH_PHASE = Orchestration("patch_phase", messages.Phase, messages.PhaseEnd)
PATCH_MACHINE = Orchestration("patch_machine", messages.MachineWork, messages.MachineEnded)
AWAIT_OPERATION = Orchestration("await_operation", messages.AwaitOperation, messages.OperationReport)
SEND_NOTIFICATIONS = Orchestration("send_notifications", Notice, NoticeReport)
ACCOMPANY_RUN = Orchestration("accompany_run", messages.FollowRun, messages.RunResult)
ATTEND_SHARD = Orchestration("attend_shard", maintenance.AttendShard, NoneType)
ATTEND_MACHINE = Orchestration("attend_machine", maintenance.AttendMachine, NoneType)
CHANGE_MODES = Orchestration("change_modes", ChangeRef, NoneType)
CHANGE_MODE_OF_MACHINE = Orchestration("change_mode_of_machine", MachineChangeRef, NoneType)

# --- activities of a run ------------------------------------------------------------------------------------

OPEN_RUN = Activity("open_run", messages.RunRef, messages.OpenedRun)
TAKE_STOCK = Activity("take_stock", messages.RunRef, messages.Stock)
REST_UNTIL = Activity("rest_until", messages.RestUntil, NoneType)
DISCOVER_MACHINES = Activity("discover_machines", messages.DiscoverRequest, messages.Discovered)
PLAN_RUN = Activity("plan_run", messages.RunRef, messages.PlannedRun)
PIN_RING = Activity("pin_ring", messages.RingRef, PinSize)
READ_CONTROLS = Activity("read_controls", messages.RunRef, RunControls)
SET_RUN_STATE = Activity("set_run_state", messages.SetRunState, messages.Shown)
STOP_RUN = Activity("stop_run", messages.StopRun, RunControls)
READ_CUTOFF = Activity("read_cutoff", messages.StepRef, messages.Cutoff)
NEXT_WINDOW = Activity("next_window", messages.RunRef, messages.NextWindow)
OPEN_WINDOW = Activity("open_window", messages.OpenWindow, NoneType)
TAKE_PLACES = Activity("take_places", messages.TakePlaces, messages.PlacesTaken)
GIVE_PLACES_BACK = Activity("give_places_back", messages.GivePlacesBack, messages.PlacesGivenBack)
CLOSE_OPEN_MACHINES = Activity("close_open_machines", messages.CloseOpenMachines, messages.ClosedMachines)
CLOSE_RUN = Activity("close_run", messages.CloseRun, dict[str, int])
LIST_CHANNELS = Activity("list_channels", Notice, NoticeChannels)
SEND_NOTICE = Activity("send_notice", SendNotice, SendResult)
CLOSE_NOTICE = Activity("close_notice", NoticeReport, NoneType)

# --- activities of a phase ----------------------------------------------------------------------------------

LOOK_AT_PHASE = Activity("look_at_phase", messages.PhaseRef, messages.PhaseLook)
NEXT_MACHINES = Activity("next_machines", messages.MachinePageRequest, messages.MachinePage)
STILL_OPEN_MACHINES = Activity("still_open_machines", messages.StillOpenRequest, messages.StillOpen)
CLOSE_GATE = Activity("close_gate", ErrorBudgetExceeded, RunControls)

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

OPEN_OCCURRENCE = Activity("open_occurrence", messages.RunRef, maintenance.Standpoint)
FIND_OCCURRENCE_MACHINES = Activity("find_occurrence_machines", maintenance.FindMachines, maintenance.Found)
LIST_SHARDS = Activity("list_shards", maintenance.PartOfRun, maintenance.Shards)
READ_SHARD = Activity("read_shard", maintenance.ShardRef, maintenance.ShardMachines)
NOTE_PREPARED = Activity("note_prepared", maintenance.Prepared, NoneType)
END_PREPARATION = Activity("end_preparation", maintenance.EndPreparation, maintenance.Preparation)
CANCEL_OCCURRENCE = Activity("cancel_occurrence", messages.RunRef, maintenance.CancelResult)
COPY_RESULTS = Activity("copy_results", maintenance.FindMachines, maintenance.Copied)
END_RESULTS = Activity("end_results", messages.RunRef, NoneType)
LOOK_AGAIN = Activity("look_again", messages.MachineRef, maintenance.LookAgain)
CONCLUDE_MACHINE = Activity("conclude_machine", maintenance.Concluding, NoneType)
SUM_UP_OCCURRENCE = Activity("sum_up_occurrence", messages.RunRef, maintenance.MaintenanceSummary)

# --- activities of a change of patch modes ------------------------------------------------------------------

NEXT_MODE_CHANGES = Activity("next_mode_changes", ChangeRef, NextChanges)
CHANGE_MODE = Activity("change_mode", MachineChangeRef, ChangeProgress)
