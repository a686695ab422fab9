"""Messages of a machine in one step of a run: what its orchestration and activities take and return."""

from __future__ import annotations

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary
from patchwave.domain.machine.preflight import Preflight
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Mode, Step


class MachineOptions(Document):
    """What the policy asks for on each machine, so that no activity is called in vain."""

    mode: Mode
    start_stopped: bool = False
    hooks: bool = False
    health: bool = False
    reboot_apart: bool = False
    continues: bool = False
    """Machines that the window leaves over are patched in the next one."""


class MachineEnded(Document):
    """A machine has ended its step. ``requeued``: it was not touched, and waits again.

    ``attempt``: the start that has ended; the end of an earlier start says nothing about a later one.
    """

    key: str
    attempt: int = 1
    failed: bool = False
    requeued: bool = False


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
    ``keep_lease``: Azure may still carry out a call on it, so that the lease expires instead.
    """

    run_id: str
    machine_key: str
    stage: Stage
    phase: str
    attempt: int = 1
    installation: InstallationSummary | None = None
    requeued: bool = False
    keep_lease: bool = False


class Recorded(Document):
    """Whether the stored end of a machine uses the error budgets."""

    failed: bool


class RecordOutcome(Document):
    """The final row of a machine, and its completion. ``keep_lease``: something may still run in the guest."""

    run_id: str
    machine_key: str
    outcome: Outcome
    phase: str
    attempt: int = 1
    installation: InstallationSummary | None = None
    keep_lease: bool = False
