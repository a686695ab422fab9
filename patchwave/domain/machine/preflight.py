"""The preflight: whether a machine may be touched now, decided from one read of it."""

from enum import StrEnum

from patchwave.domain.azure.hybrid_machine import HybridMachineView
from patchwave.domain.azure.instance_view import MachineView, Power
from patchwave.domain.core.documents import Document
from patchwave.domain.core.outcome import Outcome, Reason
from patchwave.domain.fleet.exclusions import hibernated, hold_reason, not_connected


class Readiness(StrEnum):
    """The answer of the preflight."""

    READY = "ready"
    NEEDS_START = "needs_start"
    WAIT = "wait"
    """Something is changing on its own: check again, within limits."""
    SKIP = "skip"


class Preflight(Document):
    """Whether the machine may be touched now; with the outcome it gets when it may not, or not in time."""

    readiness: Readiness
    outcome: Outcome | None = None


def evaluate(view: MachineView, *, start_stopped: bool) -> Preflight:
    """Decide from one read of the machine. ``start_stopped``: the policy lets Patchwave start stopped machines."""
    hold = hold_reason(view.tags or {})
    if hold is not None:
        return _skip(Reason.HOLD_TAG, hold)
    if isinstance(view, HybridMachineView):
        return _evaluate_connection(view)
    match view.power:
        case Power.STOPPED | Power.DEALLOCATED:
            if start_stopped:
                return Preflight(readiness=Readiness.NEEDS_START)
            return _skip(
                Reason.NOT_RUNNING, f"The machine is {view.power.value}; start it, or set startStopped in the policy."
            )
        case Power.HIBERNATED:
            return Preflight(readiness=Readiness.SKIP, outcome=hibernated())
        case Power.CHANGING:
            return _wait(Reason.NOT_RUNNING, "The power state of the machine kept changing.")
        case Power.UNKNOWN:
            return _wait(Reason.NOT_RUNNING, "Azure does not tell the power state of the machine; is it still created?")
        case Power.RUNNING:
            if view.is_agent_ready:
                return Preflight(readiness=Readiness.READY)
            return _wait(
                Reason.AGENT_NOT_READY,
                "The VM agent is missing or not ready: check that it is installed, runs, and reaches Azure.",
            )


def _evaluate_connection(view: HybridMachineView) -> Preflight:
    """Whether the agent of an Arc machine is connected: an operation would only wait for one that is not."""
    if view.is_connected:
        return Preflight(readiness=Readiness.READY)
    return Preflight(readiness=Readiness.SKIP, outcome=not_connected(view.status))


def _skip(reason: Reason, message: str) -> Preflight:
    return Preflight(readiness=Readiness.SKIP, outcome=Outcome.skipped(reason, message))


def _wait(reason: Reason, message: str) -> Preflight:
    return Preflight(readiness=Readiness.WAIT, outcome=Outcome.skipped(reason, message))
