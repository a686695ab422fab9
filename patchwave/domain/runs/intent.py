"""Intents: the records that make a patch operation happen at most once, and whose operation a machine shows."""

from datetime import timedelta
from enum import StrEnum

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.azure.patch_results import PatchSummary
from patchwave.domain.core.documents import Document, UtcDatetime


class IntentState(StrEnum):
    """What is known of the POST behind an intent.

    ``declared``: it may or may not have been accepted; ``accepted``: Azure runs it; ``refused``: Azure did not take it.
    """

    DECLARED = "declared"
    ACCEPTED = "accepted"
    REFUSED = "refused"


class Intent(Document):
    """Written before a POST, completed with what Azure answered: the guard against a second install (safety rule 1).

    The operation URLs are signed: they stay in this row, and never enter durable history, logs or answers.
    """

    run_id: str
    machine_key: str
    machine_id: str
    location: str = ""
    os_type: str = ""
    kind: OperationKind
    state: IntentState = IntentState.DECLARED
    attempt: int = 1
    created_at: UtcDatetime
    """Before the first POST that may have been accepted: an operation that began earlier is not ours."""
    sent_at: UtcDatetime
    """Before the newest POST."""
    deadline_at: UtcDatetime
    previous_activity_id: str = ""
    """The newest operation of this kind that the machine knew before the POST: whatever has this id is not ours."""
    is_retry: bool = False
    """An earlier POST of this intent got no answer, and may have been accepted after all."""
    answer: ArmFailure | None = None
    """What came back from the newest POST, other than an acceptance; none while nothing has come."""
    accepted_at: UtcDatetime | None = None
    async_url: str = ""
    location_url: str = ""
    activity_id: str = ""
    adopted: bool = False
    failed_polls: int = 0


CLOCK_SKEW = timedelta(minutes=5)


def is_ours(intent: Intent, summary: PatchSummary | None) -> bool:
    """Whether the newest operation that a machine knows is the one behind this intent.

    By its id when that is known. Otherwise it must be new since the intent was declared: not the one that the
    machine knew before, and not begun earlier, give or take the skew of two clocks.
    """
    if summary is None or not summary.activity_id:
        return False
    if intent.activity_id:
        return summary.activity_id.casefold() == intent.activity_id.casefold()
    if summary.activity_id.casefold() == intent.previous_activity_id.casefold():
        return False
    return summary.start_time is None or summary.start_time >= intent.created_at - CLOCK_SKEW


class Origin(StrEnum):
    """Whose operation a machine shows after a POST that Azure did not say it accepted."""

    OURS = "ours"
    OTHER = "other"
    UNCLEAR = "unclear"
    """It may be ours: nothing may be sent, and nothing adopted."""


def is_unanswered(intent: Intent) -> bool:
    """Whether nothing that is an answer came to the newest POST: a lost connection, or a failure inside Azure."""
    return intent.answer is None or intent.answer.status == 0 or intent.answer.status >= 500


def origin(intent: Intent, summary: PatchSummary | None) -> Origin:
    """Whose the newest operation is that a machine knows.

    Without an answer to the POST, an operation that is new since the intent is ours (`is_ours`). An answer such as 409
    has most likely another reason, an operation of others, which then began before the POST: what began later is ours,
    and what began before it, within the skew of two clocks, may be either.
    """
    if not is_ours(intent, summary):
        return Origin.OTHER
    if intent.activity_id or is_unanswered(intent):
        return Origin.OURS
    began = summary.start_time if summary is not None else None
    # Azure may write whole seconds.
    created_at = intent.created_at.replace(microsecond=0)
    return Origin.OURS if began is not None and began >= created_at else Origin.UNCLEAR
