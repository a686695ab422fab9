"""patch_phase: a sliding window over the machines of a phase. The next machine starts when its own rules allow it.

All lanes of a phase share one window, so that limits across regions hold exactly. Who may start is decided by
`domain.admission`, the same code that drew the plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any

from durabletask import task

from domain import notification
from domain.admission import RUN_GROUP, Admission, Candidate, Place, lane_scope
from domain.gates import BudgetLedger, OnExceeded, waves_are_barriers
from domain.roster import Placed
from domain.work import (
    GateClosed,
    MachineEnded,
    MachinePage,
    MachinePageRequest,
    MachineWork,
    Phase,
    PhaseEnd,
    RunControls,
    RunRef,
    Step,
    StillOpen,
    StillOpenRequest,
)
from orchestrators import names
from orchestrators.clock import timer_until, utc_now
from orchestrators.notify import announce
from orchestrators.retries import RETRY_RESULT

ENDINGS_PER_GENERATION = 100
"""After this many machines the phase continues as new, so that its history stays small at any size of fleet."""
LOOKS_PER_GENERATION = 60
"""The same for a phase that only waits: it looks at the records every ten minutes."""
PAGE = 100
"""Machines fetched at a time."""
HEARTBEAT = timedelta(minutes=10)
"""How often the phase compares itself with the records, in case the word of a machine or a person got lost."""
GONE_AFTER = timedelta(minutes=30)
"""A machine without a lock for so long has nobody who works on it: it was put back and the word of that got lost, or
its orchestration was ended. It gets another turn; what Azure accepted for it is taken up, never repeated."""
MOST_ATTEMPTS = 9
"""How often one machine is started in one pass: when it is put back more often, it is left to the next one."""
MOST_FREE_WAITING = 200
"""Machines that wait and that no gate holds: rules between machines keep a start from being further down the plan."""
MOST_WAITING = 700
"""All machines that wait: they travel in one message of at most 256 KiB to the next generation."""

type Steps[Result] = Generator[task.Task[Any], Any, Result]


def patch_phase(context: task.OrchestrationContext, data: dict[str, Any]) -> Steps[dict[str, Any] | None]:
    """Take every machine of the phase through one step, as many at a time as the rules allow.

    Input ``Phase``, output ``PhaseEnd``. Machines report their end by an event, which survives that the phase
    continues as new. A ``cancel`` event stops new starts at once; the phase ends when its last machine has.
    """
    window = _Window(context, Phase.from_wire(data))
    endings = 0
    yield from window.look_at_controls()
    while True:
        yield from window.fill()
        if window.is_done:
            yield from window.see_who_is_left()
            window.close()
            return window.end().to_wire()
        endings += yield from window.wait_for_endings()
        is_long = endings >= ENDINGS_PER_GENERATION or window.looks >= LOOKS_PER_GENERATION
        if is_long and window.has_heard_everybody and not window.is_done:
            window.close()
            context.continue_as_new(window.state().to_wire(), save_events=True)
            return None


class _Window:
    """The machines that wait, and those that run. All of it is rebuilt by replay."""

    def __init__(self, context: task.OrchestrationContext, phase: Phase) -> None:
        self._context = context
        self._phase = phase
        self._placed = {machine.key: machine for machine in (*phase.running, *phase.waiting)}
        self._admission = Admission(
            ramp=phase.ramp,
            ended=phase.ended,
            wave_barrier=waves_are_barriers(phase.error_budget, phase.wave_bake_seconds),
        )
        self._admission.resume(_candidate(machine, phase) for machine in phase.running)
        self._admission.add(_candidate(machine, phase) for machine in phase.waiting)
        sizes = {f"lane:{phase.ring}/{lane}": machines for lane, machines in phase.lanes.items()}
        self._ledger = BudgetLedger(
            phase.error_budget,
            sizes | {f"ring:{phase.ring}": phase.ring_machines, RUN_GROUP: phase.machines},
            Counter(phase.failures),
            Counter(phase.forgiven),
        )
        self._controls = RunControls(resumptions=phase.resumptions)
        self._resting = dict(phase.resting)
        self._unlocked: dict[str, datetime] = {}
        self._cursor = phase.cursor
        self._is_exhausted = phase.is_exhausted
        self._started = phase.started
        self._last_attempt = phase.last_attempt
        self._gave_up = phase.gave_up
        self.looks = 0
        self._ended = context.wait_for_external_event(names.MACHINE_ENDED_EVENT)
        self._cancel = context.wait_for_external_event(names.CANCEL_EVENT)
        self._steer = context.wait_for_external_event(names.STEER_EVENT)
        self._timer = self._next_timer()

    # --- where the phase stands

    @property
    def _is_stopped(self) -> bool:
        """Nothing will be started any more: somebody or a gate said so, or the window leaves too little time."""
        return self._controls.is_canceled or bool(self._controls.stop_reason) or self._is_closed

    @property
    def _is_closed(self) -> bool:
        closes_at = self._phase.closes_at
        return closes_at is not None and utc_now(self._context) > closes_at

    @property
    def is_done(self) -> bool:
        """Nothing runs, and nothing will start."""
        nothing_to_start = self._is_stopped or (self._is_exhausted and not self._admission.waiting)
        return nothing_to_start and not self._admission.running

    @property
    def has_heard_everybody(self) -> bool:
        """No end has arrived that was not taken yet, such as one during a look at the records: a new generation would
        never see it."""
        return not self._ended.is_complete

    def end(self) -> PhaseEnd:
        """How the phase ended. What failed in a wave goes on counting when the rest of it has another window."""
        left = self._gave_up or bool(self._admission.waiting) or not self._is_exhausted
        return PhaseEnd(
            started=self._started,
            ended=self._admission.ended,
            failures=dict(self._ledger.failures) if left else _kept(self._ledger.failures, set()),
            forgiven=dict(self._ledger.forgiven) if left else _kept(self._ledger.forgiven, set()),
            resumptions=self._controls.resumptions,
            left=left,
            last_attempt=self._last_attempt,
            stop_reason=self._controls.stop_reason,
        )

    def state(self) -> Phase:
        """What the next generation needs."""
        live_waves = {f"wave:{self._lane(each)}/{each.wave}" for each in self._placed.values()}
        return self._phase.model_copy(
            update={
                "failures": _kept(self._ledger.failures, live_waves),
                "forgiven": _kept(self._ledger.forgiven, live_waves),
                "ended": self._admission.ended,
                "cursor": self._cursor,
                "is_exhausted": self._is_exhausted,
                "resumptions": self._controls.resumptions,
                "resting": self._resting,
                "waiting": [self._placed[each.key] for each in self._admission.waiting],
                "running": [self._placed[each.key] for each in self._admission.running],
                "started": self._started,
                "last_attempt": self._last_attempt,
                "gave_up": self._gave_up,
            }
        )

    def close(self) -> None:
        """Cancel the timer: a timer that nobody waits for keeps an instance alive until it fires."""
        self._cancel_timer()

    # --- starting

    def fill(self) -> Steps[None]:
        """Start machines while there is room, fetching more of them as needed."""
        while not self._is_stopped:
            for started in self._admission.start():
                self._start(self._placed[started.key])
            # Whoever waits now is held by a rule. Somebody further down the plan may still be free to start.
            if self._is_exhausted or self._is_full:
                return
            yield from self._fetch()
            yield from self._notice()

    def see_who_is_left(self) -> Steps[None]:
        """Whether anybody waits behind the end of the window: for nobody, no further window is needed."""
        while not self._is_exhausted and not self._admission.waiting:
            yield from self._fetch()

    @property
    def _is_full(self) -> bool:
        """Nobody further down the plan could start either, or enough machines wait for one to be found among them."""
        held_by = self._admission.held_by()
        free = sum(scope not in self._admission.holds for scope in held_by.values())
        return RUN_GROUP in held_by.values() or free >= MOST_FREE_WAITING or len(held_by) >= MOST_WAITING

    def _start(self, machine: Placed) -> None:
        work = MachineWork(
            run_id=self._phase.run_id,
            machine_key=machine.key,
            step=self._phase.step,
            traits=self._phase.traits,
            phase=self._phase.name,
            attempt=machine.attempt,
        )
        self._context.call_sub_orchestrator(
            names.PATCH_MACHINE,
            input=work.to_wire(),
            instance_id=names.machine_instance(
                self._phase.run_id, self._phase.step.value, machine.key, machine.attempt
            ),
        )
        self._started += 1

    def _fetch(self) -> Steps[None]:
        request = MachinePageRequest(
            run_id=self._phase.run_id,
            step=self._phase.step,
            ring_number=self._phase.ring_number,
            phase_number=self._phase.phase_number,
            first_attempt=self._phase.first_attempt,
            cursor=self._cursor,
            limit=PAGE,
        )
        page = MachinePage.from_wire((yield from self._call(names.NEXT_MACHINES, request.to_wire())))
        self._add(page.machines)
        self._cursor = page.cursor
        self._is_exhausted = page.cursor is None

    def _add(self, machines: list[Placed]) -> None:
        new = [machine for machine in machines if machine.key not in self._placed]
        self._placed |= {machine.key: machine for machine in new}
        self._admission.add(_candidate(machine, self._phase) for machine in new)

    # --- waiting

    def wait_for_endings(self) -> Steps[int]:
        """Wait until something happens; returns how many machines have ended."""
        events: list[task.Task[Any]] = [self._ended, self._timer, self._steer]
        if not self._controls.is_canceled:
            events.append(self._cancel)
        yield task.when_any(events)
        endings = 0
        # Events that arrived together are all taken: an undelivered wait would lose its event in a new generation.
        while self._ended.is_complete:
            endings += yield from self._take(MachineEnded.from_wire(self._ended.get_result()))
            self._ended = self._context.wait_for_external_event(names.MACHINE_ENDED_EVENT)
        yield from self._notice()
        if self._timer.is_complete:
            endings += yield from self._look_at_the_clock()
        return endings

    def look_at_controls(self) -> Steps[None]:
        """Read what people and gates have said: the row is the truth, events only say that it changed."""
        request = RunRef(run_id=self._phase.run_id).to_wire()
        self._obey(RunControls.from_wire((yield from self._call(names.READ_CONTROLS, request))))

    def _obey(self, controls: RunControls) -> None:
        is_canceled = controls.is_canceled or self._controls.is_canceled
        if controls.resumptions > self._controls.resumptions:
            # Somebody has looked at the failures and says: go on.
            self._ledger.forgive()
        self._controls = controls.model_copy(update={"is_canceled": is_canceled})
        self._hold()

    def _hold(self) -> None:
        """Hold what has to be held now, and nothing else."""
        holds = {lane_scope(lane): "bake time" for lane in self._resting}
        holds |= {self._group(scope): "error budget" for scope in self._controls.held_scopes}
        if self._controls.is_paused:
            holds[RUN_GROUP] = "paused"
        for scope in sorted(self._admission.holds.keys() - holds.keys()):
            self._admission.release(scope)
        for scope, why in holds.items():
            self._admission.hold(scope, why)

    def _group(self, scope: str) -> str:
        """What of this phase a scope holds: its lane, or all of it.

        A wave holds the waves behind it too, as most of its machines have been started when it is judged. Whatever is
        not a part of this phase is around it or lies before it.
        """
        kind, _, name = scope.partition(":")
        lane = name.rpartition("/")[0] if kind == "wave" else name
        is_here = kind in ("lane", "wave") and lane in {f"{self._phase.ring}/{each}" for each in self._phase.lanes}
        return lane_scope(lane) if is_here else RUN_GROUP

    def _notice(self) -> Steps[None]:
        if self._cancel.is_complete and not self._controls.is_canceled:
            self._controls = self._controls.model_copy(update={"is_canceled": True})
        while self._steer.is_complete:
            self._steer = self._context.wait_for_external_event(names.STEER_EVENT)
            yield from self.look_at_controls()

    def _look_at_the_clock(self) -> Steps[int]:
        """The timer fired: a lane has rested long enough, or it is time to compare with the records."""
        now = utc_now(self._context)
        rested = [lane for lane, until in self._resting.items() if now >= until]
        for lane in rested:
            del self._resting[lane]
        self._hold()
        endings = 0
        if not rested:
            self.looks += 1
            endings = yield from self._reconcile()
            yield from self.look_at_controls()
        self._set_timer()
        return endings

    def _set_timer(self) -> None:
        self._cancel_timer()
        self._timer = self._next_timer()

    def _next_timer(self) -> task.CancellableTask[Any]:
        """Wake when a lane has rested, when the window closes, or to compare with the records."""
        now = utc_now(self._context)
        closes_at = self._phase.closes_at
        closing = [closes_at + timedelta(seconds=1)] if closes_at is not None and closes_at >= now else []
        return timer_until(self._context, min([now + HEARTBEAT, *self._resting.values(), *closing]))

    def _cancel_timer(self) -> None:
        if not self._timer.is_complete:
            self._timer.cancel()

    # --- endings

    def _take(self, ended: MachineEnded) -> Steps[int]:
        """Give back the places of a machine, count a failure, let a finished wave rest."""
        result = self._admission.end(ended.key, counts=not ended.left)
        if not result.was_running:
            # The same end may be told twice, by event and by the records.
            return 0
        machine = self._placed.pop(ended.key)
        self._unlocked.pop(ended.key, None)
        if ended.left:
            # Whoever put it back knew of an order that this phase may not have heard of: it would only try again.
            yield from self.look_at_controls()
            if machine.attempt - self._phase.first_attempt + 1 < MOST_ATTEMPTS:
                self._last_attempt = max(self._last_attempt, machine.attempt + 1)
                self._add([machine.model_copy(update={"attempt": machine.attempt + 1})])
            else:
                self._gave_up = True
            return 1
        if ended.failed:
            yield from self._count_failure(machine)
        if result.wave_is_over and self._phase.wave_bake_seconds and not self._is_stopped:
            self._rest(self._lane(machine))
        return 1

    def _count_failure(self, machine: Placed) -> Steps[None]:
        lane = self._lane(machine)
        wave = f"wave:{lane}/{machine.wave}"
        scopes = {"wave": wave, "lane": f"lane:{lane}", "ring": f"ring:{self._phase.ring}", "run": RUN_GROUP}
        self._ledger.sizes = {**self._ledger.sizes, wave: machine.wave_size}
        for level, scope in self._ledger.count(scopes).items():
            if scope in self._controls.held_scopes or self._controls.stop_reason:
                continue
            gate = GateClosed(
                run_id=self._phase.run_id,
                scope=scope,
                failures=self._ledger.failures[scope],
                limit=self._ledger.limit(level, scope) or 0,
                ends_run=self._phase.error_budget.on_exceeded is OnExceeded.END,
            )
            self._obey(RunControls.from_wire((yield from self._call(names.CLOSE_GATE, gate.to_wire()))))
            if self._phase.announces:
                facts = notification.GateClosed(
                    scope=scope,
                    failures=gate.failures,
                    limit=gate.limit,
                    on_exceeded=self._phase.error_budget.on_exceeded.value,
                )
                announce(self._context, self._phase.run_id, facts, self._gate_number)

    @property
    def _gate_number(self) -> int:
        """Tells the gates of one run apart: more of them close until somebody resumes it, and then it begins anew."""
        return self._controls.resumptions * 1_000 + len(self._controls.held_scopes)

    def _rest(self, lane: str) -> None:
        """Hold a lane between two waves."""
        until = utc_now(self._context) + timedelta(seconds=self._phase.wave_bake_seconds or 0)
        self._resting[lane] = until
        self._hold()
        self._set_timer()

    def _reconcile(self) -> Steps[int]:
        keys = [machine.key for machine in self._admission.running]
        if not keys:
            return 0
        request = StillOpenRequest(run_id=self._phase.run_id, step=self._phase.step, keys=keys).to_wire()
        answer = StillOpen.from_wire((yield from self._call(names.STILL_OPEN_MACHINES, request)))
        endings = 0
        for key in keys:
            if key not in answer.keys:
                endings += yield from self._take(MachineEnded(key=key, failed=key in answer.failed))
        now = utc_now(self._context)
        self._unlocked = {key: self._unlocked.get(key, now) for key in answer.unlocked}
        for key in [key for key, since in self._unlocked.items() if now - since >= GONE_AFTER]:
            endings += yield from self._take(MachineEnded(key=key, left=True))
        return endings

    def _lane(self, machine: Placed) -> str:
        return f"{self._phase.ring}/{machine.lane}"

    def _call(self, activity: str, request: dict[str, Any]) -> Steps[Any]:
        # Machines work meanwhile: when their phase gives up, nobody hears of them any more.
        return (yield self._context.call_activity(activity, input=request, retry_policy=RETRY_RESULT))


def _candidate(machine: Placed, phase: Phase) -> Candidate:
    if phase.step is Step.ASSESS:
        # An assessment changes nothing on a machine: only their number is limited.
        return Candidate(machine.key, places=(Place(RUN_GROUP, phase.max_concurrent),))
    places = tuple(Place.parse(text) for text in machine.places)
    return Candidate(machine.key, f"{phase.ring}/{machine.lane}", machine.wave, places)


def _kept(counts: Counter[str], live_waves: set[str]) -> dict[str, int]:
    """Counts of waves that are over say nothing any more."""
    return {scope: n for scope, n in counts.items() if not scope.startswith("wave:") or scope in live_waves}
