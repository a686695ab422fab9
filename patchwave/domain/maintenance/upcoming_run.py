"""Runs of a maintenance configuration that have not begun: their names at Azure, whether they are cancelled, and how
long each can be.
"""

import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice

from patchwave.domain.calendar.schedule import Occurrence
from patchwave.domain.core.documents import Document, Json, UtcDatetime, lower_keys, object_or_none, str_or_empty
from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.maintenance.occurrence import OccurrenceId

CANCELLED = "cancelled"
"""Azure's status of a run that was cancelled, folded."""
_RUN, _RUN_FORM = re.compile(r"[0-9]{14}"), "%Y%m%d%H%M%S"


class ComingRun(Document):
    """A run of a configuration that has not begun. ``run`` is its name at Azure, the start in UTC."""

    run: str
    starts_at: UtcDatetime
    ends_at: UtcDatetime
    cancel_deadline: UtcDatetime
    """The last moment in which it can be cancelled."""
    canceled: bool = False
    """It will not happen."""


def coming_runs(
    configuration: MaintenanceConfiguration,
    now: datetime,
    count: int,
    cutoff: timedelta,
    canceled: Collection[str] = (),
) -> list[ComingRun]:
    """The next runs, oldest first, cancelled ones among them.

    Args:
        configuration: whose runs they are.
        now: UTC.
        count: how many.
        cutoff: how long before its start a run can no longer be cancelled.
        canceled: names of cancelled runs.
    """
    return [coming_run(each, cutoff, canceled) for each in islice(configuration.occurrences(now), count)]


def coming_run(occurrence: Occurrence, cutoff: timedelta, canceled: Collection[str] = ()) -> ComingRun:
    name = f"{occurrence.at_utc:{_RUN_FORM}}"
    return ComingRun(
        run=name,
        starts_at=occurrence.at_utc,
        ends_at=occurrence.window_end_utc,
        cancel_deadline=occurrence.at_utc - cutoff,
        canceled=name in canceled,
    )


def canceled_by_configuration(rows: Iterable[Json]) -> dict[ConfigurationId, set[str]]:
    """The names of the cancelled runs among rows of Resource Graph, by configuration."""
    found: dict[ConfigurationId, set[str]] = {}
    for row in rows:
        properties = lower_keys(object_or_none(row.get("properties")) or {})
        try:
            run = OccurrenceId.parse(str_or_empty(properties.get("correlationid")) or str_or_empty(row.get("id")))
        except ValueError:
            continue
        if str_or_empty(properties.get("status")).casefold() == CANCELLED:
            found.setdefault(run.configuration, set()).add(run.stamp)
    return found


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
