"""Bodies of Microsoft.Maintenance for tests: the examples of "How to programmatically manage updates for Azure VMs"."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

from patchwave.domain.maintenance.configuration import MaintenanceConfiguration, read_configuration

SUBSCRIPTION = "aaaa0a0a-bb1b-cc2c-dd3d-eeeeee4e4e4e"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/atscalepatching"
CONFIGURATION = f"{GROUP}/providers/Microsoft.Maintenance/maintenanceConfigurations/TestAzureInGuestAdv2"
MACHINE = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/win-atscalepatching-1"
THEN = datetime(2021, 8, 20, 12, 0, tzinfo=UTC)
"""When the example was written: its start lies ahead."""

EXAMPLE: dict[str, Any] = {
    "location": "eastus2euap",
    "properties": {
        "namespace": None,
        "extensionProperties": {"InGuestPatchMode": "User"},
        "maintenanceScope": "InGuestPatch",
        "maintenanceWindow": {
            "startDateTime": "2021-08-21 01:18",
            "expirationDateTime": "2221-05-19 03:30",
            "duration": "01:30",
            "timeZone": "India Standard Time",
            "recurEvery": "Day",
        },
        "visibility": "Custom",
        "installPatches": {
            "rebootSetting": "IfRequired",
            "windowsParameters": {"classificationsToInclude": ["Security", "Critical", "UpdateRollup"]},
            "linuxParameters": {"classificationsToInclude": ["Other"]},
        },
    },
}
ASSIGNMENT: dict[str, Any] = {
    "properties": {
        "maintenanceConfigurationId": (
            f"/subscriptions/{SUBSCRIPTION}/resourcegroups/atscalepatching/providers/Microsoft.Maintenance"
            "/maintenanceConfigurations/TestAzureInGuestIntermediate2"
        )
    },
    "location": "eastus2euap",
}


def changed(path: str, value: object) -> dict[str, Any]:
    """The example with one property changed; ``None`` takes it away."""
    body = copy.deepcopy(EXAMPLE)
    *outer, last = path.split(".")
    place: dict[str, Any] = body
    for step in outer:
        place = place[step]
    place.pop(last, None)
    if value is not None:
        place[last] = value
    return body


def configuration(path: str = "", value: object = None, *, identity: str = CONFIGURATION) -> MaintenanceConfiguration:
    """The example, or the example with one property changed."""
    found = read_configuration({**(changed(path, value) if path else EXAMPLE), "id": identity})
    assert found is not None
    return found
