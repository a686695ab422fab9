"""The messages between orchestrators and activities: small, plain JSON, ids and counters.

Each orchestrator and activity has one input and one output of these. Rows, patches and signed URLs stay in Table
storage; a message says where to look.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from domain.arm_error import ArmFailure
from domain.base import Document, Instant
from domain.outcome import Outcome
from domain.patch_results import InstallResult
from domain.preflight import Preflight
from domain.run import AssessmentSummary, InstallationSummary, Mode, OperationKind, RunState


class Step(StrEnum):
    """A pass over the machines of a run: all are assessed first, then those with pending patches are patched."""

    ASSESS = "assess"
    PATCH = "patch"


# --- the run ------------------------------------------------------------------------------------------------


class RunRef(Document):
    """Which run."""

    run_id: str


class OpenedRun(Document):
    """What the orchestrator of a run needs of its policy. ``is_final``: the run has ended already, do nothing."""

    mode: Mode
    max_concurrent: int
    assess_concurrency: int
    start_stopped: bool
    is_final: bool = False


class DiscoverRequest(Document):
    """One page of the discovery; ``attempt`` counts the pages that could not be read in a row."""

    run_id: str
    cursor: str = ""
    attempt: int = 0


class Discovered(Document):
    """What one page brought. ``machines`` is the size of the fleet so far; ``failure`` says why there was no page.

    ``wait_seconds`` asks for a pause before the next page; a failure without it is final.
    """

    machines: int = 0
    cursor: str = ""
    wait_seconds: float = 0
    failure: str = ""
    selectors: str = ""


class CloseRun(Document):
    """How a run ends."""

    run_id: str
    state: RunState
    reason: str = ""


class CloseOpenMachines(Document):
    """Give every machine that has no outcome yet this one; pages until none is left."""

    run_id: str
    outcome: Outcome


# --- a wave -------------------------------------------------------------------------------------------------


class Wave(Document):
    """A sliding window over the machines of a run; also the state that it carries into its next generation."""

    run_id: str
    step: Step
    mode: Mode
    max_concurrent: int
    start_stopped: bool
    cursor: str | None = None
    is_exhausted: bool = False
    is_canceled: bool = False
    waiting: list[str] = Field(default_factory=list[str])
    running: list[str] = Field(default_factory=list[str])
    started: int = 0


class MachinePageRequest(Document):
    """The next machines of a run that have no outcome yet."""

    run_id: str
    step: Step
    cursor: str | None = None
    limit: int


class MachinePage(Document):
    """Machine keys in key order; no ``cursor`` after the last page."""

    keys: list[str] = Field(default_factory=list[str])
    cursor: str | None = None


class StillOpenRequest(Document):
    """Which of these machines still work in this step?"""

    run_id: str
    step: Step
    keys: list[str]


class StillOpen(Document):
    """Those that have not ended."""

    keys: list[str]


# --- a machine ----------------------------------------------------------------------------------------------


class MachineWork(Document):
    """One machine in one step of a run; ``wave_id`` is the instance that waits for its end."""

    run_id: str
    machine_key: str
    step: Step
    mode: Mode
    start_stopped: bool
    wave_id: str


class PreflightRequest(Document):
    """Look at the machine, and lock it for the run."""

    run_id: str
    machine_key: str
    start_stopped: bool


class PreflightResult(Document):
    """The look at the machine. ``wait_seconds`` is how long to wait before looking again.

    The activity ids are the newest operations that the machine knew before anything of ours: whatever carries them
    is not ours. ``assessment`` is what this run's assessment step found, if it did.
    """

    preflight: Preflight
    wait_seconds: float = 0
    assess_activity_id: str = ""
    install_activity_id: str = ""
    assessment: AssessmentSummary | None = None


class StartOperation(Document):
    """Start one operation, at most once per ``attempt``."""

    run_id: str
    machine_key: str
    kind: OperationKind
    attempt: int = 1
    previous_activity_id: str = ""


class StartState(StrEnum):
    """What became of the start."""

    ACCEPTED = "accepted"
    WAIT = "wait"
    """Not accepted, or not known: ask again after ``wait_seconds``."""
    ENDED = "ended"
    """There will be no operation; ``outcome`` says why."""


class StartResult(Document):
    """What became of the start. ``counts`` tells whether a wait uses up patience: being throttled does not."""

    state: StartState
    wait_seconds: float = 0
    counts: bool = True
    outcome: Outcome | None = None


class OperationRef(Document):
    """Which operation. Its URLs are in its intent row."""

    run_id: str
    machine_key: str
    kind: OperationKind


class AwaitOperation(Document):
    """Follow an operation to its end. ``polls`` counts those of earlier generations."""

    run_id: str
    machine_key: str
    kind: OperationKind
    polls: int = 0


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


class VerifyRequest(Document):
    """Read the patch status of the machine again after an installation that began at ``installed_at``."""

    run_id: str
    machine_key: str
    installed_at: Instant | None = None


class Verified(Document):
    """``reboot_pending`` is ``None`` while the machine has not said anything newer than the installation."""

    is_ready: bool
    reboot_pending: bool | None = None
    wait_seconds: float = 0


class MachineRef(Document):
    """Which machine of which run."""

    run_id: str
    machine_key: str


class PowerResult(Document):
    """Whether the power call was taken; ``failure`` says why not."""

    accepted: bool
    wait_seconds: float = 0
    failure: ArmFailure | None = None


class RecordOutcome(Document):
    """The final row of a machine. ``keep_lock``: something may still run in the guest, so the lock expires."""

    run_id: str
    machine_key: str
    outcome: Outcome
    installation: InstallationSummary | None = None
    keep_lock: bool = False
