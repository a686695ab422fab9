"""Views of an Arc machine, its extensions and its patch results, in the Hybrid Compute provider and Resource Graph.

Sources: recordings of Az.ConnectedMachine (2023-12, 2024-11) and of ``az connectedmachine`` (2025-03) for documents and
the order of keys. The operating system is ``windows`` in a machine and ``Windows`` in a result, and ``errorDetails`` is
missing in a result without errors. The counts of a Linux result are an assumption.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from local.azure_simulator.compute.machine_views import merged
from local.azure_simulator.compute.operations import Operation
from local.azure_simulator.compute.patches import count_by_classification
from local.azure_simulator.hybrid_compute.machine import EXTENSIONS, ArcMachine
from local.azure_simulator.server.json_readers import dig, object_or_none

_SERVICES = {
    "red hat": "YUM",
    "rhel": "YUM",
    "centos": "YUM",
    "oracle": "YUM",
    "rocky": "YUM",
    "alma": "YUM",
    "suse": "Zypper",
}
"""By a word of the ``osSku`` of a Linux machine; others use APT."""
PUBLISHER = "Microsoft.SoftwareUpdateManagement"
_CLASSES = {
    "Windows": (
        "security", "critical", "definition", "updateRollup", "featurePack", "servicePack", "tools", "updates",
    ),
    "Linux": ("security", "critical", "other"),
}  # fmt: skip
_COUNTS = ("notSelected", "pending", "failed", "installed", "excluded")


def zulu(stamp: str) -> str:
    """A stamp with the ``Z`` that this provider writes."""
    return stamp.replace("+00:00", "Z")


def _defaults(machine: ArcMachine) -> dict[str, Any]:
    windows = machine.os_type == "Windows"
    system = machine.os_type.lower()
    arm = machine.simulation.architecture == "Arm64"
    unique = hashlib.sha256(machine.folded.encode()).digest()
    fqdn = f"{machine.name}.corp.example"
    return {
        "provisioningState": "Succeeded",
        "agentVersion": _agent_version(machine),
        "errorDetails": [],
        "displayName": machine.name,
        "machineFqdn": fqdn,
        "osName": system,
        "osVersion": "10.0.20348.2700" if windows else "5.15.0-1074-generic",
        "osType": system,
        "osProfile": {
            "computerName": machine.name[:15] if windows else machine.name,
            f"{system}Configuration": {"patchSettings": {"assessmentMode": "ImageDefault"}},
        },
        "vmId": str(uuid.UUID(bytes=unique[:16], version=4)),
        "vmUuid": str(uuid.UUID(bytes=unique[16:], version=4)).upper(),
        "osSku": "Windows Server 2022 Standard" if windows else "Ubuntu 22.04.4 LTS",
        "osEdition": "server" if windows else "jammy",
        "domainName": "corp.example",
        "adFqdn": fqdn,
        "dnsFqdn": fqdn,
        "mssqlDiscovered": "false",
        "cloudMetadata": {"provider": "N/A"},
        "detectedProperties": {
            "architecture": "arm64" if arm else "amd64",
            "cloudprovider": "N/A",
            "coreCount": "4",
            "logicalCoreCount": "8",
            "manufacturer": "Simulated",
            "model": "Virtual Machine",
            "totalPhysicalMemoryInGigabytes": "16",
        },
        "agentConfiguration": {
            "proxyUrl": "",
            "incomingConnectionsPorts": [],
            "extensionsAllowList": [],
            "extensionsBlockList": [],
            "proxyBypass": [],
            "extensionsEnabled": "true",
            "guestConfigurationEnabled": "true",
            "configMode": "full",
        },
        "serviceStatuses": {
            "extensionService": {"status": "running", "startupType": "automatic"},
            "guestConfigurationService": {"status": "running", "startupType": "automatic"},
        },
        "agentUpgrade": {"enableAutomaticUpgrade": False},
    }


def _agent_version(machine: ArcMachine) -> str:
    usual = "1.12.02335.618" if machine.simulation.agent == "old" else "1.58.03245.2684"
    return machine.simulation.agent_version or usual


def properties(machine: ArcMachine, now: float) -> dict[str, Any]:
    """The ``properties`` of a machine: those of the fleet file, with the server's and the current status."""
    made = merged(_defaults(machine), object_or_none(machine.given.get("properties")))
    made["osType"] = str(made["osType"]).lower()
    if machine.simulation.agent_version or machine.simulation.agent == "old":
        made["agentVersion"] = _agent_version(machine)
    changed = machine.clock.stamp(machine.status_changed(now))
    return made | {"status": machine.status(now), "lastStatusChange": zulu(changed)}


def model(machine: ArcMachine, now: float, *, is_updating: bool = False, in_list: bool = False) -> dict[str, Any]:
    """The ARM document of a machine; its extensions are only in that of one machine, not in a list."""
    shown = properties(machine, now)
    if is_updating or now < machine.updating_until:
        shown["provisioningState"] = "Updating"
    made: dict[str, Any] = {"id": machine.id, "name": machine.name, "location": machine.location}
    made |= {"tags": machine.tags, "identity": _identity(machine), "type": machine.TYPE, "properties": shown}
    if machine.given.get("kind"):
        made["kind"] = machine.given["kind"]
    return made if in_list else made | {"resources": extensions(machine)}


def _identity(machine: ArcMachine) -> dict[str, Any]:
    digest = hashlib.sha256(f"{machine.folded}/identity".encode()).digest()
    principal = str(uuid.UUID(bytes=digest[:16], version=4))
    return object_or_none(machine.given.get("identity")) or {"type": "SystemAssigned", "principalId": principal}


def extensions(machine: ArcMachine) -> list[dict[str, Any]]:
    """The update extension, which the first patch operation installs."""
    if not machine.has_extension:
        return []
    name = EXTENSIONS[machine.os_type]
    shown = {
        "publisher": PUBLISHER,
        "type": name,
        "typeHandlerVersion": "1.0.28.0",
        "autoUpgradeMinorVersion": False,
        "enableAutomaticUpgrade": True,
        "settings": {},
        "provisioningState": "Succeeded",
        "instanceView": {
            "name": name,
            "type": name,
            "typeHandlerVersion": "1.0.28.0",
            "status": {"code": "0", "level": "Information", "message": "Extension Message: Ready."},
        },
    }
    return [
        {
            "id": f"{machine.id}/extensions/{name}",
            "name": name,
            "type": f"{machine.TYPE}/extensions",
            "location": machine.location,
            "properties": shown,
        }
    ]


def graph_row(machine: ArcMachine, tenant_id: str, now: float) -> dict[str, Any]:
    """A row of the table ``resources``."""
    row = machine.graph_row
    if row is None:
        row = machine.graph_row = {
            "id": machine.id,
            "name": machine.name,
            "type": machine.TYPE.lower(),
            "tenantId": tenant_id,
            "kind": machine.given.get("kind") or "",
            "location": machine.location,
            "resourceGroup": machine.resource_group.lower(),
            "subscriptionId": machine.subscription_id,
            "managedBy": "",
            "sku": None,
            "plan": None,
            "properties": properties(machine, now),
            "tags": machine.tags or None,
            "identity": _identity(machine),
            "zones": None,
            "extendedLocation": None,
        }
    changed = zulu(machine.clock.stamp(machine.status_changed(now)))
    row["properties"] |= {"status": machine.status(now), "lastStatusChange": changed}
    return row


def patch_service(machine: ArcMachine) -> str:
    """What patches the machine, in the provider's words (its WSUS is ``WU_WSUS``, which no machine here uses)."""
    if machine.os_type == "Windows":
        return "WU"
    system = str(dig(machine.given, "properties", "osSku") or "").casefold()
    return next((service for word, service in _SERVICES.items() if word in system), "APT")


def extension_rows(machine: ArcMachine, tenant_id: str) -> list[dict[str, Any]]:
    """The rows of its extensions in the table ``resources``."""
    place = {"resourceGroup": machine.resource_group.lower(), "subscriptionId": machine.subscription_id}
    return [
        extension | {"type": f"{machine.TYPE}/extensions".lower(), "tenantId": tenant_id, "kind": ""} | place
        for extension in extensions(machine)
    ]


def result(machine: ArcMachine, operation: Operation) -> dict[str, Any]:
    """The result of a completed assessment or installation, without its list of patches."""
    clock = machine.clock
    inner = operation.result(clock) or {}
    made: dict[str, Any] = {
        "startDateTime": zulu(clock.stamp(operation.started)),
        "lastModifiedDateTime": zulu(clock.stamp(operation.ends)),
        "startedBy": "Platform" if operation.maintenance_run else "User",
    }
    service = {"patchServiceUsed": patch_service(machine), "status": inner["status"]}
    if operation.kind == "assess":
        counts = count_by_classification(inner)
        made |= {"rebootPending": inner["rebootPending"]} | service
        made["availablePatchCountByClassification"] = {name: counts[name] for name in _CLASSES[machine.os_type]}
        made |= {"assessmentActivityId": operation.id, "osType": machine.os_type}
    else:
        made |= service
        made |= {key: inner[key] for key in ("maintenanceWindowExceeded", "rebootStatus")}
        made |= {f"{name}PatchCount": inner[f"{name}PatchCount"] for name in _COUNTS}
        made |= {"osType": machine.os_type, "installationActivityId": operation.id}
    error = object_or_none(inner.get("error"))
    is_clean = error.get("code") in ("0", "Success")
    return made if is_clean else made | {"errorDetails": error}
