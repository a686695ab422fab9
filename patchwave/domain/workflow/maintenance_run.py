"""Messages between the orchestrators and activities of maintenance runs."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.runs.machine_record import MachineRecord

SHARD = 100
"""Machines that one orchestration takes through a phase, so that no history grows with the fleet."""


class MaintenancePhase(StrEnum):
    """The two parts of the work on a machine."""

    PRE = "pre"
    POST = "post"

    def is_open(self, machine: MachineRecord) -> bool:
        """Whether the phase is still to be done on the machine."""
        return machine.outcome is None and not (self is MaintenancePhase.PRE and machine.pre_tasks_done)


class MaintenanceRunStatus(Document):
    """Where a maintenance run stands, read from its row.

    ``is_ended``: nothing is left to do. ``is_stopped``: a person or a gate ended our own run, so that nothing more is
    begun; what was started is still stopped again, when Azure is done.
    """

    is_ended: bool = False
    is_stopped: bool = False
    is_prepared: bool = False
    is_canceled: bool = False
    is_over: bool = False
    has_results: bool = False
    start_stopped: bool = False
    hooks: bool = False
    cancel_on_pre_failure: bool = False
    announces: bool = False
    poll_seconds: float = 30
    """Between two listings of Resource Graph."""
    pre_deadline: UtcDatetime | None = None
    ends_at: UtcDatetime | None = None
    post_deadline: UtcDatetime | None = None


class PrePhaseEnd(Document):
    """The time for the work before is over, or all of it is done; ``failure``: the machines could not be listed."""

    run_id: str
    failure: str = ""


class MaintenancePageRequest(Document):
    """One page of the machines of the scheduled run, or of their results; ``attempt`` counts failed pages in a row."""

    run_id: str
    cursor: str = ""
    attempt: int = 0


class MachinesPage(Document):
    """What a page brought. ``machines``: how many the run has now; ``failure`` without ``wait_seconds`` is final.

    ``counts_as_attempt``: whether a failure uses up the retries: being throttled does not.
    """

    machines: int = 0
    cursor: str = ""
    wait_seconds: float = 0
    failure: str = ""
    counts_as_attempt: bool = True


class ResultsPage(MachinesPage):
    """What a page of results brought. After the last, ``awaited`` machines should have one and do not yet.

    ``in_progress``: of those, on which Azure may still be at work, since Update Manager has not said how it ended.
    """

    awaited: int = 0
    in_progress: int = 0


class MaintenancePhaseRef(Document):
    """One part of the work of a run."""

    run_id: str
    phase: MaintenancePhase


class Shards(Document):
    """Where each shard of machines begins: cursors of `ShardRef`."""

    cursors: list[str | None] = Field(default_factory=list[str | None])


class ShardRef(Document):
    """The machines of one shard that a phase is still to be done on."""

    run_id: str
    phase: MaintenancePhase
    cursor: str | None = None


class ShardMachines(Document):
    """The keys of such machines."""

    keys: list[str] = Field(default_factory=list[str])


class MaintainShard(Document):
    """Take the machines of a shard through a phase.

    ``attempt`` tells repetitions of the same phase apart; ``until`` is when nothing more is begun on a machine.
    """

    run_id: str
    phase: MaintenancePhase
    cursor: str | None = None
    attempt: int = 1
    until: UtcDatetime | None = None
    start_stopped: bool = False
    hooks: bool = False
    assess: bool = False


class MaintainMachine(Document):
    """The same for one machine."""

    run_id: str
    machine_key: str
    phase: MaintenancePhase
    until: UtcDatetime | None = None
    start_stopped: bool = False
    hooks: bool = False
    assess: bool = False


class PreResult(Document):
    """How the work before ended on a machine; ``pre_tasks_error`` is empty when all is well.

    ``start_refused``: Azure refused to start it, so that it is not ours to stop. ``is_hibernated``: it was left alone.
    """

    run_id: str
    machine_key: str
    pre_tasks_error: str = ""
    start_refused: bool = False
    is_hibernated: bool = False


class PreSummary(Document):
    """How the work before went on all machines; those it did not end on count as failed."""

    machines: int = 0
    failed: int = 0


class CancelResult(Document):
    """What became of the cancellation. ``wait_seconds`` over 0 asks to call again then."""

    canceled: bool = False
    wait_seconds: float = 0
    failure: ArmFailure | None = None


class MaintenanceSummary(Document):
    """How many machines Update Manager called done that are not."""

    status_mismatches: int


class PowerState(StrEnum):
    """What a look at a machine after a scheduled run says."""

    READY = "ready"
    WAIT = "wait"
    """It changes on its own: it boots, or its agent does not report yet."""
    OFF = "off"
    """It does not run, or is gone."""


class PowerCheck(Document):
    """Whether scripts and assessments can be sent. ``counts_as_attempt`` is false for throttling."""

    state: PowerState
    powered_on_by_run: bool = False
    assess_activity_id: str = ""
    wait_seconds: float = 0
    counts_as_attempt: bool = True


class FinalizeRequest(Document):
    """Give the machine its outcome; ``problems`` are sentences about what else did not go well.

    ``not_restored``: why its power was not restored. ``keep_lease``: Azure may still do so, so the lease expires.
    """

    run_id: str
    machine_key: str
    problems: list[str] = Field(default_factory=list[str])
    not_restored: str = ""
    keep_lease: bool = False
