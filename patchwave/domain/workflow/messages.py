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


class Traits(Document):
    """What the policy asks for on each machine; carried along, so that nothing is called that nobody wants."""

    mode: Mode
    start_stopped: bool = False
    hooks: bool = False
    health: bool = False
    reboot_apart: bool = False
    continues: bool = False
    """What the window leaves over goes on in the next one."""


# --- the run ------------------------------------------------------------------------------------------------


class RunRef(Document):
    """Which run."""

    run_id: str


class FollowRun(Document):
    """Follow a run. Every ``generation`` but the first goes on from what the records tell of the one before."""

    run_id: str
    generation: int = 1


class RestUntil(Document):
    """The run sleeps, and nothing need be heard of it before."""

    run_id: str
    until: UtcDatetime


class UnderWay(Document):
    """Machines of one phase that somebody worked on when a run lost its orchestration."""

    step: Step
    ring_number: int
    phase_number: int
    machines: PlacedMachines


class Stock(Document):
    """What a generation finds of the one before it.

    ``ring``: the furthest that machines were begun in; those before it are done with. ``ended``: how many of its
    machines have ended, for the ramp, and ``ended_at`` when the newest of them did, for its bake time. ``failures`` and
    ``forgiven``: by scope, as error budgets count them; ``resume_count``: those that are in there already. ``resting``:
    lanes between two waves, and until when. ``windows``: those that the run went on in.
    """

    is_planned: bool
    resume_count: int = 0
    under_way: list[UnderWay] = Field(default_factory=list[UnderWay])
    ring: int = 0
    ended: int = 0
    ended_at: UtcDatetime | None = None
    failures: dict[str, int] = Field(default_factory=dict[str, int])
    forgiven: dict[str, int] = Field(default_factory=dict[str, int])
    resting: dict[str, UtcDatetime] = Field(default_factory=dict[str, UtcDatetime])
    windows: int = 0


class OpenedRun(Document):
    """What the orchestrator of a run needs of its policy. ``is_final``: the run has ended already, do nothing."""

    traits: Traits
    assess_concurrency: int = 1
    error_budget: ErrorBudget = ErrorBudget()
    ramp: bool = False
    wave_bake_seconds: float | None = None
    pin_rings: bool = False
    announces: bool = False
    """Somebody wants to be told how the run goes."""
    is_final: bool = False


class DiscoverRequest(Document):
    """One page of the discovery; ``attempt`` counts the pages that could not be read in a row."""

    run_id: str
    cursor: str = ""
    attempt: int = 0


class Discovered(Document):
    """What one page brought. ``machines`` is the size of the fleet so far; ``failure`` says why there was no page.

    ``wait_seconds`` asks for a pause before the next page; a failure without it is final. ``counts``: whether a failure
    uses up patience: being throttled does not.
    """

    machines: int = 0
    cursor: str = ""
    wait_seconds: float = 0
    failure: str = ""
    counts: bool = True
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


class PlannedPhase(Document):
    """The machines of a phase by lane."""

    lanes: dict[str, int]


class PlannedRing(Document):
    """A ring, as far as the orchestrator needs it: where to go, whom to ask, how long to wait afterwards."""

    name: str
    machines: int
    phases: list[PlannedPhase]
    approval_seconds: float | None = None
    bake_seconds: float = 0


class PlannedRun(Document):
    """The plan of a run in short; all of it is in Table storage."""

    machines: int = 0
    rings: list[PlannedRing] = Field(default_factory=list[PlannedRing])


class RingRef(Document):
    """Which ring of which run."""

    run_id: str
    ring: str


class SetRunState(Document):
    """Show where the run stands. ``ring`` and ``machines`` tell whoever has to approve what it is about."""

    run_id: str
    state: RunState
    waiting_for: str = ""


class Shown(Document):
    """What became of `SetRunState`. ``since``: when the run first asked for that approval, in any generation."""

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
    """Under what its machines write down that they have ended; no other phase or pass of the run has it."""
    step: Step
    traits: Traits
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
    """What an instance of this pass begins with: the machines of an earlier one may have been started before."""
    last_attempt: int = 1
    """The highest attempt that any machine is at."""
    gave_up: bool = False
    """A machine was put back so often that it is left to a later pass."""
    cursor: str | None = None
    is_exhausted: bool = False
    resume_count: int = 0
    resting: dict[str, UtcDatetime] = Field(default_factory=dict[str, UtcDatetime])
    """Lanes between two waves, and until when."""
    waiting: PlacedMachines = Field(default_factory=list[PlacedMachine])
    running: PlacedMachines = Field(default_factory=list[PlacedMachine])
    takes_up: bool = False
    """Those that run have lost their orchestration: each of them gets a new one before anything else."""
    started: int = 0
    heard: str = ""
    """The endings that the phase knows of and whose rows are still there, as the look that told them wrote it."""
    quiet_beats: int = 0
    """Beats in a row in which nothing ended and nothing started."""
    compare_at: UtcDatetime | None = None
    """When the phase compares itself with the records again."""
    compared: int = 0
    """How many of those that run were compared last time: the next comparison goes on behind them."""
    unlocked: dict[str, UtcDatetime] = Field(default_factory=dict[str, UtcDatetime])
    """Machines that run without a lock, and since when."""
    untold: int | None = None
    """How many of those that run have not been told of the cancel of the run; ``None`` before there was one."""


class PhaseEnd(Document):
    """How a phase ended. ``left``: machines may be left that the window did not let start."""

    started: int = 0
    ended: int = 0
    failures: dict[str, int] = Field(default_factory=dict[str, int])
    forgiven: dict[str, int] = Field(default_factory=dict[str, int])
    resume_count: int = 0
    left: bool = False
    last_attempt: int = 1
    stop_reason: str = ""


class MachinePageRequest(Document):
    """The next machines of a phase, or of the whole run in the assess step."""

    run_id: str
    step: Step
    ring_number: int = 0
    phase_number: int = 0
    first_attempt: int = 1
    cursor: str | None = None
    limit: int


class MachinePage(Document):
    """Machines in the order of the plan; no ``cursor`` after the last page."""

    machines: PlacedMachines = Field(default_factory=list[PlacedMachine])
    cursor: str | None = None


class MachineEnded(Document):
    """A machine has ended its step. ``left``: it was not touched, and waits again.

    ``attempt``: how often it was started; the end of an earlier start says nothing about a later one.
    """

    key: str
    attempt: int = 1
    failed: bool = False
    left: bool = False


class PhaseRef(Document):
    """Which phase of which run, and what it has heard of already."""

    run_id: str
    phase: str
    heard: str = ""


class PhaseLook(Document):
    """What a phase has to know before it starts anybody: what people and gates say, and who has ended.

    An ending is returned until a look acknowledges it in ``heard``. ``wait_seconds`` is one poll interval.
    """

    controls: RunControls
    ended: list[MachineEnded] = Field(default_factory=list[MachineEnded])
    heard: str = ""
    wait_seconds: float


class StillOpenRequest(Document):
    """Which of these machines still work in this step?"""

    run_id: str
    step: Step
    keys: list[str]


class StillOpen(Document):
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
    traits: Traits
    phase: str
    attempt: int = 1


class PreflightRequest(Document):
    """Look at the machine, and lock it for the run."""

    run_id: str
    machine_key: str
    start_stopped: bool


class PreflightResult(Document):
    """The look at the machine. ``wait_seconds`` is how long to wait before looking again.

    The activity ids are the newest operations that the machine knew before anything of ours: whatever carries them
    is not ours. ``assessment`` and ``installation`` are what earlier steps of this run brought, if they did.
    ``powered_on_by_run``: an earlier attempt of this run started it and could not stop it again. Only set when this run
    holds the lease, so that a machine used by another run is never stopped. ``is_under_way``: its installation or
    restart was begun by an orchestration that is gone, and is followed, whatever speaks against starting one now.
    ``counts``: whether this was a look; being throttled is none. ``assess_attempt``: which one it is to be, should the
    machine have to be assessed. ``left``: it was throttled until the window was over, and waits
    for its turn in another one.
    """

    preflight: Preflight
    wait_seconds: float = 0
    powered_on_by_run: bool = False
    assess_activity_id: str = ""
    install_activity_id: str = ""
    assessment: AssessmentSummary | None = None
    installation: InstallationSummary | None = None
    is_under_way: bool = False
    counts: bool = True
    assess_attempt: int = 1
    left: bool = False


class StartOperation(Document):
    """Start one operation, at most once per ``attempt``. ``slot`` is the turn that it was given, if it was.

    ``is_last``: patience is out, so nothing more is sent; what became of the last POST is still found out.
    """

    run_id: str
    machine_key: str
    kind: OperationKind
    attempt: int = 1
    previous_activity_id: str = ""
    slot: UtcDatetime | None = None
    is_last: bool = False


class StartState(StrEnum):
    """What became of the start."""

    ACCEPTED = "accepted"
    WAIT = "wait"
    """Not accepted, or not known: ask again after ``wait_seconds``."""
    LEFT = "left"
    """Nothing was sent, and nothing may be for now: the machine waits for its turn again."""
    ENDED = "ended"
    """There will be no operation; ``outcome`` says why."""


class OperationRef(Document):
    """Which operation. Its URLs are in its intent row."""

    run_id: str
    machine_key: str
    kind: OperationKind


class AwaitOperation(Document):
    """Follow an operation to its end, the first look after ``wait_seconds``. ``polls`` counts earlier generations'."""

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
    """One look at an operation.

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
    """What became of the start. ``counts`` tells whether a wait uses up patience: being throttled does not.

    ``slot``: nothing is wrong, its turn comes then. ``wait_seconds`` of an accepted one: when to look at it first.
    ``report``: Azure answered with the result itself, so there is nothing to follow. ``outcome`` of a wait: how the
    machine ends when patience is out; without one it is not known whether Azure has accepted the call.
    ``may_run``: something may run in the guest although there is an outcome.
    """

    state: StartState
    wait_seconds: float = 0
    counts: bool = True
    slot: UtcDatetime | None = None
    report: OperationReport | None = None
    outcome: Outcome | None = None
    may_run: bool = False


class VerifyRequest(Document):
    """Read the patch status of the machine again after an installation that began at ``installed_at``."""

    run_id: str
    machine_key: str
    installed_at: UtcDatetime | None = None


class Verified(Document):
    """``reboot_pending`` is ``None`` while the machine has not said anything newer than the installation.

    ``counts``: whether this was a look; being throttled is none.
    """

    is_ready: bool
    reboot_pending: bool | None = None
    wait_seconds: float = 0
    counts: bool = True


class MachineRef(Document):
    """Which machine of which run."""

    run_id: str
    machine_key: str


class PowerRequest(MachineRef):
    """Start or stop the machine. ``since``: when this change began, which tells its calls from those of an earlier."""

    since: UtcDatetime


class PowerResult(Document):
    """How a change of power stands: a start that was taken, a stop or restart that was carried out; else ``failure``.

    Beside one that is not accepted, ``wait_seconds`` over 0 asks to call again then. ``left``: nothing was sent,
    because a person, a gate or the window forbids it now. ``is_open``: Azure may still carry out a call. ``counts``:
    whether a wait uses up patience; being throttled does not, nor one that has a deadline of its own.
    """

    accepted: bool
    left: bool = False
    counts: bool = True
    wait_seconds: float = 0
    failure: ArmFailure | None = None
    is_open: bool = False


class ReleaseMachine(Document):
    """The machine stays in the run, gives its lock back, and tells its phase.

    ``installation``: what was done, before its restart. ``left``: nothing was, and it waits for its turn again.
    ``keep_lock``: Azure may still carry out a call on it, so that the lock expires.
    """

    run_id: str
    machine_key: str
    stage: Stage
    phase: str
    attempt: int = 1
    installation: InstallationSummary | None = None
    left: bool = False
    keep_lock: bool = False


class Recorded(Document):
    """Whether the stored end of a machine uses the error budgets."""

    failed: bool


class RecordOutcome(Document):
    """The final row of a machine, of which its phase hears. ``keep_lock``: something may still run in the guest, so
    the lock expires."""

    run_id: str
    machine_key: str
    outcome: Outcome
    phase: str
    attempt: int = 1
    installation: InstallationSummary | None = None
    keep_lock: bool = False
