"""What becomes of each machine of a change of patch modes, and what orders do to the change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.command import Command, InvalidTransition
from patchwave.domain.core.ids import MachineId
from patchwave.domain.fleet.machine import FleetMachine, read_machine
from patchwave.domain.fleet.patch_mode import AssessmentMode, PatchMode, PatchSettings, WantedSettings
from patchwave.domain.fleet.patch_mode_change import (
    MAX_CHANGE,
    PLAN_HOLDS,
    ChangeEnd,
    ChangeState,
    ChangeStep,
    MachineChange,
    MachineState,
    ModeChange,
    after_failure,
    change_id,
    count_ends,
    decide,
    missing_machine,
    plan_machine,
    read_state,
    start,
    stop,
    why_to_end,
)
from patchwave.domain.policy.scope import OsType, Scope

NOW = datetime(2026, 11, 21, 14, tzinfo=UTC)
SETTLES = timedelta(minutes=2)
GROUP = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/g"
ID = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/vm"
WANTED = WantedSettings(patch_mode=PatchMode.AUTOMATIC_BY_PLATFORM)
BEFORE = PatchSettings(
    os_type=OsType.LINUX, patch_mode=PatchMode.IMAGE_DEFAULT, assessment_mode=AssessmentMode.IMAGE_DEFAULT
)
AFTER = BEFORE.model_copy(update={"patch_mode": PatchMode.AUTOMATIC_BY_PLATFORM})
OLD = MachineState(BEFORE)
NEW = MachineState(AFTER)


def shown(**row: Any) -> FleetMachine:
    machine = read_machine({"id": ID, "osType": "Linux", **row})
    assert machine is not None
    return machine


def machine(*, begun: timedelta | None = None, asked: timedelta | None = None, accepted: bool = False) -> MachineChange:
    """A machine that was begun and asked for so long ago."""
    planned = plan_machine(shown(), WANTED, NOW)
    return planned.model_copy(
        update={
            "begun_at": None if begun is None else NOW - begun,
            "asked_at": None if asked is None else NOW - asked,
            "is_accepted": accepted,
        }
    )


def change(state: ChangeState = ChangeState.PLANNED, **fields: Any) -> ModeChange:
    return ModeChange(
        id=change_id(NOW, "1a2b3c4d"),
        state=state,
        wanted=WANTED,
        scope=Scope(),
        max_concurrent=5,
        max_failures=3,
        planned=command("ann"),
        **fields,
    )


def command(actor: str, after: timedelta = timedelta(0), reason: str = "") -> Command:
    return Command(actor=actor, reason=reason, at=NOW + after)


# --- plans -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "end", "said"),
    [
        ({}, None, ""),
        ({"linuxPatchSettings": {"patchMode": "AutomaticByPlatform"}}, ChangeEnd.UNCHANGED, "set so already"),
        ({"linuxProvisionAgent": False}, ChangeEnd.REFUSED, "provisionVMAgent"),
        ({"osType": ""}, ChangeEnd.REFUSED, "neither Windows nor Linux"),
        ({"tags": {"Patchwave-Hold": "moving"}}, ChangeEnd.SKIPPED, "holds this machine: moving"),
        ({"tags": {"patchwave-hold": "no"}}, None, ""),
    ],
)
def test_the_plan_of_a_machine(row: dict[str, Any], end: ChangeEnd | None, said: str) -> None:
    planned = plan_machine(shown(**row), WANTED, NOW)
    assert planned.end is end
    assert said in planned.message
    assert (planned.ended_at is None) == (end is None)


def test_a_note_where_azure_itself_shall_patch_and_may_not() -> None:
    custom = shown(imageReference={"id": "/subscriptions/s/galleries/golden"})
    assert "custom" in plan_machine(custom, WANTED, NOW).note
    assert plan_machine(custom, WantedSettings(patch_mode=WANTED.patch_mode, bypass=True), NOW).note == ""


def test_a_machine_that_is_not_there_has_its_end() -> None:
    missing = missing_machine(MachineId.parse(ID), NOW)
    assert (missing.end, missing.name) == (ChangeEnd.FAILED, "vm")


# --- orders ----------------------------------------------------------------------------------------------------


def test_a_plan_is_started_once() -> None:
    first = start(change(), command("ann"))
    assert (first.state, first.started) == (ChangeState.RUNNING, command("ann"))
    assert start(first, command("ben", timedelta(days=9))) == first


def test_an_old_plan_is_not_started() -> None:
    assert start(change(), command("ann", PLAN_HOLDS)).state is ChangeState.RUNNING
    with pytest.raises(InvalidTransition, match="24 hours"):
        start(change(), command("ann", PLAN_HOLDS + timedelta(seconds=1)))


def test_a_stop_before_the_start_is_the_end() -> None:
    stopped = stop(change(), command("ann"))
    assert (stopped.state, stopped.ended_at) == (ChangeState.STOPPED, NOW)
    with pytest.raises(InvalidTransition, match="plan a new one"):
        start(stopped, command("ann"))


def test_a_stop_in_progress_lets_accepted_changes_end() -> None:
    running = start(change(), command("ann"))
    stopping = stop(running, command("ben", reason="wrong tag"))
    assert (stopping.state, stopping.is_stopping) == (ChangeState.RUNNING, True)
    assert stop(stopping, command("eve")) == stopping
    assert why_to_end(stopping, 0) == "Stopped by ben: wrong tag."


def test_what_has_ended_is_not_stopped() -> None:
    with pytest.raises(InvalidTransition, match="has ended"):
        stop(change(ChangeState.COMPLETED), command("ann"))


@pytest.mark.parametrize(("failed", "ends"), [(0, False), (2, False), (3, True), (9, True)])
def test_failures_end_a_change_at_its_limit(failed: int, ends: bool) -> None:
    assert (why_to_end(start(change(), command("ann")), failed) is not None) == ends


# --- one machine -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "state", "end", "ask"),
    [
        # Not asked yet.
        (machine(begun=timedelta(0)), OLD, None, True),
        (machine(begun=timedelta(0)), NEW, ChangeEnd.UNCHANGED, False),
        (machine(begun=timedelta(0)), MachineState(None), ChangeEnd.REFUSED, False),
        (machine(begun=timedelta(0)), MachineState(BEFORE, is_updating=True), None, False),
        # Requested, and it is unknown whether Azure accepted it.
        (machine(begun=SETTLES, asked=SETTLES), OLD, None, True),
        (machine(begun=SETTLES, asked=SETTLES), NEW, ChangeEnd.CHANGED, False),
        # Taken.
        (machine(begun=SETTLES, asked=timedelta(seconds=1), accepted=True), OLD, None, False),
        (machine(begun=SETTLES, asked=timedelta(seconds=1), accepted=True), NEW, ChangeEnd.CHANGED, False),
        (machine(begun=SETTLES, asked=SETTLES, accepted=True), OLD, ChangeEnd.FAILED, False),
        (machine(begun=SETTLES, asked=SETTLES, accepted=True), MachineState(AFTER, is_updating=True), None, False),
        # Overdue.
        (machine(begun=MAX_CHANGE), OLD, ChangeEnd.FAILED, False),
        (machine(begun=MAX_CHANGE), MachineState(BEFORE, is_updating=True), ChangeEnd.UNKNOWN, False),
        (machine(begun=MAX_CHANGE, asked=SETTLES, accepted=True), NEW, ChangeEnd.CHANGED, False),
    ],
)
def test_what_to_do_with_a_machine(known: MachineChange, state: MachineState, end: ChangeEnd | None, ask: bool) -> None:
    decision = decide(known, WANTED, state, NOW, SETTLES)
    assert (decision.end, decision.ask) == (end, ask)
    assert bool(decision.message) == (end is not None)


def test_a_change_without_a_clear_answer_is_not_sent_again_before_it_would_show() -> None:
    """Azure may have taken it; only a sure refusal is followed by another request at once."""
    just_asked = machine(begun=SETTLES, asked=SETTLES - timedelta(seconds=1))
    assert decide(just_asked, WANTED, OLD, NOW, SETTLES) == ChangeStep()
    assert decide(just_asked, WANTED, NEW, NOW, SETTLES).end is ChangeEnd.CHANGED
    refused = just_asked.model_copy(update={"refused_at": just_asked.asked_at})
    assert decide(refused, WANTED, OLD, NOW, SETTLES).ask
    earlier = just_asked.model_copy(update={"refused_at": NOW - SETTLES})
    assert decide(earlier, WANTED, OLD, NOW, SETTLES) == ChangeStep(), "an earlier request was refused, not this one"


def test_an_open_answer_that_stays_open_ends_as_unknown() -> None:
    overdue = machine(begun=MAX_CHANGE)
    for failure in (ArmFailure(status=409, code="Conflict"), ArmFailure(status=500), ArmFailure(status=418)):
        assert after_failure(overdue, failure, NOW, is_open=True).end is ChangeEnd.UNKNOWN
        assert after_failure(machine(begun=SETTLES), failure, NOW, is_open=True) == ChangeStep()


def test_the_reason_why_azure_did_not_carry_it_out_is_kept() -> None:
    known = machine(begun=SETTLES, asked=SETTLES, accepted=True)
    decision = decide(known, WANTED, MachineState(BEFORE, trouble="InternalError: no luck"), NOW, SETTLES)
    assert "InternalError: no luck" in decision.message


@pytest.mark.parametrize(
    ("failure", "uncertain", "end"),
    [
        (ArmFailure(status=400, code="InvalidParameter", message="odd"), False, ChangeEnd.REFUSED),
        (ArmFailure(status=403, code="AuthorizationFailed"), False, ChangeEnd.FAILED),
        (ArmFailure(status=404, code="ResourceNotFound"), False, ChangeEnd.FAILED),
        (ArmFailure(status=409, code="Conflict"), False, None),
        (ArmFailure(status=409, code="ScopeLocked", message="locked: '/subscriptions/s'"), False, ChangeEnd.REFUSED),
        (ArmFailure(status=403, code="RequestDisallowedByPolicy", message="by policy"), False, ChangeEnd.REFUSED),
        (ArmFailure(status=429), False, None),
        (ArmFailure(status=503), True, None),
        (ArmFailure(status=0, code="Odd"), True, None),
    ],
)
def test_refusals_of_azure(failure: ArmFailure, uncertain: bool, end: ChangeEnd | None) -> None:
    assert after_failure(machine(begun=SETTLES), failure, NOW, is_open=uncertain).end is end


def test_a_passing_trouble_passes_for_half_an_hour_only() -> None:
    failure = ArmFailure(status=409, code="Conflict")
    assert after_failure(machine(begun=MAX_CHANGE), failure, NOW).end is ChangeEnd.FAILED
    taken = machine(begun=MAX_CHANGE, asked=SETTLES, accepted=True)
    assert after_failure(taken, failure, NOW).end is ChangeEnd.UNKNOWN


def test_throttling_uses_up_none_of_the_half_hour_and_ends_after_a_day() -> None:
    throttled, busy = ArmFailure(status=429), ArmFailure(status=409, code="Conflict")
    old = machine(begun=timedelta(hours=3))
    assert after_failure(old, throttled, NOW).end is None
    waited = old.model_copy(update={"throttled_seconds": 3 * 3600.0})
    assert after_failure(waited, busy, NOW).end is None
    assert decide(waited, WANTED, MachineState(BEFORE), NOW, SETTLES).ask
    used_up = old.model_copy(update={"throttled_seconds": 2.5 * 3600.0})
    assert after_failure(used_up, busy, NOW).end is ChangeEnd.FAILED
    for_a_day = machine(begun=timedelta(hours=25)).model_copy(update={"throttled_seconds": 24 * 3600.0})
    ended = after_failure(for_a_day, throttled, NOW)
    assert (ended.end, "HTTP 429" in ended.message) == (ChangeEnd.FAILED, True)


# --- reading ---------------------------------------------------------------------------------------------------


def body(state: str = "Succeeded", **properties: Any) -> dict[str, Any]:
    disk = {"osDisk": {"osType": "Linux"}}
    return {"properties": {"provisioningState": state, "storageProfile": disk, **properties}}


def test_the_state_of_a_machine() -> None:
    profile = {"linuxConfiguration": {"patchSettings": {"patchMode": "AutomaticByPlatform"}}}
    assert read_state(body(osProfile=profile)) == MachineState(AFTER)
    assert read_state(body("Updating")).is_updating
    assert read_state({}) == MachineState(None)


def test_why_the_last_change_failed() -> None:
    status = {"code": "ProvisioningState/failed/InternalExecutionError", "message": "An internal error."}
    found = read_state(body("Failed", instanceView={"statuses": [{"code": "PowerState/running"}, status]}))
    assert found.trouble == "InternalExecutionError: An internal error."
    assert read_state(body("Failed")).trouble


@given(st.dictionaries(st.sampled_from(ChangeEnd).map(str), st.integers(0, 9)))
def test_counts_have_an_order_and_no_zeros(counts: dict[str, int]) -> None:
    found = count_ends(counts)
    assert found == {end: count for end, count in counts.items() if count}
    assert list(found) == [end.value for end in ChangeEnd if counts.get(end)]
