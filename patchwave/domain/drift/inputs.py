"""What the doctor judges: the fleet as Resource Graph shows it, and the policies; nothing of it is fetched here.

Tables: ``resources`` for machines and configurations, ``maintenanceresources`` for assignments and runs,
``patchassessmentresources`` for the newest assessment of each machine, kept for 7 days. All are minutes behind. The
queries give one row for each thing, or the newest of several, so that 10,000 machines are some fifty pages.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from patchwave.domain.azure.patch_results import reported_errors
from patchwave.domain.core.documents import format_instant, object_or_none, parse_instant
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import MachineId, MachineType
from patchwave.domain.core.patches import ESM, ESM_REQUIRED, ReportedError
from patchwave.domain.fleet.discovery import literal
from patchwave.domain.fleet.eligibility import AzureAnswers
from patchwave.domain.fleet.machine import FleetMachine
from patchwave.domain.fleet.scale_sets import ScaleSet
from patchwave.domain.maintenance.assignment import Assignment
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.maintenance.queries import MACHINE_UPDATES
from patchwave.domain.policy.policy import Policy
from patchwave.domain.scheduling.overrides import ScheduleOverrides

ASSESSMENT_RETENTION_DAYS = 7
"""How long Resource Graph keeps an assessment."""
RUN_RETENTION_DAYS = 30
"""How long it keeps what schedules did."""


@dataclass(frozen=True, slots=True)
class ExcludedPatch:
    """Missing updates that a schedule may not have been able to bring, of one classification in lower case.

    ``published_at`` of ``None``: they need an Ubuntu Pro subscription.
    """

    classification: str
    patches: int
    published_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LastAssessment:
    """The newest assessment of a machine: updates that it misses, by classification in lower case.

    Of an assessment that only our own tables know the counts are left out: Resource Graph has them minutes later.
    ``errors`` are those that it reports, without mere information.
    """

    at: datetime
    missing: Mapping[str, int] = field(default_factory=dict[str, int])
    excuses: tuple[ExcludedPatch, ...] = ()
    has_succeeded: bool = True
    errors: tuple[ReportedError, ...] = ()

    def missing_since(self, moment: datetime) -> dict[str, int]:
        """Updates that were available at a moment and are still missing. Linux updates have no publication date."""
        left = dict(self.missing)
        for excuse in self.excuses:
            if excuse.published_at is None or excuse.published_at > moment:
                left[excuse.classification] = left.get(excuse.classification, 0) - excuse.patches
        return {name: count for name, count in left.items() if count > 0}


@dataclass(frozen=True, slots=True)
class FailedInstallation:
    """The newest installation on a machine, which failed, with the errors that it reports."""

    at: datetime
    errors: tuple[ReportedError, ...]


@dataclass(frozen=True, slots=True)
class ScheduledRuns:
    """What Azure remembers of the runs of one configuration on one machine (ids in lower case): the first, the last."""

    machine_id: str
    configuration_id: str
    first_at: datetime | None
    ended_at: datetime | None
    status: str

    @property
    def is_done(self) -> bool:
        """Whether the last one was reported as done. Azure has several words for it."""
        return self.status.casefold() in ("completed", "succeeded", "completedwithwarnings")


@dataclass(frozen=True, slots=True)
class FleetPolicy:
    """A stored policy; ``resting`` says why its schedule starts nothing at present, and is empty when it does."""

    policy: Policy
    resting: str = ""
    overrides: ScheduleOverrides = field(default_factory=ScheduleOverrides)

    @property
    def is_maintenance_only(self) -> bool:
        """Whether it is there for the runs of schedules alone, and patches nothing itself."""
        return self.policy.maintenance is not None and self.policy.schedule is None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftInputs:
    """All of it. Assessments and failed installations are by machine id in lower case; ``notes`` say what could not be
    read.
    """

    machines: Sequence[FleetMachine] = ()
    configurations: Sequence[MaintenanceConfiguration] = ()
    assignments: Sequence[Assignment] = ()
    assessments: Mapping[str, LastAssessment] = field(default_factory=dict[str, LastAssessment])
    failed_installations: Mapping[str, FailedInstallation] = field(default_factory=dict[str, FailedInstallation])
    runs: Sequence[ScheduledRuns] = ()
    policies: Sequence[FleetPolicy] = ()
    scale_sets: Sequence[ScaleSet] = ()
    notes: Sequence[str] = ()


# --- the queries that no other part of Patchwave asks ------------------------------------------------------------


def newest_assessments(kind: MachineType) -> str:
    """The newest assessment of each machine of a type: ``id, at, missing, status, errors``."""
    return "\n".join(
        [
            "patchassessmentresources",
            f"| where type =~ '{kind.full_type}/patchassessmentresults'",
            "| project id, at = tostring(properties.lastModifiedDateTime),"
            " missing = properties.availablePatchCountByClassification, status = tostring(properties.status),"
            " errors = properties.errorDetails",
            "| order by id asc",
        ]
    )


def failed_installations() -> str:
    """The newest installation of each machine where that failed: ``machine, at, id, errors``."""
    return "\n".join(
        [
            "patchinstallationresources",
            "| where type =~ 'microsoft.compute/virtualmachines/patchinstallationresults'",
            "| extend machine = tostring(split(tolower(id), '/patchinstallationresults/')[0]),"
            " at = todatetime(properties.lastModifiedDateTime), status = tostring(properties.status),"
            " errors = properties.errorDetails",
            "| summarize arg_max(at, id, status, errors) by machine",
            "| where status =~ 'Failed'",
            "| order by id asc",
        ]
    )


def excluded_patches(kind: MachineType, now: datetime) -> str:
    """Of each machine of a type what needs a subscription, and what was published within the time for which Azure
    keeps runs: ``machine, classification, publishedAt, patches``.
    """
    since = format_instant(now - timedelta(days=RUN_RETENTION_DAYS))
    return "\n".join(
        [
            "patchassessmentresources",
            f"| where type =~ '{kind.full_type}/patchassessmentresults/softwarepatches'",
            "| extend machine = tostring(split(tolower(id), '/patchassessmentresults/')[0]),"
            " classification = tolower(tostring(properties.classifications[0])),"
            " version = tostring(properties.version), publishedAt = todatetime(properties.publishedDateTime),"
            " seenAt = todatetime(properties.lastModifiedDateTime)",
            f"| where classification =~ '{ESM}' or version =~ '{ESM_REQUIRED}'"
            f" or publishedAt > todatetime({literal(since)})",
            "| summarize patches = count(), arg_max(seenAt, id) by machine, classification, publishedAt",
            "| order by id asc",
        ]
    )


def first_and_last_runs() -> str:
    """Of each machine and configuration the first run and the last: ``machine, configuration, firstAt, endedAt, id,
    status``.
    """
    return "\n".join(
        [
            "maintenanceresources",
            f"| where type =~ '{MACHINE_UPDATES}'",
            "| extend machine = tolower(tostring(properties.resourceId)),"
            " configuration = tolower(tostring(properties.maintenanceConfigurationId)),"
            " startedAt = todatetime(properties.startDateTime), endedAt = todatetime(properties.endDateTime),"
            " status = tostring(properties.status)",
            # The id has to be among the columns, or Resource Graph gives no token for the next page.
            "| summarize firstAt = min(startedAt), arg_max(endedAt, id, status) by machine, configuration",
            "| order by id asc",
        ]
    )


# --- reading rows ------------------------------------------------------------------------------------------------


def read_assessments(rows: Iterable[Mapping[str, Any]]) -> dict[str, LastAssessment]:
    """By machine id in lower case."""
    found: dict[str, LastAssessment] = {}
    for row in rows:
        machine, _, _ = fold(str(row.get("id", ""))).partition("/patchassessmentresults/")
        at = parse_instant(row.get("at"))
        if at is None or MachineId.find(machine) is None:
            continue
        counts = object_or_none(row.get("missing")) or {}
        missing = {name.lower(): count for name, count in counts.items() if isinstance(count, int) and count > 0}
        errors = _read_errors(row.get("errors"))
        status = str(row.get("status") or "").casefold()
        # Microsoft's page of the table names no status: where there is none, the errors tell.
        has_succeeded = status in _SUCCESSFUL if status else not errors
        found[machine] = LastAssessment(at, missing, has_succeeded=has_succeeded, errors=errors)
    return found


def read_failed_installations(rows: Iterable[Mapping[str, Any]]) -> dict[str, FailedInstallation]:
    """What stands in the rows of `failed_installations`, by machine id in lower case."""
    found: dict[str, FailedInstallation] = {}
    for row in rows:
        machine, at = fold(str(row.get("machine", ""))), parse_instant(row.get("at"))
        if at is not None and MachineId.find(machine) is not None:
            found[machine] = FailedInstallation(at, _read_errors(row.get("errors")))
    return found


_SUCCESSFUL = ("succeeded", "completedwithwarnings")


def _read_errors(value: object) -> tuple[ReportedError, ...]:
    return tuple(error for error in reported_errors(value) if not error.is_informational)


def with_exclusions(
    assessments: Mapping[str, LastAssessment], rows: Iterable[Mapping[str, Any]]
) -> dict[str, LastAssessment]:
    """The assessments with what stands in the rows of `excluded_patches`."""
    excuses: dict[str, list[ExcludedPatch]] = {}
    for row in rows:
        name, patches = str(row.get("classification", "")), row.get("patches")
        if isinstance(patches, int):
            excuse = ExcludedPatch("security" if name == ESM else name, patches, parse_instant(row.get("publishedAt")))
            excuses.setdefault(str(row.get("machine", "")), []).append(excuse)
    return {machine: replace(known, excuses=tuple(excuses.get(machine, ()))) for machine, known in assessments.items()}


def with_answers(machines: Iterable[FleetMachine], assessments: Mapping[str, LastAssessment]) -> list[FleetMachine]:
    """The machines with what Azure last answered for them."""
    found: list[FleetMachine] = []
    for machine in machines:
        known = assessments.get(machine.folded)
        is_answer = known is not None and known.has_succeeded
        found.append(replace(machine, answers=AzureAnswers(known.at)) if known and is_answer else machine)
    return found


def with_own(
    assessments: Mapping[str, LastAssessment], machines: Iterable[FleetMachine], own: Mapping[str, datetime]
) -> dict[str, LastAssessment]:
    """The assessments that Azure still has, and those of our own runs (by machine key) where they are newer."""
    found = dict(assessments)
    for machine in machines:
        at, known = own.get(machine.found.machine_id.key), found.get(machine.folded)
        if at is not None and (known is None or known.at < at):
            found[machine.folded] = LastAssessment(at)
    return found


def read_runs(rows: Iterable[Mapping[str, Any]]) -> list[ScheduledRuns]:
    """What stands in the rows of `first_and_last_runs`; one of no machine is passed over."""
    return [
        ScheduledRuns(
            machine_id=fold(str(row["machine"])),
            configuration_id=fold(str(row.get("configuration", ""))),
            first_at=parse_instant(row.get("firstAt")),
            ended_at=parse_instant(row.get("endedAt")),
            status=str(row.get("status") or ""),
        )
        for row in rows
        if MachineId.find(str(row.get("machine", "")))
    ]
