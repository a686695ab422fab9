"""The document of a run, and what its controls say."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from patchwave.domain.calendar.local_window import Hours, LocalWindow
from patchwave.domain.core.command import Command
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.principal import Signature, Signed
from patchwave.domain.maintenance.occurrence import MaintenanceOccurrence


class Mode(StrEnum):
    """What a run does to its machines."""

    ASSESS = "assess"
    PATCH = "patch"
    MAINTENANCE = "maintenance"
    """Azure patches them, in a scheduled run of Update Manager; the run does what is to be done before and after."""


type StartableMode = Literal[Mode.PATCH, Mode.ASSESS]
"""What can be requested; maintenance runs start because of events."""


class RunState(StrEnum):
    """Where a run stands. The last five are final."""

    QUEUED = "queued"
    RUNNING = "running"
    AWAITING_APPROVAL = "awaiting_approval"
    PAUSED = "paused"
    """A person paused it: nothing starts until it is resumed."""
    HELD = "held"
    """A gate holds it, or a part of it, until it is resumed or cancelled."""
    AWAITING_WINDOW = "awaiting_window"
    """It goes on in the next window of its policy, or when the window by the clocks of its next machines opens."""
    AWAITING_RUN = "awaiting_run"
    """Another run works on machines that have to be kept apart from those whose turn it is."""
    COMPLETED = "completed"
    CANCELED = "canceled"
    STOPPED = "stopped"
    """A gate ended it: an error budget, or an approval that was not given."""
    FAILED = "failed"
    EMPTY = "empty"

    @property
    def is_final(self) -> bool:
        return self in _FINAL_STATES


_FINAL_STATES = frozenset({RunState.COMPLETED, RunState.CANCELED, RunState.STOPPED, RunState.FAILED, RunState.EMPTY})


class TriggerKind(StrEnum):
    """Who may start a run."""

    HTTP = "http"
    TIMER = "timer"
    WEBHOOK = "webhook"
    EVENT_GRID = "eventGrid"


class PolicyOrigin(Document):
    """Who wrote the rules of a run, and which they are. Digests are SHA-256, in hexadecimal."""

    author: str = ""
    author_id: str = ""
    """Object id of the author; empty where none was signed in, or the policy was stored before authors were kept."""
    version: int = 0
    """Of the stored policy; 0 where the policy came with the request."""
    digest: str = ""
    """Of the policy as its author wrote it."""
    changed_digest: str = ""
    """Of the rules that the run follows, where overrides or a retry changed what its author wrote."""

    @property
    def followed_digest(self) -> str:
        return self.changed_digest or self.digest

    @property
    def is_inline(self) -> bool:
        return self.version == 0


class Trigger(Document):
    """Who or what started a run; kept for the audit log."""

    kind: TriggerKind
    actor: str = ""
    actor_id: str = ""
    """Object id of the signed-in principal; empty when none is, and for timers and events."""
    proven: bool = False
    """Whether the platform names who started it."""
    detail: str = ""
    retry_of: str = ""
    """The run whose machines this run takes once more, as a retry or a catch-up; empty for any other run."""
    earlier_ids: list[str] = Field(default_factory=list[str])
    """Of a retry: object ids of those who started the runs before it, empty where a run's starter is not known."""

    @property
    def who(self) -> Signature:
        """Who started it; the kind of the trigger where no name is known."""
        return Signature(actor=self.actor or self.kind.value, actor_id=self.actor_id, proven=self.proven)


class ApprovalDecision(Signed):
    """What a person said about a ring that needs an approval; the first decision counts."""

    approved: bool
    reason: str = ""
    at: UtcDatetime


class AppliedCommand(Command):
    """A command that changed a run, and what the run showed before and after it."""

    before: RunState
    after: RunState


class Run(Document):
    """One execution of a policy. Times are UTC; ``policy_snapshot`` is the frozen policy the run follows."""

    id: str
    policy: str
    mode: Mode
    state: RunState
    reason: str = ""
    trigger: Trigger
    created_at: UtcDatetime
    started_at: UtcDatetime | None = None
    ended_at: UtcDatetime | None = None
    occurrence: UtcDatetime | None = None
    window_end: UtcDatetime | None = None
    local_window: LocalWindow | None = None
    """The window by the clocks of its machines, which each of them has for itself until ``window_end``."""
    cancel_requested_at: UtcDatetime | None = None
    paused_at: UtcDatetime | None = None
    """Since when the run is paused; empty when it is not."""
    paused_from_state: RunState | None = None
    """The state to which a resume returns."""
    resumed_at: UtcDatetime | None = None
    resume_count: int = 0
    """How often a person said "go on": after a pause, or to a gate that held."""
    stop_reason: str = ""
    """Why a gate ended the run: nothing more starts from the moment this is set."""
    stopped_at: UtcDatetime | None = None
    blocked_scopes: list[str] = Field(default_factory=list[str])
    """Scopes that a gate keeps from starting anything: ``run``, ``ring:{ring}``, ``lane:{ring}/{region}``,
    ``wave:{ring}/{region}/{wave}``."""
    waiting_for: str = ""
    """What the run waits for, for people: the name of the ring to approve, the gate that holds, the next window."""
    decisions: dict[str, ApprovalDecision] = Field(default_factory=dict[str, ApprovalDecision])
    """Approvals and refusals by ring."""
    approvals_asked: dict[str, UtcDatetime] = Field(default_factory=dict[str, UtcDatetime])
    """By ring, when the run first waited for its approval: its deadline counts from there."""
    windows: int = 0
    """In how many further windows the run went on."""
    last_commands: dict[str, AppliedCommand] = Field(default_factory=dict[str, AppliedCommand])
    """By command (``pause``, ``resume``, ``cancel``; ``hold`` and ``stop`` of gates): the newest that changed it."""
    machines: int = 0
    counts_by_outcome: dict[str, int] = Field(default_factory=dict)
    counts_by_stage: dict[str, int] = Field(default_factory=dict)
    counted_at: UtcDatetime | None = None
    """When the machines of a run that goes on were counted last."""
    policy_snapshot: dict[str, Any] | None = None
    policy_origin: PolicyOrigin | None = None
    """Who wrote the snapshot; none in runs that were started before this was kept."""
    version: str = ""
    """Of the orchestrations that follow the run."""
    generation: int = 1
    """How often its orchestration was started: each one goes on from the records."""
    heartbeat_deadline: UtcDatetime | None = None
    """Heartbeat deadline: the watchdog ignores the run until this time."""
    exported_at: UtcDatetime | None = None
    """When all of its evidence was last downloaded, after it had ended."""
    maintenance: MaintenanceOccurrence | None = None
    """The scheduled run of a maintenance run."""

    def window_of(self, time_zone: str) -> Hours | None:
        """The hours in which a machine whose clock is of this IANA zone may be patched; ``None`` without a window."""
        if self.window_end is None:
            return None
        if self.local_window is not None and time_zone:
            return self.local_window.hours(time_zone)
        return Hours(self.occurrence or self.created_at, self.window_end)

    @property
    def counted_occurrence(self) -> datetime | None:
        """The occurrence in whose window it is counted how machines end; ``None`` of a run that a person started."""
        is_automatic = self.trigger.kind in (TriggerKind.TIMER, TriggerKind.EVENT_GRID)
        return self.occurrence if self.mode is Mode.PATCH and is_automatic else None


class Step(StrEnum):
    """A pass over machines: all are assessed, then ring by ring patched and, where the policy says so, restarted."""

    ASSESS = "assess"
    PATCH = "patch"
    RESTART = "restart"


class RunControls(Document):
    """What people and gates have said about a run until now."""

    is_canceled: bool = False
    is_paused: bool = False
    stop_reason: str = ""
    resume_count: int = 0
    blocked_scopes: list[str] = Field(default_factory=list[str])
    """Scopes of error budgets that are used up, until the run is resumed."""
    decided: dict[str, bool] = Field(default_factory=dict[str, bool])
    """Ring by name: whether it was approved."""
