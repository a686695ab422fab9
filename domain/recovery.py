"""What the records tell an incarnation of a run about the one before it: what was under way, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from domain.gates import uses_budget
from domain.outcome import OutcomeKind
from domain.run import MachineRecord, Stage
from domain.work import Step

INSTALLING = frozenset({Stage.INSTALLING, Stage.VERIFYING})
"""An installation was begun: Azure may have accepted it."""
_NOT_TOUCHED = (OutcomeKind.SKIPPED, OutcomeKind.CANCELED, OutcomeKind.NOTHING_TO_INSTALL)


def step_under_way(machine: MachineRecord, *, is_locked: bool) -> Step | None:
    """The step that somebody was taking the machine through; ``None`` when nobody was.

    Args:
        machine: one that the plan has.
        is_locked: the run has its lock, so that hooks may have run and its power may have been changed.
    """
    if machine.stage in INSTALLING or (machine.stage is Stage.ASSESSED and is_locked):
        return Step.PATCH
    if machine.stage is Stage.RESTARTING or (machine.stage is Stage.INSTALLED and is_locked):
        return Step.RESTART
    return None


def was_begun(machine: MachineRecord) -> bool:
    """Whether anything was done to a machine of the plan; its ring was let begin then."""
    if machine.outcome is not None:
        return machine.outcome not in _NOT_TOUCHED
    return machine.stage in INSTALLING | {Stage.INSTALLED, Stage.RESTARTING}


def count_failures(
    machines: Iterable[MachineRecord], forgiven_at: datetime | None
) -> tuple[Counter[str], Counter[str]]:
    """Failures by scope as error budgets count them, and those that a person has accepted by resuming the run then."""
    failures: Counter[str] = Counter()
    forgiven: Counter[str] = Counter()
    for machine in machines:
        if machine.outcome is None or not uses_budget(machine.outcome, machine.reason):
            continue
        lane = f"{machine.ring}/{machine.lane}"
        scopes = ("run", f"ring:{machine.ring}", f"lane:{lane}", f"wave:{lane}/{machine.wave}")
        failures.update(scopes)
        if forgiven_at is not None and machine.ended_at is not None and machine.ended_at <= forgiven_at:
            forgiven.update(scopes)
    return failures, forgiven
