"""Requests to Microsoft.Maintenance of a simulator: ids, bodies, and configurations that are there."""

from __future__ import annotations

from typing import Any

from tests.support.simulator import SUBSCRIPTION, Json, Simulator

API = {"api-version": "2023-04-01"}
CANCEL_API = {"api-version": "2025-11-01"}
PROVIDER = "/providers/Microsoft.Maintenance"


def configuration_id(name: str) -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-maintenance{PROVIDER}/maintenanceConfigurations/{name}"


def body(**window: Any) -> Json:
    """A configuration that patches everything every night, in 2030."""
    return {
        "location": "westeurope",
        "properties": {
            "maintenanceScope": "InGuestPatch",
            "extensionProperties": {"InGuestPatchMode": "User"},
            "maintenanceWindow": {
                "startDateTime": "2030-01-05 22:00",
                "duration": "02:00",
                "timeZone": "W. Europe Standard Time",
                "recurEvery": "Day",
            }
            | window,
            "installPatches": {
                "rebootSetting": "IfRequired",
                "windowsParameters": {"classificationsToInclude": ["Critical", "Security"]},
                "linuxParameters": {"classificationsToInclude": ["Critical", "Security"]},
            },
        },
    }


def put(simulator: Simulator, path: str, document: Json) -> Any:
    return simulator.http.put(path, params=API, json=document)


def made(simulator: Simulator, name: str) -> str:
    one = configuration_id(name)
    assert put(simulator, one, body()).status_code == 200
    return one
