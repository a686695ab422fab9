"""What still fits into a window: the last moment to start an installation, and how long it may last (safety rule 8)."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from patchwave.domain.policy.install import Install, shortest_installation
from patchwave.domain.policy.scope import OsType

REBOOT_RESERVE = timedelta(minutes=55)
"""What an installation may add after its maximum duration: 15 minutes that the Linux agent keeps for the reboot and the
40 that it waits for the machine to come back."""

RESTART_NEEDS = timedelta(minutes=10)
"""No restart begins with less left of the window: what the Windows agent keeps free for one. Linux keeps 15."""


def cutoff(window_end: datetime, install: Install, os_type: OsType) -> datetime:
    """The last moment at which an installation may start."""
    return window_end - shortest_installation(install, os_type)


def last_start(window_end: datetime, install: Install, os_types: Iterable[OsType]) -> datetime:
    """The cutoff of whichever of the systems needs the least time; ``os_types`` must not be empty."""
    return max(cutoff(window_end, install, os_type) for os_type in os_types)


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
