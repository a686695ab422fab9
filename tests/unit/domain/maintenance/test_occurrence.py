"""Scheduled runs as their events tell of them: ids, times, and the deadlines that follow."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.core.documents import Json
from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.maintenance.events import EventKind, read_event
from patchwave.domain.maintenance.occurrence import (
    EventTimeouts,
    OccurrenceId,
    OccurrenceNotice,
    ScheduledRun,
    from_first_event,
)
from patchwave.domain.policy.maintenance_section import MaintenanceHooks
from tests.support.occurrence_samples import CONFIGURATION, ID, START, SUBSCRIPTION

TIMEOUTS = EventTimeouts(prepare=timedelta(minutes=20), cutoff=timedelta(minutes=10), post=timedelta(hours=1))
DATA: Json = {
    "CorrelationId": ID,
    "MaintenanceConfigurationId": CONFIGURATION,
    "StartDateTime": "2026-11-21T03:00:00Z",
    "EndDateTime": "2026-11-21T05:30:00Z",
    "CancellationCutOffDateTime": "2026-11-21T02:59:00Z",
    "ResourceSubscriptionIds": [SUBSCRIPTION.upper()],
}


def notice(event_id: str = ID, **changes: Any) -> OccurrenceNotice:
    found = OccurrenceNotice.read(event_id, DATA | changes)
    assert found is not None
    return found


def scheduled(length: timedelta = timedelta(hours=2, minutes=30)) -> ScheduledRun:
    return ScheduledRun(OccurrenceId.parse(ID), START, START + length)


@pytest.mark.parametrize("casing", [str, str.lower, str.upper])
def test_both_casings_of_the_data_say_the_same(casing: Any) -> None:
    data = {casing(key): value for key, value in DATA.items()}
    found = OccurrenceNotice.read(ID, data)
    assert found is not None
    assert found == notice()
    assert (found.starts_at, found.is_on_time) == (START, True)


def test_an_event_without_its_data_is_read_from_its_id() -> None:
    found = OccurrenceNotice.read(ID, {})
    assert found is not None
    assert (found.starts_at, found.is_on_time) == (START, True)
    assert not notice(StartDateTime="2026-11-21T03:00:01Z").is_on_time
    assert OccurrenceNotice.read("e-1", {}) is None
    assert OccurrenceNotice.read("e-1", {"correlationId": f"{CONFIGURATION}/applyupdates/now"}) is None


@pytest.mark.parametrize("kind", [EventKind.BEFORE_MAINTENANCE, EventKind.AFTER_MAINTENANCE])
@pytest.mark.parametrize("word", ["eventType", "type"])
def test_events_of_both_schemas_have_the_scheduled_run(kind: EventKind, word: str) -> None:
    event = read_event({"id": ID, word: kind.value, "data": DATA})
    assert event is not None
    assert event.occurrence == notice()


@given(st.sampled_from([str, str.lower, str.upper]), st.sampled_from(["weekly", "a" * 32]))
def test_pre_and_post_build_one_run_id_whatever_their_case(casing: Any, policy: str) -> None:
    configuration, stamp = ID.split("/providers/microsoft.maintenance/applyupdates/")
    text = f"{casing(configuration)}/providers/{casing('microsoft.maintenance/applyupdates')}/{stamp}"
    run_id = OccurrenceId.parse(text).run_id(policy)
    assert run_id == OccurrenceId.parse(ID).run_id(policy)
    assert run_id.text.startswith(f"20261121T030000Z-{policy}-")
    assert run_id.parse(run_id.text) == run_id
    other = OccurrenceId.parse(ID.replace("weekly", "monthly"))
    assert other.run_id(policy) != run_id


def test_work_before_ends_in_twenty_minutes_and_early_enough_to_cancel() -> None:
    early = from_first_event(scheduled(), TIMEOUTS, START - timedelta(minutes=40))
    assert early.pre_deadline == START - timedelta(minutes=20)
    assert early.cancel_deadline == START - timedelta(minutes=10), "prose says ten minutes, the sample's field one"
    ahead = from_first_event(scheduled(), TIMEOUTS, START - timedelta(minutes=60))
    assert ahead == early, "an event before Azure's own costs no time"
    late = from_first_event(scheduled(), TIMEOUTS, START - timedelta(minutes=25))
    assert late.pre_deadline == START - timedelta(minutes=11)


@pytest.mark.parametrize(
    ("minutes", "is_timely"),
    [(-60 * 24 * 30, False), (-61, False), (-60, True), (-38, True), (0, True), (28 * 60, True), (29 * 60, False)],
)
def test_events_have_their_time(minutes: int, is_timely: bool) -> None:
    assert scheduled().is_timely(START + timedelta(minutes=minutes)) is is_timely


@given(st.integers(-120, 300), st.integers(0, 240))
def test_deadlines_are_in_order(minutes_before: int, length: int) -> None:
    now = START - timedelta(minutes=minutes_before)
    known = from_first_event(scheduled(timedelta(minutes=length)), TIMEOUTS, now)
    assert known.pre_deadline < known.cancel_deadline <= known.starts_at <= known.ends_at < known.post_deadline
    assert known.pre_deadline <= max(now, START - timedelta(minutes=40)) + TIMEOUTS.prepare
    assert json.loads(known.model_dump_json(by_alias=True))["id"] == ID


def test_a_policy_names_configurations_without_case_and_each_once() -> None:
    around = MaintenanceHooks(configurations=[CONFIGURATION.upper().replace("/SUBSCRIPTIONS", "/subscriptions")])
    assert around.names(ConfigurationId.parse(CONFIGURATION))
    assert not around.names(ConfigurationId.parse(CONFIGURATION.replace("weekly", "monthly")))
    for wrong in ([], ["weekly"], [CONFIGURATION, CONFIGURATION.lower()]):
        with pytest.raises(ValueError):
            MaintenanceHooks(configurations=wrong)


def test_before_the_start_all_times_are_corrected() -> None:
    received = START - timedelta(minutes=38)
    known = from_first_event(scheduled(), TIMEOUTS, received)
    known = known.model_copy(update={"pre_event_at": received, "status": "kept"})
    later = ScheduledRun(OccurrenceId.parse(ID), START + timedelta(minutes=5), START + timedelta(hours=3))
    now = known.corrected(later, TIMEOUTS, START - timedelta(minutes=20))
    assert (now.starts_at, now.ends_at) == (later.starts_at, later.ends_at)
    assert now.pre_deadline == START - timedelta(minutes=15), "from 40 minutes before the start that it has now"
    assert now.cancel_deadline == later.starts_at - timedelta(minutes=10)
    assert now.post_deadline == later.ends_at + timedelta(hours=1)
    assert (now.pre_event_at, now.status) == (received, "kept")
    assert known.corrected(scheduled(), TIMEOUTS, START - timedelta(minutes=20)) is known


@pytest.mark.parametrize(("hours", "ends"), [(1, 2.5), (3, 3)])
def test_a_run_that_has_begun_ends_no_earlier_than_it_was_to(hours: float, ends: float) -> None:
    known = from_first_event(scheduled(), TIMEOUTS, START - timedelta(minutes=38))
    changed = ScheduledRun(OccurrenceId.parse(ID), START + timedelta(hours=2), START + timedelta(hours=hours))
    now = known.corrected(changed, TIMEOUTS, START)
    assert (now.starts_at, now.ends_at) == (START, START + timedelta(hours=ends))
    assert now.post_deadline == START + timedelta(hours=ends + 1)
    assert now.cancel_deadline == known.cancel_deadline
