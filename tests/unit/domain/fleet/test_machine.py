"""Machines with their settings, out of rows as Resource Graph shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from local.azure_simulator.resource_graph.query import Query
from patchwave.domain.fleet.discovery import build_queries
from patchwave.domain.fleet.machine import SETTINGS_COLUMNS, FleetMachine, read_machine, select_fleet
from patchwave.domain.fleet.patch_mode import AssessmentMode, PatchMode
from patchwave.domain.policy.scope import Scope

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
PREFIX = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/"
BY_PLATFORM = {
    "patchMode": "AutomaticByPlatform",
    "assessmentMode": "AutomaticByPlatform",
    "automaticByPlatformSettings": {"bypassPlatformSafetyChecksOnUserSchedule": True},
}


def resource(name: str, os_type: str, **profile: Any) -> dict[str, Any]:
    """A row of the table ``resources``."""
    return {
        "id": PREFIX + name,
        "name": name,
        "type": "microsoft.compute/virtualmachines",
        "location": "westeurope",
        "properties": {
            "timeCreated": "2025-06-02T08:14:33.1275304+00:00",
            "storageProfile": {
                "osDisk": {"osType": os_type},
                "imageReference": {"publisher": "Canonical", "offer": "UbuntuServer", "sku": "18.04-LTS"},
            },
            "osProfile": profile,
        },
    }


def read(*resources: dict[str, Any]) -> list[FleetMachine]:
    """What our own query makes of the rows."""
    [query] = build_queries(Scope(), SETTINGS_COLUMNS)
    columns = {
        "id",
        "name",
        "type",
        "subscriptionId",
        "resourceGroup",
        "location",
        "zones",
        "tags",
        "properties",
        "sku",
    }
    rows = Query(query.text, {"resources": columns}).run(list(resources))
    return select_fleet(Scope(), rows)


def test_everything_that_resource_graph_shows() -> None:
    linux = {
        "allowExtensionOperations": False,
        "linuxConfiguration": {
            "provisionVMAgent": True,
            "patchSettings": BY_PLATFORM,
            "ssh": {"publicKeys": ["secret"]},
        },
    }
    [machine] = read(resource("vm-1", "Linux", **linux))
    assert machine.settings is not None
    assert machine.settings.patch_mode is PatchMode.AUTOMATIC_BY_PLATFORM
    assert machine.settings.assessment_mode is AssessmentMode.AUTOMATIC_BY_PLATFORM
    assert machine.settings.bypass
    assert machine.created_at == datetime(2025, 6, 2, 8, 14, 33, 127530, UTC)
    assert machine.found.image == "Canonical:UbuntuServer:18.04-LTS"
    assert machine.folded == (PREFIX + "vm-1").lower()
    assert "allowExtensionOperations" in machine.unsupported


def test_a_system_is_read_by_its_own_configuration() -> None:
    windows = {"windowsConfiguration": {"provisionVMAgent": False, "enableAutomaticUpdates": False}}
    [machine] = read(resource("vm-1", "Windows", **windows, linuxConfiguration={"patchSettings": BY_PLATFORM}))
    assert machine.settings is not None
    assert machine.settings.patch_mode is PatchMode.MANUAL
    assert not machine.settings.provision_vm_agent


def test_a_machine_without_settings_has_the_defaults() -> None:
    [machine] = read(resource("vm-1", "Linux") | {"properties": {"storageProfile": {"osDisk": {"osType": "Linux"}}}})
    assert machine.settings is not None
    assert machine.settings.patch_mode is PatchMode.IMAGE_DEFAULT
    assert machine.agent_version == ""
    assert machine.eligibility.unknown == ("agentVersion", "image")
    assert machine.unsupported == ""


def test_each_machine_once_in_the_order_of_ids() -> None:
    two, one = resource("VM-2", "Linux"), resource("vm-1", "Windows")
    again = resource("vm-2", "Linux")
    assert [machine.found.name.lower() for machine in read(two, one, again)] == ["vm-1", "vm-2"]


def test_an_id_that_cannot_be_read_keeps_a_machine_from_guest_patching() -> None:
    machine = read_machine({"id": "/subscriptions/x", "osType": "Linux"})
    assert [obstacle.cause for obstacle in machine.eligibility.obstacles] == ["unreadable_id"]
    assert "'/subscriptions/x'" in machine.eligibility.sentence
    assert select_fleet(Scope(), [{"id": "/subscriptions/x", "osType": "Linux"}, {"id": None}]) != []
    assert len(select_fleet(Scope(), [{"id": "/subscriptions/x"}, {"id": None}, {"id": 7}])) == 2


def test_a_uniform_scale_set_has_no_settings_and_is_no_machine_of_automatic_patching() -> None:
    group = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg/providers/Microsoft.Compute"
    row = {"id": f"{group}/virtualMachineScaleSets/vmss", "profileOsType": "Windows", "instances": 3}
    machine = read_machine(row)
    assert machine.settings is None
    [obstacle] = machine.eligibility.obstacles
    assert obstacle.cause == "uniform_scale_set"
    assert "3 instances" in machine.unsupported
