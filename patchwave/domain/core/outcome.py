"""How a machine can end: exactly one outcome per machine and run, with a reason code and a sentence."""

from enum import StrEnum
from typing import Self

from patchwave.domain.core.documents import Document
from patchwave.domain.core.redaction import RedactedText


class OutcomeKind(StrEnum):
    """The final state of a machine in a run. The counts over all kinds add up to the size of the fleet."""

    PATCHED = "patched"
    PATCHED_WITH_WARNINGS = "patched_with_warnings"
    NOTHING_TO_INSTALL = "nothing_to_install"
    ASSESSED = "assessed"
    REBOOT_REQUIRED = "reboot_required"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"
    CANCELED = "canceled"
    LEFT_RUNNING = "left_running"
    UNKNOWN = "unknown"

    @property
    def needs_person(self) -> bool:
        return self in NEEDS_PERSON


NEEDS_PERSON = (
    OutcomeKind.FAILED,
    OutcomeKind.TIMED_OUT,
    OutcomeKind.UNKNOWN,
    OutcomeKind.LEFT_RUNNING,
    OutcomeKind.REBOOT_REQUIRED,
    OutcomeKind.PATCHED_WITH_WARNINGS,
    OutcomeKind.SKIPPED,
)
"""Outcomes that need a person, the worst first."""


class Reason(StrEnum):
    """Why a machine ended as it did: stable codes for filters and alerts."""

    OK = "ok"
    NO_PENDING_PATCHES = "no_pending_patches"
    PATCHES_PENDING = "patches_pending"
    SUBSCRIPTION_REQUIRED = "subscription_required"
    COMPLETED_WITH_WARNINGS = "completed_with_warnings"
    REBOOT_PENDING = "reboot_pending"
    REBOOT_FAILED = "reboot_failed"
    PATCHES_FAILED = "patches_failed"
    WINDOW_EXCEEDED = "window_exceeded"
    WINDOW_CLOSED = "window_closed"
    UNKNOWN_TIME_ZONE = "unknown_time_zone"
    DEADLINE = "deadline"
    NOT_FOUND = "not_found"
    UNREADABLE_ID = "unreadable_id"
    DUPLICATE = "duplicate"
    UNIFORM_SCALE_SET = "uniform_scale_set"
    SCALE_SET_CHANGED = "scale_set_changed"
    NOT_RUNNING = "not_running"
    NOT_CONNECTED = "not_connected"
    HIBERNATED = "hibernated"
    POWER_NOT_RESTORED = "power_not_restored"
    AGENT_NOT_READY = "agent_not_ready"
    UNSUPPORTED = "unsupported"
    FORBIDDEN = "forbidden"
    OUTSIDE_BOUNDARY = "outside_boundary"
    SCOPE_LOCKED = "scope_locked"
    DISALLOWED_BY_POLICY = "disallowed_by_policy"
    OPERATION_CONFLICT = "operation_conflict"
    LOCKED_BY_RUN = "locked_by_run"
    HOLD_TAG = "hold_tag"
    NEEDS_PERSON = "needs_person"
    SUPERSEDED = "superseded"
    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"
    OPERATION_FAILED = "operation_failed"
    OPERATION_LOST = "operation_lost"
    CANCELED_BY_USER = "canceled_by_user"
    SKIPPED_BY_PERSON = "skipped_by_person"
    ERROR_BUDGET = "error_budget"
    NOT_APPROVED = "not_approved"
    NO_RING = "no_ring"
    FROZEN = "frozen"
    NOT_PINNED = "not_pinned"
    APPROVAL_DELAY = "approval_delay"
    ALERT_FIRING = "alert_firing"
    UNHEALTHY = "unhealthy"
    HOOK_FAILED = "hook_failed"
    OCCURRENCE_CANCELED = "occurrence_canceled"
    RESULT_MISSING = "result_missing"
    UPDATE_MANAGER_FAILED = "update_manager_failed"
    STATUS_MISMATCH = "status_mismatch"
    INTERNAL = "internal"


class Outcome(Document):
    """One final state with its reason code and the sentence a person can act on."""

    outcome: OutcomeKind
    reason: Reason
    message: RedactedText

    @classmethod
    def of(cls, outcome: OutcomeKind, reason: Reason, message: str) -> Self:
        return cls(outcome=outcome, reason=reason, message=message)

    @classmethod
    def skipped(cls, reason: Reason, message: str) -> Self:
        """Nothing was done to the machine."""
        return cls.of(OutcomeKind.SKIPPED, reason, message)

    @classmethod
    def canceled(cls) -> Self:
        """The run was stopped before this machine was touched."""
        return cls(
            outcome=OutcomeKind.CANCELED,
            reason=Reason.CANCELED_BY_USER,
            message="The run was cancelled before anything was installed on this machine.",
        )
