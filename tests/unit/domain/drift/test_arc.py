"""What the doctor says of Arc machines: schedules without modes, fixes that can work there, and duplicates."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from patchwave.domain.core.ids import MachineType
from patchwave.domain.core.outcome import Reason
from patchwave.domain.drift.findings import FindingKind
from patchwave.domain.drift.inputs import LastAssessment, excluded_patches, newest_assessments
from patchwave.domain.fleet.machine import FleetMachine
from patchwave.domain.fleet.patch_mode import PatchMode, PatchSource, arc_ownership
from patchwave.domain.maintenance.assignment import Assignment
from tests.support.drift_fleet import NOW, assigned, configuration, facts, found, machine, report, scoped

LATELY = NOW - timedelta(hours=3)


def arc_id(name: str = "web-01") -> str:
    return (
        machine()
        .found.id.replace("Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines")
        .replace("web-01", name)
    )


def arc(name: str = "web-01", mode: PatchMode = PatchMode.IMAGE_DEFAULT, power: str = "Connected") -> FleetMachine:
    one = machine(name, mode)
    return replace(one, found=one.found.model_copy(update={"id": arc_id(name), "power_state": power}))


def assigned_to_arc(name: str = "web-01") -> Assignment:
    one = assigned(machine=name)
    ids = {"id": one.id, "resource_id": one.resource_id}
    old, new = "Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines"
    return one.model_copy(update={key: text.replace(old, new) for key, text in ids.items()})


def assessed(*names: str) -> dict[str, LastAssessment]:
    return {arc_id(name).lower(): LastAssessment(LATELY) for name in names or ("web-01",)}


def test_a_schedule_patches_an_arc_machine_whatever_its_mode_is() -> None:
    for mode in (PatchMode.IMAGE_DEFAULT, PatchMode.MANUAL):
        fleet = facts(
            arc(mode=mode),
            configurations=[configuration()],
            assignments=[assigned_to_arc()],
            assessments=assessed(),
        )
        assert found(fleet) == []


def test_a_dynamic_scope_holds_arc_machines_by_its_types() -> None:
    for types, kinds in (([], []), (["microsoft.compute/virtualmachines"], [FindingKind.UNPATCHED])):
        fleet = facts(
            arc(),
            configurations=[configuration()],
            assignments=[scoped(resourceTypes=types)],
            assessments=assessed(),
        )
        assert [finding.kind for finding in found(fleet)] == kinds


def test_an_arc_machine_without_a_schedule_is_unpatched_and_a_run_mends_it() -> None:
    (finding,) = found(facts(arc(), assessments=assessed()))
    assert (finding.kind, finding.subject) == (FindingKind.UNPATCHED, arc_id())
    assert "Azure patches no Arc machine by itself" in finding.evidence
    assert '"machineTypes": ["arc"]' in finding.fix
    assert "set-mode" not in finding.fix


def test_a_schedule_that_has_ended_is_revived_and_no_mode_is_set() -> None:
    ended = configuration(expires="2026-02-01 00:00")
    fleet = facts(arc(), configurations=[ended], assignments=[assigned_to_arc()], assessments=assessed())
    (finding,) = found(fleet, FindingKind.UNPATCHED)
    assert "expirationDateTime" in finding.fix
    assert "set-mode" not in finding.fix


@pytest.mark.parametrize(
    ("power", "said"), [("Connected", ""), ("Disconnected", "Azure cannot start it"), ("Expired", "azcmagent")]
)
def test_an_old_assessment_is_mended_by_a_run_on_the_arc_machine(power: str, said: str) -> None:
    fleet = facts(arc(power=power), configurations=[configuration()], assignments=[assigned_to_arc()])
    (finding,) = found(fleet, FindingKind.STALE_ASSESSMENT)
    assert finding.kind is FindingKind.STALE_ASSESSMENT
    assert said in finding.evidence
    assert "start it first" not in finding.evidence
    assert '"machineTypes": ["arc"]' in finding.fix
    assert "--mode assess" in finding.fix


def test_a_virtual_machine_that_is_enrolled_is_one_finding() -> None:
    one = arc()
    problem = {"problem": "It is the virtual machine x.", "problem_reason": Reason.DUPLICATE}
    (finding,) = report(facts(replace(one, found=one.found.model_copy(update=problem)))).findings
    assert (finding.kind, finding.subject) == (FindingKind.DUPLICATE, arc_id())
    assert "It is the virtual machine x." in finding.evidence
    assert finding.fix.startswith(f"az connectedmachine delete --ids {arc_id()}")


def test_an_assignment_of_an_arc_machine_that_is_gone_is_stale() -> None:
    fleet = facts(configurations=[configuration()], assignments=[assigned_to_arc()])
    assert [finding.kind for finding in found(fleet, FindingKind.STALE_ASSIGNMENT)] == [FindingKind.STALE_ASSIGNMENT]


def test_what_patches_an_arc_machine_has_no_scenario() -> None:
    nothing = arc_ownership()
    assert (nothing.scenario, nothing.patcher, nothing.is_mistake) == (None, PatchSource.NONE, False)


def test_each_type_has_its_own_tables() -> None:
    for kind in MachineType:
        assert f"'{kind.full_type}/patchassessmentresults'" in newest_assessments(kind)
        assert f"'{kind.full_type}/patchassessmentresults/softwarepatches'" in excluded_patches(kind, NOW)
