"""The rings of a run's plan: per ring an approval, patch phases, restarts, and a bake time."""

from __future__ import annotations

from datetime import timedelta

from orchestrators.reservations import Reservations
from orchestrators.run_control import EndOfRun, RunControl
from orchestrators.runtime import MAX_TIMER, Steps
from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.outcome import Outcome, Reason
from patchwave.domain.notifications.events import ApprovalNeeded, WindowAwaited
from patchwave.domain.runs.outcome_rules import window_closed
from patchwave.domain.runs.run import RunState, Step
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.phase import Phase, PhaseEnd
from patchwave.domain.workflow.run import (
    Checkpoint,
    OpenWindow,
    PlanSummary,
    RingRef,
    RingSummary,
    RunSettings,
    StopRun,
)

MAX_WINDOWS = 30
"""Windows that one run may use. The next run takes the remaining machines."""
PASSES_PER_GENERATION = 1_000
ATTEMPTS_PER_GENERATION = 300
"""More attempts than one generation makes: up to 9 in each of its windows."""
MAX_CHECKPOINTS = 20
"""Checkpoints that a new generation loads for machines in progress, 500 machines each."""


class Rollout:
    """The steps of one rollout. Every method that yields is part of the orchestrator and is replayed with it."""

    def __init__(
        self, run: RunControl, reservations: Reservations, settings: RunSettings, plan: PlanSummary, generation: int
    ) -> None:
        self._run = run
        self._reservations = reservations
        self._settings = settings
        self._plan = plan
        self._is_late = False
        """The window of a time zone has closed before each of its machines was started."""
        # A generation never reuses the instance ids of an earlier one.
        self._passes = (generation - 1) * PASSES_PER_GENERATION
        self._attempts = (generation - 1) * ATTEMPTS_PER_GENERATION

    def execute(self, checkpoint: Checkpoint) -> Steps[None]:
        """Patch ring after ring, from the checkpoint on.

        Raises:
            EndOfRun: the run ends early.
        """
        self._take_over(checkpoint)
        if checkpoint.is_planned:
            checkpoint = yield from self._resume_running(checkpoint)
        rings = [number for number, ring in enumerate(self._plan.rings) if ring.machines and number >= checkpoint.ring]
        for number in rings:
            ring = self._plan.rings[number]
            yield from self._approve(number, ring)
            if self._settings.pin_rings and number:
                # The pin of the first ring, even if that had no machines; only the first call writes.
                first = RingRef(run_id=self._run.id, ring=self._plan.rings[0].name)
                yield from self._run.call(contracts.PIN_RING, first)
            yield from self._patch_ring(number, ring)
            yield from self._reservations.release()
            if number != rings[-1]:
                yield from self._await_gates()
                yield from self._bake(ring)
        if self._is_late:
            reason = "The windows of some time zones closed before every machine was started."
            raise EndOfRun(RunState.COMPLETED, reason, window_closed())

    # --- resuming

    def _take_over(self, checkpoint: Checkpoint) -> None:
        """Continue from what the previous generation left unfinished; empty for the first one."""
        self._failures, self._forgiven = checkpoint.failures, checkpoint.forgiven
        self._resume_count, self._ramped = checkpoint.resume_count, checkpoint.ended
        self._windows, self._lane_bake_until = checkpoint.windows, checkpoint.lane_bake_until
        self._baking_since = checkpoint.ended_at

    def _resume_running(self, checkpoint: Checkpoint) -> Steps[Checkpoint]:
        """Finish machines that were in progress before the restart. No other machine is started until then.

        They had satisfied the concurrency constraints, so their order does not matter. A cancelled or stopped run
        finishes them too: operations that Azure accepted are followed to their end.
        """
        for _ in range(MAX_CHECKPOINTS):
            if not checkpoint.in_progress:
                break
            self._attempts += 1
            for part in checkpoint.in_progress:
                resumed = {
                    "running": [each.model_copy(update={"attempt": self._attempts}) for each in part.machines],
                    "resume_running": True,
                    "has_all_pages": True,
                    "closes_at": self._run.now - timedelta(seconds=1),
                }
                phase = self._phase(part.ring_number, part.step, part.phase_number)
                end = yield from self._run.follow(phase.model_copy(update=resumed))
                self._failures, self._forgiven = end.failures, end.forgiven
            checkpoint = yield from self._run.call(contracts.LOAD_CHECKPOINT, self._run.ref)
            self._take_over(checkpoint)
        yield from self._run.commands()
        return checkpoint

    # --- a ring

    def _approve(self, ring_number: int, ring: RingSummary) -> Steps[None]:
        """Wait for the approval. A rejection, or no decision in time, ends the run."""
        if ring.approval_seconds is None:
            return
        asked_at = self._run.now
        controls = yield from self._run.commands()
        if ring.name not in controls.decided:
            # The previous generation may have died between two phases: no reservation is kept while a person decides.
            yield from self._reservations.release()
            shown = yield from self._run.show(RunState.AWAITING_APPROVAL, ring.name)
            # The previous generation may have announced a deadline: it stays valid.
            asked_at = shown.since or asked_at
            needed = ApprovalNeeded(ring=ring.name, machines=ring.machines, within_seconds=ring.approval_seconds)
            self._run.announce(needed, ring_number)
        deadline = asked_at + timedelta(seconds=ring.approval_seconds)
        while ring.name not in controls.decided and self._run.now < deadline:
            controls = yield from self._run.wait_until(deadline)
        if not controls.decided.get(ring.name, False):
            said = "was rejected" if ring.name in controls.decided else "was not approved in time"
            reason = f"The ring {ring.name} {said}."
            stop = StopRun(run_id=self._run.id, reason=reason, unless_approved=ring.name)
            stopped = yield from self._run.call(contracts.STOP_RUN, stop)
            # An approval between the last poll and the stop counts.
            if not stopped.decided.get(ring.name, False):
                outcome = Outcome.skipped(Reason.NOT_APPROVED, f"Not started: {reason[0].lower()}{reason[1:]}")
                raise EndOfRun(RunState.STOPPED, reason, outcome)
        yield from self._run.show(RunState.RUNNING)

    def _patch_ring(self, number: int, ring: RingSummary) -> Steps[None]:
        """Patch the ring phase by phase, then restart it the same way if restarts are separate."""
        ramped, self._ramped = self._ramped, 0
        for step in (Step.PATCH, Step.RESTART) if self._settings.options.reboot_apart else (Step.PATCH,):
            for phase_number in range(len(ring.phases)):
                ended = yield from self._run_phase(number, step, phase_number, ramped)
                ramped += ended
                if ended:
                    # The ring's bake time begins in this generation.
                    self._baking_since = None
            ramped = 0

    def _run_phase(self, number: int, step: Step, phase_number: int, ended: int) -> Steps[int]:
        """One phase, over as many windows as it takes; returns how many machines ended."""
        continues = self._settings.options.continues
        attempt, begun_at = self._attempts + 1, ended
        while True:
            hours = yield from self._run.start_hours(step)
            cutoff = hours.at
            # If the window closes meanwhile, the phase starts nothing and reports remaining machines.
            waited_for = yield from self._reservations.reserve(number, phase_number, cutoff)
            own = {"ended": ended, "first_attempt": attempt, "last_attempt": attempt}
            open_hours = {"closes_at": cutoff, "windows": hours.windows}
            phase = self._phase(number, step, phase_number).model_copy(update=own | open_hours)
            end: PhaseEnd = yield from self._run.run_phase(phase)
            self._failures, self._forgiven, self._resume_count = end.failures, end.forgiven, end.resume_count
            if not end.has_remaining:
                return end.ended - begun_at
            # A stopped run ends here with its own reason, not with a closed window.
            yield from self._run.commands()
            if cutoff is None or not (continues or self._run.now > cutoff):
                # The window is still open: a machine was requeued too often, or the window by its own clock has closed.
                # The other machines do not wait for it.
                self._is_late = self._is_late or bool(hours.windows)
                return end.ended - begun_at
            if not continues:
                why = f"while the run waited for {waited_for}" if waited_for else "before every machine was started"
                raise EndOfRun(RunState.COMPLETED, f"The window closed {why}.", window_closed())
            yield from self._reservations.release()
            yield from self._await_next_window()
            attempt, ended = end.last_attempt + 1, end.ended

    def _phase(self, number: int, step: Step, phase_number: int) -> Phase:
        """A phase of the plan, with a unique name."""
        self._passes += 1
        ring, settings = self._plan.rings[number], self._settings
        return Phase(
            run_id=self._run.id,
            name=instance_ids.phase_name(step.value, f"{number}.{phase_number}.{self._passes}"),
            step=step,
            options=settings.options,
            ring=ring.name,
            ring_number=number,
            phase_number=phase_number,
            lanes=ring.phases[phase_number].lanes,
            machines=self._plan.machines,
            ring_machines=ring.machines,
            error_budget=settings.error_budget,
            announces=settings.announces,
            failures=self._failures,
            forgiven=self._forgiven,
            resume_count=self._resume_count,
            ramp=settings.ramp,
            lane_bake_until=self._lane_bake_until,
            wave_bake_seconds=settings.wave_bake_seconds,
        )

    # --- between phases

    def _await_next_window(self) -> Steps[None]:
        """Sleep until the policy's next window opens, and enter it."""
        self._windows += 1
        is_announced = False
        while True:
            window = yield from self._run.call(contracts.FIND_NEXT_WINDOW, self._run.ref)
            if window.opens_at is None or window.ends_at is None or self._windows >= MAX_WINDOWS:
                raise EndOfRun(
                    RunState.COMPLETED, "The policy has no further window for the remaining machines.", window_closed()
                )
            if self._run.now >= window.opens_at:
                break
            if not is_announced:
                self._run.announce(WindowAwaited(opens_at=window.opens_at), self._windows)
                is_announced = True
            # Checked again afterwards: the policy may be paused or frozen meanwhile.
            yield from self._run.wait_until(window.opens_at)
        yield from self._run.call(
            contracts.ENTER_WINDOW, OpenWindow(run_id=self._run.id, ends_at=window.ends_at, local=window.local)
        )

    def _await_gates(self) -> Steps[None]:
        """Wait while a gate blocks a scope, which also blocks later rings, until a resume or the end of the window.

        After the end of the window the next phase starts nothing, and reports that.
        """
        cutoff = yield from self._run.cutoff(Step.PATCH)
        controls = yield from self._run.commands()
        while controls.blocked_scopes and (cutoff is None or self._run.now <= cutoff):
            tomorrow = self._run.now + MAX_TIMER
            until = tomorrow if cutoff is None else min(tomorrow, cutoff + timedelta(seconds=1))
            controls = yield from self._run.wait_until(until)

    def _bake(self, ring: RingSummary) -> Steps[None]:
        """Show the bake time and wait for its end. Only a cancel ends it early."""
        if not ring.bake_seconds:
            return
        since, self._baking_since = self._baking_since or self._run.now, None
        until = since + timedelta(seconds=ring.bake_seconds)
        waiting_for = f"the bake time of the ring {ring.name}, until {format_instant(until)}"
        yield from self._run.show(RunState.RUNNING, waiting_for)
        while self._run.now < until:
            yield from self._run.wait_until(until)
        yield from self._run.show(RunState.RUNNING)
