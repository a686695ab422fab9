"""Machines whose missing updates are not known, and machines that miss what a schedule reported as installed."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from patchwave.domain.core.documents import format_instant
from patchwave.domain.drift import remediation
from patchwave.domain.drift.findings import Finding, FindingKind
from patchwave.domain.drift.fleet_index import FleetIndex
from patchwave.domain.drift.guest_checks import mend_agent
from patchwave.domain.drift.inputs import ASSESSMENT_RETENTION_DAYS, LastAssessment
from patchwave.domain.fleet.exclusions import CONNECTED, not_connected
from patchwave.domain.fleet.machine import FleetMachine
from patchwave.domain.fleet.patch_mode import AssessmentMode, WantedSettings, refusal_of
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.policy.scope import OsType

BELIEVED_FOR = timedelta(hours=36)
"""How long an assessment speaks of the run before it on Linux, where updates have no publication date; Azure
assesses every 24 hours."""
_BY_DEFAULT = ("critical", "security")
"""What a schedule brings whose configuration does not say, or is not there any more."""


def check_assessments(index: FleetIndex, stale_days: int) -> Iterator[Finding]:
    """Machines whose newest known assessment is older than so many days, or of which none is known."""
    oldest = index.now - timedelta(days=stale_days)
    for folded, machine in sorted(index.machines.items()):
        known = index.facts.assessments.get(folded)
        if machine.settings is None or machine.is_duplicate or (known is not None and known.at >= oldest):
            continue
        evidence = " ".join(filter(None, [_last_known(index, known), _power(machine)]))
        yield Finding(
            kind=FindingKind.STALE_ASSESSMENT, subject=machine.found.id, evidence=evidence, fix=_assess(machine)
        )


def _last_known(index: FleetIndex, known: LastAssessment | None) -> str:
    if known is None:
        return (
            f"No assessment is known: Azure keeps one for {ASSESSMENT_RETENTION_DAYS} days, and no run of Patchwave"
            " has one."
        )
    days = (index.now - known.at).days
    return f"The newest assessment is of {format_instant(known.at)}, {days} day{'' if days == 1 else 's'} ago."


def _power(machine: FleetMachine) -> str:
    """A machine that is off cannot be assessed; the finding says so."""
    word = machine.found.power_state.rpartition("/")[2]
    if word in ("", "running") or word.casefold() == CONNECTED:
        return ""
    if machine.is_arc:
        return not_connected(word).message
    return f"The machine is {word}: it is assessed only while it runs, so start it first."


def _assess(machine: FleetMachine) -> str:
    """Let Azure assess every day; where it does so already, or refuses to, assess now."""
    assert machine.settings is not None
    if agent := mend_agent(machine):
        return agent
    daily = WantedSettings(assessment_mode=AssessmentMode.AUTOMATIC_BY_PLATFORM)
    if machine.is_arc or daily.is_met_by(machine.settings) or refusal_of(machine.settings, daily) is not None:
        return remediation.run_on(machine.found.id, "assess")
    return remediation.set_mode(machine.found.id, daily)


def check_results(index: FleetIndex) -> Iterator[Finding]:
    """Machines whose last run was reported done, and which an assessment after it finds without its updates."""
    for runs in sorted(index.facts.runs, key=lambda each: (each.machine_id, each.configuration_id)):
        machine, known = index.machines.get(runs.machine_id), index.facts.assessments.get(runs.machine_id)
        if (
            machine is None
            or machine.is_duplicate
            or known is None
            or runs.ended_at is None
            or not runs.is_done
            or known.at <= runs.ended_at
        ):
            continue
        configuration = index.configurations.get(runs.configuration_id)
        missing = _missing(machine, known, configuration, runs.ended_at)
        if not missing:
            continue
        name = configuration.name if configuration else runs.configuration_id.rpartition("/")[2]
        counted = ", ".join(f"{count} {classification}" for classification, count in missing.items())
        yield Finding(
            kind=FindingKind.REPORTED_DONE_BUT_MISSING,
            subject=machine.found.id,
            evidence=(
                f"The schedule {name} reported it {runs.status} at {format_instant(runs.ended_at)}; the assessment of"
                f" {format_instant(known.at)} still counts {counted}."
            ),
            fix=mend_agent(machine) or remediation.patch(machine.found.id),
        )


def _missing(
    machine: FleetMachine, known: LastAssessment, configuration: MaintenanceConfiguration | None, ended_at: datetime
) -> dict[str, int]:
    """The missing updates that the schedule should have brought, by classification."""
    if OsType.read(machine.found.os_type) is OsType.LINUX and known.at - ended_at > BELIEVED_FOR:
        return {}
    wanted = _classifications(machine, configuration)
    return {name: count for name, count in known.missing_since(ended_at).items() if name in wanted}


def _classifications(machine: FleetMachine, configuration: MaintenanceConfiguration | None) -> frozenset[str]:
    patches = configuration.install_patches if configuration else None
    if patches is None:
        return frozenset(_BY_DEFAULT)
    is_windows = OsType.read(machine.found.os_type) is OsType.WINDOWS
    parameters = patches.windows_parameters if is_windows else patches.linux_parameters
    return frozenset(name.lower() for name in parameters.classifications_to_include) if parameters else frozenset()
