"""Results of the assess and install calls, read leniently.

Follows the REST pages "Virtual Machines - Assess Patches" and "- Install Patches", api-version 2025-04-01, and
what recordings of real traffic show beside them: missing keys, undocumented keys, words outside every published
enumeration, ``error`` objects on clean success and lists that are cut short. Nothing here may lose a result.
"""

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from patchwave.domain.core.documents import (
    ExternalDocument,
    LenientDatetime,
    count_or_zero,
    list_or_empty,
    object_or_none,
    objects_or_empty,
)
from patchwave.domain.core.patches import (
    ESM,
    ESM_REQUIRED,
    NEEDS_SUBSCRIPTION,
    AssessmentSummary,
    InstallationSummary,
    PatchRecord,
    ReportedError,
    is_urgent,
)


class PatchOperationStatus(StrEnum):
    """``PatchOperationStatus``; a word outside the enumeration reads as ``Unknown``, which never means success."""

    UNKNOWN = "Unknown"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    SUCCEEDED = "Succeeded"
    COMPLETED_WITH_WARNINGS = "CompletedWithWarnings"


class RebootStatus(StrEnum):
    """``VMGuestPatchRebootStatus``."""

    UNKNOWN = "Unknown"
    NOT_NEEDED = "NotNeeded"
    REQUIRED = "Required"
    STARTED = "Started"
    FAILED = "Failed"
    COMPLETED = "Completed"


class PatchInstallationState(StrEnum):
    """``PatchInstallationState``."""

    UNKNOWN = "Unknown"
    INSTALLED = "Installed"
    FAILED = "Failed"
    EXCLUDED = "Excluded"
    NOT_SELECTED = "NotSelected"
    PENDING = "Pending"


class RebootBehavior(StrEnum):
    """``VMGuestPatchRebootBehavior``; on Linux always NeverReboots, so it predicts nothing there."""

    UNKNOWN = "Unknown"
    NEVER_REBOOTS = "NeverReboots"
    ALWAYS_REQUIRES_REBOOT = "AlwaysRequiresReboot"
    CAN_REQUEST_REBOOT = "CanRequestReboot"


class PatchAssessmentState(StrEnum):
    """``PatchAssessmentState``."""

    UNKNOWN = "Unknown"
    AVAILABLE = "Available"


def _lenient[Word: StrEnum](kind: type[Word], unknown: Word) -> Any:
    words = {word.casefold(): word for word in kind}

    def read(value: object) -> Word:
        return words.get(value.casefold(), unknown) if isinstance(value, str) else unknown

    return BeforeValidator(read)


def _text(value: object) -> str:
    text = value if isinstance(value, str) else "" if value is None else str(value)
    # JSON can escape half a character pair, which no storage takes.
    return text.encode("utf-8", "replace").decode()


def _texts(value: object) -> list[str]:
    return [_text(item) for item in list_or_empty(value)]


Count = Annotated[int, BeforeValidator(count_or_zero)]
Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[list[str], BeforeValidator(_texts)]
Flag = Annotated[bool, BeforeValidator(lambda value: value is True)]
Known = Annotated[bool | None, BeforeValidator(lambda value: value if isinstance(value, bool) else None)]
"""A yes or no; ``None`` where Azure says neither, which is never a no."""
Status = Annotated[PatchOperationStatus, _lenient(PatchOperationStatus, PatchOperationStatus.UNKNOWN)]


_MAX_ERRORS = 10
"""The guest agents share the latest five."""
_MAX_ERROR = 500
"""Characters of one text; the Linux agent cuts its own at 128."""
_LEADING_COUNT = re.compile(r"[0-9]{1,9}(?= )")


def _short(text: str) -> str:
    return text[:_MAX_ERROR]


def _leading(message: str) -> int | None:
    """The number that a message begins with, as in "133 patches requires Ubuntu Pro"."""
    found = _LEADING_COUNT.match(message)
    return int(found[0]) if found else None


class ApiErrorDetail(ExternalDocument):
    """``ApiErrorBase``."""

    code: Text = ""
    message: Text = ""
    target: Text = ""


class InnerError(ExternalDocument):
    """``InnerError``; Azure writes these two keys in lower case."""

    exceptiontype: Text = ""
    errordetail: Text = ""


class ApiError(ExternalDocument):
    """``ApiError``. Present on clean success too: code "0" on Linux and "Success" on Windows mean no error."""

    code: Text = ""
    message: Text = ""
    target: Text = ""
    details: Annotated[list[ApiErrorDetail], BeforeValidator(objects_or_empty)] = Field(
        default_factory=list[ApiErrorDetail]
    )
    innererror: Annotated[InnerError | None, BeforeValidator(object_or_none)] = None

    @property
    def is_error(self) -> bool:
        """Whether something is reported: a code beyond the two that mean none, or any detail."""
        return self.code.casefold() not in ("", "0", "success") or bool(self.details)

    def has_detail(self, code: str) -> bool:
        """Whether one of the details carries this code, whatever its case."""
        return any(detail.code.casefold() == code.casefold() for detail in self.details)

    @property
    def reported(self) -> list[ReportedError]:
        """What is kept of the error: its details, or its own code and text where it has none."""
        parts = [(detail.code, detail.message, detail.target) for detail in self.details]
        if not parts and self.is_error:
            parts = [(self.code, self.message, self.target)]
        if self.innererror is not None:
            parts.append((self.innererror.exceptiontype, self.innererror.errordetail, ""))
        return [
            ReportedError(code=_short(code), message=_short(message), target=_short(target), count=_leading(message))
            for code, message, target in parts[:_MAX_ERRORS]
            if code or message
        ]

    @property
    def sentence(self) -> str:
        """Code and text of the error and its details, for people."""
        # The Linux agent's code is only the digit of its exit: no word for people.
        parts = [part for part in (self.code, self.message) if part and not (part.isascii() and part.isdigit())]
        parts += [": ".join(part for part in (detail.code, detail.message) if part) for detail in self.details]
        return "; ".join(parts)


_ErrorObject = Annotated[ApiError | None, BeforeValidator(object_or_none)]


def reported_errors(value: object) -> list[ReportedError]:
    """What is kept of an ``errorDetails`` or ``error``; nothing of anything that is no object."""
    given = object_or_none(value)
    return ApiError.model_validate(given).reported if given else []


class _Patch(ExternalDocument):
    """What both calls say of a patch. ``kbId`` is absent on Linux, ``version`` on Windows."""

    patch_id: Text = ""
    name: Text = ""
    version: Text = ""
    kb_id: Text = ""
    classifications: Texts = Field(default_factory=list[str])

    def _record(self, state: str) -> PatchRecord:
        return PatchRecord(
            name=self.name,
            version=self.version,
            kb_id=self.kb_id,
            classifications=self.classifications,
            state=state,
            patch_id=self.patch_id,
        )


class AvailablePatch(_Patch):
    """``VirtualMachineSoftwarePatchProperties``."""

    reboot_behavior: Annotated[RebootBehavior, _lenient(RebootBehavior, RebootBehavior.UNKNOWN)] = (
        RebootBehavior.UNKNOWN
    )
    activity_id: Text = ""
    published_date: LenientDatetime = None
    last_modified_date_time: LenientDatetime = None
    assessment_state: Annotated[PatchAssessmentState, _lenient(PatchAssessmentState, PatchAssessmentState.UNKNOWN)] = (
        PatchAssessmentState.UNKNOWN
    )

    @property
    def needs_subscription(self) -> bool:
        """Whether only Ubuntu Pro delivers the patch, which the machine does not have.

        Such a patch is counted as security. On a machine that is attached to Ubuntu Pro the agent writes the same
        classification beside a real version, and the patch can be installed (LinuxPatchExtension, UbuntuProClient).
        """
        if self.version:
            return self.version.casefold() == ESM_REQUIRED
        return ESM in (word.casefold() for word in self.classifications)

    @property
    def is_urgent(self) -> bool:
        """Whether Azure counts the patch among the critical and security ones."""
        return is_urgent(self.classifications)

    def to_record(self) -> PatchRecord:
        record = self._record(NEEDS_SUBSCRIPTION if self.needs_subscription else self.assessment_state.value)
        return record.model_copy(
            update={
                "assessment_state": self.assessment_state.value,
                "reboot_behavior": self.reboot_behavior.value,
                "published_at": self.published_date,
                "activity_id": self.activity_id,
                "last_modified_at": self.last_modified_date_time,
            }
        )


class AssessResult(ExternalDocument):
    """``VirtualMachineAssessPatchesResult``, the inner level: an operation that succeeded may hold a failed result."""

    status: Status = PatchOperationStatus.UNKNOWN
    assessment_activity_id: Text = ""
    reboot_pending: Known = None
    critical_and_security_patch_count: Count = 0
    other_patch_count: Count = 0
    start_date_time: LenientDatetime = None
    available_patches: Annotated[list[AvailablePatch], BeforeValidator(objects_or_empty)] = Field(
        default_factory=list[AvailablePatch]
    )
    error: _ErrorObject = None

    @property
    def list_is_partial(self) -> bool:
        """Whether the list was cut: the agent stops at 126 KiB, and the counts stay right."""
        total = self.critical_and_security_patch_count + self.other_patch_count
        cut = self.error is not None and self.error.has_detail("PACKAGE_LIST_TRUNCATED")
        return cut or total > len(self.available_patches)

    def summarize(self) -> AssessmentSummary:
        """The counts that are kept. Azure's are trusted over the length of a list that may be cut, but not below it."""
        urgent, other = self.critical_and_security_patch_count, self.other_patch_count
        if urgent + other < len(self.available_patches):
            listed = sum(patch.is_urgent for patch in self.available_patches)
            urgent, other = max(urgent, listed), max(other, len(self.available_patches) - listed)
        return AssessmentSummary(
            status=self.status.value,
            critical_and_security=urgent,
            other=other,
            needs_subscription=sum(patch.needs_subscription for patch in self.available_patches),
            reboot_pending=self.reboot_pending,
            at=self.start_date_time,
            list_is_partial=self.list_is_partial,
            activity_id=self.assessment_activity_id,
            errors=self.error.reported if self.error else [],
        )


class InstalledPatch(_Patch):
    """``PatchInstallationDetail``; ``msrcSeverity`` is undocumented and present on some Windows items."""

    installation_state: Annotated[
        PatchInstallationState, _lenient(PatchInstallationState, PatchInstallationState.UNKNOWN)
    ] = PatchInstallationState.UNKNOWN
    msrc_severity: Text = ""

    def to_record(self) -> PatchRecord:
        state = self.installation_state.value
        return self._record(state).model_copy(update={"installation_state": state, "severity": self.msrc_severity})


class InstallResult(ExternalDocument):
    """``VirtualMachineInstallPatchesResult``, the inner level."""

    status: Status = PatchOperationStatus.UNKNOWN
    installation_activity_id: Text = ""
    reboot_status: Annotated[RebootStatus, _lenient(RebootStatus, RebootStatus.UNKNOWN)] = RebootStatus.UNKNOWN
    maintenance_window_exceeded: Flag = False
    excluded_patch_count: Count = 0
    not_selected_patch_count: Count = 0
    pending_patch_count: Count = 0
    installed_patch_count: Count = 0
    failed_patch_count: Count = 0
    patches: Annotated[list[InstalledPatch], BeforeValidator(objects_or_empty)] = Field(
        default_factory=list[InstalledPatch]
    )
    start_date_time: LenientDatetime = None
    maintenance_run_id: Text = ""
    error: _ErrorObject = None

    def summarize(self, *, adopted: bool = False) -> InstallationSummary:
        return InstallationSummary(
            status=self.status.value,
            installed=self.installed_patch_count,
            failed=self.failed_patch_count,
            pending=self.pending_patch_count,
            excluded=self.excluded_patch_count,
            not_selected=self.not_selected_patch_count,
            reboot_status=self.reboot_status.value,
            window_exceeded=self.maintenance_window_exceeded,
            activity_id=self.installation_activity_id,
            started_at=self.start_date_time,
            adopted=adopted,
            errors=self.error.reported if self.error else [],
        )


class PatchSummary(ExternalDocument):
    """Both summaries of ``instanceView.patchStatus``, named differently from the results; and those of Arc machines.

    Only those of Arc machines have a reboot status.
    """

    status: Status = PatchOperationStatus.UNKNOWN
    assessment_activity_id: Text = ""
    installation_activity_id: Text = ""
    reboot_pending: Known = None
    reboot_status: Annotated[RebootStatus, _lenient(RebootStatus, RebootStatus.UNKNOWN)] = RebootStatus.UNKNOWN
    critical_and_security_patch_count: Count = 0
    other_patch_count: Count = 0
    maintenance_window_exceeded: Flag = False
    excluded_patch_count: Count = 0
    not_selected_patch_count: Count = 0
    pending_patch_count: Count = 0
    installed_patch_count: Count = 0
    failed_patch_count: Count = 0
    start_time: LenientDatetime = None
    last_modified_time: LenientDatetime = None
    error: _ErrorObject = None

    @property
    def activity_id(self) -> str:
        """The operation's id, which is the activity id everywhere."""
        return self.installation_activity_id or self.assessment_activity_id

    def comes_after(self, assessment: AssessmentSummary) -> bool:
        """Whether this installation began later than the assessment, which so is outdated.

        A machine has one operation at a time, and all stamps are those of its own agent. It is not recorded whether
        other operations touch ``lastModifiedTime``, so it counts only where no other stamp is known.
        """
        began = self.start_time or self.last_modified_time
        return began is not None and assessment.at is not None and began > assessment.at

    def to_install_result(self) -> InstallResult:
        """The installation as far as the summary tells it: for operations whose URL is lost."""
        return InstallResult.model_validate(self.model_dump() | {"start_date_time": self.start_time})

    def to_assess_result(self) -> AssessResult:
        """The assessment as far as the summary tells it: counts without the list."""
        return AssessResult.model_validate(self.model_dump() | {"start_date_time": self.start_time})
