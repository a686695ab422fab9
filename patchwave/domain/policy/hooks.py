"""The hooks section of a policy: a snapshot before the installation, and scripts before and after it."""

import re
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, model_validator

from patchwave.domain.core.documents import Document, list_or_empty
from patchwave.domain.core.duration import Duration, between
from patchwave.domain.policy.scope import OsType, ResourceGroupName

MAX_SCRIPT_UNITS = 8_000
"""Characters of a script, as Windows counts them: encoded it must fit the 32,767 of a command line."""
MAX_SCRIPT = timedelta(minutes=90)
"""The run command itself ends a script then."""
SHEBANG = re.compile(r"#![ \t]*(/[A-Za-z0-9_./+-]+(?:[ \t]+[A-Za-z0-9_./+=:-]+)*)[ \t]*")


def check_script(text: str) -> str:
    """The script as it is kept: with plain line ends.

    Raises:
        ValueError: it is blank, too long, or its first line names an interpreter that cannot be read.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise ValueError("is blank; leave it out when nothing is to run")
    if "\0" in text or len(text.encode("utf-16-le", "surrogatepass")) > 2 * MAX_SCRIPT_UNITS:
        raise ValueError(f"must have at most {MAX_SCRIPT_UNITS} characters, and no NUL; call a script in the guest")
    first = text.partition("\n")[0]
    if first.startswith("#!") and not SHEBANG.fullmatch(first):
        raise ValueError("names an interpreter that cannot be read; write #!/bin/bash, or leave the line out")
    return text


MIN_KEEP = timedelta(hours=1)
MAX_KEEP = timedelta(days=90)
MIN_SCRIPT = timedelta(minutes=1)
SCRIPTS_SETTING = "PATCHWAVE_SCRIPTS"
ROLES_SETTING = "PATCHWAVE_AUTHORIZATION"


def _join_lines(value: object) -> object:
    lines = list_or_empty(value)
    return "\n".join(lines) if lines and all(isinstance(line, str) for line in lines) else value


ScriptText = Annotated[
    str, BeforeValidator(_join_lines, json_schema_input_type=str | list[str]), AfterValidator(check_script)
]
"""A script as one text, or as a list of lines."""


class SnapshotHook(Document):
    """A snapshot of the OS disk before the installation, deleted when its time is over."""

    keep: Annotated[
        Duration,
        between(MIN_KEEP, MAX_KEEP, "must be at least PT1H and at most PT2160H (90 days)"),
    ] = Field(
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
    timeout: Annotated[
        Duration, between(MIN_SCRIPT, MAX_SCRIPT, "must be at least PT1M and at most PT1H30M: Azure ends a script then")
    ] = Field(
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
        description="A script to run after the installation, whatever its outcome. Its failure is in the machine's"
        f" message. Only where the app's setting {SCRIPTS_SETTING} is true and {ROLES_SETTING} is roles.",
    )

    @property
    def is_wanted(self) -> bool:
        return self.snapshot is not None or self.has_scripts

    @property
    def has_scripts(self) -> bool:
        return self.before is not None or self.after is not None
