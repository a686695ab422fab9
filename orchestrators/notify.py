"""send_notifications: tell every channel about something in a run, beside the run and never in its way."""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any

from durabletask import task

from orchestrators import names
from orchestrators.clock import timer_until, utc_now
from orchestrators.patience import Patience
from orchestrators.retries import RETRY, RETRY_RESULT
from patchwave.domain.notifications.events import (
    ApprovalNeeded,
    Ended,
    Facts,
    GateClosed,
    Notice,
    NoticeChannels,
    NoticeReport,
    RunAwaited,
    SendNotice,
    SendResult,
    Started,
    WindowAwaited,
    patience,
)
from patchwave.domain.policy.notifications import Event

LONGEST_THROTTLING = timedelta(hours=6)
"""How long a channel that limits its messages is asked again: a message that comes later helps little."""

type Steps[Result] = Generator[task.Task[Any], Any, Result]

_NOTHING_KNOWN: dict[Event, Facts] = {
    Event.STARTED: Started(),
    Event.APPROVAL_NEEDED: ApprovalNeeded(),
    Event.GATE_CLOSED: GateClosed(),
    Event.AWAITING_WINDOW: WindowAwaited(),
    Event.AWAITING_RUN: RunAwaited(),
    Event.ENDED: Ended(),
}


def announce(context: task.OrchestrationContext, run_id: str, what: Event | Facts, number: int = 1) -> None:
    """Have people told, and go on at once.

    The child is deliberately not awaited. Its start leaves with this turn, also when the turn ends the caller or begins
    a new generation of it; its end is dropped when the caller is gone, and changes nothing when it is there.

    Args:
        context: of the caller, a run or one of its phases.
        run_id: the run that people are told about.
        what: an event, or its facts as far as the caller has them at hand; the rest is read from the rows.
        number: tells this notice from others of the same event in the same run; the same again is the same notice.
    """
    facts = _NOTHING_KNOWN[what] if isinstance(what, Event) else what
    notice = Notice(run_id=run_id, number=number, at=utc_now(context), facts=facts)
    context.call_sub_orchestrator(
        names.SEND_NOTIFICATIONS,
        input=notice.to_wire(),
        instance_id=names.notice_instance(run_id, facts.event.value, number),
        version=context.version,
    )


def send_notifications(context: task.OrchestrationContext, data: dict[str, Any]) -> Steps[dict[str, Any]]:
    """Tell every channel, each with its own patience. Input ``Notice``, output ``NoticeReport``; never fails."""
    notice = Notice.from_wire(data)
    asked = yield from _attempted(context.call_activity(names.LIST_CHANNELS, input=data, retry_policy=RETRY_RESULT))
    channels = NoticeChannels() if asked is None else NoticeChannels.from_wire(asked)
    deliveries = _Deliveries(context, notice, channels)
    yield from deliveries.execute()
    report = deliveries.report()
    if report.sent or report.failed:
        # Without its line in the audit log the report is still this instance's output.
        yield from _attempted(
            context.call_activity(names.CLOSE_NOTICE, input=report.to_wire(), retry_policy=RETRY_RESULT)
        )
    return report.to_wire()


class _Deliveries:
    """The channels that wait for their next attempt, and those that are done with."""

    def __init__(self, context: task.OrchestrationContext, notice: Notice, channels: NoticeChannels) -> None:
        self._context = context
        self._notice = notice
        self._due: dict[str, datetime] = dict.fromkeys(channels.channels, utc_now(context))
        self._attempts = dict.fromkeys(channels.channels, 0)
        self._calls = dict.fromkeys(channels.channels, 0)
        self._patience = {name: Patience(context, longest=LONGEST_THROTTLING) for name in channels.channels}
        self._sent: list[str] = []
        self._failed: dict[str, str] = dict(channels.failed)

    def execute(self) -> Steps[None]:
        """Attempt whatever is due, side by side, until every channel is told or given up."""
        while self._due:
            now = utc_now(self._context)
            ready = [name for name, at in self._due.items() if at <= now]
            if ready:
                yield from self._attempt(ready)
            else:
                yield timer_until(self._context, min(self._due.values()))

    def report(self) -> NoticeReport:
        """What became of the notice."""
        return NoticeReport(
            run_id=self._notice.run_id,
            event=self._notice.facts.event,
            number=self._notice.number,
            at=utc_now(self._context),
            sent=self._sent,
            failed=self._failed,
        )

    def _attempt(self, ready: list[str]) -> Steps[None]:
        for name in ready:
            self._attempts[name] += 1
            self._calls[name] += 1
        attempts = {name: self._call(name) for name in ready}
        for name, attempt in attempts.items():
            answer = yield from _attempted(attempt)
            result = self._unanswered(name) if answer is None else SendResult.from_wire(answer)
            self._take(name, result)

    def _call(self, name: str) -> task.Task[Any]:
        request = SendNotice(notice=self._notice, channel=name, attempt=self._attempts[name])
        return self._context.call_activity(names.SEND_NOTICE, input=request.to_wire(), retry_policy=RETRY)

    def _unanswered(self, name: str) -> SendResult:
        """The records or the worker failed, again and again."""
        return SendResult(sent=False, wait_seconds=patience(self._attempts[name]), failure="Patchwave itself failed.")

    def _take(self, name: str, result: SendResult) -> None:
        del self._due[name]
        if result.sent:
            self._sent.append(name)
            return
        self._attempts[name] -= not result.counts
        pause = self._patience[name].pause(result.wait_seconds, counts=result.counts) if result.wait_seconds else None
        if pause is not None:
            self._due[name] = utc_now(self._context) + timedelta(seconds=pause)
        else:
            attempts = self._calls[name]
            self._failed[name] = f"{result.failure} Given up after {attempts} attempt{'s' if attempts > 1 else ''}."


def _attempted(attempt: task.Task[Any]) -> Steps[Any]:
    """The answer of an activity; ``None`` when it failed for good."""
    try:
        return (yield attempt)
    except task.TaskFailedError:
        return None
