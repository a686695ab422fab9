"""Drift detection over a fleet, a pure function of facts. ``docs/how-to/drift-detection.md`` explains each finding."""

from datetime import datetime

from patchwave.domain.drift.compliance_checks import check_assessments, check_results
from patchwave.domain.drift.coverage_checks import check_patchers, check_scale_sets
from patchwave.domain.drift.findings import DriftReport, count_by_kind, sort_findings
from patchwave.domain.drift.fleet_index import FleetIndex
from patchwave.domain.drift.guest_checks import check_guests
from patchwave.domain.drift.image_checks import check_images
from patchwave.domain.drift.inputs import DriftInputs
from patchwave.domain.drift.schedule_checks import check_schedules


def examine(facts: DriftInputs, now: datetime, stale_days: int) -> DriftReport:
    """Everything that is wrong, in a fixed order: the same facts in any order give the same report.

    Args:
        facts: the whole fleet; a machine or configuration that is left out counts as deleted.
        now: UTC.
        stale_days: assessments older than this are stale.
    """
    index = FleetIndex(facts, now)
    findings = sort_findings(
        [
            *check_patchers(index),
            *check_scale_sets(index),
            *check_schedules(index),
            *check_assessments(index, stale_days),
            *check_results(index),
            *check_guests(index),
            *check_images(index),
        ]
    )
    return DriftReport(
        at=now,
        stale_days=stale_days,
        machines=len(index.machines),
        configurations=len(index.schedules),
        findings_by_kind=count_by_kind(findings),
        findings=findings,
        notes=_notes(index),
    )


def _notes(index: FleetIndex) -> list[str]:
    unread = [
        f"It is not known when the configuration {each.id} runs: {each.unreadable}."
        for each in index.schedules
        if each.unreadable
    ]
    systems = sum(machine.settings is None and not machine.found.problem for machine in index.machines.values())
    if systems:
        unread.append(f"{systems:,} machines are neither Windows nor Linux, according to Azure: they were not checked.")
    return sorted([*index.facts.notes, *unread])
