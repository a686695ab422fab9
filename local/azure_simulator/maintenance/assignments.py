"""Configuration assignments: a machine's own, and dynamic scopes over a subscription or a resource group.

Sources: recordings of ``az maintenance assignment``, in which the two kinds differ, and the specification of
Microsoft.Maintenance for the filter. Of a machine the ids inside come back in lower case, ``location`` only from PUT,
and its type inside the assignment's own id is in lower case after PUT, in the documented case after GET. A dynamic
scope keeps its location and the case of the configuration's id; its own id ends in lower case, and unset members of its
filter are null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from local.azure_simulator.arm.names import folded
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.hybrid_compute.machine import AnyMachine, ArcMachine
from local.azure_simulator.maintenance.configurations import invalid
from local.azure_simulator.server.json_readers import list_or_empty, object_or_none

TYPE = "Microsoft.Maintenance/configurationAssignments"
_FILTER_KEYS = ("tagSettings", "resourceTypes", "locations", "resourceGroups", "osTypes")
"""In wire order."""
_PATHS = [f"/providers/{kind.TYPE}/" for kind in (Machine, ArcMachine)]


@dataclass(slots=True, eq=False)
class Assignment:
    """One assignment. ``scope`` is the path before the provider: of a machine, a resource group or a subscription."""

    scope: str
    name: str
    configuration_id: str
    """As sent."""
    location: str | None
    filter: dict[str, Any] | None
    """Of a dynamic scope."""
    created: float
    removed: float | None = None

    @property
    def configuration(self) -> str:
        """The configuration's normalized id."""
        return self.configuration_id.casefold()

    @property
    def folded(self) -> str:
        """The id in lower case, as in Resource Graph."""
        return f"{self.scope}/providers/{TYPE}/{self.name}".lower()

    @property
    def subscription_id(self) -> str:
        return self.scope.split("/")[2]

    @property
    def resource_group(self) -> str:
        """Empty for a whole subscription."""
        parts = self.scope.split("/")
        return parts[4] if len(parts) > 4 else ""

    @property
    def is_dynamic(self) -> bool:
        return self.filter is not None

    def holds(self, machine: AnyMachine) -> bool:
        """Whether the assignment currently contains the machine."""
        if self.filter is None:
            return machine.folded == folded(self.scope)
        if machine.subscription_id.casefold() != self.subscription_id.casefold():
            return False
        if self.resource_group and folded(machine.resource_group) != folded(self.resource_group):
            return False
        wanted = {
            "resourceTypes": machine.TYPE.casefold(),
            "resourceGroups": machine.resource_group.casefold(),
            "osTypes": machine.os_type.casefold(),
            "locations": machine.location.casefold(),
        }
        listed = {key: {str(each).casefold() for each in list_or_empty(self.filter.get(key))} for key in wanted}
        return all(not listed[key] or wanted[key] in listed[key] for key in wanted) and self._tags_hold(machine)

    def _tags_hold(self, machine: AnyMachine) -> bool:
        settings = object_or_none((self.filter or {}).get("tagSettings"))
        tags = {key.casefold(): value for key, value in machine.tags.items()}
        found = [
            tags.get(key.casefold()) in [str(value) for value in list_or_empty(values)]
            for key, values in object_or_none(settings.get("tags")).items()
        ]
        every = all if str(settings.get("filterOperator", "All")).casefold() == "all" else any
        return not found or every(found)

    def document(self, *, is_put: bool) -> dict[str, Any]:
        """The response of a PUT or PATCH, or of GET and lists."""
        if self.filter is not None:
            return self._dynamic_document(self.filter)
        scope = self.scope.lower() if is_put else _documented(self.scope)
        made: dict[str, Any] = {
            "properties": {"maintenanceConfigurationId": self.configuration, "resourceId": self.scope.lower()},
            "id": f"{scope}/providers/{TYPE}/{self.name}",
            "name": self.name,
            "type": TYPE,
        }
        return {"location": self.location} | made if is_put and self.location else made

    def _dynamic_document(self, filter_: dict[str, Any]) -> dict[str, Any]:
        return ({"location": self.location} if self.location else {}) | {
            "properties": {
                "maintenanceConfigurationId": self.configuration_id,
                "resourceId": self.scope.lower(),
                "filter": {key: filter_.get(key) for key in _FILTER_KEYS},
            },
            "id": f"{self.scope.lower()}/providers/{TYPE.lower()}/{self.name}",
            "name": self.name,
            "type": TYPE.lower(),
        }


def _documented(scope: str) -> str:
    """The path of a machine with the type of machines in its documented case, the rest in lower case."""
    made = scope.lower()
    for path in _PATHS:
        made = made.replace(path.lower(), path)
    return made


def read_filter(given: object, *, in_group: bool) -> dict[str, Any]:
    """Validate the filter of a dynamic scope.

    Raises:
        ArmError: 400 for an invalid filter.
    """
    filter_ = {key: value for key, value in object_or_none(given).items() if value is not None}
    for key in ("resourceTypes", "resourceGroups", "osTypes", "locations"):
        if not isinstance(filter_.get(key, []), list):
            raise invalid(f"Filter property '{key}' must be a list of strings.")
    settings = object_or_none(filter_.get("tagSettings"))
    if str(settings.get("filterOperator", "All")) not in ("All", "Any"):
        raise invalid(f"Filter operator '{settings.get('filterOperator')}' is not valid. Allowed: All, Any.")
    if max(len(list_or_empty(filter_.get("resourceGroups"))), len(object_or_none(settings.get("tags")))) > 50:
        raise invalid("A dynamic scope can have at most 50 resource groups and 50 tags.")
    if in_group and not filter_.get("locations"):
        raise invalid("A dynamic scope of a resource group must name locations in its filter.")
    return filter_
