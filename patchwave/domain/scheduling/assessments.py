"""The schedule of assessments that a policy may have beside its own: its occurrences, and what becomes of them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

from patchwave.domain.calendar.schedule import Occurrence, due_occurrence, upcoming
from patchwave.domain.core.documents import format_minute
from patchwave.domain.core.ids import RunId
from patchwave.domain.policy.policy import Policy, PolicyMode
from patchwave.domain.scheduling.freeze import Freeze
from patchwave.domain.scheduling.overrides import ScheduleOverrides
from patchwave.domain.scheduling.upcoming import (
    PlannedOccurrence,
    ScheduleDecision,
    ScheduleVerdict,
    decide,
    local_time,
)

COVERED_FOR = timedelta(hours=12)
"""How long after the opening of a window its run counts as the assessment. A run assesses all of its machines first;
another one beside it would only make machines wait for each other."""


def assessment_run_id(at: datetime, policy: str) -> RunId:
    """The run of an occurrence of the ``assess`` schedule: another one than that of the policy's own schedule."""
    moment = at.astimezone(UTC).replace(microsecond=0)
    return RunId.derived(moment, policy, "assess", policy, moment.isoformat())


def decide_assessment(
    policy: Policy, controls: ScheduleOverrides, freezes: Sequence[Freeze], occurrence: Occurrence
) -> ScheduleVerdict:
    """What becomes of one occurrence of the ``assess`` schedule.

    A pause holds it, as everything that schedules start; a skip is of the policy's own schedule. No freeze holds it: it
    changes nothing on a machine. ``freezes`` only tell whether a run of the policy's own schedule takes place.
    """
    if not policy.enabled:
        return ScheduleVerdict(ScheduleDecision.DISABLED, "the policy is disabled")
    if controls.pause:
        return ScheduleVerdict(ScheduleDecision.PAUSED, controls.pause.sentence)
    own = due_occurrence(policy.schedule, occurrence.at_utc, COVERED_FOR) if policy.schedule else None
    if own is not None and decide(policy, controls, freezes, own).will_run:
        why = f"the run of the window that opens at {format_minute(own.at_utc)} assesses the machines"
        return ScheduleVerdict(ScheduleDecision.COVERED, why)
    return ScheduleVerdict(ScheduleDecision.RUN)


def list_assessments(
    policy: Policy, controls: ScheduleOverrides, freezes: Sequence[Freeze], after: datetime, count: int
) -> list[PlannedOccurrence]:
    """The next ``count`` occurrences of the ``assess`` schedule after a moment, those that will not run included."""
    if policy.assess is None:
        return []
    planned: list[PlannedOccurrence] = []
    for occurrence in islice(upcoming(policy.assess, after), count):
        verdict = decide_assessment(policy, controls, freezes, occurrence)
        planned.append(
            PlannedOccurrence(
                mode=PolicyMode.ASSESS,
                at=occurrence.at_utc,
                local_time=local_time(policy.assess, occurrence),
                window_end=occurrence.window_end_utc,
                run_id=assessment_run_id(occurrence.at_utc, policy.name).text,
                decision=verdict.decision,
                will_run=verdict.will_run,
                reason=verdict.reason,
            )
        )
    return planned
