"""What the records tell a new generation of a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.core.patches import InstallationSummary
from patchwave.domain.runs.checkpoint import count_failures, newest_end, resting_lanes, step_in_progress, was_begun
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.run import Step

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def machine(stage: Stage, outcome: OutcomeKind | None = None, **values: object) -> MachineRecord:
    record = MachineRecord(
        id="/subscriptions/1/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm",
        key="a" * 24,
        name="vm",
        subscription_id="1",
        resource_group="rg",
        ring="broad",
        lane="westeurope",
        wave=2,
        stage=stage,
        outcome=outcome,
    )
    return record.model_copy(update=values)


@pytest.mark.parametrize(
    ("stage", "unlocked", "locked"),
    [
        (Stage.WAITING, None, None),
        (Stage.ASSESSING, None, None),
        (Stage.ASSESSED, None, Step.PATCH),
        (Stage.INSTALLING, Step.PATCH, Step.PATCH),
        (Stage.VERIFYING, Step.PATCH, Step.PATCH),
        (Stage.INSTALLED, None, Step.RESTART),
        (Stage.RESTARTING, Step.RESTART, Step.RESTART),
        (Stage.DONE, None, None),
    ],
)
def test_machines_that_were_in_progress(stage: Stage, unlocked: Step | None, locked: Step | None) -> None:
    """With the lock of the run, hooks may have run and the power may have been changed."""
    assert step_in_progress(machine(stage), is_locked=False) is unlocked
    assert step_in_progress(machine(stage), is_locked=True) is locked


def test_a_ring_has_begun_when_something_was_done_to_one_of_its_machines() -> None:
    assert was_begun(machine(Stage.INSTALLING))
    assert was_begun(machine(Stage.INSTALLED))
    assert was_begun(machine(Stage.DONE, OutcomeKind.PATCHED))
    assert was_begun(machine(Stage.DONE, OutcomeKind.FAILED))
    assert not was_begun(machine(Stage.ASSESSED))
    assert not was_begun(machine(Stage.DONE, OutcomeKind.SKIPPED))
    assert not was_begun(machine(Stage.DONE, OutcomeKind.NOTHING_TO_INSTALL))


def test_failures_are_counted_by_scope_and_forgiven_up_to_the_last_resumption() -> None:
    failed = [
        machine(Stage.DONE, OutcomeKind.FAILED, ended_at=NOW - timedelta(hours=1)),
        machine(Stage.DONE, OutcomeKind.TIMED_OUT, ended_at=NOW + timedelta(hours=1), wave=3),
        machine(Stage.DONE, OutcomeKind.PATCHED, ended_at=NOW),
        machine(Stage.INSTALLING),
    ]
    failures, forgiven = count_failures(failed, NOW)
    assert failures == {
        "run": 2,
        "ring:broad": 2,
        "lane:broad/westeurope": 2,
        "wave:broad/westeurope/2": 1,
        "wave:broad/westeurope/3": 1,
    }
    assert forgiven == {"run": 1, "ring:broad": 1, "lane:broad/westeurope": 1, "wave:broad/westeurope/2": 1}
    assert not count_failures(failed, None)[1]


HOUR = timedelta(hours=1)


def patched(wave: int, minutes: int, **values: object) -> MachineRecord:
    return machine(Stage.DONE, OutcomeKind.PATCHED, wave=wave, ended_at=NOW + minutes * timedelta(minutes=1), **values)


def test_a_lane_rests_from_the_end_of_its_last_wave() -> None:
    waits = machine(Stage.ASSESSED, wave=2)
    assert resting_lanes([patched(1, 0), patched(1, 20), waits], HOUR) == {
        "broad/westeurope": NOW + timedelta(minutes=80)
    }
    assert resting_lanes([patched(1, 0), patched(1, 20), waits], None) == {}
    assert resting_lanes([], HOUR) == {}


def test_a_lane_whose_wave_is_not_over_or_whose_next_wave_has_begun_does_not_rest() -> None:
    assert resting_lanes([patched(1, 0), machine(Stage.INSTALLING, wave=1), machine(Stage.ASSESSED)], HOUR) == {}
    assert resting_lanes([patched(1, 0), machine(Stage.INSTALLING, wave=2), machine(Stage.ASSESSED)], HOUR) == {}
    assert resting_lanes([patched(1, 0), patched(2, 5), machine(Stage.ASSESSED, wave=2)], HOUR) == {}


def test_each_lane_rests_for_itself() -> None:
    ahead = [patched(1, 0), patched(2, 30), machine(Stage.ASSESSED, wave=3)]
    other = [patched(1, 10, lane="northeurope"), machine(Stage.ASSESSED, wave=2, lane="northeurope")]
    skipped = machine(Stage.DONE, OutcomeKind.SKIPPED, wave=4, ended_at=NOW - HOUR, lane="northeurope")
    assert resting_lanes([*ahead, *other, skipped], HOUR) == {
        "broad/westeurope": NOW + timedelta(minutes=90),
        "broad/northeurope": NOW + timedelta(minutes=0),
    }


def test_a_wave_whose_machines_wait_for_their_restart_is_over_for_its_patches_alone() -> None:
    installed = InstallationSummary(status="Succeeded", started_at=NOW)
    waits = [machine(Stage.INSTALLED, wave=number, installation=installed) for number in (1, 2)]
    assert resting_lanes([*waits[:1], machine(Stage.ASSESSED, wave=2)], HOUR) == {"broad/westeurope": NOW + HOUR}
    assert resting_lanes(waits, HOUR) == {}
    assert resting_lanes([patched(1, 30), waits[1]], HOUR) == {"broad/westeurope": NOW + timedelta(minutes=90)}
    assert resting_lanes([patched(1, 30), machine(Stage.RESTARTING, wave=2)], HOUR) == {}


def test_the_newest_end_is_that_of_the_last_machine() -> None:
    installed = InstallationSummary(status="Succeeded", started_at=NOW + HOUR)
    assert newest_end([]) is None
    assert newest_end([machine(Stage.ASSESSED)]) is None
    assert newest_end([patched(1, 5), patched(1, 3), machine(Stage.ASSESSED)]) == NOW + timedelta(minutes=5)
    assert newest_end([patched(1, 5), machine(Stage.INSTALLED, installation=installed)]) == NOW + HOUR


def test_failures_count_for_each_scope_and_what_was_accepted_beside_them() -> None:
    accepted = machine(Stage.DONE, OutcomeKind.FAILED, reason="patches_failed", ended_at=NOW)
    later = machine(Stage.DONE, OutcomeKind.FAILED, reason="patches_failed", ended_at=NOW + HOUR, wave=3)
    fine = machine(Stage.DONE, OutcomeKind.PATCHED, reason="ok", ended_at=NOW)
    failures, forgiven = count_failures([accepted, later, fine, machine(Stage.INSTALLING)], NOW)
    assert failures == {
        "run": 2,
        "ring:broad": 2,
        "lane:broad/westeurope": 2,
        "wave:broad/westeurope/2": 1,
        "wave:broad/westeurope/3": 1,
    }
    assert forgiven == {"run": 1, "ring:broad": 1, "lane:broad/westeurope": 1, "wave:broad/westeurope/2": 1}
    assert count_failures([accepted], None)[1] == {}


@pytest.mark.parametrize("outcome", list(OutcomeKind))
def test_what_was_not_touched_does_not_begin_a_ring(outcome: OutcomeKind) -> None:
    untouched = {"skipped", "canceled", "nothing_to_install"}
    assert was_begun(machine(Stage.DONE, outcome)) is (outcome.value not in untouched)
