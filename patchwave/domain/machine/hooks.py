"""What a policy does to each machine before and after its installation: a snapshot, and scripts of its owner."""

from datetime import timedelta
from enum import StrEnum
from typing import Self

from patchwave.domain.core.attempt import Attempt
from patchwave.domain.core.documents import Document
from patchwave.domain.core.duration import format_duration
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.machine.script import TIMED_OUT_CODE, ScriptEnd
from patchwave.domain.policy.hooks import ROLES_SETTING, SCRIPTS_SETTING

# --- messages -----------------------------------------------------------------------------------------------


class When(StrEnum):
    """When a script runs."""

    BEFORE = "before"
    AFTER = "after"


class ScriptRequest(Document):
    """Run the policy's script before or after the installation; ``outcome`` tells the one after it how that went."""

    run_id: str
    machine_key: str
    when: When
    outcome: OutcomeKind | None = None

    def variables(self, policy: str, machine: str) -> dict[str, str]:
        """What the script finds in its environment; ``policy`` and ``machine`` are names."""
        found = {"PATCHWAVE_RUN": self.run_id, "PATCHWAVE_POLICY": policy, "PATCHWAVE_MACHINE": machine}
        return found | ({"PATCHWAVE_OUTCOME": self.outcome.value} if self.outcome else {})


class HookState(StrEnum):
    """What became of a hook."""

    DONE = "done"
    """It went well, or there was nothing to do."""
    WAIT = "wait"
    """It runs, or has to wait: ask again after ``wait_seconds``."""
    REQUEUED = "requeued"
    """Nothing was begun, and nothing may be for now: the machine is requeued."""
    FAILED = "failed"
    """It did not go well, or the run does not go on with the machine."""


class HookResult(Attempt):
    """What became of a hook; a hook that runs uses up no retries.

    ``outcome`` says how a machine ends that is not patched because of it; beside a wait, should the retries be used up.
    Without one the machine is patched all the same.
    """

    state: HookState
    outcome: Outcome | None = None

    @classmethod
    def failed(cls, message: str) -> Self:
        return cls(state=HookState.FAILED, outcome=hook_failed(message))

    @classmethod
    def stopped(cls, outcome: Outcome) -> Self:
        """The run does not go on with this machine, whatever the hook would have brought."""
        return cls(state=HookState.FAILED, outcome=outcome)

    @classmethod
    def wait(cls, seconds: float, message: str, *, counts_as_attempt: bool = True) -> Self:
        """Ask again then; should the retries be used up, the hook has failed for that reason."""
        return cls(
            state=HookState.WAIT,
            wait_seconds=seconds,
            counts_as_attempt=counts_as_attempt,
            outcome=hook_failed(message),
        )


def hook_failed(message: str) -> Outcome:
    """The outcome of a machine that was not patched because something before the installation failed."""
    return Outcome.skipped(Reason.HOOK_FAILED, message)


# --- judgement ----------------------------------------------------------------------------------------------


def scripts_are_off(*, only_roles_miss: bool = False) -> str:
    """Why a policy's script is not run. ``only_roles_miss``: scripts are on, and function keys decide who may call."""
    if only_roles_miss:
        return (
            "The policy has scripts, and a function key does not say who wrote them: set"
            f" {ROLES_SETTING} to roles in the app's settings."
        )
    return f"The policy has scripts, and running scripts is off: set {SCRIPTS_SETTING} to true in the app's settings."


def script_failure(when: When, end: ScriptEnd, timeout: timedelta) -> str:
    """Why a script that ended counts as failed; empty when all is well."""
    match end.exit_code:
        case 0:
            return ""
        case None:
            return f"The script {when} the installation left no exit code: it is not known whether it ran to its end."
        case code if code == TIMED_OUT_CODE:
            return f"The script {when} the installation took longer than {format_duration(timeout)} and was ended."
        case code:
            return f"The script {when} the installation ended with exit code {code}; its output is in the row."


def script_unknown(when: When, why: str = "") -> str:
    """The answer of Azure, or the end of the script, was not seen; it is not sent again."""
    return (
        f"It is not known whether the script {when} the installation ran, and it is never run twice:"
        f" look at the machine.{f' ({why})' if why else ''}"
    )


def script_overdue(when: When, timeout: timedelta) -> str:
    """The script did not end in its time, and Azure cannot stop it."""
    return f"The script {when} the installation did not end within {format_duration(timeout)}; it may still run."
