"""patch_phase: a sliding window over the machines of a phase, which start as soon as their constraints allow it."""

from __future__ import annotations

from datetime import datetime, timedelta

from durabletask import task

from orchestrators.phase_reconciler import Reconciler
from orchestrators.phase_starter import Starter
from orchestrators.phase_window import Window
from orchestrators.runtime import MAX_TIMER, Context, Steps, call, continue_as_new, implements, timer_until, utc_now
from patchwave.domain.calendar.local_window import opening_in_words
from patchwave.domain.runs.run import RunState
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.phase import Phase, PhaseEnd
from patchwave.domain.workflow.run import HeartbeatRequest, SetRunState

TICKS_PER_POLL = 3
"""Ticks per poll interval in an active phase; idle ticks grow longer."""
MAX_IDLE_SLEEP = timedelta(minutes=10)
"""Longest sleep when no machine is in progress."""


@implements(contracts.PATCH_PHASE)
def patch_phase(context: Context, phase: Phase) -> Steps[PhaseEnd | None]:
    """Take every machine of the phase through one step, within its limits.

    One execution is one tick: read completions and controls, start machines, sleep, continue as new. A signal only
    ends the sleep, so none can be lost. Each history has a handful of events, so the cost of a replay does not grow.
    """
    window = Window(context, phase)
    reconciler, starter = Reconciler(context, window), Starter(context, window)
    # Completions first: they free the permits that the starts below use.
    poll_interval = yield from reconciler.poll()
    yield from reconciler.reconcile()
    window.drop_late()
    # Machines of the previous generation of the run come before any new one.
    starter.resume_running()
    starter.forward_cancel()
    yield from starter.admit_machines()
    # Done when no machine is in progress and none may start; remaining ones need another window.
    if window.is_done:
        yield from starter.fetch_remaining()
        return window.end()
    opening = window.next_opening
    if opening is None:
        yield from _sleep(context, window, poll_interval)
    else:
        yield from _await_opening(context, window, *opening)
    # Kept signals wake the next execution at once.
    continue_as_new(context, contracts.PATCH_PHASE, window.state(), keep_signals=True)
    return None


def _sleep(context: Context, window: Window, poll_interval: timedelta) -> Steps[None]:
    """Sleep until the next tick or signal."""
    wake_at = _wake_at(utc_now(context), window, poll_interval)
    timer = context.create_timer(max(wake_at - utc_now(context), timedelta(seconds=0.1)))
    yield task.when_any([timer, window.cancel, window.control])
    timer.cancel()


def _await_opening(context: Context, window: Window, opens_at: datetime, zone: str) -> Steps[None]:
    """Sleep until the next window opens by the clocks of machines, a day at most, or until a signal."""
    run_id = window.phase.run_id
    waiting_for = opening_in_words(zone, opens_at)
    shown = SetRunState(run_id=run_id, state=RunState.AWAITING_WINDOW, waiting_for=waiting_for)
    yield from call(context, contracts.SET_RUN_STATE, shown)
    until = min(opens_at, utc_now(context) + MAX_TIMER)
    yield from call(context, contracts.EXTEND_HEARTBEAT, HeartbeatRequest(run_id=run_id, until=until))
    timer = timer_until(context, opens_at)
    yield task.when_any([timer, window.cancel, window.control])
    timer.cancel()
    yield from call(context, contracts.SET_RUN_STATE, SetRunState(run_id=run_id, state=RunState.RUNNING))


def _wake_at(now: datetime, window: Window, poll_interval: timedelta) -> datetime:
    """The next tick, the end of a lane's bake time, the opening of a window, or the close of the last one."""
    longest = poll_interval if window.admission.running else MAX_IDLE_SLEEP
    pause = poll_interval / TICKS_PER_POLL * 2 ** min(window.idle_ticks, 16)
    closes_at = window.phase.closes_at
    closing = [closes_at + timedelta(seconds=1)] if closes_at is not None and closes_at >= now else []
    opening = [each.opens_at for each in window.phase.windows.values() if now < each.opens_at]
    return min([now + min(pause, longest), *window.phase.lane_bake_until.values(), *opening, *closing])
