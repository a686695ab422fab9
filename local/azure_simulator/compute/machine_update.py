"""PATCH and PUT of a virtual machine: tags and patch settings, with Azure's refusals.

Sources: "Automatic VM guest patching" for the modes and their transitions; the message about hotpatching is from a
published response; the others are not recorded.
"""

from __future__ import annotations

from typing import Any, cast

from local.azure_simulator.compute import machine_views
from local.azure_simulator.compute.guest_agent import Completion
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.server import errors
from local.azure_simulator.server.json_readers import dig, object_or_none

SECONDS = 12.0
_MODES = {
    "Windows": ("Manual", "AutomaticByOS", "AutomaticByPlatform"),
    "Linux": ("ImageDefault", "AutomaticByPlatform"),
}
_ASSESSMENT_MODES = ("ImageDefault", "AutomaticByPlatform")
_REBOOT_SETTINGS = ("Unknown", "IfRequired", "Never", "Always")
_FIXED = ("computerName", "adminUsername")
_HALVES = {"Windows": "windowsConfiguration", "Linux": "linuxConfiguration"}


def update_machine(machine: Machine, body: object, now: float) -> Completion:
    """Apply the body of a PATCH or PUT; the machine is ``Updating`` until the returned end.

    Raises:
        ArmError: 400 for inconsistent settings, 409 for settings that cannot change, or not now.
    """
    if not isinstance(body, dict):
        raise errors.unreadable_body("the body must be a JSON object")
    given = cast(dict[str, Any], body)
    half = _HALVES[machine.os_type]
    profile = object_or_none(dig(given, "properties", "osProfile"))
    for other in set(_HALVES.values()) - {half}:
        if profile.get(other):
            raise errors.invalid_parameter(f"Parameter '{other}' is not allowed for this operating system.", other)
    machine.settle(now)
    if machine.is_changing_power:
        raise errors.changing_power(machine.name)
    if machine.active is not None or now < max(machine.busy_until, machine.updating_until):
        raise errors.busy("Update VM", machine.name)
    current = object_or_none(dig(machine_views.properties(machine), "osProfile"))
    _check_fixed(current, profile, half)
    wanted = _settings(machine, object_or_none(current.get(half)), object_or_none(profile.get(half)))
    machine.updating_until = now + SECONDS
    if machine.simulation.update_fails:
        error = {"code": "InternalExecutionError", "message": "An internal execution error occurred."}
        return Completion(SECONDS, "Failed", error, touches_guest=False)
    if isinstance(given.get("tags"), dict):
        machine.tags = {str(key): str(value) for key, value in object_or_none(given["tags"]).items()}
    if wanted is not None:
        _put_settings(machine, half, wanted)
        machine.settings_changed(now)
    machine.graph_row = None
    return Completion(SECONDS, touches_guest=False)


def _check_fixed(current: dict[str, Any], profile: dict[str, Any], half: str) -> None:
    """Refuse changes of properties that are fixed at creation."""
    automatic = dig(profile, half, "enableAutomaticUpdates")
    if automatic is not None and automatic != dig(current, half, "enableAutomaticUpdates"):
        raise errors.property_is_fixed(f"{half}.enableAutomaticUpdates")
    for key in _FIXED:
        if profile.get(key) not in (None, current.get(key)):
            raise errors.property_is_fixed(f"osProfile.{key}")


def _settings(machine: Machine, current: dict[str, Any], given: dict[str, Any]) -> dict[str, Any] | None:
    """The new patch settings; none when they stay."""
    chosen = object_or_none(given.get("patchSettings"))
    if not chosen:
        return None
    before = object_or_none(current.get("patchSettings"))
    after = machine_views.merged(before, chosen)
    mode, target = after.get("patchMode"), f"{_HALVES[machine.os_type]}.patchSettings"
    _check_word(mode, _MODES[machine.os_type], "patchMode", target)
    _check_word(after.get("assessmentMode", "ImageDefault"), _ASSESSMENT_MODES, "assessmentMode", target)
    if mode != "AutomaticByPlatform":
        if chosen.get("automaticByPlatformSettings"):
            raise errors.invalid_parameter(
                "'automaticByPlatformSettings' is only allowed when 'patchMode' is 'AutomaticByPlatform'.",
                f"{target}.automaticByPlatformSettings",
            )
        after.pop("automaticByPlatformSettings", None)
    _check_mode(machine, current, before, after, target)
    settings = object_or_none(after.get("automaticByPlatformSettings"))
    reboot, below = settings.get("rebootSetting", "Unknown"), f"{target}.automaticByPlatformSettings"
    _check_word(reboot, _REBOOT_SETTINGS, "rebootSetting", below)
    if after.get("enableHotpatching") and settings.get("bypassPlatformSafetyChecksOnUserSchedule"):
        raise errors.invalid_parameter(
            "Hotpatch updates require platform safety checks. The 'BypassPlatformSafetyChecksOnUserSchedule' flag must "
            "be set to false",
            f"{below}.bypassPlatformSafetyChecksOnUserSchedule",
        )
    return after


def _check_mode(
    machine: Machine, current: dict[str, Any], before: dict[str, Any], after: dict[str, Any], target: str
) -> None:
    if "AutomaticByPlatform" in (after.get("patchMode"), after.get("assessmentMode")):
        if machine.simulation.image_unsupported:
            raise errors.unsupported_image()
        if current.get("provisionVMAgent") is False:
            message = "'AutomaticByPlatform' requires 'provisionVMAgent' to be true."
            raise errors.invalid_parameter(message, f"{target}.patchMode")
    old, new = before.get("patchMode"), after.get("patchMode")
    if {old, new} == {"AutomaticByOS", "Manual"}:
        message = f"Changing the patch mode from '{old}' to '{new}' is not allowed."
        raise errors.not_allowed(message, f"{target}.patchMode")
    needed = {"Manual": False, "AutomaticByOS": True}.get(str(new))
    if old != new and needed is not None and current.get("enableAutomaticUpdates") is not needed:
        message = f"Patch mode '{new}' requires 'enableAutomaticUpdates' to be {str(needed).lower()}."
        raise errors.invalid_parameter(message, f"{target}.patchMode")


def _check_word(value: object, allowed: tuple[str, ...], key: str, target: str) -> None:
    if value not in allowed:
        message = f"The value '{value}' of parameter '{key}' is not valid. Allowed: {', '.join(allowed)}."
        raise errors.invalid_parameter(message, f"{target}.{key}")


def _put_settings(machine: Machine, half: str, settings: dict[str, Any]) -> None:
    """Replace the settings as a whole, without remains of earlier ones."""
    given = object_or_none(machine.given.get("properties"))
    profile = object_or_none(given.get("osProfile"))
    changed = object_or_none(profile.get(half)) | {"patchSettings": settings}
    machine.given = machine.given | {"properties": given | {"osProfile": profile | {half: changed}}}
