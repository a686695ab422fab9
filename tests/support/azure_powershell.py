"""Cmdlets of Microsoft's documents, and what each of their parameters is in the request that Azure PowerShell sends.

``EQUIVALENTS`` is the table: the place of a parameter in the request's body, or in its path. Sources: the pages of the
cmdlets in azure-docs-powershell and the models of Azure/azure-powershell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

type Json = dict[str, Any]

IN_PATH = "path"
"""The parameter names the resource."""
_PATCHES = "properties.installPatches"
EQUIVALENTS: Mapping[str, Mapping[str, str]] = {
    "invoke-azvmpatchassessment": {"ResourceGroupName": IN_PATH, "VMName": IN_PATH},
    "invoke-azvminstallpatch": {
        "ResourceGroupName": IN_PATH,
        "VMName": IN_PATH,
        "MaximumDuration": "maximumDuration",
        "RebootSetting": "rebootSetting",
        "Linux": "linuxParameters",
        "ClassificationToIncludeForLinux": "linuxParameters.classificationsToInclude",
        "PackageNameMaskToInclude": "linuxParameters.packageNameMasksToInclude",
        "PackageNameMaskToExclude": "linuxParameters.packageNameMasksToExclude",
        "Windows": "windowsParameters",
        "ClassificationToIncludeForWindows": "windowsParameters.classificationsToInclude",
        "KBNumberToInclude": "windowsParameters.kbNumbersToInclude",
        "KBNumberToExclude": "windowsParameters.kbNumbersToExclude",
        "ExcludeKBsRequiringReboot": "windowsParameters.excludeKbsRequiringReboot",
    },
    "get-azvm": {"ResourceGroupName": IN_PATH, "Name": IN_PATH, "Status": "$expand=instanceView"},
    "set-azvmoperatingsystem": {
        "VM": IN_PATH,
        "Windows": "properties.osProfile.windowsConfiguration",
        "ComputerName": "properties.osProfile.computerName",
        "Credential": "properties.osProfile.adminUsername",
        "ProvisionVMAgent": "properties.osProfile.windowsConfiguration.provisionVMAgent",
        "EnableAutoUpdate": "properties.osProfile.windowsConfiguration.enableAutomaticUpdates",
        "PatchMode": "properties.osProfile.windowsConfiguration.patchSettings.patchMode",
    },
    "new-azmaintenanceconfiguration": {
        "ResourceGroup": IN_PATH,
        "Name": IN_PATH,
        "MaintenanceScope": "properties.maintenanceScope",
        "Location": "location",
        "StartDateTime": "properties.maintenanceWindow.startDateTime",
        "TimeZone": "properties.maintenanceWindow.timeZone",
        "Duration": "properties.maintenanceWindow.duration",
        "RecurEvery": "properties.maintenanceWindow.recurEvery",
        "WindowParameterClassificationToInclude": f"{_PATCHES}.windowsParameters.classificationsToInclude",
        "WindowParameterKbNumberToInclude": f"{_PATCHES}.windowsParameters.kbNumbersToInclude",
        "WindowParameterKbNumberToExclude": f"{_PATCHES}.windowsParameters.kbNumbersToExclude",
        "InstallPatchRebootSetting": f"{_PATCHES}.rebootSetting",
        "LinuxParameterPackageNameMaskToInclude": f"{_PATCHES}.linuxParameters.packageNameMasksToInclude",
        "LinuxParameterClassificationToInclude": f"{_PATCHES}.linuxParameters.classificationsToInclude",
        "LinuxParameterPackageNameMaskToExclude": f"{_PATCHES}.linuxParameters.packageNameMasksToExclude",
        "ExtensionProperty": "properties.extensionProperties",
    },
    "new-azconfigurationassignment": {
        "ResourceGroupName": IN_PATH,
        "Location": "location",
        "ResourceName": IN_PATH,
        "ResourceType": IN_PATH,
        "ProviderName": IN_PATH,
        "ConfigurationAssignmentName": IN_PATH,
        "MaintenanceConfigurationId": "properties.maintenanceConfigurationId",
    },
}
_NAME = re.compile(r"\s*([A-Za-z]+-[A-Za-z]+)")
_LISTS = re.compile(r"To(Include|Exclude)(ForLinux|ForWindows)?$")
_PARAMETER = re.compile(
    r"""-(?P<name>[A-Za-z]+)(?:\s+(?P<value>\[[^\]]*\]|@\{[^}]*\}|"[^"]*"|'[^']*'|\$?\w[^\s`]*))?"""
)


@dataclass(frozen=True)
class Cmdlet:
    """A cmdlet: the body of its request, and the parameters that are no part of it."""

    name: str
    body: Json
    others: Mapping[str, str]


def translate(text: str, variables: Mapping[str, object] | None = None) -> Cmdlet:
    """The request of a cmdlet; ``variables`` are the values of names such as ``$location``.

    Raises:
        KeyError: The cmdlet, a parameter or a variable is not known.
    """
    head = _NAME.match(text)
    name, rest = (head[1].casefold(), text[head.end() :]) if head else ("", text)
    table = {key.casefold(): place for key, place in EQUIVALENTS[name].items()}
    body: Json = {}
    others: dict[str, str] = {}
    for found in _PARAMETER.finditer(rest):
        place, value = table[found["name"].casefold()], _value(found["value"], variables or {})
        if place == IN_PATH or place.startswith("$"):
            others[found["name"]] = str(value)
        elif value is True and place.endswith(("Parameters", "Configuration")):
            _put(body, place, {})
        else:
            is_list = _LISTS.search(found["name"]) and not isinstance(value, list)
            _put(body, place, [value] if is_list else value)
    return Cmdlet(name, body, others)


def _value(text: str | None, variables: Mapping[str, object]) -> object:
    if text is None:
        return True
    if text.startswith("["):
        return json.loads(text)
    if text.startswith("@{"):
        return dict(re.findall(r'"(\w+)"="(\w+)"', text))
    if text.startswith("$"):
        return variables[text[1:]]
    return text.strip("\"'")


def _put(document: Json, place: str, value: object) -> None:
    *parents, last = place.split(".")
    for key in parents:
        document = document.setdefault(key, {})
    if isinstance(value, dict) and not value:
        document.setdefault(last, {})
    else:
        document[last] = value
