"""How healthy a machine is, before and after it is patched, and what the difference means.

Several signs are read: the power state, the VM agent, the Application Health extension, Azure Resource Health, and an
HTTP probe of the policy's. One that says "unhealthy" makes the machine unhealthy; one that cannot be told says nothing.
Only the change counts: a machine that was unhealthy before is patched, and cannot fail the gate any more.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from patchwave.domain.azure.hybrid_machine import HybridMachineView
from patchwave.domain.azure.instance_view import MachineView, Power
from patchwave.domain.core.attempt import Attempt
from patchwave.domain.core.documents import Document
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.runs.machine_record import HealthSummary, Signal, SignalState

AGENT_SILENCE = timedelta(minutes=15)
"""The time of an agent's status moves with each report, every few minutes (WALinuxAgent's end-to-end tests rely on
that); one that has not reported for so long is not believed, whatever its last word was."""
_MAX_TEXT = 1_500
_GROWTH = 0.2
_MIN_PAUSE = 0.05


# --- messages -----------------------------------------------------------------------------------------------


class Moment(StrEnum):
    """When health is checked: before the run changes anything on the machine, or after it has."""

    BEFORE = "before"
    AFTER = "after"


class HealthRequest(Document):
    """Check the health of a machine. ``looked_for``: seconds since its first check at this moment."""

    run_id: str
    machine_key: str
    moment: Moment
    looked_for: float = 0


class HealthState(StrEnum):
    """What the check means for the run."""

    OK = "ok"
    """Go on."""
    WAIT = "wait"
    """It may still settle: ask again after ``wait_seconds``."""
    UNHEALTHY = "unhealthy"
    """The machine ends with ``outcome``."""


class HealthResult(Attempt):
    """The answer to ``HealthRequest``; with an ``outcome`` exactly when the state is ``unhealthy``."""

    state: HealthState
    outcome: Outcome | None = None


# --- judgement ----------------------------------------------------------------------------------------------


def read_signals(view: MachineView, now: datetime) -> dict[str, Signal]:
    """What the machine's own document says: power, agent, and the Application Health extension.

    Of an Arc machine it is the agent alone.
    """
    if isinstance(view, HybridMachineView):
        return {"agent": _arc_agent(view)}
    return {"power": _power(view), "agent": _agent(view, now), "vmHealth": _vm_health(view)}


def summarize(signals: Mapping[str, Signal], at: datetime) -> HealthSummary:
    """All signs together: unhealthy when one says so, healthy when one says so and none contradicts."""
    states = {signal.state for signal in signals.values()}
    healthy: bool | None = None
    if SignalState.UNHEALTHY in states:
        healthy = False
    elif SignalState.HEALTHY in states:
        healthy = True
    decisive = SignalState.UNHEALTHY if healthy is False else SignalState.UNKNOWN
    details = [signal.detail for signal in signals.values() if signal.state is decisive]
    return HealthSummary(healthy=healthy, signals=dict(signals), reason=" ".join(details)[:_MAX_TEXT], at=at)


def evaluate_change(before: HealthSummary | None, after: HealthSummary) -> Outcome | None:
    """The outcome of a machine that became unhealthy; ``None`` when the run may go on.

    When its health before is not known, an unhealthy machine counts as changed: the gate closes when in doubt.
    """
    if after.healthy is not False or (before is not None and before.healthy is False):
        return None
    was = "was healthy before" if before is not None and before.healthy else "was in an unknown state before"
    return Outcome.of(
        OutcomeKind.FAILED,
        Reason.UNHEALTHY,
        f"The machine {was} the installation and is unhealthy after it. {after.reason}",
    )


def is_settled(before: HealthSummary | None, after: HealthSummary) -> bool:
    """Whether another check could not improve what `evaluate_change` says, or tell more."""
    if evaluate_change(before, after) is not None:
        return False
    if before is None or after.healthy is False:
        return True
    lost = [
        name
        for name, signal in before.signals.items()
        if signal.state is SignalState.HEALTHY and _state_of(after, name) is SignalState.UNKNOWN
    ]
    return not lost


def next_look(looked_for: float, shortest: float, timeout: float) -> float:
    """Seconds until the next check: ever longer, so that histories stay short. The last is at the end.

    Args:
        looked_for: seconds since the first check.
        shortest: seconds between the first two checks.
        timeout: seconds after which checks end.
    """
    left = timeout - looked_for
    return round(max(min(max(shortest, looked_for * _GROWTH), left), _MIN_PAUSE), 3)


def _state_of(summary: HealthSummary, name: str) -> SignalState:
    signal = summary.signals.get(name)
    return SignalState.UNKNOWN if signal is None else signal.state


def _power(view: MachineView) -> Signal:
    match view.power:
        case Power.RUNNING:
            return Signal(state=SignalState.HEALTHY)
        case Power.UNKNOWN:
            return Signal(state=SignalState.UNKNOWN, detail="Azure does not tell the power state.")
        case power:
            return Signal(state=SignalState.UNHEALTHY, detail=f"The power state is {power.value}.")


def _agent(view: MachineView, now: datetime) -> Signal:
    if not view.is_agent_ready:
        said = view.agent_message.rstrip(".")
        return Signal(
            state=SignalState.UNHEALTHY, detail=f"The VM agent is not ready{f': {said}' if said else ' or missing'}."
        )
    seen_at = view.agent_reported_at
    if seen_at is not None and now - seen_at > AGENT_SILENCE:
        minutes = int((now - seen_at).total_seconds() // 60)
        return Signal(state=SignalState.UNHEALTHY, detail=f"The VM agent has not reported for {minutes} minutes.")
    return Signal(state=SignalState.HEALTHY)


def _arc_agent(view: HybridMachineView) -> Signal:
    if view.is_connected:
        return Signal(state=SignalState.HEALTHY)
    if not view.status:
        return Signal(state=SignalState.UNKNOWN, detail="Azure does not tell the status of the Arc agent.")
    return Signal(state=SignalState.UNHEALTHY, detail=f"The status of the Arc agent is {view.status[:50]}.")


def _vm_health(view: MachineView) -> Signal:
    match view.vm_health:
        case "":
            return Signal(state=SignalState.ABSENT)
        case "healthy":
            return Signal(state=SignalState.HEALTHY)
        case "unhealthy":
            return Signal(state=SignalState.UNHEALTHY, detail="The Application Health extension says unhealthy.")
        case word:
            return Signal(state=SignalState.UNKNOWN, detail=f"The Application Health extension says {word[:50]}.")
