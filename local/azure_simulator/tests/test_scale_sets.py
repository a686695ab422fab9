"""Scale sets: members of Flexible ones are virtual machines, Uniform ones have none, and autoscale deletes members."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.azure_simulator.clock import Clock
from local.azure_simulator.fleet import read_fleet
from local.azure_simulator.state import AzureState
from tests.support.simulator import API, GROUP, SUBSCRIPTION, Simulator, as_client, machine_id, running

SETS = f"{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets"
GRAPH_API = {"api-version": "2022-10-01"}
SYSTEM = {"storageProfile": {"osDisk": {"osType": "Linux"}}}
HEALTH = {
    "name": "health",
    "properties": {"publisher": "Microsoft.ManagedServices", "type": "ApplicationHealthLinux"},
}
FIXED = {
    "id": f"{SETS}/vmss-fixed",
    "location": "West Europe",
    "properties": {
        "orchestrationMode": "Flexible",
        "platformFaultDomainCount": 3,
        "virtualMachineProfile": {"extensionProfile": {"extensions": [HEALTH]}},
    },
}
UNIFORM = {
    "id": f"{SETS}/vmss-uniform",
    "location": "westeurope",
    "tags": {"env": "prod"},
    "sku": {"name": "Standard_D4s_v5", "tier": "Standard", "capacity": 7},
    "properties": {"virtualMachineProfile": SYSTEM},
}


def member(number: int, name: str, **more: Any) -> dict[str, Any]:
    scale_set = {"virtualMachineScaleSet": {"id": f"{SETS}/{name}", "resourceGroup": "rg-sim"}}
    return {"id": machine_id(number), "location": "westeurope"} | SYSTEM | scale_set | more


FLEET = {
    "machines": [
        *(member(number, "vmss-fixed", zones=["2"] if number == 3 else []) for number in range(5)),
        *(member(number, "vmss-spread", simulation={"appHealth": "unhealthy"}) for number in range(10, 13)),
        member(20, "VMSS-PINNED", properties={"platformFaultDomain": 1}),
        member(21, "vmss-pinned", properties={"platformFaultDomain": -1}),
        {"id": machine_id(30), "location": "westeurope"} | SYSTEM,
    ],
    "scaleSets": [FIXED, UNIFORM],
}


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    folder = tmp_path_factory.mktemp("scale-sets")
    with running(folder, FLEET, "--speed", "1200") as document, httpx.Client(**as_client(document)) as http:
        http.post("/_sim/limits", json={"enabled": False})
        yield Simulator(document, http)


def rows(azure: Simulator, kind: str) -> list[dict[str, Any]]:
    query = f"resources | where type =~ 'microsoft.compute/{kind}' | order by id asc"
    reply = azure.http.post("/providers/Microsoft.ResourceGraph/resources", params=GRAPH_API, json={"query": query})
    assert reply.status_code == 200, reply.text
    return reply.json()["data"]


def domains(azure: Simulator, *numbers: int) -> list[int | None]:
    views = [azure.machine(machine_id(number))["properties"]["instanceView"] for number in numbers]
    assert not any("platformUpdateDomain" in view for view in views)
    return [view.get("platformFaultDomain") for view in views]


def test_members_of_a_flexible_set_are_rows_of_their_own(azure: Simulator) -> None:
    named = {row["id"]: row["properties"].get("virtualMachineScaleSet") for row in rows(azure, "virtualMachines")}
    assert len(named) == 11
    assert named[machine_id(0)] == {"id": f"{SETS}/vmss-fixed"}
    assert named[machine_id(30)] is None


def test_a_set_is_a_row_with_its_mode_and_its_size(azure: Simulator) -> None:
    found = {row["name"]: row for row in rows(azure, "virtualMachineScaleSets")}
    shown = {
        name: (row["properties"]["orchestrationMode"], row["sku"]["capacity"], row["location"], row["resourceGroup"])
        for name, row in found.items()
    }
    assert shown == {
        "vmss-fixed": ("Flexible", 5, "westeurope", "rg-sim"),
        "vmss-uniform": ("Uniform", 7, "westeurope", "rg-sim"),
        "vmss-spread": ("Flexible", 3, "westeurope", "rg-sim"),
        "VMSS-PINNED": ("Flexible", 2, "westeurope", "rg-sim"),
    }
    assert found["vmss-uniform"]["tags"] == {"env": "prod"}
    system = found["vmss-uniform"]["properties"]["virtualMachineProfile"]["storageProfile"]["osDisk"]["osType"]
    assert system == "Linux"


def test_a_set_is_read_by_its_id_and_listed(azure: Simulator) -> None:
    read = azure.http.get(f"{SETS}/VMSS-Fixed", params=API).json()
    assert (read["type"], read["name"]) == ("Microsoft.Compute/virtualMachineScaleSets", "vmss-fixed")
    listed = azure.http.get(SETS, params=API).json()["value"]
    everywhere = azure.http.get(
        f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/virtualMachineScaleSets", params=API
    ).json()["value"]
    assert [each["name"] for each in listed] == [each["name"] for each in everywhere]
    assert len(listed) == 4
    missing = azure.http.get(f"{SETS}/vmss-none", params=API)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "ResourceNotFound")


def test_fault_domains_are_counted_in_each_zone(azure: Simulator) -> None:
    assert domains(azure, 0, 1, 2, 3, 4) == [0, 1, 2, 0, 0]


def test_a_set_with_maximum_spreading_shows_one_fault_domain(azure: Simulator) -> None:
    assert domains(azure, 10, 11, 12) == [0, 0, 0]


def test_the_model_shows_the_fault_domain_of_the_creation(azure: Simulator) -> None:
    assert domains(azure, 20, 21) == [1, 1]
    model = [azure.machine(machine_id(number))["properties"] for number in (0, 20, 21)]
    assert [each.get("platformFaultDomain") for each in model] == [None, 1, -1]


def test_the_extension_of_the_set_tells_the_health_of_its_members(azure: Simulator) -> None:
    views = [azure.machine(machine_id(number))["properties"]["instanceView"] for number in (0, 10, 20)]
    codes = [view["vmHealth"]["status"]["code"] for view in views if "vmHealth" in view]
    assert codes == ["HealthState/healthy", "HealthState/unhealthy"]
    kinds = {
        row["name"]: [
            each["properties"]["type"]
            for each in row["properties"]["virtualMachineProfile"].get("extensionProfile", {}).get("extensions", [])
        ]
        for row in rows(azure, "virtualMachineScaleSets")
    }
    assert kinds == {
        "vmss-fixed": ["ApplicationHealthLinux"],
        "vmss-uniform": [],
        "vmss-spread": ["ApplicationHealthLinux"],
        "VMSS-PINNED": [],
    }


def test_a_member_that_autoscale_deletes_ends_its_operation(azure: Simulator) -> None:
    one = machine_id(4)
    azure.http.post("/_sim/machines", json={"id": one, "simulation": {"installMinutes": 300, "pendingPatches": 2}})
    body = {
        "maximumDuration": "PT2H",
        "rebootSetting": "Never",
        "linuxParameters": {"classificationsToInclude": ["Security"]},
    }
    accepted = azure.post(one, "installPatches", body)
    assert azure.http.get(accepted.headers["azure-asyncoperation"]).json()["status"] == "InProgress"
    azure.http.post("/_sim/machines", json={"id": one, "simulation": {"deleted": True}})
    ended = azure.follow(accepted)
    assert (ended["status"], ended["error"]["code"]) == ("Canceled", "OperationPreempted")
    assert azure.http.get(one, params=API).status_code == 404
    [shrunk] = [row for row in rows(azure, "virtualMachineScaleSets") if row["name"] == "vmss-fixed"]
    assert shrunk["sku"]["capacity"] == 4
    assert one not in {row["id"] for row in rows(azure, "virtualMachines")}


def test_sets_among_the_machines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    broken = {"id": f"{SETS}/vmss-nowhere"}
    path.write_text(json.dumps({"data": [UNIFORM, member(1, "vmss-web"), UNIFORM, broken]}))
    fleet = read_fleet(path, Clock(60), 1)
    assert fleet.notes == [
        f"data[2] is left out: {SETS}/vmss-uniform is listed already",
        "data[3] is left out: it has no location",
    ]
    state = AzureState(fleet.machines, Clock(60), "https://localhost", scale_sets=fleet.scale_sets)
    modes = {each.name: (each.is_flexible, len(each.members)) for each in state.scale_sets}
    assert modes == {"vmss-uniform": (False, 0), "vmss-web": (True, 1)}
