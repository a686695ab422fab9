"""Waits and polls of a machine's orchestration, which a cancel of the run ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from durabletask import task

from orchestrators.retry_budget import RetryBudget
from orchestrators.runtime import Context, Steps, call
from patchwave.domain.core.attempt import Attempt
from patchwave.domain.workflow.contracts import Activity


class Waits:
    """Timers that a cancel ends; the next activity reads the cancel from the run's row.

    Only the first wait ends early. Operations in Azure are polled as often as before.
    """

    def __init__(self, context: Context, cancel: task.Task[Any] | None = None) -> None:
        self.context = context
        self._cancel = cancel

    def wait(self, seconds: float) -> Steps[None]:
        """Wait ``seconds``, or until the run is cancelled."""
        cancel = self._cancel
        if cancel is None:
            yield self.context.create_timer(timedelta(seconds=seconds))
        elif cancel.is_complete:
            self._cancel = None
        else:
            timer = self.context.create_timer(timedelta(seconds=seconds))
            yield task.when_any([timer, cancel])
            if timer.cancel():
                self._cancel = None

    def poll[Request, Result: Attempt](
        self,
        activity: Activity[Request, Result],
        request: Request,
        max_polls: int,
        is_done: Callable[[Result], bool],
    ) -> Steps[Result]:
        """Call the activity until ``is_done``, or until the retries are used up; returns the last result."""
        retries = RetryBudget(self.context, max_polls)
        while True:
            result = yield from call(self.context, activity, request)
            pause = None if is_done(result) else retries.pause(result)
            if pause is None:
                return result
            yield from self.wait(pause)
