"""The orchestration's own clock, and waits of any length."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from durabletask import task

LONGEST_TIMER = timedelta(days=1)
"""Timers of more than six days cannot be cancelled by the Functions extension, so long waits are taken in steps."""


def utc_now(context: task.OrchestrationContext) -> datetime:
    """This turn's moment, the same at every replay; the engine gives it without its zone, which is UTC."""
    moment = context.current_utc_datetime
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def timer_until(context: task.OrchestrationContext, until: datetime) -> task.CancellableTask[Any]:
    """A timer that fires at that moment, or a day from now when it is farther away."""
    left = until - utc_now(context)
    return context.create_timer(max(timedelta(seconds=1), min(left, LONGEST_TIMER)))
