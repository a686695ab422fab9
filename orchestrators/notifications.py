"""send_notifications: notifies every channel of an event of a run, in parallel with it."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from durabletask import task

from orchestrators.retry_budget import RetryBudget
from orchestrators.runtime import (
    RETRY,
    Context,
    Steps,
    call,
    implements,
    result_of,
    schedule,
    start,
    timer_until,
    utc_now,
)
from patchwave.domain.notifications.events import (
    ApprovalNeeded,
    ErrorBudgetNotice,
    Facts,
    Notice,
    NoticeChannels,
    NoticeReport,
    RunAwaited,
    RunEnded,
    RunStarted,
    SendNotice,
    SendResult,
    WindowAwaited,
    backoff,
)
from patchwave.domain.policy.notifications import Event
from patchwave.domain.workflow import contracts, instance_ids

MAX_THROTTLING = timedelta(hours=6)
"""How long a channel that throttles is retried: a message that comes later helps little."""

_NOTHING_KNOWN: dict[Event, Facts] = {
    Event.STARTED: RunStarted(),
    Event.APPROVAL_NEEDED: ApprovalNeeded(),
    Event.GATE_CLOSED: ErrorBudgetNotice(),
    Event.AWAITING_WINDOW: WindowAwaited(),
    Event.AWAITING_RUN: RunAwaited(),
    Event.ENDED: RunEnded(),
}


def announce(context: Context, run_id: str, what: Event | Facts, number: int = 1) -> None:
    """Start a notification, and continue at once.

    The child is deliberately not awaited. It starts with the actions of this turn, also when the caller ends or
    continues as new in it. Its completion has no effect on the caller.

    Args:
        context: of the caller, a run or one of its phases.
        run_id: of the run that the notification is about.
        what: an event, or the facts that the caller has; the activity reads the rest from the rows.
        number: distinguishes notices of the same event in the same run; an equal number is the same notice.
    """
    facts = _NOTHING_KNOWN[what] if isinstance(what, Event) else what
    notice = Notice(run_id=run_id, number=number, at=utc_now(context), facts=facts)
    start(context, contracts.SEND_NOTIFICATIONS, notice, instance_ids.notice(run_id, facts.event.value, number))


@implements(contracts.SEND_NOTIFICATIONS)
def send_notifications(context: Context, notice: Notice) -> Steps[NoticeReport]:
    """Notify every channel, each with its own retries; never fails."""
    channels = NoticeChannels()
    with suppress(task.TaskFailedError):
        channels = yield from call(context, contracts.LIST_CHANNELS, notice)
    deliveries = _Deliveries(context, notice, channels)
    yield from deliveries.execute()
    report = deliveries.report()
    if report.sent or report.failed:
        # Without its audit entry the report is still this instance's output.
        with suppress(task.TaskFailedError):
            yield from call(context, contracts.RECORD_DELIVERY, report)
    return report


class _Deliveries:
    """Channels that wait for their next attempt, and finished ones."""

    def __init__(self, context: Context, notice: Notice, channels: NoticeChannels) -> None:
        self._context = context
        self._notice = notice
        self._due: dict[str, datetime] = dict.fromkeys(channels.channels, utc_now(context))
        self._attempts = dict.fromkeys(channels.channels, 0)
        self._calls = dict.fromkeys(channels.channels, 0)
        self._retries = {name: RetryBudget(context, longest=MAX_THROTTLING) for name in channels.channels}
        self._sent: list[str] = []
        self._failed: dict[str, str] = dict(channels.failed)

    def execute(self) -> Steps[None]:
        """Attempt due channels in parallel, until each has succeeded or failed."""
        while self._due:
            now = utc_now(self._context)
            ready = [name for name, at in self._due.items() if at <= now]
            if ready:
                yield from self._attempt(ready)
            else:
                yield timer_until(self._context, min(self._due.values()))

    def report(self) -> NoticeReport:
        """The result of the notice."""
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
            try:
                yield attempt
            except task.TaskFailedError:
                result = self._unanswered(name)
            else:
                result = result_of(contracts.SEND_NOTIFICATION, attempt)
            self._take(name, result)

    def _call(self, name: str) -> task.Task[Any]:
        request = SendNotice(notice=self._notice, channel=name, attempt=self._attempts[name])
        return schedule(self._context, contracts.SEND_NOTIFICATION, request, RETRY)

    def _unanswered(self, name: str) -> SendResult:
        """The result after repeated failures of storage or the worker."""
        return SendResult(sent=False, wait_seconds=backoff(self._attempts[name]), failure="Patchwave itself failed.")

    def _take(self, name: str, result: SendResult) -> None:
        del self._due[name]
        if result.sent:
            self._sent.append(name)
            return
        self._attempts[name] -= not result.counts_as_attempt
        pause = self._retries[name].pause(result) if result.wait_seconds else None
        if pause is not None:
            self._due[name] = utc_now(self._context) + timedelta(seconds=pause)
        else:
            attempts = self._calls[name]
            self._failed[name] = f"{result.failure} Given up after {attempts} attempt{'s' if attempts > 1 else ''}."
