"""The operations that this worker polls: when each is due, and how long similar ones took."""

from __future__ import annotations

import time

from patchwave.azure.clients import PerLoop
from patchwave.domain.azure.poll_schedule import PollSchedule, TrackedOperation
from patchwave.domain.azure.rate_limit import Bucket, read_limits
from patchwave.domain.core.ids import MachineId
from patchwave.domain.runs.intent import Intent
from patchwave.settings import Settings
from patchwave.storage import bucket_key

_looks = PerLoop(
    lambda settings: PollSchedule(settings.poll_seconds, read_limits(settings.limits)[Bucket.READS].fastest)
)


def open_looks(settings: Settings | None = None) -> PollSchedule:
    """The schedule of this process."""
    return _looks.get(settings)


def followed(intent: Intent) -> TrackedOperation:
    """The schedule's key data of an intent's operation."""
    return TrackedOperation(
        name=f"{intent.run_id}/{intent.machine_key}/{intent.kind.value}",
        place=place_of(intent),
        kind=intent.kind,
        os_type=intent.os_type,
    )


def place_of(intent: Intent) -> str:
    """The subscription and region of the operation."""
    return bucket_key(MachineId.parse(intent.machine_id).subscription_id, intent.location)


def elapsed(intent: Intent) -> float:
    """Seconds since Azure accepted the operation."""
    return max(0.0, time.time() - (intent.accepted_at or intent.sent_at).timestamp())


def first_poll_delay(intent: Intent, known: float | None) -> float:
    """Seconds to the first poll of an accepted operation; ``known``: how long it took the last time."""
    return open_looks().first(followed(intent), time.time(), elapsed(intent), known)
