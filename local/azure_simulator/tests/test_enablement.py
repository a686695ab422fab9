"""Enablement of automatic guest patching: three hours of off-peak time, then the extension and an assessment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from local.azure_simulator.clock import Clock
from local.azure_simulator.compute import machine_views
from local.azure_simulator.compute.behavior import Simulation
from local.azure_simulator.compute.enablement import enabled_at
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.compute.machine_update import update_machine
from local.azure_simulator.resource_graph.patch_rows import patch_rows
from local.azure_simulator.state import AzureState

HOUR = 3600.0
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
BY_PLATFORM = {"patchSettings": {"patchMode": "AutomaticByPlatform"}}


class Moment:
    """The time of a clock, which a test moves."""

    seconds = 0.0


def estate(
    *, os_type: str = "Linux", by_platform: bool = False, **simulation: Any
) -> tuple[AzureState, Machine, Moment]:
    """A machine at noon."""
    moment = Moment()
    clock = Clock(1, started_at=NOON, monotonic=lambda: moment.seconds)
    half = "windowsConfiguration" if os_type == "Windows" else "linuxConfiguration"
    machine = Machine(
        machine_id="/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm",
        location="westeurope",
        os_type=os_type,
        simulation=Simulation.model_validate({"pendingPatches": 2} | simulation),
        seed=1,
        clock=clock,
        given={"properties": {"osProfile": {half: BY_PLATFORM}}} if by_platform else {},
    )
    return AzureState([machine], clock, "https://azure", graph_lag=0), machine, moment


def view(machine: Machine, now: float) -> dict[str, Any]:
    machine.settle(now)
    return machine_views.instance_view(machine, now)


def enable(machine: Machine, now: float = 0.0) -> None:
    update_machine(machine, {"properties": {"osProfile": {"linuxConfiguration": BY_PLATFORM}}}, now)


@pytest.mark.parametrize(
    ("changed", "enabled"),
    [
        ("2026-11-02T12:00", "2026-11-03T01:00"),
        ("2026-11-02T22:00", "2026-11-03T01:00"),
        ("2026-11-02T23:30", "2026-11-03T02:30"),
        ("2026-11-03T02:59", "2026-11-03T05:59"),
        # What the off-peak hours leave no time for goes on in the next ones.
        ("2026-11-03T04:00", "2026-11-03T23:00"),
        ("2026-11-03T05:59", "2026-11-04T00:59"),
        ("2026-11-03T06:00", "2026-11-04T01:00"),
    ],
)
def test_three_hours_of_off_peak_time(changed: str, enabled: str):
    assert f"{enabled_at(datetime.fromisoformat(changed + ':00+00:00')):%Y-%m-%dT%H:%M}" == enabled


def test_the_instance_view_before_and_after():
    azure, machine, moment = estate()
    enable(machine)
    moment.seconds = 12.9 * HOUR
    before = view(machine, moment.seconds)
    assert "extensions" not in before
    assert "patchStatus" not in before
    moment.seconds = 13.1 * HOUR
    after = view(machine, moment.seconds)
    [extension] = after["extensions"]
    assert extension["type"] == "Microsoft.CPlat.Core.LinuxPatchExtension"
    assert extension["statuses"][0]["code"] == "ProvisioningState/succeeded"
    assert after["vmAgent"]["extensionHandlers"][0]["type"] == extension["type"]
    assert after["patchStatus"]["availablePatchSummary"]["status"] == "Succeeded"
    assert [each["code"] for each in after["patchStatus"]["configurationStatuses"]] == [
        "PatchModeConfigurationState/Ready"
    ]
    [row] = patch_rows(azure, "patchassessmentresources", None, "where type =~ 'patchassessmentresults'")
    assert row["properties"]["startedBy"] == "Platform"


def test_a_machine_that_is_off_is_enabled_in_later_off_peak_hours():
    _, machine, moment = estate()
    enable(machine)
    machine.power = "deallocated"
    machine.settle(20 * HOUR)
    machine.power = "running"
    assert "extensions" not in view(machine, 30 * HOUR)
    assert "extensions" in view(machine, 38 * HOUR)
    assert moment.seconds == 0.0


def test_a_mode_that_is_taken_back_is_not_enabled():
    _, machine, _ = estate()
    enable(machine)
    back = {"patchSettings": {"patchMode": "ImageDefault"}}
    update_machine(machine, {"properties": {"osProfile": {"linuxConfiguration": back}}}, HOUR)
    assert "extensions" not in view(machine, 40 * HOUR)


@pytest.mark.parametrize("os_type", ["Linux", "Windows"])
def test_a_fleet_that_is_set_to_it_is_enabled_already(os_type: str):
    azure, machine, _ = estate(os_type=os_type, by_platform=True)
    name = f"{os_type}PatchExtension"
    assert view(machine, 0)["extensions"][0]["name"] == name
    row = machine_views.extension_row(machine, azure.tenant_id)
    assert (row["properties"]["type"], row["properties"]["provisioningState"]) == (name, "Succeeded")


def test_an_extension_that_failed():
    _, machine, _ = estate(by_platform=True, patchExtension="failed")
    shown = view(machine, 0)
    assert shown["extensions"][0]["statuses"][0]["code"] == "ProvisioningState/failed/52"
    assert "patchStatus" not in shown


def test_what_was_before_the_start():
    azure, machine, _ = estate(assessedHoursAgo=5, installedHoursAgo=50)
    status = view(machine, 0)["patchStatus"]
    assert status["lastPatchInstallationSummary"]["startTime"].startswith("2026-10-31T0")
    assert status["availablePatchSummary"]["lastModifiedTime"].startswith("2026-11-02T07:00")
    rows = list(patch_rows(azure, "patchinstallationresources", None, "where type =~ 'patchinstallationresults'"))
    assert [row["properties"]["startedBy"] for row in rows] == ["Platform"]
