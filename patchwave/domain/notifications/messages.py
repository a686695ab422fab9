"""What a notice says: as the document that programs get, and in words for people, the same for every medium."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from patchwave.domain.core.documents import Json, format_instant, format_minute
from patchwave.domain.notifications.events import (
    ApprovalNeeded,
    ErrorBudgetNotice,
    Facts,
    MachineNote,
    RunAwaited,
    RunEnded,
    RunStarted,
    WindowAwaited,
    one_line,
)
from patchwave.domain.runs.run import RunState

VERSION = 1
"""Of the document that webhooks get."""
MAX_TITLE = 120

_NEXT = {
    "hold": "Nothing more starts there until a person resumes or cancels the run.",
    "end": "Nothing more starts; the run ends when the machines in progress have ended.",
}


class Tone(StrEnum):
    """How a message looks: as everyday news, as good news, or as something to act on."""

    PLAIN = "plain"
    GOOD = "good"
    ATTENTION = "attention"


@dataclass(frozen=True, slots=True)
class Message:
    """A notice in words. Nothing in it is escaped, and every text is on one line.

    ``facts`` are pairs of label and text, ``notes`` are lines about machines, ``command`` is what to type next.
    """

    title: str
    tone: Tone
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True, slots=True)
class Announcement:
    """A notice with all its facts, about a run of a policy."""

    run_id: str
    policy: str
    at: datetime
    facts: Facts

    def to_json(self) -> Json:
        """The document that webhooks get, camelCase, as described in ``docs/how-to/notifications.md``."""
        facts = self.facts.to_wire()
        return {
            "version": VERSION,
            "event": facts.pop("event"),
            "runId": self.run_id,
            "policy": self.policy,
            "at": format_instant(self.at),
            **facts,
        }

    def to_message(self) -> Message:
        match self.facts:
            case RunStarted() as facts:
                return self._started(facts)
            case ApprovalNeeded() as facts:
                return self._approval_needed(facts)
            case ErrorBudgetNotice() as facts:
                return self._gate_closed(facts)
            case WindowAwaited() as facts:
                return self._window_awaited(facts)
            case RunAwaited() as facts:
                return self._run_awaited(facts)
            case RunEnded() as facts:
                return self._ended(facts)

    def _started(self, facts: RunStarted) -> Message:
        started_by = " ".join(part for part in (facts.trigger, facts.started_by) if part)
        told = {"Started by": started_by, "Machines": _number(facts.machines)}
        return self._message(f"{facts.mode} run started" if facts.mode else "run started", told, self._command("watch"))

    def _approval_needed(self, facts: ApprovalNeeded) -> Message:
        answer_by = ""
        if facts.within_seconds is not None:
            until = self.at + timedelta(seconds=facts.within_seconds)
            answer_by = f"{format_minute(until)}, in {spoken_duration(facts.within_seconds)}; silence is a no."
        told = {
            "Ring": facts.ring,
            "Machines": _number(facts.machines),
            "Answer by": answer_by,
            "Scope": facts.scope,
            "Scripts": facts.scripts,
            "Policy by": facts.author,
            "Digest": facts.digest,
        }
        title = f"ring {facts.ring} needs your approval" if facts.ring else "an approval is needed"
        return self._message(title, told, facts.approve, Tone.ATTENTION)

    def _gate_closed(self, facts: ErrorBudgetNotice) -> Message:
        failures = _number(facts.failures)
        if failures and facts.limit is not None:
            failures += f", allowed {facts.limit}"
        scope, following = spoken_scope(facts.scope), _NEXT.get(facts.on_exceeded, facts.on_exceeded)
        told = {"Where": scope, "Failures": failures, "Reason": facts.reason, "Next": following}
        title = f"nothing more starts in {scope}" if scope else "a gate has closed"
        return self._message(title, told, f"{self._command('machines')} --outcome failed", Tone.ATTENTION)

    def _window_awaited(self, facts: WindowAwaited) -> Message:
        opens_at = "" if facts.opens_at is None else format_minute(facts.opens_at)
        told = {"Goes on at": opens_at, "Machines left": _number(facts.open_machines)}
        return self._message("the rest waits for the next window", told, self._command("watch"))

    def _run_awaited(self, facts: RunAwaited) -> Message:
        return self._message("waits for another run", {"Waits for": facts.waits_for}, self._command("watch"))

    def _ended(self, facts: RunEnded) -> Message:
        is_good = facts.state in (RunState.COMPLETED, RunState.EMPTY) and not facts.needs_person
        title = f"run {facts.state}"
        if facts.needs_person:
            title += (
                f", {facts.needs_person} {'machine needs' if facts.needs_person == 1 else 'machines need'} a person"
            )
        more = facts.needs_person - len(facts.notes)
        notes = [_note(note) for note in facts.notes]
        if facts.notes and more > 0:
            notes.append(f"and {more} more")
        told = {
            "Reason": facts.reason,
            "Machines": str(facts.machines),
            "Outcomes": ", ".join(f"{kind} {count}" for kind, count in facts.counts_by_outcome.items()),
            "Duration": spoken_duration(facts.duration_seconds),
            "Stuck": f"{facts.stuck}: failed in too many windows in a row" if facts.stuck else "",
        }
        tone = Tone.GOOD if is_good else Tone.ATTENTION
        return self._message(title, told, self._command("machines"), tone, notes)

    def _command(self, name: str) -> str:
        return f"patchwave run {name} {shlex.quote(self.run_id)}"

    def _message(
        self, title: str, told: Mapping[str, str], command: str, tone: Tone = Tone.PLAIN, notes: Sequence[str] = ()
    ) -> Message:
        """The message with the facts that say something, behind the run's id."""
        facts = [("Run", self.run_id), *((label, one_line(text)) for label, text in told.items() if text)]
        return Message(one_line(f"{self.policy}: {title}", MAX_TITLE), tone, tuple(facts), tuple(notes), command)


def approve_command(run_id: str, ring: str) -> str:
    return f"patchwave run approve {shlex.quote(run_id)} --ring {shlex.quote(ring)}"


def spoken_duration(seconds: float) -> str:
    """``1 h 12 min``; to the minute from a minute on."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    days, minutes = divmod(round(whole / 60), 24 * 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if count]
    return " ".join(parts)


def spoken_scope(scope: str) -> str:
    """A scope of a gate in words: ``lane:broad/westeurope`` is ``region westeurope of ring broad``.

    Another text is returned as it is.
    """
    level, _, place = scope.partition(":")
    ring, *narrower = place.split("/")
    match level, narrower:
        case "run", _:
            return "the whole run"
        case "ring", []:
            return f"ring {ring}"
        case "lane", [region]:
            return f"region {region} of ring {ring}"
        case "wave", [region, wave]:
            return f"wave {wave} in region {region} of ring {ring}"
        case _:
            return scope


def _number(count: int | None) -> str:
    return "" if count is None else str(count)


def _note(note: MachineNote) -> str:
    return one_line(f"{note.name} ({note.resource_group}): {note.outcome}, {note.reason}. {note.message}")
