"""Whether the approval delay of a policy can work on Linux: packages have no date, so something has to look early.

What is certain from the policy alone. Another policy may assess the same machines, and earlier runs have left dates;
these are notes and no errors for that reason.
"""

from datetime import datetime, timedelta

from patchwave.domain.calendar.schedule import occurrences
from patchwave.domain.core.documents import format_minute
from patchwave.domain.policy.policy import Policy, PolicyMode
from patchwave.domain.policy.scope import OsType

_RUNS = 24
"""Coming runs that are looked at: two years of a monthly policy."""


def delay_notes(policy: Policy, now: datetime) -> list[str]:
    """What keeps ``install.approvalDelayDays`` from working on Linux, in a sentence; empty when nothing does."""
    days = policy.install.approval_delay_days
    if not days or policy.mode is PolicyMode.ASSESS or OsType.LINUX not in policy.scope.systems:
        return []
    of_delay = f"install.approvalDelayDays: on Linux the {days} days count from when a version was first seen."
    if policy.assess is None:
        return [
            f"{of_delay} Without an assess schedule only the policy's own runs look: the first installs nothing on"
            " Linux, and each later one only what a run before it saw. Give assess, or let a policy with mode assess"
            " look at the same machines."
        ]
    runs = occurrences(policy.schedule, now, _RUNS) if policy.schedule is not None else []
    if not runs:
        return []
    first = next(iter(occurrences(policy.assess, now, 1)), None)
    if first is None:
        return [f"{of_delay} The assess schedule has ended, so only the policy's own runs look."]
    delay = timedelta(days=days)
    if first.at_utc + delay <= runs[0].at_utc:
        return []
    following = next((run for run in runs if first.at_utc + delay <= run.at_utc), None)
    later = f"the run of {format_minute(following.at_utc)} is the first" if following else "no later run is known"
    return [
        f"{of_delay} The next assessment, {format_minute(first.at_utc)}, comes less than that before the next run,"
        f" {format_minute(runs[0].at_utc)}: that run installs only what was seen before"
        f" {format_minute(runs[0].at_utc - delay)}, in a new installation nothing; {later} that installs what the"
        " assessment sees."
    ]
