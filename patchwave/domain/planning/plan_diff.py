"""What has changed between two plans, machine by machine."""

from pydantic import Field

from patchwave.domain.core.documents import Document
from patchwave.domain.core.folding import fold
from patchwave.domain.planning.plan import ExcludedMachine, Makespan, Plan, PlannedMachine

SAME_TIME_SECONDS = 60.0
"""Predicted starts that are closer than this count as the same."""


class Position(Document):
    """Where a plan puts a machine: the part of a `PlannedMachine` that a person would notice."""

    ring: str
    phase: int
    lane: str
    wave: int


class MovedMachine(Document):
    """A machine that both plans take, in another place."""

    id: str
    before: Position
    after: Position


class RetimedMachine(Document):
    """A machine in the same place whose predicted start has changed; seconds from the start of the run."""

    id: str
    before: float
    after: float


class MakespanChange(Document):
    """How long the run takes by each of the plans."""

    before: Makespan
    after: Makespan


class PlanDiff(Document):
    """The changes from one plan to a later one. Lists are in the order of the later plan, what is gone by id.

    Every machine of either plan is in at most one list; a machine in none of them is where and when it was.
    """

    added: list[PlannedMachine] = Field(default_factory=list[PlannedMachine])
    """Planned now; unknown to the earlier plan, or left out by it."""
    removed: list[str] = Field(default_factory=list[str])
    """Planned before; unknown now."""
    excluded: list[ExcludedMachine] = Field(default_factory=list[ExcludedMachine])
    """Left out now; planned before, or unknown."""
    moved: list[MovedMachine] = Field(default_factory=list[MovedMachine])
    retimed: list[RetimedMachine] = Field(default_factory=list[RetimedMachine])
    makespan: MakespanChange

    @property
    def is_empty(self) -> bool:
        """Whether both plans take the same machines to the same places at the same times."""
        return not (self.added or self.removed or self.excluded or self.moved or self.retimed)


def compare(before: Plan, after: Plan) -> PlanDiff:
    """The changes from ``before`` to ``after``. Ids are compared without case."""
    planned_before = {fold(machine.id): machine for machine in before.machines}
    excluded_before = {fold(machine.id) for machine in before.excluded}
    known_now = {fold(machine.id) for machine in (*after.machines, *after.excluded)}
    added: list[PlannedMachine] = []
    moved: list[MovedMachine] = []
    retimed: list[RetimedMachine] = []
    for machine in after.machines:
        earlier = planned_before.get(fold(machine.id))
        if earlier is None:
            added.append(machine)
        elif _position(earlier) != _position(machine):
            moved.append(MovedMachine(id=machine.id, before=_position(earlier), after=_position(machine)))
        elif abs(earlier.predicted_start - machine.predicted_start) >= SAME_TIME_SECONDS:
            retimed.append(RetimedMachine(id=machine.id, before=earlier.predicted_start, after=machine.predicted_start))
    return PlanDiff(
        added=added,
        removed=sorted(machine.id for machine in before.machines if fold(machine.id) not in known_now),
        excluded=[machine for machine in after.excluded if fold(machine.id) not in excluded_before],
        moved=moved,
        retimed=retimed,
        makespan=MakespanChange(before=before.makespan, after=after.makespan),
    )


def _position(machine: PlannedMachine) -> Position:
    return Position(ring=machine.ring, phase=machine.phase, lane=machine.lane, wave=machine.wave)
