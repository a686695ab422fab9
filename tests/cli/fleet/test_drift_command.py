"""``patchwave doctor`` against a service over HTTP, and its fixes against the command itself."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

import pytest
from starlette.responses import JSONResponse

from patchwave.cli.app import whole
from patchwave.domain.core.outcome import Reason
from patchwave.domain.core.patches import ReportedError
from patchwave.domain.drift.findings import Finding, FindingKind
from patchwave.domain.drift.inputs import DriftInputs, LastAssessment, ScheduledRuns
from patchwave.domain.fleet.patch_mode import AssessmentMode, PatchMode
from patchwave.domain.fleet.scale_sets import ScaleSet
from patchwave.domain.policy.scope import OsType
from tests.cli.conftest import Patchwave
from tests.cli.service import Service
from tests.support.drift_fleet import (
    CUSTOM_IMAGE,
    NOW,
    assigned,
    configuration,
    configuration_id,
    facts,
    machine,
    machine_id,
    policy,
    report,
    scoped,
)


def assessed_with(os_type: OsType, text: str) -> DriftInputs:
    """A machine whose last assessment reports an error."""
    error = ReportedError(code="ERROR", message=text)
    known = LastAssessment(NOW, has_succeeded=False, errors=(error,))
    return facts(machine(os_type=os_type), assessments={machine_id().lower(): known})


def fleets() -> Iterator[DriftInputs]:
    """One or more for each kind of finding, and for each fix."""
    weekly = configuration()
    bypassed = machine(bypass=True, assessment_mode=AssessmentMode.IMAGE_DEFAULT)
    yield facts(bypassed)
    yield facts(machine(image=CUSTOM_IMAGE))
    yield facts(machine(image="Canonical:ubuntu-26_04-lts:server:latest"))
    yield facts(machine(image="Canonical:UbuntuServer:18.04-LTS:latest"))
    scale_set = f"{machine_id().partition('/virtualMachines/')[0]}/virtualMachineScaleSets/web"
    member = machine()
    member = replace(member, found=member.found.model_copy(update={"scale_set_id": scale_set}))
    yield facts(member, scale_sets=[ScaleSet(id=scale_set, os_type="Linux", monitors_health=False)])
    enrolled = machine()
    arc_id = machine_id().replace("Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines")
    twice = {"id": arc_id, "problem": "It is web-01 as well.", "problem_reason": Reason.DUPLICATE}
    yield facts(replace(enrolled, found=enrolled.found.model_copy(update=twice)))
    yield facts(machine(allows_extensions=False))
    yield facts(machine(agent_version="2.2.45"))
    for os_type, text in ((OsType.LINUX, "holding the yum lock"), (OsType.LINUX, "Failed to fetch")):
        yield assessed_with(os_type, text)
    for text in ("0x80070422", "0x8024402C"):
        yield assessed_with(OsType.WINDOWS, text)
    yield facts(machine(mode=PatchMode.IMAGE_DEFAULT))
    yield facts(replace(machine(), settings=None))
    yield facts(machine(), configurations=[weekly], assignments=[assigned()])
    yield facts(bypassed, configurations=[weekly], assignments=[assigned()], policies=[policy()])
    yield facts(bypassed, configurations=[weekly], assignments=[scoped()], policies=[policy()])
    windows = machine(mode=PatchMode.AUTOMATIC_BY_OS, os_type=OsType.WINDOWS)
    yield facts(windows, configurations=[weekly], assignments=[assigned()])
    both = [weekly, configuration("same")]
    yield facts(bypassed, configurations=both, assignments=[assigned(), assigned("same")])
    yield facts(bypassed, configurations=both, assignments=[assigned(), scoped("same")])
    yield facts(configurations=[weekly], assignments=[assigned()])
    ended = configuration(expires="2026-06-01 00:00")
    yield facts(bypassed, configurations=[ended, configuration("plain", mode="")], assignments=[assigned()])
    yield facts(configurations=[ended])
    runs = ScheduledRuns(machine_id().lower(), configuration_id().lower(), NOW, NOW - timedelta(days=1), "Succeeded")
    yield facts(
        bypassed,
        configurations=[weekly],
        assignments=[assigned()],
        runs=[runs],
        assessments={machine_id().lower(): LastAssessment(NOW, {"security": 2})},
    )
    recreated = replace(runs, first_at=NOW - timedelta(days=9), status="Failed")
    created = machine(bypass=True, created_at=NOW - timedelta(days=2))
    yield facts(created, configurations=[weekly], assignments=[assigned()], runs=[recreated])


def all_findings() -> list[Finding]:
    return [finding for fleet in fleets() for finding in report(fleet).findings]


def commands_of(fix: str) -> Iterator[list[str]]:
    """The calls of patchwave in a fix: its words, as the shell makes them."""
    words = shlex.split(fix, comments=True)
    call: list[str] | None = None
    for word in [*words, "&&"]:
        if word in ("&&", "|", ">"):
            if call is not None:
                yield call
            call = None
        elif word == "patchwave":
            call = []
        elif call is not None:
            call.append(word)


@lru_cache
def _tree() -> Any:
    return whole()


def parsed(words: list[str]) -> str:
    """Let the command take its arguments without doing anything; its name."""
    command, name = _tree(), "patchwave"
    rest = list(words)
    while hasattr(command, "commands"):
        name = rest.pop(0)
        command = command.commands[name]
    command.make_context(name, rest)
    return name


GUEST_RUNS = ["az", "vm", "run-command", "invoke", "--ids", machine_id(), "--command-id"]
AZURES_OWN = {
    FindingKind.UNMANAGEABLE: ["az", "vm", "show", "--ids", machine_id()],
    FindingKind.DUPLICATE: ["az", "connectedmachine", "delete", "--ids"],
    FindingKind.UNMONITORED_SCALE_SET: ["az", "vmss", "extension", "set"],
    FindingKind.NO_AGENT: ["az", "vm"],
    FindingKind.OLD_AGENT: [*GUEST_RUNS, "RunShellScript", "--scripts"],
    FindingKind.PACKAGEKIT_RUNNING: [*GUEST_RUNS, "RunShellScript", "--scripts"],
    FindingKind.UPDATE_SERVICE_DISABLED: [*GUEST_RUNS, "RunPowerShellScript", "--scripts"],
    FindingKind.UPDATE_SOURCE_UNREACHABLE: [*GUEST_RUNS],
    FindingKind.END_OF_LIFE: ["az", "vm", "image", "list-offers", "--publisher", "Canonical", "--location"],
}


def test_there_is_a_fleet_for_each_kind():
    assert {finding.kind for finding in all_findings()} == set(FindingKind)


def test_each_fix_is_a_command_that_there_is():
    for finding in all_findings():
        if finding.kind in AZURES_OWN or finding.fix.startswith("az "):
            # Patchwave can do nothing for it, as for a machine without an agent: the command is Azure's own.
            words, expected = shlex.split(finding.fix, comments=True), AZURES_OWN.get(finding.kind, ["az", "vm"])
            assert words[: len(expected)] == expected
            continue
        calls = list(commands_of(finding.fix))
        assert calls, finding
        for words in calls:
            assert parsed(words), finding


@pytest.fixture
def findings() -> dict[str, Any]:
    """A report as the service writes it."""
    fleet = facts(machine("web-01", bypass=True), machine("web-02", bypass=True))
    return report(fleet).to_wire()


def test_findings_with_evidence_and_fix(patchwave: Patchwave, service: Service, findings: dict[str, Any]):
    service.answers = [JSONResponse(findings)]
    result = patchwave("doctor", "--kind", "unpatched", "--kind", "same_start", "--stale-days", "3")
    assert result.code == 1
    [asked] = service.asked("GET", "/api/fleet/doctor")
    assert asked["query"] == {"kind": "unpatched,same_start", "staleDays": "3"}
    assert "2 machines, 0 schedules: 4 findings" in result.output
    assert "unpatched (2)" in result.output
    lines = [line.strip() for line in result.output.splitlines()]
    assert findings["findings"][0]["fix"] in lines
    assert findings["findings"][0]["evidence"] in lines


@pytest.mark.parametrize("columns", [None, "40"])
def test_a_fix_is_one_line_however_long_it_is(
    patchwave: Patchwave,
    service: Service,
    findings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    columns: str | None,
):
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    fix = "patchwave fleet set-mode --mode AutomaticByPlatform " + "--machine /subscriptions/11111111 " * 20
    findings["findings"][0]["fix"] = fix.strip()
    service.answers = [JSONResponse(findings)]
    assert f"  {fix.strip()}" in patchwave("doctor").output.splitlines()


def test_a_long_list_is_counted_and_can_be_shown_whole(patchwave: Patchwave, service: Service):
    fleet = facts(*(machine(f"web-{number:02}", bypass=True) for number in range(25)))
    found = report(fleet).only([FindingKind.UNPATCHED], "", 1_000).to_wire()
    service.answers = [JSONResponse(found), JSONResponse(found)]
    short = patchwave("doctor", "--kind", "unpatched")
    assert "25 machines, 0 schedules: 25 findings" in short.output
    assert "and 5 more: --all" in short.output
    assert ("web-19" in short.output, "web-20" in short.output) == (True, False)
    whole = patchwave("doctor", "--kind", "unpatched", "--all")
    assert ("web-24" in whole.output, "more: --all" in whole.output) == (True, False)


def test_as_json(patchwave: Patchwave, service: Service, findings: dict[str, Any]):
    service.answers = [JSONResponse(findings)]
    result = patchwave("doctor", "-o", "json")
    assert result.code == 1
    assert result.document == findings


def test_a_healthy_fleet(patchwave: Patchwave, service: Service):
    healthy = report(facts(machine(), assessments={machine_id().lower(): LastAssessment(NOW)})).to_wire()
    service.answers = [JSONResponse(healthy | {"notes": ["When it runs is not known."]})]
    result = patchwave("doctor")
    assert result.code == 0
    assert "nothing is wrong" in result.output
    assert "When it runs is not known." in result.output
