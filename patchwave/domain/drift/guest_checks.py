"""What guests lack for guest patching, as far as the agent and the newest errors of the patch extension tell."""

from collections.abc import Iterator

from patchwave.domain.azure.guest_problems import GuestProblem, find_problems
from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.patches import ReportedError
from patchwave.domain.drift import remediation
from patchwave.domain.drift.findings import Finding, FindingKind
from patchwave.domain.drift.fleet_index import FleetIndex
from patchwave.domain.fleet.eligibility import Cause
from patchwave.domain.fleet.machine import FleetMachine
from patchwave.domain.policy.scope import OsType

_RUNNING = "running"
_NOT_REPORTING = "unknown"
"""Azure's word for the version of an agent that does not report."""


_KINDS = {
    Cause.NO_AGENT: FindingKind.NO_AGENT,
    Cause.NO_EXTENSIONS: FindingKind.NO_AGENT,
    Cause.OLD_AGENT: FindingKind.OLD_AGENT,
}


def check_guests(index: FleetIndex) -> Iterator[Finding]:
    """Missing, silent and old agents; then what errors tell, which only an agent reports."""
    for folded, machine in sorted(index.machines.items()):
        if machine.settings is None or machine.found.problem:
            continue
        agent = _check_agent(machine)
        if agent is not None:
            yield agent
        if agent is None or agent.kind is not FindingKind.NO_AGENT:
            yield from _check_errors(index, folded, machine, has_old_agent=agent is not None)


def mend_agent(machine: FleetMachine) -> str:
    """What gives a machine an agent that works and is new enough; empty where it has one. No run can do without."""
    causes = [obstacle.cause for obstacle in machine.eligibility.obstacles]
    if Cause.NO_AGENT in causes:
        return remediation.allow_extensions(machine.found.id, installs_agent=True)
    if Cause.NO_EXTENSIONS in causes:
        return remediation.allow_extensions(machine.found.id)
    return remediation.update_linux_agent(machine.found.id) if Cause.OLD_AGENT in causes else ""


def run_or_mend_agent(machine: FleetMachine, mode: str) -> str:
    """A run of one machine; without an agent, which it needs, the agent."""
    return mend_agent(machine) or remediation.run_on(machine.found.id, mode)


def _check_agent(machine: FleetMachine) -> Finding | None:
    subject = machine.found.id
    for obstacle in machine.eligibility.obstacles:
        if kind := _KINDS.get(obstacle.cause):
            return Finding(kind=kind, subject=subject, evidence=obstacle.sentence, fix=mend_agent(machine))
    power = machine.found.power_state.rpartition("/")[2].casefold()
    if power == _RUNNING and machine.agent_version.casefold() == _NOT_REPORTING:
        evidence = (
            "The machine runs, and its VM agent does not report to Azure: it does not run, is not installed, or cannot"
            " reach 168.63.129.16. A machine that has just started shows this for some minutes."
        )
        return Finding(
            kind=FindingKind.NO_AGENT, subject=subject, evidence=evidence, fix=remediation.restart_machine(subject)
        )
    return None


def _check_errors(index: FleetIndex, folded: str, machine: FleetMachine, *, has_old_agent: bool) -> Iterator[Finding]:
    what, errors = _newest_errors(index, folded)
    assert machine.settings is not None
    is_windows = machine.settings.os_type is OsType.WINDOWS
    for problem, error in find_problems(errors).items():
        evidence = f"{_SENTENCES[problem]} {what} says: {error.text}"
        subject = machine.found.id
        match problem:
            case GuestProblem.OLD_AGENT if not has_old_agent and not is_windows:
                fix = remediation.update_linux_agent(subject)
                yield Finding(kind=FindingKind.OLD_AGENT, subject=subject, evidence=evidence, fix=fix)
            case GuestProblem.PACKAGEKIT if not is_windows:
                fix = remediation.mask_packagekit(subject)
                yield Finding(kind=FindingKind.PACKAGEKIT_RUNNING, subject=subject, evidence=evidence, fix=fix)
            case GuestProblem.SERVICE_DISABLED if is_windows:
                fix = remediation.enable_windows_update(subject)
                yield Finding(kind=FindingKind.UPDATE_SERVICE_DISABLED, subject=subject, evidence=evidence, fix=fix)
            case GuestProblem.SOURCE_UNREACHABLE:
                fix = (remediation.show_wsus if is_windows else remediation.refresh_repositories)(subject)
                yield Finding(kind=FindingKind.UPDATE_SOURCE_UNREACHABLE, subject=subject, evidence=evidence, fix=fix)
            case _:
                pass


def _newest_errors(index: FleetIndex, folded: str) -> tuple[str, tuple[ReportedError, ...]]:
    """What a machine last reported, and its errors: what an older report tells may be mended."""
    assessed, failed = index.facts.assessments.get(folded), index.facts.failed_installations.get(folded)
    if failed is not None and (assessed is None or assessed.at < failed.at):
        return f"Its installation of {format_instant(failed.at)}", failed.errors
    return (f"Its assessment of {format_instant(assessed.at)}", assessed.errors) if assessed else ("", ())


_SENTENCES = {
    GuestProblem.OLD_AGENT: "The Linux agent is too old for the patch extension.",
    GuestProblem.PACKAGEKIT: (
        "packagekit still runs: it installs updates by itself and keeps the package manager locked; Microsoft asks to"
        " stop and mask it."
    ),
    GuestProblem.SERVICE_DISABLED: "The Windows Update service is disabled.",
    GuestProblem.SOURCE_UNREACHABLE: (
        "The machine cannot reach where its updates come from, such as a repository, WSUS or Windows Update: check"
        " proxy, firewall and the configured address."
    ),
}
