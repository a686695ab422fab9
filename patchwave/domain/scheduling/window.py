"""What still fits into a window: the last moment to start an installation, and how long it may last (safety rule 8)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from patchwave.domain.azure.install_request import WindowsClassification, format_duration
from patchwave.domain.policy.install import Install
from patchwave.domain.policy.scope import OsType

REBOOT_RESERVE = timedelta(minutes=55)
"""What an installation may add after its maximum duration: 15 minutes that the Linux agent keeps for the reboot and the
40 that it waits for the machine to come back."""

RESTART_NEEDS = timedelta(minutes=10)
"""No restart begins with less left of the window: what the Windows agent keeps free for one. Linux keeps 15."""

# What the guest agents need to begin at all, with the reboot that they keep free inside the maximum duration.
_WINDOWS_NEEDS = timedelta(minutes=25)
"""15 to scan, download and install, 10 for the reboot."""
_SERVICE_PACKS_NEED = timedelta(minutes=30)
"""20 and 10."""
_LINUX_NEEDS = timedelta(minutes=20)
"""5 for a package, 15 for the reboot."""


def shortest_installation(install: Install, os_type: OsType) -> timedelta:
    """The floor: with less than this left of the window, no installation starts on such a machine.

    It is the policy's minimum duration (its maximum, when that is shorter), and never less than the agent needs.
    """
    if os_type is OsType.LINUX:
        needs = _LINUX_NEEDS
    elif WindowsClassification.SERVICE_PACK in install.windows.classifications_to_include:
        needs = _SERVICE_PACKS_NEED
    else:
        needs = _WINDOWS_NEEDS
    return max(needs, min(install.minimum_duration, install.maximum_duration))


def cutoff(window_end: datetime, install: Install, os_type: OsType) -> datetime:
    """The last moment at which an installation may start."""
    return window_end - shortest_installation(install, os_type)


def last_start(window_end: datetime, install: Install, os_types: Iterable[OsType]) -> datetime:
    """The cutoff of whichever of the systems needs the least time; ``os_types`` must not be empty."""
    return max(cutoff(window_end, install, os_type) for os_type in os_types)


def too_short(window: timedelta, install: Install, os_types: Iterable[OsType]) -> str:
    """Why no installation could ever start in a window of this length; empty when it can on each of the systems."""
    for os_type in os_types:
        floor = shortest_installation(install, os_type)
        if window < floor:
            return (
                f"{format_duration(window)} is shorter than one installation on {os_type.value}, which needs"
                f" {format_duration(floor)}; make the window longer, or install.minimumDuration shorter"
            )
    return ""


def permitted_duration(
    now: datetime, window_end: datetime | None, install: Install, os_type: OsType
) -> timedelta | None:
    """The maximum duration to send, in whole minutes; ``None`` after the cutoff.

    It is what is left of the window, at most the policy's maximum; all of the maximum without a window. The agents keep
    the reboot inside the duration that they are given, so whatever starts can end inside the window.
    """
    if window_end is None:
        return install.maximum_duration
    if now > cutoff(window_end, install, os_type):
        return None
    left = min(install.maximum_duration, window_end - now)
    return timedelta(minutes=left // timedelta(minutes=1))


def deadline(now: datetime, duration: timedelta) -> datetime:
    """When to stop waiting for an operation that was given ``duration``: some never end, or end without saying so."""
    return now + duration + REBOOT_RESERVE
