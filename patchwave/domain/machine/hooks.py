"""What a policy does to each machine before and after its installation: a snapshot, and scripts of its owner."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, model_validator

from patchwave.domain.azure.install_request import Duration, format_duration
from patchwave.domain.core.documents import Document, as_list
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.machine.script import LONGEST_SCRIPT, TIMED_OUT_CODE, ScriptEnd, check_script
from patchwave.domain.policy.scope import OsType, ResourceGroupName

SHORTEST_KEEP = timedelta(hours=1)
LONGEST_KEEP = timedelta(days=90)
SHORTEST_SCRIPT = timedelta(minutes=1)
SCRIPTS_SETTING = "PATCHWAVE_SCRIPTS"
ROLES_SETTING = "PATCHWAVE_AUTHORIZATION"


def _check_keep(value: timedelta) -> timedelta:
    if not SHORTEST_KEEP <= value <= LONGEST_KEEP:
        raise ValueError("must be at least PT1H and at most PT2160H (90 days)")
    return value


def _check_timeout(value: timedelta) -> timedelta:
    if not SHORTEST_SCRIPT <= value <= LONGEST_SCRIPT:
        raise ValueError("must be at least PT1M and at most PT1H30M: Azure ends a script then")
    return value


def _join_lines(value: object) -> object:
    lines = as_list(value)
    return "\n".join(lines) if lines and all(isinstance(line, str) for line in lines) else value


ScriptText = Annotated[
    str,
    BeforeValidator(_join_lines, json_schema_input_type=str | list[str]),
    AfterValidator(check_script),
]
"""A script as one text, or as a list of lines."""


class SnapshotHook(Document):
    """A snapshot of the OS disk before the installation, deleted when its time is over."""

    keep: Annotated[Duration, AfterValidator(_check_keep)] = Field(
        default=timedelta(days=7),
        title="Keep",
        description="How long the snapshot is kept, PTnHnM, at least PT1H and at most PT2160H.",
        examples=["PT168H"],
        # Written as the library would, in days, the default could not be read back.
        json_schema_extra={"default": "PT168H"},
    )
    resource_group: ResourceGroupName | None = Field(
        default=None,
        title="Resource group",
        description="The resource group, of the machine's subscription, that takes the snapshot; the machine's own"
        " unless given. A group that is given, or is not that of the disk, must be in the app's setting"
        " PATCHWAVE_SNAPSHOT_GROUPS.",
    )
    incremental: StrictBool = Field(
        default=True,
        title="Incremental",
        description="Store only what changed since the last incremental snapshot of the disk, which costs less.",
    )


class Script(Document):
    """A script per operating system, run in the guest as root or SYSTEM; exit code 0 means that all is well."""

    linux: ScriptText | None = Field(
        default=None,
        title="Linux",
        description="A shell script, as a text or a list of lines; a first line such as #!/bin/bash chooses another"
        " interpreter. Nothing runs on Linux unless given.",
    )
    windows: ScriptText | None = Field(
        default=None,
        title="Windows",
        description="A PowerShell script, as a text or a list of lines. Nothing runs on Windows unless given.",
    )
    timeout: Annotated[Duration, AfterValidator(_check_timeout)] = Field(
        default=timedelta(minutes=10),
        title="Timeout",
        description="How long the script may take, PTnHnM, at least PT1M and at most PT1H30M. On Linux it is ended"
        " then; on Windows it counts as failed and goes on.",
    )

    @model_validator(mode="after")
    def _has_a_script(self) -> Self:
        if self.linux is None and self.windows is None:
            raise ValueError("has no script: give linux, windows, or both")
        return self

    def text_for(self, os_type: OsType | None) -> str | None:
        """The script for that system; ``None`` when there is nothing to run."""
        return {OsType.LINUX: self.linux, OsType.WINDOWS: self.windows}.get(os_type) if os_type else None


class BeforeScript(Script):
    """The script before the installation."""

    on_failure: Literal["skip", "continue"] = Field(
        default="skip",
        title="On failure",
        description="skip: the machine is not patched when the script fails, which counts against the error budget."
        " continue: it is patched all the same.",
    )


class Hooks(Document):
    """What is done to each machine before and after its installation."""

    snapshot: SnapshotHook | None = Field(
        default=None,
        title="Snapshot",
        description="Take a snapshot of the OS disk first; {} takes one with the defaults. None unless given.",
    )
    before: BeforeScript | None = Field(
        default=None,
        title="Before",
        description=f"A script to run before the installation. Only where the app's setting {SCRIPTS_SETTING} is true"
        f" and {ROLES_SETTING} is roles.",
    )
    after: Script | None = Field(
        default=None,
        title="After",
        description="A script to run after the installation, however that went. Its failure is told in the machine's"
        f" message. Only where the app's setting {SCRIPTS_SETTING} is true and {ROLES_SETTING} is roles.",
    )

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to do."""
        return self.snapshot is not None or self.has_scripts

    @property
    def has_scripts(self) -> bool:
        """Whether the policy runs anything in guests."""
        return self.before is not None or self.after is not None


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
    LEFT = "left"
    """Nothing was begun, and nothing may be for now: the machine waits for its turn again."""
    FAILED = "failed"
    """It did not go well, or the run does not go on with the machine."""


class HookResult(Document):
    """What became of a hook. ``counts`` tells whether a wait uses up patience: a hook that runs does not.

    ``outcome`` says how a machine ends that is not patched because of it; beside a wait, should patience run out.
    Without one the machine is patched all the same.
    """

    state: HookState
    wait_seconds: float = 0
    counts: bool = True
    outcome: Outcome | None = None

    @classmethod
    def failed(cls, message: str) -> HookResult:
        """The hook failed, for that reason."""
        return cls(state=HookState.FAILED, outcome=hook_failed(message))

    @classmethod
    def stopped(cls, outcome: Outcome) -> HookResult:
        """The run does not go on with this machine, whatever the hook would have brought."""
        return cls(state=HookState.FAILED, outcome=outcome)

    @classmethod
    def wait(cls, seconds: float, message: str, *, counts: bool = True) -> HookResult:
        """Ask again then; should patience run out, the hook has failed for that reason."""
        return cls(state=HookState.WAIT, wait_seconds=seconds, counts=counts, outcome=hook_failed(message))


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
            return f"The script {when} the installation left no exit code: nobody knows whether it ran to its end."
        case code if code == TIMED_OUT_CODE:
            return f"The script {when} the installation took longer than {format_duration(timeout)} and was ended."
        case code:
            return f"The script {when} the installation ended with exit code {code}; its output is in the row."


def script_unknown(when: When, why: str = "") -> str:
    """Nobody saw what Azure answered, or what became of the script; it is not sent again."""
    return (
        f"It is not known whether the script {when} the installation ran, and it is never run twice:"
        f" look at the machine.{f' ({why})' if why else ''}"
    )


def script_overdue(when: When, timeout: timedelta) -> str:
    """The script did not end in its time, and Azure cannot stop it."""
    return f"The script {when} the installation did not end within {format_duration(timeout)}; it may still run."
