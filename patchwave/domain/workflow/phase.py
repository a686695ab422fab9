"""Messages of a phase: its state, its result, and what its activities take and return."""

from __future__ import annotations

from operator import not_

from pydantic import ConfigDict, Field

from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.planning.placement_codec import PlacedMachine, PlacedMachines
from patchwave.domain.policy.gates import ErrorBudget
from patchwave.domain.runs.run import RunControls, Step
from patchwave.domain.workflow.machine import MachineEnded
from patchwave.domain.workflow.run import MachineOptions, RunRef, StartHours


class Phase(RunRef):
    """A sliding window over the machines of one phase; also the state that it carries into its next execution."""

    model_config = ConfigDict(frozen=False)

    name: str = ""
    """The key of its machines' completions; unique among the phases and passes of the run."""
    step: Step
    options: MachineOptions
    ring: str = ""
    ring_number: int = 0
    phase_number: int = 0
    max_concurrent: int = 0
    """For the assess step, which has no plan."""
    lanes: dict[str, int] = Field(default_factory=dict[str, int])
    machines: int = 0
    """Machines of the run, for budgets in per cent; ``ring_machines`` those of the ring."""
    ring_machines: int = 0
    error_budget: ErrorBudget = ErrorBudget()
    announces: bool = False
    failures: dict[str, int] = Field(default_factory=dict[str, int])
    forgiven: dict[str, int] = Field(default_factory=dict[str, int])
    ramp: bool = False
    ended: int = 0
    wave_bake_seconds: float | None = None
    closes_at: UtcDatetime | None = None
    """The last moment at which anything may start."""
    windows: dict[str, StartHours] = Field(default_factory=dict[str, StartHours], exclude_if=not_)
    """By IANA zone, where machines read their own clocks; the last of these ends at ``closes_at``."""
    first_attempt: int = 1
    """First attempt number of this pass; higher than 1 when an earlier pass already started some machines."""
    last_attempt: int = 1
    """The highest attempt that any machine is at."""
    has_skipped_machines: bool = False
    """A machine was requeued too often, and is left to a later pass."""
    cursor: str | None = None
    has_all_pages: bool = False
    resume_count: int = 0
    lane_bake_until: dict[str, UtcDatetime] = Field(default_factory=dict[str, UtcDatetime])
    """Lanes between two waves, and until when."""
    waiting: PlacedMachines = Field(default_factory=list[PlacedMachine])
    running: PlacedMachines = Field(default_factory=list[PlacedMachine])
    resume_running: bool = False
    """The running machines have lost their orchestrations; start new ones before anything else."""
    started: int = 0
    since: str = ""
    """The completions that the phase has processed: the cursor of the last poll."""
    idle_ticks: int = 0
    """Ticks in a row in which no machine ended or started."""
    reconcile_at: UtcDatetime | None = None
    """When running machines are reconciled with their rows next."""
    reconcile_offset: int = 0
    """How many running machines are reconciled already in this round."""
    unlocked_since: dict[str, UtcDatetime] = Field(default_factory=dict[str, UtcDatetime])
    """Machines in progress without a lease, and since when."""
    cancels_pending: int | None = None
    """Running machines that have not been sent the cancel of the run; ``None`` before there is one."""


class PhaseEnd(Document):
    """How a phase ended. ``has_remaining``: the window may have closed before all machines were started."""

    started: int = 0
    ended: int = 0
    failures: dict[str, int] = Field(default_factory=dict[str, int])
    forgiven: dict[str, int] = Field(default_factory=dict[str, int])
    resume_count: int = 0
    has_remaining: bool = False
    last_attempt: int = 1
    stop_reason: str = ""


class PendingMachinesRequest(RunRef):
    """The next machines of a phase, or of the whole run in the assess step."""

    step: Step
    ring_number: int = 0
    phase_number: int = 0
    first_attempt: int = 1
    cursor: str | None = None
    limit: int


class PendingMachines(Document):
    """Machines in the order of the plan; no ``cursor`` after the last page."""

    machines: PlacedMachines = Field(default_factory=list[PlacedMachine])
    cursor: str | None = None


class PhasePollRequest(RunRef):
    """Poll a phase of a run for completions ``since`` the cursor of the last poll."""

    phase: str
    since: str = ""


class PhasePoll(Document):
    """What a phase has to know before it starts machines: the controls of the run, and new completions.

    A completion is returned until a poll acknowledges it in ``since``. ``wait_seconds`` is one poll interval.
    """

    controls: RunControls
    ended: list[MachineEnded] = Field(default_factory=list[MachineEnded])
    since: str = ""
    wait_seconds: float


class ReconcileRequest(RunRef):
    """Which of these machines still work in this step?"""

    step: Step
    keys: list[str]


class ReconciledMachines(Document):
    """Those that have not ended, and of the others those whose end uses the error budgets.

    ``unlocked``: of those that have not ended, the machines without a lease of the run.
    """

    keys: list[str]
    failed: list[str] = Field(default_factory=list[str])
    unlocked: list[str] = Field(default_factory=list[str])
