"""azure-mgmt-maintenance works against the simulator unchanged: every operation that Patchwave could want of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity.aio import DefaultAzureCredential
from azure.mgmt.maintenance.aio import MaintenanceManagementClient
from azure.mgmt.maintenance.models import (
    ConfigurationAssignment,
    ConfigurationAssignmentFilterProperties,
    InputPatchConfiguration,
    InputWindowsParameters,
    MaintenanceConfiguration,
    TagSettingsProperties,
)

from tests.support.simulator import SUBSCRIPTION, Simulator

GROUP = "rg-sim"


@pytest.fixture
async def maintenance(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[MaintenanceManagementClient]:
    for name, value in simulator.ready["environment"].items():
        monkeypatch.setenv(name, value)
    arm = simulator.ready["arm"]
    async with (
        DefaultAzureCredential() as credential,
        MaintenanceManagementClient(
            credential,
            SUBSCRIPTION,
            base_url=arm,
            credential_scopes=[f"{arm}/.default"],
            connection_verify=simulator.ready["ca"],
        ) as client,
    ):
        yield client


def a_configuration(**changes: Any) -> MaintenanceConfiguration:
    settings: dict[str, Any] = {
        "location": "westeurope",
        "maintenance_scope": "InGuestPatch",
        "extension_properties": {"InGuestPatchMode": "User"},
        "visibility": "Custom",
        "start_date_time": "2030-01-05 22:00",
        "duration": "03:55",
        "time_zone": "India Standard Time",
        "recur_every": "Month Second Tuesday Offset4",
        "install_patches": InputPatchConfiguration(
            reboot_setting="IfRequired",
            windows_parameters=InputWindowsParameters(classifications_to_include=["Security", "Critical"]),
        ),
    }
    return MaintenanceConfiguration(**settings | changes)


async def a_schedule(client: MaintenanceManagementClient, name: str) -> str:
    made = await client.maintenance_configurations.create_or_update(GROUP, name, a_configuration())
    return str(made.id)


async def test_configurations(maintenance: MaintenanceManagementClient) -> None:
    client = maintenance.maintenance_configurations
    made = await client.create_or_update(GROUP, "Sdk-One", a_configuration())
    assert made.expiration_date_time == "9999-12-31 23:59:59"
    read = await client.get(GROUP, "Sdk-One")
    assert read.recur_every == "Month Second Tuesday Offset4"
    assert read.install_patches is not None
    assert read.install_patches.windows_parameters is not None
    assert read.install_patches.windows_parameters.classifications_to_include == ["Security", "Critical"]
    changed = await client.update(GROUP, "Sdk-One", MaintenanceConfiguration(duration="02:00"))
    assert (changed.duration, changed.time_zone) == ("02:00", "India Standard Time")
    assert "Sdk-One" in [each.name async for each in client.list()]
    group = maintenance.maintenance_configurations_for_resource_group
    assert "Sdk-One" in [each.name async for each in group.list(GROUP)]
    await client.delete(GROUP, "Sdk-One")
    await client.delete(GROUP, "Sdk-One")
    with pytest.raises(ResourceNotFoundError):
        await client.get(GROUP, "Sdk-One")


async def test_a_refusal_is_the_sdk_s_error(maintenance: MaintenanceManagementClient) -> None:
    refused = a_configuration(duration="05:00")
    with pytest.raises(HttpResponseError) as caught:
        await maintenance.maintenance_configurations.create_or_update(GROUP, "Sdk-Refused", refused)
    assert caught.value.status_code == 400


async def test_assignments_of_a_machine(simulator: Simulator, maintenance: MaintenanceManagementClient) -> None:
    schedule, name = await a_schedule(maintenance, "Sdk-Two"), simulator.take().rpartition("/")[2]
    client = maintenance.configuration_assignments
    place = (GROUP, "Microsoft.Compute", "virtualMachines", name)
    wanted = ConfigurationAssignment(location="westeurope", maintenance_configuration_id=schedule)
    made = await client.create_or_update(*place, "Sdk-Assigned", wanted)
    assert made.location == "westeurope"
    read = await client.get(*place, "Sdk-Assigned")
    assert read.location is None
    assert read.maintenance_configuration_id == schedule.lower()
    assert [each.name async for each in client.list(*place)] == ["Sdk-Assigned"]
    everything = maintenance.configuration_assignments_within_subscription
    assert "Sdk-Assigned" in [each.name async for each in everything.list()]
    await client.delete(*place, "Sdk-Assigned")
    assert [each.name async for each in client.list(*place)] == []


async def test_dynamic_scopes(maintenance: MaintenanceManagementClient) -> None:
    schedule = await a_schedule(maintenance, "Sdk-Three")
    tags = TagSettingsProperties(tags=cast("Any", {"env": ["prod"]}), filter_operator="Any")
    filter_ = ConfigurationAssignmentFilterProperties(locations=["westeurope"], os_types=["Linux"], tag_settings=tags)
    wanted = ConfigurationAssignment(maintenance_configuration_id=schedule, filter=filter_)
    whole = maintenance.configuration_assignments_for_subscriptions
    made = await whole.create_or_update("Sdk-Whole", wanted)
    assert made.resource_id == f"/subscriptions/{SUBSCRIPTION}"
    assert made.filter is not None
    assert made.filter.tag_settings is not None
    assert made.filter.tag_settings.tags == {"env": ["prod"]}
    assert (await whole.get("Sdk-Whole")).id == made.id
    await whole.delete("Sdk-Whole")
    group = maintenance.configuration_assignments_for_resource_group
    await group.create_or_update(GROUP, "Sdk-Group", wanted)
    changed = ConfigurationAssignmentFilterProperties(os_types=["Windows"])
    after = await group.update(GROUP, "Sdk-Group", ConfigurationAssignment(filter=changed))
    assert after.filter is not None
    assert after.filter.os_types == ["Windows"]
    await group.delete(GROUP, "Sdk-Group")


async def test_what_a_machine_has_pending(simulator: Simulator, maintenance: MaintenanceManagementClient) -> None:
    place = (GROUP, "Microsoft.Compute", "virtualMachines", simulator.take().rpartition("/")[2])
    assert [each async for each in maintenance.updates.list(*place)] == []
    applied: object = await maintenance.apply_updates.create_or_update(*place)
    assert applied is None
    assert [each async for each in maintenance.apply_updates.list()] == []


async def test_a_run_is_read_by_its_name(maintenance: MaintenanceManagementClient) -> None:
    await a_schedule(maintenance, "Sdk-Four")
    place = (GROUP, "Microsoft.Maintenance", "maintenanceConfigurations", "Sdk-Four")
    # 2030-01-12 22:00 in India, four days after the second Tuesday.
    run = await maintenance.apply_updates.get(*place, "20300112163000")
    assert (run.name, run.status) == ("20300112163000", "Pending")
