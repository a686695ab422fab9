"""Schedules that get in each other's way, that patch nothing, and assignments that hang in the air."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import combinations

from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.folding import fold
from patchwave.domain.drift import remediation
from patchwave.domain.drift.findings import Finding, FindingKind
from patchwave.domain.drift.fleet_index import FleetIndex, expiry_text
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
    meetings = _Meetings(index)
    for standing in index.coverages:
        for one, other in combinations(standing.attached, 2):
            first = meetings.first(one.configuration, other.configuration)
            if first is None:
                continue
            evidence = (
                f"The schedules {one.configuration.name} and {other.configuration.name} both start at"
                f" {format_instant(first)}; Azure fires one of them, and does not say which."
            )
            fix = _part(index, other.configuration, other.assignments)
            yield Finding(kind=FindingKind.SAME_START, subject=standing.machine.found.id, evidence=evidence, fix=fix)


def _part(index: FleetIndex, configuration: MaintenanceConfiguration, assignments: tuple[Assignment, ...]) -> str:
    """Take the machine out of one of the two; out of a dynamic scope it cannot be taken, so that schedule moves."""
    window, following = configuration.window, configuration.next_occurrence(index.now)
    if window is None or following is None or not any(one.is_dynamic for one in assignments):
        return remediation.delete_assignments(assignments)
    later = format_wall_clock(following.window_end_utc.astimezone(window.zone))
    return remediation.change_configuration(configuration.id, "properties.maintenanceWindow.startDateTime", later)


class _Meetings:
    """The first common start of two configurations, worked out once for each pair that any machine has."""

    def __init__(self, index: FleetIndex) -> None:
        self._index = index
        self._first: dict[tuple[str, str], datetime | None] = {}

    def first(self, one: MaintenanceConfiguration, other: MaintenanceConfiguration) -> datetime | None:
        """``None`` when they do not meet within the horizon, or one of them patches nothing."""
        pair = (fold(one.id), fold(other.id))
        if pair not in self._first:
            is_live = not self._index.why_not(one) and not self._index.why_not(other)
            self._first[pair] = _first_common_start(one, other, self._index.now) if is_live else None
        return self._first[pair]


def _first_common_start(
    one: MaintenanceConfiguration, other: MaintenanceConfiguration, now: datetime
) -> datetime | None:
    starts = [(each.at_utc for each in configuration.occurrences(now)) for configuration in (one, other)]
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
    names = _names(index)
    lives = {(runs.machine_id, runs.configuration_id): runs for runs in index.facts.runs}
    for assignment in index.facts.assignments:
        configuration = fold(assignment.maintenance_configuration_id)
        machine = assignment.machine_id
        if configuration not in index.configurations:
            evidence = (
                f"The assignment {assignment.name} names the configuration {assignment.maintenance_configuration_id},"
                " which is not there: it was deleted, or Patchwave may not read it."
            )
            yield _stale(assignment, evidence, remediation.delete_assignment(assignment))
        elif machine is not None and machine.folded not in index.machines:
            elsewhere = names.get(fold(machine.name))
            moved = (
                f" A machine of this name is {elsewhere}: moving one leaves its assignment behind." if elsewhere else ""
            )
            evidence = (
                f"The assignment {assignment.name} is for a machine that is not there: it was deleted or moved, or"
                f" Patchwave may not read it.{moved}"
            )
            yield _stale(assignment, evidence, remediation.delete_assignment(assignment))
        elif machine is not None:
            created = index.machines[machine.folded].created_at
            runs = lives.get((machine.folded, configuration))
            is_older = runs and created and runs.first_at and runs.first_at < created
            if runs and created and is_older and not (runs.is_done and runs.ended_at and runs.ended_at > created):
                evidence = (
                    f"The assignment {assignment.name} is older than the machine: it ran at"
                    f" {format_instant(runs.first_at or created)}, and the machine was created anew at"
                    f" {format_instant(created)}. Since then no run was done ({runs.status or 'no status'})."
                )
                yield _stale(assignment, evidence, remediation.assign_again(assignment))


def _stale(assignment: Assignment, evidence: str, fix: str) -> Finding:
    subject = assignment.resource_id if assignment.machine_id else assignment.maintenance_configuration_id
    return Finding(kind=FindingKind.STALE_ASSIGNMENT, subject=subject, evidence=evidence, fix=fix)


def _names(index: FleetIndex) -> dict[str, str]:
    """The id of a machine by its name, in lower case."""
    return {fold(machine.found.name): machine.found.id for machine in index.machines.values()}
