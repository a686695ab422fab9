"""Messages of a machine in one step of a run: what its orchestration and activities take and return."""

from __future__ import annotations

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.attempt import Attempt
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary
from patchwave.domain.machine.preflight import Preflight
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Step
from patchwave.domain.workflow.run import MachineOptions, RunRef


class MachineRef(RunRef):
    """Which machine of which run."""

    machine_key: str


class MachineEnded(Document):
    """A machine has ended its step. ``requeued``: it was not touched, and waits again.

    ``attempt``: the start that has ended; the end of an earlier start says nothing about a later one.
    """

    key: str
    attempt: int = 1
    failed: bool = False
    requeued: bool = False


class MachineWork(MachineRef):
    """One machine in one step of a run; ``phase`` is the name of the phase that waits for its end."""

    step: Step
    options: MachineOptions
    phase: str
    attempt: int = 1


class PreflightRequest(MachineRef):
    """Check the machine, and lease it for the run."""

    start_stopped: bool


class PreflightResult(Attempt):
    """The state of the machine before a step.

    Args:
        preflight: whether the step may begin.
        powered_on_by_run: this run started the machine and has not stopped it again; only while the run has the lease,
            so that a machine which another run works on is never stopped.
        assess_activity_id, install_activity_id: the newest ones that the machine knew before ours.
        assessment, installation: the results of earlier steps of this run.
        is_in_progress: an orchestration that is gone began the installation or restart; it is followed to its end.
        assess_attempt: the number of the next assessment, should one be needed.
        requeued: throttled until the window was over; the machine waits for another window.
    """

    preflight: Preflight
    powered_on_by_run: bool = False
    assess_activity_id: str = ""
    install_activity_id: str = ""
    assessment: AssessmentSummary | None = None
    installation: InstallationSummary | None = None
    is_in_progress: bool = False
    assess_attempt: int = 1
    requeued: bool = False


class VerifyRequest(MachineRef):
    """Read the patch status of the machine again after an installation that began at ``installed_at``."""

    installed_at: UtcDatetime | None = None


class Verified(Attempt):
    """``reboot_pending`` is ``None`` until the machine reports something newer than the installation.

    ``is_gone``: it no longer exists.
    """

    is_ready: bool
    is_gone: bool = False
    reboot_pending: bool | None = None


class PowerRequest(MachineRef):
    """Start or stop the machine. ``since``: when this change began, which tells its calls from earlier ones."""

    since: UtcDatetime


class PowerResult(Attempt):
    """A power change: a start that Azure accepted, a stop or restart that was carried out; else ``failure``.

    Args:
        accepted: it is done.
        requeued: nothing was sent, since a command, an error budget or the window forbids it now.
        failure: why it was not accepted.
        is_open: Azure may still carry out a call.
    """

    accepted: bool
    requeued: bool = False
    failure: ArmFailure | None = None
    is_open: bool = False


class ReleaseMachine(MachineRef):
    """The machine stays in the run, returns its lease, and completes its step of the phase.

    ``installation``: what was done, before its restart. ``requeued``: nothing was done, and the machine waits again.
    ``keep_lease``: Azure may still carry out a call on it, so that the lease expires instead.
    """

    stage: Stage
    phase: str
    attempt: int = 1
    installation: InstallationSummary | None = None
    requeued: bool = False
    keep_lease: bool = False


class Recorded(Document):
    """Whether the stored end of a machine uses the error budgets."""

    failed: bool


class RecordOutcome(MachineRef):
    """The final row of a machine, and its completion. ``keep_lease``: something may still run in the guest."""

    outcome: Outcome
    phase: str
    attempt: int = 1
    installation: InstallationSummary | None = None
    keep_lease: bool = False
