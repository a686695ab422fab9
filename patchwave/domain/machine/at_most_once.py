"""The guard of a call that changes a machine: written before the POST, so that nothing is sent again unawares.

An installation shows in the machine's patch status, so an unanswered POST can be looked up
(`patchwave.domain.runs.intent.Intent`). A script and a restart do not. A script whose guard was declared and never
answered may have run, and is not sent again. A start, a stop and a restart show in the machine's state: it is read
before any of them is sent again.
"""

from enum import StrEnum

from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.runs.intent import IntentState


class GuardedCall(StrEnum):
    """The calls that have a guard; one of each per run and machine."""

    BEFORE_SCRIPT = "before_script"
    AFTER_SCRIPT = "after_script"
    RESTART = "restart"
    START = "start"
    STOP = "stop"


class AtMostOnceRecord(Document):
    """Written before the POST, completed with what Azure answered. A refused call may be declared anew.

    ``token`` is of the execution that declared it: an execution that finds another token was not first. The operation
    URLs are
    signed: they stay in this row.
    """

    run_id: str
    machine_key: str
    call: GuardedCall
    token: str
    change_id: str = ""
    """Of a start or stop: of which change of power it is; that of an earlier one says nothing."""
    state: IntentState = IntentState.DECLARED
    created_at: UtcDatetime
    deadline_at: UtcDatetime
    """When following the operation ends, and a restart is not asked for again."""
    async_url: str = ""
    location_url: str = ""
    unclear_polls: int = 0
    ended_at: UtcDatetime | None = None
    """When the script was seen to have ended, or was given up; what came of it is then told again, never anew."""
    failure: str = ""
    """Why it counts as failed once it has ended, empty when all went well; before that, Azure's last refusal."""
    changed_at: str = ""
    """Of a script: when the machine was last changed before the call, as it said itself."""
