"""Each finding of the doctor, and when there is none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local import ROOT
from patchwave.domain.drift.findings import DriftReport, Finding, FindingKind
from patchwave.domain.drift.inputs import DriftInputs, ExcludedPatch, LastAssessment, ScheduledRuns, with_answers
from patchwave.domain.fleet.machine import FleetMachine, read_machine
from patchwave.domain.fleet.patch_mode import AssessmentMode, PatchMode
from patchwave.domain.fleet.scale_sets import ScaleSet
from patchwave.domain.fleet.supported_images import IMAGE_TABLE
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.policy.maintenance_section import MaintenanceHooks
from patchwave.domain.policy.rollout import Ring
from patchwave.domain.policy.scope import OsType, TagFilter
from tests.support.drift_fleet import (
    BY_PLATFORM,
    CUSTOM_IMAGE,
    NOW,
    assigned,
    configuration,
    configuration_id,
    facts,
    found,
    machine,
    machine_id,
    policy,
    report,
    scoped,
)

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def only(findings: Sequence[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def runs(
    *, ended: timedelta, first: timedelta | None = None, status: str = "Completed", to: str = "weekly"
) -> ScheduledRuns:
    """The runs of a schedule on web-01, so long ago."""
    return ScheduledRuns(
        machine_id().lower(), configuration_id(to).lower(), NOW - (first or ended + HOUR), NOW - ended, status
    )


def assessed(ago: timedelta = HOUR, **missing: int) -> dict[str, LastAssessment]:
    return {machine_id().lower(): LastAssessment(NOW - ago, missing)}


# --- patch ownership ---------------------------------------------------------------------------------------------


def test_a_machine_set_to_schedules_without_one_is_unpatched() -> None:
    finding = only(found(facts(machine(bypass=True))))
    assert finding.kind is FindingKind.UNPATCHED
    assert finding.subject == machine_id()
    assert "none is attached" in finding.evidence
    assert finding.fix == f"patchwave fleet set-mode --machine {machine_id()} --mode AutomaticByPlatform --no-bypass"


def test_a_manual_machine_is_unpatched() -> None:
    windows = machine(mode=PatchMode.MANUAL, os_type=OsType.WINDOWS, enable_automatic_updates=False)
    finding = only(found(facts(windows)))
    assert finding.kind is FindingKind.UNPATCHED
    assert "--mode AutomaticByPlatform --no-bypass" in finding.fix


def test_a_machine_that_no_run_can_patch_is_unmanageable() -> None:
    finding = only(found(facts(replace(machine(), settings=None))))
    assert (finding.kind, finding.subject) == (FindingKind.UNMANAGEABLE, machine_id())
    assert finding.evidence == "Azure names neither Windows nor Linux as its system."
    assert finding.fix == f"az vm show --ids {machine_id()}"
    odd = machine()
    odd = replace(odd, found=odd.found.model_copy(update={"problem": "Azure lists it by an id that cannot be read."}))
    finding = only(found(facts(odd)))
    assert (finding.kind, finding.evidence) == (
        FindingKind.UNMANAGEABLE,
        "Azure lists it by an id that cannot be read.",
    )


SCALE_SET = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg/providers/Microsoft.Compute"
    "/virtualMachineScaleSets/vmss web"
)


def member() -> FleetMachine:
    """A machine that Azure patches, in a scale set."""
    one = machine()
    return replace(one, found=one.found.model_copy(update={"scale_set_id": SCALE_SET.upper()}))


@pytest.mark.parametrize("monitors_health", [True, False, None])
def test_a_scale_set_that_nothing_watches(monitors_health: bool | None) -> None:
    watched = ScaleSet(id=SCALE_SET, os_type="Windows", monitors_health=monitors_health)
    kind = FindingKind.UNMONITORED_SCALE_SET
    findings = found(facts(member(), machine("alone"), scale_sets=[watched]), kind)
    assert len(findings) == (monitors_health is False)
    for finding in findings:
        assert finding.subject == SCALE_SET
        assert "its members (1) work" in finding.evidence
        assert "--vmss-name 'vmss web'" in finding.fix
        assert "--name ApplicationHealthWindows" in finding.fix
        assert "az vmss update-instances" in finding.fix
    assert found(facts(machine("alone"), scale_sets=[watched]), kind) == []


def test_a_uniform_scale_set_is_unmanageable_and_shown_by_its_own_command() -> None:
    uniform = read_machine({"id": SCALE_SET.replace(" ", "-"), "profileOsType": "Linux", "instances": 2})
    finding = only(found(facts(uniform)))
    assert finding.kind is FindingKind.UNMANAGEABLE
    assert "a Uniform scale set with 2 instances" in finding.evidence
    assert finding.fix == f"az vmss show --ids {SCALE_SET.replace(' ', '-')}"
    assert report(facts(uniform)).notes == []


def test_a_schedule_on_a_machine_without_the_flag_patches_nothing() -> None:
    finding = only(found(facts(machine(), configurations=[configuration()], assignments=[assigned()])))
    assert finding.kind is FindingKind.UNPATCHED
    assert "needs the bypass flag" in finding.evidence
    assert finding.fix.endswith("--mode AutomaticByPlatform --bypass")


def test_a_schedule_that_has_ended_leaves_its_machines_unpatched() -> None:
    ended = configuration(expires="2026-06-01 00:00")
    findings = found(facts(machine(bypass=True), configurations=[ended], assignments=[assigned()]))
    assert [each.kind for each in findings] == [FindingKind.UNPATCHED, FindingKind.SCHEDULE_ENDED]
    assert "weekly ended at 2026-06-01T00:00:00.000Z" in findings[0].evidence
    assert findings[0].fix == findings[1].fix
    assert "maintenanceWindow.expirationDateTime=9999-12-31 23:59" in findings[0].fix


def test_a_machine_that_lacks_more_than_its_schedule_is_set_as_well() -> None:
    manual = machine(mode=PatchMode.MANUAL, os_type=OsType.WINDOWS, enable_automatic_updates=False)
    fleet = facts(manual, configurations=[configuration(mode="")], assignments=[scoped()])
    first, second = found(fleet)[0].fix.split(" && ")
    assert first.endswith("properties.extensionProperties.InGuestPatchMode=User")
    assert second.endswith("--mode AutomaticByPlatform --bypass")


def test_a_hotpatched_machine_cannot_follow_its_schedule_so_azure_has_it() -> None:
    hotpatched = machine(os_type=OsType.WINDOWS, hotpatching=True)
    finding = only(found(facts(hotpatched, configurations=[configuration()], assignments=[assigned()])))
    assert finding.kind is FindingKind.UNPATCHED
    assert finding.fix == f"patchwave maintenance assignment delete {assigned().id}"


def test_a_machine_that_automatic_patching_leaves_out_is_unpatched() -> None:
    finding = only(found(facts(machine(image=CUSTOM_IMAGE))))
    assert finding.kind is FindingKind.UNPATCHED
    assert "Its image is custom" in finding.evidence
    assert "patchwave run start -f - --mode patch" in finding.fix


UNLISTED = "Canonical:ubuntu-26_04-lts:server:latest"


def test_whether_azure_takes_an_image_that_the_table_lacks_is_a_question_of_its_own() -> None:
    finding = only(found(facts(machine(image=UNLISTED))))
    assert (finding.kind, finding.subject) == (FindingKind.UNKNOWN_IMAGE, machine_id())
    assert "it is not known whether that takes the machine" in finding.evidence
    assert "Canonical:ubuntu-26_04-lts:server is not in the table of 2026-12-01" in finding.evidence
    assert finding.fix.endswith("patchwave run start -f - --mode assess --wait")


def answered(**given: Any) -> DriftInputs:
    known = {machine_id().lower(): LastAssessment(NOW - HOUR, **given)}
    return facts(*with_answers([machine(image=UNLISTED)], known), assessments=known)


def test_an_assessment_that_succeeded_answers_it() -> None:
    assert found(answered()) == []
    assert [each.kind for each in found(answered(has_succeeded=False))] == [FindingKind.UNKNOWN_IMAGE]


def test_a_policy_needs_no_answer() -> None:
    assert found(facts(machine(image=UNLISTED), policies=[policy()])) == []
    two = replace(answered(), policies=[policy()])
    assert [each.kind for each in found(two)] == [FindingKind.MULTIPLE_PATCHERS]


@pytest.mark.parametrize(("image", "ended"), [("16.04-LTS", "2021-04-30"), ("18.04-LTS", "2023-05-31")])
def test_an_image_past_its_end_of_life(image: str, ended: str) -> None:
    finding = only(found(facts(machine(image=f"Canonical:UbuntuServer:{image}:latest"))))
    assert (finding.kind, finding.subject) == (FindingKind.END_OF_LIFE, machine_id())
    assert f"Canonical:UbuntuServer:{image} reached its end of life on {ended}" in finding.evidence
    assert finding.fix == "az vm image list-offers --publisher Canonical --location westeurope --output table"


def test_its_last_day_is_no_finding_yet() -> None:
    def on(day: str) -> list[Finding]:
        table = IMAGE_TABLE.extend(ends=[f"{CUSTOM_IMAGE}={day}"])
        golden = replace(machine(image=CUSTOM_IMAGE), images=table)
        return found(facts(golden, policies=[policy()]), FindingKind.END_OF_LIFE)

    assert on("2026-11-21") == []
    assert only(on("2026-11-20")).fix == f"az vm show --ids {machine_id()}"


def test_a_policy_patches_whatever_the_machine_is_set_to() -> None:
    assert found(facts(machine(bypass=True), policies=[policy()])) == []
    assert found(facts(machine(mode=PatchMode.IMAGE_DEFAULT), policies=[policy()])) == []


def test_a_policy_that_is_there_for_the_runs_of_schedules_does_not_rest() -> None:
    around = policy(name="around", recurrence="", maintenance=MaintenanceHooks(configurations=[configuration_id()]))
    finding = only(found(facts(machine(bypass=True), policies=[around])))
    assert finding.kind is FindingKind.UNPATCHED
    assert "around" not in finding.evidence


@pytest.mark.parametrize(
    ("resting", "said"),
    [
        (policy(enabled=False), "is disabled"),
        (policy(recurrence=""), "has no schedule"),
        (policy(mode="assess"), "only assesses"),
        (policy(resting="is paused by ann"), "is paused by ann"),
        (policy(recurrence="2026-01-01"), "has ended"),
    ],
)
def test_a_policy_that_will_not_run_patches_nothing_and_is_named(resting: object, said: str) -> None:
    finding = only(found(facts(machine(bypass=True), policies=[resting])))
    assert finding.kind is FindingKind.UNPATCHED
    assert "The policy monthly" in finding.evidence or "policy monthly" in finding.evidence
    assert said in finding.evidence


def test_a_machine_that_a_tag_holds_is_patched_by_no_policy() -> None:
    held = machine(bypass=True, tags={"patchwave-hold": "moving"})
    finding = only(found(facts(held, policies=[policy()])))
    assert finding.kind is FindingKind.UNPATCHED
    assert "moving" in finding.evidence


def test_a_machine_that_no_ring_of_a_policy_takes_is_not_patched_by_it() -> None:
    rings = [Ring(name="canary", tags=TagFilter(values={"ring": ("canary",)}))]
    canary = machine("web-01", bypass=True, tags={"ring": "canary"})
    other = machine("web-02", bypass=True, tags={"ring": "broad"})
    finding = only(found(facts(canary, other, policies=[policy(rings=rings)])))
    assert finding.subject == machine_id("web-02")


def test_updates_of_a_linux_image_are_os_managed() -> None:
    finding = only(found(facts(machine(mode=PatchMode.IMAGE_DEFAULT))))
    assert finding.kind is FindingKind.OS_MANAGED
    assert "unattended-upgrades" in finding.evidence


@pytest.mark.parametrize(
    "alone",
    [
        facts(machine()),
        facts(machine(mode=PatchMode.AUTOMATIC_BY_OS, os_type=OsType.WINDOWS)),
        facts(machine(bypass=True), configurations=[configuration()], assignments=[assigned()]),
        facts(machine(bypass=True), configurations=[configuration()], assignments=[scoped(os_types=("Linux",))]),
        facts(machine(mode=None)),
    ],
)
def test_one_that_patches_is_right(alone: DriftInputs) -> None:
    assert found(alone) == []


def test_a_policy_and_a_schedule_are_two() -> None:
    fleet = facts(machine(bypass=True), configurations=[configuration()], assignments=[assigned()], policies=[policy()])
    finding = only(found(fleet))
    assert finding.kind is FindingKind.MULTIPLE_PATCHERS
    assert "The policy monthly patches it." in finding.evidence
    assert "the schedule weekly" in finding.evidence
    assert finding.fix == f"patchwave maintenance assignment delete {assigned().id}"


def test_a_machine_cannot_leave_a_dynamic_scope_so_it_leaves_the_policy() -> None:
    fleet = facts(machine(bypass=True), configurations=[configuration()], assignments=[scoped()], policies=[policy()])
    fix = only(found(fleet)).fix
    assert fix.startswith("patchwave policy show monthly > monthly.yaml")
    assert machine_id() in fix


def test_a_policy_and_automatic_patching_are_two() -> None:
    finding = only(found(facts(machine(), policies=[policy()])))
    assert finding.kind is FindingKind.MULTIPLE_PATCHERS
    assert "Azure's automatic patching" in finding.evidence
    assert finding.fix.endswith("--mode AutomaticByPlatform --bypass")


def test_a_policy_and_windows_update_are_two() -> None:
    windows = machine(mode=PatchMode.AUTOMATIC_BY_OS, os_type=OsType.WINDOWS)
    finding = only(found(facts(windows, policies=[policy()])))
    assert finding.kind is FindingKind.MULTIPLE_PATCHERS
    assert "Windows Update" in finding.evidence


def test_a_hotpatched_machine_keeps_its_safety_checks_and_leaves_the_policy() -> None:
    hotpatched = machine(os_type=OsType.WINDOWS, hotpatching=True)
    fix = only(found(facts(hotpatched, policies=[policy()]))).fix
    assert fix.startswith("patchwave policy show monthly")


def test_a_schedule_that_fails_beside_automatic_patching_has_no_effect() -> None:
    windows = machine(mode=PatchMode.AUTOMATIC_BY_OS, os_type=OsType.WINDOWS)
    finding = only(found(facts(windows, configurations=[configuration()], assignments=[assigned()])))
    assert finding.kind is FindingKind.INEFFECTIVE_SCHEDULE
    assert "needs AutomaticByPlatform" in finding.evidence
    assert finding.fix.endswith("--mode AutomaticByPlatform --bypass")


def test_where_a_policy_patches_the_failing_schedule_goes() -> None:
    fleet = facts(machine(), configurations=[configuration()], assignments=[assigned()], policies=[policy()])
    finding = only(found(fleet))
    assert finding.kind is FindingKind.INEFFECTIVE_SCHEDULE
    assert finding.fix == f"patchwave maintenance assignment delete {assigned().id}"


# --- schedules ---------------------------------------------------------------------------------------------------


def pair(one: MaintenanceConfiguration, other: MaintenanceConfiguration) -> DriftInputs:
    return facts(
        machine(bypass=True),
        configurations=[one, other],
        assignments=[assigned(one.name), assigned(other.name)],
    )


def test_two_schedules_with_the_same_start_meet() -> None:
    monthly = configuration("monthly", recur="Month Last Saturday", start="2026-01-01 22:00")
    finding = only(found(pair(configuration(), monthly)))
    assert finding.kind is FindingKind.SAME_START
    assert "2026-11-28T22:00:00.000Z" in finding.evidence
    assert "weekly" in finding.evidence
    assert "monthly" in finding.evidence
    assert finding.fix.startswith("patchwave maintenance assignment delete")


def test_starts_are_compared_as_moments_and_not_as_texts() -> None:
    berlin = configuration("berlin", start="2026-01-03 23:00")
    window = berlin.window
    assert window is not None
    moved = window.model_copy(update={"time_zone": "W. Europe Standard Time"})
    other = berlin.model_copy(update={"properties": berlin.properties.model_copy(update={"maintenance_window": moved})})
    assert only(found(pair(configuration(), other))).kind is FindingKind.SAME_START


def test_schedules_that_never_start_together_do_not_meet() -> None:
    assert found(pair(configuration(), configuration("sunday", recur="Week Sunday"))) == []


def test_out_of_a_dynamic_scope_the_other_schedule_moves() -> None:
    fleet = facts(
        machine(bypass=True),
        configurations=[configuration(), configuration("same")],
        assignments=[scoped("weekly"), scoped("same")],
    )
    fix = only(found(fleet)).fix
    assert "patchwave maintenance configuration change" in fix
    # The next run is from 22:00 to midnight.
    assert "2026-11-22 00:00" in fix


def test_a_schedule_that_has_ended_is_found_once_and_counts_its_machines() -> None:
    ended = configuration(expires="2026-06-01 00:00")
    finding = only(found(facts(configurations=[ended])))
    assert finding.kind is FindingKind.SCHEDULE_ENDED
    assert finding.subject == configuration_id()
    assert finding.evidence == "It ended at 2026-06-01T00:00:00.000Z. 0 machines are attached to it."
    assert finding.fix == f"patchwave maintenance configuration delete {configuration_id()}"


def test_a_schedule_without_in_guest_patch_mode_patches_nothing() -> None:
    plain = configuration(mode="")
    findings = found(facts(machine(bypass=True), configurations=[plain], assignments=[scoped()]))
    assert [each.kind for each in findings] == [FindingKind.UNPATCHED, FindingKind.NO_PATCH_MODE]
    assert "weekly has no InGuestPatchMode" in findings[0].evidence
    assert "1 machine is attached to it" in findings[1].evidence
    assert "InGuestPatchMode=User" in findings[1].fix


def test_configurations_of_other_scopes_are_not_of_guests() -> None:
    hosts = configuration(mode="")
    hosts = hosts.model_copy(update={"properties": hosts.properties.model_copy(update={"maintenance_scope": "Host"})})
    fleet = facts(machine(), configurations=[hosts], assignments=[assigned()])
    assert found(fleet) == []
    assert report(fleet).configurations == 0


def test_an_unreadable_window_is_noted_and_not_guessed() -> None:
    odd = configuration(recur="Fortnight")
    fleet = facts(machine(bypass=True), configurations=[odd], assignments=[assigned()])
    assert found(fleet) == []
    (note,) = report(fleet).notes
    assert "Fortnight" in note


def test_the_assignment_of_a_machine_that_is_gone_is_stale() -> None:
    finding = only(found(facts(configurations=[configuration()], assignments=[assigned()])))
    assert finding.kind is FindingKind.STALE_ASSIGNMENT
    assert finding.subject == machine_id()
    assert finding.fix == f"patchwave maintenance assignment delete {assigned().id}"


def test_a_machine_that_moved_is_named() -> None:
    moved = machine()
    elsewhere = machine_id().replace("rg-web", "rg-new")
    moved = replace(moved, found=moved.found.model_copy(update={"id": elsewhere, "resource_group": "rg-new"}))
    fleet = facts(moved, configurations=[configuration()], assignments=[assigned()])
    assert elsewhere in only(found(fleet)).evidence


def test_the_assignment_to_a_configuration_that_is_gone_is_stale() -> None:
    finding = only(found(facts(machine(), assignments=[assigned("gone")])))
    assert finding.kind is FindingKind.STALE_ASSIGNMENT
    assert configuration_id("gone") in finding.evidence
    assert only(found(facts(machine(), assignments=[scoped("gone")]))).subject == configuration_id("gone")


def test_the_assignment_of_a_recreated_machine_is_stale_until_a_run_is_done() -> None:
    fleet = facts(
        machine(bypass=True, created_at=NOW - 2 * DAY),
        configurations=[configuration()],
        assignments=[assigned()],
        runs=[runs(ended=DAY, first=10 * DAY, status="ShutdownOrUnresponsive")],
    )
    finding = only(found(fleet))
    assert finding.kind is FindingKind.STALE_ASSIGNMENT
    assert "ShutdownOrUnresponsive" in finding.evidence
    delete, assign = finding.fix.split(" && ")
    assert delete == f"patchwave maintenance assignment delete {assigned().id}"
    assert assign == f"patchwave maintenance assign {configuration_id()} {machine_id()}"
    healed = replace(fleet, runs=[runs(ended=DAY, first=10 * DAY)])
    assert found(healed) == []
    younger = replace(fleet, runs=[runs(ended=DAY, first=DAY + HOUR, status="Failed")])
    assert found(younger) == []


def test_letters_of_ids_have_no_case() -> None:
    shouted = assigned().model_copy(
        update={"resource_id": machine_id().upper(), "maintenance_configuration_id": configuration_id().upper()}
    )
    assert found(facts(machine(bypass=True), configurations=[configuration()], assignments=[shouted])) == []


# --- assessments ---------------------------------------------------------------------------------------------------


def stale(fleet: DriftInputs, days: int = 7) -> list[Finding]:
    return found(fleet, FindingKind.STALE_ASSESSMENT, stale_days=days)


def test_an_assessment_is_stale_after_so_many_days() -> None:
    fleet = facts(machine(), assessments=assessed(3 * DAY + HOUR))
    assert stale(fleet, 4) == []
    finding = only(stale(fleet, 3))
    assert "3 days ago" in finding.evidence
    assert "run start -f - --mode assess" in finding.fix


def test_a_machine_without_an_assessment_is_stale_with_a_fix() -> None:
    seldom = machine(assessment_mode=AssessmentMode.IMAGE_DEFAULT, power="deallocated")
    finding = only(stale(facts(seldom)))
    assert "No assessment is known" in finding.evidence
    assert "The machine is deallocated: it is assessed only while it runs, so start it first." in finding.evidence
    assert finding.fix.endswith("--assessment-mode AutomaticByPlatform")


def done(fleet: DriftInputs) -> list[Finding]:
    return found(fleet, FindingKind.REPORTED_DONE_BUT_MISSING)


def test_what_a_schedule_called_done_and_is_not() -> None:
    fleet = facts(
        machine(bypass=True),
        configurations=[configuration()],
        assignments=[assigned()],
        runs=[runs(ended=DAY)],
        assessments=assessed(HOUR, security=3, other=9),
    )
    finding = only(done(fleet))
    assert "still counts 3 security" in finding.evidence
    assert "other" not in finding.evidence
    assert machine_id() in finding.fix


@pytest.mark.parametrize(
    "change",
    [
        {"assessments": assessed(DAY + HOUR, security=3)},
        {"assessments": assessed(HOUR, other=3)},
        {"runs": [runs(ended=DAY, status="Failed")]},
        {"assessments": {}},
        {"configurations": [configuration(linux=("Other",))]},
    ],
    ids=["assessed before", "of no interest", "not done", "never assessed", "not wanted"],
)
def test_a_schedule_without_a_finding(change: dict[str, object]) -> None:
    fleet = facts(
        machine(bypass=True),
        configurations=[configuration()],
        assignments=[assigned()],
        runs=[runs(ended=DAY)],
        assessments=assessed(HOUR, security=3),
    )
    assert done(replace(fleet, **change)) == []  # pyright: ignore[reportArgumentType] - chosen by name above


def test_only_what_the_run_could_have_brought_counts() -> None:
    windows = machine(bypass=True, os_type=OsType.WINDOWS)
    fleet = facts(windows, configurations=[configuration()], assignments=[assigned()], runs=[runs(ended=5 * DAY)])
    later, before = ExcludedPatch("security", 2, NOW - DAY), ExcludedPatch("critical", 1, NOW - 9 * DAY)
    known = LastAssessment(NOW, {"security": 2, "critical": 1}, (later, before))
    finding = only(done(replace(fleet, assessments={machine_id().lower(): known})))
    assert "still counts 1 critical." in finding.evidence


def test_patches_that_need_a_subscription_are_not_missing() -> None:
    fleet = facts(machine(bypass=True), configurations=[configuration()], runs=[runs(ended=DAY)])
    known = LastAssessment(NOW, {"security": 131}, (ExcludedPatch("security", 131),))
    assert done(replace(fleet, assessments={machine_id().lower(): known})) == []


def test_on_linux_an_assessment_speaks_of_a_run_for_a_while_only() -> None:
    fleet = facts(machine(bypass=True), configurations=[configuration()], runs=[runs(ended=3 * DAY)])
    assert done(replace(fleet, assessments=assessed(2 * DAY, security=1)))
    assert done(replace(fleet, assessments=assessed(HOUR, security=1))) == []


# --- rules ---------------------------------------------------------------------------------------------------------


_MODES = {
    OsType.WINDOWS: (BY_PLATFORM, PatchMode.AUTOMATIC_BY_OS, PatchMode.MANUAL),
    OsType.LINUX: (BY_PLATFORM, PatchMode.IMAGE_DEFAULT),
}


@st.composite
def fleets(draw: st.DrawFn) -> DriftInputs:
    """Small fleets of everything that the doctor examines."""
    machines: list[FleetMachine] = []
    for number in range(draw(st.integers(0, 4))):
        os_type = draw(st.sampled_from(OsType))
        machines.append(
            machine(
                f"web-{number:02d}",
                draw(st.sampled_from(_MODES[os_type])),
                os_type=os_type,
                bypass=draw(st.booleans()),
                enable_automatic_updates=draw(st.booleans()),
                hotpatching=draw(st.booleans()),
                provision_vm_agent=draw(st.booleans()),
                image=draw(st.sampled_from(("", CUSTOM_IMAGE, UNLISTED, "OpenLogic:CentOS:7_9:latest"))),
                created_at=NOW - 3 * DAY,
                agent_version=draw(st.sampled_from(("", "2.2.45", "Unknown"))),
                allows_extensions=draw(st.booleans()),
            )
        )
    names = ("one", "two", "three")
    configurations = [
        configuration(
            name,
            recur=draw(st.sampled_from(("Week Saturday", "Day", "6Hours", "Month Third Sunday Offset6", "odd"))),
            expires=draw(st.sampled_from(("", "2026-06-01 00:00"))),
            mode=draw(st.sampled_from(("", "User"))),
        )
        for name in names
        if draw(st.booleans())
    ]
    direct = st.builds(assigned, st.sampled_from(names), st.sampled_from([f"web-{number:02d}" for number in range(6)]))
    dynamic = st.builds(scoped, st.sampled_from(names), os_types=st.sampled_from([(), ("Linux",), ("Windows",)]))
    assignments = draw(st.lists(direct | dynamic, max_size=6, unique_by=lambda each: each.id))
    policies = [policy(name, enabled=draw(st.booleans())) for name in ("monthly", "daily") if draw(st.booleans())]
    return facts(*machines, configurations=configurations, assignments=assignments, policies=policies)


def shuffled(fleet: DriftInputs, seed: int) -> DriftInputs:
    random = Random(seed)

    def mixed[Item](items: Sequence[Item]) -> list[Item]:
        return random.sample(items, len(items))

    return replace(
        fleet,
        machines=mixed(fleet.machines),
        configurations=mixed(fleet.configurations),
        assignments=mixed(fleet.assignments),
        policies=mixed(fleet.policies),
    )


@settings(max_examples=25, deadline=None)
@given(fleets(), st.integers())
def test_the_order_of_facts_does_not_matter(fleet: DriftInputs, seed: int) -> None:
    one, other = report(fleet), report(shuffled(fleet, seed))
    key = [(each.kind, each.subject) for each in one.findings]
    assert key == [(each.kind, each.subject) for each in other.findings]
    assert one.findings_by_kind == other.findings_by_kind


@settings(max_examples=25, deadline=None)
@given(fleets())
def test_each_finding_has_a_subject_evidence_and_a_command_and_is_counted(fleet: DriftInputs) -> None:
    made = report(fleet)
    assert sum(made.findings_by_kind.values()) == len(made.findings)
    for finding in made.findings:
        assert finding.subject.startswith("/subscriptions/")
        assert finding.evidence
        assert finding.fix.startswith(("patchwave ", "echo ", "az vm "))
    assert DriftReport.model_validate(made.to_wire()) == made


@settings(max_examples=25, deadline=None)
@given(fleets())
def test_a_machine_has_one_finding_about_patch_ownership(fleet: DriftInputs) -> None:
    ownership = (
        FindingKind.UNPATCHED,
        FindingKind.UNKNOWN_IMAGE,
        FindingKind.OS_MANAGED,
        FindingKind.MULTIPLE_PATCHERS,
        FindingKind.INEFFECTIVE_SCHEDULE,
    )
    subjects = [each.subject for each in report(fleet).findings if each.kind in ownership]
    assert len(subjects) == len(set(subjects))


@settings(max_examples=50, deadline=None)
@given(fleets())
def test_no_fix_proposes_a_run_on_a_machine_without_an_agent_that_works(fleet: DriftInputs) -> None:
    lacking = {
        each.found.id
        for each in fleet.machines
        if each.settings is not None and not (each.settings.provision_vm_agent and each.allows_extensions)
    }
    for finding in report(fleet).findings:
        if finding.subject in lacking:
            assert "run start" not in finding.fix
            assert "run-command" not in finding.fix


@settings(max_examples=25, deadline=None)
@given(fleets())
def test_a_policy_over_everything_leaves_no_machine_unpatched(fleet: DriftInputs) -> None:
    covered = replace(fleet, policies=[*fleet.policies, policy("everything")])
    kinds = {each.kind for each in report(covered).findings}
    assert not kinds & {FindingKind.UNPATCHED, FindingKind.OS_MANAGED, FindingKind.UNKNOWN_IMAGE}


def test_a_report_is_narrowed_and_counts_what_was_selected() -> None:
    made = report(facts(machine("web-01", bypass=True), machine("db-01", bypass=True)))
    assert made.findings_by_kind == {FindingKind.UNPATCHED: 2, FindingKind.STALE_ASSESSMENT: 2}
    narrowed = made.only([FindingKind.UNPATCHED], "DB-", 10)
    assert [each.subject for each in narrowed.findings] == [machine_id("db-01")]
    assert narrowed.findings_by_kind == {FindingKind.UNPATCHED: 1}
    cut = made.only([], "", 3)
    assert len(cut.findings) == 3
    assert cut.findings_by_kind == {FindingKind.UNPATCHED: 2, FindingKind.STALE_ASSESSMENT: 2}
    assert cut.notes[-1] == "Only the first 3 of 4 findings are listed."
    assert made.only([], "nothing has this name", 3).findings_by_kind == {}


def test_the_page_of_the_doctor_has_each_kind() -> None:
    page = (ROOT / "docs/how-to/drift-detection.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(FindingKind)
