"""What an error of Resource Manager means for a machine, in one of eight classes.

The HTTP status decides first, because the codes are ambiguous: ``OperationNotAllowed`` is the code of four
different refusals and of throttling. Texts only refine. Failed operations arrive as HTTP 200 with an error inside.
The rules are the rows of Microsoft's VM error table and of what users reported; the raw text is always kept.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from itertools import islice
from typing import Any, NamedTuple

from pydantic import Field

from patchwave.domain.azure.guest_problems import (
    OLD_AGENT_CODE,
    OLD_AGENT_TEXTS,
    SERVICE_DISABLED_TEXTS,
    WINDOWS_UNREACHABLE_TEXTS,
)
from patchwave.domain.core.documents import Document, object_or_none, objects_or_empty, parse_object, str_or_empty
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.redaction import RedactedText

MAX_TEXT = 2_000
MAX_WAIT_SECONDS = 3_600.0
_MAX_DETAILS = 10
_DEEPEST = 5
"""Levels of details inside details, and of inner errors inside inner errors, that are read."""
_CUT = " … [cut]"


class ErrorClass(StrEnum):
    """What to do about an error."""

    RETRY_LATER = "retry-later"
    BUSY = "busy"
    NOT_RUNNING = "not-running"
    UNSUPPORTED = "unsupported"
    FORBIDDEN = "forbidden"
    GONE = "gone"
    THROTTLED = "throttled"
    FAILED = "failed"

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later, whatever happens to the machine."""
        return self in (ErrorClass.THROTTLED, ErrorClass.RETRY_LATER)

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later, also when another operation keeps the machine busy."""
        return self.is_transient or self is ErrorClass.BUSY


class ErrorDetail(NamedTuple):
    """One part of an error: a code, a text, and what in the request it is about."""

    code: RedactedText = ""
    message: RedactedText = ""
    target: RedactedText = ""

    @property
    def text(self) -> str:
        text = ": ".join(part for part in (self.code, self.message) if part)
        return f"{text} [{self.target}]" if self.target else text


class ArmFailure(Document):
    """An error answer, wherever it came from. ``status`` is the HTTP status, 200 for failed operations, 0 for none.

    ``details`` are those of every level, ``inner`` the chain of inner errors, from the outside to the inside.
    """

    status: int
    code: RedactedText = ""
    message: RedactedText = ""
    target: RedactedText = ""
    details: list[ErrorDetail] = Field(default_factory=list[ErrorDetail])
    inner: list[ErrorDetail] = Field(default_factory=list[ErrorDetail])
    retry_after: float | None = None
    """Seconds the service asked to wait."""

    @property
    def text(self) -> str:
        """Codes and texts in one line, for the record."""
        parts = [ErrorDetail(self.code, self.message, self.target), *self.details, *self.inner]
        head = f"HTTP {self.status} " if self.status else ""
        return _cut((head + "; ".join(part.text for part in parts if part.text)).strip())

    @property
    def clause(self) -> str:
        """The text as the end of a sentence, which has its own full stop."""
        return self.text.rstrip(".")


NO_ANSWER = ArmFailure(status=0, message="Azure gave no answer")


@dataclass(frozen=True, slots=True)
class ErrorClassification:
    """The class of an error, the reason code it becomes in a record, and the sentence a person needs."""

    kind: ErrorClass
    reason: Reason
    sentence: str

    def to_outcome(self, failure: ArmFailure) -> Outcome:
        """The outcome of a machine that ends with this error: skipped when nothing was done to it."""
        done_nothing = self.kind in (
            ErrorClass.BUSY,
            ErrorClass.NOT_RUNNING,
            ErrorClass.UNSUPPORTED,
            ErrorClass.FORBIDDEN,
            ErrorClass.GONE,
        )
        return Outcome.of(
            OutcomeKind.SKIPPED if done_nothing else OutcomeKind.FAILED,
            self.reason,
            _cut(f"{self.sentence} ({failure.text})"),
        )


@dataclass(frozen=True, slots=True)
class _Rule:
    """Matches when the status is listed (or none is), and a code or a text is found anywhere in the failure."""

    kind: ErrorClass
    reason: Reason
    sentence: str
    statuses: tuple[int, ...] = ()
    codes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    """In lower case."""
    names_state: bool = False
    """It names a state of the machine in which Azure takes no such operation."""
    names: Callable[[ArmFailure], str] | None = None
    """What the sentence names, in the place of its braces."""

    def verdict_of(self, failure: ArmFailure) -> ErrorClassification:
        sentence = self.sentence.format(self.names(failure)) if self.names else self.sentence
        return ErrorClassification(self.kind, self.reason, sentence)

    def matches(self, failure: ArmFailure, codes: set[str], text: str) -> bool:
        if self.statuses and failure.status not in self.statuses:
            return False
        if not (self.codes or self.texts):
            return True
        return any(code.casefold() in codes for code in self.codes) or any(part in text for part in self.texts)


def _locked_scopes(failure: ArmFailure) -> str:
    _, _, locks = failure.message.partition("locked:")
    scopes = re.findall(r"'([^']+)'", locks)
    return f" on {', '.join(scopes)}" if scopes else ""


def _policy_assignments(failure: ArmFailure) -> str:
    policies = [part.message for part in failure.details if part.code == _POLICY_VIOLATION]
    if not policies:
        found = re.findall(r'"policyAssignment":\s*\{"name":\s*"([^"]*)"(?:,\s*"id":\s*"([^"]*)")?', failure.message)
        policies = [_named(name, assignment) for name, assignment in found]
    return f" {', '.join(dict.fromkeys(policies))}" if policies else ""


def _named(name: str, assignment: str) -> str:
    return " ".join(part for part in (f"'{name}'" if name else "", f"({assignment})" if assignment else "") if part)


OUTSIDE_BOUNDARY = "OutsideBoundary"
"""The code of a request that was not sent; Azure has no such code."""
_POLICY_VIOLATION = "PolicyViolation"
_TRANSIENT_STATUSES = (408, 500, 502, 503, 504)

# The first rule that matches decides, so the special stands before the general.
_RULES: tuple[_Rule, ...] = (
    _Rule(
        ErrorClass.FORBIDDEN,
        Reason.OUTSIDE_BOUNDARY,
        "Patchwave did not send the request: its own settings forbid it.",
        statuses=(0,),
        codes=(OUTSIDE_BOUNDARY,),
    ),
    _Rule(
        ErrorClass.THROTTLED,
        Reason.THROTTLED,
        "Azure is limiting requests; Patchwave waits as long as Azure asks.",
        statuses=(429,),
    ),
    _Rule(
        ErrorClass.RETRY_LATER,
        Reason.FORBIDDEN,
        "The token was refused; check the identity of the app when this persists.",
        statuses=(401,),
    ),
    _Rule(
        ErrorClass.FORBIDDEN,
        Reason.DISALLOWED_BY_POLICY,
        "A policy of Azure denies it: the assignment{} has to exempt the machine or allow this.",
        codes=("RequestDisallowedByPolicy",),
        names_state=True,
        names=_policy_assignments,
    ),
    _Rule(
        ErrorClass.FORBIDDEN,
        Reason.SCOPE_LOCKED,
        "A lock{} keeps the machine from being changed: remove the lock, or leave the machine out.",
        codes=("ScopeLocked",),
        names_state=True,
        names=_locked_scopes,
    ),
    _Rule(
        ErrorClass.FORBIDDEN,
        Reason.FORBIDDEN,
        "The machine is missing, or the identity of the app lacks the right to do this: grant it the patching role.",
        statuses=(403,),
    ),
    _Rule(ErrorClass.GONE, Reason.NOT_FOUND, "The machine no longer exists.", statuses=(404, 410)),
    _Rule(
        ErrorClass.GONE,
        Reason.NOT_FOUND,
        "The machine no longer exists or is being deleted.",
        codes=("VMNotFound", "NotFound", "ResourceNotFound", "ResourceGroupNotFound"),
        texts=("marked for deletion",),
        names_state=True,
    ),
    _Rule(
        ErrorClass.UNSUPPORTED,
        Reason.UNSUPPORTED,
        "The machine was generalized and cannot be patched; exclude it.",
        texts=("is generalized", "has been generalized", "marked as generalized"),
        names_state=True,
    ),
    _Rule(
        ErrorClass.NOT_RUNNING,
        Reason.NOT_RUNNING,
        "The machine is not running: start it, or let the policy start stopped machines.",
        codes=("CannotModifyExtensionsWhenVMNotRunning", "ShutdownOrUnresponsive"),
        texts=(
            "requires the vm to be running",
            "either deallocated or marked to be deallocated",
            "when the vm is not running",
        ),
        names_state=True,
    ),
    _Rule(
        ErrorClass.NOT_RUNNING,
        Reason.AGENT_NOT_READY,
        "The VM agent does not report: check that it runs and reaches Azure.",
        codes=("VMAgentStatusCommunicationError",),
    ),
    _Rule(
        ErrorClass.RETRY_LATER,
        Reason.OPERATION_CONFLICT,
        "The power state of the machine is changing.",
        texts=("changing power state",),
    ),
    _Rule(
        ErrorClass.RETRY_LATER,
        Reason.OPERATION_CONFLICT,
        "Azure is updating the host of the machine.",
        codes=("ResourceUpdateBlockedOnPlatformUpdate",),
        texts=("schedule timeout, waiting for an ongoing update",),
    ),
    _Rule(
        ErrorClass.UNSUPPORTED,
        Reason.UNSUPPORTED,
        "Azure guest patching does not support the image of this machine.",
        texts=("image is not supported for vm guest patch",),
        names_state=True,
    ),
    _Rule(
        ErrorClass.UNSUPPORTED,
        Reason.UNSUPPORTED,
        "Azure guest patching has no extension for the processor of this machine.",
        texts=("was not found in the extension repository",),
        names_state=True,
    ),
    _Rule(
        ErrorClass.UNSUPPORTED,
        Reason.UNSUPPORTED,
        "The guest cannot run the patch extension: bring the VM agent, Python, sudo or systemd up to date.",
        codes=(OLD_AGENT_CODE, "CL_PYTHON_TOO_OLD", "CL_SUDO_CHECK_FAILED", "CL_SYSTEMD_NOT_PRESENT"),
        texts=OLD_AGENT_TEXTS,
    ),
    _Rule(
        ErrorClass.FAILED,
        Reason.OPERATION_FAILED,
        "Hotpatch needs platform safety checks: set bypassPlatformSafetyChecksOnUserSchedule to false on the machine.",
        texts=("hotpatch updates require platform safety checks",),
        names_state=True,
    ),
    _Rule(
        ErrorClass.FAILED,
        Reason.OPERATION_FAILED,
        "The subscription is not registered for this: register the provider Microsoft.Compute.",
        codes=("MissingSubscriptionRegistration", "SubscriptionNotRegistered"),
        texts=("subscription is not registered",),
        names_state=True,
    ),
    _Rule(
        ErrorClass.FAILED,
        Reason.SUPERSEDED,
        "Another operation on the machine took precedence and stopped this one.",
        codes=("NEWER_OPERATION_SUPERSEDED",),
        texts=("newer operation taking precedence",),
    ),
    _Rule(
        ErrorClass.FAILED,
        Reason.OPERATION_FAILED,
        "The maintenance was cancelled in Azure.",
        texts=("maintenance cancelled",),
    ),
    _Rule(
        ErrorClass.RETRY_LATER,
        Reason.OPERATION_FAILED,
        "Azure reported an internal error: when it persists, check the VM agent, or the processor type (Arm64).",
        codes=("VMGuestPatchInternalError",),
    ),
    _Rule(
        ErrorClass.RETRY_LATER,
        Reason.OPERATION_FAILED,
        "A VM extension did not finish: when it persists, remove the patch extension and try again.",
        codes=("VMExtensionProvisioningTimeout", "VMExtensionProvisioningError", "VMExtensionHandlerNonTransientError"),
    ),
    _Rule(ErrorClass.RETRY_LATER, Reason.OPERATION_FAILED, "The machine was shutting down.", texts=("0x8024001e",)),
    _Rule(
        ErrorClass.FAILED,
        Reason.OPERATION_FAILED,
        "Windows Update cannot reach its server: check proxy, WSUS address and network.",
        texts=WINDOWS_UNREACHABLE_TEXTS,
    ),
    _Rule(
        ErrorClass.FAILED,
        Reason.OPERATION_FAILED,
        "The Windows Update service is disabled on the machine.",
        texts=SERVICE_DISABLED_TEXTS,
    ),
    _Rule(
        ErrorClass.FAILED,
        Reason.OPERATION_FAILED,
        "Windows Update was denied access: check rights and free disk space.",
        texts=("0x80070005",),
    ),
    _Rule(ErrorClass.BUSY, Reason.OPERATION_CONFLICT, "Another operation is running on the machine.", statuses=(409,)),
    _Rule(
        ErrorClass.BUSY,
        Reason.OPERATION_CONFLICT,
        "Another operation is running on the machine.",
        codes=("Conflict", "OperationInProgress"),
        texts=("another operation is in progress", "conflict with a concurrent request"),
    ),
    _Rule(
        ErrorClass.RETRY_LATER, Reason.UNREACHABLE, "Azure did not answer properly.", statuses=(0, *_TRANSIENT_STATUSES)
    ),
)

_OTHERWISE = ErrorClassification(
    ErrorClass.FAILED, Reason.OPERATION_FAILED, "Azure refused or failed the operation; the text says why."
)


def classify(failure: ArmFailure) -> ErrorClassification:
    """What an error means. Unknown errors are failures: nothing unknown is ever retried for ever or called success."""
    rule = _rule_of(failure)
    return rule.verdict_of(failure) if rule is not None else _OTHERWISE


def is_throttling(failure: ArmFailure) -> bool:
    """Whether the answer says no more than to come later: a call that is throttled is no attempt (safety rule 7).

    That is a 503, or a 429 of Azure or of our rate limiter when the reserved slot is too far away.
    """
    return failure.status in (429, 503)


_REFUSES_FIRST = (400, 401, 403, 404)
"""Statuses of checks that come before anything is accepted: the request, the token, the right, the machine."""


def cannot_follow_acceptance(failure: ArmFailure) -> bool:
    """Whether this answer to a POST, PUT or PATCH proves that Azure has not accepted the call (safety rule 1).

    Only these prove it: 400, 401, 403, 404, and a 409 that names a state of the machine in which Azure takes no such
    operation (not running, generalized, being deleted, not supported, behind a lock). After any other answer (409 as
    busy, 429, a 5xx, a status that is new) and after none, the call may have been accepted: ask the machine before
    anything is sent again, and keep its lock while that is unknown.

    A call that puts a machine into that state may get such a 409 after it was accepted: after a stop, only the power
    state says what became of it. A call that never left (`locally_throttled`, no connection, no token) has no answer,
    which is for the caller to know.
    """
    if failure.status in _REFUSES_FIRST:
        return True
    rule = _rule_of(failure)
    return failure.status == 409 and rule is not None and rule.names_state


def _rule_of(failure: ArmFailure) -> _Rule | None:
    # Inner errors are about Azure's own parts: their codes and texts are for people.
    codes = {failure.code.casefold(), *(part.code.casefold() for part in failure.details)}
    text = " ".join([failure.message, *(part.message for part in failure.details)]).casefold()
    return next((rule for rule in _RULES if rule.matches(failure, codes, text)), None)


def read_failure(status: int, body: str, *, retry_after: float | None = None) -> ArmFailure:
    """Read an error answer in any of the forms that Azure uses.

    ``{"error": {...}}``, PascalCase ``{"Error": {...}}`` of Microsoft.Maintenance, the unwrapped
    ``{"code": ...}`` of throttling, an HTML page of a proxy, nothing at all.
    """
    found = parse_object(body)
    if found is None:
        plain = re.sub(r"<[^>]*>", " ", body)
        return ArmFailure(status=status, message=_shorten(plain), retry_after=retry_after)
    fields = _fold(found)
    return failure_of_error(status, object_or_none(fields.get("error")) or fields, retry_after=retry_after)


def failure_of_error(status: int, error: Mapping[str, Any], *, retry_after: float | None = None) -> ArmFailure:
    """The failure of an error object, as it stands in answers and in failed operations."""
    fields = _fold(error)
    return ArmFailure(
        status=status,
        code=_shorten(fields.get("code")),
        message=_shorten(fields.get("message")),
        target=_shorten(fields.get("target")),
        details=list(islice(_details(fields, _DEEPEST), _MAX_DETAILS)),
        inner=list(islice(_inner(fields, _DEEPEST), _MAX_DETAILS)),
        retry_after=retry_after,
    )


def _details(fields: Mapping[str, object], levels: int) -> Iterator[ErrorDetail]:
    """The details of an error with those inside them, the code that Compute hides, and what Azure Policy adds."""
    inside = [_fold(item) for item in objects_or_empty(fields.get("details"))] if levels else []
    for item in inside:
        yield ErrorDetail(_shorten(item.get("code")), _shorten(item.get("message")), _shorten(item.get("target")))
    internal = fields.get("internalerrorcode")
    if internal:
        yield ErrorDetail(_shorten(internal))
    for item in map(_fold, objects_or_empty(fields.get("additionalinfo"))):
        info = _fold(object_or_none(item.get("info")) or {})
        name = str_or_empty(info.get("policyassignmentdisplayname")) or str_or_empty(info.get("policyassignmentname"))
        assignment = str_or_empty(info.get("policyassignmentid"))
        if name or assignment:
            yield ErrorDetail(_POLICY_VIOLATION, _shorten(_named(name, assignment)))
    for item in inside:
        yield from _details(item, levels - 1)


def _inner(fields: Mapping[str, object], levels: int) -> Iterator[ErrorDetail]:
    """The inner errors of an error and of its details: codes and texts, or an exception's type and its dump."""
    within = _fold(object_or_none(fields.get("innererror")) or {})
    if within and levels:
        code = within.get("code") or within.get("exceptiontype") or within.get("internalerrorcode")
        message = within.get("message") or within.get("errordetail")
        detail = ErrorDetail(_shorten(code), _shorten(message), _shorten(within.get("target")))
        if detail.text:
            yield detail
        yield from _inner(within, levels - 1)
    for item in map(_fold, objects_or_empty(fields.get("details"))) if levels else ():
        yield from _inner(item, levels - 1)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait, from a count of seconds or an HTTP date; ``None`` when absent or senseless.

    A wait is never negative and at most an hour: a header must not put a run to sleep for years.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    if not math.isfinite(seconds) or seconds < 0:
        return None
    return min(seconds, MAX_WAIT_SECONDS)


def _fold(fields: Mapping[str, object]) -> dict[str, object]:
    return {key.casefold(): value for key, value in fields.items()}


def _shorten(value: object) -> str:
    text = " ".join(str(value).split()) if value is not None else ""
    # JSON can escape half a character pair, which no storage takes.
    text = text.encode("utf-8", "replace").decode()
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - len(_CUT)] + _CUT
