"""How long what is kept stays: runs with everything about them, the history of machines, and durable instances."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from patchwave.domain.runs.run import Run


@dataclass(frozen=True, slots=True)
class Retention:
    """Ages after which things are removed; ``None`` keeps them for ever.

    ``needs_export``: a run is purged only after its evidence was downloaded.
    """

    runs: timedelta | None
    history: timedelta | None
    instances: timedelta | None
    needs_export: bool = False


def is_purgeable(run: Run, retention: Retention, now: datetime) -> bool:
    """Whether a run may be removed: it has ended, long ago, and its evidence is safe where that is asked for."""
    if retention.runs is None or not run.state.is_final or run.ended_at is None:
        return False
    return run.ended_at <= now - retention.runs and not (retention.needs_export and run.exported_at is None)


def hourly_shard(now: datetime) -> int:
    """Which 256th of the machines is checked in this hour: all of them are within eleven days."""
    return int(now.timestamp()) // 3_600 % 256
