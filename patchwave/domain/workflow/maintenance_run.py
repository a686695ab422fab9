"""Messages of a maintenance run: pre and post maintenance around a scheduled run of Update Manager."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.attempt import Attempt
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.workflow.machine import MachineRef
from patchwave.domain.workflow.run import MachinesPage, RunRef

SHARD = 100
"""Machines that one orchestration takes through a phase, so that no history grows with the fleet."""


class MaintenancePhase(StrEnum):
    """Before and after the scheduled run."""

    PRE = "pre"
    POST = "post"

    def is_open(self, machine: MachineRecord) -> bool:
        """Whether the phase is still to be done on the machine."""
        return machine.outcome is None and not (self is MaintenancePhase.PRE and machine.pre_tasks_done)


class MaintenanceRunStatus(Document):
    """The status of a maintenance run, read from its row.

    ``is_ended``: nothing is left to do. ``is_stopped``: a user or a gate ended the maintenance run, so that nothing
    more is begun; machines that it started are still stopped, when Azure is done.
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


class PrePhaseEnd(RunRef):
    """The pre phase is over, or its deadline has passed; ``failure``: the machines could not be listed."""

    failure: str = ""


class ResultsPage(MachinesPage):
    """A page of results. After the last, ``awaited`` machines should have one and do not yet.

    ``in_progress``: those of them on which Azure may still work, since Update Manager has not reported an end.
    """

    awaited: int = 0
    in_progress: int = 0


class MaintenancePhaseRef(RunRef):
    """Which phase of which run."""

    phase: MaintenancePhase


class Shards(Document):
    """Where each shard of machines begins: cursors of `ShardRef`."""

    cursors: list[str | None] = Field(default_factory=list[str | None])


class ShardRef(MaintenancePhaseRef):
    """The machines of one shard that a phase is still to be done on."""

    cursor: str | None = None


class ShardMachines(Document):
    """The keys of such machines."""

    keys: list[str] = Field(default_factory=list[str])


class MaintainShard(ShardRef):
    """Take the machines of a shard through a phase.

    ``attempt`` tells repetitions of the same phase apart; ``until`` is when nothing more is begun on a machine.
    """

    attempt: int = 1
    until: UtcDatetime | None = None
    start_stopped: bool = False
    hooks: bool = False
    assess: bool = False


class MaintainMachine(MaintainShard, MachineRef):
    """The same for one machine."""


class PreResult(MachineRef):
    """How the pre phase ended on a machine; ``pre_tasks_error`` is empty when all is well.

    ``start_refused``: Azure refused to start it, so the run must not stop it. ``is_hibernated``: it was left alone.
    """

    pre_tasks_error: str = ""
    start_refused: bool = False
    is_hibernated: bool = False


class PreSummary(Document):
    """How the pre phase ended on all machines; those on which it did not end count as failed."""

    machines: int = 0
    failed: int = 0


class CancelResult(Document):
    """What became of the cancellation. ``wait_seconds`` over 0 asks to call again then."""

    canceled: bool = False
    wait_seconds: float = 0
    failure: ArmFailure | None = None


class MaintenanceSummary(Document):
    """On how many machines Update Manager's status is wrong."""

    status_mismatches: int


class PowerState(StrEnum):
    """The state of a machine after a scheduled run."""

    READY = "ready"
    WAIT = "wait"
    """It boots, or its agent does not report yet."""
    OFF = "off"
    """It does not run, or is gone."""


class PowerCheck(Attempt):
    """Whether scripts and assessments can be sent."""

    state: PowerState
    powered_on_by_run: bool = False
    assess_activity_id: str = ""


class FinalizeRequest(MachineRef):
    """Give the machine its outcome; ``problems`` are sentences about what else did not go well.

    ``not_restored``: why it was not stopped again. ``keep_lease``: Azure may still stop it, so the lease expires.
    """

    problems: list[str] = Field(default_factory=list[str])
    not_restored: str = ""
    keep_lease: bool = False
