"""The patch extension of a machine, and enablement of automatic guest patching.

"Automatic VM guest patching", "Enablement and assessment": a machine that is set to AutomaticByPlatform gets the patch
extension of its system; that takes about three hours, only in its off-peak hours and while it runs, and goes on in the
next ones. Once enabled, it has the extension and a first assessment. Off-peak is 22:00 to 06:00 of the simulated
calendar, in UTC. The first operation of a client on the machine brings the extension too [inferred].
"""

from __future__ import annotations

from datetime import datetime, time, timedelta

OFF_PEAK_BEGINS, OFF_PEAK_ENDS = time(22), time(6)
NEEDED = timedelta(hours=3)
PUBLISHER = "Microsoft.CPlat.Core"
VERSIONS = {"Windows": "1.5.79", "Linux": "1.6.60"}


def extension_name(os_type: str) -> str:
    """Name and type of the extension of a system."""
    return "WindowsPatchExtension" if os_type == "Windows" else "LinuxPatchExtension"


def enabled_at(changed: datetime) -> datetime:
    """When three hours of off-peak time have passed since the settings changed."""
    left, moment = NEEDED, changed
    while True:
        begin, end = _off_peak(moment)
        moment = max(moment, begin)
        if moment + left <= end:
            return moment + left
        left -= end - moment
        moment = end


def _off_peak(moment: datetime) -> tuple[datetime, datetime]:
    """The off-peak hours of this moment, or the next ones."""
    day = moment.date() - timedelta(days=1) if moment.timetz().replace(tzinfo=None) < OFF_PEAK_ENDS else moment.date()
    begin = datetime.combine(day, OFF_PEAK_BEGINS, moment.tzinfo)
    return begin, datetime.combine(day + timedelta(days=1), OFF_PEAK_ENDS, moment.tzinfo)
