"""Windows names of time zones, which Azure's schedules use, with the IANA zones they stand for.

The names are those of Unicode's CLDR, in tzlocal, and two that CLDR has dropped and Azure still takes: Windows itself
calls both of them "Old".
"""

from collections.abc import Mapping

from tzlocal import windows_tz

_OLD = {"Kamchatka Standard Time": "Asia/Kamchatka", "Mid-Atlantic Standard Time": "Etc/GMT+2"}
ZONES: Mapping[str, str] = windows_tz.win_tz | _OLD
"""IANA zone by Windows name, each in its documented spelling."""
_BY_FOLDED_NAME = {name.casefold(): name for name in ZONES}
_BY_FOLDED_ZONE = {zone.casefold(): name for zone, name in windows_tz.tz_win.items()}


def documented_name(name: str) -> str:
    """The documented spelling of a Windows name; empty when there is no such name."""
    return _BY_FOLDED_NAME.get(name.strip().casefold(), "")


def is_old(name: str) -> bool:
    """Whether Windows may keep daylight saving in this zone where the IANA zone has none."""
    return documented_name(name) in _OLD


def windows_name(zone: str) -> str:
    """The Windows name of an IANA zone; empty when it has none."""
    return _BY_FOLDED_ZONE.get(zone.strip().casefold(), "")
