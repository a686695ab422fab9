"""Health checks before and after the installation, and whether the run may go on with the machine."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from time import monotonic
from typing import NamedTuple

from activities.context import MachineContext, load_machine, now, renew_lease, seconds_of, wait_seconds
from activities.window import is_behind_window
from patchwave.domain.azure.errors import ArmFailure, ErrorClass, classify, is_throttling
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.machine.alerts import alerts_unknown, evaluate_alerts
from patchwave.domain.machine.health import (
    HealthRequest,
    HealthResult,
    HealthState,
    Moment,
    evaluate_change,
    is_settled,
    next_look,
    read_signals,
    summarize,
)
from patchwave.domain.machine.http_probe import evaluate_probe
from patchwave.domain.machine.resource_health import evaluate_availability
from patchwave.domain.policy.health import AlertVeto, Health
from patchwave.domain.runs.machine_record import HealthSummary, Signal, SignalState
from patchwave.settings import Settings
from patchwave.wiring import Services

_ANSWERED_POLLS = 4
_MAX_ANSWERED = 4_000
"""Results of some sources are cached while another source asks to wait: for this many poll intervals longer than that
wait, and for this many machines."""
SOURCE_TIMEOUT = timedelta(minutes=5)
"""How long an unavailable source is read again before an installation. Throttling is waited out until the window
closes."""


_MAX_THROTTLING = timedelta(days=1)
"""How long a machine of a run without a window waits while Azure Monitor throttles."""
_GROWTH = 0.2
_MAX_PAUSE = 300.0
"""Seconds between two reads at most. Waits grow up to it, so that histories stay short."""


class _Look(NamedTuple):
    """The result of one source; ``asked_to_wait``: seconds until it may be read again.

    ``is_throttled``: it has no signals, because Azure throttles the requests.
    """

    signals: dict[str, Signal]
    asked_to_wait: float = 0
    is_throttled: bool = False

    @classmethod
    def unread(cls, name: str, signal: Signal, failure: ArmFailure) -> _Look:
        """The result of a source that could not be read."""
        return cls({name: signal}, failure.retry_after or 0, is_throttling(failure))


class _Looks(NamedTuple):
    """The results of all sources; ``is_throttled``: a throttled source may still change the summary."""

    summary: HealthSummary
    asked_to_wait: float
    is_throttled: bool


async def check_health(services: Services, request: HealthRequest) -> HealthResult:
    """Read all health signals of the machine, store them, and evaluate them."""
    context = await load_machine(services, request.run_id, request.machine_key)
    health = context.policy.health
    if request.moment is Moment.BEFORE and _is_canceled(context):
        # Nothing will be installed: the next step ends the machine.
        return HealthResult(state=HealthState.OK)
    result: HealthResult | None = None
    if request.moment is Moment.BEFORE and health.alerts is not None:
        result = await _ask_alerts(context, health.alerts, request.looked_for)
    if result is None and health.enabled:
        judge = _before if request.moment is Moment.BEFORE else _after
        result = await judge(context, health, request.looked_for)
    return result or HealthResult(state=HealthState.OK)


async def _before(context: MachineContext, health: Health, looked_for: float) -> HealthResult:
    """Store the health before the installation. An unhealthy machine is installed all the same."""
    summary, asked_to_wait, is_throttled = await _look(context, health, Moment.BEFORE, looked_for)
    if (
        is_throttled
        and summary.healthy is None
        and not (_is_canceled(context) or is_behind_window(context.run, context.machine))
    ):
        return _throttled(context.settings, asked_to_wait)
    timeout = 0.0
    if summary.healthy is None:
        timeout = seconds_of(context.settings, SOURCE_TIMEOUT)
    elif not summary.healthy and context.machine.powered_on_by_run:
        # It has just booted: its service gets the settle time, as after an installation.
        timeout = seconds_of(context.settings, health.settle)
    if looked_for < timeout:
        return _wait(context.settings, looked_for, timeout, asked_to_wait)
    await _store(context, health_before=summary)
    return HealthResult(state=HealthState.OK)


async def _after(context: MachineContext, health: Health, looked_for: float) -> HealthResult:
    """Compare with the health before the installation."""
    await renew_lease(context)
    before = context.machine.health_before
    summary, asked_to_wait, is_throttled = await _look(context, health, Moment.AFTER, looked_for)
    await _store(context, health_after=summary)
    settle = seconds_of(context.settings, health.settle)
    settled = is_settled(before, summary)
    if is_throttled and not settled and summary.healthy is not False and not _is_canceled(context):
        return _throttled(context.settings, asked_to_wait)
    is_early = looked_for < settle and not settled
    if is_early and not _is_canceled(context):
        return _wait(context.settings, looked_for, settle, asked_to_wait)
    outcome = evaluate_change(before, summary)
    if outcome is None:
        return HealthResult(state=HealthState.OK)
    if is_early:
        message = f"{outcome.message} The run was cancelled before the machine had its time to settle."
        outcome = outcome.model_copy(update={"message": message})
    return _end(outcome)


def _is_canceled(context: MachineContext) -> bool:
    """Whether the run was cancelled. Then no machine waits longer."""
    return context.run.cancel_requested_at is not None


async def _look(context: MachineContext, health: Health, moment: Moment, looked_for: float) -> _Looks:
    """Read all sources of the policy in parallel; with the seconds that Azure asks to wait, 0 for none."""
    first_at = None if looked_for else moment
    place = f"{context.run.id}/{context.machine.key}/{moment.value}"
    looks = _take_answered(place)
    sources = {
        "machine": lambda: _look_at_machine(context, first_at),
        "platform": lambda: _look_at_platform(context, health, first_at),
        "probe": lambda: _probe(context, health),
    }
    asked = [name for name in sources if name not in looks]
    looks |= dict(zip(asked, await asyncio.gather(*(sources[name]() for name in asked)), strict=True))
    asked_to_wait = max(look.asked_to_wait for look in looks.values())
    if asked_to_wait:
        answered = {name: look for name, look in looks.items() if not look.asked_to_wait}
        _keep_answered(context.settings, place, answered, asked_to_wait)
    signals = {name: signal for look in looks.values() for name, signal in look.signals.items()}
    is_throttled = any(look.is_throttled for look in looks.values())
    return _Looks(summarize(signals, now()), asked_to_wait, is_throttled)


_answered: dict[str, tuple[float, dict[str, _Look]]] = {}


def _keep_answered(settings: Settings, place: str, looks: dict[str, _Look], asked_to_wait: float) -> None:
    """Cache the results of sources that responded, until the others can be read again.

    With thousands of machines, reading all of them again would use up the rate limits: no summary would be complete.
    """
    if len(_answered) >= _MAX_ANSWERED:
        _answered.pop(next(iter(_answered)))
    _answered[place] = (monotonic() + asked_to_wait + settings.poll_seconds * _ANSWERED_POLLS, looks)


def _take_answered(place: str) -> dict[str, _Look]:
    until, looks = _answered.pop(place, (0.0, dict[str, _Look]()))
    return looks if monotonic() < until else {}


async def _look_at_machine(context: MachineContext, first_at: Moment | None) -> _Look:
    # The first read follows the preflight or the verification, which have cached the same view.
    view = await context.services.resource_manager.read_machine(context.machine_id, kept_for=first_at)
    if isinstance(view, ArmFailure):
        unread = Signal(state=SignalState.UNKNOWN, detail=f"The machine could not be read: {view.clause}.")
        return _Look.unread("power", unread, view)
    return _Look(read_signals(view, now()))


async def _look_at_platform(context: MachineContext, health: Health, first_at: Moment | None) -> _Look:
    if not health.resource_health or context.machine_id.is_arc:
        # Azure has no platform below an Arc machine: the status of its agent is all that is known of it.
        return _Look({})
    if first_at is Moment.BEFORE and await _shows_as_available(context):
        return _Look({"resourceHealth": Signal(state=SignalState.HEALTHY)})
    found = await context.services.resource_health.availability(context.machine_id)
    signal = evaluate_availability(found)
    if isinstance(found, ArmFailure):
        return _Look.unread("resourceHealth", signal, found)
    return _Look({"resourceHealth": signal})


async def _shows_as_available(context: MachineContext) -> bool:
    """Whether the bulk status of the region shows the machine as available. Saves a read per machine in large phases.

    Only used before the installation: the status may be a minute old.
    """
    machine, status = context.machine_id, context.services.bulk_status
    return machine.folded in await status.available(machine.subscription_id, context.machine.location)


async def _probe(context: MachineContext, health: Health) -> _Look:
    if health.probe is None:
        return _Look({})
    answer = await context.services.http_probe.send(health.probe, context.machine)
    return _Look({"probe": evaluate_probe(health.probe, answer)})


async def _ask_alerts(context: MachineContext, veto: AlertVeto, looked_for: float) -> HealthResult | None:
    """The veto of a fired alert, or of alerts that cannot be read; ``None`` when no alert fires."""
    alerts = await context.services.resource_health.fired_alerts(context.machine_id, veto.fired_within)
    if not isinstance(alerts, ArmFailure):
        outcome = evaluate_alerts(alerts, context.machine.id, veto, now())
        return None if outcome is None else _end(outcome)
    if is_throttling(alerts):
        end = context.window_end
        # After the window's end the install step ends the machine.
        may_wait = now() < end if end is not None else looked_for < seconds_of(context.settings, _MAX_THROTTLING)
    else:
        is_passing = classify(alerts).kind is ErrorClass.RETRY_LATER
        may_wait = is_passing and looked_for < seconds_of(context.settings, SOURCE_TIMEOUT)
    if may_wait:
        pause = max(wait_seconds(context.settings, alerts.retry_after), min(looked_for * _GROWTH, _MAX_PAUSE))
        return HealthResult(state=HealthState.WAIT, wait_seconds=pause)
    return _end(alerts_unknown(alerts))


async def _store(context: MachineContext, **columns: HealthSummary) -> None:
    machine = context.machine
    await context.storage.machines.update(context.run.id, machine.key, machine.stage, completion=None, **columns)


def _wait(settings: Settings, looked_for: float, timeout: float, asked_to_wait: float) -> HealthResult:
    # Retry exactly at the reserved time; a late request loses its rate-limit reservation.
    pause = asked_to_wait or next_look(looked_for, wait_seconds(settings), timeout)
    return HealthResult(state=HealthState.WAIT, wait_seconds=pause)


def _throttled(settings: Settings, asked_to_wait: float) -> HealthResult:
    wait = asked_to_wait or wait_seconds(settings)
    return HealthResult(state=HealthState.WAIT, wait_seconds=wait, counts_as_attempt=False)


def _end(outcome: Outcome) -> HealthResult:
    return HealthResult(state=HealthState.UNHEALTHY, outcome=outcome)
