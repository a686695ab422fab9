"""Messages of a run's orchestration: what it and its activities take and return."""

from __future__ import annotations

from operator import not_

from pydantic import Field

from patchwave.domain.calendar.local_window import LocalWindow
from patchwave.domain.core.attempt import Attempt
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.planning.placement_codec import PlacedMachines
from patchwave.domain.policy.gates import ErrorBudget
from patchwave.domain.runs.run import Mode, RunState, Step


class RunRef(Document):
    """Which run."""

    run_id: str


class MachineOptions(Document):
    """What the policy asks for on each machine, so that no activity is called in vain."""

    mode: Mode
    start_stopped: bool = False
    hooks: bool = False
    health: bool = False
    reboot_apart: bool = False
    continues: bool = False
    """Machines that the window leaves over are patched in the next one."""
    is_local: bool = Field(default=False, exclude_if=not_)
    """Machines have windows by their own clocks: nothing begins before the first of these opens."""


class RunInput(RunRef):
    """Input of a run's orchestration. Each ``generation`` but the first goes on from the records of the one before."""

    generation: int = 1


class HeartbeatRequest(RunRef):
    """The run sleeps until then, and needs no heartbeat before."""

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
    and ``forgiven``: by scope, as error budgets count them, with ``resume_count`` resumes. ``lane_bake_until``: lanes
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
    lane_bake_until: dict[str, UtcDatetime] = Field(default_factory=dict[str, UtcDatetime])
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


class MachinesPageRequest(RunRef):
    """One page of the machines of a run, or of their results; ``attempt`` counts failures of this page in a row."""

    cursor: str = ""
    attempt: int = 0


class MachinesPage(Attempt):
    """The result of one page. ``machines``: those of the run so far; ``failure`` says why there was no page.

    ``wait_seconds`` asks for a pause before the next page; a failure without it is final.
    """

    machines: int = 0
    cursor: str = ""
    failure: str = ""


class DiscoveryPage(MachinesPage):
    """A page of the discovery; the last one says which ``selectors`` were used."""

    selectors: str = ""


class CloseRun(RunRef):
    """How a run ends."""

    state: RunState
    reason: str = ""


class RunResult(RunRef):
    """How the orchestration of a run has ended."""

    state: RunState


class CloseOpenMachines(RunRef):
    """Give every machine that has no outcome yet this one; pages until none is left."""

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
    time_zones: list[str] = Field(default_factory=list[str])
    """The IANA zones of its machines, where these read their own clocks."""


class RingRef(RunRef):
    """Which ring of which run."""

    ring: str


class SetRunState(RunRef):
    """Show the state of the run, and what it waits for."""

    state: RunState
    waiting_for: str = ""


class RunStateShown(Document):
    """The result of `SetRunState`. ``since``: when the run first asked for that approval, in any generation."""

    since: UtcDatetime | None = None


class NextWindow(Document):
    """When the run goes on; without ``opens_at`` its policy has no further window.

    ``local``: each machine has its own hours inside of it.
    """

    opens_at: UtcDatetime | None = None
    ends_at: UtcDatetime | None = None
    local: LocalWindow | None = None


class StepRef(RunRef):
    """Which step of which run."""

    step: Step


class StartHours(Document):
    """From when to when a step may begin on the machines of one time zone."""

    opens_at: UtcDatetime
    closes_at: UtcDatetime


class Cutoff(Document):
    """The last moment at which a step may begin on a machine; without one there is no window.

    ``windows``: by IANA zone, where machines read their own clocks.
    """

    at: UtcDatetime | None = None
    windows: dict[str, StartHours] = Field(default_factory=dict[str, StartHours])


class StopRun(RunRef):
    """A gate ends the run; not when that ring was approved in the same moment."""

    reason: str
    unless_approved: str = ""


class ReserveGroups(RunRef):
    """Reserve the concurrency groups of a phase; ``sequence`` counts the reservations of the run."""

    ring_number: int
    phase_number: int
    sequence: int


class GroupsReserved(Document):
    """``waits_for`` says in words which run holds the groups, and is empty when they are reserved.

    ``freed``: the runs that may have waited for the phase before this one.
    """

    waits_for: str = ""
    wait_seconds: float = 0
    freed: list[str] = Field(default_factory=list[str])


class ReleaseGroups(RunRef):
    """Release what the run has reserved up to that sequence number."""

    sequence: int


class GroupsReleased(Document):
    """The runs that may have waited for what was released."""

    waiting: list[str] = Field(default_factory=list[str])


class OpenWindow(RunRef):
    """The window that a run goes on in; ``local`` as of `NextWindow`."""

    ends_at: UtcDatetime
    local: LocalWindow | None = Field(default=None, exclude_if=not_)
