"""The notifications section of a policy: which channels receive which events."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from patchwave.domain.core.documents import Document
from patchwave.domain.core.ids import POLICY_NAME_PATTERN, is_policy_name

MAX_CHANNELS = 10


class Event(StrEnum):
    """The events that notifications are sent for."""

    STARTED = "started"
    APPROVAL_NEEDED = "approval_needed"
    GATE_CLOSED = "gate_closed"
    AWAITING_WINDOW = "awaiting_window"
    AWAITING_RUN = "awaiting_run"
    ENDED = "ended"


def _check_channel(value: str) -> str:
    # Channels are named like policies, so that there is one rule to remember.
    if not is_policy_name(value):
        raise ValueError("is no name of a channel; write 1 to 32 lower-case letters, digits and inner hyphens")
    return value


ChannelName = Annotated[
    str, AfterValidator(_check_channel), Field(json_schema_extra={"pattern": POLICY_NAME_PATTERN, "maxLength": 32})
]


class Notifications(Document):
    """The channels of a policy's runs, and the events that each gets."""

    channels: list[ChannelName] = Field(
        default_factory=list[ChannelName],
        max_length=MAX_CHANNELS,
        title="Channels",
        description="Names of channels of the app setting PATCHWAVE_CHANNELS; no notifications unless given.",
        examples=[["ops"]],
    )
    # Not "on", which is a word for true in the YAML that people write policies in.
    events: list[Event] = Field(
        default_factory=lambda: list(Event),
        title="Events",
        description="What to tell: started, approval_needed, gate_closed, awaiting_window, awaiting_run, ended; all"
        " unless given.",
    )

    @property
    def is_wanted(self) -> bool:
        return bool(self.channels and self.events)

    def channels_for(self, event: Event) -> list[str]:
        """The channels of the event, each once."""
        return list(dict.fromkeys(self.channels)) if event in self.events else []
