"""What assessments and installations found and did: summaries of a machine, and single patches."""

from collections.abc import Iterable, Mapping

from pydantic import Field

from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.redaction import RedactedText

ESM, ESM_REQUIRED = "security-esm", "ua_esm_required"
"""Of what only Ubuntu Pro delivers, in lower case: the classification of a patch; its version, and the code of the
agent's note, on a machine without it."""
NEEDS_SUBSCRIPTION = "NeedsSubscription"
"""The state of a patch that only Ubuntu Pro delivers."""


def is_urgent(classifications: Iterable[str]) -> bool:
    """Whether Azure counts a patch of these among the critical and security ones; on Linux they are one class."""
    return any(word.casefold() in ("critical", "security", ESM) for word in classifications)


def count_urgent(counts: Mapping[str, int]) -> int:
    """How many of the available patches are urgent, of counts by classification."""
    return sum(count for name, count in counts.items() if is_urgent([name]))


class ReportedError(Document):
    """What the guest agent reports beside a result: an error, a warning, or an information.

    ``count`` is the number that the message begins with: "133 patches requires Ubuntu Pro".
    """

    code: str = ""
    message: RedactedText = ""
    target: str = ""
    count: int | None = None

    @property
    def is_informational(self) -> bool:
        """Whether the code is known to say that nothing went wrong with the patches."""
        return self.code.casefold() in _INFORMATIONAL

    @property
    def text(self) -> str:
        return ": ".join(part for part in (self.code, self.message) if part)


_INFORMATIONAL = frozenset({"informational", ESM_REQUIRED, "package_list_truncated", "certificate_update"})
"""Codes of the Linux agent: a note, patches behind Ubuntu Pro, a list that was cut, UEFI certificates that were not
updated. None of them has any part in whether the patches were installed (LinuxPatchExtension, Constants)."""


class Selection(Document):
    """How many of the patches that were found a policy selects; see `patchwave.domain.machine.patch_selection`.

    ``installable`` counts what an installation would take, and what cannot be judged; ``needs_subscription`` what only
    Ubuntu Pro delivers. ``rule`` is a digest of the classifications and masks.
    """

    installable: int
    needs_subscription: int = 0
    rule: str = ""


class AssessmentSummary(Document):
    """What an assessment found on a machine. Counts are patches; ``needs_subscription`` of them need Ubuntu Pro."""

    status: str
    critical_and_security: int = 0
    other: int = 0
    needs_subscription: int = 0
    reboot_pending: bool | None = None
    """``None`` where the machine did not say."""
    at: UtcDatetime | None = None
    list_is_partial: bool = False
    activity_id: str = ""
    errors: list[ReportedError] = Field(default_factory=list[ReportedError])
    """What the agent reported beside the result, also when the assessment succeeded."""
    selection: Selection | None = None
    """What the policy of the run selects of it; ``None`` where no policy was asked."""

    @property
    def pending(self) -> int:
        """Patches that are pending and that an installation could bring, whatever a policy selects."""
        return max(0, self.critical_and_security + self.other - self.needs_subscription)

    @property
    def installable(self) -> int:
        """Patches that an installation of the run would bring: those that the policy selects, where it was asked."""
        return self.pending if self.selection is None else self.selection.installable

    @property
    def behind_subscription(self) -> int:
        """Patches that the policy selects and that only Ubuntu Pro delivers."""
        return self.needs_subscription if self.selection is None else self.selection.needs_subscription


class InstallationSummary(Document):
    """What an installation did on a machine, as counts of patches."""

    status: str
    installed: int = 0
    failed: int = 0
    pending: int = 0
    excluded: int = 0
    not_selected: int = 0
    reboot_status: str = ""
    window_exceeded: bool = False
    activity_id: str = ""
    started_at: UtcDatetime | None = None
    adopted: bool = False
    errors: list[ReportedError] = Field(default_factory=list[ReportedError])
    """What the agent reported beside the result, also when the installation succeeded."""


class PatchRecord(Document):
    """One patch of one machine in one run: found by the assessment, or handled by the installation."""

    name: str
    version: str = ""
    kb_id: str = ""
    classifications: list[str] = Field(default_factory=list[str])
    state: str = ""
    """The newest of the two below; ``NeedsSubscription`` for what only Ubuntu Pro delivers, until it was handled."""
    assessment_state: str = ""
    """``assessmentState`` of the assessment; empty where only the installation names the patch."""
    installation_state: str = ""
    """``installationState`` of the installation; empty until one has handled the patch."""
    reboot_behavior: str = ""
    published_at: UtcDatetime | None = None
    patch_id: str = ""
    severity: str = ""
    activity_id: str = ""
    """Of the assessment that found it."""
    last_modified_at: UtcDatetime | None = None
