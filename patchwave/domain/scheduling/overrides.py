"""What people have ordered for one policy beside its schedule: pauses and skips; and which of its runs go on."""

from datetime import datetime
from typing import Self

from pydantic import Field

from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.principal import Signed


class Pause(Signed):
    """Nothing is started by the schedule until a person resumes it."""

    reason: str
    at: UtcDatetime

    @property
    def sentence(self) -> str:
        """Who paused it and why, for people."""
        return f"paused by {self.actor}: {self.reason}"


class Skip(Signed):
    """One occurrence does not run."""

    occurrence: UtcDatetime
    reason: str
    at: UtcDatetime


class WindowReservation(Document):
    """A run that goes on in later windows of its policy: those that open between ``since`` and its end are its own."""

    run_id: str
    since: UtcDatetime
    ended_at: UtcDatetime | None = None

    def holds(self, opening: datetime) -> bool:
        """Whether the window that opens at that moment belongs to the run."""
        return self.since < opening and (self.ended_at is None or opening < self.ended_at)


class ScheduleOverrides(Document):
    """The state of one policy beside its document. Every change gives a new one; saying it twice changes nothing."""

    pause: Pause | None = None
    skips: list[Skip] = Field(default_factory=list[Skip])
    window_reservations: list[WindowReservation] = Field(default_factory=list[WindowReservation])
    requested_run: str = ""
    """The run that was requested last: while it is in progress, the same request means this run."""

    def paused(self, pause: Pause) -> Self:
        """Paused; the first command stays."""
        return self if self.pause else self.model_copy(update={"pause": pause})

    def resumed(self) -> Self:
        return self.model_copy(update={"pause": None})

    def skip_of(self, opening: datetime) -> Skip | None:
        return next((skip for skip in self.skips if skip.occurrence == opening), None)

    def skipping(self, skip: Skip, *, forget_before: datetime) -> Self:
        """With this occurrence skipped; commands about occurrences before ``forget_before`` are of no use any more."""
        if self.skip_of(skip.occurrence):
            return self
        kept = [each for each in self.skips if each.occurrence >= forget_before]
        return self.model_copy(update={"skips": [*kept, skip]})

    def unskipping(self, opening: datetime) -> Self:
        return self.model_copy(update={"skips": [each for each in self.skips if each.occurrence != opening]})

    def window_reservation_of(self, run_id: str) -> WindowReservation | None:
        """Since when the run goes on in later windows; ``None`` when it does not, or has ended."""
        return next(
            (each for each in self.window_reservations if each.run_id == run_id and each.ended_at is None), None
        )

    def window_reservation_in(self, opening: datetime) -> WindowReservation | None:
        """The run that the window which opens at that moment belongs to."""
        return next((each for each in self.window_reservations if each.holds(opening)), None)

    def carrying(self, run_id: str, since: datetime, *, forget_before: datetime) -> Self:
        """The run goes on in windows that open after ``since``; from the first time that it was said, if it was.

        Runs that ended before ``forget_before`` have no open window any more.
        """
        if self.window_reservation_of(run_id):
            return self
        kept = [each for each in self.window_reservations if each.ended_at is None or each.ended_at >= forget_before]
        return self.model_copy(update={"window_reservations": [*kept, WindowReservation(run_id=run_id, since=since)]})

    def carried(self, run_id: str, ended_at: datetime) -> Self:
        """The run has ended; windows that open later are free again, those that it used stay its own."""
        if self.window_reservation_of(run_id) is None:
            return self
        ended = [
            each.model_copy(update={"ended_at": ended_at}) if each.run_id == run_id and each.ended_at is None else each
            for each in self.window_reservations
        ]
        return self.model_copy(update={"window_reservations": ended})

    def requesting(self, run_id: str, *, instead_of: str) -> Self:
        """The run is requested, unless another one was since ``instead_of`` was read."""
        return self if self.requested_run != instead_of else self.model_copy(update={"requested_run": run_id})
