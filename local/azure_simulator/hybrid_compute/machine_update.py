"""PATCH of an Arc machine: tags and patch settings.

Sources: the types of Microsoft.HybridCompute (2024-07-10) for the modes, a recording of ``Update-AzConnectedMachine``
for the answer. The words of the refusals are those of Compute (assumed).
"""

from __future__ import annotations

from typing import Any, cast

from local.azure_simulator.compute.machine_views import merged
from local.azure_simulator.hybrid_compute.machine import ArcMachine
from local.azure_simulator.server import errors
from local.azure_simulator.server.json_readers import dig, object_or_none

SECONDS = 5.0
_MODES = {
    "assessmentMode": ("ImageDefault", "AutomaticByPlatform"),
    "patchMode": ("ImageDefault", "AutomaticByPlatform", "AutomaticByOS", "Manual"),
}
_HALVES = {"Windows": "windowsConfiguration", "Linux": "linuxConfiguration"}


def update_machine(machine: ArcMachine, body: object, now: float) -> None:
    """Apply the body of a PATCH; the machine is ``Updating`` for some seconds.

    Raises:
        ArmError: 400 for settings of the other operating system, or values that do not exist.
    """
    if not isinstance(body, dict):
        raise errors.unreadable_body("the body must be a JSON object")
    given = cast(dict[str, Any], body)
    half = _HALVES[machine.os_type]
    profile = object_or_none(dig(given, "properties", "osProfile"))
    for other in set(_HALVES.values()) - {half}:
        if profile.get(other):
            raise errors.invalid_parameter(f"Parameter '{other}' is not allowed for this operating system.", other)
    chosen = object_or_none(dig(profile, half, "patchSettings"))
    for key, allowed in _MODES.items():
        if chosen.get(key) not in (None, *allowed):
            message = f"The value '{chosen[key]}' of parameter '{key}' is not valid. Allowed: {', '.join(allowed)}."
            raise errors.invalid_parameter(message, f"{half}.patchSettings.{key}")
    if isinstance(given.get("tags"), dict):
        machine.tags = {str(key): str(value) for key, value in object_or_none(given["tags"]).items()}
    if chosen:
        changed = {"osProfile": {half: {"patchSettings": chosen}}}
        machine.given |= {"properties": merged(object_or_none(machine.given.get("properties")), changed)}
    machine.updating_until = now + SECONDS
    machine.graph_row = None
