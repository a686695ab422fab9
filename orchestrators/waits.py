"""Waits of a machine's orchestration, which a cancel of the run ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from durabletask import task

from orchestrators.runtime import Context, Steps


class Waits:
    """Timers that a cancel ends; the next activity reads the cancel from the run's row.

    Only the first wait ends early. Operations in Azure are polled as often as before.
    """

    def __init__(self, context: Context, cancel: task.Task[Any] | None = None) -> None:
        self._context = context
        self._cancel = cancel

    def wait(self, seconds: float) -> Steps[None]:
        """Wait ``seconds``, or until the run is cancelled."""
        cancel = self._cancel
        if cancel is None:
            yield self._context.create_timer(timedelta(seconds=seconds))
        elif cancel.is_complete:
            self._cancel = None
        else:
            timer = self._context.create_timer(timedelta(seconds=seconds))
            yield task.when_any([timer, cancel])
            if timer.cancel():
                self._cancel = None
