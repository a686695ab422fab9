"""Findings: what silently goes wrong in a fleet, the evidence, and the command that fixes it."""

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Self

from pydantic import Field

from patchwave.domain.core.documents import Document, UtcDatetime


class FindingKind(StrEnum):
    """What is wrong, in the order in which findings are listed."""

    UNPATCHED = "unpatched"
    """No schedule, no policy and no automatic patching brings updates to the machine."""
    UNKNOWN_IMAGE = "unknown_image"
    """Only Azure's automatic patching is set for the machine, and nothing shows whether it takes the image."""
    OS_MANAGED = "os_managed"
    """A Linux machine of mode ImageDefault: what its image brings may patch it; Azure neither orders nor sees it."""
    MULTIPLE_PATCHERS = "multiple_patchers"
    """A policy patches the machine, and so does a schedule, Azure or Windows Update, outside of the policy's window."""
    INEFFECTIVE_SCHEDULE = "ineffective_schedule"
    """A schedule is attached that the machine's settings make fail; another source patches the machine."""
    SAME_START = "same_start"
    """Two schedules of the machine start at the same moment, of which Azure fires only one."""
    STALE_ASSIGNMENT = "stale_assignment"
    """An assignment of a machine or to a configuration that is not there any more, or of a re-created machine."""
    SCHEDULE_ENDED = "schedule_ended"
    """No run of the configuration will ever come."""
    NO_PATCH_MODE = "no_patch_mode"
    """A configuration for guests without InGuestPatchMode, which patches nothing."""
    STALE_ASSESSMENT = "stale_assessment"
    """The last assessment of the machine is old, or there is none."""
    REPORTED_DONE_BUT_MISSING = "reported_done_but_missing"
    """A schedule reported the machine done; an assessment after that still counts updates it should have brought."""
    DUPLICATE = "duplicate"
    """An Arc machine that is a virtual machine of Azure: no run patches it under that name."""
    UNMONITORED_SCALE_SET = "unmonitored_scale_set"
    """A Flexible scale set without the Application Health extension, which Azure's guest patching requires of it."""
    NO_AGENT = "no_agent"
    """The machine has no VM agent that works: nothing can be assessed or installed."""
    OLD_AGENT = "old_agent"
    """The Linux agent is older than guest patching takes."""
    PACKAGEKIT_RUNNING = "packagekit_running"
    """packagekit still runs in a Linux guest, and gets in the way of the patch extension."""
    UPDATE_SERVICE_DISABLED = "update_service_disabled"
    """The Windows Update service is disabled in the guest."""
    UPDATE_SOURCE_UNREACHABLE = "update_source_unreachable"
    """The guest cannot reach its repositories, WSUS or Windows Update."""
    END_OF_LIFE = "end_of_life"
    """The image is past its end of life: its publisher makes no updates for it any more."""
    UNMANAGEABLE = "unmanageable"
    """The machine has an id that cannot be read, or neither system that guest patching knows: no run can patch it."""


class Finding(Document):
    """One finding."""

    kind: FindingKind
    subject: str = Field(description="ARM id of the machine, or of the maintenance configuration.")
    evidence: str = Field(description="How it shows, for people.")
    fix: str = Field(description="A command line that mends it, for a POSIX shell.")


class DriftReport(Document):
    """All findings of a fleet at one moment."""

    at: UtcDatetime
    stale_days: int = Field(description="Assessments older than so many days count as stale.")
    machines: int = Field(description="Machines that were checked.")
    configurations: int = Field(description="Maintenance configurations for guests that were checked.")
    findings_by_kind: dict[FindingKind, int] = Field(
        description="Findings by kind, among the requested kinds and subjects, whether listed or not."
    )
    findings: list[Finding]
    notes: list[str] = Field(description="What could not be judged, and why.")

    def only(self, kinds: Iterable[FindingKind], subject: str, limit: int) -> Self:
        """The same report with the findings of some kinds (none: of all) whose subject holds a text, so many at most.

        The counts are of what was asked for, and a note says when findings are left out by the limit.
        """
        wanted, text = frozenset(kinds), subject.casefold()
        kept = [
            finding
            for finding in self.findings
            if (not wanted or finding.kind in wanted) and text in finding.subject.casefold()
        ]
        cut = [f"Only the first {limit:,} of {len(kept):,} findings are listed."] if len(kept) > limit else []
        counts = count_by_kind(kept)
        return self.model_copy(
            update={"findings": kept[:limit], "findings_by_kind": counts, "notes": [*self.notes, *cut]}
        )


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """By kind, then by subject: the same fleet gives the same report."""
    ranks = {kind: rank for rank, kind in enumerate(FindingKind)}
    return sorted(findings, key=lambda each: (ranks[each.kind], each.subject.casefold(), each.evidence))


def count_by_kind(findings: Iterable[Finding]) -> dict[FindingKind, int]:
    """How many there are of each kind that there is, in the order of the kinds."""
    counts = Counter(finding.kind for finding in findings)
    return {kind: counts[kind] for kind in FindingKind if counts[kind]}
