"""The guard of a call that must happen at most once and leaves no trace that could be asked about afterwards.

An installation shows in the machine's patch status, so an unanswered POST can be looked up (`domain.run.Intent`).
A script and a restart do not. A script whose guard was declared and never answered may have run, and is not sent
again. A restart is: it was the machine's turn to restart, and one reboot more is better than a kernel that nobody
booted.
"""

from __future__ import annotations

from enum import StrEnum

from domain.base import Document, Instant
from domain.run import IntentState


class GuardedCall(StrEnum):
    """The calls that have a guard; one of each per run and machine."""

    BEFORE_SCRIPT = "before_script"
    AFTER_SCRIPT = "after_script"
    RESTART = "restart"


class Guard(Document):
    """Written before the POST, completed with what Azure answered. A refused call may be declared anew.

    ``token`` is of the execution that declared it: whoever finds another one was not first. The operation URLs are
    signed: they stay in this row.
    """

    run_id: str
    machine_key: str
    call: GuardedCall
    token: str
    state: IntentState = IntentState.DECLARED
    declared_at: Instant
    deadline_at: Instant
    """When following the operation ends, and a restart is not asked for again."""
    async_url: str = ""
    location_url: str = ""
    unclear_polls: int = 0
    ended_at: Instant | None = None
    """When the script was seen to have ended, or was given up; what came of it is then told again, never anew."""
    failure: str = ""
    """Why it counts as failed, once it has ended; empty when it went well."""
