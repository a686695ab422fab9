"""Reservations of concurrency groups that runs share, such as a zone or a cluster."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrators.run_control import RunControl
from orchestrators.runtime import Steps, send
from patchwave.domain.notifications.events import RunAwaited
from patchwave.domain.runs.run import RunState
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.run import ReleaseGroups, ReserveGroups

RESERVATIONS_PER_GENERATION = 10_000
"""More reservations than one generation makes: one for each phase in each window."""
MAX_WAIT_POLL = timedelta(minutes=15)
"""Longest sleep of a run that waits for another one, which normally wakes it."""


class Reservations:
    """The groups that one run has reserved."""

    def __init__(self, run: RunControl, generation: int) -> None:
        self._run = run
        self._sequence = (generation - 1) * RESERVATIONS_PER_GENERATION
        self._has_reserved = generation > 1

    def reserve(self, ring_number: int, phase_number: int, closes_at: datetime | None) -> Steps[str]:
        """Reserve the groups of a phase; waits for other runs that hold them.

        Empty when reserved, until `release`. Else the run that holds them at the close of the window.

        Raises:
            EndOfRun: the run was cancelled, or a gate ended it.
        """
        self._sequence += 1
        self._has_reserved = True
        request = ReserveGroups(
            run_id=self._run.id, ring_number=ring_number, phase_number=phase_number, sequence=self._sequence
        )
        polls = 0
        while True:
            reserved = yield from self._run.call(contracts.RESERVE_GROUPS, request)
            self._wake(reserved.freed)
            is_closed = closes_at is not None and self._run.now > closes_at
            if not reserved.waits_for or is_closed:
                if polls or reserved.waits_for:
                    yield from self._run.show(RunState.RUNNING)
                return reserved.waits_for
            if not polls:
                self._run.announce(RunAwaited(waits_for=reserved.waits_for), self._sequence)
            until = self._run.now + min(timedelta(seconds=reserved.wait_seconds) * 2 ** min(polls, 16), MAX_WAIT_POLL)
            if closes_at is not None:
                until = min(until, closes_at + timedelta(seconds=1))
            yield from self._run.wait_until(until)
            polls += 1

    def release(self) -> Steps[None]:
        """Release what the run has reserved, and wake the runs that may wait for it."""
        if not self._has_reserved:
            return
        request = ReleaseGroups(run_id=self._run.id, sequence=self._sequence)
        released = yield from self._run.call(contracts.RELEASE_GROUPS, request)
        self._has_reserved = False
        self._wake(released.waiting)

    def _wake(self, run_ids: list[str]) -> None:
        for run_id in run_ids:
            send(self._run.context, run_id, Signal.CONTROL)
