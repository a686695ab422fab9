"""How the patching of a machine stands: last assessment, last installation, patch extension, enablement.

Two levels know it. The *fleet* level is Resource Graph: minutes behind, assessments of 7 days and installations of 30.
The *machine* level is ``patchStatus`` of the instance view: current, and kept. At both levels ``resultStatus`` is that
of the result inside an operation; the operation may have succeeded while its result failed.

Sources: "Automatic VM Guest Patching for Azure VMs" ("Enablement and assessment", "Understanding the patch status for
your VM"), "Access Azure Update Manager operations data using Azure Resource Graph", and the REST schema of the instance
view (``configurationStatuses``). That Resource Graph lists the extension that Azure manages is [inferred].
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from patchwave.domain.azure.instance_view import ExtensionView, PatchStatusView, Power
from patchwave.domain.azure.patch_results import PatchSummary, reported_errors
from patchwave.domain.core.documents import (
    Document,
    UtcDatetime,
    count_or_zero,
    object_or_none,
    parse_instant,
    str_or_empty,
)
from patchwave.domain.core.folding import fold
from patchwave.domain.core.patches import ReportedError, count_urgent
from patchwave.domain.fleet.eligibility import Eligibility
from patchwave.domain.fleet.packed_rows import PackedTable
from patchwave.domain.fleet.patch_mode import AssessmentMode, PatchSettings

PATCH_EXTENSIONS = ("LinuxPatchExtension", "WindowsPatchExtension")
"""Of ``Microsoft.CPlat.Core``."""

_ASSESSED, _INSTALLED, _EXTENDED = "/patchassessmentresults/", "/patchinstallationresults/", "/extensions/"
_COUNTS = ("installed", "failed", "pending", "excluded", "notSelected")

ASSESSMENTS = PackedTable(
    table="patchassessmentresources",
    kind="microsoft.compute/virtualmachines/patchassessmentresults",
    behind=_ASSESSED,
    columns={
        "id": "id",
        "startedAt": "properties.startDateTime",
        "modifiedAt": "properties.lastModifiedDateTime",
        "startedBy": "properties.startedBy",
        "status": "properties.status",
        "activityId": "properties.assessmentActivityId",
        "rebootPending": "properties.rebootPending",
        "missing": "properties.availablePatchCountByClassification",
        "error": "properties.errorDetails",
    },
)
"""The newest assessment of each machine."""
INSTALLATIONS = PackedTable(
    table="patchinstallationresources",
    kind="microsoft.compute/virtualmachines/patchinstallationresults",
    behind=_INSTALLED,
    columns={
        "id": "id",
        "startedAt": "properties.startDateTime",
        "modifiedAt": "properties.lastModifiedDateTime",
        "startedBy": "properties.startedBy",
        "status": "properties.status",
        "activityId": "properties.installationActivityId",
        "windowExceeded": "properties.maintenanceWindowExceeded",
        "rebootStatus": "properties.rebootStatus",
        "runId": "properties.maintenanceRunId",
        "error": "properties.errorDetails",
        **{name: f"properties.{name}PatchCount" for name in _COUNTS},
    },
    newest_by="todatetime(properties.startDateTime)",
)
"""The last installation on each machine."""
EXTENSIONS = PackedTable(
    table="resources",
    kind="microsoft.compute/virtualmachines/extensions",
    behind=_EXTENDED,
    columns={
        "id": "id",
        "publisher": "properties.publisher",
        "type": "properties.type",
        "version": "properties.typeHandlerVersion",
        "state": "properties.provisioningState",
    },
    where=f"tostring(properties.type) in~ ({', '.join(repr(name) for name in PATCH_EXTENSIONS)})",
)
"""The patch extensions."""


class StatusLevel(StrEnum):
    """Where a status comes from."""

    FLEET = "fleet"
    """Resource Graph: minutes behind, and without what is older than its retention."""
    MACHINE = "machine"
    """The instance view: current."""


class LastAssessment(Document):
    """The last assessment of a machine, and what it found."""

    result_status: str = Field(
        default="", description="Of the result, such as Succeeded or InProgress; empty where Azure does not tell."
    )
    started_at: UtcDatetime | None = None
    ended_at: UtcDatetime | None = None
    age_hours: float | None = None
    critical_and_security: int = 0
    other: int = 0
    by_classification: dict[str, int] = Field(
        default_factory=dict[str, int], description="At the fleet level only, without zeros."
    )
    started_by: str = Field(default="", description="User or Platform; at the fleet level only.")
    activity_id: str = ""
    errors: list[ReportedError] = Field(default_factory=list[ReportedError])


class LastInstallation(Document):
    """The last installation on a machine, whatever started it: counts of patches, and its errors."""

    result_status: str = Field(default="", description="Of the result, such as Succeeded, Failed or InProgress.")
    started_at: UtcDatetime | None = None
    ended_at: UtcDatetime | None = Field(default=None, description="Null while it runs.")
    installed: int = 0
    failed: int = 0
    pending: int = 0
    excluded: int = 0
    not_selected: int = 0
    window_exceeded: bool = False
    reboot_status: str = Field(default="", description="At the fleet level only.")
    started_by: str = Field(default="", description="User or Platform; at the fleet level only.")
    maintenance_run_id: str = Field(
        default="", description="The scheduled run it was part of; at the fleet level only."
    )
    activity_id: str = ""
    errors: list[ReportedError] = Field(default_factory=list[ReportedError])


class PatchExtension(Document):
    """The patch extension of a machine, which Azure installs and updates by itself."""

    type: str
    version: str = ""
    state: str = Field(default="", description="Provisioning state, such as Succeeded or Failed.")
    message: str = ""

    @property
    def is_installed(self) -> bool:
        return self.state.casefold() == "succeeded"

    @property
    def has_failed(self) -> bool:
        return self.state.casefold() in ("failed", "canceled")


class EnablementState(StrEnum):
    """How far Azure's own patching or assessing of a machine is enabled."""

    OFF = "off"
    """The machine is set to neither."""
    IN_PROGRESS = "in_progress"
    ENABLED = "enabled"
    FAILED = "failed"
    BLOCKED = "blocked"
    """Guest patching does not take the machine."""
    UNKNOWN = "unknown"


class Enablement(Document):
    """The enablement of automatic guest patching, or of the platform's assessment alone."""

    state: EnablementState
    sentence: str


class PatchStatus(Document):
    """How the patching of a machine stands, by one level."""

    level: StatusLevel = StatusLevel.FLEET
    assessment: LastAssessment | None = None
    installation: LastInstallation | None = None
    reboot_pending: bool | None = Field(default=None, description="Null where Azure does not tell.")
    extension: PatchExtension | None = None
    modes_ready: tuple[str, ...] = Field(
        default=(), description="Modes that have taken effect, as the instance view says: PatchMode, AssessmentMode."
    )


# --- the fleet level --------------------------------------------------------------------------------------------


def fleet_status(
    assessed: Mapping[str, Any] | None,
    installed: Mapping[str, Any] | None,
    extended: Mapping[str, Any] | None,
    now: datetime,
) -> PatchStatus:
    """The status of a machine by its unpacked rows of `ASSESSMENTS`, `INSTALLATIONS` and `EXTENSIONS`."""
    assessment = None if assessed is None else _assessment_row(assessed, now)
    pending = None if assessed is None else assessed.get("rebootPending")
    # An installation after the assessment knows better whether a reboot is pending.
    if installed is not None and str_or_empty(installed.get("rebootStatus")).casefold() in ("required", "failed"):
        pending = True if _is_later(installed, assessed) else pending
    return PatchStatus(
        assessment=assessment,
        installation=None if installed is None else _installation_row(installed),
        reboot_pending=pending if isinstance(pending, bool) else None,
        extension=None if extended is None else _extension_row(extended),
    )


def _is_later(installed: Mapping[str, Any], assessed: Mapping[str, Any] | None) -> bool:
    began = parse_instant(installed.get("startedAt"))
    at = parse_instant(assessed.get("startedAt") or assessed.get("modifiedAt")) if assessed is not None else None
    return at is None or (began is not None and began > at)


def _assessment_row(row: Mapping[str, Any], now: datetime) -> LastAssessment:
    counts = object_or_none(row.get("missing")) or {}
    missing = {name: count for name, count in counts.items() if count_or_zero(count)}
    urgent = count_urgent(missing)
    ended = parse_instant(row.get("modifiedAt"))
    return LastAssessment(
        result_status=str_or_empty(row.get("status")),
        started_at=parse_instant(row.get("startedAt")),
        ended_at=ended,
        age_hours=_hours(ended, now),
        critical_and_security=urgent,
        other=sum(missing.values()) - urgent,
        by_classification=missing,
        started_by=str_or_empty(row.get("startedBy")),
        activity_id=str_or_empty(row.get("activityId")),
        errors=reported_errors(row.get("error")),
    )


def _installation_row(row: Mapping[str, Any]) -> LastInstallation:
    status = str_or_empty(row.get("status"))
    return LastInstallation(
        result_status=status,
        started_at=parse_instant(row.get("startedAt")),
        ended_at=None if _is_open(status) else parse_instant(row.get("modifiedAt")),
        installed=count_or_zero(row.get("installed")),
        failed=count_or_zero(row.get("failed")),
        pending=count_or_zero(row.get("pending")),
        excluded=count_or_zero(row.get("excluded")),
        not_selected=count_or_zero(row.get("notSelected")),
        window_exceeded=row.get("windowExceeded") is True,
        reboot_status=str_or_empty(row.get("rebootStatus")),
        started_by=str_or_empty(row.get("startedBy")),
        maintenance_run_id=str_or_empty(row.get("runId")),
        activity_id=str_or_empty(row.get("activityId")),
        errors=reported_errors(row.get("error")),
    )


def _extension_row(row: Mapping[str, Any]) -> PatchExtension:
    kind = ".".join(filter(None, (str_or_empty(row.get("publisher")), str_or_empty(row.get("type")))))
    return PatchExtension(
        type=kind, version=str_or_empty(row.get("version")), state=str_or_empty(row.get("state")) or "Unknown"
    )


def _is_open(status: str) -> bool:
    return status.casefold() in ("inprogress", "notstarted")


def _hours(at: datetime | None, now: datetime) -> float | None:
    return None if at is None else round(max(0.0, (now - at).total_seconds()) / 3600, 1)


# --- the machine level ------------------------------------------------------------------------------------------


def machine_status(view: PatchStatusView, fleet: PatchStatus, now: datetime) -> PatchStatus:
    """The status of a machine by its instance view.

    What only the fleet level tells is taken from there where both mean the same assessment or installation.
    """
    assessed, installed = view.last_assessment, view.last_installation
    return PatchStatus(
        level=StatusLevel.MACHINE,
        assessment=None if assessed is None else _with_details(_assessment_summary(assessed, now), fleet.assessment),
        installation=None if installed is None else _with_details(_installation_summary(installed), fleet.installation),
        reboot_pending=None if assessed is None else assessed.reboot_pending,
        extension=next(map(_extension_view, filter(_is_patch_extension, view.all_extensions)), None),
        modes_ready=view.modes_ready,
    )


def _assessment_summary(summary: PatchSummary, now: datetime) -> LastAssessment:
    is_open = _is_open(summary.status.value)
    ended = None if is_open else summary.last_modified_time or summary.start_time
    return LastAssessment(
        result_status=summary.status.value,
        started_at=summary.start_time,
        ended_at=ended,
        age_hours=_hours(ended, now),
        critical_and_security=summary.critical_and_security_patch_count,
        other=summary.other_patch_count,
        activity_id=summary.assessment_activity_id,
        errors=summary.error.reported if summary.error else [],
    )


def _installation_summary(summary: PatchSummary) -> LastInstallation:
    return LastInstallation(
        result_status=summary.status.value,
        started_at=summary.start_time,
        ended_at=None if _is_open(summary.status.value) else summary.last_modified_time,
        installed=summary.installed_patch_count,
        failed=summary.failed_patch_count,
        pending=summary.pending_patch_count,
        excluded=summary.excluded_patch_count,
        not_selected=summary.not_selected_patch_count,
        window_exceeded=summary.maintenance_window_exceeded,
        activity_id=summary.installation_activity_id,
        errors=summary.error.reported if summary.error else [],
    )


def _with_details[Last: (LastAssessment, LastInstallation)](machine: Last, fleet: Last | None) -> Last:
    """The machine's own, with what stands only in the fleet's of the same activity, or of the same start."""
    if fleet is None:
        return machine
    is_same_activity = bool(machine.activity_id) and fold(machine.activity_id) == fold(fleet.activity_id)
    if not is_same_activity and (fleet.activity_id or machine.started_at != fleet.started_at):
        return machine
    more = {name: value for name, value in fleet if value and name in _ONLY_FLEET}
    return machine.model_copy(update=more)


_ONLY_FLEET = ("by_classification", "started_by", "reboot_status", "maintenance_run_id")


def _is_patch_extension(extension: ExtensionView) -> bool:
    name = extension.type.rpartition(".")[2].casefold()
    return name in {each.casefold() for each in PATCH_EXTENSIONS}


def _extension_view(extension: ExtensionView) -> PatchExtension:
    return PatchExtension(
        type=extension.type,
        version=extension.type_handler_version,
        state=extension.provisioning_state.capitalize() or "Unknown",
        message=extension.message,
    )


# --- enablement -------------------------------------------------------------------------------------------------


def evaluate_enablement(
    status: PatchStatus, settings: PatchSettings | None, eligibility: Eligibility, power: Power
) -> Enablement:
    """Whether Azure has enabled what the machine is set to.

    Enablement is complete when the extension is installed and a first assessment is there; it takes three hours and
    more, only advances in the machine's off-peak hours, and only while the machine runs.
    """
    state, sentence = EnablementState.ENABLED, "Automatic guest patching is enabled."
    assessment, extension = status.assessment, status.extension
    is_assessed = assessment is not None and not _is_open(assessment.result_status)
    is_installed = extension is not None and extension.is_installed
    by_platform = assessment is not None and assessment.started_by.casefold() == "platform"
    if settings is None or not _wants(settings):
        state, sentence = EnablementState.OFF, "Neither its patch mode nor its assessment mode is AutomaticByPlatform."
    elif extension is not None and extension.has_failed:
        state = EnablementState.FAILED
        sentence = f"The patch extension is {extension.state}{': ' if extension.message else '.'}{extension.message}"
    elif status.modes_ready or (is_installed and is_assessed) or by_platform:
        sentence = f"{_what(settings)} is enabled."
    elif not eligibility.is_eligible:
        state, sentence = EnablementState.BLOCKED, eligibility.sentence
    elif is_installed and status.level is StatusLevel.FLEET:
        state = EnablementState.UNKNOWN
        sentence = (
            "The patch extension is installed, and Resource Graph has no assessment of the last 7 days: read the status"
            " of this machine alone, or assess it."
        )
    else:
        state, sentence = EnablementState.IN_PROGRESS, f"{_what(settings)} is being enabled.{_waits_for(power)}"
    return Enablement(state=state, sentence=sentence)


def _wants(settings: PatchSettings) -> bool:
    return settings.is_by_platform or settings.assessment_mode is AssessmentMode.AUTOMATIC_BY_PLATFORM


def _what(settings: PatchSettings) -> str:
    return "AutomaticByPlatform" if settings.is_by_platform else "The platform's assessment"


def _waits_for(power: Power) -> str:
    hours = " That takes three hours and more, only in the machine's off-peak hours"
    if power in (Power.RUNNING, Power.UNKNOWN):
        return f"{hours}."
    return f"{hours} and while it runs: it is {power.value}."
