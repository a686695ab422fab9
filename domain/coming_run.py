"""Runs of a maintenance configuration that have not begun: their names at Azure, and how long each can be cancelled."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import islice

from domain.base import Document, Instant
from domain.calendar import Occurrence
from domain.maintenance import MaintenanceConfiguration

_RUN, _RUN_FORM = re.compile(r"[0-9]{14}"), "%Y%m%d%H%M%S"


class ComingRun(Document):
    """A run of a configuration that has not begun. ``run`` is its name at Azure, the start in UTC."""

    run: str
    starts_at: Instant
    ends_at: Instant
    cancel_until: Instant
    """The last moment in which it can be cancelled."""


def coming_runs(
    configuration: MaintenanceConfiguration, now: datetime, count: int, cutoff: timedelta
) -> list[ComingRun]:
    """The next runs, oldest first. ``cutoff`` is how long before its start a run can no longer be cancelled."""
    return [coming_run(each, cutoff) for each in islice(configuration.occurrences(now), count)]


def coming_run(occurrence: Occurrence, cutoff: timedelta) -> ComingRun:
    """The run of an occurrence."""
    return ComingRun(
        run=f"{occurrence.at_utc:{_RUN_FORM}}",
        starts_at=occurrence.at_utc,
        ends_at=occurrence.window_end_utc,
        cancel_until=occurrence.at_utc - cutoff,
    )


def parse_run(text: str) -> datetime:
    """The start of a run from its name, or from a correlation id that ends with it.

    Raises:
        ValueError: it is no name of a run.
    """
    name = text.rpartition("/")[2]
    if not _RUN.fullmatch(name):
        raise ValueError("is no name of a run; write its start in UTC as yyyyMMddHHmmss, such as 20261208210000")
    try:
        return datetime.strptime(name, _RUN_FORM).replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{name} is no time") from None
