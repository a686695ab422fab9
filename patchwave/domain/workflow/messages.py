"""The messages between orchestrators and activities: small, plain JSON, ids and counters.

Each orchestrator and activity has one input and one output of these. Rows, patches and signed URLs stay in Table
storage; a message says where to look.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.azure.patch_results import InstallResult
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary
from patchwave.domain.machine.preflight import Preflight
from patchwave.domain.planning.placement_codec import PlacedMachine, PlacedMachines
from patchwave.domain.policy.gates import ErrorBudget
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Mode, RunControls, RunState, Step


class MachineOptions(Document):
    """What the policy asks for on each machine, so that no activity is called in vain."""

    mode: Mode
    start_stopped: bool = False
    hooks: bool = False
    health: bool = False
    reboot_apart: bool = False
    continues: bool = False
    """Machines that the window leaves over are patched in the next one."""


# --- the run ------------------------------------------------------------------------------------------------


class RunRef(Document):
    """Which run."""

    run_id: str


class RunInput(Document):
    """Input of a run's orchestration. Each ``generation`` but the first goes on from the records of the one before."""

    run_id: str
    generation: int = 1


class HeartbeatRequest(Document):
    """The run sleeps until then, and needs no heartbeat before."""

    run_id: str
    until: UtcDatetime


class InProgressMachines(Document):
    """Machines of one phase that were in progress when the run lost its orchestration."""

    step: Step
    ring_number: int
    phase_number: int
    machines: PlacedMachines


class Checkpoint(Document):
    """What a generation finds of the one before it.

    ``ring``: the furthest ring in which machines were begun; the rings before it are complete. ``ended``: how many of
    its machines have ended, for the ramp; ``ended_at``: when the newest of them did, for its bake time. ``failures``
    and ``forgiven``: by scope, as error budgets count them, with ``resume_count`` resumes. ``lane_rest_until``: lanes
    between two waves. ``windows``: how many the run has had.
    """

    is_planned: bool
    resume_count: int = 0
    in_progress: list[InProgressMachines] = Field(default_factory=list[InProgressMachines])
    ring: int = 0
    ended: int = 0
    ended_at: UtcDatetime | None = None
    failures: dict[str, int] = Field(default_factory=dict[str, int])
    forgiven: dict[str, int] = Field(default_factory=dict[str, int])
    lane_rest_until: dict[str, UtcDatetime] = Field(default_factory=dict[str, UtcDatetime])
    windows: int = 0


class RunSettings(Document):
    """What the orchestrator of a run needs of its policy. ``is_final``: the run has ended already."""

    options: MachineOptions
    assess_concurrency: int = 1
    error_budget: ErrorBudget = ErrorBudget()
    ramp: bool = False
    wave_bake_seconds: float | None = None
    pin_rings: bool = False
    announces: bool = False
    """The policy has notification channels."""
    is_final: bool = False


class DiscoveryRequest(Document):
    """One page of the discovery; ``attempt`` counts failures of this page in a row."""

    run_id: str
    cursor: str = ""
    attempt: int = 0


class DiscoveryPage(Document):
    """The result of one page. ``machines`` is the size of the fleet so far; ``failure`` says why there was no page.

    ``wait_seconds`` asks for a pause before the next page; a failure without it is final. ``counts_as_attempt`` is
    false for throttling.
    """

    machines: int = 0
    cursor: str = ""
    wait_seconds: float = 0
    failure: str = ""
    counts_as_attempt: bool = True
    selectors: str = ""


class CloseRun(Document):
    """How a run ends."""

    run_id: str
    state: RunState
    reason: str = ""


class RunResult(Document):
    """How the orchestration of a run has ended."""

    run_id: str
    state: RunState


class CloseOpenMachines(Document):
    """Give every machine that has no outcome yet this one; pages until none is left."""

    run_id: str
    outcome: Outcome


class ClosedMachines(Document):
    """How many machines got that outcome."""

    closed: int


class PhaseSummary(Document):
    """The machines of a phase by lane."""

    lanes: dict[str, int]


class RingSummary(Document):
    """A ring, as far as the orchestrator needs it."""

    name: str
    machines: int
    phases: list[PhaseSummary]
    approval_seconds: float | None = None
    bake_seconds: float = 0


class PlanSummary(Document):
    """The plan of a run in short; the whole plan is in Table storage."""

    machines: int = 0
    rings: list[RingSummary] = Field(default_factory=list[RingSummary])


class RingRef(Document):
    """Which ring of which run."""

    run_id: str
    ring: str


class SetRunState(Document):
    """Show the state of the run, and what it waits for."""

    run_id: str
    state: RunState
    waiting_for: str = ""


class RunStateShown(Document):
    """The result of `SetRunState`. ``since``: when the run first asked for that approval, in any generation."""

    since: UtcDatetime | None = None


class NextWindow(Document):
    """When the run goes on; without ``opens_at`` its policy has no further window."""

    opens_at: UtcDatetime | None = None
    ends_at: UtcDatetime | None = None


class StepRef(Document):
    """Which step of which run."""

    run_id: str
    step: Step


class Cutoff(Document):
    """The last moment at which a step may begin on a machine; without one there is no window."""

    at: UtcDatetime | None = None


class StopRun(Document):
    """A gate ends the run; not when that ring was approved in the same moment."""

    run_id: str
    reason: str
    unless_approved: str = ""


class TakePlaces(Document):
    """Reserve what the machines of a phase have to be kept apart in; ``turn`` counts the reservations of the run."""

    run_id: str
    ring_number: int
    phase_number: int
    turn: int


class PlacesTaken(Document):
    """Whether it is the phase's turn: ``waits_for`` is empty, or says in words which run it waits for.

    ``freed``: the runs that may have waited for the phase before this one.
    """

    waits_for: str = ""
    wait_seconds: float = 0
    freed: list[str] = Field(default_factory=list[str])


class GivePlacesBack(Document):
    """Give back what the run has reserved up to that turn."""

    run_id: str
    turn: int


class PlacesGivenBack(Document):
    """The runs that may have waited for what was given back."""

    waiting: list[str] = Field(default_factory=list[str])


class OpenWindow(Document):
    """The window that a run goes on in."""

    run_id: str
    ends_at: UtcDatetime


# --- a phase ------------------------------------------------------------------------------------------------


class Phase(Document):
    """A sliding window over the machines of one phase; also the state that it carries into its next generation."""

    run_id: str
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
    first_attempt: int = 1
    """First attempt number of this pass; higher than 1 when an earlier pass already started some machines."""
    last_attempt: int = 1
    """The highest attempt that any machine is at."""
    has_skipped_machines: bool = False
    """A machine was requeued too often, and is left to a later pass."""
    cursor: str | None = None
    has_all_pages: bool = False
    resume_count: int = 0
    lane_rest_until: dict[str, UtcDatetime] = Field(default_factory=dict[str, UtcDatetime])
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
    """Machines that run without a lock, and since when."""
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


class PendingMachinesRequest(Document):
    """The next machines of a phase, or of the whole run in the assess step."""

    run_id: str
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


class MachineEnded(Document):
    """A machine has ended its step. ``requeued``: it was not touched, and waits again.

    ``attempt``: the start that has ended; the end of an earlier start says nothing about a later one.
    """

    key: str
    attempt: int = 1
    failed: bool = False
    requeued: bool = False


class PhasePollRequest(Document):
    """Poll a phase of a run for completions ``since`` the cursor of the last poll."""

    run_id: str
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


class ReconcileRequest(Document):
    """Which of these machines still work in this step?"""

    run_id: str
    step: Step
    keys: list[str]


class ReconciledMachines(Document):
    """Those that have not ended, and of the others those whose end uses the error budgets.

    ``unlocked``: of those that have not ended, the machines that the run has no lock on.
    """

    keys: list[str]
    failed: list[str] = Field(default_factory=list[str])
    unlocked: list[str] = Field(default_factory=list[str])


# --- a machine ----------------------------------------------------------------------------------------------


class MachineWork(Document):
    """One machine in one step of a run; ``phase`` is the name of the phase that waits for its end."""

    run_id: str
    machine_key: str
    step: Step
    options: MachineOptions
    phase: str
    attempt: int = 1


class PreflightRequest(Document):
    """Look at the machine, and lock it for the run."""

    run_id: str
    machine_key: str
    start_stopped: bool


class PreflightResult(Document):
    """The state of the machine before a step.

    Args:
        preflight: whether the step may begin.
        wait_seconds: time until the next check.
        powered_on_by_run: this run started the machine and has not stopped it again; only while the run has the lease,
            so that a machine which another run works on is never stopped.
        assess_activity_id: the newest assessment that the machine knew before ours.
        install_activity_id: the newest installation that the machine knew before ours.
        assessment: the result of an earlier step of this run.
        installation: the result of an earlier step of this run.
        is_in_progress: an orchestration that is gone began the installation or restart; it is followed to its end.
        counts_as_attempt: false for throttling.
        assess_attempt: the number of the next assessment, should one be needed.
        requeued: throttled until the window was over; the machine waits for another window.
    """

    preflight: Preflight
    wait_seconds: float = 0
    powered_on_by_run: bool = False
    assess_activity_id: str = ""
    install_activity_id: str = ""
    assessment: AssessmentSummary | None = None
    installation: InstallationSummary | None = None
    is_in_progress: bool = False
    counts_as_attempt: bool = True
    assess_attempt: int = 1
    requeued: bool = False


class StartOperation(Document):
    """Start one operation, at most once per ``attempt``. ``reserved_at``: its rate-limit reservation.

    ``is_last``: no further POST is sent; only the result of the last one is found out.
    """

    run_id: str
    machine_key: str
    kind: OperationKind
    attempt: int = 1
    previous_activity_id: str = ""
    reserved_at: UtcDatetime | None = None
    is_last: bool = False


class StartState(StrEnum):
    """What became of the start."""

    ACCEPTED = "accepted"
    WAIT = "wait"
    """Not accepted, or not known: ask again after ``wait_seconds``."""
    REQUEUED = "requeued"
    """Nothing was sent, and nothing may be for now: the machine waits again."""
    ENDED = "ended"
    """There will be no operation; ``outcome`` says why."""


class OperationRef(Document):
    """Which operation. Its URLs are in its intent row."""

    run_id: str
    machine_key: str
    kind: OperationKind


class AwaitOperation(Document):
    """Follow an operation to its end; first poll after ``wait_seconds``. ``polls``: those of earlier generations."""

    run_id: str
    machine_key: str
    kind: OperationKind
    polls: int = 0
    wait_seconds: float = 0


class OperationState(StrEnum):
    """Where an operation stands."""

    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"
    LOST = "lost"
    DEADLINE = "deadline"
    CANCELED = "canceled"
    """The run was stopped while it ran; the guest goes on."""


class OperationReport(Document):
    """The result of one poll.

    ``ended`` brings ``assessment``, or ``installation`` (the inner result without its list of patches, which is in
    Table storage); ``failed`` and ``lost`` bring ``failure``.
    """

    state: OperationState
    wait_seconds: float = 0
    assessment: AssessmentSummary | None = None
    outcome: Outcome | None = None
    installation: InstallResult | None = None
    adopted: bool = False
    failure: ArmFailure | None = None


class StartResult(Document):
    """What became of the start.

    Args:
        state: whether Azure accepted the operation.
        wait_seconds: time until the next try, or until the first poll.
        counts_as_attempt: false for throttling and reservations.
        reserved_at: nothing failed; the request may be sent at this time.
        report: Azure answered with the result itself, so that there is nothing to follow.
        outcome: of a wait, how the machine ends when no try is left; without it, Azure may have accepted the call.
        may_run: something may run in the guest although there is an outcome.
    """

    state: StartState
    wait_seconds: float = 0
    counts_as_attempt: bool = True
    reserved_at: UtcDatetime | None = None
    report: OperationReport | None = None
    outcome: Outcome | None = None
    may_run: bool = False


class VerifyRequest(Document):
    """Read the patch status of the machine again after an installation that began at ``installed_at``."""

    run_id: str
    machine_key: str
    installed_at: UtcDatetime | None = None


class Verified(Document):
    """``reboot_pending`` is ``None`` until the machine reports something newer than the installation.

    ``counts_as_attempt`` is false for throttling.
    """

    is_ready: bool
    reboot_pending: bool | None = None
    wait_seconds: float = 0
    counts_as_attempt: bool = True


class MachineRef(Document):
    """Which machine of which run."""

    run_id: str
    machine_key: str


class PowerRequest(MachineRef):
    """Start or stop the machine. ``since``: when this change began, which tells its calls from those of an earlier."""

    since: UtcDatetime


class PowerResult(Document):
    """How a change of power stands: a start that Azure took, a stop or restart that was carried out; else ``failure``.

    Args:
        accepted: it is done.
        requeued: nothing was sent, since a command, an error budget or the window forbids it now.
        counts_as_attempt: false for throttling, and for waits with a deadline of their own.
        wait_seconds: call again after this time, when it is over 0 and the change was not accepted.
        failure: why it was not accepted.
        is_open: Azure may still carry out a call.
    """

    accepted: bool
    requeued: bool = False
    counts_as_attempt: bool = True
    wait_seconds: float = 0
    failure: ArmFailure | None = None
    is_open: bool = False


class ReleaseMachine(Document):
    """The machine stays in the run, returns its lease, and completes its step of the phase.

    ``installation``: what was done, before its restart. ``requeued``: nothing was done, and the machine waits again.
    ``keep_lock``: Azure may still carry out a call on it, so that the lease expires instead.
    """

    run_id: str
    machine_key: str
    stage: Stage
    phase: str
    attempt: int = 1
    installation: InstallationSummary | None = None
    requeued: bool = False
    keep_lock: bool = False


class Recorded(Document):
    """Whether the stored end of a machine uses the error budgets."""

    failed: bool


class RecordOutcome(Document):
    """The final row of a machine, and its completion. ``keep_lock``: something may still run in the guest."""

    run_id: str
    machine_key: str
    outcome: Outcome
    phase: str
    attempt: int = 1
    installation: InstallationSummary | None = None
    keep_lock: bool = False
