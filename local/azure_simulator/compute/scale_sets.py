"""Virtual machine scale sets: Flexible ones, whose members are virtual machines of their own, and Uniform ones.

Sources: the Compute models of 2024-11-01 (``virtualMachineScaleSet`` and ``platformFaultDomain`` of a machine,
``orchestrationMode``, ``platformFaultDomainCount`` and ``extensionProfile`` of a set), and "Using Application Health
extension with Virtual Machine Scale Sets". Inferred: the model of a member shows the fault domain that it was created
with, its instance view the one that it has, 0 for all members where the set has one fault domain (maximum spreading).
The instances of a Uniform set are no virtual machines, and so no rows of ``resources``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from local.azure_simulator.arm.names import folded
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.server.json_readers import dig, list_or_empty, object_or_none

TYPE = "Microsoft.Compute/virtualMachineScaleSets"
SET_ID = re.compile(
    r"/subscriptions/[0-9a-f-]{36}/resourceGroups/[^/]+/providers/Microsoft\.Compute/virtualMachineScaleSets/[^/]+",
    re.IGNORECASE,
)
_HEALTH_EXTENSIONS = ("ApplicationHealthLinux", "ApplicationHealthWindows")
_TOP_LEVEL = {
    "id", "name", "type", "location", "tags", "zones", "sku", "identity", "plan", "etag", "resourceGroup",
    "subscriptionId", "tenantId", "kind", "managedBy", "extendedLocation", "properties",
}  # fmt: skip


@dataclass(slots=True)
class ScaleSet:
    """A scale set. ``given`` is its document from the fleet file, empty for one that only its members name."""

    id: str
    location: str
    given: dict[str, Any] = field(default_factory=dict[str, Any])
    members: list[Machine] = field(default_factory=list[Machine])

    @property
    def name(self) -> str:
        return self.id.split("/")[8]

    @property
    def subscription_id(self) -> str:
        return self.id.split("/")[2]

    @property
    def resource_group(self) -> str:
        return self.id.split("/")[4]

    @property
    def key(self) -> str:
        return folded(self.id)

    @property
    def properties(self) -> dict[str, Any]:
        """The properties that the file gives, flat or under ``properties``."""
        flat = {name: value for name, value in self.given.items() if name not in _TOP_LEVEL}
        return flat | object_or_none(self.given.get("properties"))

    @property
    def is_flexible(self) -> bool:
        """Uniform is what Azure takes a set for that names no mode; one with members is Flexible."""
        mode = str(self.properties.get("orchestrationMode") or ("Flexible" if self.members else "Uniform"))
        return mode.casefold() == "flexible"

    @property
    def fault_domains(self) -> int:
        """How many fault domains the set spreads over; 1 is maximum spreading, which new sets have."""
        count = self.properties.get("platformFaultDomainCount")
        if isinstance(count, int) and count > 0:
            return count
        return max((_given_domain(machine) + 1 for machine in self.members), default=1) or 1

    @property
    def extensions(self) -> list[Any]:
        """The extensions of the set's model; a set that only its members name has that of their health, if any."""
        profile = object_or_none(self.properties.get("virtualMachineProfile"))
        listed = list_or_empty(dig(profile, "extensionProfile", "extensions"))
        if listed or not any(machine.simulation.app_health for machine in self.members):
            return listed
        kind = f"ApplicationHealth{self._os_type}"
        shown = {"publisher": "Microsoft.ManagedServices", "type": kind, "typeHandlerVersion": "2.0"}
        return [{"name": kind, "properties": shown | {"settings": {"protocol": "tcp", "port": 80}}}]

    @property
    def monitors_health(self) -> bool:
        """Whether new members get the Application Health extension."""
        kinds = [str(dig(each, "properties", "type") or dig(each, "type")) for each in self.extensions]
        return any(kind.casefold() == known.casefold() for kind in kinds for known in _HEALTH_EXTENSIONS)

    @property
    def _os_type(self) -> str:
        given = dig(self.properties, "virtualMachineProfile", "storageProfile", "osDisk", "osType")
        return str(given or (self.members[0].os_type if self.members else "Linux"))

    def join(self, machine: Machine) -> None:
        """Take a machine in: it gets the next fault domain of its zone unless the file says which it has."""
        in_zone = sum(other.zones == machine.zones for other in self.members)
        self.members.append(machine)
        given = _given_domain(machine)
        machine.fault_domain = given if given >= 0 else in_zone % self.fault_domains

    def document(self) -> dict[str, Any]:
        """The ARM document. The capacity of a Flexible set is the number of members that it has."""
        given = self.given
        alive = [machine for machine in self.members if not machine.simulation.deleted]
        sku = {"name": "Standard_D2s_v5", "tier": "Standard", "capacity": 1} | object_or_none(given.get("sku"))
        if self.members:
            sku["capacity"] = len(alive)
        profile = object_or_none(self.properties.get("virtualMachineProfile"))
        storage = {"osDisk": {"osType": self._os_type, "createOption": "FromImage"}}
        profile = {**profile, "storageProfile": storage | object_or_none(profile.get("storageProfile"))}
        if self.extensions:
            profile["extensionProfile"] = {"extensions": self.extensions}
        made: dict[str, Any] = {"name": self.name, "id": self.id, "type": TYPE, "location": self.location, "sku": sku}
        made |= {key: given[key] for key in ("tags", "zones", "identity", "plan") if given.get(key)}
        made["properties"] = {
            "singlePlacementGroup": not self.is_flexible,
            "provisioningState": "Succeeded",
            **self.properties,
            "orchestrationMode": "Flexible" if self.is_flexible else "Uniform",
            "platformFaultDomainCount": self.fault_domains,
            "virtualMachineProfile": profile,
        }
        return made

    def graph_row(self, tenant_id: str) -> dict[str, Any]:
        """The row of ``resources``: lower-case type and resource group, and every column."""
        shown = self.document()
        columns = ("name", "id", "location", "sku", "properties")
        optional = ("tags", "zones", "identity", "plan", "managedBy", "extendedLocation")
        return {key: shown[key] for key in columns} | {key: shown.get(key) for key in optional} | {
            "type": TYPE.lower(),
            "tenantId": tenant_id,
            "kind": "",
            "resourceGroup": self.resource_group.lower(),
            "subscriptionId": self.subscription_id,
        }  # fmt: skip


class ScaleSets:
    """All scale sets by id: those of the fleet file, and those that only machines name."""

    def __init__(self, given: Iterable[ScaleSet]) -> None:
        self._sets: dict[str, ScaleSet] = {each.key: each for each in given}

    def __iter__(self) -> Iterator[ScaleSet]:
        return iter(self._sets.values())

    def find(self, set_id: str) -> ScaleSet | None:
        return self._sets.get(folded(set_id))

    def join(self, machine: Machine) -> None:
        """Make a machine a member of the set that its document names, if it names one."""
        set_id = str(dig(machine.given, "properties", "virtualMachineScaleSet", "id") or "")
        if not SET_ID.fullmatch(set_id):
            return
        found = self._sets.setdefault(folded(set_id), ScaleSet(set_id, machine.location))
        found.join(machine)
        machine.scale_set_monitors_health = found.monitors_health


def read_scale_set(given: dict[str, Any]) -> ScaleSet | str:
    """A scale set of a fleet file; a text says what is wrong with it."""
    set_id, location = given.get("id"), given.get("location")
    if not isinstance(set_id, str) or not SET_ID.fullmatch(set_id):
        return f"{set_id!r} is not the id of a scale set"
    if not location:
        return "it has no location"
    return ScaleSet(set_id, str(location).replace(" ", "").lower(), given)


def _given_domain(machine: Machine) -> int:
    """The fault domain that the file gives; -1 where it does not, as Azure writes for none."""
    properties = machine.given.get("properties")
    for found in (dig(properties, "platformFaultDomain"), dig(properties, "instanceView", "platformFaultDomain")):
        if isinstance(found, int) and found >= 0:
            return found
    return -1
