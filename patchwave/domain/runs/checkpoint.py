"""What the records tell about the generation before: what was in progress, and what failed."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.runs.error_budget import counts_as_failure
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.run import Step

INSTALLING = frozenset({Stage.INSTALLING, Stage.VERIFYING})
"""An installation was begun: Azure may have accepted it."""
_PATCHED = frozenset({Stage.INSTALLED, Stage.RESTARTING, Stage.DONE})
_NOT_TOUCHED = (OutcomeKind.SKIPPED, OutcomeKind.CANCELED, OutcomeKind.NOTHING_TO_INSTALL)


def step_in_progress(machine: MachineRecord, *, is_locked: bool) -> Step | None:
    """The step that was in progress on the machine; ``None`` when none was.

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


def resting_lanes(machines: Iterable[MachineRecord], bake: timedelta | None) -> dict[str, datetime]:
    """The lanes whose last wave is over, by ``{ring}/{region}``, and until when its bake time lasts.

    A lane in which the next wave has begun rests no more. ``machines`` are all of the plan, or of a ring.
    """
    if not bake:
        return {}
    lanes: dict[str, dict[int, list[MachineRecord]]] = {}
    for machine in machines:
        lanes.setdefault(f"{machine.ring}/{machine.lane}", {}).setdefault(machine.wave, []).append(machine)
    found: dict[str, datetime] = {}
    for lane, waves in lanes.items():
        stages = {each.stage for members in waves.values() for each in members}
        # Behind its patches a lane goes through the same waves again for its restarts.
        restarts = stages <= _PATCHED and stages != {Stage.DONE}
        ended = {Stage.DONE} if restarts else _PATCHED
        over = [wave for wave, members in waves.items() if all(each.stage in ended for each in members)]
        last = max(over, default=0)
        behind = [each for wave, members in waves.items() if wave > last for each in members]
        begun = any(was_begun(each) and not (restarts and each.stage is Stage.INSTALLED) for each in behind)
        ends = [at for each in waves.get(last, []) if (at := _ended_at(each)) is not None]
        if ends and not begun:
            found[lane] = max(ends) + bake
    return found


def newest_end(machines: Iterable[MachineRecord]) -> datetime | None:
    """When the last of these machines ended; bake times count from there."""
    return max((at for each in machines if (at := _ended_at(each)) is not None), default=None)


def _ended_at(machine: MachineRecord) -> datetime | None:
    """When a machine ended its step; one that still waits for its restart, not before its installation began."""
    if machine.ended_at is not None or machine.installation is None:
        return machine.ended_at
    return machine.installation.started_at


def count_failures(
    machines: Iterable[MachineRecord], forgiven_at: datetime | None
) -> tuple[Counter[str], Counter[str]]:
    """Failures by scope as error budgets count them, and those that a person has accepted by resuming the run then."""
    failures: Counter[str] = Counter()
    forgiven: Counter[str] = Counter()
    for machine in machines:
        if machine.outcome is None or not counts_as_failure(machine.outcome, machine.reason):
            continue
        lane = f"{machine.ring}/{machine.lane}"
        scopes = ("run", f"ring:{machine.ring}", f"lane:{lane}", f"wave:{lane}/{machine.wave}")
        failures.update(scopes)
        if forgiven_at is not None and machine.ended_at is not None and machine.ended_at <= forgiven_at:
            forgiven.update(scopes)
    return failures, forgiven
