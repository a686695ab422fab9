"""The plan of a run: who is patched in which order, why, and when, before anything runs.

A plan is a document: it is stored with the run, shown by the command and the API, and compared with another one.
`patchwave.domain.planning.planner` makes it.
"""

from typing import Literal

from pydantic import Field

from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason

PLAN_VERSION = 1


class PlannedMachine(Document):
    """Where the plan puts a machine. Times are seconds from the start of the run.

    ``groups`` are the names of the concurrency groups that it takes a permit in; ``placement_reasons`` say in words
    what decided.
    """

    id: str
    ring: str
    phase: int
    """Counts from 1 inside the ring."""
    lane: str
    """The region."""
    wave: int
    """Counts from 1 inside the lane of the ring: machines of one wave may all be patched at the same time."""
    groups: list[str] = Field(default_factory=list[str])
    predicted_start: float
    predicted_end: float
    placement_reasons: list[str] = Field(default_factory=list[str])


class ExcludedMachine(Document):
    """A machine of the scope that the plan leaves out: a reason code, and the sentence."""

    id: str
    reason: str
    detail: str

    @property
    def outcome(self) -> Outcome:
        """How the machine ends in a run that follows the plan: nothing is done to it.

        Raises:
            ValueError: the reason is none of a machine that could still be patched.
        """
        reason = Reason(self.reason)
        kind = OutcomeKind.NOTHING_TO_INSTALL if reason is Reason.NO_PENDING_PATCHES else OutcomeKind.SKIPPED
        return Outcome.of(kind, reason, self.detail)


class Makespan(Document):
    """How long the run takes by the plan, and how short any order that keeps the rules could make it, in seconds."""

    predicted_seconds: float
    lower_bound_seconds: float


class PlannedRing(Document):
    """A ring of the plan with its phases, each the list of its regions."""

    name: str
    machines: int
    phases: list[list[str]]
    approval: bool = False


class PlannedTimeZone(Document):
    """The hours of the machines whose clocks are of one IANA zone, with how many machines these are.

    ``late_machines`` are expected to be reached only after the last moment to start them.
    """

    time_zone: str
    opens_at: UtcDatetime
    closes_at: UtcDatetime
    machines: int
    late_machines: int = 0


class Plan(Document):
    """A whole plan; ``version`` is that of this format. ``machines`` are in the order of their predicted start."""

    version: Literal[1] = PLAN_VERSION
    policy: str
    rings: list[PlannedRing] = Field(default_factory=list[PlannedRing])
    machines: list[PlannedMachine] = Field(default_factory=list[PlannedMachine])
    excluded: list[ExcludedMachine] = Field(default_factory=list[ExcludedMachine])
    makespan: Makespan
    begins_at: UtcDatetime | None = None
    """The second 0 of a plan whose machines have windows by their own clocks."""
    time_zones: list[PlannedTimeZone] = Field(default_factory=list[PlannedTimeZone])
    """Of such a plan, in the order of their windows."""
    notes: list[str] = Field(default_factory=list[str])
    """Notes for readers of the plan: rings that take nothing, unknown update domains, …"""
