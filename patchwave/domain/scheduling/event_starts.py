"""Whether the requests of events may start a run now: assessments always may, installations keep to the calendar."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from patchwave.domain.calendar.schedule import Occurrence, due_occurrence, upcoming
from patchwave.domain.core.documents import format_minute
from patchwave.domain.policy.policy import Policy, PolicyMode
from patchwave.domain.scheduling.freeze import Freeze, active_freeze
from patchwave.domain.scheduling.overrides import ScheduleOverrides
from patchwave.domain.scheduling.upcoming import decide
from patchwave.domain.scheduling.window import last_start


@dataclass(frozen=True, slots=True)
class EventVerdict:
    """What becomes of the requests of a policy that are due.

    ``window``: of the run. ``own``: the occurrence of the policy's own schedule whose window is open, and whose run may
    take the machines. ``waits``: why nothing starts now; the requests stay. ``is_over``: nothing will ever start.
    """

    window: Occurrence | None = None
    own: Occurrence | None = None
    waits: str = ""
    is_over: bool = False


def decide_event_start(
    policy: Policy, controls: ScheduleOverrides, freezes: Sequence[Freeze], now: datetime
) -> EventVerdict:
    """What becomes of the requests of an enabled policy that are due.

    A run that installs waits for the end of a pause and of a freeze, and with ``events.onlyInWindow`` for a window in
    which an installation can still start. Otherwise its window is as long as the schedule's, as with a run by hand.
    """
    if policy.event_mode is PolicyMode.ASSESS:
        return EventVerdict()
    if controls.pause:
        return EventVerdict(waits=controls.pause.sentence)
    if freeze := active_freeze(freezes, policy.name, {}, now):
        return EventVerdict(waits=freeze.sentence)
    schedule = policy.schedule
    opened = due_occurrence(schedule, now) if schedule is not None else None
    verdict = decide(policy, controls, freezes, opened, now=now) if opened is not None else None
    own = opened if verdict is not None and verdict.will_run else None
    if not policy.events.only_in_window:
        window = Occurrence(now, now + schedule.window) if schedule is not None else None
        return EventVerdict(window=window, own=own)
    if opened is not None and verdict is not None and not verdict.will_run:
        return EventVerdict(waits=f"the window that opened at {format_minute(opened.at_utc)} is {verdict.reason}")
    if own is not None and now <= last_start(own.window_end_utc, policy.install, policy.scope.systems):
        return EventVerdict(window=own, own=own)
    following = next(upcoming(schedule, now), None) if schedule is not None else None
    if following is None:
        return EventVerdict(waits="the schedule has no further window", is_over=True)
    return EventVerdict(waits=f"the next window opens at {format_minute(following.at_utc)}")
