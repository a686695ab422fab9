"""How long an installation may last, from what is left of the window (safety rule 8)."""

from __future__ import annotations

from datetime import datetime, timedelta

from domain.patching import SHORTEST_DURATION

REBOOT_RESERVE = timedelta(minutes=55)
"""What an installation may add after its maximum duration: 15 minutes that the Linux agent keeps for the reboot and the
40 that it waits for the machine to come back."""


def permitted_duration(now: datetime, maximum: timedelta, window_end: datetime | None) -> timedelta | None:
    """The maximum duration to send, in whole minutes; ``None`` when the window leaves too little to start at all.

    The agents keep the reboot inside the maximum duration, so the whole rest of the window may be given.
    """
    if window_end is None:
        return maximum
    left = min(maximum, window_end - now)
    whole_minutes = timedelta(minutes=left // timedelta(minutes=1))
    return whole_minutes if whole_minutes >= SHORTEST_DURATION else None


def deadline(now: datetime, duration: timedelta) -> datetime:
    """When to stop waiting for an operation that was given ``duration``: some never end, or end without saying so."""
    return now + duration + REBOOT_RESERVE
