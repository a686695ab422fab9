"""The starter of a phase: which machines start now, and the cancel of those in progress."""

from __future__ import annotations

from orchestrators.phase_window import Window
from orchestrators.runtime import Context, Steps, call, send, start
from patchwave.domain.planning.admission import RUN_GROUP
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.runs.run import Step
from patchwave.domain.workflow import contracts, instance_ids
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.machine import MachineWork
from patchwave.domain.workflow.phase import PendingMachinesRequest

PAGE = 250
"""Machines fetched per page."""
STARTS_IN_A_LANE = 100
"""Max machines started per lane and tick: about twice Azure's rate per region, without congesting its reads."""
STARTS_OF_ASSESSMENTS = 160
"""Max assessments started per tick."""
MAX_STARTS = 200
"""Max machines started per tick, which travel in one message."""
MAX_WAITING = 700
"""Max fetched machines that wait."""
MAX_FREE_WAITING = 200
"""Max fetched machines that no gate blocks: bounds the lookahead past those that a constraint blocks."""
MAX_CANCELS_PER_TICK = 500
"""Machines that receive the cancel per tick: each is a separate message."""


class Starter:
    """Fetches machines into the window, and starts their orchestrations while limits allow it."""

    def __init__(self, context: Context, window: Window) -> None:
        self._context = context
        self._window = window
        self._phase = window.phase

    def resume_running(self) -> None:
        """Start orchestrations for machines in progress whose previous ones are gone: once, before any other start."""
        if self._phase.resume_running:
            for machine in self._phase.running:
                self._start(machine)

    def forward_cancel(self) -> None:
        """Forward the cancel to machines in progress, some per tick, which ends their waits.

        Nothing starts any more, so their number only falls. Counting from the end therefore omits none.
        """
        if not self._window.controls.is_canceled:
            return
        running, pending = self._window.running, self._phase.cancels_pending
        pending = len(running) if pending is None else min(pending, len(running))
        signalled = running[len(running) - pending :][:MAX_CANCELS_PER_TICK]
        for machine in signalled:
            send(self._context, self._instance(machine), Signal.CANCEL)
        self._phase.cancels_pending = pending - len(signalled)

    def admit_machines(self) -> Steps[None]:
        """Start machines while limits allow it, and fetch more as needed."""
        lanes = len(self._phase.lanes)
        room = STARTS_OF_ASSESSMENTS if self._phase.step is Step.ASSESS else min(STARTS_IN_A_LANE * lanes, MAX_STARTS)
        while not (self._window.is_stopped or self._window.has_signal):
            started = self._window.admission.start(room)
            for each in started:
                self._start(self._window.machines[each.key])
            room -= len(started)
            # A constraint blocks every waiting machine. A later machine of the plan may still be free to start.
            if room == 0 or self._phase.has_all_pages or self._is_full:
                return
            yield from self._fetch()

    def fetch_remaining(self) -> Steps[None]:
        """Fetch until a remaining machine is found: without one, no further window is needed."""
        while not self._phase.has_all_pages and not self._window.admission.waiting:
            yield from self._fetch()

    @property
    def _is_full(self) -> bool:
        """No later machine of the plan could start either, or enough machines wait to find one among them."""
        held_by = self._window.admission.held_by()
        free = sum(scope not in self._window.admission.holds for scope in held_by.values())
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
        self._phase.started += 1
        self._window.has_changed = True

    def _instance(self, machine: PlacedMachine) -> str:
        return instance_ids.machine(self._phase.run_id, self._phase.step.value, machine.key, machine.attempt)

    def _fetch(self) -> Steps[None]:
        request = PendingMachinesRequest(
            run_id=self._phase.run_id,
            step=self._phase.step,
            ring_number=self._phase.ring_number,
            phase_number=self._phase.phase_number,
            first_attempt=self._phase.first_attempt,
            cursor=self._phase.cursor,
            limit=PAGE,
        )
        page = yield from call(self._context, contracts.LIST_PENDING_MACHINES, request)
        self._window.add(page.machines)
        self._phase.cursor, self._phase.has_all_pages = page.cursor, page.cursor is None
