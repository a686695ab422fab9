"""patch_machine: every way through a step ends with exactly one word to the records and one to the phase."""

from __future__ import annotations

import itertools
import time
from datetime import datetime
from typing import Any

import pytest
from durabletask.client import OrchestrationStatus

from local.functions_host.durable.workbench import Workbench
from orchestrators.machine import patch_machine
from orchestrators.operation import MAX_REFUSALS, await_operation
from orchestrators.preflight import MAX_POLLS
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.patch_results import InstallResult
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary, Selection
from patchwave.domain.machine.health import HealthResult, HealthState
from patchwave.domain.machine.preflight import Preflight, Readiness
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Mode, Step
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.machine import MachineEnded, MachineWork, PowerResult, PreflightResult, Verified
from patchwave.domain.workflow.operation import OperationReport, OperationState, StartResult, StartState
from patchwave.domain.workflow.run import MachineOptions
from tests.support import scripted_fleet
from tests.support.scripted_fleet import Fleet, Script

KEY = "b" * 24


def run(fleet: Fleet, *, step: Step = Step.PATCH, mode: Mode = Mode.PATCH, **options: bool) -> Workbench:
    work = MachineWork(
        run_id=scripted_fleet.RUN_ID,
        machine_key=KEY,
        step=step,
        options=MachineOptions(mode=mode).model_copy(update=options),
        phase="phase",
        attempt=3,
    )
    with Workbench([patch_machine, await_operation], fleet.activities()) as bench:
        ended = bench.run(contracts.PATCH_MACHINE.name, work.to_wire())
        assert ended.status is OrchestrationStatus.COMPLETED
        completion = MachineEnded.model_validate(ended.output)
        assert (completion.key, completion.attempt) == (KEY, 3)
        if fleet.scripts[KEY].breaks != contracts.RECORD_OUTCOME.name:
            assert fleet.completions["phase"].pop() == completion, "the phase always gets the completion"
        fleet.completions["phase"] = [completion]
        return bench


def completion(fleet: Fleet) -> MachineEnded:
    """What the phase gets at the end of the machine."""
    return fleet.completions["phase"][0]


def outcome_of(script: Script, **options: Any) -> tuple[str, str]:
    fleet = Fleet([KEY], {KEY: script})
    run(fleet, **options)
    return fleet.outcomes[KEY]


# --- the assess step


def test_assess_step_releases_a_machine_with_pending_patches() -> None:
    fleet = Fleet([KEY])
    run(fleet, step=Step.ASSESS)
    assert fleet.recorded == {}
    assert fleet.released[KEY] == 1
    assert fleet.accepted == {(KEY, "assess"): 1}


def test_assess_step_ends_a_machine_with_nothing_pending() -> None:
    assert outcome_of(Script(assess_polls=[scripted_fleet.CLEAN]), step=Step.ASSESS) == (
        "nothing_to_install",
        "no_pending_patches",
    )


UNSELECTED = AssessmentSummary(status="Succeeded", other=3, selection=Selection(installable=0))
"""Patches are pending, and the policy selects none of them."""


@pytest.mark.parametrize("step", [Step.ASSESS, Step.PATCH])
def test_a_machine_with_only_unselected_patches_is_sent_no_installation(step: Step) -> None:
    report = OperationReport(state=OperationState.ENDED, assessment=UNSELECTED)
    fleet = Fleet([KEY], {KEY: Script(assess_polls=[report])})
    bench = run(fleet, step=step)
    assert fleet.outcomes[KEY] == ("nothing_to_install", "no_pending_patches")
    assert bench.calls_of(contracts.INSTALL_PATCHES.name) == []


def test_a_policy_without_hooks_runs_none() -> None:
    fleet = Fleet([KEY])
    bench = run(fleet)
    assert (bench.calls_of(contracts.TAKE_SNAPSHOT.name), bench.calls_of(contracts.RUN_SCRIPT.name)) == ([], [])
    assert "script" not in fleet.recorded[KEY][0]["outcome"]["message"]


def test_assess_run_ends_with_assessed() -> None:
    assert outcome_of(Script(), step=Step.ASSESS, mode=Mode.ASSESS) == ("assessed", "patches_pending")


def test_a_machine_that_will_be_started_is_assessed_later() -> None:
    fleet = Fleet([KEY], {KEY: Script(preflights=[scripted_fleet.NEEDS_START])})
    run(fleet, step=Step.ASSESS, start_stopped=True)
    assert fleet.recorded == {}
    assert fleet.released[KEY] == 1
    assert not fleet.accepted
    assert not fleet.power


def test_an_assess_run_starts_no_machine() -> None:
    fleet = Fleet([KEY], {KEY: Script(preflights=[scripted_fleet.STOPPED])})
    bench = run(fleet, step=Step.ASSESS, mode=Mode.ASSESS, start_stopped=True)
    assert bench.calls_of(contracts.PREFLIGHT_MACHINE.name)[0]["startStopped"] is False
    assert fleet.outcomes[KEY] == ("skipped", "not_running")


def test_a_passing_failure_of_an_assessment_is_tried_three_times() -> None:
    fleet = Fleet([KEY], {KEY: Script(assess_polls=[scripted_fleet.PASSING])})
    run(fleet, step=Step.ASSESS)
    assert fleet.accepted == {(KEY, "assess"): 3}
    assert fleet.outcomes[KEY] == ("failed", "operation_failed")


def test_a_permanent_failure_of_an_assessment_is_not_repeated() -> None:
    image = ArmFailure(
        status=200, code="X", message="CPU Architecture 'arm64' was not found in the extension repository"
    )
    fleet = Fleet([KEY], {KEY: Script(assess_polls=[OperationReport(state=OperationState.FAILED, failure=image)])})
    run(fleet, step=Step.ASSESS)
    assert fleet.accepted == {(KEY, "assess"): 1}
    assert fleet.outcomes[KEY] == ("skipped", "unsupported")


def test_a_machine_that_was_patched_by_other_means_is_assessed_anew() -> None:
    """The preflight counts the earlier assessment: this is the second one, and has all its attempts."""
    outdated = scripted_fleet.READY.model_copy(update={"assess_attempt": 2})
    fleet = Fleet(
        [KEY],
        {
            KEY: Script(
                preflights=[outdated],
                assess_polls=[scripted_fleet.PASSING, scripted_fleet.PASSING, scripted_fleet.CLEAN],
            )
        },
    )
    bench = run(fleet)
    assert [call["attempt"] for call in bench.calls_of(contracts.ASSESS_MACHINE.name)] == [2, 3, 4]
    assert fleet.outcomes[KEY] == ("nothing_to_install", "no_pending_patches")
    assert (KEY, "install") not in fleet.accepted


# --- preflights


def test_a_machine_that_stays_locked_is_skipped_after_a_bounded_number_of_preflights() -> None:
    fleet = Fleet([KEY], {KEY: Script(preflights=[scripted_fleet.LOCKED])})
    bench = run(fleet)
    assert len(bench.calls_of(contracts.PREFLIGHT_MACHINE.name)) == MAX_POLLS
    assert fleet.outcomes[KEY] == ("skipped", "locked_by_run")
    assert not fleet.accepted


def test_a_machine_that_becomes_ready_is_patched() -> None:
    assert outcome_of(Script(preflights=[scripted_fleet.LOCKED, scripted_fleet.LOCKED, scripted_fleet.READY])) == (
        "patched",
        "ok",
    )


# --- submitting


def test_throttling_uses_up_no_retries() -> None:
    fleet = Fleet([KEY], {KEY: Script(install_starts=[scripted_fleet.THROTTLED] * 30 + [scripted_fleet.ACCEPTED])})
    run(fleet)
    assert fleet.outcomes[KEY] == ("patched", "ok")


def test_throttling_for_ever_ends_with_a_bounded_history() -> None:
    fleet = Fleet([KEY], {KEY: Script(install_starts=[scripted_fleet.THROTTLED])})
    bench = run(fleet)
    # For a day it is sent; then nothing more is, and what the last one came to is asked for as long.
    last = [call["isLast"] for call in bench.calls_of(contracts.INSTALL_PATCHES.name)]
    assert last == sorted(last)
    assert 120 <= last.count(False) <= 150
    assert 120 <= last.count(True) <= 150
    assert fleet.outcomes[KEY] == ("unknown", "operation_lost")


def test_a_busy_machine_is_skipped() -> None:
    fleet = Fleet([KEY], {KEY: Script(install_starts=[scripted_fleet.BUSY])})
    bench = run(fleet)
    assert len(bench.calls_of(contracts.INSTALL_PATCHES.name)) == MAX_REFUSALS
    assert fleet.outcomes[KEY] == ("skipped", "operation_conflict")


def test_a_post_without_a_known_answer_ends_unknown_and_keeps_the_lock() -> None:
    fleet = Fleet([KEY], {KEY: Script(install_starts=[StartResult(state=StartState.WAIT, wait_seconds=30)])})
    run(fleet)
    assert fleet.outcomes[KEY] == ("unknown", "operation_lost")
    assert fleet.recorded[KEY][0]["keepLease"] is True


def test_a_stopped_run_starts_nothing() -> None:
    ended = StartResult(state=StartState.ENDED, outcome=Outcome.canceled())
    fleet = Fleet([KEY], {KEY: Script(assess_starts=[ended], install_starts=[ended])})
    run(fleet)
    assert fleet.outcomes[KEY] == ("canceled", "canceled_by_user")
    assert not fleet.accepted


def test_a_cancelled_assessment_is_no_installation_and_keeps_no_lock() -> None:
    fleet = Fleet([KEY], {KEY: Script(assess_polls=[scripted_fleet.RUNNING, scripted_fleet.CANCELED])})
    run(fleet)
    assert fleet.outcomes[KEY] == ("canceled", "canceled_by_user")
    assert fleet.recorded[KEY][0]["outcome"]["message"] == (
        "The run was cancelled before anything was installed on this machine."
    )
    assert fleet.recorded[KEY][0]["keepLease"] is False


def test_a_machine_is_stopped_again_when_its_assessment_is_cancelled() -> None:
    script = Script(
        preflights=[scripted_fleet.NEEDS_START, scripted_fleet.READY], assess_polls=[scripted_fleet.CANCELED]
    )
    fleet = Fleet([KEY], {KEY: script})
    run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("canceled", "canceled_by_user")
    assert fleet.power == [("start", KEY), ("stop", KEY)]


# --- the installation


@pytest.mark.parametrize(
    ("report", "outcome", "keeps_lease"),
    [
        (scripted_fleet.PASSING, ("failed", "operation_failed"), False),
        (scripted_fleet.LOST, ("unknown", "operation_lost"), True),
        (scripted_fleet.OVERDUE, ("timed_out", "deadline"), True),
        (scripted_fleet.CANCELED, ("left_running", "canceled_by_user"), True),
    ],
    ids=lambda value: value.state.value if isinstance(value, OperationReport) else "",
)
def test_an_accepted_installation_is_never_posted_again(
    report: OperationReport, outcome: tuple[str, str], keeps_lease: bool
) -> None:
    fleet = Fleet([KEY], {KEY: Script(install_polls=[scripted_fleet.RUNNING, report])})
    run(fleet)
    assert fleet.outcomes[KEY] == outcome
    assert fleet.accepted[KEY, "install"] == 1
    assert fleet.recorded[KEY][0]["keepLease"] is keeps_lease


def test_a_rebooting_machine_is_waited_for() -> None:
    fleet = Fleet(
        [KEY], {KEY: Script(verifications=[scripted_fleet.BOOTING, scripted_fleet.BOOTING, scripted_fleet.READY_AGAIN])}
    )
    bench = run(fleet)
    assert len(bench.calls_of(contracts.VERIFY_MACHINE.name)) == 3
    assert fleet.outcomes[KEY] == ("patched", "ok")
    assert fleet.recorded[KEY][0]["installation"]["installed"] == 3


GONE = Verified(is_ready=False, is_gone=True, wait_seconds=30)


def test_a_machine_that_is_deleted_after_its_installation_is_gone_and_no_failure() -> None:
    """Nothing more is asked of it: neither its health nor a script."""
    fleet = Fleet([KEY], {KEY: Script(verifications=[scripted_fleet.BOOTING, GONE], health=[scripted_fleet.UNWELL])})
    bench = run(fleet)
    assert len(bench.calls_of(contracts.VERIFY_MACHINE.name)) == 3
    assert fleet.outcomes[KEY] == ("skipped", "not_found")
    assert "it was deleted after 3 patches were installed" in fleet.recorded[KEY][0]["outcome"]["message"]
    assert fleet.recorded[KEY][0]["installation"]["installed"] == 3
    assert completion(fleet).failed is False


def test_one_answer_that_a_machine_does_not_exist_is_not_believed() -> None:
    script = Script(verifications=[GONE, scripted_fleet.BOOTING, GONE, scripted_fleet.READY_AGAIN])
    assert outcome_of(script) == ("patched", "ok")


def test_an_installation_whose_machine_is_deleted_is_gone() -> None:
    failure = ArmFailure(status=404, code="ResourceNotFound", message="The Resource was not found.")
    report = OperationReport(state=OperationState.FAILED, failure=failure)
    assert outcome_of(Script(install_polls=[scripted_fleet.RUNNING, report])) == ("skipped", "not_found")
    assert outcome_of(Script(assess_polls=[report], preflights=[scripted_fleet.READY])) == ("skipped", "not_found")


def test_a_machine_that_is_deleted_around_its_restart_is_gone() -> None:
    missing = Outcome.skipped(Reason.NOT_FOUND, "The machine no longer exists.")
    never = PreflightResult(preflight=Preflight(readiness=Readiness.SKIP, outcome=missing))
    assert restarted(Script(preflights=[never])).outcomes[KEY] == ("skipped", "not_found")
    assert restarted(Script(verifications=[GONE])).outcomes[KEY] == ("skipped", "not_found")


def test_a_pending_reboot_is_in_the_outcome() -> None:
    required = OperationReport(
        state=OperationState.ENDED,
        installation=InstallResult.model_validate(
            {"status": "Succeeded", "installedPatchCount": 1, "rebootStatus": "Required"}
        ),
    )
    silent = scripted_fleet.READY_AGAIN.model_copy(update={"reboot_pending": None})
    assert outcome_of(Script(install_polls=[required], verifications=[silent])) == ("reboot_required", "reboot_pending")
    assert outcome_of(Script(install_polls=[required])) == ("patched", "ok"), "it was rebooted since"


# --- power


def test_a_stopped_machine_is_started_assessed_patched_and_stopped() -> None:
    fleet = Fleet(
        [KEY], {KEY: Script(preflights=[scripted_fleet.NEEDS_START, scripted_fleet.LOCKED, scripted_fleet.READY])}
    )
    run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("patched", "ok")
    assert fleet.accepted == {(KEY, "assess"): 1, (KEY, "install"): 1}
    assert fleet.power == [("start", KEY), ("stop", KEY)]


def test_a_start_that_got_lost_is_sent_again() -> None:
    fleet = Fleet(
        [KEY], {KEY: Script(preflights=[scripted_fleet.NEEDS_START, scripted_fleet.NEEDS_START, scripted_fleet.READY])}
    )
    run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("patched", "ok")
    assert fleet.power == [("start", KEY), ("start", KEY), ("stop", KEY)]


def test_a_machine_that_stays_stopped_is_not_started_for_ever() -> None:
    """The activity fails after a quarter of an hour; should it not, the orchestration does."""
    timed_out = PowerResult(accepted=False, failure=ArmFailure(status=0, message="It is off still"))
    taken = PowerResult(accepted=True, wait_seconds=30)
    script = Script(
        preflights=[scripted_fleet.NEEDS_START] * 5 + [scripted_fleet.STOPPED], starts=[taken] * 4 + [timed_out]
    )
    fleet = Fleet([KEY], {KEY: script})
    bench = run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("skipped", "not_running")
    assert fleet.recorded[KEY][0]["outcome"]["message"] == ("The machine could not be started: It is off still.")
    assert fleet.power == [("start", KEY)] * 5 + [("stop", KEY)]
    assert {call["since"] for call in bench.calls_of(contracts.START_MACHINE.name)} == {
        bench.calls_of(contracts.START_MACHINE.name)[0]["since"]
    }, "one change of power, however many calls"
    fleet = Fleet([KEY], {KEY: Script(preflights=[scripted_fleet.NEEDS_START] * 60 + [scripted_fleet.STOPPED])})
    run(fleet, start_stopped=True)
    assert fleet.power == [("start", KEY)] * 60 + [("stop", KEY)]
    assert fleet.outcomes[KEY] == ("skipped", "not_running")


def test_a_temporarily_refused_start_is_retried() -> None:
    busy = PowerResult(accepted=False, wait_seconds=30, failure=ArmFailure(status=409, code="OperationNotAllowed"))
    accepted = PowerResult(accepted=True, wait_seconds=30)
    script = Script(
        preflights=[scripted_fleet.NEEDS_START, scripted_fleet.NEEDS_START, scripted_fleet.READY],
        starts=[busy, accepted],
    )
    fleet = Fleet([KEY], {KEY: script})
    run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("patched", "ok")
    assert fleet.power == [("start", KEY), ("start", KEY), ("stop", KEY)]


def test_a_run_that_is_stopped_meanwhile_starts_no_machine() -> None:
    busy = PowerResult(accepted=False, wait_seconds=30, failure=ArmFailure(status=429))
    ended = Outcome(outcome=OutcomeKind.CANCELED, reason=Reason.CANCELED_BY_USER, message="The run was canceled.")
    canceled = scripted_fleet.STOPPED.model_copy(
        update={"preflight": Preflight(readiness=Readiness.SKIP, outcome=ended)}
    )
    fleet = Fleet([KEY], {KEY: Script(preflights=[scripted_fleet.NEEDS_START, canceled], starts=[busy])})
    run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY][0] == "canceled"
    assert fleet.power.count(("start", KEY)) == 1


def test_a_stop_that_got_lost_or_is_refused_for_a_while_is_sent_again() -> None:
    lost = PowerResult(accepted=False, wait_seconds=30, failure=ArmFailure(status=0))
    script = Script(
        preflights=[scripted_fleet.NEEDS_START, scripted_fleet.READY], stops=[lost, lost, PowerResult(accepted=True)]
    )
    fleet = Fleet([KEY], {KEY: script})
    run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("patched", "ok")
    assert "stopped again" not in fleet.recorded[KEY][0]["outcome"]["message"]
    assert fleet.power == [("start", KEY)] + [("stop", KEY)] * 3


def test_a_machine_that_a_person_stops_while_it_boots_is_not_started_again() -> None:
    """Once it was seen to boot, no preflight may request a start: that of a stopped machine would."""
    fleet = Fleet(
        [KEY],
        {
            KEY: Script(
                preflights=[
                    scripted_fleet.NEEDS_START,
                    scripted_fleet.LOCKED,
                    scripted_fleet.LOCKED,
                    scripted_fleet.STOPPED,
                ]
            )
        },
    )
    bench = run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("skipped", "not_running")
    assert fleet.power == [("start", KEY), ("stop", KEY)]
    assert [call["startStopped"] for call in bench.calls_of(contracts.PREFLIGHT_MACHINE.name)] == [
        True,
        True,
        False,
        False,
    ]


def test_a_machine_that_boots_for_long_is_waited_for() -> None:
    fleet = Fleet(
        [KEY],
        {KEY: Script(preflights=[scripted_fleet.NEEDS_START] + [scripted_fleet.LOCKED] * 20 + [scripted_fleet.READY])},
    )
    bench = run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("patched", "ok")
    assert len(bench.calls_of(contracts.PREFLIGHT_MACHINE.name)) == 22
    fleet = Fleet(
        [KEY],
        {KEY: Script(preflights=[scripted_fleet.NEEDS_START] + [scripted_fleet.LOCKED] * 22 + [scripted_fleet.READY])},
    )
    run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("skipped", "locked_by_run")


def test_the_refusal_of_a_start_is_in_the_outcome() -> None:
    locked = ArmFailure(status=403, code="AuthorizationFailed", message="no right to start")
    script = Script(
        preflights=[scripted_fleet.NEEDS_START, scripted_fleet.STOPPED],
        starts=[PowerResult(accepted=False, failure=locked)],
    )
    fleet = Fleet([KEY], {KEY: script})
    run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("skipped", "forbidden")
    assert "no right to start" in fleet.recorded[KEY][0]["outcome"]["message"]


def test_a_machine_that_never_gets_ready_is_stopped_again() -> None:
    fleet = Fleet([KEY], {KEY: Script(preflights=[scripted_fleet.NEEDS_START, scripted_fleet.LOCKED])})
    run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY][0] == "skipped"
    assert fleet.power == [("start", KEY), ("stop", KEY)]


def test_a_machine_that_still_installs_is_not_stopped() -> None:
    fleet = Fleet(
        [KEY],
        {
            KEY: Script(
                preflights=[scripted_fleet.NEEDS_START, scripted_fleet.READY], install_polls=[scripted_fleet.CANCELED]
            )
        },
    )
    run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY][0] == "left_running"
    assert fleet.power == [("start", KEY)]
    assert fleet.recorded[KEY][0]["outcome"]["message"].endswith(
        "It was started for this and is left on, as something may still run in the guest."
    )


def test_a_machine_that_cannot_be_stopped_again_is_a_warning() -> None:
    refused = PowerResult(accepted=False, failure=ArmFailure(status=403, code="AuthorizationFailed"))
    fleet = Fleet([KEY], {KEY: Script(preflights=[scripted_fleet.NEEDS_START, scripted_fleet.READY], stops=[refused])})
    run(fleet, start_stopped=True)
    outcome = fleet.recorded[KEY][0]["outcome"]
    assert (outcome["outcome"], outcome["reason"]) == ("patched_with_warnings", "power_not_restored")
    assert "3 patches are installed" in outcome["message"]
    assert "could not be stopped again" in outcome["message"]
    assert "AuthorizationFailed" in outcome["message"]
    assert fleet.recorded[KEY][0]["keepLease"] is False


def test_a_stop_that_azure_may_still_carry_out_keeps_the_lock() -> None:
    taken = PowerResult(
        accepted=False, is_open=True, failure=ArmFailure(status=0, message="Azure took the call, and it still runs")
    )
    fleet = Fleet([KEY], {KEY: Script(preflights=[scripted_fleet.NEEDS_START, scripted_fleet.READY], stops=[taken])})
    run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("patched_with_warnings", "power_not_restored")
    assert fleet.recorded[KEY][0]["keepLease"] is True


def test_a_requeued_machine_keeps_its_lock_while_azure_may_still_stop_it() -> None:
    taken = PowerResult(accepted=False, is_open=True, failure=ArmFailure(status=0, message="it still runs"))
    for stops, keeps in (([taken], True), ([PowerResult(accepted=True)], False)):
        script = Script(
            preflights=[scripted_fleet.NEEDS_START, scripted_fleet.READY],
            install_starts=[scripted_fleet.REQUEUED],
            stops=stops,
        )
        fleet = Fleet([KEY], {KEY: script})
        bench = run(fleet, start_stopped=True)
        [released] = bench.calls_of(contracts.RELEASE_MACHINE.name)
        assert (released["requeued"], released["stage"], released["keepLease"]) == (True, "ready", keeps)


def test_a_stop_is_followed_until_the_machine_shows_it_within_bounds() -> None:
    in_progress = PowerResult(accepted=False, wait_seconds=30, is_open=True)
    stops = [in_progress] * 5 + [PowerResult(accepted=True)]
    fleet = Fleet([KEY], {KEY: Script(preflights=[scripted_fleet.NEEDS_START, scripted_fleet.READY], stops=stops)})
    bench = run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("patched", "ok")
    assert len({call["since"] for call in bench.calls_of(contracts.STOP_MACHINE.name)}) == 1
    fleet = Fleet(
        [KEY], {KEY: Script(preflights=[scripted_fleet.NEEDS_START, scripted_fleet.READY], stops=[in_progress])}
    )
    run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("patched_with_warnings", "power_not_restored")
    assert fleet.power == [("start", KEY)] + [("stop", KEY)] * 60
    assert "the machine did not show it in time" in fleet.recorded[KEY][0]["outcome"]["message"]


def test_an_outage_after_the_installation_does_not_hide_its_result() -> None:
    fleet = Fleet(
        [KEY],
        {
            KEY: Script(
                preflights=[scripted_fleet.NEEDS_START, scripted_fleet.READY], breaks=contracts.STOP_MACHINE.name
            )
        },
    )
    run(fleet, start_stopped=True)
    outcome = fleet.recorded[KEY][0]["outcome"]
    assert (outcome["outcome"], outcome["reason"]) == ("patched_with_warnings", "power_not_restored")
    assert "3 patches are installed" in outcome["message"]
    assert "may not be stopped again" in outcome["message"]
    assert fleet.recorded[KEY][0]["keepLease"] is True


# --- what fails for a while, and what fails for good


@pytest.mark.parametrize(
    "activity", [contracts.PREFLIGHT_MACHINE.name, contracts.ASSESS_MACHINE.name, contracts.INSTALL_PATCHES.name]
)
def test_an_outage_of_some_minutes_ends_no_machine(activity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a call that Azure accepted, only the next execution finds out and follows the operation."""
    fleet = Fleet([KEY])
    activities = fleet.activities()
    failures = 0

    def away(data: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures <= 8:
            raise scripted_fleet.Broken("the storage is away")
        return activities[activity](data)

    monkeypatch.setattr(fleet, "activities", lambda: activities | {activity: away})
    run(fleet)
    assert fleet.outcomes[KEY] == ("patched", "ok")


def test_an_unreadable_result_of_an_activity_is_recorded_and_completes_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = Fleet([KEY])
    activities = fleet.activities() | {contracts.PREFLIGHT_MACHINE.name: lambda _: {"preflight": "none"}}
    monkeypatch.setattr(fleet, "activities", lambda: activities)
    run(fleet)
    assert fleet.outcomes[KEY] == ("unknown", "internal")
    assert completion(fleet).failed


@pytest.mark.parametrize(
    ("step", "breaks", "outcome"),
    [
        (Step.ASSESS, contracts.PREFLIGHT_MACHINE.name, ("failed", "internal")),
        (Step.PATCH, contracts.INSTALL_PATCHES.name, ("unknown", "internal")),
        (Step.PATCH, contracts.POLL_OPERATION.name, ("unknown", "internal")),
        (Step.PATCH, contracts.VERIFY_MACHINE.name, ("unknown", "internal")),
    ],
)
def test_what_is_thrown_is_recorded_and_keeps_the_lock(step: Step, breaks: str, outcome: tuple[str, str]) -> None:
    fleet = Fleet([KEY], {KEY: Script(breaks=breaks)})
    run(fleet, step=step)
    assert fleet.outcomes[KEY] == outcome
    assert fleet.recorded[KEY][0]["keepLease"] is True
    assert "the storage is away" in fleet.recorded[KEY][0]["outcome"]["message"]


def test_when_even_the_record_fails_it_counts_as_a_failure() -> None:
    fleet = Fleet([KEY], {KEY: Script(breaks=contracts.RECORD_OUTCOME.name)})
    run(fleet)
    assert fleet.recorded == {}
    assert completion(fleet).failed


# --- requeued


def test_a_machine_without_a_permit_is_requeued_with_nothing_sent() -> None:
    fleet = Fleet([KEY], {KEY: Script(install_starts=[scripted_fleet.REQUEUED])})
    run(fleet)
    assert completion(fleet).requeued
    assert not completion(fleet).failed
    assert fleet.recorded == {}
    assert fleet.stages[KEY] is Stage.ASSESSED
    assert fleet.accepted == {(KEY, "assess"): 1}


def test_a_machine_that_was_started_for_nothing_is_stopped_before_it_is_requeued() -> None:
    fleet = Fleet(
        [KEY],
        {
            KEY: Script(
                preflights=[scripted_fleet.NEEDS_START, scripted_fleet.READY], install_starts=[scripted_fleet.REQUEUED]
            )
        },
    )
    run(fleet, start_stopped=True)
    assert completion(fleet).requeued
    assert fleet.power == [("start", KEY), ("stop", KEY)]


def test_a_machine_that_an_earlier_attempt_left_running_is_stopped_at_its_end() -> None:
    still_runs = scripted_fleet.READY.model_copy(update={"powered_on_by_run": True})
    fleet = Fleet([KEY], {KEY: Script(preflights=[still_runs])})
    run(fleet, start_stopped=True)
    assert fleet.outcomes[KEY] == ("patched", "ok")
    assert fleet.power == [("stop", KEY)]


# --- completions for the phase


@pytest.mark.parametrize(
    ("script", "failed"),
    [
        (Script(), False),
        (Script(install_polls=[scripted_fleet.BROKEN]), True),
        (Script(install_polls=[scripted_fleet.LOST]), True),
        (Script(preflights=[scripted_fleet.STOPPED]), False),
    ],
    ids=["patched", "failed", "lost", "skipped"],
)
def test_the_completion_says_whether_the_end_uses_the_error_budget(script: Script, failed: bool) -> None:
    fleet = Fleet([KEY], {KEY: script})
    run(fleet)
    assert completion(fleet).failed is failed


# --- health


def test_a_machine_that_became_unhealthy_has_failed_although_it_is_patched() -> None:
    fleet = Fleet([KEY], {KEY: Script(health=[scripted_fleet.WELL, scripted_fleet.SETTLING, scripted_fleet.UNWELL])})
    run(fleet, health=True)
    assert fleet.outcomes[KEY] == ("failed", "unhealthy")
    assert fleet.recorded[KEY][0]["installation"]["installed"] == 3
    assert "3 patches are installed" in fleet.recorded[KEY][0]["outcome"]["message"]
    assert completion(fleet).failed
    asked = fleet.calls_of(contracts.CHECK_HEALTH.name)
    assert [(call["moment"], call["lookedFor"]) for call in asked] == [("before", 0), ("after", 0), ("after", 30)]


def test_a_veto_before_the_installation_leaves_the_machine_alone() -> None:
    veto = HealthResult(
        state=HealthState.UNHEALTHY, outcome=Outcome.skipped(Reason.ALERT_FIRING, "The alert cpu fires.")
    )
    fleet = Fleet([KEY], {KEY: Script(health=[veto])})
    run(fleet, health=True)
    assert fleet.outcomes[KEY] == ("skipped", "alert_firing")
    assert (KEY, "install") not in fleet.accepted
    assert not completion(fleet).failed


@pytest.mark.parametrize("wait", ["health", "boot"])
def test_a_cancel_ends_a_wait_at_once_and_only_the_first(wait: str) -> None:
    long = HealthResult(state=HealthState.WAIT, wait_seconds=780)
    busy = scripted_fleet.NEEDS_START.model_copy(
        update={"preflight": scripted_fleet.LOCKED.preflight, "wait_seconds": 780}
    )
    ended = PreflightResult(preflight=Preflight(readiness=Readiness.SKIP, outcome=Outcome.canceled()))
    script = {
        "health": Script(health=[scripted_fleet.WELL, long, long, scripted_fleet.WELL]),
        "boot": Script(preflights=[scripted_fleet.NEEDS_START, busy, busy, busy, ended]),
    }[wait]
    fleet = Fleet([KEY], {KEY: script})
    awaited = contracts.CHECK_HEALTH.name if wait == "health" else contracts.PREFLIGHT_MACHINE.name
    answer = fleet.activities()[awaited]
    asked_at: list[datetime] = []

    def cancel(data: Any) -> Any:
        asked_at.append(bench.now())
        if len(asked_at) == 2:
            # From inside, so that virtual time cannot pass between the cancel and its delivery.
            bench.client.raise_orchestration_event("machine", Signal.CANCEL)
            time.sleep(0.3)
        return answer(data)

    options = MachineOptions(mode=Mode.PATCH, health=True, start_stopped=True)
    work = MachineWork(run_id=scripted_fleet.RUN_ID, machine_key=KEY, step=Step.PATCH, options=options, phase="phase")
    activities = fleet.activities() | {awaited: cancel}
    with Workbench([patch_machine, await_operation], activities) as bench:
        bench.run(contracts.PATCH_MACHINE.name, work.to_wire(), instance_id="machine")
    pauses = [(later - at).total_seconds() for at, later in itertools.pairwise(asked_at)]
    assert pauses[1] < 10, "the wait ended with the cancel"
    assert 770 < pauses[2] < 800, "what is asked again is asked no more often than before"
    assert fleet.outcomes[KEY] == (("patched", "ok") if wait == "health" else ("canceled", "canceled_by_user"))


def test_a_failed_installation_stays_the_reason() -> None:
    fleet = Fleet(
        [KEY], {KEY: Script(install_polls=[scripted_fleet.BROKEN], health=[scripted_fleet.WELL, scripted_fleet.UNWELL])}
    )
    run(fleet, health=True)
    assert fleet.outcomes[KEY] == ("failed", "patches_failed")


def test_health_is_not_checked_unless_the_policy_has_it() -> None:
    fleet = Fleet([KEY])
    run(fleet)
    assert not fleet.calls_of(contracts.CHECK_HEALTH.name)


# --- restarts apart


def test_a_machine_that_needs_a_restart_waits_for_the_restart_step() -> None:
    script = Script(install_polls=[scripted_fleet.NEEDS_REBOOT], verifications=[scripted_fleet.REBOOT_PENDING])
    fleet = Fleet([KEY], {KEY: script})
    run(fleet, reboot_apart=True)
    assert fleet.recorded == {}
    assert fleet.stages[KEY] is Stage.INSTALLED
    assert fleet.installations[KEY]["installed"] == 3
    assert fleet.power == []
    run(fleet, step=Step.RESTART, reboot_apart=True)
    assert fleet.power == [("restart", KEY)]


def test_a_machine_that_needs_no_restart_is_done() -> None:
    fleet = Fleet([KEY])
    run(fleet, reboot_apart=True)
    assert fleet.outcomes[KEY] == ("patched", "ok")


def restarted(script: Script) -> Fleet:
    fleet = Fleet([KEY], {KEY: script})
    fleet.installations[KEY] = InstallationSummary(status="Succeeded", installed=3).to_wire()
    run(fleet, step=Step.RESTART, reboot_apart=True, health=True)
    return fleet


def test_a_restarted_machine_is_patched_once_it_is_back() -> None:
    fleet = restarted(
        Script(verifications=[scripted_fleet.BOOTING, scripted_fleet.BOOTING, scripted_fleet.READY_AGAIN])
    )
    assert fleet.outcomes[KEY] == ("patched", "ok")
    assert fleet.recorded[KEY][0]["installation"]["installed"] == 3
    assert not fleet.accepted


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (Script(verifications=[scripted_fleet.BOOTING]), ("reboot_required", "reboot_failed")),
        (Script(verifications=[scripted_fleet.REBOOT_PENDING]), ("reboot_required", "reboot_pending")),
        (
            Script(restart=PowerResult(accepted=False, failure=ArmFailure(status=409, code="Conflict"))),
            ("reboot_required", "reboot_failed"),
        ),
        (Script(preflights=[scripted_fleet.STOPPED]), ("reboot_required", "reboot_pending")),
        (Script(health=[scripted_fleet.UNWELL]), ("failed", "unhealthy")),
    ],
    ids=["never back", "needs another", "refused", "stopped meanwhile", "unhealthy"],
)
def test_a_failed_restart_is_in_the_outcome(script: Script, outcome: tuple[str, str]) -> None:
    assert restarted(script).outcomes[KEY] == outcome


@pytest.mark.parametrize(
    ("failure", "said"),
    [(ArmFailure(status=409, code="Conflict"), "Conflict"), (None, "Azure did not say that it is done")],
)
def test_the_reason_of_a_failed_restart_is_in_the_outcome(failure: ArmFailure | None, said: str) -> None:
    fleet = restarted(Script(restart=PowerResult(accepted=False, failure=failure)))
    assert said in fleet.recorded[KEY][0]["outcome"]["message"]


@pytest.mark.parametrize("is_open", [True, False])
def test_a_restart_that_azure_may_still_carry_out_keeps_the_lock(is_open: bool) -> None:
    failure = ArmFailure(status=0, message="no answer")
    fleet = restarted(Script(restart=PowerResult(accepted=False, is_open=is_open, failure=failure)))
    assert fleet.recorded[KEY][0]["keepLease"] is is_open


def test_a_restart_that_may_not_be_sent_now_is_requeued() -> None:
    fleet = restarted(Script(restart=PowerResult(accepted=False, requeued=True)))
    assert completion(fleet).requeued
    assert fleet.recorded == {}
    assert fleet.stages[KEY] is Stage.INSTALLED


def test_a_stopped_run_restarts_nothing_and_leaves_the_end_to_its_close() -> None:
    stopped = scripted_fleet.READY.model_copy(
        update={"preflight": Preflight(readiness=Readiness.SKIP, outcome=Outcome.canceled())}
    )
    fleet = restarted(Script(preflights=[stopped]))
    assert completion(fleet).requeued
    assert fleet.recorded == {}
    assert fleet.stages[KEY] is Stage.INSTALLED
    assert not fleet.power
