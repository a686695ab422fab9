"""A maintenance configuration: its document, the validation of a PUT, and its window.

Sources: recordings of ``az maintenance`` (2023-04-01) for the document, "Programmatically manage updates" for the
properties, the limits of the guest scope from "Maintenance configurations" (2026-09). Recorded: the reboot setting
``Always`` is answered with ``AlwaysReboot``, ``Never`` with ``NeverReboot``, and a namespace that was not sent is left
out. No recording has the words of the refusals; their form (PascalCase) is recorded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tzlocal import windows_tz

from local.azure_simulator.maintenance.recurrence import Recurrence, read_recurrence
from local.azure_simulator.server.errors import ArmError
from local.azure_simulator.server.json_readers import dig, object_or_none

TYPE = "Microsoft.Maintenance/maintenanceConfigurations"
GUEST_SCOPE = "InGuestPatch"
_SCOPES = (GUEST_SCOPE, "Host", "Resource", "OSImage", "Extension", "SQLDB", "SQLManagedInstance")
_FOREVER = "9999-12-31 23:59:59"
_DATES = ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S")
_SHORTEST, _LONGEST = timedelta(hours=1, minutes=30), timedelta(hours=3, minutes=55)
_MIN_GAP = timedelta(hours=6)
_MAX_CHARACTERS = 128
"""Limit of the names of resource group and configuration together, exclusive."""
_REBOOT_WORDS = {"Always": "AlwaysReboot", "Never": "NeverReboot"}
"""Stored value by sent value."""
# Two zones of Windows that Unicode's table of names has dropped.
_OLD_ZONES = {"Kamchatka Standard Time": "Asia/Kamchatka", "Mid-Atlantic Standard Time": "Etc/GMT+2"}
_ZONES: Mapping[str, str] = {windows.casefold(): name for windows, name in (windows_tz.win_tz | _OLD_ZONES).items()}


@dataclass(frozen=True, slots=True)
class Window:
    """When patches may be installed. ``start`` and ``expires`` are local to the zone."""

    start: datetime
    expires: datetime
    duration: timedelta
    zone: ZoneInfo
    recurrence: Recurrence

    def next_start(self, after: datetime) -> datetime | None:
        """The first start after ``after``, in UTC; none when the schedule has ended."""
        found = next(self.recurrence.starts(self.start, self.zone, after), None)
        if found is None or found.astimezone(self.zone).replace(tzinfo=None) >= self.expires:
            return None
        return found


@dataclass(slots=True, eq=False)
class Configuration:
    """A stored configuration. ``changed`` is the simulated time of its last PUT or PATCH."""

    id: str
    subscription_id: str
    resource_group: str
    name: str
    location: str
    properties: dict[str, Any]
    window: Window | None
    """None outside the guest scope: only guests are patched here."""
    created: float
    changed: float
    tags: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def folded(self) -> str:
        return self.id.casefold()

    @property
    def patches_guests(self) -> bool:
        """Whether it has an effect: the guest scope requires the patch mode ``User``."""
        mode = dig(self.properties, "extensionProperties", "InGuestPatchMode")
        return self.window is not None and str(mode).casefold() == "user"

    def document(self, *, lowered: bool) -> dict[str, Any]:
        """The response of a PUT, or, ``lowered``, with the id as PATCH, GET and lists write it."""
        path = (
            f"/subscriptions/{self.subscription_id}/resourcegroups/{self.resource_group}"
            f"/providers/{TYPE.lower() if lowered else TYPE}/{self.name}"
        )
        return {
            "location": self.location,
            "tags": dict(self.tags),
            "properties": self.properties,
            "id": path,
            "name": self.name,
            "type": TYPE,
        }


def maintenance_error(status: int, code: str, message: str) -> ArmError:
    """An error of Microsoft.Maintenance, with its capital letters (recorded for a 404)."""
    return ArmError(status, {"Error": {"Code": code, "Message": message}})


def invalid(message: str) -> ArmError:
    return maintenance_error(400, "BadRequest", message)


def read_properties(given: object, group: str, name: str, now: datetime) -> tuple[dict[str, Any], Window | None]:
    """Check the properties of a configuration, as sent, and add the server's defaults; ``now`` is the calendar's date.

    Raises:
        ArmError: 400 for invalid properties.
    """
    properties = {key: value for key, value in object_or_none(given).items() if value is not None}
    asked = str(properties.get("maintenanceScope"))
    scope = next((each for each in _SCOPES if each.casefold() == asked.casefold()), "")
    if not scope:
        raise invalid(f"Maintenance scope '{asked}' is not valid.")
    visibility = properties.get("visibility", "Custom")
    if str(visibility).casefold() not in ("custom", "public"):
        raise invalid(f"Visibility '{visibility}' is not valid.")
    made: dict[str, Any] = {
        "extensionProperties": {},
        **properties,
        "maintenanceScope": scope,
        "visibility": visibility,
        "configurationType": "Regular",
    }
    window = object_or_none(properties.get("maintenanceWindow"))
    if window:
        made["maintenanceWindow"] = {"expirationDateTime": _FOREVER} | window
    if scope != GUEST_SCOPE:
        return made, None
    if len(group) + len(name) >= _MAX_CHARACTERS:
        raise invalid("The names of the resource group and the configuration must be shorter than 128 characters.")
    # The words are those of Azure/bicep#8959.
    if dig(made, "extensionProperties", "InGuestPatchMode") not in ("User", "Platform"):
        raise invalid("Extension properties must contain Patch mode")
    patches = object_or_none(made.get("installPatches"))
    _check_patches(patches)
    if patches:
        reboot = str(patches.get("rebootSetting", "IfRequired"))
        made["installPatches"] = patches | {"rebootSetting": _REBOOT_WORDS.get(reboot, reboot)}
    return made, _read_window(object_or_none(made.get("maintenanceWindow")), now)


def _check_patches(patches: dict[str, Any]) -> None:
    reboot = patches.get("rebootSetting", "IfRequired")
    if reboot not in ("IfRequired", "Never", "Always", "NeverReboot", "RebootIfRequired", "AlwaysReboot"):
        raise invalid(f"Reboot setting '{reboot}' is not valid. Allowed: IfRequired, Never, Always.")
    for half in ("windowsParameters", "linuxParameters"):
        for key, value in object_or_none(patches.get(half)).items():
            if key.endswith(("Include", "Exclude")) and not isinstance(value, list | None):
                raise invalid(f"'{half}.{key}' must be a list of strings.")


def _read_window(window: dict[str, Any], now: datetime) -> Window:
    duration = re.fullmatch(r"(\d{1,2}):([0-5]\d)", str(window.get("duration") or "03:55"))
    length = timedelta(hours=int(duration[1]), minutes=int(duration[2])) if duration else timedelta()
    if not _SHORTEST <= length <= _LONGEST:
        text = f"Duration '{window.get('duration')}' is not valid."
        raise invalid(f"{text} It must be between 01:30 and 03:55 for the scope InGuestPatch.")
    zone_name = str(window.get("timeZone") or "")
    if zone_name.casefold() not in _ZONES:
        raise invalid(f"Time zone '{zone_name}' is not valid.")
    start, expires = (_date(window, key) for key in ("startDateTime", "expirationDateTime"))
    zone = ZoneInfo(_ZONES[zone_name.casefold()])
    if start.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != start:
        text = f"'startDateTime' with value '{window.get('startDateTime')}' is an invalid time in '{zone_name}'"
        raise invalid(f"{text}: the clock is adjusted forward then, and skips it.")
    # The end of the calendar, west of Greenwich, is no moment of UTC.
    if expires <= max(start, now.astimezone(zone).replace(tzinfo=None)):
        raise invalid("Expiration date must be set to a future date.")
    try:
        recurrence = read_recurrence(str(window.get("recurEvery") or ""))
    except ValueError as error:
        raise invalid(str(error)) from error
    if recurrence.unit == "month" and not recurrence.days and recurrence.ranked is None:
        raise invalid(f"RecurEvery '{window.get('recurEvery')}' is not valid: a monthly schedule must name its days.")
    if recurrence.shortest_gap(start) < _MIN_GAP:
        raise invalid("A maintenance window of the scope InGuestPatch must not repeat in less than 6 hours.")
    return Window(start, expires, length, zone, recurrence)


def _date(window: dict[str, Any], key: str) -> datetime:
    text = str(window.get(key) or "")
    for form in _DATES:
        try:
            return datetime.strptime(text, form)  # noqa: DTZ007  the window's zone is a field of its own
        except ValueError:
            continue
    raise invalid(f"'{key}' with value '{text}' is not valid. It must be in the format YYYY-MM-DD hh:mm.")
