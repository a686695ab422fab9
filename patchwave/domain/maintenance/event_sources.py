"""Which events may start anything: those of listed topics, about what their topic is the source of.

An event says of itself where it comes from, so a listed topic proves nothing: what an event names is looked up in Azure
besides, before anything is started.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from patchwave.domain.core.folding import fold
from patchwave.domain.maintenance.events import AzureEvent
from patchwave.domain.policy.boundary import Boundary

_SUBSCRIPTION = re.compile(r"/subscriptions/([^/]+)(?:/.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class EventSources:
    """The topics whose events count, as folded ARM ids, and the boundary around what they may be about."""

    topics: tuple[str, ...]
    boundary: Boundary

    @classmethod
    def of(cls, topics: Iterable[str], boundary: Boundary) -> Self:
        return cls(tuple(fold(topic).rstrip("/") for topic in topics), boundary)

    def reason_to_ignore(self, event: AzureEvent) -> str:
        """Why the event starts nothing, for the log; empty when it may."""
        topic = fold(event.topic).rstrip("/")
        found = _SUBSCRIPTION.fullmatch(topic)
        if found is None:
            return "it names no topic of Azure"
        if self.topics:
            if not any(_is_within(topic, listed) for listed in self.topics):
                return "its topic is not in PATCHWAVE_EVENT_TOPICS"
        elif not self.boundary.subscriptions:
            return "neither PATCHWAVE_EVENT_TOPICS nor PATCHWAVE_SUBSCRIPTIONS says which topics count"
        elif not self.boundary.holds(found[1]):
            return "the subscription of its topic is not in PATCHWAVE_SUBSCRIPTIONS"
        return self._reason_about(event, topic)

    def _reason_about(self, event: AzureEvent, topic: str) -> str:
        """Why the topic cannot speak of what the event names."""
        if event.machine is not None:
            subject, subscription = event.machine.folded, event.machine.subscription_id
        elif event.occurrence is not None:
            configuration = event.occurrence.id.configuration
            subject, subscription = configuration.folded, configuration.subscription_id
        else:
            return "it names no scheduled run"
        if not _is_within(subject, topic):
            return "its topic is not the source of what it names"
        return "" if self.boundary.holds(subscription) else "what it names is outside of PATCHWAVE_SUBSCRIPTIONS"


def _is_within(folded: str, place: str) -> bool:
    """Whether an ARM id is a place, or lies below it."""
    return folded == place or folded.startswith(f"{place}/")
