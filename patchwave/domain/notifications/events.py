"""Telling people about a run: what a policy asks for, what there is to tell, and the messages that carry it.

Nearly every text in here comes from outside: names of machines and policies, reasons, messages of Azure. A
``Fact`` is such a text on one line, without characters that disguise it, and short; each channel escapes it again for
its own medium.
"""

import hashlib
import unicodedata
import uuid
from operator import not_
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from patchwave.domain.core.attempt import Attempt
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.policy.notifications import Event

MAX_FACT = 300
MAX_NOTES = 10
"""Machines that the last notification names; the others are counted."""

_JOINERS = "\u200c\u200d"
"""Invisible, but part of the spelling of several languages and of emoji."""


def one_line(text: str, limit: int = MAX_FACT) -> str:
    """The text on one line of at most ``limit`` characters, without control and other invisible characters.

    Among the invisible ones are those that reverse the direction of what follows.
    """
    head = text[: 4 * limit]
    visible = "".join(
        character if character in _JOINERS or unicodedata.category(character)[0] not in "CZ" else " "
        for character in head
    )
    line = " ".join(visible.split())
    is_whole = len(line) <= limit and len(head) == len(text)
    return line if is_whole else line[: limit - 1].rstrip() + "…"


Fact = Annotated[str, AfterValidator(one_line)]


# --- facts --------------------------------------------------------------------------------------------------------
# The announcing orchestrator gives the facts that it has; what is left at its default is read from the run's rows when
# the notice is sent.


class RunStarted(Document):
    """A run has started, and has found its machines."""

    event: Literal[Event.STARTED] = Event.STARTED
    mode: Fact = ""
    trigger: Fact = ""
    started_by: Fact = ""
    machines: int | None = None


class ApprovalNeeded(Document):
    """A ring waits for a person. ``within_seconds`` counts from the notice, ``approve`` is the command for a yes.

    ``digest``, ``scope`` and ``scripts`` say what the approval is for, and ``author`` who wrote it.
    """

    event: Literal[Event.APPROVAL_NEEDED] = Event.APPROVAL_NEEDED
    ring: Fact = ""
    machines: int | None = None
    within_seconds: float | None = None
    approve: str = ""
    author: Fact = ""
    digest: Fact = ""
    scope: Fact = ""
    scripts: Fact = ""


class ErrorBudgetNotice(Document):
    """Nothing more starts in a scope, such as ``ring:broad``.

    ``failures`` and ``limit`` are of an error budget, ``on_exceeded`` is what the policy does about it (``hold``,
    ``end``); another gate gives its ``reason``.
    """

    event: Literal[Event.GATE_CLOSED] = Event.GATE_CLOSED
    scope: Fact = ""
    failures: int | None = None
    limit: int | None = None
    on_exceeded: Fact = ""
    reason: Fact = ""


class WindowAwaited(Document):
    """The window has closed; what is left goes on in the next one, which opens at ``opens_at``."""

    event: Literal[Event.AWAITING_WINDOW] = Event.AWAITING_WINDOW
    opens_at: UtcDatetime | None = None
    open_machines: int | None = None


class RunAwaited(Document):
    """Another run works on machines that have to be kept apart from those whose turn it is.

    ``waits_for`` names that run, and what both work on.
    """

    event: Literal[Event.AWAITING_RUN] = Event.AWAITING_RUN
    waits_for: Fact = ""


class MachineNote(Document):
    """A machine that needs a person, in short."""

    name: Fact
    resource_group: Fact
    outcome: Fact
    reason: Fact
    message: Annotated[str, AfterValidator(lambda text: one_line(text, 160))]


class RunEnded(Document):
    """A run has ended."""

    event: Literal[Event.ENDED] = Event.ENDED
    state: Fact = ""
    reason: Fact = ""
    machines: int = 0
    counts_by_outcome: dict[str, int] = Field(default_factory=dict[str, int])
    duration_seconds: float = 0
    needs_person: int = 0
    """How many machines need a person; ``notes`` names the first of them."""
    notes: list[MachineNote] = Field(default_factory=list[MachineNote], max_length=MAX_NOTES)
    stuck: Fact = Field(default="", exclude_if=not_)
    """The machines that failed in too many windows in a row, by name."""


type Facts = RunStarted | ApprovalNeeded | ErrorBudgetNotice | WindowAwaited | RunAwaited | RunEnded


# --- messages -----------------------------------------------------------------------------------------------------


class Notice(Document):
    """Something to tell about a run. ``number`` tells two notices of one event apart: gates may close repeatedly."""

    run_id: str
    number: int = Field(default=1, ge=0)
    at: UtcDatetime
    facts: Facts = Field(discriminator="event")

    def delivery_id(self, channel: str) -> str:
        """A UUID of this notice on this channel: the same for every attempt, and for a run that is replayed."""
        text = "\n".join((self.run_id, self.facts.event, str(self.number), channel))
        return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4))


class NoticeChannels(Document):
    """The channels that the policy wants told: those that can be, and the others with the reason."""

    channels: list[str] = Field(default_factory=list[str])
    failed: dict[str, Fact] = Field(default_factory=dict[str, Fact])


class SendNotice(Document):
    """Tell one channel. ``attempt`` counts from 1, without those that were throttled."""

    notice: Notice
    channel: str
    attempt: int = Field(default=1, ge=1)


class SendResult(Attempt):
    """Whether the channel has been told. A failure with ``wait_seconds`` may pass; one without is final."""

    sent: bool
    failure: Fact = ""


class NoticeReport(Document):
    """What became of a notice: the channels that were told, and the others with the reason."""

    run_id: str
    event: Event
    number: int
    at: UtcDatetime
    sent: list[str] = Field(default_factory=list[str])
    failed: dict[str, Fact] = Field(default_factory=dict[str, Fact])


# --- backoff -----------------------------------------------------------------------------------------------------

MAX_ATTEMPTS = 6
FIRST_WAIT_SECONDS = 15
MAX_WAIT_SECONDS = 3600


def backoff(attempt: int, asked: float | None = None) -> float:
    """Seconds to wait after a failed attempt that may pass; 0 when it was the last one.

    A quarter of a minute, then four times as long each time: some 80 minutes in all.

    Args:
        attempt: that failed, from 1.
        asked: what the service asks for (Retry-After); never waited less than that, up to an hour.
    """
    if attempt >= MAX_ATTEMPTS:
        return 0
    return min(max(FIRST_WAIT_SECONDS * 4.0 ** (attempt - 1), asked or 0), MAX_WAIT_SECONDS)
