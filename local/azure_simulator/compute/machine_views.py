"""Views of a machine in the Compute provider and Resource Graph.

Properties of the fleet file are kept; missing ones are filled as by the server (patch settings with an assessment mode,
an allowed extension, a virtual machine id).
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any, cast

from local.azure_simulator.compute.enablement import PUBLISHER, VERSIONS, extension_name
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.server.json_readers import dig, object_or_none

TYPE = "Microsoft.Compute/virtualMachines"
_POWER_DISPLAY = {"running": "VM running", "stopped": "VM stopped", "deallocated": "VM deallocated"}
_CUSTOM_IMAGES = ("id", "communityGalleryImageId", "sharedGalleryImageId")
_TOP_LEVEL = ("identity", "plan", "extendedLocation", "managedBy")


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` merged into ``base``, object by object; nulls in ``over`` do not replace defaults."""
    made = dict(base)
    for key, value in over.items():
        if value is None and key in base:
            continue
        below = made.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            made[key] = merged(cast(dict[str, Any], below), cast(dict[str, Any], value))
        else:
            made[key] = value
    return made


def _defaults(machine: Machine) -> dict[str, Any]:
    windows = machine.os_type == "Windows"
    arm = machine.simulation.architecture == "Arm64"
    image = (
        {"publisher": "MicrosoftWindowsServer", "offer": "WindowsServer", "sku": "2022-datacenter-azure-edition"}
        if windows
        else {"publisher": "Canonical", "offer": "0001-com-ubuntu-server-jammy", "sku": "22_04-lts-gen2"}
    )
    if arm:
        image["sku"] = "22_04-lts-arm64"
    has_agent = machine.simulation.agent != "missing"
    if windows:
        given = dig(machine.given, "properties", "osProfile", "windowsConfiguration", "patchSettings", "patchMode")
        half: dict[str, Any] = {
            "provisionVMAgent": has_agent,
            # Set together with the mode at creation: Manual requires false.
            "enableAutomaticUpdates": given != "Manual",
            "patchSettings": {"patchMode": "AutomaticByOS", "assessmentMode": "ImageDefault"},
        }
    else:
        half = {
            "disablePasswordAuthentication": True,
            "provisionVMAgent": has_agent,
            "patchSettings": {"patchMode": "ImageDefault", "assessmentMode": "ImageDefault"},
        }
    return {
        "hardwareProfile": {"vmSize": "Standard_D2ps_v5" if arm else "Standard_D2s_v5"},
        "provisioningState": "Creating" if machine.power == "creating" else "Succeeded",
        "vmId": _unique_id(machine),
        "storageProfile": {
            "imageReference": image | {"version": "latest", "exactVersion": "1.0.20261110"},
            "osDisk": _os_disk(machine),
            "dataDisks": [],
        },
        "osProfile": {
            "computerName": machine.name[:15] if windows else machine.name,
            "adminUsername": "ops",
            "windowsConfiguration" if windows else "linuxConfiguration": half,
            "secrets": [],
            "allowExtensionOperations": has_agent,
            "requireGuestProvisionSignal": True,
        },
        "networkProfile": {"networkInterfaces": []},
        "timeCreated": "2025-06-02T08:14:33.1275304+00:00",
    }


def _unique_id(machine: Machine) -> str:
    born = machine.folded if machine.recreated is None else f"{machine.folded}:{machine.recreated}"
    return str(uuid.UUID(bytes=hashlib.sha256(born.encode()).digest()[:16], version=4))


def _os_disk(machine: Machine) -> dict[str, Any]:
    name = f"{machine.name}_OsDisk"
    group = f"/subscriptions/{machine.subscription_id}/resourceGroups/{machine.resource_group}"
    return {
        "osType": machine.os_type,
        "name": name,
        "createOption": "FromImage",
        "managedDisk": {"storageAccountType": "Premium_LRS", "id": f"{group}/providers/Microsoft.Compute/disks/{name}"},
        "diskSizeGB": 30,
    }


def properties(machine: Machine) -> dict[str, Any]:
    """The ``properties`` of the model view. An availability set comes back with its name in capitals (recorded)."""
    made = merged(_defaults(machine), object_or_none(machine.given.get("properties")))
    made.pop("instanceView", None)
    made.pop("extended", None)
    reference = object_or_none(dig(machine.given, "properties", "storageProfile", "imageReference"))
    if any(reference.get(name) for name in _CUSTOM_IMAGES):
        # A machine of a custom image has its id, and no publisher, offer and sku.
        made["storageProfile"] = made["storageProfile"] | {"imageReference": reference}
    if machine.recreated is not None:
        made["timeCreated"] = machine.clock.stamp(machine.recreated)
    set_id = dig(made.pop("availabilitySet", None), "id")
    if set_id:
        path, _, name = str(set_id).rpartition("/")
        made["availabilitySet"] = {"id": f"{path}/{name.upper()}"}
    if scale_set_id := dig(made.pop("virtualMachineScaleSet", None), "id"):
        made["virtualMachineScaleSet"] = {"id": scale_set_id}
    return made


def model(
    machine: Machine, *, instance_view_at: float | None = None, shout_group: bool = False, is_updating: bool = False
) -> dict[str, Any]:
    """The ARM document of a machine.

    Args:
        machine: the machine, settled.
        instance_view_at: expands the instance view, as of this simulated time.
        shout_group: writes the resource group in capitals, as lists often do.
        is_updating: whether this responds to an update that has just begun, at any clock speed.
    """
    machine_id = machine.id
    if shout_group:
        machine_id = machine_id.replace(f"/{machine.resource_group}/", f"/{machine.resource_group.upper()}/", 1)
    made: dict[str, Any] = {"name": machine.name, "id": machine_id, "type": TYPE, "location": machine.location}
    made |= {key: value for key, value in (("tags", machine.tags), ("zones", machine.zones)) if value}
    made |= {key: machine.given[key] for key in _TOP_LEVEL if machine.given.get(key) is not None}
    shown = properties(machine)
    if is_updating or machine.last_changed(machine.clock.now()) is None:
        shown["provisioningState"] = "Updating"
    if instance_view_at is not None:
        shown["instanceView"] = instance_view(machine, instance_view_at)
    return made | {"properties": shown, "etag": '"1"'}


def _status(code: str, display: str, time: str | None = None, message: str | None = None) -> dict[str, Any]:
    made = {"code": code, "level": "Info", "displayStatus": display, "message": message, "time": time}
    return {key: value for key, value in made.items() if value is not None}


def power_status(machine: Machine) -> dict[str, Any]:
    power = "running" if machine.power == "creating" else machine.power
    return _status(f"PowerState/{power}", _POWER_DISPLAY.get(power, f"VM {power}"))


def instance_view(machine: Machine, now: float) -> dict[str, Any]:
    """The instance view, without the keys that Azure omits."""
    made: dict[str, Any] = {}
    if machine.update_domain is not None:
        made["platformUpdateDomain"] = machine.update_domain
    if machine.fault_domain is not None:
        made["platformFaultDomain"] = machine.fault_domain
    agent = machine.agent(now)
    stamp = machine.clock.stamp(now)
    if agent != "absent":
        if agent == "ready":
            windows = machine.os_type == "Windows"
            made |= {
                "computerName": machine.name,
                "osName": "Windows Server 2022 Datacenter Azure Edition" if windows else "ubuntu",
                "osVersion": "10.0.20348.2527" if windows else "22.04",
            }
        made["vmAgent"] = _agent(machine, agent, stamp)
        if machine.app_health is not None:
            made["vmHealth"] = {"status": _app_health(machine, now)}
    given = dig(machine.given, "properties", "storageProfile", "osDisk", "name")
    is_made = _status("ProvisioningState/succeeded", "Provisioning succeeded", machine.clock.stamp(0))
    made["disks"] = [{"name": given or _os_disk(machine)["name"], "statuses": [is_made]}]
    made["hyperVGeneration"] = "V2"
    summaries = (
        ("availablePatchSummary", machine.available_summary),
        ("lastPatchInstallationSummary", machine.install_summary),
    )
    patch_status: dict[str, Any] = {name: summary for name, summary in summaries if summary is not None}
    if machine.patch_extension and agent != "absent":
        made["extensions"] = [_patch_extension(machine)]
    if machine.patch_extension == "installed" and machine.is_by_platform:
        patch_status["configurationStatuses"] = _configuration_statuses(machine)
    if patch_status:
        made["patchStatus"] = patch_status
    made["statuses"] = [
        _provisioning(machine, now),
        *([_status("HibernationState/Hibernated", "VM hibernated")] if machine.is_hibernated else []),
        power_status(machine),
    ]
    return made


def _provisioning(machine: Machine, now: float) -> dict[str, Any]:
    if machine.power == "creating":
        return _status("ProvisioningState/creating", "Creating")
    changed = machine.last_changed(now)
    if changed is None:
        return _status("ProvisioningState/updating", "Updating")
    return _status("ProvisioningState/succeeded", "Provisioning succeeded", machine.clock.stamp(changed))


def _app_health(machine: Machine, now: float) -> dict[str, Any]:
    word = "unhealthy" if machine.is_made_unhealthy(now) else str(machine.app_health)
    unwell = "The VM is reporting itself as unhealthy or is unreachable"
    display = {"healthy": "The VM is reporting itself as healthy", "unhealthy": unwell}.get(word, word.capitalize())
    made = _status(f"HealthState/{word}", display, machine.clock.stamp(now))
    return made | ({"level": "Warning"} if word == "unhealthy" else {})


def _agent(machine: Machine, agent: str, stamp: str) -> dict[str, Any]:
    if agent in ("booting", "notReady"):
        booting = agent == "booting"
        message = "VM status blob is found but not yet populated." if booting else "VM Agent is unresponsive."
        status = _status("ProvisioningState/Unavailable", "Not Ready", stamp, message) | {"level": "Warning"}
        return {"vmAgentVersion": "Unknown" if booting else _agent_version(machine), "statuses": [status]}
    is_linux = machine.os_type == "Linux"
    message = "Guest Agent is running" if is_linux else "GuestAgent is running and processing the extensions."
    status = _status("ProvisioningState/succeeded", "Ready", stamp, message)
    handlers = [_handler(machine)] if machine.patch_extension else []
    return {"vmAgentVersion": _agent_version(machine), "extensionHandlers": handlers, "statuses": [status]}


def _patch_extension(machine: Machine) -> dict[str, Any]:
    """The patch extension of the instance view; Azure installs and updates it by itself."""
    name, message = extension_name(machine.os_type), None
    word, display, level = "succeeded", "Provisioning succeeded", "Info"
    if machine.patch_extension == "failed":
        word, display, level = "failed/52", "Provisioning failed", "Error"
        message = "The extension has reported a failure when processing: it could not reach its package source."
    status = _status(f"ProvisioningState/{word}", display, None, message) | {"level": level}
    kind = {"name": name, "type": f"{PUBLISHER}.{name}", "typeHandlerVersion": VERSIONS[machine.os_type]}
    return kind | {"statuses": [status]}


def _handler(machine: Machine) -> dict[str, Any]:
    word, display = ("failed", "Not Ready") if machine.patch_extension == "failed" else ("succeeded", "Ready")
    kind = f"{PUBLISHER}.{extension_name(machine.os_type)}"
    status = _status(f"ProvisioningState/{word}", display)
    return {"type": kind, "typeHandlerVersion": VERSIONS[machine.os_type], "status": status}


def _configuration_statuses(machine: Machine) -> list[dict[str, Any]]:
    """``configurationStatuses``: which modes have taken effect. The codes of assessment modes are [inferred]."""
    half = "windowsConfiguration" if machine.os_type == "Windows" else "linuxConfiguration"
    settings = object_or_none(dig(properties(machine), "osProfile", half, "patchSettings"))
    names = [("patchMode", "PatchMode"), ("assessmentMode", "AssessmentMode")]
    return [
        _status(f"{word}ConfigurationState/Ready", f"Status_{word}ConfigurationState_Ready")
        for key, word in names
        if settings.get(key) == "AutomaticByPlatform"
    ]


def extension_row(machine: Machine, tenant_id: str) -> dict[str, Any]:
    """The row of the patch extension in the table ``resources``; only of a machine that has it."""
    name = extension_name(machine.os_type)
    return {
        "id": f"{machine.id}/extensions/{name}",
        "name": name,
        "type": f"{TYPE.lower()}/extensions",
        "tenantId": tenant_id,
        "kind": "",
        "location": machine.location,
        "resourceGroup": machine.resource_group.lower(),
        "subscriptionId": machine.subscription_id,
        "managedBy": "",
        "sku": None,
        "plan": None,
        "properties": {
            "publisher": PUBLISHER,
            "type": name,
            "typeHandlerVersion": VERSIONS[machine.os_type].rpartition(".")[0],
            "autoUpgradeMinorVersion": True,
            "provisioningState": "Failed" if machine.patch_extension == "failed" else "Succeeded",
        },
        "tags": None,
        "identity": None,
        "zones": None,
        "extendedLocation": None,
    }


def _agent_version(machine: Machine) -> str:
    usual = "2.11.1.12" if machine.os_type == "Linux" else "2.7.41491.1121"
    return machine.simulation.agent_version or ("2.2.45" if machine.simulation.agent == "old" else usual)


def graph_row(machine: Machine, tenant_id: str) -> dict[str, Any]:
    """A row of the table ``resources``: lower-case type and resource group, the power state under ``extended``."""
    row = machine.graph_row
    if row is None:
        shown = properties(machine)
        shown["extended"] = {"instanceView": {"computerName": machine.name, "hyperVGeneration": "V2", "powerState": {}}}
        row = machine.graph_row = {
            "id": machine.id,
            "name": machine.name,
            "type": TYPE.lower(),
            "tenantId": tenant_id,
            "kind": "",
            "location": machine.location,
            "resourceGroup": machine.resource_group.lower(),
            "subscriptionId": machine.subscription_id,
            "managedBy": "",
            "sku": None,
            "plan": machine.given.get("plan"),
            "properties": shown,
            "tags": machine.tags or None,
            "identity": machine.given.get("identity"),
            "zones": machine.zones or None,
            "extendedLocation": machine.given.get("extendedLocation"),
        }
    view = row["properties"]["extended"]["instanceView"]
    view["powerState"] = power_status(machine)
    if machine.power == "running" and machine.simulation.agent != "missing":
        view["vmAgent"] = {"vmAgentVersion": _agent_version(machine)}
    else:
        view.pop("vmAgent", None)
    return row
