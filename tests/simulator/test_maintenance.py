"""Microsoft.Maintenance on the wire: configurations and assignments, with the habits that were recorded."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.simulator.conftest import GROUP, SUBSCRIPTION, Json, Simulator

API = {"api-version": "2023-04-01"}
PROVIDER = "/providers/Microsoft.Maintenance"


def configuration_id(name: str) -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-maintenance{PROVIDER}/maintenanceConfigurations/{name}"


def body(**window: Any) -> Json:
    """A configuration that patches everything every night, in 2030."""
    return {
        "location": "westeurope",
        "properties": {
            "maintenanceScope": "InGuestPatch",
            "extensionProperties": {"InGuestPatchMode": "User"},
            "maintenanceWindow": {
                "startDateTime": "2030-01-05 22:00",
                "duration": "02:00",
                "timeZone": "W. Europe Standard Time",
                "recurEvery": "Day",
            }
            | window,
            "installPatches": {
                "rebootSetting": "IfRequired",
                "windowsParameters": {"classificationsToInclude": ["Critical", "Security"]},
                "linuxParameters": {"classificationsToInclude": ["Critical", "Security"]},
            },
        },
    }


def put(simulator: Simulator, path: str, document: Json) -> Any:
    return simulator.http.put(path, params=API, json=document)


def made(simulator: Simulator, name: str) -> str:
    one = configuration_id(name)
    assert put(simulator, one, body()).status_code == 200
    return one


def test_a_configuration_is_made_read_changed_and_deleted(simulator: Simulator) -> None:
    one = configuration_id("Nightly")
    created = put(simulator, one, body())
    assert created.status_code == 200
    document = created.json()
    assert document["tags"] == {}
    assert document["properties"]["configurationType"] == "Regular"
    assert document["properties"]["maintenanceWindow"]["expirationDateTime"] == "9999-12-31 23:59:59"
    assert document["id"].endswith("/resourcegroups/rg-maintenance" + PROVIDER + "/maintenanceConfigurations/Nightly")
    read = simulator.http.get(one, params=API).json()
    assert "/providers/microsoft.maintenance/maintenanceconfigurations/Nightly" in read["id"]
    change = {"tags": {"a": "b"}, "properties": {"maintenanceWindow": {"duration": "03:00"}}}
    changed = simulator.http.patch(one, params=API, json=change)
    assert changed.json()["tags"] == {"a": "b"}
    assert changed.json()["properties"]["maintenanceWindow"]["duration"] == "03:00"
    assert changed.json()["properties"]["maintenanceWindow"]["recurEvery"] == "Day"
    listed = simulator.http.get(one.rpartition("/")[0], params=API).json()["value"]
    assert "Nightly" in [each["name"] for each in listed]
    gone = simulator.http.delete(one, params=API)
    assert (gone.status_code, gone.content) == (200, b"")
    assert simulator.http.delete(one, params=API).status_code == 204
    missing = simulator.http.get(one, params=API)
    assert missing.status_code == 404
    assert missing.json()["Error"]["Code"] == "NotFound"


@pytest.mark.parametrize(
    "window",
    [
        {"duration": "01:29"},
        {"duration": "03:56"},
        {"duration": "two hours"},
        {"recurEvery": "5Hours"},
        {"recurEvery": "Month Third Sunday Offset7"},
        {"timeZone": "Europe/Berlin"},
        {"startDateTime": "05.01.2030"},
        {"expirationDateTime": "2020-01-01 00:00"},
    ],
)
def test_a_window_outside_the_limits_is_refused(simulator: Simulator, window: Json) -> None:
    refused = put(simulator, configuration_id("refused"), body(**window))
    assert refused.status_code == 400
    assert refused.json()["Error"]["Message"]


def test_a_configuration_of_guests_needs_the_patch_mode(simulator: Simulator) -> None:
    document = body()
    document["properties"]["extensionProperties"] = {}
    refused = put(simulator, configuration_id("refused"), document)
    assert refused.json()["Error"]["Message"] == "Extension properties must contain Patch mode"


def test_a_machine_is_assigned_and_removed(simulator: Simulator) -> None:
    configuration, machine = made(simulator, "For-One"), simulator.take()
    path = f"{machine}{PROVIDER}/configurationAssignments/mine"
    document = {"location": "westeurope", "properties": {"maintenanceConfigurationId": configuration}}
    created = put(simulator, path, document).json()
    assert created["location"] == "westeurope"
    assert created["properties"] == {
        "maintenanceConfigurationId": configuration.lower(),
        "resourceId": machine.lower(),
    }
    read = simulator.http.get(path, params=API).json()
    assert read == {key: value for key, value in created.items() if key != "location"}
    assert simulator.http.get(path.rpartition("/")[0], params=API).json() == {"value": [read]}
    assert simulator.http.delete(path, params=API).status_code == 200
    assert simulator.http.delete(path, params=API).status_code == 204
    assert simulator.http.get(path, params=API).json()["Error"]["Code"] == "NotFound"


def test_a_dynamic_scope_of_a_group_names_locations(simulator: Simulator) -> None:
    configuration = made(simulator, "For-Many")
    path = f"{GROUP}{PROVIDER}/configurationAssignments/web"
    filter_: Json = {"tagSettings": {"tags": {"role": ["web"]}, "filterOperator": "Any"}, "osTypes": ["Linux"]}
    properties: Json = {"maintenanceConfigurationId": configuration, "filter": filter_}
    assert put(simulator, path, {"properties": properties}).status_code == 400
    filter_["locations"] = ["westeurope"]
    created = put(simulator, path, {"properties": properties})
    assert created.json()["properties"]["filter"] == filter_
    assert created.json()["properties"]["resourceId"] == GROUP.lower()
    update = {"properties": {"filter": {"osTypes": ["Windows"]}}}
    assert simulator.http.patch(path, params=API, json=update).json()["properties"]["filter"]["osTypes"] == ["Windows"]
    whole = f"/subscriptions/{SUBSCRIPTION}{PROVIDER}/configurationAssignments"
    listed = simulator.http.get(whole, params=API).json()["value"]
    assert "web" in [each["name"] for each in listed]
    assert simulator.http.delete(path, params=API).status_code == 200


def test_an_assignment_needs_its_machine_and_its_configuration(simulator: Simulator) -> None:
    machine = simulator.take()
    document = {"location": "westeurope", "properties": {"maintenanceConfigurationId": configuration_id("none")}}
    assert put(simulator, f"{machine}{PROVIDER}/configurationAssignments/a", document).status_code == 404
    nobody = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/nobody{PROVIDER}/configurationAssignments/a"
    assert put(simulator, nobody, document).json()["error"]["code"] == "ResourceNotFound"


def test_a_machine_with_nothing_pending_answers_null(simulator: Simulator) -> None:
    reply = put(simulator, f"{simulator.take()}{PROVIDER}/applyUpdates/default", {})
    assert (reply.status_code, reply.text) == (200, "null")


def test_the_documented_query_finds_the_assignments_to_delete(simulator: Simulator) -> None:
    configuration, machine = made(simulator, "To-Find"), simulator.take()
    document = {"location": "westeurope", "properties": {"maintenanceConfigurationId": configuration}}
    put(simulator, f"{machine}{PROVIDER}/configurationAssignments/findMe", document)
    query = f"""
    maintenanceresources
    | where type =~ "microsoft.maintenance/configurationassignments"
    | where properties.maintenanceConfigurationId =~ "{configuration}"
    | where properties.resourceId =~ "{machine}"
    | project name, id
    """
    deadline = time.monotonic() + 10
    while not (rows := ask(simulator, query)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert rows == [{"name": "findMe", "id": f"{machine}{PROVIDER}/configurationAssignments/findMe".lower()}]
    assert ask(simulator, f"resources | where id =~ '{configuration}' | project name") == [{"name": "To-Find"}]


def test_a_machine_that_forbids_calls_forbids_assignments(simulator: Simulator) -> None:
    configuration, machine = made(simulator, "Forbidden"), simulator.take(forbidden=True)
    document = {"location": "westeurope", "properties": {"maintenanceConfigurationId": configuration}}
    refused = put(simulator, f"{machine}{PROVIDER}/configurationAssignments/a", document)
    assert refused.status_code == 403
    assert "Microsoft.Maintenance/configurationAssignments/write" in refused.json()["error"]["message"]


def ask(simulator: Simulator, query: str) -> list[Json]:
    path, api = "/providers/Microsoft.ResourceGraph/resources", {"api-version": "2021-03-01"}
    return simulator.http.post(path, params=api, json={"query": query}).json()["data"]
