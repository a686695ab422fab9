"""How machines ended in the windows of their policies: what is tried again, what has changed, when a person is needed.

Each occurrence of a policy selects all of its machines, so that what failed or was left pending in one window is tried
again in the next one. Here it is counted how many windows in a row a machine has failed in. After
`MAX_FAILED_WINDOWS` it needs a person. It is then left out of further windows, unless the last one installed
something: a patch that never installs must not keep the others away.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import InstallationSummary
from patchwave.domain.core.redaction import RedactedText
from patchwave.domain.runs.error_budget import counts_as_failure

MAX_FAILED_WINDOWS = 3
MAX_ERROR = 160
"""Characters that are kept of an error."""

NOT_READY = frozenset({Reason.NOT_RUNNING, Reason.NOT_CONNECTED, Reason.HIBERNATED, Reason.AGENT_NOT_READY})
"""Reasons of a skipped machine that pass when it comes back."""
_FINISHED = frozenset(
    {
        OutcomeKind.PATCHED,
        OutcomeKind.PATCHED_WITH_WARNINGS,
        OutcomeKind.NOTHING_TO_INSTALL,
        OutcomeKind.REBOOT_REQUIRED,
    }
)
_STATES: dict[str, str] = {
    Reason.NOT_RUNNING: "was not running",
    Reason.NOT_CONNECTED: "was not connected",
    Reason.HIBERNATED: "was hibernated",
    Reason.AGENT_NOT_READY: "had no agent that was ready",
}


class WindowEnd(StrEnum):
    """What an outcome means for the next window."""

    FINISHED = "finished"
    """Nothing is left over that an installation could bring."""
    FAILED = "failed"
    """Patches failed, or are left pending."""
    NOT_READY = "not_ready"
    """It was off, or its agent was not ready: no failure, and it may come back while the window is open."""
    UNDECIDED = "undecided"
    """The outcome says nothing about its patches: cancelled, held, frozen, or Patchwave itself failed."""


class WindowResult(Document):
    """The last window in which a machine failed or was not ready, as the next one needs it.

    ``failed_windows`` counts the windows in a row in which it failed, up to this one, and ``since`` is the first of
    them. Windows in which it was not ready do not count, and do not end the row. ``installed``: patches that the last
    failed one installed.
    """

    run_id: str
    occurrence: UtcDatetime
    outcome: OutcomeKind
    reason: str
    error: RedactedText = ""
    """The first error that the guest reported."""
    installed: int = 0
    failed_windows: int = 0
    since: UtcDatetime | None = None
    last_failed: UtcDatetime | None = None
    """The occurrence that was counted last."""
    needs_person: bool = False
    """It has failed in as many windows in a row as its policy lets it."""

    def is_left_out(self, most: int) -> bool:
        """Whether runs by schedule and events leave the machine out that may fail in ``most`` windows in a row."""
        return self.failed_windows >= most and not self.installed


def window_end(outcome: OutcomeKind, reason: str) -> WindowEnd:
    """What an outcome of a patch run means for the next window."""
    if reason == Reason.INTERNAL:
        return WindowEnd.UNDECIDED
    if counts_as_failure(outcome, reason) or reason == Reason.COMPLETED_WITH_WARNINGS:
        return WindowEnd.FAILED
    if outcome is OutcomeKind.SKIPPED and reason in NOT_READY:
        return WindowEnd.NOT_READY
    return WindowEnd.FINISHED if outcome in _FINISHED else WindowEnd.UNDECIDED


def max_failed_windows(*, retries: bool) -> int:
    """In how many windows in a row a machine may fail; ``retries``: `Policy.retry_in_next_window`."""
    return MAX_FAILED_WINDOWS if retries else 1


@dataclass(frozen=True, slots=True)
class Window:
    """A window as a machine in it sees it: of which run and occurrence, and in how many in a row it may fail.

    A second run may belong to the same occurrence.
    """

    run_id: str
    occurrence: datetime
    max_failed: int


def following(
    before: WindowResult | None,
    outcome: OutcomeKind,
    reason: str,
    installation: InstallationSummary | None,
    window: Window,
) -> WindowResult:
    """The result of a window in which the machine failed or was not ready.

    Args:
        before: the last such result; ``None`` when the machine has been patched since.
        outcome: how it ended.
        reason: why.
        installation: what was installed.
        window: the window.
    """
    occurrence = window.occurrence
    failed, since, last, installed = 0, None, None, 0
    if before is not None:
        failed, since, last, installed = before.failed_windows, before.since, before.last_failed, before.installed
    if window_end(outcome, reason) is WindowEnd.FAILED:
        failed, since, last = failed if last == occurrence else failed + 1, since or occurrence, occurrence
        installed = installation.installed if installation is not None else 0
    return WindowResult(
        run_id=window.run_id,
        occurrence=occurrence,
        outcome=outcome,
        reason=reason,
        error=_error(installation),
        installed=installed,
        failed_windows=failed,
        since=since,
        last_failed=last,
        needs_person=failed >= window.max_failed,
    )


def explain(
    before: WindowResult | None, outcome: Outcome, installation: InstallationSummary | None, window: Window
) -> Outcome:
    """The outcome with what has changed since the last window, and whether the machine needs a person now."""
    end = window_end(outcome.outcome, outcome.reason)
    now = following(before, outcome.outcome, outcome.reason, installation, window)
    changes = _changes(before, now, end) if before is not None and before.run_id != window.run_id else []
    stuck = [_needs_person(now, window.max_failed)] if end is WindowEnd.FAILED and now.needs_person else []
    return outcome.model_copy(update={"message": " ".join([outcome.message, *changes, *stuck])})


def left_out(result: WindowResult) -> Outcome:
    """The outcome of a machine that runs by schedule and events leave out until a person has looked at it."""
    return Outcome.skipped(
        Reason.NEEDS_PERSON,
        f"It failed in {_windows(result)}, the last time with {result.reason}, and installed nothing. A person has to"
        " look at it: patch it by hand, or reset it.",
    )


def name_stuck(names: Iterable[str], *, most: int = 5) -> str:
    """Machines that need a person after their last window, in one line; empty without any."""
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return f"{', '.join(ordered[:most])}{more}" if ordered else ""


def _changes(before: WindowResult, now: WindowResult, end: WindowEnd) -> list[str]:
    """What is different from the last window, in sentences."""
    when = f"in the window of {before.occurrence:%Y-%m-%d}"
    if before.occurrence == now.occurrence:
        when = "earlier in this window"
    if end is WindowEnd.UNDECIDED:
        return []
    if (was := _STATES.get(before.reason)) is not None:
        return [] if end is WindowEnd.NOT_READY else [_sentence(f"{when} it {was}; now it runs")]
    ended = f"{when} it ended with {before.reason}"
    said = f" ({before.error})" if before.error else ""
    if end is WindowEnd.FAILED and before.reason == now.reason:
        return [_sentence(f"{ended} as well{f', by another error{said}' if before.error != now.error else ''}")]
    return [_sentence(f"{ended}{said}")]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def _error(installation: InstallationSummary | None) -> str:
    """The first error that the guest reported, which tells two failures of one kind apart."""
    errors = installation.errors if installation is not None else []
    return next((each.text[:MAX_ERROR] for each in errors if not each.is_informational), "")


def _needs_person(now: WindowResult, most: int) -> str:
    what = f"It failed in {_windows(now)} and needs a person"
    if now.is_left_out(most):
        return f"{what}: later windows leave it out until it is patched by hand, or reset."
    return f"{what}; later windows go on with it, as patches were installed."


def _windows(result: WindowResult) -> str:
    return "1 window" if result.failed_windows == 1 else f"{result.failed_windows} windows in a row"
