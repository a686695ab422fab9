"""The reconciler of a phase: which machines have ended, were requeued, or have lost their orchestration."""

from __future__ import annotations

from datetime import timedelta

from orchestrators.notifications import announce
from orchestrators.phase_window import Window
from orchestrators.runtime import Context, Steps, call, utc_now
from patchwave.domain.notifications.events import ErrorBudgetNotice
from patchwave.domain.planning.admission import RUN_GROUP, lane_scope
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.policy.gates import OnExceeded
from patchwave.domain.runs.error_budget import ErrorBudgetExceeded
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.machine import MachineEnded
from patchwave.domain.workflow.phase import PhasePollRequest, ReconcileRequest

RECONCILE_INTERVAL = timedelta(minutes=5)
"""Interval of the comparison of machines in progress with their rows, which finds dead orchestrations."""
RECONCILE_BATCH = 100
"""Machines compared at a time; larger phases take turns."""
ORPHANED_AFTER = timedelta(minutes=30)
"""A machine without a lease for this long has no live orchestration. It is requeued; an operation that Azure accepted
is adopted, never repeated."""
MAX_ATTEMPTS = 9
"""Starts of one machine in one pass. One that is requeued more often is left to the next pass."""


class Reconciler:
    """Brings the window up to date with the rows, which are authoritative."""

    def __init__(self, context: Context, window: Window) -> None:
        self._context = context
        self._window = window
        self._phase = window.phase
        self._phase.reconcile_at = window.phase.reconcile_at or utc_now(context) + RECONCILE_INTERVAL

    def poll(self) -> Steps[timedelta]:
        """Read completions and controls; returns the poll interval."""
        request = PhasePollRequest(run_id=self._phase.run_id, phase=self._phase.name, since=self._phase.since)
        seen = yield from call(self._context, contracts.POLL_PHASE, request)
        self._phase.since = seen.since
        self._window.apply_controls(seen.controls)
        for ended in seen.ended:
            yield from self._apply(ended)
        self._window.end_rests()
        return timedelta(seconds=seen.wait_seconds)

    def reconcile(self) -> Steps[None]:
        """Compare machines in progress with their rows, when it is due."""
        phase, now = self._phase, utc_now(self._context)
        if phase.reconcile_at is not None and now < phase.reconcile_at:
            return
        phase.reconcile_at = now + RECONCILE_INTERVAL
        running = [machine.key for machine in self._window.admission.running]
        keys = running[phase.reconcile_offset : phase.reconcile_offset + RECONCILE_BATCH]
        compared = phase.reconcile_offset + len(keys)
        phase.reconcile_offset = compared if compared < len(running) else 0
        if not keys:
            return
        request = ReconcileRequest(run_id=phase.run_id, step=phase.step, keys=keys)
        found = yield from call(self._context, contracts.RECONCILE_MACHINES, request)
        for key in keys:
            completion = MachineEnded(key=key, attempt=self._window.machines[key].attempt, failed=key in found.failed)
            if key not in found.keys:
                yield from self._apply(completion)
            elif key not in found.unlocked:
                phase.unlocked_since.pop(key, None)
            elif now - phase.unlocked_since.setdefault(key, now) >= ORPHANED_AFTER:
                yield from self._apply(completion.model_copy(update={"requeued": True}))

    def _apply(self, ended: MachineEnded) -> Steps[None]:
        """Apply a completion: release permits, count a failure, and start the bake time of a finished wave."""
        machine = self._window.machines.get(ended.key)
        if machine is None or machine.attempt != ended.attempt:
            # Completions may repeat, and one of an earlier attempt does not count.
            return
        result = self._window.admission.end(ended.key, counts=not ended.requeued)
        if not result.was_running:
            return
        self._window.has_changed = True
        del self._window.machines[ended.key]
        self._phase.unlocked_since.pop(ended.key, None)
        if ended.requeued:
            self._requeue(machine)
            return
        if ended.failed:
            yield from self._count_failure(machine)
        if result.wave_is_over and self._phase.wave_bake_seconds and not self._window.is_stopped:
            self._window.rest(self._window.lane(machine))

    def _requeue(self, machine: PlacedMachine) -> None:
        attempt = machine.attempt + 1
        if attempt - self._phase.first_attempt < MAX_ATTEMPTS:
            self._phase.last_attempt = max(self._phase.last_attempt, attempt)
            self._window.add([machine.model_copy(update={"attempt": attempt})])
        else:
            self._phase.has_skipped_machines = True

    def _count_failure(self, machine: PlacedMachine) -> Steps[None]:
        """Count a failure into its scopes, and close the gates of those whose budget it used up."""
        phase, ledger = self._phase, self._window.ledger
        wave, lane = self._window.wave(machine), lane_scope(self._window.lane(machine))
        ledger.sizes = {**ledger.sizes, wave: machine.wave_size}
        exceeded = ledger.count({"wave": wave, "lane": lane, "ring": f"ring:{phase.ring}", "run": RUN_GROUP})
        for level, scope in exceeded.items():
            controls = self._window.controls
            if scope in controls.blocked_scopes or controls.stop_reason:
                continue
            gate = ErrorBudgetExceeded(
                run_id=phase.run_id,
                scope=scope,
                failures=ledger.failures[scope],
                limit=ledger.limit(level, scope) or 0,
                ends_run=phase.error_budget.on_exceeded is OnExceeded.END,
            )
            self._window.apply_controls((yield from call(self._context, contracts.TRIP_ERROR_BUDGET, gate)))
            if phase.announces:
                facts = ErrorBudgetNotice(
                    scope=scope,
                    failures=gate.failures,
                    limit=gate.limit,
                    on_exceeded=phase.error_budget.on_exceeded.value,
                )
                # The number of the gate within the run: the resume count, and the scopes blocked since.
                controls = self._window.controls
                number = controls.resume_count * 1_000 + len(controls.blocked_scopes)
                announce(self._context, phase.run_id, facts, number)
