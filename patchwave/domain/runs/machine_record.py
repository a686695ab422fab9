"""The record of a machine in a run, with the health that was measured on it."""

from enum import StrEnum

from pydantic import Field

from patchwave.domain.core.command import Command
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary
from patchwave.domain.runs.window_results import Window, WindowResult


class Stage(StrEnum):
    """Where a machine stands inside a running run; ``done`` once it has its outcome."""

    WAITING = "waiting"
    ASSESSING = "assessing"
    ASSESSED = "ready"
    """Assessed, and waiting to be patched. The word is no outcome: ``assessed`` is one."""
    INSTALLING = "installing"
    VERIFYING = "verifying"
    INSTALLED = "installed"
    """Patched, and waiting for its own turn to restart (``rebootMode: separate``)."""
    RESTARTING = "restarting"
    DONE = "done"


class SignalState(StrEnum):
    """What one sign of a machine's health says."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"
    """Unknown: no response, or one that does not say."""
    ABSENT = "absent"
    """The machine has no such sign: no Application Health extension."""


class Signal(Document):
    """One sign of a machine's health, with the sentence behind it unless it is healthy."""

    state: SignalState
    detail: str = ""


class HealthSummary(Document):
    """How healthy a machine was at one moment; how it is judged is in `patchwave.domain.machine.health`.

    ``healthy`` is false when any sign is unhealthy, and ``None`` when none says anything.
    """

    healthy: bool | None = None
    signals: dict[str, Signal] = Field(default_factory=dict[str, Signal])
    reason: str = ""
    at: UtcDatetime


class MachineRecord(Document):
    """A machine's row in a run; it has an ``outcome`` exactly when its stage is ``done``."""

    id: str
    key: str
    name: str
    subscription_id: str
    resource_group: str
    location: str = ""
    os_type: str = ""
    zones: list[str] = Field(default_factory=list[str])
    tags: dict[str, str] = Field(default_factory=dict[str, str])
    power_state: str = ""
    availability_set: str = ""
    update_domain: str = ""
    """From the machine's own instance view, at the first preflight."""
    scale_set: str = ""
    """The ARM id of the Flexible scale set that it is a member of."""
    fault_domain: str = ""
    """Its fault domain in the scale set; as the update domain."""
    image: str = ""
    time_zone: str = ""
    """The IANA zone of its clock; empty when it is not known."""
    ring: str = ""
    phase: int = 0
    lane: str = ""
    wave: int = 0
    placement_reasons: list[str] = Field(default_factory=list[str])
    """Where the plan put the machine, and why; see `patchwave.domain.planning.plan.PlannedMachine`."""
    expected_seconds: float | None = None
    """How long its last installation took, with what was done after it; nothing when none is known."""
    stage: Stage = Stage.WAITING
    outcome: OutcomeKind | None = None
    reason: str = ""
    message: str = ""
    assessment: AssessmentSummary | None = None
    installation: InstallationSummary | None = None
    health_before: HealthSummary | None = None
    """Before the run touched it: what ``health_after`` is compared with."""
    health_after: HealthSummary | None = None
    powered_on_by_run: bool = False
    snapshot_id: str = ""
    skip_command: Command | None = None
    """The command of a person to leave the machine out: it ends as skipped when it would start."""
    rollback_instructions: str = ""
    """How to roll the machine back to before the run, for people: which snapshot, and the commands."""
    pre_script_output: str = ""
    post_script_output: str = ""
    """The end of what the policy's scripts printed, at most 2 KiB each."""
    pre_tasks_done: bool = False
    """The work before a scheduled run has ended on it, well or not."""
    powered_on: bool = False
    """It was off, and the run started it for the scheduled run."""
    pre_tasks_error: str = ""
    """What failed in that work."""
    update_manager_status: str = ""
    """Azure's status of Update Manager's scheduled run on the machine."""
    update_manager_error: str = ""
    """What it gives as the reason."""
    occurrence: UtcDatetime | None = None
    """The occurrence of the policy whose window the run belongs to; nothing for runs that were started by hand."""
    max_failed_windows: int = 0
    """In how many windows in a row its policy lets it fail, where the run belongs to one."""
    last_window: WindowResult | None = None
    """Its last window in which it failed or was not ready; nothing when it has been patched since."""
    queued_at: UtcDatetime | None = None
    started_at: UtcDatetime | None = None
    ended_at: UtcDatetime | None = None

    def window(self, run_id: str) -> Window | None:
        """The window that the run belongs to; ``None`` for a run by hand."""
        if self.occurrence is None:
            return None
        return Window(run_id, self.occurrence, self.max_failed_windows)
