"""What to do about a run that may have lost its orchestration; the engine's status and the time are arguments.

Two generations of a run never work side by side: the orchestrations of the old one are ended, and their end is
verified, before a new one begins. Operations that Azure accepted are in the intents, which belong to the run and not to
a generation. See docs/adr/0019-recovery-and-versioning.md.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from patchwave.domain.azure.poll_schedule import MAX_POLLS
from patchwave.domain.runs.run import Run, RunState

MAX_PAUSE = timedelta(minutes=10)
"""Between two heartbeats of a run that does not say that it sleeps longer."""
HEARTBEAT_TIMEOUT = 3 * MAX_PAUSE
"""Silence of a run after a heartbeat before the watchdog acts."""
GRACE_PERIOD = timedelta(minutes=30)
"""How long a silent run is woken, again and again, before it is taken for dead."""
STARTING = timedelta(minutes=10)
"""The request that created a run may still be about to start it."""
MAX_GENERATIONS = 5
"""A run that dies this often dies for a reason that another restart does not remove."""
STUCK_AFTER = timedelta(hours=1)
"""A machine whose orchestrations do nothing for this long has lost its timer, unless polls are rare."""


class EngineStatus(StrEnum):
    """What the engine says of the run's own instance."""

    LIVE = "live"
    SUSPENDED = "suspended"
    MISSING = "missing"
    """The engine has lost it, or was never given it."""
    COMPLETED = "completed"
    FAILED = "failed"
    """It failed itself, or another version of the app could not replay it."""
    TERMINATED = "terminated"
    """It was terminated in the engine."""
    ENDED = "ended"
    """The watchdog ended it."""


class RecoveryAction(StrEnum):
    """What is to be done now; after ``STOP`` and ``END`` the run is looked at again."""

    NOTHING = "nothing"
    WAKE = "wake"
    """Raise an event: an orchestration whose timer was lost reads the rows and goes on."""
    STOP = "stop"
    """Nothing more may start in the run: it was terminated on purpose."""
    END = "end"
    """End the instances that are left of the run."""
    CONTINUE = "continue"
    """Start the next generation."""
    CLOSE = "close"
    """Give every machine an outcome and the run its end."""


@dataclass(frozen=True, slots=True)
class Observation:
    """``turned_at``: when the run's own instance did something last. ``left``: others of the run are live."""

    status: EngineStatus
    turned_at: datetime | None = None
    left: bool = False


def decide(run: Run, seen: Observation, now: datetime) -> RecoveryAction:
    """The next recovery action for a run, which is ``NOTHING`` for one that has ended."""
    if run.state.is_final or seen.status is EngineStatus.SUSPENDED:
        return RecoveryAction.NOTHING
    if seen.status is EngineStatus.LIVE:
        return _for_the_living(run, seen, now)
    if run.state is RunState.QUEUED and seen.status is EngineStatus.MISSING and now - run.created_at < STARTING:
        return RecoveryAction.NOTHING
    if seen.status is EngineStatus.TERMINATED and not run.stop_reason and run.cancel_requested_at is None:
        return RecoveryAction.STOP
    if seen.left:
        return RecoveryAction.END
    is_hopeless = seen.status is EngineStatus.COMPLETED or run.generation >= MAX_GENERATIONS
    return RecoveryAction.CLOSE if is_hopeless else RecoveryAction.CONTINUE


def is_stuck(turned_at: datetime, now: datetime, poll_seconds: float) -> bool:
    """Whether a machine whose instances did something last at that moment has lost its timer."""
    return now - turned_at > max(STUCK_AFTER, timedelta(seconds=3 * MAX_POLLS * poll_seconds))


def heartbeat_deadline(now: datetime) -> datetime:
    return now + HEARTBEAT_TIMEOUT


def _for_the_living(run: Run, seen: Observation, now: datetime) -> RecoveryAction:
    deadline = run.heartbeat_deadline or run.created_at
    if seen.turned_at is not None:
        deadline = max(deadline, heartbeat_deadline(seen.turned_at))
    if now <= deadline:
        return RecoveryAction.NOTHING
    return RecoveryAction.WAKE if now <= deadline + GRACE_PERIOD else RecoveryAction.END
