"""Which events count: listed topics, the boundary, and a topic that can speak of what the event names."""

from __future__ import annotations

import pytest

from patchwave.domain.core.ids import MachineId
from patchwave.domain.maintenance.event_sources import EventSources
from patchwave.domain.maintenance.events import AzureEvent, EventKind
from patchwave.domain.maintenance.occurrence import OccurrenceNotice
from patchwave.domain.policy.boundary import Boundary

OURS, THEIRS = "11111111-2222-4333-8444-555555555555", "99999999-2222-4333-8444-555555555555"
NOWHERE, BOUNDED = Boundary(), Boundary.of([OURS])
GROUP = f"/subscriptions/{OURS}/resourceGroups/rg-updates"
WEEKLY = f"{GROUP}/providers/Microsoft.Maintenance/maintenanceConfigurations/weekly"


def written(topic: str, subscription: str = OURS) -> AzureEvent:
    group = f"/subscriptions/{subscription}/resourceGroups/rg-web"
    machine = MachineId.parse(f"{group}/providers/Microsoft.Compute/virtualMachines/web-01")
    return AzureEvent(EventKind.RESOURCE_WRITTEN, "e-1", machine, topic=topic)


def before(topic: str, configuration: str = WEEKLY) -> AzureEvent:
    event_id = f"{configuration}/providers/microsoft.maintenance/applyupdates/20261121010000"
    notice = OccurrenceNotice.read(event_id, {})
    return AzureEvent(EventKind.BEFORE_MAINTENANCE, event_id, occurrence=notice, topic=topic)


@pytest.mark.parametrize(
    ("topics", "boundary", "event"),
    [
        ([f"/subscriptions/{OURS}"], NOWHERE, written(f"/subscriptions/{OURS}")),
        ([f"/Subscriptions/{OURS.upper()}/"], NOWHERE, written(f"/subscriptions/{OURS}/")),
        ([f"/subscriptions/{OURS}"], BOUNDED, before(WEEKLY.lower())),
        ([GROUP], NOWHERE, before(WEEKLY)),
        ([WEEKLY], NOWHERE, before(WEEKLY)),
        ([], BOUNDED, written(f"/subscriptions/{OURS}/resourceGroups/rg-web")),
    ],
)
def test_events_of_listed_topics_count(topics: list[str], boundary: Boundary, event: AzureEvent) -> None:
    assert EventSources.of(topics, boundary).reason_to_ignore(event) == ""


@pytest.mark.parametrize(
    ("topics", "boundary", "event", "why"),
    [
        ([], NOWHERE, written(f"/subscriptions/{OURS}"), "neither"),
        ([], BOUNDED, written(f"/subscriptions/{THEIRS}", THEIRS), "the subscription of its topic"),
        ([f"/subscriptions/{OURS}"], NOWHERE, written(f"/subscriptions/{THEIRS}", THEIRS), "PATCHWAVE_EVENT_TOPICS"),
        ([f"/subscriptions/{OURS}"], NOWHERE, written(f"/subscriptions/{OURS}0", THEIRS), "PATCHWAVE_EVENT_TOPICS"),
        ([WEEKLY], NOWHERE, before(WEEKLY + "-2", WEEKLY + "-2"), "PATCHWAVE_EVENT_TOPICS"),
        ([f"/subscriptions/{OURS}"], NOWHERE, written(""), "no topic of Azure"),
        ([f"/subscriptions/{OURS}"], NOWHERE, written("my-topic"), "no topic of Azure"),
        # A listed topic speaks of itself only.
        ([f"/subscriptions/{OURS}"], NOWHERE, written(f"/subscriptions/{OURS}", THEIRS), "not the source"),
        ([WEEKLY], NOWHERE, before(WEEKLY, WEEKLY + "-2"), "not the source"),
        ([f"/subscriptions/{THEIRS}"], BOUNDED, written(f"/subscriptions/{THEIRS}", THEIRS), "outside of"),
        ([WEEKLY], NOWHERE, AzureEvent(EventKind.AFTER_MAINTENANCE, "e", topic=WEEKLY), "no scheduled run"),
    ],
)
def test_no_other_event_counts(topics: list[str], boundary: Boundary, event: AzureEvent, why: str) -> None:
    assert why in EventSources.of(topics, boundary).reason_to_ignore(event)
