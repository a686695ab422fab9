"""The windows of a run: the latest start of a step, the next window, and active freezes."""

from __future__ import annotations

import logging
from datetime import datetime

from activities.context import MachineContext, load_run, load_run_record, now
from patchwave.domain.calendar.local_window import opening_in_words
from patchwave.domain.core.documents import format_minute
from patchwave.domain.core.outcome import Outcome, Reason
from patchwave.domain.policy.policy import Policy, PolicyError
from patchwave.domain.policy.stored_policies import parse_stored_policy
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, Run, RunState, Step
from patchwave.domain.scheduling.freeze import active_freeze
from patchwave.domain.scheduling.upcoming import WindowWait, next_run_window
from patchwave.domain.scheduling.window import RESTART_NEEDS, last_start
from patchwave.domain.workflow.run import Cutoff, NextWindow, OpenWindow, RunRef, StartHours, StepRef
from patchwave.storage import Storage
from patchwave.wiring import Services

_LOG = logging.getLogger("patchwave.windows")


async def get_start_cutoff(services: Services, request: StepRef) -> Cutoff:
    """The last moment at which a step may begin in the run's window, and in that of each time zone of its plan.

    Based on the machines that need the least time; each start checks its own. Assessments have no cutoff: they change
    nothing on a machine.
    """
    run, policy = await load_run(services.storage, request.run_id)
    if run.window_end is None or request.step is Step.ASSESS:
        return Cutoff()
    systems = policy.scope.systems

    def latest(window_end: datetime) -> datetime:
        is_patch = request.step is Step.PATCH
        return last_start(window_end, policy.install, systems) if is_patch else window_end - RESTART_NEEDS

    planned = await services.storage.plans.get_summary(run.id) if run.local_window is not None else None
    if planned is None or not planned.time_zones:
        return Cutoff(at=latest(run.window_end))
    windows: dict[str, StartHours] = {}
    for zone in planned.time_zones:
        hours = run.window_of(zone)
        if hours is not None:
            windows[zone] = StartHours(opens_at=hours.opens_at, closes_at=latest(hours.closes_at))
    return Cutoff(at=max(each.closes_at for each in windows.values()), windows=windows)


async def find_first_opening(services: Services, request: RunRef) -> NextWindow:
    """When the window of the first of the run's machines opens, by their own clocks; empty when none has one."""
    run = await load_run_record(services.storage, request.run_id)
    zones = {
        machine.time_zone async for machine in services.storage.machines.scan(run.id) if machine.outcome is None
    } - {""}
    if run.local_window is None or not zones:
        return NextWindow()
    opens_at, zone = min((run.local_window.hours(zone).opens_at, zone) for zone in zones)
    if now() < opens_at:
        opening = opening_in_words(zone, opens_at)
        await services.storage.runs.set_state(run.id, RunState.AWAITING_WINDOW, opening)
    return NextWindow(opens_at=opens_at, ends_at=run.window_end, local=run.local_window)


async def find_next_window(services: Services, request: RunRef) -> NextWindow:
    """The window in which the run continues, which may be open; empty when there is none.

    Uses the policy's schedule as stored now, so that changes, pauses, skips and freezes also affect a waiting run. From
    the first call on, the upcoming windows belong to the run, and nothing else is started in them.
    """
    run, followed = await load_run(services.storage, request.run_id)
    policy = await _current_policy(services.storage, run)
    if policy is not None and _is_local(policy) and not _is_local(followed):
        # Its plan does not know the clocks of its machines.
        return NextWindow()
    if policy is None or run.window_end is None or run.state.is_final:
        return NextWindow()
    storage = services.storage
    at = now()
    controls = await storage.overrides.get(run.policy)
    known = controls.window_reservation_of(run.id)
    waiting = WindowWait(since=known.since if known else at, behind=run.window_end)
    window = next_run_window(policy, controls, await storage.freezes.list_all(), waiting, at)
    if window is None:
        return NextWindow()
    await storage.overrides.reserve_window(run.policy, run.id, waiting.since)
    if window.at_utc > at:
        opening = f"the window that opens at {format_minute(window.at_utc)}"
        await storage.runs.set_state(run.id, RunState.AWAITING_WINDOW, opening)
    return NextWindow(opens_at=window.at_utc, ends_at=window.window_end_utc, local=window.local)


async def enter_window(services: Services, request: OpenWindow) -> None:
    """Continue the run in a window that ends later than the previous one."""
    await services.storage.runs.enter_window(request.run_id, request.ends_at, request.local)


def is_behind_window(run: Run, machine: MachineRecord) -> bool:
    """Whether the window of the machine is over, so that no wait may lead to another start.

    An assessment run has no window: it changes nothing.
    """
    hours = run.window_of(machine.time_zone)
    return run.mode is not Mode.ASSESS and hours is not None and now() >= hours.closes_at


async def frozen(context: MachineContext) -> Outcome | None:
    """The outcome of a machine that a freeze blocks now; ``None`` when none does."""
    freezes = await context.storage.freezes.list_all()
    freeze = active_freeze(freezes, context.run.policy, context.machine.tags, now())
    return Outcome.skipped(Reason.FROZEN, f"The machine is {freeze.sentence}") if freeze else None


def _is_local(policy: Policy) -> bool:
    return policy.schedule is not None and policy.schedule.is_local


async def _current_policy(storage: Storage, run: Run) -> Policy | None:
    stored = await storage.policies.get(run.policy)
    if stored is None:
        return None
    try:
        return parse_stored_policy(stored.document, name=stored.name)
    except PolicyError as error:
        # A policy that a newer version of the app would reject has no windows either, as for the timer.
        _LOG.warning("The policy %s is not valid, so run %s has no further window: %s", stored.name, run.id, error)
        return None
