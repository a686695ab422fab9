"""What patches a machine next, and when: the coming runs of schedules and policies that are said to patch it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

from pydantic import Field

from patchwave.domain.core.documents import Document, UtcDatetime, format_instant
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.drift.fleet_index import Attachment, FleetIndex, PatchCoverage
from patchwave.domain.drift.inputs import FleetPolicy
from patchwave.domain.fleet.patch_mode import PatchSource
from patchwave.domain.maintenance.upcoming_run import ComingRun, coming_runs
from patchwave.domain.scheduling.freeze import Freeze, active_freeze
from patchwave.domain.scheduling.upcoming import PlannedOccurrence, list_upcoming

_ALL_ZONES = timedelta(days=2)
"""By how much a window in the local time of every machine is longer than each of its own."""
_LOOK_AHEAD = 24
"""Runs that are looked at for one that is not cancelled, skipped or frozen: with a monthly schedule two years."""


class NextPatching(Document):
    """Something that will patch a machine. ``at`` is null where only Azure or the guest knows the time."""

    source: PatchSource
    name: str = Field(description="Of the configuration or policy; empty for Azure's own patching and the guest.")
    at: UtcDatetime | None = None
    ends_at: UtcDatetime | None = Field(default=None, description="The end of the window.")
    run: str = Field(default="", description="The id of the run: of Patchwave, or of the schedule at Azure.")
    sentence: str


@dataclass(frozen=True)
class PatchCalendar:
    """The coming runs of a fleet's schedules and policies.

    Args:
        index: who is said to patch which machine.
        freezes: all of them.
        canceled: names of the cancelled runs, by configuration.
        ended_runs: ids of runs of Patchwave whose window is still open and which are over.
    """

    index: FleetIndex
    freezes: Sequence[Freeze] = ()
    canceled: Mapping[ConfigurationId, Collection[str]] = field(default_factory=dict[ConfigurationId, Collection[str]])
    ended_runs: Collection[str] = ()

    def of(self, coverage: PatchCoverage) -> list[NextPatching]:
        """All that will patch a machine, the next one first; what has no known time is last."""
        found = [*self._by_azure(coverage), *self._by_policies(coverage)]
        return sorted(found, key=lambda each: (each.at is None, each.at or self.index.now, each.name))

    def open_runs(self) -> list[str]:
        """The ids of the runs whose windows are open now: those that are over are no longer to come."""
        now = self.index.now
        return [each.run_id for planned in self._planned.values() for each in planned if each.at <= now]

    def _by_azure(self, coverage: PatchCoverage) -> Iterator[NextPatching]:
        patcher = coverage.patching.patcher if coverage.patching else PatchSource.NONE
        sentence = coverage.patching.sentence if coverage.patching else ""
        if patcher is PatchSource.SCHEDULE:
            yield from filter(None, map(self._by_schedule, coverage.attached))
        elif patcher in (PatchSource.PLATFORM, PatchSource.OPERATING_SYSTEM):
            yield NextPatching(source=patcher, name="", sentence=sentence)

    def _by_schedule(self, attached: Attachment) -> NextPatching | None:
        configuration = attached.configuration
        if self.index.why_not(configuration):
            return None
        if configuration.unreadable:
            sentence = f"The schedule {configuration.name} patches it; its times cannot be read."
            return NextPatching(source=PatchSource.SCHEDULE, name=configuration.name, sentence=sentence)
        return self._runs.get(fold(configuration.id))

    def _by_policies(self, coverage: PatchCoverage) -> Iterator[NextPatching]:
        tags = coverage.machine.found.tags
        for name in coverage.policies:
            each = next((each for each in self._planned.get(name, ()) if self._is_free(name, tags, each)), None)
            if each is not None:
                yield self._by_policy(name, each)

    def _by_policy(self, name: str, each: PlannedOccurrence) -> NextPatching:
        key = (name, each.run_id)
        if key not in self._made:
            self._made[key] = NextPatching(
                source=PatchSource.POLICY,
                name=name,
                at=each.at,
                ends_at=each.window_end,
                run=each.run_id,
                sentence=f"The policy {name} patches it in the window that opens at {format_instant(each.at)}.",
            )
        return self._made[key]

    def _is_free(self, policy: str, tags: Mapping[str, str], occurrence: PlannedOccurrence) -> bool:
        """Whether an occurrence takes the machine: it is not over, and no freeze on tags holds it."""
        if occurrence.run_id in self.ended_runs:
            return False
        return active_freeze(self._freezes_on_tags, policy, tags, occurrence.at) is None

    @cached_property
    def _made(self) -> dict[tuple[str, str], NextPatching]:
        """What was made before, by policy and run: thousands of machines have the same."""
        return {}

    @cached_property
    def _freezes_on_tags(self) -> list[Freeze]:
        return [freeze for freeze in self.freezes if freeze.tags is not None]

    @cached_property
    def _runs(self) -> dict[str, NextPatching]:
        """The next run of each configuration that is not cancelled."""
        found: dict[str, NextPatching] = {}
        for configuration in self.index.schedules:
            identity = _identity(configuration.id)
            canceled = self.canceled.get(identity, ()) if identity else ()
            runs = coming_runs(configuration, self.index.now, _LOOK_AHEAD, timedelta(), canceled)
            if (run := next((each for each in runs if not each.canceled), None)) is not None:
                found[fold(configuration.id)] = _of_run(configuration.name, run)
        return found

    @cached_property
    def _planned(self) -> dict[str, list[PlannedOccurrence]]:
        """The occurrences of each policy that will run, those whose window is open among them."""
        return {each.policy.name: self._occurrences(each) for each in self.index.facts.policies}

    def _occurrences(self, each: FleetPolicy) -> list[PlannedOccurrence]:
        now, schedule = self.index.now, each.policy.schedule
        if schedule is None:
            return []
        since = now - schedule.window - _ALL_ZONES
        planned = list_upcoming(each.policy, each.overrides, self.freezes, since, _LOOK_AHEAD, now=now)
        return [occurrence for occurrence in planned if occurrence.will_run and occurrence.window_end > now]


def _of_run(name: str, run: ComingRun) -> NextPatching:
    return NextPatching(
        source=PatchSource.SCHEDULE,
        name=name,
        at=run.starts_at,
        ends_at=run.ends_at,
        run=run.run,
        sentence=f"The schedule {name} patches it from {format_instant(run.starts_at)} on.",
    )


def _identity(configuration_id: str) -> ConfigurationId | None:
    try:
        return ConfigurationId.parse(configuration_id)
    except ValueError:
        return None
