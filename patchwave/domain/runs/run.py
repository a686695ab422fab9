"""The documents of a run: the run itself, its machines, and the intents that make an operation happen at most once."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.documents import Document, Instant
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.core.principal import Signature, Signed
from patchwave.domain.core.redaction import ForeignText
from patchwave.domain.maintenance.occurrence import MaintenanceOccurrence


class Mode(StrEnum):
    """What a run does to its machines."""

    ASSESS = "assess"
    PATCH = "patch"
    ACCOMPANY = "accompany"
    """Azure patches them, in a scheduled run of Update Manager; the run does what is to be done before and after."""


type StartableMode = Literal[Mode.PATCH, Mode.ASSESS]
"""What can be asked for; scheduled runs are accompanied because of their events."""


class RunState(StrEnum):
    """Where a run stands. The last five are final."""

    QUEUED = "queued"
    RUNNING = "running"
    AWAITING_APPROVAL = "awaiting_approval"
    PAUSED = "paused"
    """Somebody paused it: nothing starts until somebody resumes it."""
    HELD = "held"
    """A gate holds it, or a part of it, until somebody resumes or cancels it."""
    AWAITING_WINDOW = "awaiting_window"
    """It goes on in the next window of its policy."""
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
        """Whether nothing more will happen in the run."""
        return self in _FINAL_STATES


_FINAL_STATES = frozenset(
    {RunState.COMPLETED, RunState.CANCELED, RunState.STOPPED, RunState.FAILED, RunState.EMPTY},
)


class Stage(StrEnum):
    """Where a machine stands inside a running run; ``done`` once it has its outcome."""

    WAITING = "waiting"
    ASSESSING = "assessing"
    ASSESSED = "ready"
    """Assessed, and waiting for its turn to be patched. The word is no outcome: ``assessed`` is one."""
    INSTALLING = "installing"
    VERIFYING = "verifying"
    INSTALLED = "installed"
    """Patched, and waiting for its own turn to restart (``reboot: separate``)."""
    RESTARTING = "restarting"
    DONE = "done"


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
        """The digest of the rules that the run follows."""
        return self.changed_digest or self.digest

    @property
    def is_inline(self) -> bool:
        """Whether the policy came with the request, and is not stored."""
        return self.version == 0


class Trigger(Document):
    """Who or what started a run; kept for the audit log."""

    kind: TriggerKind
    by: str = ""
    by_id: str = ""
    """Object id of the signed-in principal; empty when none is, and for timers and events."""
    proven: bool = False
    """Whether the platform names who started it."""
    detail: str = ""
    retry_of: str = ""
    """The run whose machine this run takes once more; empty for any other run."""
    earlier_ids: list[str] = Field(default_factory=list[str])
    """Of a retry: object ids of those who started the runs before it, empty where a run's starter is not known."""

    @property
    def who(self) -> Signature:
        """Who started it; the kind of the trigger where no name is known."""
        return Signature(by=self.by or self.kind.value, by_id=self.by_id, proven=self.proven)


class Decision(Signed):
    """What a person said about a ring that needs an approval; the first decision counts."""

    approved: bool
    comment: str = ""
    at: Instant


class Order(Signed):
    """What a person asked for: who, why and when."""

    why: str = ""
    at: Instant


class Steered(Order):
    """An order that changed a run, and what the run showed before and after it."""

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
    created_at: Instant
    started_at: Instant | None = None
    ended_at: Instant | None = None
    occurrence: Instant | None = None
    window_end: Instant | None = None
    cancel_requested_at: Instant | None = None
    paused_at: Instant | None = None
    """Since when a person keeps the run from starting anything; empty when nobody does."""
    resumes_as: RunState | None = None
    """What the run shows again once nobody pauses it."""
    resumed_at: Instant | None = None
    resumptions: int = 0
    """How often a person said "go on": after a pause, or to a gate that held."""
    stop_reason: str = ""
    """Why a gate ended the run: nothing more starts from the moment this is set."""
    stopped_at: Instant | None = None
    held_scopes: list[str] = Field(default_factory=list[str])
    """Scopes that a gate keeps from starting anything: ``run``, ``ring:{ring}``, ``lane:{ring}/{region}``,
    ``wave:{ring}/{region}/{wave}``."""
    waiting_for: str = ""
    """What the run waits for, for people: the name of the ring to approve, the gate that holds, the next window."""
    decisions: dict[str, Decision] = Field(default_factory=dict[str, Decision])
    """Approvals and refusals by ring."""
    approvals_asked: dict[str, Instant] = Field(default_factory=dict[str, Instant])
    """By ring, when the run first waited for its approval: its deadline counts from there."""
    windows: int = 0
    """In how many further windows the run went on."""
    steered: dict[str, Steered] = Field(default_factory=dict[str, Steered])
    """By command (``pause``, ``resume``, ``cancel``; ``hold`` and ``stop`` of gates): the newest that changed it."""
    machines: int = 0
    counts_by_outcome: dict[str, int] = Field(default_factory=dict)
    counts_by_stage: dict[str, int] = Field(default_factory=dict)
    counted_at: Instant | None = None
    """When the machines of a run that goes on were counted last."""
    policy_snapshot: dict[str, Any] | None = None
    policy_origin: PolicyOrigin | None = None
    """Who wrote the snapshot; none in runs that were started before this was kept."""
    version: str = ""
    """Of the orchestrations that follow the run."""
    incarnation: int = 1
    """How often its orchestration was started: each one goes on from the records."""
    quiet_until: Instant | None = None
    """Until then nothing has to be heard of the run; later the watchdog looks after it."""
    exported_at: Instant | None = None
    """When somebody last downloaded all of its evidence, after it had ended."""
    maintenance: MaintenanceOccurrence | None = None
    """The scheduled run of Update Manager that it accompanies."""


class ReportedError(Document):
    """What the guest agent reports beside a result: an error, a warning, or an information.

    ``count`` is the number that the message begins with: "133 patches requires Ubuntu Pro".
    """

    code: str = ""
    message: ForeignText = ""
    target: str = ""
    count: int | None = None

    @property
    def is_informational(self) -> bool:
        """Whether the code is known to say that nothing went wrong with the patches."""
        return self.code.casefold() in _INFORMATIONAL

    @property
    def text(self) -> str:
        """Code and message, for people."""
        return ": ".join(part for part in (self.code, self.message) if part)


_INFORMATIONAL = frozenset({"informational", "ua_esm_required", "package_list_truncated", "certificate_update"})
"""Codes of the Linux agent: a note, patches behind Ubuntu Pro, a list that was cut, UEFI certificates that were not
updated. None of them has any part in whether the patches were installed (LinuxPatchExtension, Constants)."""


class Selection(Document):
    """How many of the patches that were found a policy selects; see `patchwave.domain.machine.patch_selection`.

    ``installable`` counts what an installation would take, and what cannot be judged; ``needs_subscription`` what only
    Ubuntu Pro delivers. ``rule`` is a digest of the classifications and masks.
    """

    installable: int
    needs_subscription: int = 0
    rule: str = ""


class AssessmentSummary(Document):
    """What an assessment found on a machine. Counts are patches; ``needs_subscription`` of them need Ubuntu Pro."""

    status: str
    critical_and_security: int = 0
    other: int = 0
    needs_subscription: int = 0
    reboot_pending: bool | None = None
    """``None`` where the machine did not say."""
    at: Instant | None = None
    list_is_partial: bool = False
    activity_id: str = ""
    errors: list[ReportedError] = Field(default_factory=list[ReportedError])
    """What the agent reported beside the result, also when the assessment succeeded."""
    selection: Selection | None = None
    """What the policy of the run selects of it; ``None`` where no policy was asked."""

    @property
    def pending(self) -> int:
        """Patches that are pending and that an installation could bring, whatever a policy selects."""
        return max(0, self.critical_and_security + self.other - self.needs_subscription)

    @property
    def installable(self) -> int:
        """Patches that an installation of the run would bring: those that the policy selects, where it was asked."""
        return self.pending if self.selection is None else self.selection.installable

    @property
    def behind_subscription(self) -> int:
        """Patches that the policy selects and that only Ubuntu Pro delivers."""
        return self.needs_subscription if self.selection is None else self.selection.needs_subscription


class InstallationSummary(Document):
    """What an installation did on a machine, as counts of patches."""

    status: str
    installed: int = 0
    failed: int = 0
    pending: int = 0
    excluded: int = 0
    not_selected: int = 0
    reboot_status: str = ""
    window_exceeded: bool = False
    activity_id: str = ""
    started_at: Instant | None = None
    adopted: bool = False
    errors: list[ReportedError] = Field(default_factory=list[ReportedError])
    """What the agent reported beside the result, also when the installation succeeded."""


class SignalState(StrEnum):
    """What one sign of a machine's health says."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"
    """It could not be told: no answer, or an answer that says nothing."""
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
    why: str = ""
    at: Instant


class PatchRecord(Document):
    """One patch of one machine in one run: found by the assessment, or handled by the installation."""

    name: str
    version: str = ""
    kb_id: str = ""
    classifications: list[str] = Field(default_factory=list[str])
    state: str = ""
    reboot_behavior: str = ""
    published_at: Instant | None = None
    patch_id: str = ""
    severity: str = ""
    activity_id: str = ""
    """Of the assessment that found it."""
    last_modified_at: Instant | None = None


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
    """Told by the machine itself, the first time that it is looked at."""
    image: str = ""
    ring: str = ""
    phase: int = 0
    lane: str = ""
    wave: int = 0
    why: list[str] = Field(default_factory=list[str])
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
    started_by_us: bool = False
    snapshot_id: str = ""
    skip: Order | None = None
    """Somebody wants the machine left out: it ends as skipped when its turn comes."""
    rollback: str = ""
    """How the machine is put back to before the run, for people: which snapshot, and the commands."""
    before_output: str = ""
    after_output: str = ""
    """The end of what the policy's scripts printed, at most 2 KiB each."""
    prepared: bool = False
    """The work before a scheduled run has ended on it, well or not."""
    was_started: bool = False
    """It was off, and the run started it for the scheduled run."""
    complaint: str = ""
    """What failed in that work."""
    reported: str = ""
    """How Update Manager says that its scheduled run ended on the machine: a word of Azure's."""
    reported_error: str = ""
    """What it gives as the reason."""
    queued_at: Instant | None = None
    started_at: Instant | None = None
    ended_at: Instant | None = None


class OperationKind(StrEnum):
    """The two long-running patch operations."""

    ASSESS = "assess"
    INSTALL = "install"


class IntentState(StrEnum):
    """What is known of the POST behind an intent.

    ``declared``: it may or may not have been accepted; ``accepted``: Azure runs it; ``refused``: Azure did not take it.
    """

    DECLARED = "declared"
    ACCEPTED = "accepted"
    REFUSED = "refused"


class Intent(Document):
    """Written before a POST, completed with what Azure answered: the guard against a second install (safety rule 1).

    The operation URLs are signed: they stay in this row, and never enter durable history, logs or answers.
    """

    run_id: str
    machine_key: str
    machine_id: str
    location: str = ""
    os_type: str = ""
    kind: OperationKind
    state: IntentState = IntentState.DECLARED
    attempt: int = 1
    declared_at: Instant
    """Before the first POST that may have been accepted: an operation that began earlier is not ours."""
    posted_at: Instant
    """Before the newest POST."""
    deadline_at: Instant
    previous_activity_id: str = ""
    """The newest operation of this kind that the machine knew before the POST: whatever has this id is not ours."""
    is_repeated: bool = False
    """An earlier POST of this intent got no answer, and may have been accepted after all."""
    answer: ArmFailure | None = None
    """What came back from the newest POST, other than an acceptance; none while nothing has come."""
    accepted_at: Instant | None = None
    async_url: str = ""
    location_url: str = ""
    activity_id: str = ""
    adopted: bool = False
    failed_polls: int = 0
