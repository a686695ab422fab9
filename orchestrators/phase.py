"""patch_phase: a sliding window over the machines of a phase. Each machine starts as soon as its constraints allow it.

All lanes of a phase share one window, so that limits across regions hold exactly. `patchwave.domain.planning.admission`
decides which machines may start; the planner uses the same code.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from functools import lru_cache

from durabletask import task

from orchestrators.notifications import announce
from orchestrators.runtime import Context, Steps, call, continue_as_new, implements, receive, send, start, utc_now
from patchwave.domain.notifications import events
from patchwave.domain.planning.admission import RUN_GROUP, Admission, Candidate, Permit, lane_scope
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.policy.gates import OnExceeded, wave_barrier_enabled
from patchwave.domain.runs.error_budget import BudgetLedger, ErrorBudgetExceeded
from patchwave.domain.runs.run import RunControls, Step
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.machine import MachineEnded, MachineWork
from patchwave.domain.workflow.phase import PendingMachinesRequest, Phase, PhaseEnd, PhasePollRequest, ReconcileRequest

PAGE = 250
"""Machines fetched per page."""
STARTS_IN_A_LANE = 100
"""Max machines started per lane and tick: about twice Azure's rate per region, without congesting its reads."""
STARTS_OF_ASSESSMENTS = 160
"""Max assessments started per tick."""
MAX_STARTS = 200
"""Max machines started per tick, which travel in one message."""
MAX_RUNNING = 5_500
"""Max machines in progress. Together with the waiting ones they travel in one message of 256 KiB."""
MAX_WAITING = 700
"""Max fetched machines that wait."""
MAX_FREE_WAITING = 200
"""Max fetched machines that no gate blocks: bounds the lookahead past those that a constraint blocks."""
TICKS_PER_POLL = 3
"""Ticks per poll interval in an active phase; idle ticks grow longer."""
MAX_IDLE_SLEEP = timedelta(minutes=10)
"""Longest sleep when no machine is in progress."""
RECONCILE_INTERVAL = timedelta(minutes=5)
"""Interval of the comparison of machines in progress with their rows, which finds dead orchestrations."""
RECONCILE_BATCH = 100
"""Machines compared at a time; larger phases take turns."""
ORPHANED_AFTER = timedelta(minutes=30)
"""A machine without a lease for this long has no live orchestration. It is requeued; an operation that Azure accepted
is adopted, never repeated."""
MAX_CANCELS_PER_TICK = 500
"""Machines that receive the cancel per tick: each is a separate message."""
MAX_ATTEMPTS = 9
"""Starts of one machine in one pass. One that is requeued more often is left to the next pass."""


@implements(contracts.PATCH_PHASE)
def patch_phase(context: Context, phase: Phase) -> Steps[PhaseEnd | None]:
    """Take every machine of the phase through one step, within its limits.

    One execution is one tick: read completions and controls, start machines, sleep, continue as new. A signal only
    ends the sleep, so none can be lost. Each history has a handful of events, so the cost of a replay does not grow.
    """
    window = _Window(context, phase)
    # Completions first: they free the permits that the starts below use.
    yield from window.poll()
    yield from window.reconcile()
    # Machines of the previous generation of the run come before any new one.
    window.resume_running()
    window.pass_cancel_on()
    yield from window.admit_machines()
    # Done when no machine is in progress and none may start; remaining ones need another window.
    if window.is_done:
        yield from window.fetch_remaining()
        return window.end()
    yield from window.sleep()
    # Kept signals wake the next execution at once.
    continue_as_new(context, contracts.PATCH_PHASE, window.state(), keep_signals=True)
    return None


class _Window:
    """Waiting machines and machines in progress. Replay rebuilds all of it."""

    def __init__(self, context: Context, phase: Phase) -> None:
        self._context = context
        self._phase = phase
        self._placed = {machine.key: machine for machine in (*phase.running, *phase.waiting)}
        self._admission = Admission(
            ramp=phase.ramp,
            ended=phase.ended,
            wave_barrier=wave_barrier_enabled(phase.error_budget, phase.wave_bake_seconds),
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
        self._controls = RunControls(resume_count=phase.resume_count)
        self._lane_bake_until = dict(phase.lane_bake_until)
        self._unlocked_since = dict(phase.unlocked_since)
        self._reconcile_at = phase.reconcile_at or utc_now(context) + RECONCILE_INTERVAL
        self._reconcile_offset = phase.reconcile_offset
        self._cursor = phase.cursor
        self._has_all_pages = phase.has_all_pages
        self._started = phase.started
        self._last_attempt = phase.last_attempt
        self._has_skipped_machines = phase.has_skipped_machines
        self._since = phase.since
        self._wait_seconds = 0.0
        self._cancels_pending = phase.cancels_pending
        self._has_changed = False
        self._cancel = receive(context, Signal.CANCEL)
        self._control = receive(context, Signal.CONTROL)

    # --- state

    @property
    def _is_stopped(self) -> bool:
        """Nothing starts any more: cancelled, stopped by a gate, or too late in the window."""
        return self._controls.is_canceled or bool(self._controls.stop_reason) or self._is_closed

    @property
    def _is_closed(self) -> bool:
        closes_at = self._phase.closes_at
        return closes_at is not None and utc_now(self._context) > closes_at

    @property
    def is_done(self) -> bool:
        """No machine is in progress, and none will start."""
        nothing_to_start = self._is_stopped or (self._has_all_pages and not self._admission.waiting)
        return nothing_to_start and not self._admission.running

    @property
    def _has_signal(self) -> bool:
        """A command has come since the last poll: it is read before anything starts."""
        return self._cancel.is_complete or self._control.is_complete

    def end(self) -> PhaseEnd:
        """The result. Failures of an unfinished wave still count in its next window."""
        has_remaining = self._has_skipped_machines or bool(self._admission.waiting) or not self._has_all_pages
        return PhaseEnd(
            started=self._started,
            ended=self._admission.ended,
            failures=dict(self._ledger.failures) if has_remaining else _kept(self._ledger.failures, set()),
            forgiven=dict(self._ledger.forgiven) if has_remaining else _kept(self._ledger.forgiven, set()),
            resume_count=self._controls.resume_count,
            has_remaining=has_remaining,
            last_attempt=self._last_attempt,
            stop_reason=self._controls.stop_reason,
        )

    def state(self) -> Phase:
        """The input of the next execution."""
        live_waves = {f"wave:{self._lane(each)}/{each.wave}" for each in self._placed.values()}
        return self._phase.model_copy(
            update={
                "failures": _kept(self._ledger.failures, live_waves),
                "forgiven": _kept(self._ledger.forgiven, live_waves),
                "ended": self._admission.ended,
                "cursor": self._cursor,
                "has_all_pages": self._has_all_pages,
                "resume_count": self._controls.resume_count,
                "lane_bake_until": self._lane_bake_until,
                "waiting": [self._placed[each.key] for each in self._admission.waiting],
                "running": [self._placed[each.key] for each in self._admission.running],
                "resume_running": False,
                "started": self._started,
                "last_attempt": self._last_attempt,
                "has_skipped_machines": self._has_skipped_machines,
                "since": self._since,
                "idle_ticks": self._idle_ticks,
                "reconcile_at": self._reconcile_at,
                "reconcile_offset": self._reconcile_offset,
                "unlocked_since": self._unlocked_since,
                "cancels_pending": self._cancels_pending,
            }
        )

    @property
    def _idle_ticks(self) -> int:
        return 0 if self._has_changed else self._phase.idle_ticks + 1

    # --- starting

    def resume_running(self) -> None:
        """Start orchestrations for machines in progress whose previous ones are gone: once, before any other start."""
        if self._phase.resume_running:
            for machine in self._phase.running:
                self._start(machine)

    def pass_cancel_on(self) -> None:
        """Forward the cancel to machines in progress, some per tick, which ends their waits.

        Nothing starts any more, so their number only falls. Counting from the end therefore omits none.
        """
        if not self._controls.is_canceled:
            return
        running = [self._placed[each.key] for each in self._admission.running]
        cancels_pending = len(running) if self._cancels_pending is None else min(self._cancels_pending, len(running))
        signalled = running[len(running) - cancels_pending :][:MAX_CANCELS_PER_TICK]
        for machine in signalled:
            send(self._context, self._instance(machine), Signal.CANCEL)
        self._cancels_pending = cancels_pending - len(signalled)

    def admit_machines(self) -> Steps[None]:
        """Start machines while limits allow it, and fetch more as needed."""
        lanes = len(self._phase.lanes)
        room = STARTS_OF_ASSESSMENTS if self._phase.step is Step.ASSESS else min(STARTS_IN_A_LANE * lanes, MAX_STARTS)
        while not (self._is_stopped or self._has_signal):
            started = self._admission.start(room)
            for each in started:
                self._start(self._placed[each.key])
            room -= len(started)
            # A constraint blocks every waiting machine. A later machine of the plan may still be free to start.
            if room == 0 or self._has_all_pages or self._is_full:
                return
            yield from self._fetch()

    def fetch_remaining(self) -> Steps[None]:
        """Fetch until a remaining machine is found: without one, no further window is needed."""
        while not self._has_all_pages and not self._admission.waiting:
            yield from self._fetch()

    @property
    def _is_full(self) -> bool:
        """No later machine of the plan could start either, or enough machines wait to find one among them."""
        held_by = self._admission.held_by()
        free = sum(scope not in self._admission.holds for scope in held_by.values())
        return RUN_GROUP in held_by.values() or free >= MAX_FREE_WAITING or len(held_by) >= MAX_WAITING

    def _start(self, machine: PlacedMachine) -> None:
        work = MachineWork(
            run_id=self._phase.run_id,
            machine_key=machine.key,
            step=self._phase.step,
            options=self._phase.options,
            phase=self._phase.name,
            attempt=machine.attempt,
        )
        start(self._context, contracts.PATCH_MACHINE, work, self._instance(machine))
        self._started += 1
        self._has_changed = True

    def _instance(self, machine: PlacedMachine) -> str:
        return instance_ids.machine(self._phase.run_id, self._phase.step.value, machine.key, machine.attempt)

    def _fetch(self) -> Steps[None]:
        request = PendingMachinesRequest(
            run_id=self._phase.run_id,
            step=self._phase.step,
            ring_number=self._phase.ring_number,
            phase_number=self._phase.phase_number,
            first_attempt=self._phase.first_attempt,
            cursor=self._cursor,
            limit=PAGE,
        )
        page = yield from call(self._context, contracts.LIST_PENDING_MACHINES, request)
        self._add(page.machines)
        self._cursor = page.cursor
        self._has_all_pages = page.cursor is None

    def _add(self, machines: list[PlacedMachine]) -> None:
        new = [machine for machine in machines if machine.key not in self._placed]
        self._placed |= {machine.key: machine for machine in new}
        self._admission.add(_candidate(machine, self._phase) for machine in new)

    # --- polling

    def poll(self) -> Steps[None]:
        """Read completions and controls from their rows, which are authoritative."""
        request = PhasePollRequest(run_id=self._phase.run_id, phase=self._phase.name, since=self._since)
        seen = yield from call(self._context, contracts.POLL_PHASE, request)
        self._since, self._wait_seconds = seen.since, seen.wait_seconds
        self._apply_controls(seen.controls)
        for ended in seen.ended:
            yield from self._apply_completion(ended)
        now = utc_now(self._context)
        self._lane_bake_until = {lane: until for lane, until in self._lane_bake_until.items() if now < until}
        self._hold()

    def reconcile(self) -> Steps[None]:
        """Compare machines in progress with their rows, when it is due."""
        now = utc_now(self._context)
        if now < self._reconcile_at:
            return
        self._reconcile_at = now + RECONCILE_INTERVAL
        running = [machine.key for machine in self._admission.running]
        keys = running[self._reconcile_offset : self._reconcile_offset + RECONCILE_BATCH]
        self._reconcile_offset = (
            self._reconcile_offset + len(keys) if self._reconcile_offset + len(keys) < len(running) else 0
        )
        if not keys:
            return
        request = ReconcileRequest(run_id=self._phase.run_id, step=self._phase.step, keys=keys)
        answer = yield from call(self._context, contracts.RECONCILE_MACHINES, request)
        for key in keys:
            if key not in answer.keys:
                yield from self._apply_completion(self._completion(key, failed=key in answer.failed))
            elif key not in answer.unlocked:
                self._unlocked_since.pop(key, None)
            elif now - self._unlocked_since.setdefault(key, now) >= ORPHANED_AFTER:
                yield from self._apply_completion(self._completion(key, requeued=True))

    def _completion(self, key: str, *, failed: bool = False, requeued: bool = False) -> MachineEnded:
        return MachineEnded(key=key, attempt=self._placed[key].attempt, failed=failed, requeued=requeued)

    def sleep(self) -> Steps[None]:
        """Sleep until the next tick or signal."""
        timer = self._context.create_timer(max(self._wake_at() - utc_now(self._context), timedelta(seconds=0.1)))
        yield task.when_any([timer, self._cancel, self._control])
        timer.cancel()

    def _wake_at(self) -> datetime:
        """The next tick, the end of a lane's bake time, or the close of the window."""
        now = utc_now(self._context)
        longest = timedelta(seconds=self._wait_seconds) if self._admission.running else MAX_IDLE_SLEEP
        pause = timedelta(seconds=self._wait_seconds / TICKS_PER_POLL) * 2 ** min(self._idle_ticks, 16)
        closes_at = self._phase.closes_at
        closing = [closes_at + timedelta(seconds=1)] if closes_at is not None and closes_at >= now else []
        return min([now + min(pause, longest), *self._lane_bake_until.values(), *closing])

    def _apply_controls(self, controls: RunControls) -> None:
        is_canceled = controls.is_canceled or self._controls.is_canceled
        if controls.resume_count > self._controls.resume_count:
            # A user has reviewed the failures and resumed the run.
            self._ledger.forgive()
        self._controls = controls.model_copy(update={"is_canceled": is_canceled})
        self._hold()

    def _hold(self) -> None:
        """Set the current holds, and release all others."""
        holds = {lane_scope(lane): "bake time" for lane in self._lane_bake_until}
        holds |= {self._group(scope): "error budget" for scope in self._controls.blocked_scopes}
        if self._controls.is_paused:
            holds[RUN_GROUP] = "paused"
        for scope in sorted(self._admission.holds.keys() - holds.keys()):
            self._admission.release(scope)
        for scope, why in holds.items():
            self._admission.hold(scope, why)

    def _group(self, scope: str) -> str:
        """The admission scope in this phase for a held scope: one lane, or the whole phase.

        A held wave also holds later waves of its lane, because most of its machines have started when it is evaluated.
        A scope outside of this phase contains it or comes before it.
        """
        kind, _, name = scope.partition(":")
        lane = name.rpartition("/")[0] if kind == "wave" else name
        is_here = kind in ("lane", "wave") and lane in {f"{self._phase.ring}/{each}" for each in self._phase.lanes}
        return lane_scope(lane) if is_here else RUN_GROUP

    # --- completions

    def _apply_completion(self, ended: MachineEnded) -> Steps[None]:
        """Apply a completion: release permits, count a failure, and start the bake time of a finished wave."""
        machine = self._placed.get(ended.key)
        if machine is None or machine.attempt != ended.attempt:
            # Completions may repeat, and one of an earlier attempt does not count.
            return
        result = self._admission.end(ended.key, counts=not ended.requeued)
        if not result.was_running:
            return
        self._has_changed = True
        del self._placed[ended.key]
        self._unlocked_since.pop(ended.key, None)
        if ended.requeued:
            if machine.attempt - self._phase.first_attempt + 1 < MAX_ATTEMPTS:
                self._last_attempt = max(self._last_attempt, machine.attempt + 1)
                self._add([machine.model_copy(update={"attempt": machine.attempt + 1})])
            else:
                self._has_skipped_machines = True
            return
        if ended.failed:
            yield from self._count_failure(machine)
        if result.wave_is_over and self._phase.wave_bake_seconds and not self._is_stopped:
            self._rest(self._lane(machine))

    def _count_failure(self, machine: PlacedMachine) -> Steps[None]:
        lane = self._lane(machine)
        wave = f"wave:{lane}/{machine.wave}"
        scopes = {"wave": wave, "lane": f"lane:{lane}", "ring": f"ring:{self._phase.ring}", "run": RUN_GROUP}
        self._ledger.sizes = {**self._ledger.sizes, wave: machine.wave_size}
        for level, scope in self._ledger.count(scopes).items():
            if scope in self._controls.blocked_scopes or self._controls.stop_reason:
                continue
            gate = ErrorBudgetExceeded(
                run_id=self._phase.run_id,
                scope=scope,
                failures=self._ledger.failures[scope],
                limit=self._ledger.limit(level, scope) or 0,
                ends_run=self._phase.error_budget.on_exceeded is OnExceeded.END,
            )
            self._apply_controls((yield from call(self._context, contracts.TRIP_ERROR_BUDGET, gate)))
            if self._phase.announces:
                facts = events.ErrorBudgetNotice(
                    scope=scope,
                    failures=gate.failures,
                    limit=gate.limit,
                    on_exceeded=self._phase.error_budget.on_exceeded.value,
                )
                announce(self._context, self._phase.run_id, facts, self._gate_number)

    @property
    def _gate_number(self) -> int:
        """Number of a gate within the run: the resume count, and the scopes blocked since."""
        return self._controls.resume_count * 1_000 + len(self._controls.blocked_scopes)

    def _rest(self, lane: str) -> None:
        """Hold a lane for the bake time between two waves."""
        self._lane_bake_until[lane] = utc_now(self._context) + timedelta(seconds=self._phase.wave_bake_seconds or 0)
        self._hold()

    def _lane(self, machine: PlacedMachine) -> str:
        return f"{self._phase.ring}/{machine.lane}"


def _candidate(machine: PlacedMachine, phase: Phase) -> Candidate:
    if phase.step is Step.ASSESS:
        # An assessment changes nothing on a machine: only their number is limited.
        return Candidate(machine.key, permits=_permits((), phase.max_concurrent))
    return Candidate(machine.key, f"{phase.ring}/{machine.lane}", machine.wave, _permits(tuple(machine.permits)))


@lru_cache(maxsize=4_096)
def _permits(texts: tuple[str, ...], limit: int = MAX_RUNNING) -> tuple[Permit, ...]:
    """Permits of the plan, limited to what one message carries. Cached: most are shared."""
    permits = [Permit.parse(text) for text in texts]
    limits = [permit.capacity for permit in permits if permit.group == RUN_GROUP and permit.capacity]
    own = [permit for permit in permits if permit.group != RUN_GROUP]
    return (*own, Permit(RUN_GROUP, min([limit, MAX_RUNNING, *limits])))


def _kept(counts: Counter[str], live_waves: set[str]) -> dict[str, int]:
    """Drop the counts of waves that have ended."""
    return {scope: n for scope, n in counts.items() if not scope.startswith("wave:") or scope in live_waves}
