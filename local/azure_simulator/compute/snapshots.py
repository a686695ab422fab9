"""Snapshots of OS disks: PUT, GET, DELETE and lists of the Compute provider.

Source: the REST pages of "Snapshots" and recordings of ``az snapshot``: a PUT answers 202 with the snapshot in the
state ``Updating``, and again 200 when the snapshot is there; its source can never be changed.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from local.azure_simulator.compute import machine_views
from local.azure_simulator.compute.guest_agent import Completion
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.server import errors
from local.azure_simulator.server.json_readers import dig, object_or_none
from local.azure_simulator.server.routing import ArmResponse, Call, Route, pretty
from local.azure_simulator.state import AzureState

TYPE = "Microsoft.Compute/snapshots"
COPY_SECONDS = 6.0
_SUBSCRIPTION = "/subscriptions/{subscription}"
_GROUP = _SUBSCRIPTION + "/resourceGroups/{group}"
_ONE = _GROUP + "/providers/Microsoft.Compute/snapshots/{snapshot}"


@dataclass(slots=True)
class Snapshot:
    """One snapshot; it is ready, or has failed, at ``ends``."""

    id: str
    subscription_id: str
    resource_group: str
    name: str
    location: str
    machine: Machine
    given: dict[str, Any]
    created: float
    ends: float
    fails: bool
    tags: dict[str, str] = field(default_factory=dict[str, str])
    unique_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def state(self, now: float) -> str:
        if now < self.ends:
            return "Updating"
        return "Failed" if self.fails else "Succeeded"


class Snapshots:
    """Handlers of ``Microsoft.Compute/snapshots``."""

    def __init__(self, azure: AzureState) -> None:
        self.azure = azure
        self._all: dict[str, Snapshot] = {}
        self._sources: dict[str, Machine] | None = None

    def routes(self) -> list[Route]:
        return [
            Route("PUT", _ONE, "snapshot", self.put),
            Route("GET", _ONE, "snapshot", self.get),
            Route("DELETE", _ONE, "snapshot", self.delete),
            Route("GET", _GROUP + "/providers/Microsoft.Compute/snapshots", "list", self.list_snapshots),
            Route("GET", _SUBSCRIPTION + "/providers/Microsoft.Compute/snapshots", "list", self.list_snapshots),
        ]

    def put(self, call: Call) -> ArmResponse:
        """Create a snapshot, or change the tags of an existing one."""
        self.azure.group(call.subscription, call.group)
        body = object_or_none(call.json())
        given = object_or_none(body.get("properties"))
        tags = {str(key): str(value) for key, value in object_or_none(body.get("tags")).items()}
        source = str(dig(given, "creationData", "sourceResourceId") or "")
        found = self._all.get(call.key)
        if found is not None:
            if source and source.casefold() != str(dig(found.given, "creationData", "sourceResourceId")).casefold():
                message = "Changing property 'creationData' is not allowed."
                raise errors.refusal(409, "PropertyChangeNotAllowed", message, target="source")
            found.tags = tags
            return pretty(self._document(found))
        machine = self._source(source)
        if machine is None:
            raise errors.resource_not_found("Microsoft.Compute/disks", source.rpartition("/")[2], call.group)
        if machine.simulation.forbidden:
            raise errors.forbidden("Microsoft.Compute/snapshots/write", machine.id, self.azure.client_id)
        if str(body.get("location", "")).casefold() != machine.location.casefold():
            raise errors.invalid_parameter("A snapshot has to be in the location of its source.", "location")
        return self._create(call, machine, given, tags)

    def _create(self, call: Call, machine: Machine, given: dict[str, Any], tags: dict[str, str]) -> ArmResponse:
        now = self.azure.clock.now()
        fails = machine.simulation.snapshot_fails
        made = Snapshot(
            id=call.path.rstrip("/"),
            subscription_id=call.subscription,
            resource_group=call.group,
            name=call.captured["snapshot"],
            location=machine.location,
            machine=machine,
            given=given,
            created=now,
            ends=now + COPY_SECONDS,
            fails=fails,
            tags=tags,
        )
        self._all[call.key] = made
        error = {"code": "InternalDiskManagementError", "message": "Disk service returned an internal error."}
        completion = Completion(
            COPY_SECONDS, "Failed" if fails else "Succeeded", error if fails else None, touches_guest=False
        )
        return self._accepted(call, made, completion, pretty(self._document(made, now), 202))

    def get(self, call: Call) -> ArmResponse:
        self.azure.group(call.subscription, call.group)
        found = self._all.get(call.key)
        if found is None:
            raise errors.resource_not_found(TYPE, call.captured["snapshot"], call.group)
        return pretty(self._document(found))

    def delete(self, call: Call) -> ArmResponse:
        """202 with operation URLs; 204 when there is nothing to delete."""
        self.azure.group(call.subscription, call.group)
        found = self._all.pop(call.key, None)
        if found is None:
            return ArmResponse(204)
        return self._accepted(call, found, Completion(1.0, touches_guest=False), ArmResponse(202))

    def list_snapshots(self, call: Call) -> ArmResponse:
        self.azure.scope(call.subscription, call.group)
        found = (each for each in self._all.values() if call.covers(each.subscription_id, each.resource_group))
        return pretty({"value": [self._document(each) for each in found]})

    def graph_rows(self, subscriptions: set[str] | None) -> list[dict[str, Any]]:
        """The rows of the table ``resources``; ``subscriptions`` are normalized."""
        return [
            self._document(each)
            | {
                "type": TYPE.lower(),
                "resourceGroup": each.resource_group.lower(),
                "subscriptionId": each.subscription_id,
                "tenantId": self.azure.tenant_id,
                "tags": each.tags or None,
            }
            for each in self._all.values()
            if subscriptions is None or each.subscription_id.casefold() in subscriptions
        ]

    def _source(self, disk_id: str) -> Machine | None:
        """The machine with this OS disk. An ephemeral disk cannot be copied."""
        if self._sources is None:
            self._sources = {}
            for machine in self.azure.machines.values():
                if not isinstance(machine, Machine):
                    continue
                disk = object_or_none(dig(machine_views.properties(machine), "storageProfile", "osDisk"))
                if not disk.get("diffDiskSettings"):
                    self._sources[str(dig(disk, "managedDisk", "id")).casefold()] = machine
        return self._sources.get(disk_id.casefold())

    def _accepted(self, call: Call, snapshot: Snapshot, completion: Completion, answer: ArmResponse) -> ArmResponse:
        operation = self.azure.operations.begin("snapshot", snapshot.machine, completion, call.api_version)
        polling, location = self.azure.operations.urls(operation)
        answer.headers |= {"Azure-AsyncOperation": polling, "Location": location}
        return answer

    def _document(self, each: Snapshot, at: float | None = None) -> dict[str, Any]:
        return {
            "name": each.name,
            "id": each.id,
            "type": TYPE,
            "location": each.location,
            "tags": dict(each.tags),
            "sku": {"name": "Standard_LRS", "tier": "Standard"},
            "properties": {
                "osType": each.machine.os_type,
                "hyperVGeneration": "V2",
                **each.given,
                "diskSizeGB": 30,
                "encryption": {"type": "EncryptionAtRestWithPlatformKey"},
                "timeCreated": self.azure.clock.stamp(each.created),
                "provisioningState": each.state(self.azure.clock.now() if at is None else at),
                "diskState": "Unattached",
                "uniqueId": each.unique_id,
            },
        }
