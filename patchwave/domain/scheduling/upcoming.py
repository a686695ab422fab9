"""What happens next, and why not: the occurrences of a policy against pauses, skips, freezes and runs that go on.

The timer, the list of occurrences and a run that looks for its next window ask the same function, `decide`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice

from pydantic import Field

from patchwave.domain.calendar.local_window import ACROSS_ZONES, Hours, LocalWindow
from patchwave.domain.calendar.region_time_zones import REGION_ZONES
from patchwave.domain.calendar.schedule import MAX_WINDOW, Occurrence, Schedule, upcoming
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.ids import RunId
from patchwave.domain.core.region_pairs import region_name
from patchwave.domain.policy.policy import Policy, PolicyMode
from patchwave.domain.scheduling.freeze import DamagedFreeze, Freeze, active_freeze
from patchwave.domain.scheduling.overrides import ScheduleOverrides, Skip
from patchwave.domain.scheduling.window import last_start

_LOOK_AHEAD = 1_000
"""Occurrences that are looked at for one that runs: with a daily policy some three years."""


class ScheduleDecision(StrEnum):
    """What becomes of an occurrence."""

    RUN = "run"
    CONTINUE = "continue"
    """A run of the policy that is still open goes on in it; no other is started."""
    DISABLED = "disabled"
    PAUSED = "paused"
    SKIPPED = "skipped"
    FROZEN = "frozen"
    COVERED = "covered"
    """An assessment that a run in an open window of the policy makes anyway."""


@dataclass(frozen=True, slots=True)
class ScheduleVerdict:
    """A decision with the sentence that explains it; ``RUN`` needs none unless some machines are left out."""

    decision: ScheduleDecision
    reason: str = ""

    @property
    def will_run(self) -> bool:
        return self.decision in (ScheduleDecision.RUN, ScheduleDecision.CONTINUE)


@dataclass(frozen=True, slots=True)
class WindowWait:
    """A run that waits for a window: one that opens after ``since``, and ends after ``behind``, the last it used."""

    since: datetime
    behind: datetime


class ZoneHours(Document):
    """The hours of an occurrence in zones whose clocks agree, where machines read their own clocks."""

    time_zones: list[str]
    opens_at: UtcDatetime
    closes_at: UtcDatetime


class PlannedOccurrence(Document):
    """A coming occurrence: when, as people there read the clock, under which run id, and why it will not run.

    ``zone_hours``: where machines read their own clocks, by opening; in the zones of the regions that the policy names,
    or of all regions. The time zone of a Windows machine may be a further one.
    """

    mode: PolicyMode
    at: UtcDatetime
    local_time: str
    window_end: UtcDatetime
    run_id: str
    decision: ScheduleDecision
    will_run: bool
    reason: str
    zone_hours: list[ZoneHours] = Field(default_factory=list[ZoneHours])


def decide(
    policy: Policy,
    controls: ScheduleOverrides,
    freezes: Sequence[Freeze],
    occurrence: Occurrence,
    *,
    now: datetime | None = None,
) -> ScheduleVerdict:
    """What becomes of one occurrence.

    A freeze holds it when it lasts at the opening of the window; ``now`` adds the moment of a start that comes late.
    Where machines read their own clocks, it has to last until the window of the last of them opens, and `now` counts
    for the start alone: each machine is checked again in its own window.
    Nothing but pause and skip holds one that only assesses: it changes nothing on a machine.
    """
    opening = occurrence.at_utc
    if not policy.enabled:
        return ScheduleVerdict(ScheduleDecision.DISABLED, "the policy is disabled")
    if controls.pause:
        return ScheduleVerdict(ScheduleDecision.PAUSED, controls.pause.sentence)
    if skip := controls.skip_of(opening):
        return ScheduleVerdict(ScheduleDecision.SKIPPED, f"skipped by {skip.actor}: {skip.reason}")
    if policy.mode is PolicyMode.ASSESS:
        return ScheduleVerdict(ScheduleDecision.RUN)
    for freeze in (_freeze_of_opening(policy, freezes, occurrence), now and _freeze_at(policy, freezes, now)):
        if freeze:
            return ScheduleVerdict(ScheduleDecision.FROZEN, freeze.sentence)
    if reservation := controls.window_reservation_in(opening):
        return ScheduleVerdict(ScheduleDecision.CONTINUE, f"the run {reservation.run_id} goes on in this window")
    return ScheduleVerdict(ScheduleDecision.RUN, _left_out(policy, freezes, opening))


def list_upcoming(
    policy: Policy,
    controls: ScheduleOverrides,
    freezes: Sequence[Freeze],
    after: datetime,
    count: int,
    *,
    now: datetime | None = None,
) -> list[PlannedOccurrence]:
    """The next ``count`` occurrences of the policy's own schedule after a moment, those that will not run included.

    Fewer when the schedule ends. Those that have begun by ``now`` would start late, as `decide` takes it.
    """
    if policy.schedule is None:
        return []
    schedule = policy.schedule
    zones = sorted(_zones_of(policy)) if schedule.is_local else []
    planned: list[PlannedOccurrence] = []
    for occurrence in islice(upcoming(policy.schedule, after), count):
        is_late = now is not None and occurrence.at_utc <= now
        verdict = decide(policy, controls, freezes, occurrence, now=now if is_late else None)
        run_id = RunId.of(occurrence.at_utc, policy.name).text
        reservation = controls.window_reservation_in(occurrence.at_utc)
        if verdict.decision is ScheduleDecision.CONTINUE and reservation:
            run_id = reservation.run_id
            # That it needs a further window after this one is not known yet.
            controls = controls.carried(run_id, occurrence.window_end_utc)
        planned.append(
            PlannedOccurrence(
                mode=policy.mode,
                at=occurrence.at_utc,
                local_time=local_time(schedule, occurrence),
                window_end=occurrence.window_end_utc,
                run_id=run_id,
                decision=verdict.decision,
                will_run=verdict.will_run,
                reason=verdict.reason,
                zone_hours=_zone_hours(occurrence.local, zones) if occurrence.local else [],
            )
        )
    return planned


def next_run_window(
    policy: Policy, controls: ScheduleOverrides, freezes: Sequence[Freeze], run: WindowWait, now: datetime
) -> Occurrence | None:
    """The window in which a run goes on, which may be open at ``now``; ``None`` when none is in sight.

    A policy that only assesses by now has none: what goes on installs.

    A pause and a freeze that cannot be read only tell of now: the run waits for the next window, and asks again when
    that opens.
    """
    if policy.mode is PolicyMode.ASSESS:
        return None
    systems = policy.scope.systems
    lasting = controls.model_copy(update={"pause": None, "window_reservations": []})
    readable = [freeze for freeze in freezes if not isinstance(freeze, DamagedFreeze)]
    for each in _ahead(policy, run.since):
        is_open = each.at_utc <= now
        if each.window_end_utc <= run.behind or last_start(each.window_end_utc, policy.install, systems) < now:
            continue
        asked = controls.model_copy(update={"window_reservations": []}) if is_open else lasting
        if decide(policy, asked, freezes if is_open else readable, each, now=now if is_open else None).will_run:
            return each
    return None


def pending_skip(policy: Policy, controls: ScheduleOverrides, now: datetime) -> Skip | None:
    """The command to skip a coming occurrence; one about a time that the schedule no longer has does not count."""
    return next((skip for each in _ahead(policy, now) if (skip := controls.skip_of(each.at_utc))), None)


def occurrence_to_skip(policy: Policy, freezes: Sequence[Freeze], now: datetime) -> Occurrence | None:
    """The next occurrence that no freeze keeps from running anyway."""
    holding = freezes if policy.mode is PolicyMode.PATCH else ()
    readable = [freeze for freeze in holding if not isinstance(freeze, DamagedFreeze)]
    return next(
        (each for each in _ahead(policy, now) if not active_freeze(readable, policy.name, {}, each.at_utc)), None
    )


def forgettable_before(now: datetime) -> datetime:
    return now - MAX_WINDOW


def _ahead(policy: Policy, after: datetime) -> Iterator[Occurrence]:
    return iter(()) if policy.schedule is None else islice(upcoming(policy.schedule, after), _LOOK_AHEAD)


def _freeze_at(policy: Policy, freezes: Sequence[Freeze], at: datetime) -> Freeze | None:
    return active_freeze(freezes, policy.name, {}, at)


def _freeze_of_opening(policy: Policy, freezes: Sequence[Freeze], occurrence: Occurrence) -> Freeze | None:
    """The freeze that lasts whenever a window of the occurrence opens."""
    found = _freeze_at(policy, freezes, occurrence.at_utc)
    if found is None or occurrence.local is None or occurrence.at_utc + ACROSS_ZONES < found.ends_at:
        return found
    return None


def local_time(schedule: Schedule, occurrence: Occurrence) -> str:
    """The opening as the clock there shows it; without an offset where it is that of each machine."""
    shown = occurrence.at_utc.astimezone(schedule.clock)
    return (shown.replace(tzinfo=None) if schedule.is_local else shown).isoformat(timespec="seconds")


def _zones_of(policy: Policy) -> set[str]:
    named = {REGION_ZONES.get(region_name(location), "") for location in policy.scope.locations} - {""}
    return named or set(REGION_ZONES.values())


def _zone_hours(local: LocalWindow, zones: Iterable[str]) -> list[ZoneHours]:
    found: dict[Hours, list[str]] = {}
    for zone in zones:
        found.setdefault(local.hours(zone), []).append(zone)
    return [
        ZoneHours(time_zones=found[hours], opens_at=hours.opens_at, closes_at=hours.closes_at)
        for hours in sorted(found)
    ]


def _left_out(policy: Policy, freezes: Sequence[Freeze], at: datetime) -> str:
    """Which machines freezes on tags keep from an occurrence that runs."""
    partial = sorted(freeze.name for freeze in freezes if freeze.tags is not None and freeze.concerns(policy.name, at))
    return f"without the machines that are frozen by {', '.join(partial)}" if partial else ""
