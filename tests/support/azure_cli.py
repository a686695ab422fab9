"""`az` commands of Microsoft's documents, translated to the requests that the Azure CLI sends.

Sources: the parameters' help in Azure/azure-cli (command modules ``vm`` and, as an extension, ``maintenance``) and the
models of azure-mgmt-compute. In words:

- ``vm assess-patches`` posts no body; ``vm install-patches`` always sends both halves, without members that have no
  value.
- ``vm get-instance-view`` reads the machine with ``$expand=instanceView``.
- ``vm update --set`` reads the machine, sets the named properties, and puts the whole machine back.
- ``vm create`` deploys a template; of it only the ``osProfile`` of the machine is translated.
- ``maintenance configuration create`` and ``maintenance assignment create`` put their document. A list argument may
  be a single text.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

type Json = dict[str, Any]

_COMPUTE = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{name}"
_MAINTENANCE = "/providers/Microsoft.Maintenance"


@dataclass(frozen=True)
class ArmRequest:
    """A request to Resource Manager; ``changes`` are laid over what a GET of the path answers before a PUT."""

    method: str
    path: str
    body: Json | None = None
    changes: Json | None = None
    query: Mapping[str, str] = field(default_factory=dict[str, str])


def translate(command: str, subscription: str) -> ArmRequest:
    """The request of an ``az`` command.

    Raises:
        ValueError: The command is not known.
        SystemExit: An argument is not known, or is missing.
    """
    words = shlex.split(command.replace("\\\n", " "))
    for name, make in _COMMANDS.items():
        prefix = ["az", *name.split()]
        if words[: len(prefix)] == prefix:
            return make(words[len(prefix) :], subscription)
    raise ValueError(f"this command has no translation: {command}")


def _parser(*names: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--resource-group", "-g", dest="group", required=True)
    for name in names:
        parser.add_argument(f"--{name}")
    return parser


def _on_machine(*names: str) -> argparse.ArgumentParser:
    parser = _parser(*names)
    parser.add_argument("--name", "-n", required=True)
    return parser


def _path(given: argparse.Namespace, subscription: str) -> str:
    return _COMPUTE.format(subscription=subscription, group=given.group, name=given.name)


def _assess(words: list[str], subscription: str) -> ArmRequest:
    given = _on_machine().parse_args(words)
    return ArmRequest("POST", f"{_path(given, subscription)}/assessPatches")


def _install(words: list[str], subscription: str) -> ArmRequest:
    parser = _on_machine("maximum-duration", "reboot-setting", "exclude-kbs-requiring-reboot")
    for name in ("classifications-to-include-win", "kb-numbers-to-include", "kb-numbers-to-exclude"):
        parser.add_argument(f"--{name}", nargs="+")
    for name in ("classifications-to-include-linux", "package-name-masks-to-include", "package-name-masks-to-exclude"):
        parser.add_argument(f"--{name}", nargs="+")
    given = parser.parse_args(words)
    excludes_reboots = given.exclude_kbs_requiring_reboot
    windows = {
        "classificationsToInclude": given.classifications_to_include_win,
        "kbNumbersToInclude": given.kb_numbers_to_include,
        "kbNumbersToExclude": given.kb_numbers_to_exclude,
        "excludeKbsRequiringReboot": None if excludes_reboots is None else excludes_reboots == "true",
    }
    linux = {
        "classificationsToInclude": given.classifications_to_include_linux,
        "packageNameMasksToInclude": given.package_name_masks_to_include,
        "packageNameMasksToExclude": given.package_name_masks_to_exclude,
    }
    body = {
        "maximumDuration": given.maximum_duration,
        "rebootSetting": given.reboot_setting,
        "windowsParameters": _without_none(windows),
        "linuxParameters": _without_none(linux),
    }
    return ArmRequest("POST", f"{_path(given, subscription)}/installPatches", body)


def _instance_view(words: list[str], subscription: str) -> ArmRequest:
    given = _on_machine().parse_args(words)
    return ArmRequest("GET", _path(given, subscription), query={"$expand": "instanceView"})


def _update(words: list[str], subscription: str) -> ArmRequest:
    parser = _on_machine()
    parser.add_argument("--set", nargs="+", required=True)
    given = parser.parse_args(words)
    changes: Json = {}
    for each in given.set:
        key, _, value = each.partition("=")
        _put(changes, ["properties", *key.split(".")], {"true": True, "false": False}.get(value, value))
    return ArmRequest("PUT", _path(given, subscription), changes=changes)


def _create(words: list[str], subscription: str) -> ArmRequest:
    parser = _on_machine("image", "patch-mode")
    parser.add_argument("--enable-agent", action="store_true")
    parser.add_argument("--enable-auto-update", action="store_true")
    given = parser.parse_args(words)
    half: Json = {"provisionVMAgent": given.enable_agent, "patchSettings": {"patchMode": given.patch_mode}}
    windows = half | {"enableAutomaticUpdates": given.enable_auto_update}
    return ArmRequest(
        "PUT", _path(given, subscription), {"properties": {"osProfile": {"windowsConfiguration": windows}}}
    )


def _configuration(words: list[str], subscription: str) -> ArmRequest:
    parser = _parser("resource-name", "maintenance-scope", "location", "reboot-setting")
    for name in ("duration", "recur-every", "start-date-time", "time-zone", "expiration-date-time"):
        parser.add_argument(f"--maintenance-window-{name}", dest=name)
    for name in ("install-patches-linux-parameters", "install-patches-windows-parameters", "extension-properties"):
        parser.add_argument(f"--{name}", nargs="+", default=[])
    given = vars(parser.parse_args(words))
    window = {
        "startDateTime": given["start-date-time"],
        "expirationDateTime": given["expiration-date-time"],
        "duration": given["duration"],
        "timeZone": given["time-zone"],
        "recurEvery": given["recur-every"],
    }
    properties = {
        "maintenanceScope": given["maintenance_scope"],
        "extensionProperties": dict(each.split("=", 1) for each in given["extension_properties"]),
        "maintenanceWindow": _without_none(window),
        "installPatches": {
            "rebootSetting": given["reboot_setting"],
            "linuxParameters": _lists(given["install_patches_linux_parameters"]),
            "windowsParameters": _lists(given["install_patches_windows_parameters"]),
        },
    }
    path = f"/subscriptions/{subscription}/resourceGroups/{given['group']}{_MAINTENANCE}/maintenanceConfigurations"
    return ArmRequest(
        "PUT", f"{path}/{given['resource_name']}", {"location": given["location"], "properties": properties}
    )


def _assignment(words: list[str], subscription: str) -> ArmRequest:
    parser = _parser("location", "resource-name", "resource-type", "provider-name", "configuration-assignment-name")
    parser.add_argument("--maintenance-configuration-id", dest="configuration")
    given = parser.parse_args(words)
    scope = f"/subscriptions/{subscription}/resourceGroups/{given.group}/providers/{given.provider_name}"
    path = f"{scope}/{given.resource_type}/{given.resource_name}{_MAINTENANCE}/configurationAssignments"
    body = {"location": given.location, "properties": {"maintenanceConfigurationId": given.configuration}}
    return ArmRequest("PUT", f"{path}/{given.configuration_assignment_name}", body)


def _lists(words: list[str]) -> Json:
    """``key-in-words="A"`` as ``{"keyInWords": ["A"]}``."""
    pairs = (each.split("=", 1) for each in words)
    return {_camel(key): value.split(",") for key, value in pairs}


def _camel(name: str) -> str:
    first, *rest = name.split("-")
    return first + "".join(each.capitalize() for each in rest)


def _put(document: Json, path: list[str], value: object) -> None:
    for key in path[:-1]:
        document = document.setdefault(key, {})
    document[path[-1]] = value


def _without_none(document: Json) -> Json:
    return {key: value for key, value in document.items() if value is not None}


_COMMANDS: Mapping[str, Callable[[list[str], str], ArmRequest]] = {
    "vm assess-patches": _assess,
    "vm install-patches": _install,
    "vm get-instance-view": _instance_view,
    "vm update": _update,
    "vm create": _create,
    "maintenance configuration create": _configuration,
    "maintenance assignment create": _assignment,
}
