"""What patches a machine next and when: schedules, policies, cancelled runs, freezes, and what has no known time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.drift.fleet_index import FleetIndex
from patchwave.domain.drift.next_patching import NextPatching, PatchCalendar
from patchwave.domain.drift.patch_status_report import count_status, describe_status
from patchwave.domain.fleet.machine import FleetMachine
from patchwave.domain.fleet.patch_mode import PatchMode
from patchwave.domain.fleet.patch_status import LastAssessment, LastInstallation, PatchStatus
from patchwave.domain.policy.scope import OsType
from patchwave.domain.scheduling.freeze import Freeze
from tests.support.drift_fleet import NOW, assigned, configuration, configuration_id, facts, machine, policy

# NOW is Saturday the 21st, noon: the weekly schedule starts at 22:00, the policy on the second Tuesday, December 8th.
SATURDAY = datetime(2026, 11, 21, 22, tzinfo=UTC)
TUESDAY = datetime(2026, 12, 8, 22, tzinfo=UTC)
HANDED_OVER: dict[str, Any] = {"bypass": True}


def calendar(*machines: FleetMachine, now: datetime = NOW, **given: Any) -> PatchCalendar:
    known = {name: given.pop(name) for name in ("freezes", "canceled", "ended_runs") if name in given}
    return PatchCalendar(FleetIndex(facts(*machines, **given), now), **known)


def upcoming(found: PatchCalendar) -> list[NextPatching]:
    [coverage] = found.index.coverages
    return found.of(coverage)


def weekly(**given: Any) -> PatchCalendar:
    """One machine that follows the weekly schedule."""
    schedules: dict[str, Any] = {"configurations": [configuration()], "assignments": [assigned()]}
    return calendar(machine(**HANDED_OVER), **schedules, **given)


def freeze(**given: Any) -> Freeze:
    document = {"name": "year-end", "from": "2026-11-22T00:00:00Z", "to": "2026-12-20T00:00:00Z", "reason": "closing"}
    return Freeze.model_validate(document | given)


def test_a_schedule_patches_it_at_its_next_start():
    [found] = upcoming(weekly())
    assert (found.source, found.name, found.run) == ("schedule", "weekly", "20261121220000")
    assert (found.at, found.ends_at) == (SATURDAY, SATURDAY + timedelta(hours=2))


def test_a_cancelled_run_is_passed_over():
    identity = ConfigurationId.parse(configuration_id())
    [found] = upcoming(weekly(canceled={identity: {"20261121220000"}}))
    assert found.at == SATURDAY + timedelta(days=7)


def test_the_earliest_is_next():
    found = upcoming(weekly(policies=[policy()]))
    assert [(each.source, each.at) for each in found] == [("schedule", SATURDAY), ("policy", TUESDAY)]
    assert found[1].run == "20261208T220000Z-monthly"


def test_a_schedule_that_fails_on_the_machine_patches_nothing():
    schedules: dict[str, Any] = {"configurations": [configuration()], "assignments": [assigned()]}
    assert upcoming(calendar(machine(), **schedules)) == []


def test_a_schedule_that_has_ended_patches_nothing():
    ended = configuration(expires="2026-06-01 00:00")
    assert upcoming(calendar(machine(**HANDED_OVER), configurations=[ended], assignments=[assigned()])) == []


def test_azure_does_not_tell_when_it_patches_by_itself():
    [found] = upcoming(calendar(machine()))
    assert (found.source, found.name, found.at) == ("platform", "", None)
    assert "off-peak hours" in found.sentence


def test_what_has_no_known_time_is_last():
    found = upcoming(calendar(machine(), policies=[policy()]))
    assert [each.source for each in found] == ["policy", "platform"]


def test_windows_update_patches_it_whenever_it_decides_to():
    [found] = upcoming(calendar(machine(mode=PatchMode.AUTOMATIC_BY_OS, os_type=OsType.WINDOWS)))
    assert (found.source, found.at) == ("operating_system", None)


class TestPolicies:
    @pytest.mark.parametrize(
        "resting",
        [{"resting": "is paused by ann: holidays"}, {"enabled": False}, {"recurrence": ""}, {"mode": "assess"}],
    )
    def test_one_that_starts_nothing_does_not_count(self, resting: dict[str, Any]):
        assert upcoming(calendar(machine(**HANDED_OVER), policies=[policy(**resting)])) == []

    def test_a_freeze_of_the_policy_moves_it(self):
        found = upcoming(calendar(machine(**HANDED_OVER), policies=[policy()], freezes=[freeze()]))
        assert [each.at for each in found] == [datetime(2027, 1, 12, 22, tzinfo=UTC)]

    def test_a_freeze_on_tags_moves_only_the_machines_that_have_them(self):
        frozen = freeze(tags={"values": {"app": ["pay"]}})
        machines = (machine("a", tags={"app": "pay"}, **HANDED_OVER), machine("b", **HANDED_OVER))
        found = calendar(*machines, policies=[policy()], freezes=[frozen])
        held, free = (found.of(coverage)[0].at for coverage in found.index.coverages)
        assert (held, free) == (datetime(2027, 1, 12, 22, tzinfo=UTC), TUESDAY)

    def test_a_window_that_is_open_is_next_until_its_run_is_over(self):
        now = TUESDAY + timedelta(hours=1)
        found = calendar(machine(**HANDED_OVER), now=now, policies=[policy()])
        assert upcoming(found)[0].at == TUESDAY
        assert found.open_runs() == ["20261208T220000Z-monthly"]
        over = calendar(machine(**HANDED_OVER), now=now, policies=[policy()], ended_runs=found.open_runs())
        assert upcoming(over)[0].at == datetime(2027, 1, 12, 22, tzinfo=UTC)

    def test_a_window_that_has_closed_does_not_count(self):
        found = calendar(machine(**HANDED_OVER), now=TUESDAY + timedelta(hours=4), policies=[policy()])
        assert found.open_runs() == []
        assert upcoming(found)[0].at == datetime(2027, 1, 12, 22, tzinfo=UTC)

    def test_a_machine_that_is_held_waits_for_no_policy(self):
        held = machine(tags={"patchwave-hold": "until friday"}, **HANDED_OVER)
        assert upcoming(calendar(held, policies=[policy()])) == []


def test_the_fleet_in_numbers():
    found = calendar(machine("a"), machine("b"), machine("c", mode=PatchMode.IMAGE_DEFAULT))
    statuses = [
        PatchStatus(
            assessment=LastAssessment(critical_and_security=1, started_by="Platform"),
            installation=LastInstallation(result_status="Failed"),
            reboot_pending=True,
        ),
        PatchStatus(assessment=LastAssessment()),
        PatchStatus(),
    ]
    rows = [
        describe_status(coverage, status, found.of(coverage))
        for coverage, status in zip(found.index.coverages, statuses, strict=True)
    ]
    counts = count_status(rows)
    assert counts.by_enablement == {"enabled": 1, "in_progress": 2}
    assert counts.by_result == {"none": 2, "Failed": 1}
    assert (counts.pending, counts.reboot_pending, counts.not_assessed) == (1, 1, 1)
    assert counts.machines == sum(counts.by_enablement.values()) == sum(counts.by_result.values()) == 3
