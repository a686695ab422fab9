"""What guests lack, as their agent and their errors tell, and the commands that mend it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.guest_problems import GuestProblem, find_problems
from patchwave.domain.core.patches import ReportedError
from patchwave.domain.drift.findings import Finding, FindingKind
from patchwave.domain.drift.inputs import (
    DriftInputs,
    FailedInstallation,
    LastAssessment,
    read_assessments,
    read_failed_installations,
)
from patchwave.domain.policy.scope import OsType
from tests.support.drift_fleet import NOW, facts, found, machine, machine_id, policy, report

PACKAGE_MANAGER = (
    "Customer environment error: Investigate and resolve unexpected return code (100) from package manager on command:"
)
GUEST_KINDS = {
    FindingKind.NO_AGENT,
    FindingKind.OLD_AGENT,
    FindingKind.PACKAGEKIT_RUNNING,
    FindingKind.UPDATE_SERVICE_DISABLED,
    FindingKind.UPDATE_SOURCE_UNREACHABLE,
}


def guest_findings(fleet: DriftInputs) -> list[Finding]:
    return [each for each in found(fleet) if each.kind in GUEST_KINDS]


def assessed(*errors: ReportedError, os_type: OsType = OsType.LINUX, **given: Any) -> DriftInputs:
    """A machine whose last assessment failed with these errors; a policy patches it."""
    known = LastAssessment(NOW, has_succeeded=False, errors=errors)
    return facts(machine(os_type=os_type, **given), policies=[policy()], assessments={machine_id().lower(): known})


def error(message: str, code: str = "PACKAGE_MANAGER_FAILURE") -> ReportedError:
    return ReportedError(code=code, message=message)


# --- the agent -------------------------------------------------------------------------------------------------


def test_a_machine_without_an_agent_gets_no_run() -> None:
    findings = report(facts(machine(provision_vm_agent=False))).findings
    assert [each.kind for each in findings] == [
        FindingKind.UNPATCHED,
        FindingKind.STALE_ASSESSMENT,
        FindingKind.NO_AGENT,
    ]
    assert {each.fix for each in findings} == {
        f"az vm update --ids {machine_id()} --set osProfile.allowExtensionOperations=true  # after the agent was"
        " installed in the guest: https://learn.microsoft.com/azure/virtual-machines/extensions/overview"
    }
    assert "provisionVMAgent is off" in findings[-1].evidence


def test_a_machine_that_may_install_no_extensions() -> None:
    [finding] = guest_findings(facts(machine(allows_extensions=False)))
    assert finding.kind is FindingKind.NO_AGENT
    assert finding.fix == f"az vm update --ids {machine_id()} --set osProfile.allowExtensionOperations=true"


@pytest.mark.parametrize(("power", "is_found"), [("running", True), ("deallocated", False), ("stopped", False)])
def test_an_agent_that_is_silent_while_the_machine_runs(power: str, is_found: bool) -> None:
    findings = guest_findings(facts(machine(power=power, agent_version="Unknown")))
    assert [each.kind for each in findings] == ([FindingKind.NO_AGENT] if is_found else [])
    if is_found:
        assert findings[0].fix.startswith(f"az vm restart --ids {machine_id()}  # ")


def test_a_version_that_was_not_read_is_no_finding() -> None:
    assert guest_findings(facts(machine(agent_version=""))) == []


def test_an_old_linux_agent_is_updated() -> None:
    findings = found(facts(machine(agent_version="2.2.45")))
    assert [each.kind for each in findings] == [FindingKind.UNPATCHED, FindingKind.OLD_AGENT]
    assert "2.2.53.1 or newer" in findings[1].evidence
    for finding in findings:
        words = shlex.split(finding.fix)
        assert words[:8] == [
            "az", "vm", "run-command", "invoke", "--ids", machine_id(), "--command-id", "RunShellScript",
        ]  # fmt: skip
        for package in ("walinuxagent", "WALinuxAgent", "python-azure-agent"):
            assert package in words[-1]


def test_an_old_agent_that_only_an_error_tells_is_found_once() -> None:
    too_old = error("Unsupported older Azure Linux Agent version", "CL_AGENT_TOO_OLD")
    [finding] = guest_findings(assessed(too_old))
    assert finding.kind is FindingKind.OLD_AGENT
    assert "Unsupported older Azure Linux Agent version" in finding.evidence
    assert len(guest_findings(assessed(too_old, agent_version="2.2.45"))) == 1


# --- errors of the last assessment -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["Unexpected return code (1) on command: systemctl disable packagekit"])
def test_packagekit_still_runs(text: str) -> None:
    [finding] = guest_findings(assessed(error(text, "OPERATION_FAILED")))
    assert finding.kind is FindingKind.PACKAGEKIT_RUNNING
    assert text in finding.evidence
    words = shlex.split(finding.fix)
    assert words[-2:] == ["systemctl stop packagekit", "systemctl mask packagekit"]


@pytest.mark.parametrize("code", ["0x8024002E", "0x80070422"])
def test_the_windows_update_service_is_disabled(code: str) -> None:
    [finding] = guest_findings(assessed(error(f"Windows update API failed: {code}", code), os_type=OsType.WINDOWS))
    assert finding.kind is FindingKind.UPDATE_SERVICE_DISABLED
    words = shlex.split(finding.fix)
    assert words[-4:-2] == ["RunPowerShellScript", "--scripts"]
    assert words[-2:] == ["Set-Service -Name wuauserv -StartupType Manual", "Start-Service -Name wuauserv"]


@pytest.mark.parametrize(
    ("os_type", "text", "command"),
    [
        (OsType.WINDOWS, "0x8024402C", "RunPowerShellScript"),
        (OsType.WINDOWS, "0x8024401C", "RunPowerShellScript"),
        (OsType.WINDOWS, "0x8024402F", "RunPowerShellScript"),
        (OsType.WINDOWS, "0x80072EE2", "RunPowerShellScript"),
        (OsType.LINUX, "Error: Failed to download metadata for repo 'rhui-rhel-8'", "RunShellScript"),
        (OsType.LINUX, f"{PACKAGE_MANAGER} sudo apt-get -q update"[:128], "RunShellScript"),
        (OsType.LINUX, f"{PACKAGE_MANAGER} sudo yum -q check-update"[:128], "RunShellScript"),
        (OsType.LINUX, f"{PACKAGE_MANAGER} sudo zypper refresh --services"[:128], "RunShellScript"),
        (OsType.LINUX, "Temporary failure resolving 'azure.archive.ubuntu.com'", "RunShellScript"),
    ],
)
def test_an_update_source_out_of_reach(os_type: OsType, text: str, command: str) -> None:
    [finding] = guest_findings(assessed(error(text), os_type=os_type))
    assert finding.kind is FindingKind.UPDATE_SOURCE_UNREACHABLE
    assert text in finding.evidence
    assert command in shlex.split(finding.fix)


def test_a_windows_script_reaches_the_guest_as_it_is_written() -> None:
    [finding] = guest_findings(assessed(error("0x8024402C"), os_type=OsType.WINDOWS))
    scripts = shlex.split(finding.fix)[-3:]
    assert r"HKLM:\SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate -ErrorAction" in scripts[0]
    assert scripts[2] == "Test-NetConnection ([uri]$server).Host -Port ([uri]$server).Port"


def test_an_error_of_the_other_system_is_no_finding() -> None:
    assert guest_findings(assessed(error("packagekit"), os_type=OsType.WINDOWS)) == []
    assert guest_findings(assessed(error("0x80070422"), os_type=OsType.LINUX)) == []


def test_nothing_is_run_in_a_guest_without_an_agent() -> None:
    [finding] = guest_findings(assessed(error("packagekit"), provision_vm_agent=False))
    assert finding.kind is FindingKind.NO_AGENT


def test_each_problem_is_found_once() -> None:
    fleet = assessed(error("Failed to fetch one"), error("Failed to fetch two"), error("packagekit"))
    assert [each.kind for each in guest_findings(fleet)] == [
        FindingKind.PACKAGEKIT_RUNNING,
        FindingKind.UPDATE_SOURCE_UNREACHABLE,
    ]


@given(st.lists(st.builds(ReportedError, code=st.text(max_size=20), message=st.text(max_size=128)), max_size=5))
def test_errors_that_tell_nothing_are_no_problem(errors: list[ReportedError]) -> None:
    problems = find_problems(errors)
    assert set(problems) <= set(GuestProblem)
    assert all(each in errors for each in problems.values())


@pytest.mark.parametrize(
    ("hours", "kinds"),
    [(1, [FindingKind.PACKAGEKIT_RUNNING]), (-1, [FindingKind.UPDATE_SOURCE_UNREACHABLE])],
    ids=["the installation is newer", "the assessment is newer"],
)
def test_only_the_newest_report_counts(hours: int, kinds: list[FindingKind]) -> None:
    fleet = assessed(error("Failed to fetch"))
    failed = FailedInstallation(NOW + timedelta(hours=hours), (error("packagekit"),))
    findings = guest_findings(replace(fleet, failed_installations={machine_id().lower(): failed}))
    assert [each.kind for each in findings] == kinds
    assert ("Its installation of" in findings[0].evidence) is (hours > 0)


def test_a_failed_installation_of_a_machine_that_was_not_assessed() -> None:
    [read] = read_failed_installations(
        [
            {"machine": machine_id().lower(), "at": "2026-11-21T11:00:00Z", "errors": details("ERROR")},
            {"machine": "odd", "at": "2026-11-21T11:00:00Z"},
            {"machine": machine_id().lower() + "x", "at": None},
        ]
    ).items()
    assert read[0] == machine_id().lower()
    assert [each.code for each in read[1].errors] == ["ERROR"]
    failed = {machine_id().lower(): FailedInstallation(NOW, (error("packagekit"),))}
    [finding] = guest_findings(facts(machine(), failed_installations=failed))
    assert finding.kind is FindingKind.PACKAGEKIT_RUNNING


# --- how Resource Graph shows an assessment ----------------------------------------------------------------------


def row(**given: Any) -> dict[str, Any]:
    return {"id": f"{machine_id()}/patchAssessmentResults/latest", "at": "2026-11-21T11:00:00Z", "missing": {}} | given


def details(*codes: str) -> dict[str, Any]:
    return {"code": "1", "message": "errors", "details": [{"code": code, "message": "text"} for code in codes]}


@pytest.mark.parametrize(
    ("given_row", "has_succeeded", "codes"),
    [
        (row(), True, []),
        (row(status="Succeeded", errors={"code": "0", "message": "0 error/s reported.", "details": []}), True, []),
        (row(status="CompletedWithWarnings", errors=details("ERROR")), True, ["ERROR"]),
        (row(status="Failed", errors=details("PACKAGE_MANAGER_FAILURE")), False, ["PACKAGE_MANAGER_FAILURE"]),
        (row(status="InProgress"), False, []),
        (row(status="Unexpected"), False, []),
        (row(errors=details("ERROR")), False, ["ERROR"]),
        (row(errors=details("UA_ESM_REQUIRED", "PACKAGE_LIST_TRUNCATED")), True, []),
        (row(errors="odd"), True, []),
    ],
)
def test_whether_an_assessment_succeeded(given_row: dict[str, Any], has_succeeded: bool, codes: list[str]) -> None:
    known = read_assessments([given_row])[machine_id().lower()]
    assert known.has_succeeded is has_succeeded
    assert [each.code for each in known.errors] == codes
