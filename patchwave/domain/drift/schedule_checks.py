"""Schedules that get in each other's way, that patch nothing, and assignments that hang in the air."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import combinations

from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.folding import fold
from patchwave.domain.drift import remediation
from patchwave.domain.drift.findings import Finding, FindingKind
from patchwave.domain.drift.fleet_index import FleetIndex, expiry_text
from patchwave.domain.drift.inputs import ScheduledRuns
from patchwave.domain.maintenance.assignment import Assignment
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration, format_wall_clock

HORIZON = timedelta(days=400)
"""How long starts are compared, from where both schedules run: over a year, for those that meet once in it."""


def check_schedules(index: FleetIndex) -> Iterator[Finding]:
    """What is wrong with configurations, and with what they are assigned to."""
    yield from _check_starts(index)
    yield from _check_assignments(index)
    for configuration in index.schedules:
        yield from _check_configuration(index, configuration)


# --- two with the same start ---------------------------------------------------------------------------------------


def _check_starts(index: FleetIndex) -> Iterator[Finding]:
    # The first common start of two configurations, worked out once for each pair that any machine has.
    meetings: dict[tuple[str, str], datetime | None] = {}
    for coverage in index.coverages:
        for one, other in combinations(coverage.attached, 2):
            pair = (fold(one.configuration.id), fold(other.configuration.id))
            if pair not in meetings:
                meetings[pair] = _first_common_start(one.configuration, other.configuration, index)
            first = meetings[pair]
            if first is None:
                continue
            evidence = (
                f"The schedules {one.configuration.name} and {other.configuration.name} both start at"
                f" {format_instant(first)}; Azure fires one of them, and does not say which."
            )
            fix = _part(index, other.configuration, other.assignments)
            yield Finding(kind=FindingKind.SAME_START, subject=coverage.machine.found.id, evidence=evidence, fix=fix)


def _part(index: FleetIndex, configuration: MaintenanceConfiguration, assignments: tuple[Assignment, ...]) -> str:
    """Take the machine out of one of the two; out of a dynamic scope it cannot be taken, so that schedule moves."""
    window, following = configuration.window, configuration.next_occurrence(index.now)
    if window is None or following is None or not any(one.is_dynamic for one in assignments):
        return remediation.delete_assignments(assignments)
    later = format_wall_clock(following.window_end_utc.astimezone(window.zone))
    return remediation.change_configuration(configuration.id, "properties.maintenanceWindow.startDateTime", later)


def _first_common_start(
    one: MaintenanceConfiguration, other: MaintenanceConfiguration, index: FleetIndex
) -> datetime | None:
    """``None`` when they do not meet within the horizon, or one of them patches nothing."""
    if index.why_not(one) or index.why_not(other):
        return None
    starts = [(each.at_utc for each in configuration.occurrences(index.now)) for configuration in (one, other)]
    nexts = [next(each, None) for each in starts]
    last: datetime | None = None
    while (first := nexts[0]) is not None and (second := nexts[1]) is not None:
        last = last or max(first, second) + HORIZON
        if first == second:
            return first
        if max(first, second) > last:
            return None
        behind = 0 if first < second else 1
        nexts[behind] = next(starts[behind], None)
    return None


# --- configurations ------------------------------------------------------------------------------------------------


def _check_configuration(index: FleetIndex, configuration: MaintenanceConfiguration) -> Iterator[Finding]:
    machines = index.machines_by_schedule.get(fold(configuration.id), 0)
    attached = f"{machines:,} machine{'' if machines == 1 else 's'} {'is' if machines == 1 else 'are'} attached to it."
    if not configuration.in_guest_patch_mode:
        yield Finding(
            kind=FindingKind.NO_PATCH_MODE,
            subject=configuration.id,
            evidence=f"Its extensionProperties lack InGuestPatchMode, without which it patches nothing. {attached}",
            fix=remediation.set_patch_mode(configuration.id),
        )
    if configuration.has_ended(index.now):
        yield Finding(
            kind=FindingKind.SCHEDULE_ENDED,
            subject=configuration.id,
            evidence=f"It {expiry_text(configuration)}. {attached}",
            fix=(remediation.revive if machines else remediation.delete_configuration)(configuration.id),
        )


# --- assignments ---------------------------------------------------------------------------------------------------


def _check_assignments(index: FleetIndex) -> Iterator[Finding]:
    """Stale assignments; of each, the first rule that applies."""
    ids_by_name = {fold(machine.found.name): machine.found.id for machine in index.machines.values()}
    runs = {(runs.machine_id, runs.configuration_id): runs for runs in index.facts.runs}
    for assignment in index.facts.assignments:
        machine, configuration = assignment.machine_id, fold(assignment.maintenance_configuration_id)
        fix = remediation.delete_assignment(assignment)
        if configuration not in index.configurations:
            why = (
                f"names the configuration {assignment.maintenance_configuration_id}, which is not there: it was"
                " deleted, or Patchwave may not read it."
            )
        elif machine is None:
            continue
        elif machine.folded not in index.machines:
            why = _why_missing(ids_by_name.get(fold(machine.name)))
        else:
            fix = remediation.assign_again(assignment)
            why = _why_older(index.machines[machine.folded].created_at, runs.get((machine.folded, configuration)))
        if why:
            subject = assignment.resource_id if machine else assignment.maintenance_configuration_id
            evidence = f"The assignment {assignment.name} {why}"
            yield Finding(kind=FindingKind.STALE_ASSIGNMENT, subject=subject, evidence=evidence, fix=fix)


def _why_missing(elsewhere: str | None) -> str:
    moved = f" A machine of this name is {elsewhere}: moving one leaves its assignment behind." if elsewhere else ""
    return f"is for a machine that is not there: it was deleted or moved, or Patchwave may not read it.{moved}"


def _why_older(created: datetime | None, runs: ScheduledRuns | None) -> str:
    """Why the assignment is of an earlier machine of the same id; empty when it is not."""
    if created is None or runs is None or runs.first_at is None or runs.first_at >= created:
        return ""
    if runs.is_done and runs.ended_at is not None and runs.ended_at > created:
        return ""
    return (
        f"is older than the machine: it ran at {format_instant(runs.first_at)}, and the machine was created anew at"
        f" {format_instant(created)}. Since then no run was done ({runs.status or 'no status'})."
    )
