"""patch_wave: a sliding window over the machines of a run. The next machine starts when one ends."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durabletask import task

from domain.admission import RUN_GROUP, Admission, Candidate, Place
from domain.work import MachinePage, MachinePageRequest, MachineWork, StillOpen, StillOpenRequest, Wave
from orchestrators import names
from orchestrators.retries import RETRY

ENDINGS_PER_GENERATION = 100
"""After this many machines the wave continues as new, so that its history stays small at any size of fleet."""
PAGE = 100
"""Machine keys fetched at a time."""
HEARTBEAT = timedelta(minutes=10)
"""How often the wave compares its window with the records, in case the word of a machine got lost."""

type Steps[Result] = Generator[task.Task[Any], Any, Result]


def patch_wave(context: task.OrchestrationContext, data: dict[str, Any]) -> Steps[dict[str, Any] | None]:
    """Take every machine of the run through one step, at most ``max_concurrent`` at a time.

    Input ``Wave``, output ``{"started": n}``. Machines report their end by an event, which survives that the wave
    continues as new. A ``cancel`` event stops new starts at once; the wave ends when its last machine has.
    """
    window = _Window(context, Wave.from_wire(data))
    endings = 0
    while True:
        yield from window.fill()
        if window.is_done:
            window.close()
            return {"started": window.started}
        endings += yield from window.wait_for_endings()
        if endings >= ENDINGS_PER_GENERATION and not window.is_done:
            window.close()
            context.continue_as_new(window.state().to_wire(), save_events=True)
            return None


class _Window:
    """The machines that wait, and those that run. All of it is rebuilt by replay."""

    def __init__(self, context: task.OrchestrationContext, wave: Wave) -> None:
        self._context = context
        self._wave = wave
        self._waiting = list(wave.waiting)
        self._running = list(wave.running)
        self._cursor = wave.cursor
        self._is_exhausted = wave.is_exhausted
        self._is_canceled = wave.is_canceled
        self.started = wave.started
        self._ended = context.wait_for_external_event(names.MACHINE_ENDED_EVENT)
        self._cancel = context.wait_for_external_event(names.CANCEL_EVENT)
        self._heartbeat = context.create_timer(HEARTBEAT)

    @property
    def is_done(self) -> bool:
        """Nothing runs, and nothing will start."""
        nothing_to_start = self._is_canceled or (self._is_exhausted and not self._waiting)
        return nothing_to_start and not self._running

    def fill(self) -> Steps[None]:
        """Start machines while there is room, fetching more keys as needed."""
        self._notice_cancel()
        while not self._is_canceled:
            self._start_admitted()
            if self._waiting or self._is_exhausted or self._is_canceled:
                return
            yield from self._fetch()
            self._notice_cancel()

    def wait_for_endings(self) -> Steps[int]:
        """Wait until something happens; returns how many machines have ended."""
        events: list[task.Task[Any]] = [self._ended, self._heartbeat]
        if not self._is_canceled:
            events.append(self._cancel)
        yield task.when_any(events)
        self._notice_cancel()
        endings = 0
        # Events that arrived together are all taken: an undelivered wait would lose its event in a new generation.
        while self._ended.is_complete:
            endings += self._remove(self._ended.get_result())
            self._ended = self._context.wait_for_external_event(names.MACHINE_ENDED_EVENT)
        if self._heartbeat.is_complete:
            endings += yield from self._reconcile()
            self._heartbeat = self._context.create_timer(HEARTBEAT)
        return endings

    def state(self) -> Wave:
        """What the next generation needs."""
        return self._wave.model_copy(
            update={
                "waiting": self._waiting,
                "running": self._running,
                "cursor": self._cursor,
                "is_exhausted": self._is_exhausted,
                "is_canceled": self._is_canceled,
                "started": self.started,
            }
        )

    def close(self) -> None:
        """Cancel the timer: a timer that nobody waits for keeps an instance alive until it fires."""
        self._heartbeat.cancel()

    def _start_admitted(self) -> None:
        places = (Place(RUN_GROUP, self._wave.max_concurrent),)
        admission = Admission()
        admission.resume(Candidate(key, places=places) for key in self._running)
        admission.add(Candidate(key, places=places) for key in self._waiting)
        for started in admission.start():
            self._start(started.key)
        self._waiting = [candidate.key for candidate in admission.waiting]

    def _start(self, machine_key: str) -> None:
        work = MachineWork(
            run_id=self._wave.run_id,
            machine_key=machine_key,
            step=self._wave.step,
            mode=self._wave.mode,
            start_stopped=self._wave.start_stopped,
            wave_id=self._context.instance_id,
        )
        self._context.call_sub_orchestrator(
            names.PATCH_MACHINE,
            input=work.to_wire(),
            instance_id=names.machine_instance(self._wave.run_id, self._wave.step.value, machine_key),
        )
        self._running.append(machine_key)
        self.started += 1

    def _fetch(self) -> Steps[None]:
        request = MachinePageRequest(
            run_id=self._wave.run_id, step=self._wave.step, cursor=self._cursor, limit=PAGE
        ).to_wire()
        answer = yield self._context.call_activity(names.NEXT_MACHINES, input=request, retry_policy=RETRY)
        page = MachinePage.from_wire(answer)
        self._waiting += page.keys
        self._cursor = page.cursor
        self._is_exhausted = page.cursor is None

    def _reconcile(self) -> Steps[int]:
        request = StillOpenRequest(run_id=self._wave.run_id, step=self._wave.step, keys=self._running).to_wire()
        answer = yield self._context.call_activity(names.STILL_OPEN_MACHINES, input=request, retry_policy=RETRY)
        still_open = StillOpen.from_wire(answer).keys
        return sum(self._remove(key) for key in list(self._running) if key not in still_open)

    def _remove(self, machine_key: str) -> int:
        # The same end may be told twice, by event and by the records.
        if machine_key not in self._running:
            return 0
        self._running.remove(machine_key)
        return 1

    def _notice_cancel(self) -> None:
        if self._cancel.is_complete:
            self._is_canceled = True
