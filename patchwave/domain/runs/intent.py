"""Intents: the records that make a patch operation happen at most once, and whose operation a machine shows."""

from datetime import timedelta
from enum import StrEnum
from typing import Any, Self

from pydantic import Field

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.azure.patch_results import PatchSummary
from patchwave.domain.core.documents import Document, Json, UtcDatetime, list_or_empty, object_or_none
from patchwave.domain.core.redaction import RedactedText


class IntentState(StrEnum):
    """What is known of the POST behind an intent.

    ``declared``: it may or may not have been accepted; ``accepted``: Azure runs it; ``refused``: Azure did not take it.
    """

    DECLARED = "declared"
    ACCEPTED = "accepted"
    REFUSED = "refused"


MAX_EARLIER = 5
"""Earlier requests that an intent keeps, the newest: a machine that is throttled for hours has hundreds."""
MAX_NAMES = 50
"""Entries of a list in the parameters that an intent keeps. The lists of a pin have up to a thousand, for each
machine; the pin itself is a row of the run."""
MAX_NAME = 120


class SentRequest(Document):
    """A request before the newest one of an intent. ``number`` counts the requests from 1."""

    number: int
    state: IntentState
    sent_at: UtcDatetime
    parameters: dict[str, Any] | None = None
    answer: ArmFailure | None = None
    accepted_at: UtcDatetime | None = None
    activity_id: str = ""


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
    number: int = 1
    """Of the newest request, counted from 1 over all attempts."""
    parameters: dict[str, Any] | None = None
    """The body of the newest request (`shorten`); ``None`` for an assessment, which has none."""
    is_withheld: bool = False
    """The newest request was not sent: a command came first."""
    earlier: list[SentRequest] = Field(default_factory=list[SentRequest])
    """The requests before the newest one, at most `MAX_EARLIER`, oldest first."""

    def following(self, known: "Intent | None") -> Self:
        """This intent, with the requests of the one that it replaces; Azure certainly did not accept its last one."""
        if known is None:
            return self
        if known.is_withheld:
            return self.model_copy(update={"number": known.number, "earlier": known.earlier})
        last = SentRequest(
            number=known.number,
            state=IntentState.ACCEPTED if known.state is IntentState.ACCEPTED else IntentState.REFUSED,
            sent_at=known.sent_at,
            parameters=known.parameters,
            answer=known.answer,
            accepted_at=known.accepted_at,
            activity_id=known.activity_id,
        )
        return self.model_copy(update={"number": known.number + 1, "earlier": [*known.earlier, last][-MAX_EARLIER:]})

    @property
    def attempts(self) -> list["OperationAttempt"]:
        """The requests of this intent for people, oldest first."""
        newest = [] if self.is_withheld else [_attempt(self.kind, self, adopted=self.adopted)]
        return [_attempt(self.kind, request) for request in self.earlier] + newest


class OperationAttempt(Document):
    """A request that was sent to Azure for a machine in a run, or may have been, with its parameters.

    ``state``: ``declared`` while it is not known whether Azure accepted it. ``answer`` is Azure's, where it is not an
    acceptance. ``parameters`` is the body: nothing for an assessment, and long lists are shortened.
    """

    operation: OperationKind
    number: int
    state: IntentState
    sent_at: UtcDatetime
    parameters: dict[str, Any] | None = None
    answer: RedactedText = ""
    accepted_at: UtcDatetime | None = None
    activity_id: str = ""
    adopted: bool = False


def _attempt(kind: OperationKind, request: "Intent | SentRequest", *, adopted: bool = False) -> OperationAttempt:
    return OperationAttempt(
        operation=kind,
        number=request.number,
        state=request.state,
        sent_at=request.sent_at,
        parameters=request.parameters,
        answer=request.answer.text if request.answer is not None else "",
        accepted_at=request.accepted_at,
        activity_id=request.activity_id,
        adopted=adopted,
    )


def shorten(body: Json) -> Json:
    """The body of a request as an intent keeps it: long lists and texts are cut, with a visible marker."""
    return {name: _short(value) for name, value in body.items()}


def _short(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= MAX_NAME else f"{value[: MAX_NAME - 1]}…"
    if (inner := object_or_none(value)) is not None:
        return shorten(inner)
    listed = list_or_empty(value)
    more = [f"… and {len(listed) - MAX_NAMES} more"] if len(listed) > MAX_NAMES else []
    return [*map(_short, listed[:MAX_NAMES]), *more] if isinstance(value, list) else value


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
