"""Fleets: the forms of a file, made-up ones, what is put right, and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from local.azure_simulator.arm.regions import REGIONS, location_document
from local.azure_simulator.clock import Clock
from local.azure_simulator.fleet import FleetError, generate_fleet, read_fleet
from local.azure_simulator.state import AzureState
from tests.support.simulator import SUBSCRIPTION, arc_id, machine_id

FLAT = {"id": machine_id(1), "name": "vm-001", "location": "westeurope", "tags": {"env": "prod"}}
SYSTEM = {"storageProfile": {"osDisk": {"osType": "Linux"}}}


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    "document",
    [
        [FLAT | SYSTEM],
        {"value": [FLAT | {"properties": SYSTEM}]},
        {"data": [FLAT | {"properties": SYSTEM, "type": "microsoft.compute/virtualmachines"}]},
    ],
    ids=["az vm list", "ARM list", "Resource Graph"],
)
def test_the_three_forms_of_a_fleet_file(tmp_path: Path, document: Any) -> None:
    fleet = read_fleet(write(tmp_path / "fleet.json", document), Clock(60), 1)
    assert [(machine.id, machine.location) for machine in fleet.machines] == [(machine_id(1), "westeurope")]
    assert fleet.notes == []


@pytest.mark.parametrize(
    "document",
    ["nothing", {"fleet": []}, [{"id": "/subscriptions/x"}], [FLAT | SYSTEM | {"simulation": {"powr": "stopped"}}]],
    ids=["no list", "another object", "no machine", "no machine that can be used"],
)
def test_what_is_no_fleet_is_refused(tmp_path: Path, document: Any) -> None:
    with pytest.raises(FleetError):
        read_fleet(write(tmp_path / "fleet.json", document), Clock(60), 1)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("vm", "None is not the id"),
        ({"id": "/subscriptions/x"}, "'/subscriptions/x' is not the id"),
        ({"id": machine_id(2), "location": "eastus", "osType": "Plan9"}, "osType must be Windows or Linux"),
        ({"id": machine_id(2)}, "it has no location"),
        ({"id": machine_id(2), "location": "eastus", "simulation": {"powr": "stopped"}}, "simulation.powr: "),
        (
            {"id": machine_id(2), "location": "eastus", "simulation": {"pendingPatches": [{"name": "x", "kb": "KB1"}]}},
            "simulation.pendingPatches.0.kb: ",
        ),
    ],
)
def test_a_broken_machine_is_left_out_and_reported(tmp_path: Path, entry: Any, complaint: str) -> None:
    fleet = read_fleet(write(tmp_path / "fleet.json", {"value": [FLAT, entry]}), Clock(60), 1)
    assert [machine.id for machine in fleet.machines] == [machine_id(1)]
    assert len(fleet.notes) == 1
    assert fleet.notes[0].startswith("value[1] is left out: ")
    assert complaint in fleet.notes[0]


def test_a_machine_that_is_listed_twice_is_merged(tmp_path: Path) -> None:
    again = {"id": machine_id(1).upper(), "location": "eastus", "zones": ["2"], "tags": {"env": "dev", "app": "shop"}}
    fleet = read_fleet(write(tmp_path / "fleet.json", [FLAT | SYSTEM, again]), Clock(60), 1)
    (machine,) = fleet.machines
    assert (machine.id, machine.location, machine.zones) == (machine_id(1), "westeurope", ["2"])
    assert machine.tags == {"env": "prod", "app": "shop"}
    assert fleet.notes[0].startswith("[1] is [0] again")


ARC = {"id": arc_id(1), "name": "srv-001", "location": "West Europe"}


@pytest.mark.parametrize(
    "entry",
    [
        ARC | {"osType": "windows", "status": "Disconnected", "kind": "AWS", "osProfile": {"computerName": "SRV"}},
        ARC | {"properties": {"osType": "windows", "status": "Disconnected"}, "kind": "AWS"},
        ARC | {"properties": {"osName": "Windows", "status": "Disconnected"}, "kind": "AWS", "osType": None},
        ARC | {"osProfile": {"windowsConfiguration": {"patchSettings": {}}}, "status": "Disconnected", "kind": "AWS"},
    ],
    ids=["az connectedmachine list", "Resource Graph", "by its name", "by its settings"],
)
def test_arc_machines_of_the_file(tmp_path: Path, entry: dict[str, Any]) -> None:
    fleet = read_fleet(write(tmp_path / "fleet.json", [FLAT | SYSTEM, entry]), Clock(60), 1)
    assert [machine.id for machine in fleet.machines] == [machine_id(1)]
    (machine,) = fleet.arc_machines
    assert (machine.id, machine.location, machine.os_type) == (arc_id(1), "westeurope", "Windows")
    assert machine.given["kind"] == "AWS"
    assert machine.status(machine.clock.now()) == "Disconnected"
    assert fleet.notes == []


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"simulation": {"power": "stopped"}}, "simulation.power: "),
        ({"simulation": {"status": "Off"}}, "simulation.status: "),
        ({"status": "Off"}, "status must be one of Connected, Disconnected, Expired, Error, AwaitingConnection, not "),
        ({"osType": "Plan9"}, "osType must be Windows or Linux"),
        ({"location": None}, "it has no location"),
    ],
)
def test_a_broken_arc_machine_is_left_out_and_reported(tmp_path: Path, fields: Any, complaint: str) -> None:
    fleet = read_fleet(write(tmp_path / "fleet.json", [FLAT | SYSTEM, ARC | fields]), Clock(60), 1)
    assert fleet.arc_machines == []
    (note,) = fleet.notes
    assert note.startswith("[1] is left out: ")
    assert complaint in note


def test_a_fleet_of_arc_machines_alone(tmp_path: Path) -> None:
    fleet = read_fleet(write(tmp_path / "fleet.json", {"value": [ARC]}), Clock(60), 1)
    azure = AzureState([*fleet.machines, *fleet.arc_machines], Clock(60), "https://localhost")
    assert azure.state(fleet.arc_machines[0]) | {"pendingPatches": 0} == {
        "id": arc_id(1),
        "status": "Connected",
        "hasContact": True,
        "rebootPending": False,
        "pendingPatches": 0,
        "operation": None,
        "accepted": {"assess": 0, "install": 0},
        "simulation": {},
    }


def test_update_domains_of_the_file(tmp_path: Path) -> None:
    group = machine_id(1).partition("/virtualMachines")[0]
    member = {"location": "eastus", "availabilitySet": {"id": f"{group}/availabilitySets/av-web"}}
    document = [
        member | {"id": machine_id(1), "simulation": {"updateDomain": 4}},
        member | {"id": machine_id(2), "instanceView": {"platformUpdateDomain": 3}},
        member | {"id": machine_id(3)},
    ]
    machines = read_fleet(write(tmp_path / "fleet.json", document), Clock(60), 1).machines
    AzureState(machines, Clock(60), "https://localhost")
    assert [machine.update_domain for machine in machines] == [4, 3, 2]


def test_places_of_the_file(tmp_path: Path) -> None:
    zone = {"subscriptionId": SUBSCRIPTION.upper(), "location": "West Europe", "logicalZone": "1"}
    document = {
        "machines": [FLAT],
        "zoneMappings": [zone | {"physicalZone": "westeurope-az9"}, zone],
        "regionPairs": [["West Europe", "italynorth"], ["westeurope"]],
    }
    fleet = read_fleet(write(tmp_path / "fleet.json", document), Clock(60), 1)
    assert [note.partition(" ")[0] for note in fleet.notes] == ["zoneMappings[1]", "regionPairs[1]"]
    shown = location_document(SUBSCRIPTION, REGIONS["westeurope"], fleet.geography)
    assert [pair["name"] for pair in shown["metadata"]["pairedRegion"]] == ["italynorth"]
    mappings = {each["logicalZone"]: each["physicalZone"] for each in shown["availabilityZoneMappings"]}
    assert mappings["1"] == "westeurope-az9"
    assert len(mappings) == 3


def test_the_same_seed_makes_the_same_fleet() -> None:
    first, second = ([(each.id, each.location) for each in generate_fleet(50, Clock(60), seed=7)] for _ in range(2))
    assert first == second
    assert first != [(each.id, each.location) for each in generate_fleet(50, Clock(60), seed=8)]


def test_ten_thousand_machines_load_in_seconds() -> None:
    began = time.monotonic()
    assert len(generate_fleet(10_000, Clock(60), seed=1)) == 10_000
    assert time.monotonic() - began < 20
