"""send_notifications: notifies every channel of an event of a run, in parallel with it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
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
    schedule,
    start,
    timer_until,
    utc_now,
)
from patchwave.domain.notifications.events import (
    Facts,
    Notice,
    NoticeChannels,
    NoticeReport,
    SendNotice,
    SendResult,
    backoff,
)
from patchwave.domain.workflow import contracts, instance_ids

MAX_THROTTLING = timedelta(hours=6)
"""How long a channel that throttles is retried: a message that comes later helps little."""


def announce(context: Context, run_id: str, facts: Facts, number: int = 1) -> None:
    """Start a notification, and continue at once.

    The child is deliberately not awaited. It starts with the actions of this turn, also when the caller ends or
    continues as new in it. Its completion has no effect on the caller.

    ``facts`` are those that the caller has; the activity reads the rest from the rows. ``number`` distinguishes notices
    of the same event in the same run; an equal number is the same notice.
    """
    notice = Notice(run_id=run_id, number=number, at=utc_now(context), facts=facts)
    start(context, contracts.SEND_NOTIFICATIONS, notice, instance_ids.notice(run_id, facts.event.value, number))


@implements(contracts.SEND_NOTIFICATIONS)
def send_notifications(context: Context, notice: Notice) -> Steps[NoticeReport]:
    """Notify every channel, each with its own retries; never fails."""
    channels = NoticeChannels()
    with suppress(task.TaskFailedError):
        channels = yield from call(context, contracts.LIST_CHANNELS, notice)
    waiting = [
        _Delivery(name, utc_now(context), RetryBudget(context, longest=MAX_THROTTLING)) for name in channels.channels
    ]
    sent: list[str] = []
    failed = dict(channels.failed)
    while waiting:
        ready = [delivery for delivery in waiting if delivery.due <= utc_now(context)]
        if not ready:
            yield timer_until(context, min(delivery.due for delivery in waiting))
        # Due channels in parallel.
        for delivery, sending in [(delivery, delivery.send(context, notice)) for delivery in ready]:
            result = yield from delivery.receive(sending)
            pause = delivery.retries.pause(result) if result.wait_seconds and not result.sent else None
            if pause is not None:
                delivery.due = utc_now(context) + timedelta(seconds=pause)
                continue
            waiting.remove(delivery)
            if result.sent:
                sent.append(delivery.channel)
            else:
                tries = f"{delivery.calls} attempt{'s' if delivery.calls > 1 else ''}"
                failed[delivery.channel] = f"{result.failure} Given up after {tries}."
    report = NoticeReport(
        run_id=notice.run_id,
        event=notice.facts.event,
        number=notice.number,
        at=utc_now(context),
        sent=sent,
        failed=failed,
    )
    if report.sent or report.failed:
        # Without its audit entry the report is still this instance's output.
        with suppress(task.TaskFailedError):
            yield from call(context, contracts.RECORD_DELIVERY, report)
    return report


@dataclass
class _Delivery:
    """A channel that waits for its next attempt. ``calls``: its attempts, and those that did not count."""

    channel: str
    due: datetime
    retries: RetryBudget
    attempts: int = 0
    calls: int = 0

    def send(self, context: Context, notice: Notice) -> task.Task[Any]:
        """Begin an attempt."""
        self.attempts += 1
        self.calls += 1
        request = SendNotice(notice=notice, channel=self.channel, attempt=self.attempts)
        return schedule(context, contracts.SEND_NOTIFICATION, request, RETRY)

    def receive(self, sending: task.Task[Any]) -> Steps[SendResult]:
        """The result of an attempt, also when storage or the worker failed repeatedly."""
        try:
            yield sending
        except task.TaskFailedError:
            return SendResult(sent=False, wait_seconds=backoff(self.attempts), failure="Patchwave itself failed.")
        result = contracts.SEND_NOTIFICATION.result.decode(sending.get_result())
        self.attempts -= not (result.sent or result.counts_as_attempt)
        return result
