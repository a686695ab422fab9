"""One scheduled run of Update Manager, an occurrence of a maintenance configuration, and what we know of it.

Sources: "Pre and post events" of Azure Update Manager and the Event Grid schema of maintenance configurations. The pre
event comes 40 to 30 minutes before the start and leaves 20 minutes to work; a run can be cancelled until 10 minutes
before its start, whatever the ``CancellationCutOffDateTime`` of an event says.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from pydantic import Field

from patchwave.domain.core.documents import Document, Json, UtcDatetime, lower_keys, parse_instant, str_or_empty
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import ConfigurationId, RunId
from patchwave.domain.core.outcome import Outcome, Reason

MAX_WINDOW = timedelta(hours=3, minutes=55)
"""Of a schedule that patches in guests; for an event that does not tell its end."""
ANNOUNCED = timedelta(minutes=40)
"""Before the start: the earliest pre event of Azure. The latest comes ten minutes later."""
EARLIEST_EVENT = timedelta(hours=1)
"""Before the start: a while before the earliest, as an event that is passed over does not come again."""
LATEST_EVENT = timedelta(hours=26)
"""After the end of the window. Event Grid tries to deliver for a day."""
MAX_PASSED_OVER = 200
"""Ids that are noted of rows which are about no virtual machine."""
_CORRELATION_ID = re.compile(
    r"(?P<configuration>/subscriptions/.+)/providers/microsoft\.maintenance/applyupdates/(?P<at>[0-9]{14})",
    re.IGNORECASE,
)
_CANCEL_MARGIN = 0.1
"""Of the time before the start in which nothing can be cancelled: kept free in front of it for the cancellation."""


@dataclass(frozen=True, slots=True)
class OccurrenceId:
    """The ``correlationId`` of a scheduled run: its configuration and the moment of its start. Equal without case."""

    text: str
    configuration: ConfigurationId
    at: datetime

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``{configuration}/providers/microsoft.maintenance/applyupdates/{yyyyMMddHHmmss}``.

        Raises:
            ValueError: it is no such id.
        """
        found = _CORRELATION_ID.fullmatch(text)
        if found is None:
            raise ValueError("not the id of a scheduled run")
        at = datetime.strptime(found["at"], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        return cls(text, ConfigurationId.parse(found["configuration"]), at)

    @property
    def stamp(self) -> str:
        """The last part: what Azure calls the scheduled run under its configuration."""
        return f"{self.at:%Y%m%d%H%M%S}"

    def run_id(self, policy: str) -> RunId:
        """The id of a policy's maintenance run for it: pre and post events, in any order and number, give the same."""
        return RunId.derived(self.at, policy, fold(self.text))


@dataclass(frozen=True, slots=True)
class OccurrenceNotice:
    """What a pre or post event says of a scheduled run. Only ``status``, of a post event, is taken at its word."""

    id: OccurrenceId
    starts_at: datetime
    status: str = ""

    @classmethod
    def read(cls, event_id: str, data: Json) -> Self | None:
        """Read the data of an event, whatever the case of its keys; ``None`` when it names no scheduled run."""
        fields = lower_keys(data)
        try:
            found = OccurrenceId.parse(str_or_empty(fields.get("correlationid")) or event_id)
        except ValueError:
            return None
        starts_at = parse_instant(fields.get("startdatetime")) or found.at
        return cls(id=found, starts_at=starts_at, status=str_or_empty(fields.get("status")))

    @property
    def is_on_time(self) -> bool:
        """Whether the start is the one in the id, as it is for every run that follows a calendar."""
        return self.starts_at == self.id.at


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """A scheduled run as Azure knows it, whatever an event says of its times."""

    id: OccurrenceId
    starts_at: datetime
    ends_at: datetime

    def is_timely(self, now: datetime) -> bool:
        """Whether its events can come now: a pre event at most an hour ahead, a post event until a day has passed."""
        return self.starts_at - EARLIEST_EVENT <= now <= self.ends_at + LATEST_EVENT


@dataclass(frozen=True, slots=True)
class EventTimeouts:
    """How much time there is around a scheduled run, from the app's settings.

    ``prepare`` is what the work before it may take, ``cutoff`` how long before the start nothing can be cancelled any
    more, ``post`` how long after the end its post event is waited for.
    """

    prepare: timedelta
    cutoff: timedelta
    post: timedelta


class MaintenanceOccurrence(Document):
    """The scheduled run of a maintenance run: its times and its result."""

    id: str
    """The correlation id, as Azure wrote it: what is cancelled, and what Resource Graph knows the results by."""
    configuration_id: str
    starts_at: UtcDatetime
    ends_at: UtcDatetime
    subscriptions: list[str] = Field(default_factory=list[str])
    """Where its machines are looked for, of runs that older versions made; none means everywhere."""
    pre_deadline: UtcDatetime
    """Nothing is begun on a machine after that, until the scheduled run is over."""
    cancel_deadline: UtcDatetime
    post_deadline: UtcDatetime
    """When it counts as over without a post event."""
    pre_event_at: UtcDatetime | None = None
    """When its pre event came; nothing when the post event was the first to come."""
    post_event_at: UtcDatetime | None = None
    status: str = ""
    """How it ended, in the word of its post event."""
    prepared_at: UtcDatetime | None = None
    """When the work before it ended, or its time was over."""
    pre_failures: int = 0
    """Machines on which that work failed or did not end."""
    canceled_at: UtcDatetime | None = None
    """When we cancelled it, since the work before it failed."""
    cancel_failure: str = ""
    """Why it could not be cancelled."""
    results_at: UtcDatetime | None = None
    """When the results of all machines were copied, or their time was over."""
    status_mismatches: int = 0
    """Machines that Update Manager called done and that are not."""
    passed_over: list[str] = Field(default_factory=list[str])
    """Ids in its rows that are those of no virtual machine, at most `MAX_PASSED_OVER`: nothing is done for them."""

    @property
    def is_over(self) -> bool:
        """Whether Azure does nothing more for it, as far as we were told."""
        return self.post_event_at is not None or self.canceled_at is not None

    def passing_over(self, ids: Iterable[str]) -> Self:
        """With these ids noted as well; the same when all of them are."""
        known = {fold(each) for each in self.passed_over}
        fresh = {fold(each): each for each in ids if fold(each) not in known}
        noted = [*self.passed_over, *fresh.values()][:MAX_PASSED_OVER]
        return self if noted == self.passed_over else self.model_copy(update={"passed_over": noted})

    def corrected(self, run: ScheduledRun, timeouts: EventTimeouts, now: datetime) -> Self:
        """With the times that Azure has now, which count more than those of the first event.

        Once it has begun it ends no earlier than it was to: a schedule that is changed then says nothing of it.
        """
        if now >= self.starts_at:
            run = ScheduledRun(run.id, self.starts_at, max(self.ends_at, run.ends_at))
        if (run.starts_at, run.ends_at) == (self.starts_at, self.ends_at):
            return self
        times = from_first_event(run, timeouts, self.pre_event_at or self.post_event_at or now)
        names = ("starts_at", "ends_at", "pre_deadline", "cancel_deadline", "post_deadline")
        return self.model_copy(update={name: getattr(times, name) for name in names})


def too_late_to_prepare() -> Outcome:
    """The outcome of a step that may not begin any more, so shortly before a scheduled run."""
    return Outcome.skipped(Reason.WINDOW_CLOSED, "The time for the work before the scheduled run was over.")


def from_first_event(run: ScheduledRun, timeouts: EventTimeouts, now: datetime) -> MaintenanceOccurrence:
    """What is known of a scheduled run when its first event comes, neither pre nor post noted yet."""
    cancel_deadline = run.starts_at - timeouts.cutoff
    # An event that comes too early leaves the time that Azure's own would have left.
    begins = max(now, run.starts_at - ANNOUNCED)
    return MaintenanceOccurrence(
        id=run.id.text,
        configuration_id=str(run.id.configuration),
        starts_at=run.starts_at,
        ends_at=run.ends_at,
        pre_deadline=min(begins + timeouts.prepare, cancel_deadline - timeouts.cutoff * _CANCEL_MARGIN),
        cancel_deadline=cancel_deadline,
        post_deadline=run.ends_at + timeouts.post,
    )
