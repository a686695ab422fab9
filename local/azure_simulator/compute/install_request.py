"""Validates the body of installPatches as Azure does: immediately, with a 400 that names the parameter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from local.azure_simulator.server.errors import invalid_parameter, unreadable_body

_DURATION = re.compile(
    r"P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
)
_KB = re.compile(r"KB\d+", re.IGNORECASE)
_CLASSES = {
    "windowsParameters": {
        "critical", "security", "updaterollup", "featurepack", "servicepack", "definition", "tools", "updates",
    },
    "linuxParameters": {"critical", "security", "other"},
}  # fmt: skip
_KEYS = {
    "windowsParameters": {
        "classificationsToInclude", "kbNumbersToInclude", "kbNumbersToExclude", "excludeKbsRequiringReboot",
        "maxPatchPublishDate", "patchNameMasksToInclude", "patchNameMasksToExclude",
    },
    "linuxParameters": {
        "classificationsToInclude", "packageNameMasksToInclude", "packageNameMasksToExclude", "maintenanceRunId",
    },
}  # fmt: skip
_NEW_IN_2025_04 = {"patchNameMasksToInclude", "patchNameMasksToExclude"}
_INCLUDES = ("classificationsToInclude", "kbNumbersToInclude", "patchNameMasksToInclude", "packageNameMasksToInclude")


@dataclass(frozen=True, slots=True)
class InstallRequest:
    """A valid body."""

    minutes: float
    reboot_setting: str
    parameters: dict[str, Any]
    """The part for the machine's operating system."""


def read_install_request(body: object, os_type: str, api_version: str, rejected_kbs: list[str]) -> InstallRequest:
    """Check and read a body.

    Raises:
        ArmError: 400, with Azure's words where they are recorded.
    """
    if not isinstance(body, dict):
        raise unreadable_body("the body must be a JSON object")
    request = cast(dict[str, Any], body)
    unknown = set(request) - {"maximumDuration", "rebootSetting", "windowsParameters", "linuxParameters"}
    if unknown:
        raise unreadable_body(f"Could not find member '{sorted(unknown)[0]}' on object of type 'InstallPatchesInput'.")
    reboot = request.get("rebootSetting")
    if reboot is None:
        raise invalid_parameter("Required parameter 'rebootSetting' is missing (null).", "rebootSetting")
    settings = {"ifrequired": "IfRequired", "never": "Never", "always": "Always"}
    if str(reboot).casefold() not in settings:
        message = f"The value '{reboot}' of parameter 'rebootSetting' is invalid. Allowed: IfRequired, Never, Always."
        raise invalid_parameter(message, "rebootSetting")
    minutes = _minutes(request.get("maximumDuration"))
    halves = {name: _half(request.get(name), name, api_version, rejected_kbs) for name in _KEYS}
    own = "windowsParameters" if os_type == "Windows" else "linuxParameters"
    if not any(halves[own].get(key) for key in _INCLUDES):
        message = (
            f"At least one classification or one entry to include must be given in '{own}' for this virtual machine."
        )
        raise invalid_parameter(message, f"{own}.classificationsToInclude")
    return InstallRequest(minutes, settings[str(reboot).casefold()], halves[own])


def _minutes(text: object) -> float:
    if text is None:
        return 240.0
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    parts = {name: float(value) for name, value in found.groupdict().items() if value} if found else {}
    if not parts:
        message = f"The value '{text}' of parameter 'maximumDuration' is not an ISO 8601 duration such as PT4H."
        raise invalid_parameter(message, "maximumDuration")
    return timedelta(**parts) / timedelta(minutes=1)


def _half(given: object, name: str, api_version: str, rejected_kbs: list[str]) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise unreadable_body(f"'{name}' must be an object")
    half = cast(dict[str, Any], given)
    known = _KEYS[name] - (_NEW_IN_2025_04 if api_version < "2025-04-01" else set())
    for key, value in half.items():
        if key not in known:
            raise unreadable_body(f"Could not find member '{key}' on object of type '{name[0].upper()}{name[1:]}'.")
        if key.endswith(("Include", "Exclude")) and value is not None:
            if not isinstance(value, list):
                raise unreadable_body(f"'{name}.{key}' must be a list of strings")
            for entry in cast(list[object], value):
                _entry(entry, name, key, rejected_kbs)
    return half


def _entry(entry: object, name: str, key: str, rejected_kbs: list[str]) -> None:
    text = entry if isinstance(entry, str) else ""
    target = f"{name}.{key}"
    if key.startswith("kbNumbers") and (not _KB.fullmatch(text) or text.upper() in {kb.upper() for kb in rejected_kbs}):
        message = f"The entry in '{key}' with value '{entry}' is not valid. It must be a KBID such as KB4512508."
        raise invalid_parameter(message, target)
    if key == "classificationsToInclude" and text.casefold() not in _CLASSES[name]:
        raise invalid_parameter(f"The entry in '{key}' with value '{entry}' is not valid.", target)
    if "Masks" in key and not text.strip():
        raise invalid_parameter(f"The entry in '{key}' must not be null, empty or blank.", target)
    if key.startswith("patchNameMasks") and not re.fullmatch(r"[A-Za-z0-9*?]+", text):
        raise invalid_parameter(
            f"The entry in '{key}' with value '{entry}' is not valid. Only letters, digits, '*' and '?' are supported.",
            target,
        )
