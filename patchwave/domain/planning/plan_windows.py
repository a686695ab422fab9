"""The windows of a plan whose machines read their own clocks: one per time zone, as a group that holds its machines.

A group without a limit is held until the window opens, in the plan's timeline as in the running phase, so that the
admission stays the one place that knows which machines may start.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from patchwave.domain.calendar.local_window import Hours, LocalWindow
from patchwave.domain.planning.admission import UNLIMITED, Permit

_WINDOW = "window:"


def window_permit(zone: str) -> Permit:
    """What a machine takes while its clock is that of the zone."""
    return Permit(f"{_WINDOW}{zone}", UNLIMITED)


def window_group(zone: str) -> str:
    return window_permit(zone).group


def zone_of_group(group: str) -> str:
    """The zone whose window the group is; empty for other groups."""
    return group.removeprefix(_WINDOW) if group.startswith(_WINDOW) else ""


def zone_of_permits(texts: Iterable[str]) -> str:
    """The zone by which a machine with these permits is patched; empty when it has no window of its own."""
    zones = (zone_of_group(Permit.parse(text).group) for text in texts)
    return next(filter(None, zones), "")


@dataclass(frozen=True)
class PlanWindows:
    """The hours by IANA zone. ``begins`` is second 0 of the plan."""

    begins: datetime
    hours: Mapping[str, Hours] = field(default_factory=dict[str, Hours])

    @classmethod
    def of(cls, local: LocalWindow, zones: Iterable[str], now: datetime) -> Self:
        """The windows of an occurrence for machines of these zones; the plan begins now, or with the first of them."""
        hours = {zone: local.hours(zone) for zone in sorted(set(zones) - {""})}
        return cls(max(now, min((each.opens_at for each in hours.values()), default=now)), hours)

    def seconds(self, moment: datetime) -> float:
        return (moment - self.begins).total_seconds()

    @property
    def openings(self) -> dict[str, float]:
        """By group, the second at which it is held no longer; without those that are open from the beginning."""
        opens = {window_group(zone): self.seconds(each.opens_at) for zone, each in self.hours.items()}
        return {group: second for group, second in opens.items() if second > 0}

    def rule(self, zone: str) -> str:
        """The hours of a zone in words."""
        opens_at, closes_at = self.hours[zone]
        return f"{zone}: from {opens_at:%Y-%m-%d %H:%M} to {closes_at:%Y-%m-%d %H:%M} UTC"
