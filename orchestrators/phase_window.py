"""The window of a phase: machines that wait or are in progress, and what keeps the waiting ones from starting.

All lanes of a phase share one window, so that limits across regions hold exactly. `patchwave.domain.planning.admission`
decides which machines may start; the planner uses the same code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache

from orchestrators.runtime import Context, receive, utc_now
from patchwave.domain.planning.admission import RUN_GROUP, Admission, Candidate, Permit, lane_scope, wave_scope
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.planning.plan_windows import window_group, zone_of_permits
from patchwave.domain.policy.gates import wave_barrier_enabled
from patchwave.domain.runs.error_budget import BudgetLedger
from patchwave.domain.runs.run import RunControls, Step
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.phase import Phase, PhaseEnd

MAX_RUNNING = 5_500
"""Max machines in progress. Together with the waiting ones they travel in one message of 256 KiB."""


class Window:
    """What the starter and the reconciler share. Replay rebuilds all of it; ``phase`` is carried over."""

    def __init__(self, context: Context, phase: Phase) -> None:
        self._context = context
        self.phase = phase
        self.machines = {machine.key: machine for machine in (*phase.running, *phase.waiting)}
        self.admission = Admission(
            ramp=phase.ramp,
            ended=phase.ended,
            wave_barrier=wave_barrier_enabled(phase.error_budget, phase.wave_bake_seconds),
        )
        self.admission.resume(_candidate(machine, phase) for machine in phase.running)
        self.admission.add(_candidate(machine, phase) for machine in phase.waiting)
        sizes = {f"lane:{phase.ring}/{lane}": machines for lane, machines in phase.lanes.items()}
        self.ledger = BudgetLedger(
            phase.error_budget,
            sizes | {f"ring:{phase.ring}": phase.ring_machines, RUN_GROUP: phase.machines},
            Counter(phase.failures),
            Counter(phase.forgiven),
        )
        self.controls = RunControls(resume_count=phase.resume_count)
        self.has_changed = False
        """A machine has started or ended on this tick."""
        self.cancel = receive(context, Signal.CANCEL)
        self.control = receive(context, Signal.CONTROL)

    @property
    def is_stopped(self) -> bool:
        """Nothing starts any more: cancelled, stopped by a gate, or too late in the window."""
        closes_at = self.phase.closes_at
        is_closed = closes_at is not None and utc_now(self._context) > closes_at
        return self.controls.is_canceled or bool(self.controls.stop_reason) or is_closed

    @property
    def is_done(self) -> bool:
        """No machine is in progress, and none will start."""
        nothing_to_start = self.is_stopped or (self.phase.has_all_pages and not self.admission.waiting)
        return nothing_to_start and not self.admission.running

    @property
    def has_signal(self) -> bool:
        """A command has come since the last poll: it is read before anything starts."""
        return self.cancel.is_complete or self.control.is_complete

    @property
    def idle_ticks(self) -> int:
        """Ticks in a row in which no machine ended or started, this one included."""
        return 0 if self.has_changed else self.phase.idle_ticks + 1

    @property
    def running(self) -> list[PlacedMachine]:
        """Machines in progress."""
        return [self.machines[each.key] for each in self.admission.running]

    def add(self, machines: Iterable[PlacedMachine]) -> None:
        """Let machines wait; known ones are passed over."""
        new = [machine for machine in machines if machine.key not in self.machines and not self._is_late(machine)]
        self.machines |= {machine.key: machine for machine in new}
        self.admission.add(_candidate(machine, self.phase) for machine in new)

    def lane(self, machine: PlacedMachine) -> str:
        """The machine's lane, by ring and region."""
        return f"{self.phase.ring}/{machine.lane}"

    def wave(self, machine: PlacedMachine) -> str:
        """The scope of the machine's wave."""
        return wave_scope(self.lane(machine), machine.wave)

    # --- windows by the clocks of machines

    @property
    def next_opening(self) -> tuple[datetime, str] | None:
        """When the next window opens, and in which zone, if every machine that waits has to wait for its window.

        ``None`` while one is in progress or may start, and where machines do not have windows of their own.
        """
        if not self.phase.windows or self.admission.running or not self.admission.waiting:
            return None
        now = utc_now(self._context)
        opens = {zone: window.opens_at for zone, window in self.phase.windows.items() if now < window.opens_at}
        waiting = {zone_of_permits(self.machines[each.key].permits) for each in self.admission.waiting}
        return min((opens[zone], zone) for zone in waiting) if waiting <= opens.keys() else None

    def drop_late(self) -> None:
        """Leave machines whose own window has closed to a later pass, so that they keep no others waiting."""
        for each in self.admission.waiting if self.phase.windows else ():
            if self._is_late(self.machines[each.key]):
                self.admission.remove(each.key)
                del self.machines[each.key]

    def _is_late(self, machine: PlacedMachine) -> bool:
        if not self.phase.windows:
            return False
        window = self.phase.windows.get(zone_of_permits(machine.permits))
        is_late = window is not None and utc_now(self._context) > window.closes_at
        self.phase.has_skipped_machines = self.phase.has_skipped_machines or is_late
        return is_late

    # --- what holds machines back

    def apply_controls(self, controls: RunControls) -> None:
        """Take what users and gates have said; a cancel stays."""
        is_canceled = controls.is_canceled or self.controls.is_canceled
        if controls.resume_count > self.controls.resume_count:
            # A user has reviewed the failures and resumed the run.
            self.ledger.forgive()
        self.controls = controls.model_copy(update={"is_canceled": is_canceled})
        self.set_holds()

    def rest(self, lane: str) -> None:
        """Hold a lane for the bake time between two waves."""
        bake = timedelta(seconds=self.phase.wave_bake_seconds or 0)
        self.phase.lane_bake_until[lane] = utc_now(self._context) + bake
        self.set_holds()

    def end_rests(self) -> None:
        """Release the lanes whose bake time is over."""
        now, resting = utc_now(self._context), self.phase.lane_bake_until
        self.phase.lane_bake_until = {lane: until for lane, until in resting.items() if now < until}
        self.set_holds()

    def set_holds(self) -> None:
        """Set the current holds, and release all others."""
        holds = {lane_scope(lane): "bake time" for lane in self.phase.lane_bake_until}
        now = utc_now(self._context)
        holds |= {window_group(zone): "window" for zone, window in self.phase.windows.items() if now < window.opens_at}
        holds |= {self._group(scope): "error budget" for scope in self.controls.blocked_scopes}
        if self.controls.is_paused:
            holds[RUN_GROUP] = "paused"
        for scope in sorted(self.admission.holds.keys() - holds.keys()):
            self.admission.release(scope)
        for scope, why in holds.items():
            self.admission.hold(scope, why)

    def _group(self, scope: str) -> str:
        """The admission scope in this phase for a held scope: one lane, or the whole phase.

        A held wave also holds later waves of its lane, because most of its machines have started when it is evaluated.
        A scope outside of this phase contains it or comes before it.
        """
        kind, _, name = scope.partition(":")
        lane = name.rpartition("/")[0] if kind == "wave" else name
        is_here = kind in ("lane", "wave") and lane in {f"{self.phase.ring}/{each}" for each in self.phase.lanes}
        return lane_scope(lane) if is_here else RUN_GROUP

    # --- the end of a tick

    def end(self) -> PhaseEnd:
        """The result. Failures of an unfinished wave still count in its next window."""
        phase = self.phase
        has_remaining = phase.has_skipped_machines or bool(self.admission.waiting) or not phase.has_all_pages
        return PhaseEnd(
            started=phase.started,
            ended=self.admission.ended,
            failures=dict(self.ledger.failures) if has_remaining else _kept(self.ledger.failures, set()),
            forgiven=dict(self.ledger.forgiven) if has_remaining else _kept(self.ledger.forgiven, set()),
            resume_count=self.controls.resume_count,
            has_remaining=has_remaining,
            last_attempt=phase.last_attempt,
            stop_reason=self.controls.stop_reason,
        )

    def state(self) -> Phase:
        """The input of the next execution."""
        live_waves = {self.wave(each) for each in self.machines.values()}
        return self.phase.model_copy(
            update={
                "failures": _kept(self.ledger.failures, live_waves),
                "forgiven": _kept(self.ledger.forgiven, live_waves),
                "ended": self.admission.ended,
                "resume_count": self.controls.resume_count,
                "waiting": [self.machines[each.key] for each in self.admission.waiting],
                "running": self.running,
                "resume_running": False,
                "idle_ticks": self.idle_ticks,
            }
        )


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
