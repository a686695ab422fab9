"""Bodies as Azure sends them: the documented samples, and the shapes that recordings of real traffic show."""

from __future__ import annotations

import json
from typing import Any

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
OPERATION = "68f8b292-dfc2-4646-9781-33cc88631968"
MANAGER = "https://management.azure.com"

_SIGNATURE = "&t=638602622584297411&c=MIIHhz" + "A" * 2_600 + "&s=aT9F" + "b" * 338 + "&h=ZqaW" + "c" * 39
_OPERATION_PATH = (
    f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/westeurope/operations/{OPERATION}"
)
ASYNC_URL = f"{MANAGER}{_OPERATION_PATH}?p=0a1b2c3d-0000-4000-8000-000000000000&api-version=2025-04-01{_SIGNATURE}"
LOCATION_URL = (
    f"{MANAGER}{_OPERATION_PATH}?p=0a1b2c3d-0000-4000-8000-000000000000&monitor=true&api-version=2025-04-01"
    + _SIGNATURE.replace("aT9F", "bU0G")
)

IN_PROGRESS = (
    '{\r\n  "startTime": "2024-08-26T09:44:18.3054961+00:00",\r\n'
    f'  "status": "InProgress",\r\n  "name": "{OPERATION}"\r\n}}'
)

LINUX_CLEAN = {"details": [], "code": "0", "message": "0 error/s reported."}
WINDOWS_CLEAN = {"details": [], "code": "Success", "message": "0 error/s reported"}
ESM_ERROR = {
    "details": [
        {
            "code": "UA_ESM_REQUIRED",
            "message": "133 patches requires Ubuntu Pro for Infrastructure with Extended Security Maintenance",
        }
    ],
    "code": "1",
    "message": "1 error/s reported. The latest 1 error/s are shared in detail. To view all errors, review this log "
    "file on the machine: /var/log/azure/Microsoft.CPlat.Core.LinuxPatchExtension/0.core.log",
}

DOCUMENTED_ASSESSMENT = """{
  "status": "Succeeded",
  "assessmentActivityId": "68f8b292-dfc2-4646-9781-33cc88631968",
  "rebootPending": true,
  "criticalAndSecurityPatchCount": 1,
  "otherPatchCount": 2,
  "startDateTime": "2020-04-24T21:02:04.2556154Z",
  "availablePatches": [
    {
      "patchId": "35428702-5784-4ba4-a6e0-5222258b5411",
      "name": "Definition Update for Windows Defender Antivirus - KB2267602 (Definition 1.279.1373.0)",
      "version": "",
      "kbId": "2267602",
      "classifications": ["Definition Updates"],
      "rebootBehavior": "NeverReboots",
      "activityId": "68f8b292-dfc2-4646-9781-33cc88631968",
      "publishedDate": "2018-11-07T00:00:00Z",
      "lastModifiedDateTime": "2020-04-24T21:18:45.2830263Z",
      "assessmentState": "Available"
    },
    {
      "patchId": "39f9cdd1-795c-4d0e-8c0a-73ab3f31746d",
      "name": "Windows Malicious Software Removal Tool x64 - October 2018 (KB890830)",
      "version": "",
      "kbId": "890830",
      "classifications": ["Update Rollups"],
      "rebootBehavior": "CanRequestReboot",
      "activityId": "68f8b292-dfc2-4646-9781-33cc88631968",
      "publishedDate": "2018-11-07T00:00:00Z",
      "lastModifiedDateTime": "2020-04-24T21:18:45.2830263Z",
      "assessmentState": "Available"
    }
  ],
  "error": null
}"""

DOCUMENTED_INSTALLATION = """{
  "status": "Succeeded",
  "installationActivityId": "68f8b292-dfc2-4646-9781-33cc88631968",
  "rebootStatus": "Completed",
  "maintenanceWindowExceeded": false,
  "excludedPatchCount": 0,
  "notSelectedPatchCount": 0,
  "pendingPatchCount": 2,
  "installedPatchCount": 3,
  "failedPatchCount": 0,
  "startDateTime": "2020-04-24T21:02:04.2556154Z",
  "patches": [
    {
      "patchId": "35428702-5784-4ba4-a6e0-5222258b5411",
      "name": "Definition Update for Windows Defender Antivirus - KB2267602 (Definition 1.279.1373.0)",
      "version": "",
      "kbId": "2267602",
      "classifications": ["Definition Updates"],
      "installationState": "Installed"
    },
    {
      "patchId": "39f9cdd1-795c-4d0e-8c0a-73ab3f31746d",
      "name": "Windows Malicious Software Removal Tool x64 - October 2018 (KB890830)",
      "version": "",
      "kbId": "890830",
      "classifications": ["Update Rollups"],
      "installationState": "Pending"
    }
  ],
  "error": null
}"""


def linux_patch(name: str = "distro-info-data", **fields: Any) -> dict[str, Any]:
    """An item of a Linux assessment, as recorded: no ``kbId``, published in year 1."""
    return {
        "patchId": f"{name}_0.37ubuntu0.18_Ubuntu_18.04",
        "name": name,
        "version": "0.37ubuntu0.18",
        "classifications": ["Security"],
        "rebootBehavior": "NeverReboots",
        "publishedDate": "0001-01-01T00:00:00+00:00",
        "activityId": OPERATION,
        "lastModifiedDateTime": "2024-12-26T06:47:42+00:00",
        "assessmentState": "Available",
    } | fields


def esm_patch(name: str = "libc6") -> dict[str, Any]:
    """An item that only Ubuntu Pro delivers."""
    return linux_patch(name, classifications=["Security-ESM"], version="UA_ESM_Required")


def assessment(**fields: Any) -> dict[str, Any]:
    """The result of an assessment on Linux, as recorded."""
    return {
        "status": "Succeeded",
        "assessmentActivityId": OPERATION,
        "rebootPending": False,
        "criticalAndSecurityPatchCount": 1,
        "otherPatchCount": 0,
        "startDateTime": "2024-12-26T06:46:31.1730000+00:00",
        "availablePatches": [linux_patch()],
        "error": LINUX_CLEAN,
    } | fields


def installation(**fields: Any) -> dict[str, Any]:
    """The result of an installation on Linux, as recorded."""
    return {
        "status": "Succeeded",
        "installationActivityId": OPERATION,
        "rebootStatus": "NotNeeded",
        "maintenanceWindowExceeded": False,
        "excludedPatchCount": 0,
        "notSelectedPatchCount": 0,
        "pendingPatchCount": 0,
        "installedPatchCount": 3,
        "failedPatchCount": 0,
        "patches": [],
        "startDateTime": "2024-11-07T07:36:52+00:00",
        "maintenanceRunId": "",
        "error": LINUX_CLEAN,
    } | fields


def ended(output: dict[str, Any]) -> str:
    """The last poll of an operation that succeeded: the result stands inside, in one compact line."""
    return (
        '{\r\n  "startTime": "2024-08-26T09:44:18.3054961+00:00",\r\n'
        '  "endTime": "2024-08-26T09:47:20.7305899+00:00",\r\n  "status": "Succeeded",\r\n'
        f'  "properties": {{"output": {json.dumps(output, separators=(",", ":"))}}},\r\n  "name": "{OPERATION}"\r\n}}'
    )


def failed(code: str, message: str, *, status: str = "Failed", **error: Any) -> str:
    """The last poll of an operation that failed: HTTP 200 with an error, and no result."""
    return json.dumps(
        {
            "startTime": "2024-10-17T09:44:18.3054961+00:00",
            "endTime": "2024-10-17T09:44:36.7305899+00:00",
            "status": status,
            "error": {"code": code, "message": message} | error,
            "name": OPERATION,
        }
    )


def refusal(code: str, message: str, **error: Any) -> str:
    """An error answer of Resource Manager, CRLF-indented as on the wire."""
    return json.dumps({"error": {"code": code, "message": message} | error}, indent=2).replace("\n", "\r\n")


def machine(power: str = "running", **instance_view: Any) -> dict[str, Any]:
    """A machine with its instance view; ``power`` empty while it is created."""
    statuses = [{"code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Provisioning succeeded"}]
    if power:
        statuses.append({"code": f"PowerState/{power}", "level": "Info", "displayStatus": f"VM {power}"})
    view: dict[str, Any] = {"statuses": statuses, "vmAgent": READY_AGENT} | instance_view
    return {
        "name": "vm-1",
        "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/RG/providers/Microsoft.Compute/virtualMachines/vm-1",
        "location": "westeurope",
        "etag": '"1"',
        "properties": {
            "storageProfile": {"osDisk": {"osType": "Linux"}},
            "provisioningState": "Succeeded",
            "instanceView": {key: value for key, value in view.items() if value is not None},
        },
    }


READY_AGENT = {
    "vmAgentVersion": "2.11.1.12",
    "statuses": [
        {
            "code": "ProvisioningState/succeeded",
            "level": "Info",
            "displayStatus": "Ready",
            "message": "Guest Agent is running",
            "time": "2024-12-26T06:47:42+00:00",
        }
    ],
}
UNKNOWN_AGENT = {
    "vmAgentVersion": "Unknown",
    "statuses": [
        {
            "code": "ProvisioningState/Unavailable",
            "level": "Warning",
            "displayStatus": "Not Ready",
            "message": "VM status blob is found but not yet populated.",
        }
    ],
}
