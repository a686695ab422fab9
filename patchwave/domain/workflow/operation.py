"""Messages of one operation on a machine: its start, and its polls."""

from __future__ import annotations

from enum import StrEnum

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.azure.patch_results import InstallResult
from patchwave.domain.core.attempt import Attempt
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.core.patches import AssessmentSummary
from patchwave.domain.workflow.machine import MachineRef


class OperationRef(MachineRef):
    """Which operation. Its URLs are in its intent row."""

    kind: OperationKind


class StartOperation(OperationRef):
    """Start one operation, at most once per ``attempt``. ``reserved_at``: its rate-limit reservation.

    ``is_last``: no further POST is sent; only the result of the last one is found out.
    """

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


class OperationState(StrEnum):
    """Where an operation stands."""

    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"
    LOST = "lost"
    DEADLINE = "deadline"
    CANCELED = "canceled"
    """The run was stopped while it ran; the guest goes on."""


class AwaitOperation(OperationRef):
    """Follow an operation to its end; first poll after ``wait_seconds``. ``polls``: those of earlier executions."""

    polls: int = 0
    wait_seconds: float = 0


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


class StartResult(Attempt):
    """What became of the start.

    Args:
        state: whether Azure accepted the operation.
        reserved_at: nothing failed; the request may be sent at this time.
        report: Azure answered with the result itself, so that there is nothing to follow.
        outcome: of a wait, how the machine ends when no try is left; without it, Azure may have accepted the call.
        may_run: something may run in the guest although there is an outcome.
    """

    state: StartState
    reserved_at: UtcDatetime | None = None
    report: OperationReport | None = None
    outcome: Outcome | None = None
    may_run: bool = False
