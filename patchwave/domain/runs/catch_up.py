"""Machines that were off or not ready in a run of a window, and are patched when they come back while it is open.

The run that found them so gave them their outcome. A *catch-up* takes them in a run of its own: by the same rules,
until the end of the same window, and only after the run before it has ended well. So the order of the rings, gates,
error budgets and limits of that run come first, and its approvals count.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from patchwave.domain.calendar.schedule import Occurrence
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.ids import RunId
from patchwave.domain.planning.rings import choose_rings, keep_in_rings
from patchwave.domain.planning.topology import PlannerMachine
from patchwave.domain.policy.policy import Policy
from patchwave.domain.policy.rollout import Ring
from patchwave.domain.runs.run import Run, RunState
from patchwave.domain.scheduling.window import last_start

MAX_MACHINES = 1_000
"""Machines of one catch-up; further ones go with the next."""
_TICK = timedelta(minutes=5)


class CatchUpRequest(Document):
    """A machine that ended as off or not ready, and may come back while its window is open."""

    key: str
    id: str
    run_id: str
    """The run in which it ended so, which may be a catch-up itself."""
    reason: str
    at: UtcDatetime


class CatchUpStep(StrEnum):
    """What is done about the machines of a run."""

    START = "start"
    WAIT = "wait"
    """The run, or another catch-up of it, has not ended."""
    DROP = "drop"
    """The window leaves no time, or the run was stopped: nothing more is started in it."""


def origin_of(run: Run) -> str:
    """The id of the first run of the window, which a catch-up names."""
    return run.trigger.retry_of or run.id


def next_step(origin: Run | None, live: Collection[str], now: datetime) -> CatchUpStep:
    """What is done about the machines of a run.

    Args:
        origin: the first run of the window; ``None`` when it is gone.
        live: ids of the first runs of all catch-ups that have not ended.
        now: this moment.
    """
    if origin is None or origin.window_end is None or origin.occurrence is None or origin.policy_snapshot is None:
        return CatchUpStep.DROP
    policy = Policy.model_validate(origin.policy_snapshot)
    if last_start(origin.window_end, policy.install, policy.scope.systems) < now:
        return CatchUpStep.DROP
    if not origin.state.is_final:
        return CatchUpStep.WAIT
    if origin.state not in (RunState.COMPLETED, RunState.EMPTY):
        return CatchUpStep.DROP
    return CatchUpStep.WAIT if origin.id in live else CatchUpStep.START


def window_of(origin: Run) -> Occurrence | None:
    """The window of a run, which its catch-ups share; ``None`` for a run that belongs to none."""
    if origin.occurrence is None or origin.window_end is None:
        return None
    return Occurrence(origin.occurrence, origin.window_end, origin.local_window)


def tick_number(at: datetime) -> int:
    """The tick of the timer that a moment belongs to, counted since 1970."""
    return int(at.timestamp() // _TICK.total_seconds())


def run_of_tick(origin: Run, at: datetime) -> RunId:
    """The one catch-up of a run that may start at one tick of the timer, so that two workers start the same one."""
    tick = datetime.fromtimestamp(tick_number(at) * _TICK.total_seconds(), UTC)
    return RunId.derived(tick, origin.policy, "catch-up", origin.id, tick.isoformat())


def policy_for(origin: Run, machine_ids: Sequence[str], rings: Mapping[str, Sequence[str]]) -> Policy:
    """The policy that a catch-up follows: that of the run, narrowed to these machines.

    A ring that was approved in the run needs no second approval. What the window leaves over is not carried into the
    next one: that belongs to the next occurrence.

    Args:
        origin: the first run of the window.
        machine_ids: ARM ids, at most `MAX_MACHINES`.
        rings: the ids of these machines by the name of their ring (`rings_of`).
    """
    policy = Policy.model_validate(origin.policy_snapshot)
    schedule = policy.schedule and policy.schedule.model_copy(update={"continue_in_next_window": False})
    return policy.model_copy(
        update={
            "scope": policy.scope.model_copy(update={"machine_ids": tuple(machine_ids)}),
            "rings": [_approved(origin, ring) for ring in keep_in_rings(policy.rings, rings)],
            "schedule": schedule,
        }
    )


def rings_of(policy: Policy, machines: Sequence[PlannerMachine], machine_ids: Collection[str]) -> dict[str, list[str]]:
    """The ids of some machines by the name of their ring, as the run of all machines would choose it."""
    chosen = choose_rings(machines, policy.rings)
    found: dict[str, list[str]] = {}
    for machine in machines:
        if machine.id in machine_ids and machine.key in chosen:
            found.setdefault(policy.rings[chosen[machine.key].number].name, []).append(machine.id)
    return found


def _approved(origin: Run, ring: Ring) -> Ring:
    decision = origin.decisions.get(ring.name)
    return ring.model_copy(update={"approval": None}) if decision is not None and decision.approved else ring
